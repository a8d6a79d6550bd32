"""The worklist with 10,000 items: how long one question for the list takes, in process.

Before each question another client of the same storage changes an item, so that no answer comes of
memory alone, and each answer is checked to know of the change. A question is what the door does:
the order of all items, and the first 500 as JSON.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from statistics import median, quantiles

from azure.data.tables import TableClient, TableServiceClient

from local_host.azurite import Azurite
from slicewatch import settings as app_settings
from slicewatch import worklist, worklist_index, worklist_order
from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.storage import WORKLIST, Storage
from slicewatch.worklist import Item, Reader

ITEMS = 10_000
_QUESTIONS = 200
_SHOWN = 500
_BATCH = 100  # of a table transaction
_READER = Reader("bench", "bench")


def measure() -> dict[str, float]:
    """``worklist_p95_ms_10000`` with the median, the first question of a process, the emulator's
    answer alone, and the same with 10,000 decided items in the table besides.
    """
    with Azurite() as azurite:
        config = app_settings.load({"SLICEWATCH_STORAGE": azurite.connection_string})
        service = TableServiceClient.from_connection_string(azurite.connection_string)
        table = service.create_table_if_not_exists(WORKLIST)
        fill(table, items(ITEMS, "open"))
        first, times = _ask(config)
        bare = _bare(table)
        fill(table, items(ITEMS, "decided", start=ITEMS))
        _, with_history = _ask(config)
    return {
        "worklist_p95_ms_10000": p95(times),
        "worklist_median_ms_10000": median(times),
        "worklist_first_ms_10000": first,
        "worklist_storage_median_ms_10000": bare,
        "worklist_p95_ms_10000_beside_10000_decided": p95(with_history),
    }


def items(count: int, state: str, start: int = 0) -> Iterator[Item]:
    """Items of different ages, priorities and lanes."""
    chance = random.Random(start)
    now = datetime.now(UTC)
    for n in range(start, start + count):
        lane = Lane.FORENSIC if n % 10 == 0 else Lane.CLINICAL
        created = now - timedelta(seconds=chance.uniform(0, 20_000))
        yield Item(
            id=f"study-{n:032x}-1-{lane}",
            study=f"2.25.{chance.getrandbits(120)}",
            generation=1,
            lane=lane,
            priority=chance.randrange(101),
            summary="mass 0.91 on 6 slices, 12 × 9 × 8 mm",
            rules=("finding",),
            created=created.isoformat(timespec="milliseconds"),
            state=state,
        )


def fill(table: TableClient, made: Iterator[Item]) -> None:
    """Put items into the table, in transactions of one partition each."""
    by_lane: dict[Lane, list[Item]] = {lane: [] for lane in Lane}
    for item in made:
        by_lane[item.lane].append(item)
    batches = [
        [("create", worklist.entity_of(item)) for item in batch]
        for listed in by_lane.values()
        for batch in itertools.batched(listed, _BATCH, strict=False)
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(table.submit_transaction, batches))


def p95(times: list[float]) -> float:
    """The 95th percentile."""
    return quantiles(times, n=20)[-1]


def _ask(config: Settings) -> tuple[float, list[float]]:
    """Milliseconds of the first question, and of those after it."""
    asking, changing = Storage(config), Storage(config)
    first = _timed(asking, config, None)
    # What was put in a moment ago counts as changed for some seconds; nobody fills a worklist so.
    time.sleep(4)
    worklist.claim(changing, next(items(1, "open")).id, _READER)
    _timed(asking, config, None)
    worklist.release(changing, next(items(1, "open")).id, _READER)
    times = []
    for item in itertools.islice(items(ITEMS, "open"), _QUESTIONS):
        changed = worklist.claim(changing, item.id, _READER)
        times.append(_timed(asking, config, changed))
        worklist.release(changing, item.id, _READER)
    return first, times


def _timed(storage: Storage, config: Settings, known: Item | None) -> float:
    begun = time.perf_counter()
    now = datetime.now(UTC)
    found = worklist_index.in_order(storage, config, now, lanes=set(Lane), states=worklist.WAITING)
    shown = [worklist_order.told(item, "bench", config, now) for item in found[:_SHOWN]]
    json.dumps(shown)
    took = (time.perf_counter() - begun) * 1000
    assert len(found) == ITEMS
    if known is not None and known not in found:
        raise AssertionError("the list does not know of the last change")
    return took


def _bare(table: TableClient) -> float:
    """Median milliseconds of the emulator's answer to what the index asks."""
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        since = datetime.now(UTC) - timedelta(seconds=5)
        list(table.query_entities("Timestamp ge @since", parameters={"since": since}))
        times.append((time.perf_counter() - begun) * 1000)
    return median(times)
