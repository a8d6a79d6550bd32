"""Callbacks at a time of day, all on one thread."""

import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

_LOGGER = logging.getLogger("local_host.engine")
_LONGEST_WAIT_S = 60.0  # the clock may be set; look again at least this often


@dataclass(order=True)
class Alarm:
    """One callback; ``at`` is UTC."""

    at: datetime
    order: int
    ring: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class AlarmClock:
    """Rings alarms in the order of their times. Thread-safe."""

    def __init__(self) -> None:
        self._alarms: list[Alarm] = []
        self._cancelled = 0
        self._orders = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="engine-alarms", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; alarms still set never ring."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def set(self, at: datetime, ring: Callable[[], None]) -> Alarm:
        """Call ``ring`` at ``at`` (aware), or at once where that is past."""
        alarm = Alarm(at, next(self._orders), ring)
        with self._changed:
            heapq.heappush(self._alarms, alarm)
            self._changed.notify()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Never ring it; its memory goes at the latest when half of all alarms are cancelled."""
        with self._changed:
            if alarm.cancelled:
                return
            alarm.cancelled = True
            self._cancelled += 1
            if self._cancelled * 2 > len(self._alarms):
                self._alarms = [one for one in self._alarms if not one.cancelled]
                heapq.heapify(self._alarms)
                self._cancelled = 0

    def _run(self) -> None:
        while (alarm := self._next()) is not None:
            try:
                alarm.ring()
            except Exception:
                # One thread rings for all orchestrations: a callback of one of them that fails, in
                # whatever way, must not silence the timers of the others.
                _LOGGER.exception("A timer of the engine failed")

    def _next(self) -> Alarm | None:
        with self._changed:
            while not self._stopped:
                now = datetime.now(UTC)
                if self._alarms and self._alarms[0].at <= now:
                    alarm = heapq.heappop(self._alarms)
                    if not alarm.cancelled:
                        alarm.cancelled = True
                        return alarm
                    self._cancelled -= 1
                    continue
                wait = (self._alarms[0].at - now).total_seconds() if self._alarms else None
                self._changed.wait(None if wait is None else min(wait, _LONGEST_WAIT_S))
        return None
