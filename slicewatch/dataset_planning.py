"""Which frames of a data set become examples, and with which boxes: the step between the objects.

`plan` joins images and annotations of all objects by series and geometry, and gives every image
its boxes and split. See `slicewatch.dataset` for the steps around it.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from slicewatch.annotations import Annotated, BadAnnotation, Region, place, regions_of
from slicewatch.dataset import (
    REPEATED,
    SPOILT,
    UNANNOTATED,
    Inspected,
    InspectedFrame,
    Labelled,
    Plan,
    PlannedFrame,
    PlannedImage,
    Reject,
)
from slicewatch.records import Review

_SAME = 0.5
"""Boxes whose edges differ by no more than so many pixels are one."""


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Which structures become which class: (pattern on the whole name, class), first hit wins."""

    rules: tuple[tuple[str, str], ...]

    def label(self, name: str) -> str | None:
        for pattern, label in self.rules:
            if re.fullmatch(pattern, name, re.IGNORECASE):
                return label
        return None


@dataclass
class _Notes:
    rejects: list[Reject] = field(default_factory=list)
    remarks: list[Reject] = field(default_factory=list)


def plan(
    objects: Iterable[Inspected | Reject],
    annotations: Mapping[str, bytes],
    labels: LabelMap,
    *,
    drawn: Mapping[tuple[str, int], Sequence[Labelled]] | None = None,
) -> Plan:
    """Give every image its boxes.

    A series becomes examples when something was drawn on it: an annotation that references the
    series (or, where it references none, shares the study), or boxes in `drawn`. Its frames
    without a box are negatives. A series that nobody annotated is left out: its frames are
    unknown, not negative.

    Args:
        objects: what `inspect` returned for every object.
        annotations: source → bytes, for the inspected annotation objects.
        labels: which structures count.
        drawn: boxes that are already in pixels, by (SOP instance UID, frame number): YOLO label
            files and reviewed findings; an empty sequence is a frame known to be negative.
    """
    notes = _Notes()
    images: dict[str, list[Inspected]] = defaultdict(list)
    drawings: list[Inspected] = []
    for item in objects:
        if isinstance(item, Reject):
            notes.rejects.append(item)
        elif item.is_annotation:
            drawings.append(item)
        else:
            images[item.series_instance_uid].append(item)
    images = {uid: _distinct(members, notes) for uid, members in images.items()}
    boxes: dict[tuple[str, int], list[Labelled]] = {
        key: list(items) for key, items in (drawn or {}).items()
    }
    annotated: set[str] = set()
    spoilt: set[str] = set()
    for drawing in drawings:
        try:
            regions = regions_of(annotations[drawing.source])
            annotated |= _place(drawing, regions, images, labels, boxes, notes)
        except BadAnnotation as error:
            notes.rejects.append(Reject(drawing.source, str(error)))
            spoilt |= _series_of(drawing, images)
    planned: list[PlannedImage] = []
    for uid, members in images.items():
        if uid in annotated:
            planned += [_planned(m, m.frames, order, boxes) for order, m in _by_position(members)]
            continue
        known = [
            m for m in members if any((m.sop_instance_uid, f.number) in boxes for f in m.frames)
        ]
        for order, member in _by_position(known):
            frames = [f for f in member.frames if (member.sop_instance_uid, f.number) in boxes]
            planned.append(_planned(member, frames, order, boxes))
        reason = SPOILT if uid in spoilt else UNANNOTATED
        notes.rejects += [Reject(m.source, reason) for m in members if m not in known]
    return Plan(tuple(planned), tuple(notes.rejects), tuple(notes.remarks))


def _distinct(members: list[Inspected], notes: _Notes) -> list[Inspected]:
    kept: dict[str, Inspected] = {}
    for member in members:
        if member.sop_instance_uid in kept:
            first = kept[member.sop_instance_uid].source
            notes.rejects.append(Reject(member.source, f"{REPEATED} {first}"))
        else:
            kept[member.sop_instance_uid] = member
    return list(kept.values())


def _place(
    drawing: Inspected,
    regions: tuple[Region, ...],
    images: Mapping[str, list[Inspected]],
    labels: LabelMap,
    boxes: dict[tuple[str, int], list[Labelled]],
    notes: _Notes,
) -> set[str]:
    """Add a drawing's boxes to `boxes`; returns the series it was drawn on."""
    known = [region for region in regions if labels.label(region.name)]
    wanted = [region for region in known if region.outlines]
    if not wanted:
        names = ", ".join(sorted({region.name for region in known or regions})) or "none"
        fault = (
            "nothing is outlined of a known class" if known else "no structure is of a known class"
        )
        raise BadAnnotation(f"{fault}; structures: {names}")
    series = _series_of(drawing, images)
    if not series:
        raise BadAnnotation("the series it was drawn on is not here")
    repeated = 0
    for uid in series:
        frames = [(member, frame) for member in images[uid] for frame in member.frames]
        placed, remarks = place(
            wanted, [(frame.geometry, member.rows, member.columns) for member, frame in frames]
        )
        notes.remarks += [Reject(drawing.source, remark) for remark in remarks]
        for (member, frame), found in zip(frames, placed, strict=True):
            key = member.sop_instance_uid, frame.number
            known_boxes = boxes.setdefault(key, [])
            for one in _labelled(found, labels):
                if any(_same(one, other) for other in known_boxes):
                    repeated += 1
                else:
                    known_boxes.append(one)
    if repeated:
        remark = f"{repeated} boxes were drawn already, and count once"
        notes.remarks.append(Reject(drawing.source, remark))
    return series


def _same(one: Labelled, other: Labelled) -> bool:
    """One structure, drawn twice: in a copy of a structure set, or under two names."""
    return one.label == other.label and np.allclose(one.box, other.box, rtol=0, atol=_SAME)


def _series_of(drawing: Inspected, images: Mapping[str, list[Inspected]]) -> set[str]:
    """The series here that it was drawn on; those of its study where it references none."""
    if drawing.referenced_series:
        return {uid for uid in drawing.referenced_series if uid in images}
    return {
        uid
        for uid, members in images.items()
        if members[0].study_instance_uid == drawing.study_instance_uid
    }


def _labelled(found: Iterable[Annotated], labels: LabelMap) -> Iterator[Labelled]:
    for item in found:
        label = labels.label(item.name)
        if label is not None:
            yield Labelled(label, item.box)


def _by_position(members: Sequence[Inspected]) -> list[tuple[int, Inspected]]:
    """Order along the first frame's normal: instance numbers are not to be relied on."""

    def depth(member: Inspected) -> tuple[float, str]:
        geometry = member.frames[0].geometry
        if geometry.position is None or geometry.orientation is None:
            return 0.0, member.sop_instance_uid
        normal = np.cross(geometry.orientation[:3], geometry.orientation[3:])
        return float(normal @ np.array(geometry.position)), member.sop_instance_uid

    return list(enumerate(sorted((m for m in members if m.frames), key=depth)))


def _planned(
    member: Inspected,
    frames: Sequence[InspectedFrame],
    order: int,
    boxes: Mapping[tuple[str, int], list[Labelled]],
) -> PlannedImage:
    series = hashlib.sha256(member.series_instance_uid.encode()).hexdigest()[:8]
    study = hashlib.sha256(member.study_instance_uid.encode()).hexdigest()[:12]
    return PlannedImage(
        source=member.source,
        patient=member.patient,
        study=study,
        series=series,
        split=member.split,
        modality=member.modality,
        frames=tuple(
            PlannedFrame(
                frame.number,
                order if len(member.frames) == 1 else frame.number,
                f"{member.patient}-{member.modality}-{series}-{order:04d}-{frame.number:04d}",
                tuple(boxes.get((member.sop_instance_uid, frame.number), ())),
            )
            for frame in frames
        ),
    )


def reviewed(review: Review, verdicts: Mapping[str, bool]) -> dict[tuple[str, int], list[Labelled]]:
    """Boxes that a reviewer confirmed, for `plan`'s `drawn`.

    Args:
        review: the published review whose findings were judged.
        verdicts: finding id → accepted; findings that nobody judged are left out.

    Returns:
        Boxes by (SOP instance UID, frame). A slice whose findings were all rejected is a negative;
        a slice that also carries a finding nobody judged is left out, for it may be either.
    """
    boxes: dict[tuple[str, int], list[Labelled]] = defaultdict(list)
    unjudged: set[tuple[str, int]] = set()
    for finding in review.findings:
        for item in finding.slices:
            key = item.sop_instance_uid, item.frame
            if finding.id not in verdicts:
                unjudged.add(key)
            elif verdicts[finding.id]:
                boxes[key].append(Labelled(finding.label, item.box))
            else:
                boxes[key] += []
    return {key: items for key, items in boxes.items() if key not in unjudged}
