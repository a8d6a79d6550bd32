"""A progress line on standard error, for people; silent where nobody looks at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence


class Progress[T]:
    """Iterate over a sequence and say how far it is, about five times a second."""

    def __init__(self, items: Sequence[T], title: str) -> None:
        self.items = items
        self.title = title

    def __iter__(self) -> Iterator[T]:
        shown, total = 0.0, len(self.items)
        live = sys.stderr.isatty()
        for number, item in enumerate(self.items, 1):
            yield item
            now = time.monotonic()
            if live and (now - shown > 0.2 or number == total):
                shown = now
                bar = "#" * round(30 * number / total)
                sys.stderr.write(f"\r{self.title:>10} [{bar:<30}] {number}/{total}")
        if live and total:
            sys.stderr.write("\n")
