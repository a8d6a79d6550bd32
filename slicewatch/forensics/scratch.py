"""Memory that one slice after the other is measured in.

Fresh memory is paid for page by page when it is first written: for slices of 512 × 512 pixels that
took more time than the arithmetic.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

_KEPT_PIXELS = 1024 * 1024
"""Of larger slices, which are rare, nothing is kept: a thread holds 20 MiB at most."""


class Scratch(threading.local):
    """Arrays of float32 by name, each thread its own; valid until the name is asked for again."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.float32]] = {}

    def array(self, name: str, size: int) -> NDArray[np.float32]:
        """An array (size,) of any content."""
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = np.empty(size, np.float32)
            if size <= _KEPT_PIXELS:
                self._kept[name] = kept
        return kept[:size]


SCRATCH = Scratch()
