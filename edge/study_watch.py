"""When a study is over: at the end of its last association, or after a quiet period.

Timed by the monotonic clock, so a wall clock that jumps neither closes a study early nor keeps it
open. A restarted agent waits the period anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from edge.config import Study
from edge.journal import Journal


@dataclass(slots=True)
class _Live:
    last: float
    associations: set[Hashable] = field(default_factory=set)
    released: bool = False


class StudyWatch:
    """Watches the studies that still arrive; safe under threads.

    Args:
        clock: seconds, never going back.
    """

    def __init__(
        self, journal: Journal, config: Study, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal = journal
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._live = {row.uid: _Live(clock()) for row in journal.studies(over=False)}

    def touch(self, study: str, association: Hashable | None = None) -> None:
        """An object of the study came, over an association or by a folder."""
        with self._lock:
            live = self._live.setdefault(study, _Live(0.0))
            live.last = self._clock()
            live.released = False
            if association is not None:
                live.associations.add(association)

    def touch_again(self, study: str) -> None:
        """An object of the study reached the journal; its door may have told before or after."""
        with self._lock:
            self._live.setdefault(study, _Live(self._clock())).last = self._clock()

    def association_ended(self, association: Hashable, *, released: bool) -> None:
        """An association ended; `released`: as agreed, and not by an abort."""
        with self._lock:
            for live in self._live.values():
                if association in live.associations:
                    live.associations.discard(association)
                    live.released = released
                    live.last = self._clock()

    def close_due(self) -> list[str]:
        """Mark the studies over that are; returns them."""
        now = self._clock()
        with self._lock:
            due = [uid for uid, live in self._live.items() if self._is_over(live, now)]
            for uid in due:
                del self._live[uid]
                self._journal.mark_over(uid)
        return due

    def live(self) -> int:
        """How many studies are still arriving."""
        with self._lock:
            return len(self._live)

    def _is_over(self, live: _Live, now: float) -> bool:
        quiet = now - live.last
        if self._config.close == "association" and live.released and not live.associations:
            return quiet >= self._config.settle_s
        return quiet >= self._config.quiet_s
