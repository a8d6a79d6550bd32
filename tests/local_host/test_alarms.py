"""The engine's clock."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from local_host.alarms import AlarmClock


@pytest.fixture
def clock() -> Iterator[AlarmClock]:
    clock = AlarmClock()
    clock.start()
    yield clock
    clock.stop()


def test_alarms_ring_in_the_order_of_their_times_and_cancelled_ones_never(
    clock: AlarmClock,
) -> None:
    rung: list[str] = []
    done = threading.Event()
    now = datetime.now(UTC)

    def last() -> None:
        rung.append("last")
        done.set()

    clock.set(now + timedelta(seconds=0.2), last)
    clock.set(now - timedelta(days=1), lambda: rung.append("past"))
    cancelled = clock.set(now + timedelta(seconds=0.1), lambda: rung.append("cancelled"))
    clock.set(now + timedelta(seconds=0.1), lambda: rung.append("middle"))
    clock.cancel(cancelled)
    assert done.wait(5)
    assert rung == ["past", "middle", "last"]


def test_an_alarm_that_fails_does_not_stop_the_clock(clock: AlarmClock) -> None:
    done = threading.Event()

    def fail() -> None:
        raise ValueError("the alarm's own")

    clock.set(datetime.now(UTC), fail)
    clock.set(datetime.now(UTC), done.set)
    assert done.wait(5)


def test_cancelled_alarms_do_not_pile_up(clock: AlarmClock) -> None:
    far = datetime.now(UTC) + timedelta(days=3)
    kept = clock.set(far, lambda: None)
    for _ in range(1000):
        clock.cancel(clock.set(far, lambda: None))
    assert len(clock._alarms) <= 2
    assert kept in clock._alarms
