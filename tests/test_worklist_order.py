"""The order of the queue: the most urgent first, and nothing waits for ever."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from slicewatch import worklist_order
from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.worklist import Item

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SETTINGS = Settings(
    clinical_sla_s=600, forensic_sla_s=6000, clinical_max_wait_s=3600, forensic_max_wait_s=36_000
)


def item(name: str, age_s: float, priority: int = 50, **more: object) -> Item:
    created = (NOW - timedelta(seconds=age_s)).isoformat(timespec="milliseconds")
    made = Item(name, "1.2", 1, Lane.CLINICAL, priority, "", (), created)
    return dataclasses.replace(made, **more)  # type: ignore[arg-type]


def names(*items: Item) -> list[str]:
    return [one.id for one in worklist_order.queue(items, SETTINGS, NOW)]


def test_the_most_urgent_comes_first_then_the_oldest() -> None:
    assert names(item("late", 10), item("early", 20), item("urgent", 1, 90)) == [
        "urgent",
        "early",
        "late",
    ]


def test_an_item_that_escalated_is_more_urgent() -> None:
    assert names(item("a", 1), item("b", 0, 45, level=1)) == ["b", "a"]


def test_whatever_waited_for_the_limit_comes_before_all_else_the_longest_first() -> None:
    found = names(item("urgent", 3599, 100), item("low", 3600, 0), item("lower", 9000, 1))
    assert found == ["lower", "low", "urgent"]


def test_each_lane_has_its_limit() -> None:
    forensic = item("forensic", 30_000, 10, lane=Lane.FORENSIC)
    assert names(forensic, item("clinical", 1, 50)) == ["clinical", "forensic"]


def test_what_is_decided_rises_no_more() -> None:
    decided = item("decided", 90_000, 0, state="decided")
    assert names(decided, item("new", 1, 50)) == ["new", "decided"]
    stands = worklist_order.standing(decided, SETTINGS, NOW)
    assert (stands.due, stands.overdue, stands.raised) == (None, False, False)


def test_an_item_says_how_it_stands_against_the_clock() -> None:
    stands = worklist_order.standing(item("a", 700, level=1), SETTINGS, NOW)
    assert stands.due == NOW + timedelta(seconds=500)
    assert (stands.sla_s, stands.overdue, stands.raised) == (600, True, False)
    assert worklist_order.standing(item("a", 3600), SETTINGS, NOW).raised
    assert not worklist_order.standing(item("a", 599), SETTINGS, NOW).overdue


items = st.builds(
    item,
    st.uuids().map(str),
    st.floats(0, 100_000),
    st.integers(0, 100),
    lane=st.sampled_from(Lane),
    state=st.sampled_from(["open", "claimed"]),
    level=st.integers(0, 3),
)


@given(st.lists(items, max_size=20))
def test_the_queue_is_all_items_with_those_that_rose_on_top_in_the_order_of_their_limits(
    found: list[Item],
) -> None:
    order = worklist_order.queue(found, SETTINGS, NOW)
    assert sorted(order, key=lambda one: one.id) == sorted(found, key=lambda one: one.id)
    rose = [worklist_order.standing(one, SETTINGS, NOW).raised for one in order]
    assert rose == sorted(rose, reverse=True)
    limits = [
        worklist_order.created_at(one).timestamp() + worklist_order.max_wait_s(one.lane, SETTINGS)
        for one, up in zip(order, rose, strict=True)
        if up
    ]
    assert limits == sorted(limits)
    rest = [one.urgency for one, up in zip(order, rose, strict=True) if not up]
    assert rest == sorted(rest, reverse=True)
