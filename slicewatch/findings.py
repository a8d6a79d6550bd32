"""Findings: detections of neighbouring slices that show one thing, linked in patient space.

How it works, for each series, frame of reference, orientation, model and label:

1. Boxes on one plane that show the same thing become one patch: duplicates on a frame
   (IoU of `DUPLICATE_IOU` or more) and overlapping boxes of frames that share the position,
   as in a dynamic series.
2. Patches of different planes are linked when the planes lie close enough along the slice normal
   (mm, so that a skipped slice does not cut a finding in two), their boxes overlap, and each is
   the other's best partner on that plane. The mutual choice keeps one wide box from joining
   two lesions that lie side by side.
3. Connected patches are one finding.

Every step works on sorted values, so the order in which slices arrive changes nothing. Without
geometry the same is done in pixels, with instance and frame numbers in place of positions, and
the finding says so (`Finding.linked_by`).
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicewatch.records import Box, Detection, Finding, FindingSlice, LinkedBy, SliceResult
from slicewatch.stacks import Stack, canonical_key, dot, stacks

DUPLICATE_IOU = 0.5
MIN_IOU = 0.2
MIN_IOMIN = 0.5
"""Two boxes overlap when either bound holds: IoU, or the intersection over the smaller area
(a lesion shrinks quickly towards its poles), the latter only for areas within `MAX_AREA_RATIO`."""
MAX_AREA_RATIO = 20.0

MAX_GAP_MM = 7.5
MAX_GAP_SPACINGS = 2.5
"""Two planes are neighbours up to the larger of the two: one slice may be skipped in a thick
stack, and a handful in a thin one."""
MAX_GAP_NUMBERS = 2.0
"""The same without geometry, in instance or frame numbers: one may be skipped."""

SEPARATE_VIEWS = frozenset(
    {"CR", "DX", "ES", "GM", "IO", "MG", "OP", "PX", "RF", "RG", "SM", "XA", "XC"}
)
"""Modalities (PS3.3 section C.7.3.1.1.1) whose instances are views of their own: without geometry
only the frames of one instance are neighbours."""

_SLIVER = 1e-3
"""Added to every side, so that identical boxes without area overlap too."""


class _Located(NamedTuple):
    """A detection with its box and position in the space where it is linked.

    The box is in mm along the row and the column axis, or in pixels; `offset` is mm along the
    normal, or a number; `depth` is the slice's extent along the normal, mm.
    """

    offset: float
    box: Box
    plane: int
    frame: SliceResult
    detection: Detection
    depth: float = 0.0

    @property
    def sort_key(self) -> tuple[int, Box, float, tuple[str, int, str, str]]:
        return self.plane, self.box, -self.detection.score, canonical_key(self.frame)


@dataclass(frozen=True, slots=True)
class _Space:
    """Detections of one label that can be compared; `stack` is ``None`` without geometry."""

    label: str
    model: str
    max_gap: float
    located: tuple[_Located, ...]
    stack: Stack | None = None


def link(
    slices: Sequence[SliceResult],
    *,
    max_gap_mm: float = MAX_GAP_MM,
    max_gap_spacings: float = MAX_GAP_SPACINGS,
) -> tuple[Finding, ...]:
    """Link the detections of a study's slices into findings.

    Args:
        slices: of any series, in any order; those without detections tell the spacing.
        max_gap_mm: distance along the normal up to which planes are neighbours.
        max_gap_spacings: the same in median spacings of the stack; the larger one holds.

    Returns:
        Findings, the highest score first. The score is the highest of the finding's slices,
        `mean_score` the mean over its slices; where several boxes of one frame belong to it,
        the frame counts once, with their highest score and the hull of the boxes.
    """
    placed, unplaced = stacks(slices)
    found: list[Finding] = []
    for stack in placed:
        gap = max(max_gap_mm, max_gap_spacings * (stack.spacing or 0.0))
        for space in _stack_spaces(stack, gap):
            found.extend(_findings(space))
    for space in _number_spaces(unplaced):
        found.extend(_findings(space))
    return tuple(sorted(found, key=lambda item: (-item.score, -item.mean_score, item.id)))


# --- where the detections lie -----------------------------------------------------------------


def _stack_spaces(stack: Stack, max_gap: float) -> Iterator[_Space]:
    groups: dict[tuple[str, str], list[_Located]] = defaultdict(list)
    for frame, offset, plane in zip(stack.frames, stack.offsets, stack.planes, strict=True):
        depth = frame.geometry.thickness or stack.spacing or 0.0
        for detection in frame.detections:
            box = _box_mm(detection.box, frame, stack)
            located = _Located(offset, box, plane, frame, detection, depth)
            groups[detection.label, frame.model].append(located)
    for (label, model), members in sorted(groups.items(), key=lambda item: item[0]):
        ordered = tuple(sorted(members, key=lambda item: item.sort_key))
        yield _Space(label, model, max_gap, ordered, stack)


def _box_mm(box: Box, frame: SliceResult, stack: Stack) -> Box:
    """The box along the stack's row and column axis, mm.

    Boxes count pixel edges and ImagePositionPatient is the centre of the first pixel, hence the
    half pixel (PS3.3 equation C.7.6.2.1-1).
    """
    geometry = frame.geometry
    assert geometry.position is not None  # stacks hold placed frames only
    assert geometry.spacing is not None
    between_rows, between_columns = geometry.spacing
    across = dot(stack.axes.row, geometry.position)
    down = dot(stack.axes.column, geometry.position)
    x1, y1, x2, y2 = box
    return (
        across + (x1 - 0.5) * between_columns,
        down + (y1 - 0.5) * between_rows,
        across + (x2 - 0.5) * between_columns,
        down + (y2 - 0.5) * between_rows,
    )


def _number_spaces(frames: Sequence[SliceResult]) -> Iterator[_Space]:
    multi_frame = {frame.sop_instance_uid for frame in frames if frame.frame > 1}
    groups: dict[tuple[str, ...], list[_Located]] = defaultdict(list)
    for frame in frames:
        instance = _numbered_instance(frame, multi_frame)
        number = frame.frame if instance else frame.instance_number or 0
        for detection in frame.detections:
            key = (
                frame.series_instance_uid,
                frame.geometry.frame_of_reference_uid or "",
                f"{frame.rows}x{frame.columns}",
                instance,
                detection.label,
                frame.model,
            )
            located = _Located(float(number), detection.box, number, frame, detection)
            groups[key].append(located)
    for (*_, label, model), members in sorted(groups.items(), key=lambda item: item[0]):
        ordered = tuple(sorted(members, key=lambda item: item.sort_key))
        yield _Space(label, model, MAX_GAP_NUMBERS, ordered)


def _numbered_instance(frame: SliceResult, multi_frame: Collection[str]) -> str:
    """The instance whose frame numbers count; empty where the series' instance numbers do."""
    alone = (
        frame.sop_instance_uid in multi_frame
        or frame.instance_number is None
        or frame.modality in SEPARATE_VIEWS
    )
    return frame.sop_instance_uid if alone else ""


# --- linking ----------------------------------------------------------------------------------


def _findings(space: _Space) -> Iterator[Finding]:
    patches = _patches(space.located)
    links = _best_mutual(patches, space.max_gap)
    for group in _components(len(patches), links):
        members = sorted(
            (located for index in group for located in patches[index]),
            key=lambda item: item.sort_key,
        )
        yield _finding(space, members)


def _patches(located: Sequence[_Located]) -> list[list[_Located]]:
    """Boxes of one plane that show the same thing, in a canonical order."""
    boxes = np.array([item.box for item in located], dtype=np.float64)
    planes = np.array([item.plane for item in located], dtype=np.float64)
    links = []
    for first, second, iou, iomin in _pairs(boxes, planes, 0.0):
        overlap = _overlap(boxes, first, second, iou, iomin)
        for i, j, value, linked in zip(first, second, iou, overlap, strict=True):
            same_frame = located[i].frame is located[j].frame
            if value >= DUPLICATE_IOU or (linked and not same_frame):
                links.append((int(i), int(j)))
    groups = _components(len(located), links)
    return [[located[index] for index in group] for group in groups]


def _best_mutual(patches: Sequence[Sequence[_Located]], max_gap: float) -> list[tuple[int, int]]:
    """Pairs of patches of different planes, each the other's best overlap on its plane."""
    boxes = np.array([_hull([item.box for item in patch]) for patch in patches], dtype=np.float64)
    offsets = np.array([patch[0].offset for patch in patches], dtype=np.float64)
    planes = np.array([patch[0].plane for patch in patches])
    columns: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]] = []
    for first, second, iou, iomin in _pairs(boxes, offsets, max_gap + 1e-6):
        keep = _overlap(boxes, first, second, iou, iomin) & (planes[first] != planes[second])
        columns.append((first[keep], second[keep], iou[keep]))
    if not columns:
        return []
    first, second, iou = (np.concatenate(column) for column in zip(*columns, strict=True))
    chosen = _best(first, second, planes, iou) & _best(second, first, planes, iou)
    return list(zip(first[chosen].tolist(), second[chosen].tolist(), strict=True))


def _best(
    chooser: NDArray[np.intp],
    chosen: NDArray[np.intp],
    planes: NDArray[np.intp],
    iou: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Mark the pairs where `chosen` is the chooser's highest IoU on the chosen one's plane."""
    order = np.lexsort((chosen, -iou, planes[chosen], chooser))
    key = np.stack((chooser[order], planes[chosen][order]))
    leads = np.ones(len(order), dtype=bool)
    leads[1:] = (key[:, 1:] != key[:, :-1]).any(axis=0)
    marked = np.zeros(len(order), dtype=bool)
    marked[order[leads]] = True
    return marked


def _pairs(
    boxes: NDArray[np.float64], offsets: NDArray[np.float64], max_gap: float
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]]:
    """Pairs of intersecting boxes (n, 4) whose sorted offsets lie within `max_gap`.

    Yields:
        Indices of the first and the second, IoU, and intersection over the smaller area.
    """
    left, top, right, bottom = boxes.T
    area = (right - left + _SLIVER) * (bottom - top + _SLIVER)
    for shift in range(1, len(boxes)):
        first = np.flatnonzero(offsets[shift:] - offsets[:-shift] <= max_gap)
        if len(first) == 0:
            return  # offsets are sorted: a larger shift is further away
        second = first + shift
        across = np.minimum(right[first], right[second]) - np.maximum(left[first], left[second])
        down = np.minimum(bottom[first], bottom[second]) - np.maximum(top[first], top[second])
        meet = (across >= 0) & (down >= 0)
        first, second = first[meet], second[meet]
        shared = (across[meet] + _SLIVER) * (down[meet] + _SLIVER)
        smaller = np.minimum(area[first], area[second])
        yield first, second, shared / (area[first] + area[second] - shared), shared / smaller


def _overlap(
    boxes: NDArray[np.float64],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    iou: NDArray[np.float64],
    iomin: NDArray[np.float64],
) -> NDArray[np.bool_]:
    left, top, right, bottom = boxes.T
    area = (right - left + _SLIVER) * (bottom - top + _SLIVER)
    ratio = np.maximum(area[first], area[second]) / np.minimum(area[first], area[second])
    overlap: NDArray[np.bool_] = (iou >= MIN_IOU) | (
        (iomin >= MIN_IOMIN) & (ratio <= MAX_AREA_RATIO)
    )
    return overlap


def _components(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Connected components of a graph of `count` nodes, by their smallest node."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in links:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for node in range(count):
        groups[root(node)].append(node)
    return list(groups.values())


# --- the finding ------------------------------------------------------------------------------


def _finding(space: _Space, members: Sequence[_Located]) -> Finding:
    by_frame: dict[tuple[str, int, str, str], list[_Located]] = defaultdict(list)
    for item in members:
        by_frame[canonical_key(item.frame)].append(item)
    slices = tuple(
        _finding_slice(frame)
        for frame in sorted(
            by_frame.values(), key=lambda items: (items[0].plane, canonical_key(items[0].frame))
        )
    )
    centre, extent = _hull_mm(space.stack, members) if space.stack else (None, None)
    return Finding(
        id=_finding_id(space, members),
        label=space.label,
        score=max(item.score for item in slices),
        mean_score=math.fsum(item.score for item in slices) / len(slices),
        series_instance_uid=members[0].frame.series_instance_uid,
        slices=slices,
        model=space.model,
        centre_mm=centre,
        extent_mm=extent,
        planes=len({item.plane for item in members}),
        linked_by=LinkedBy.POSITION if space.stack else LinkedBy.ORDER,
    )


def _finding_slice(items: Sequence[_Located]) -> FindingSlice:
    frame = items[0].frame
    return FindingSlice(
        sop_instance_uid=frame.sop_instance_uid,
        frame=frame.frame,
        blob=frame.blob,
        score=max(item.detection.score for item in items),
        box=_hull([item.detection.box for item in items]),
        instance_number=frame.instance_number,
    )


def _finding_id(space: _Space, members: Iterable[_Located]) -> str:
    """A digest of what was found where: files by their content, boxes to a hundredth."""
    boxes = sorted(
        (
            item.frame.sop_instance_uid,
            item.frame.content_sha256,
            item.frame.frame,
            *(round(side, 2) + 0.0 for side in item.detection.box),
        )
        for item in members
    )
    text = repr((space.label, space.model, boxes))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hull(boxes: Sequence[Box]) -> Box:
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _hull_mm(
    stack: Stack, members: Sequence[_Located]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Centre (LPS) and extent (row, column, normal) of the hull, mm; slices have their depth."""
    left, top, right, bottom = _hull([item.box for item in members])
    below = min(item.offset - item.depth / 2 for item in members)
    above = max(item.offset + item.depth / 2 for item in members)
    across, down, along = (left + right) / 2, (top + bottom) / 2, (below + above) / 2
    centre = tuple(
        round(across * row + down * column + along * normal, 3)
        for row, column, normal in zip(*stack.axes, strict=True)
    )
    extent = (round(right - left, 3), round(bottom - top, 3), round(above - below, 3))
    return (centre[0], centre[1], centre[2]), extent
