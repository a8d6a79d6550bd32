"""Entries on their way into the journal: several objects share a transaction.

An object is safe once its file is, because the file's name is its SHA-256: one that was
acknowledged and did not reach the journal is noted at the next start (`edge.intake.rebuild`). So
its sender does not wait for the journal's disk too.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from edge.database import DatabaseUnavailable
from edge.entries import Entry
from edge.journal import Journal

_log = logging.getLogger(__name__)

_GATHER_S = 0.05
"""A transaction waits for the disk, which objects that arrive wait for too."""

_RETRY_S = 1.0

type _Item = tuple[Entry, bool] | threading.Event | None


class Noting:
    """Notes in one thread until `stop`.

    Args:
        noted: called with the entries that have reached the journal.
    """

    def __init__(self, journal: Journal, noted: Callable[[Sequence[Entry]], None]) -> None:
        self._journal = journal
        self._noted = noted
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="noting", daemon=True)
        self._thread.start()

    def put(self, entry: Entry, *, urgent: bool) -> None:
        """Note an object soon."""
        self._queue.put((entry, urgent))

    def flush(self) -> None:
        """Wait until all that was put is in the journal."""
        reached = threading.Event()
        self._queue.put(reached)
        while self._thread.is_alive() and not reached.wait(0.1):
            pass

    def stop(self) -> None:
        """Note what was put, and end."""
        self._queue.put(None)
        self._thread.join()

    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        ended = False
        while not ended:
            items = [self._queue.get()]
            if isinstance(items[0], tuple):
                time.sleep(_GATHER_S)
            while not self._queue.empty():
                items.append(self._queue.get())
            pairs = [item for item in items if isinstance(item, tuple)]
            if pairs:
                self._note(pairs, last=None in items)
                self._noted([entry for entry, _ in pairs])
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()
            ended = None in items

    def _note(self, pairs: Sequence[tuple[Entry, bool]], *, last: bool) -> None:
        """Try until the journal takes them; at the `last`, the next start finds them."""
        while True:
            try:
                self._journal.add_all(pairs)
                return
            except DatabaseUnavailable as unavailable:
                _log.error("%s; what was received is safe and is noted later", unavailable)
                if last:
                    return
                time.sleep(_RETRY_S)
