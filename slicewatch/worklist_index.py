"""The items that wait, held in memory, so that asking for the list is cheap.

A worklist is asked for all the time and changes seldom. The first time a process is asked it reads
all that waits; after that it asks table storage for what changed since (entities have the service's
``Timestamp``), and that for each list it gives: a list is never older than the request for it.
Requests that come while one asks are answered of what the next one brings.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import lru_cache

from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.storage import WORKLIST, Storage
from slicewatch.worklist import SUMMARY, WAITING, Item, item_of, listing
from slicewatch.worklist_order import by_urgency, merged, queue

_OVERLAP = timedelta(seconds=2)
"""What one partition's server may show later than another's with an earlier time."""
_SELECT = ("PartitionKey", "RowKey", "Timestamp", *SUMMARY)
_RELOAD_S = 900.0


class Index:
    """The waiting items of one storage account; safe under threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._items: dict[str, Item] = {}
        self._sorted: list[Item] = []
        self._since: datetime | None = None
        self._begun = -1.0
        self._loaded = -1.0

    def waiting(self) -> list[Item]:
        """All items that are open or claimed, as they are now or later, sorted `by_urgency`; they
        lack what readers wrote. Raises `StorageUnavailable`.
        """
        asked = time.monotonic()
        with self._lock:
            if self._begun < asked:
                self._look()
            return list(self._sorted)

    def _look(self) -> None:
        begun = time.monotonic()
        whole = self._since is None or begun - self._loaded > _RELOAD_S
        if whole:
            condition = " or ".join(f"state eq '{state}'" for state in WAITING)
            found = self._storage.entities(WORKLIST, condition, {}, select=_SELECT)
        else:
            found = self._storage.entities(
                WORKLIST, "Timestamp ge @since", {"since": self._since}, select=_SELECT
            )
        entities = list(found)
        if whole:
            self._items, self._sorted, self._loaded = {}, [], begun
        self._take([item_of(entity) for entity in entities], whole=whole)
        newest = max((entity["timestamp"] for entity in entities), default=None)
        if newest is not None:
            # What changed while this looked may be behind what it saw: it is looked at again.
            took = timedelta(seconds=time.monotonic() - begun)
            self._since = newest - took - _OVERLAP
        self._begun = begun

    def _take(self, items: list[Item], *, whole: bool) -> None:
        changed = [item for item in items if self._items.get(item.id) != item]
        for item in changed:
            self._drop(item.id)
            if item.state in WAITING:
                self._items[item.id] = item
                if not whole:
                    bisect.insort(self._sorted, item, key=by_urgency)
        if whole:
            self._sorted = sorted(self._items.values(), key=by_urgency)

    def _drop(self, item: str) -> None:
        old = self._items.pop(item, None)
        if old is not None:
            del self._sorted[bisect.bisect_left(self._sorted, by_urgency(old), key=by_urgency)]


@lru_cache(maxsize=8)
def of(storage: Storage) -> Index:
    """The index of an account, one a process."""
    return Index(storage)


def in_order(
    storage: Storage,
    settings: Settings,
    now: datetime,
    *,
    lanes: Collection[Lane],
    states: Collection[str],
) -> list[Item]:
    """The items of these lanes and states in the order of the queue. Raises `StorageUnavailable`.

    Those that wait come from the index; others are asked for each time.
    """
    if set(states) <= set(WAITING):
        items = of(storage).waiting()
        found = [one for one in items if one.lane in lanes and one.state in states]
        return merged(found, settings, now)
    every = listing(storage, states=tuple(states))
    return queue((one for one in every if one.lane in lanes), settings, now)
