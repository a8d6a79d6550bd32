"""Slices in the order of the patient, and what their neighbours lead one to expect."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from slicewatch.checks import Study
from slicewatch.records import SliceResult, Traces

type Numbers = NDArray[np.float64]

MIN_SLICES = 8
"""Fewer have no pattern that one of them could break."""


def measured_stacks(study: Study) -> Iterator[list[tuple[SliceResult, Traces]]]:
    """The measured slices of each stack with enough of them, by position.

    Frames of another size than most of their stack are left out: they cannot be compared.
    """
    for stack in study.stacks:
        measured = [(frame, frame.traces) for frame in stack.frames if frame.traces is not None]
        sizes = [(frame.rows, frame.columns) for frame, _ in measured]
        if sizes:
            usual = max(sorted(set(sizes)), key=sizes.count)
            measured = [one for one, size in zip(measured, sizes, strict=True) if size == usual]
        if len(measured) >= MIN_SLICES:
            yield measured


def deviations(values: Numbers, reach: int = 4) -> Numbers:
    """What each value differs by from the line through its neighbours, by `reach` on each side.

    The line's ends are medians, so that a neighbour that is odd itself does not pull it.
    """
    count = len(values)
    result = np.zeros(count)
    for index in range(count):
        below = values[max(0, index - reach) : index]
        above = values[index + 1 : index + 1 + reach]
        if len(below) and len(above):
            expected = (np.median(below) + np.median(above)) / 2
        else:
            expected = np.median(below if len(below) else above)
        result[index] = values[index] - expected
    return result


def spread(values: Numbers) -> float:
    """Standard deviation, told from the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
