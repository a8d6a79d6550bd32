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
from slicewatch.forensics.neighbours import measured_stacks
from slicewatch.forensics.noise import unpack_grid
from slicewatch.records import SliceResult

type Logs = NDArray[np.float32]
"""log2 of noise, (slices, cell rows, cell columns)."""
type Places = NDArray[np.int64]

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
    for frames, fine, _, bounds in _noise(study):
        if odd := _odd(frames, -fine, bounds.quiet):
            yield Evidence(
                f"A region of {objects(odd)} has much less noise than its surroundings and than"
                " the same place in other slices, as where something was painted over.",
                odd,
            )


def _white(study: Study) -> Iterator[Evidence]:
    for frames, fine, coarse, bounds in _noise(study):
        if odd := _odd(frames, fine - coarse, bounds.white):
            yield Evidence(
                f"The noise in a region of {objects(odd)} lacks the grain that the reconstruction"
                " gives to the rest, as where noise was added by a program.",
                odd,
            )


def _noise(study: Study) -> Iterator[tuple[list[SliceResult], Logs, Logs, _Bounds]]:
    """Of each stack the slices, and their fine and coarse noise."""
    for slices in measured_stacks(study):
        grids = np.stack([unpack_grid(traces) for _, traces in slices])
        bounds = BOUNDS.get(slices[0][0].modality, _OTHERWISE)
        frames = [frame for frame, _ in slices]
        yield frames, _pooled(grids[:, 0]), _pooled(grids[:, 1]), bounds


def _pooled(logs: Logs) -> Logs:
    """Means over 2 × 2 cells of (slices, rows, columns), log2; NaN where one is missing."""
    linear = np.exp2(logs)
    pooled = linear[:, :-1, :-1] + linear[:, 1:, :-1] + linear[:, :-1, 1:] + linear[:, 1:, 1:]
    result: Logs = np.log2(pooled / 4)
    return result


def _odd(frames: list[SliceResult], values: Logs, bound: float) -> list[SliceResult]:
    """The slices with a region whose values are too large by `bound`, twice over."""
    continued = _continued(_above_both(values, bound))
    return [frame for frame, found in zip(frames, continued, strict=True) if found]


def _above_both(values: Logs, bound: float) -> NDArray[np.bool_]:
    """Where values exceed the medians of other slices and of the surroundings by `bound`.

    Medians are taken only where so many of the other slices lie lower that they can say so: of a
    sound series, hardly anywhere.
    """
    result = np.zeros(values.shape, np.bool_)
    candidates = np.nonzero(_above_most_slices(values, bound))
    for start in range(0, len(candidates[0]), _AT_ONCE):
        z, y, x = (one[start : start + _AT_ONCE] for one in candidates)
        here = values[z, y, x]
        over_slices = here - _medians(_gathered(values, z, y, x, _SLICES), MIN_SLICES_COMPARED)
        over_ring = here - _medians(_gathered(values, z, y, x, _RING), MIN_RING)
        result[z, y, x] = np.minimum(over_slices, over_ring) > bound  # never where one is NaN
    return result


def _above_most_slices(values: Logs, bound: float) -> NDArray[np.bool_]:
    """Where half of the compared slices or more lie lower by `bound`: the median cannot
    otherwise.
    """
    limit = values - np.float32(bound)
    known = np.isfinite(values)
    lower, compared = np.zeros((2, *values.shape), np.uint8)
    for apart in range(NEAR, min(FAR + 1, len(values))):
        for here, there in (
            (slice(apart, None), slice(-apart)),
            (slice(-apart), slice(apart, None)),
        ):
            lower[here] += values[there] < limit[here]
            compared[here] += known[there]
    enough: NDArray[np.bool_] = (compared >= MIN_SLICES_COMPARED) & (2 * lower >= compared)
    return enough


_SLICES = tuple((dz, 0, 0) for dz in range(-FAR, FAR + 1) if abs(dz) >= NEAR)
_RING = tuple(
    (0, dy, dx)
    for dy in range(-RING_OUTER, RING_OUTER + 1)
    for dx in range(-RING_OUTER, RING_OUTER + 1)
    if max(abs(dy), abs(dx)) >= RING_INNER
)
_AT_ONCE = 1 << 14


def _gathered(
    values: Logs, z: Places, y: Places, x: Places, moves: tuple[tuple[int, int, int], ...]
) -> Logs:
    """The values at some moves from places: (moves, places); NaN outside."""
    found = np.full((len(moves), len(z)), np.nan, np.float32)
    depth, rows, columns = values.shape
    for row, (dz, dy, dx) in zip(found, moves, strict=True):
        at_z, at_y, at_x = z + dz, y + dy, x + dx
        inside = (at_z >= 0) & (at_z < depth) & (at_y >= 0) & (at_y < rows)
        inside &= (at_x >= 0) & (at_x < columns)
        row[inside] = values[at_z[inside], at_y[inside], at_x[inside]]
    return found


def _medians(references: Logs, minimum: int) -> Logs:
    """Medians over the first axis; NaN where fewer than `minimum` are known."""
    counts = np.isfinite(references).sum(axis=0)
    ordered = np.sort(references, axis=0)  # NaN last
    lower, upper = np.maximum(counts - 1, 0) // 2, np.minimum(counts // 2, len(references) - 1)
    middle = sum(np.take_along_axis(ordered, at[None], axis=0)[0] for at in (lower, upper)) / 2
    medians: Logs = np.where(counts >= minimum, middle, np.float32(np.nan))
    return medians


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
    Check("smoothed-region", _quiet),
    Check("foreign-noise", _white),
)
