"""How long to wait before the cloud is tried again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable


class Backoff:
    """Exponential, with full jitter, shared by all connections.

    After n failures in a row the wait is drawn evenly from 0 to ``first × 2^(n-1)`` seconds, at
    most `longest`: agents that lost the same network do not come back in step.

    Args:
        clock: seconds, never going back.
        draw: an even number from 0 to 1.
    """

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._longest = longest
        self._clock = clock
        self._draw = draw
        self._lock = threading.Lock()
        self._failures = 0
        self._until = float("-inf")

    def failed(self, at_least: float = 0.0) -> float:
        """Note a failure; `at_least`: seconds that the cloud asked for. Returns the wait."""
        with self._lock:
            self._failures += 1
            ceiling = min(self._longest, self._first * 2.0 ** min(self._failures - 1, 60))
            wait = max(ceiling * self._draw(), min(at_least, self._longest))
            self._until = max(self._until, self._clock() + wait)
            return wait

    def succeeded(self) -> None:
        with self._lock:
            self._failures = 0
            self._until = float("-inf")

    @property
    def failures(self) -> int:
        """Failures in a row."""
        with self._lock:
            return self._failures

    def left(self) -> float:
        """Seconds still to wait; 0 when the cloud may be tried."""
        with self._lock:
            return max(0.0, self._until - self._clock())
