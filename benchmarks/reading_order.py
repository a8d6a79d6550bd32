"""A reading room simulated: what the order of the worklist does to those who wait.

    python -m benchmarks.reading_order

Studies come at random, readers take the next one in the queue's order, and that order is the app's
own (`slicewatch.worklist_order`). A study with something in it mostly gets a high score and is
flagged; a few get a low one, as a detector that misses gives it. One without mostly gets a low
score. A study that is not flagged waits in the same queue with the priority 0: readers read all.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import mean

from slicewatch import worklist_order
from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.worklist import Item

HOURS = 240
READERS = 2
READING_MIN = 6.0
BUSY_HOURS, BUSY, QUIET = 12, 1.25, 0.6
"""Of each day; work that comes over what the readers can do, then and in the other hours."""
POSITIVE = 0.12
SENSITIVITY, FALSE_ALARMS = 0.9, 0.25
_RUNS = 10
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Study:
    """A study that waits; minutes since the start."""

    item: Item
    arrived: float
    reading: float
    positive: bool

    @property
    def flagged(self) -> bool:
        """Whether the detector flagged it."""
        return self.item.priority > 0


@dataclass(frozen=True, slots=True)
class Turnaround:
    """Minutes from arrival to the end of the reading: the mean, and the worst of all runs."""

    mean: float
    worst: float


type Order = Callable[[list[Study], float], Study]


def first_in_first_out(waiting: list[Study], now: float) -> Study:
    """The oldest."""
    return min(waiting, key=lambda one: one.arrived)


def by_score(waiting: list[Study], now: float) -> Study:
    """The most urgent, however long others waited."""
    return min(waiting, key=lambda one: worklist_order.by_urgency(one.item))


def with_limit(hours: float) -> Order:
    """The app's order, with this limit."""
    settings = Settings(clinical_max_wait_s=hours * 3600)

    def order(waiting: list[Study], now: float) -> Study:
        at = _START + timedelta(minutes=now)
        first = worklist_order.queue((one.item for one in waiting), settings, at)[0]
        return next(one for one in waiting if one.item is first)

    return order


ORDERS: dict[str, Order] = {
    "first in, first out": first_in_first_out,
    "by score": by_score,
    **{f"by score, limit {hours} h": with_limit(hours) for hours in (4, 5, 6)},
}


def arrivals(seed: int) -> list[Study]:
    """The studies of one run: the same for each order."""
    chance = random.Random(seed)
    found: list[Study] = []
    now = 0.0
    while True:
        load = BUSY if now / 60 % 24 < BUSY_HOURS else QUIET
        now += chance.expovariate(load * READERS / READING_MIN)
        if now > HOURS * 60:
            return found
        positive = chance.random() < POSITIVE
        flagged = chance.random() < (SENSITIVITY if positive else FALSE_ALARMS)
        priority = chance.randint(40, 95) if flagged else 0
        created = (_START + timedelta(minutes=now)).isoformat(timespec="milliseconds")
        name = f"study-{len(found):06d}"
        item = Item(name, "1.2", 1, Lane.CLINICAL, priority, "", (), created)
        reading = chance.lognormvariate(0, 0.5) * READING_MIN / 1.1331  # mean READING_MIN
        found.append(Study(item, now, reading, positive))


def simulate(studies: list[Study], order: Order) -> list[tuple[Study, float]]:
    """Each study and its turnaround, minutes."""
    free = [0.0] * READERS
    waiting: list[Study] = []
    done: list[tuple[Study, float]] = []
    coming = iter(studies)
    following = next(coming, None)
    while waiting or following:
        now = heapq.heappop(free)
        if not waiting and following:
            now = max(now, following.arrived)
        while following and following.arrived <= now:
            waiting.append(following)
            following = next(coming, None)
        chosen = order(waiting, now)
        waiting.remove(chosen)
        done.append((chosen, now + chosen.reading - chosen.arrived))
        heapq.heappush(free, now + chosen.reading)
    return done


GROUPS: dict[str, Callable[[Study], bool]] = {
    "flagged": lambda one: one.flagged,
    "not flagged": lambda one: not one.flagged,
    "missed (something in it, not flagged)": lambda one: one.positive and not one.flagged,
}


def main() -> None:
    """Print the table of docs/worklist.md."""
    runs = [arrivals(seed) for seed in range(_RUNS)]
    print("| order |" + "".join(f" {name}: mean | worst |" for name in GROUPS))
    print("| --- |" + " ---: | ---: |" * len(GROUPS))
    for name, order in ORDERS.items():
        done = [one for studies in runs for one in simulate(studies, order)]
        cells = ""
        for belongs in GROUPS.values():
            times = [took for study, took in done if belongs(study)]
            cells += f" {mean(times):.0f} | {max(times):.0f} |"
        print(f"| {name} |{cells}")


if __name__ == "__main__":
    main()
