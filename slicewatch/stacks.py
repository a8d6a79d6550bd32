"""Stacks: the frames of a series that lie parallel to each other, in the order of the patient.

A series is one stack in the simple case, several where it holds slices of different orientation
(localizers, radial or per-disc acquisitions), and none where the geometry is missing. Positions
are measured along the slice normal, which is right for oblique and gantry-tilted series too
(PS3.3 section C.7.6.2.1.1).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np

from slicewatch.records import Geometry, Outcome, SliceResult

type Vector = tuple[float, float, float]
type Orientation = tuple[float, float, float, float, float, float]

PARALLEL = 5e-3
"""Largest difference of direction cosines within a stack: 0.3 degrees, well above the rounding
of headers and below the steps of radial acquisitions."""

SAME_PLANE_MM = 0.01
"""Positions closer than this are one plane; no scanner makes slices this close."""


class Axes(NamedTuple):
    """Orthonormal axes of a stack, LPS: along a row, along a column, and their normal."""

    row: Vector
    column: Vector
    normal: Vector


@dataclass(frozen=True, slots=True)
class Stack:
    """Parallel frames of one series and frame of reference.

    Attributes:
        frames: sorted by position, then by UID, frame number and content.
        offsets: position along the normal for each frame, mm.
        planes: for each frame, the index of its plane in `plane_offsets`.
        plane_offsets: the distinct positions, ascending, mm.
    """

    series_instance_uid: str
    frame_of_reference_uid: str | None
    axes: Axes
    frames: tuple[SliceResult, ...]
    offsets: tuple[float, ...]
    planes: tuple[int, ...]
    plane_offsets: tuple[float, ...]

    @property
    def gaps(self) -> tuple[float, ...]:
        """Distances between neighbouring planes, mm."""
        below, above = self.plane_offsets[:-1], self.plane_offsets[1:]
        return tuple(high - low for low, high in zip(below, above, strict=True))

    @property
    def spacing(self) -> float | None:
        """Median distance between neighbouring planes, mm; ``None`` for a single plane."""
        return median(self.gaps) if len(self.plane_offsets) > 1 else None


def dot(a: Vector, b: Vector) -> float:
    """The scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def canonical_key(frame: SliceResult) -> tuple[str, int, str, str]:
    """What sorts frames the same way, however they arrived."""
    return frame.sop_instance_uid, frame.frame, frame.content_sha256, frame.blob


def distinct(frames: Iterable[SliceResult]) -> tuple[SliceResult, ...]:
    """One result for each frame of each object, sorted by series and `canonical_key`.

    A batch that was screened twice gives its results twice. Should they differ, a screened one
    wins, then the one whose JSON sorts first: the choice must not depend on the order.
    """
    found: dict[tuple[str, int], SliceResult] = {}
    for frame in frames:
        key = frame.blob, frame.frame
        known = found.get(key)
        if known is None or (known != frame and _preference(frame) < _preference(known)):
            found[key] = frame
    return tuple(
        sorted(found.values(), key=lambda one: (one.series_instance_uid, canonical_key(one)))
    )


def _preference(frame: SliceResult) -> tuple[bool, str]:
    return frame.outcome is not Outcome.SCREENED, json.dumps(frame.to_json(), sort_keys=True)


def is_placed(geometry: Geometry) -> bool:
    """Whether the geometry says where a pixel lies: position, orientation, spacing, all sane."""
    if geometry.position is None or geometry.orientation is None or geometry.spacing is None:
        return False
    numbers = (*geometry.position, *geometry.orientation, *geometry.spacing)
    if not all(math.isfinite(number) for number in numbers) or min(geometry.spacing) <= 0:
        return False
    row, column = geometry.orientation[:3], geometry.orientation[3:]
    unit = abs(dot(row, row) - 1) < 0.02 and abs(dot(column, column) - 1) < 0.02
    return unit and abs(dot(row, column)) < 0.02


def stacks(frames: Iterable[SliceResult]) -> tuple[tuple[Stack, ...], tuple[SliceResult, ...]]:
    """Sort frames into stacks; the result does not depend on the order of `frames`.

    Returns:
        The stacks, sorted by series, frame of reference and axes, and the frames without
        usable geometry, sorted by `canonical_key`.
    """
    series: dict[tuple[str, str], list[SliceResult]] = defaultdict(list)
    unplaced = []
    for frame in frames:
        if is_placed(frame.geometry):
            reference = frame.geometry.frame_of_reference_uid or ""
            series[frame.series_instance_uid, reference].append(frame)
        else:
            unplaced.append(frame)
    found = [
        _stack(axes, members) for key in sorted(series) for axes, members in _parallel(series[key])
    ]
    return tuple(found), tuple(sorted(unplaced, key=canonical_key))


def _parallel(frames: Sequence[SliceResult]) -> list[tuple[Axes, list[SliceResult]]]:
    """Group by orientation: in sorted order, each joins the first leader it is parallel to."""
    leaders: list[Orientation] = []
    leader_of: dict[Orientation, Orientation] = {}
    for orientation in sorted({_orientation(frame) for frame in frames}):
        leader = _first_parallel(leaders, orientation)
        if leader is None:
            leaders.append(orientation)
        leader_of[orientation] = leader or orientation
    groups: dict[Orientation, list[SliceResult]] = {leader: [] for leader in leaders}
    for frame in frames:
        groups[leader_of[_orientation(frame)]].append(frame)
    return [(_axes(leader), members) for leader, members in groups.items()]


def _first_parallel(leaders: Sequence[Orientation], wanted: Orientation) -> Orientation | None:
    if not leaders:
        return None
    apart = np.abs(np.array(leaders) - np.array(wanted)).max(axis=1)
    near = np.flatnonzero(apart <= PARALLEL)
    return leaders[int(near[0])] if len(near) else None


def _orientation(frame: SliceResult) -> Orientation:
    assert frame.geometry.orientation is not None  # `is_placed` was asked before
    return frame.geometry.orientation


def _axes(orientation: Orientation) -> Axes:
    """Orthonormal axes from direction cosines that headers round."""
    row = _unit(orientation[:3])
    normal = _unit(_cross(row, orientation[3:]))
    return Axes(row, _cross(normal, row), normal)


def _unit(vector: Vector) -> Vector:
    length = math.sqrt(dot(vector, vector))
    return vector[0] / length, vector[1] / length, vector[2] / length


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _stack(axes: Axes, members: Sequence[SliceResult]) -> Stack:
    placed = sorted(
        ((_offset(axes, frame), frame) for frame in members),
        key=lambda item: (item[0], canonical_key(item[1])),
    )
    offsets = tuple(offset for offset, _ in placed)
    planes, plane_offsets = _planes(offsets)
    first = placed[0][1]
    return Stack(
        series_instance_uid=first.series_instance_uid,
        frame_of_reference_uid=first.geometry.frame_of_reference_uid,
        axes=axes,
        frames=tuple(frame for _, frame in placed),
        offsets=offsets,
        planes=planes,
        plane_offsets=plane_offsets,
    )


def _offset(axes: Axes, frame: SliceResult) -> float:
    assert frame.geometry.position is not None  # `is_placed` was asked before
    return dot(axes.normal, frame.geometry.position)


def _planes(offsets: Sequence[float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Plane index for each of the sorted offsets, and the offset of each plane."""
    plane_offsets: list[float] = []
    planes = []
    previous = -math.inf
    for offset in offsets:
        if offset - previous > SAME_PLANE_MM:
            plane_offsets.append(offset)
        planes.append(len(plane_offsets) - 1)
        previous = offset
    return tuple(planes), tuple(plane_offsets)
