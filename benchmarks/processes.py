"""Processor time and resident memory of groups of processes, sampled while something runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

_SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group used between two moments: CPU seconds, and the peak of its summed RSS, MiB.

    RSS counts a page that two processes share twice, so the sum is an upper bound.
    """

    cpu_s: float
    peak_rss_mib: float


class Meter:
    """Measures groups of processes as a context manager; each root with all its descendants."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = dict(roots)
        self._peak = dict.fromkeys(roots, 0)
        self._cpu: dict[str, dict[int, float]] = {name: {} for name in roots}
        self._before: dict[str, dict[int, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    @property
    def usage(self) -> dict[str, Usage]:
        """By group, since the start of the measurement."""
        return {
            name: Usage(
                sum(cpu - self._before[name].get(pid, 0.0) for pid, cpu in self._cpu[name].items()),
                self._peak[name] / (1 << 20),
            )
            for name in self._roots
        }

    def __enter__(self) -> Self:
        self._sample()
        self._before = {name: dict(cpu) for name, cpu in self._cpu.items()}
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        for name, root in self._roots.items():
            resident = 0
            # A process may end between being listed and being asked.
            with contextlib.suppress(psutil.NoSuchProcess):
                top = psutil.Process(root)
                for process in [top, *top.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        times = process.cpu_times()
                        self._cpu[name][process.pid] = times.user + times.system
                        resident += process.memory_info().rss
            self._peak[name] = max(self._peak[name], resident)
