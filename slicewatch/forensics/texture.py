"""Locally replaced texture: a region whose noise fits neither its slice nor its neighbours.

What is painted over a lesion, or injected as one, has noise of its own making: too little of it,
or noise without the correlation that the reconstruction gives. A region counts where it differs
from the same place in slices above and below, and from its surroundings in its own slice, and
where that goes on in the next slice: anatomy rarely does all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicewatch.checks import Check, Evidence, Study, objects
from slicewatch.forensics.features import unpack_grid
from slicewatch.forensics.neighbours import Numbers, measured_stacks
from slicewatch.records import SliceResult

NEAR, FAR = 3, 8
"""Slices to compare with: nearer ones may have been changed together with this one."""
RING_INNER, RING_OUTER = 3, 4
"""Cells around, for the same reason."""
MIN_SLICES_COMPARED, MIN_RING = 4, 12


class _Bounds(NamedTuple):
    """Octaves by which a region must be too quiet, and its noise too white."""

    quiet: float
    white: float


BOUNDS = {"CT": _Bounds(1.5, 0.7)}
_OTHERWISE = _Bounds(2.0, 0.9)


def _quiet(study: Study) -> Iterator[Evidence]:
    for frames, quiet, _ in _regions(study):
        if odd := [frame for frame, found in zip(frames, quiet, strict=True) if found]:
            yield Evidence(
                f"A region of {objects(odd)} has much less noise than its surroundings and than"
                " the same place in other slices, as where something was painted over.",
                odd,
            )


def _white(study: Study) -> Iterator[Evidence]:
    for frames, _, white in _regions(study):
        if odd := [frame for frame, found in zip(frames, white, strict=True) if found]:
            yield Evidence(
                f"The noise in a region of {objects(odd)} lacks the grain that the reconstruction"
                " gives to the rest, as where noise was added by a program.",
                odd,
            )


def _regions(study: Study) -> Iterator[tuple[list[SliceResult], list[bool], list[bool]]]:
    for slices in measured_stacks(study):
        grids = [unpack_grid(traces) for _, traces in slices]
        fine = _pooled(np.stack([fine for fine, _ in grids]))
        coarse = _pooled(np.stack([coarse for _, coarse in grids]))
        bounds = BOUNDS.get(slices[0][0].modality, _OTHERWISE)
        quiet = -_excess(fine, -1) > bounds.quiet
        white = _excess(fine - coarse, 1) > bounds.white
        yield [frame for frame, _ in slices], _continued(quiet), _continued(white)


def _pooled(logs: Numbers) -> Numbers:
    """Means over 2 × 2 cells of (slices, rows, columns), log2; NaN where one is missing."""
    linear = np.exp2(logs)
    pooled = linear[:, :-1, :-1] + linear[:, 1:, :-1] + linear[:, :-1, 1:] + linear[:, 1:, 1:]
    result: Numbers = np.log2(pooled / 4)
    return result


def _excess(values: Numbers, sign: int) -> Numbers:
    """The smaller excess over other slices and over the surroundings, in the direction `sign`.

    0 where there is too little to compare with.
    """
    result = np.zeros_like(values)
    for index in range(len(values)):
        apart = np.abs(np.arange(len(values)) - index)
        over_slices = _over(values[index], values[(apart >= NEAR) & (apart <= FAR)],
                            MIN_SLICES_COMPARED)  # fmt: skip
        over_ring = _over(values[index], _ring(values[index]), MIN_RING)
        both = np.minimum(sign * over_slices, sign * over_ring)
        result[index] = sign * np.where(np.isnan(both), 0, both)
    return result


def _over(values: Numbers, references: Numbers, minimum: int) -> Numbers:
    """Difference from the median of the references; NaN where there are too few."""
    if not len(references):
        return np.full_like(values, np.nan)
    counts = np.isfinite(references).sum(axis=0)
    ordered = np.sort(references, axis=0)  # NaN last; numpy's own nanmedian takes ten times as long
    lower, upper = np.maximum(counts - 1, 0) // 2, counts // 2
    upper = np.minimum(upper, len(references) - 1)
    middle = sum(np.take_along_axis(ordered, at[None], axis=0)[0] for at in (lower, upper)) / 2
    result: Numbers = np.where(counts >= minimum, values - middle, np.nan)
    return result


def _ring(values: Numbers) -> Numbers:
    """The cells around each cell, at distances from `RING_INNER` to `RING_OUTER`."""
    rows, columns = values.shape
    padded = np.pad(values, RING_OUTER, constant_values=np.nan)
    moves = range(-RING_OUTER, RING_OUTER + 1)
    return np.stack(
        [
            padded[RING_OUTER + dy : RING_OUTER + dy + rows, RING_OUTER + dx :][:, :columns]
            for dy in moves
            for dx in moves
            if max(abs(dy), abs(dx)) >= RING_INNER
        ]
    )


def _continued(found: NDArray[np.bool_]) -> list[bool]:
    """For each slice, whether a region in it goes on, within a cell, in a neighbouring slice."""
    grown = np.zeros_like(found)
    padded = np.pad(found, ((0, 0), (1, 1), (1, 1)))
    rows, columns = found.shape[1:]
    for dy in range(3):
        for dx in range(3):
            grown |= padded[:, dy : dy + rows, dx : dx + columns]
    below = np.zeros(len(found), np.bool_)
    above = np.zeros(len(found), np.bool_)
    below[1:] = (found[1:] & grown[:-1]).any(axis=(1, 2))
    above[:-1] = (found[:-1] & grown[1:]).any(axis=(1, 2))
    return [bool(one) for one in below | above]


CHECKS = (
    Check("smoothed-region", "warning", _quiet),
    Check("foreign-noise", "warning", _white),
)
