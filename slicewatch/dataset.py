"""Training examples from DICOM objects and their annotations, in steps that can be fanned out.

`inspect` reads one object; `plan` joins images and annotations of all objects by series and
geometry, and gives every image its boxes and split; `render` turns one object into examples.
`inspect` and `render` need one object each, so activities can do them side by side; `plan` needs
the small records of all. The pixels take serving's own path (`slicewatch.pixels`): an example's
picture is the very letterboxed picture the detector would be fed.

Patients are split by a hash of their id, so a patient stays where they are whatever else is added.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicewatch import dicom, pixels
from slicewatch.annotations import (
    DAMAGED,
    Annotated,
    BadAnnotation,
    Region,
    place,
    regions_of,
)
from slicewatch.limits import DEFAULT_LIMITS, Limits, Rejected
from slicewatch.record import Record
from slicewatch.records import Box, Geometry, Reason, Review

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TRAIN, VALIDATION = "train", "val"
UNANNOTATED = "nothing was drawn on its series"
REPEATED = "same instance as"
_SALT = "slicewatch"
_ANNOTATION_MODALITIES = frozenset({"RTSTRUCT", "SEG"})


def split_of(patient: str, validation_share: float = 0.2) -> str:
    """``train`` or ``val``, by a hash of the patient id alone."""
    digest = hashlib.sha256(f"{_SALT}{patient}".encode()).digest()
    return VALIDATION if int.from_bytes(digest[:4]) / 2**32 < validation_share else TRAIN


def patient_key(patient: str) -> str:
    """What stands for a patient in file names and manifests: a digest, not the id."""
    return hashlib.sha256(f"{_SALT}:{patient}".encode()).hexdigest()[:12]


# --- records --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reject(Record):
    """A source that gave no example, or an annotation that could not be used, and why."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class InspectedFrame(Record):
    """One frame of an image: where it lies, and a digest of its decoded stored values."""

    number: int
    geometry: Geometry
    pixel_sha256: str


@dataclass(frozen=True, slots=True)
class Inspected(Record):
    """What `plan` needs to know of one object.

    Attributes:
        source: the caller's name of it.
        patient: key of the patient, see `patient_key`; split: from the patient's id.
        referenced_series: series an annotation was drawn on.
    """

    source: str
    patient: str
    split: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    modality: str
    rows: int = 0
    columns: int = 0
    frames: tuple[InspectedFrame, ...] = ()
    referenced_series: tuple[str, ...] = ()

    @property
    def is_annotation(self) -> bool:
        return self.modality in _ANNOTATION_MODALITIES


@dataclass(frozen=True, slots=True)
class Labelled(Record):
    """A class and its box, in pixels of the source frame."""

    label: str
    box: Box


@dataclass(frozen=True, slots=True)
class PlannedFrame(Record):
    """One frame that becomes an example called `name`; `order` is its place in its series."""

    number: int
    order: int
    name: str
    boxes: tuple[Labelled, ...]


@dataclass(frozen=True, slots=True)
class PlannedImage(Record):
    """One object to render."""

    source: str
    patient: str
    study: str
    series: str
    split: str
    modality: str
    frames: tuple[PlannedFrame, ...]


@dataclass(frozen=True, slots=True)
class Plan(Record):
    """What will be rendered, and what was left out."""

    images: tuple[PlannedImage, ...]
    rejects: tuple[Reject, ...] = ()
    remarks: tuple[Reject, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A rendered example: PNG of the letterboxed picture, and YOLO label text."""

    name: str
    split: str
    patient: str
    study: str
    series: str
    order: int
    modality: str
    source: str
    png: bytes
    label_text: str
    boxes: int


# --- one object -----------------------------------------------------------------------------


def inspect(
    source: str,
    data: bytes,
    *,
    validation_share: float = 0.2,
    limits: Limits = DEFAULT_LIMITS,
) -> Inspected | Reject:
    """Read one object, and decode it once, so that what cannot be rendered is known early."""
    try:
        instance = dicom.read(data, limits)
        header = instance.header
        patient, referenced = _identity(data)
        identity = patient or header.study_instance_uid
        found = Inspected(
            source=source,
            patient=patient_key(identity),
            split=split_of(identity, validation_share),
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            sop_instance_uid=header.sop_instance_uid,
            modality=header.modality,
            rows=header.rows,
            columns=header.columns,
            referenced_series=referenced,
        )
        if found.is_annotation:
            return found
        frames = tuple(
            InspectedFrame(frame.number, frame.geometry, frame.pixel_sha256)
            for frame in instance.frames()
        )
    except Rejected as rejected:
        return Reject(source, str(rejected))
    return Inspected.from_json({**found.to_json(), "frames": [f.to_json() for f in frames]})


def _identity(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Patient id with its issuer, and the series that an annotation says it was drawn on."""
    import pydicom

    try:
        file = pydicom.dcmread(
            io.BytesIO(data),
            force=True,
            stop_before_pixels=True,
            specific_tags=[
                "PatientID",
                "IssuerOfPatientID",
                "ReferencedFrameOfReferenceSequence",
                "ReferencedSeriesSequence",
            ],
        )
        return _identity_of(file)
    except DAMAGED as error:
        raise Rejected(
            Reason.BAD_HEADER, "the patient's id or the referenced series do not parse"
        ) from error


def _identity_of(file: Dataset) -> tuple[str, tuple[str, ...]]:
    # Without an issuer the id stands alone, so that data sets split the same way by hand.
    patient = f"{file.get('IssuerOfPatientID') or ''}{file.get('PatientID') or ''}"
    series = [
        str(item.get("SeriesInstanceUID", ""))
        for frame in file.get("ReferencedFrameOfReferenceSequence", ())
        for study in frame.get("RTReferencedStudySequence", ())
        for item in study.get("RTReferencedSeriesSequence", ())
    ] + [
        str(item.get("SeriesInstanceUID", "")) for item in file.get("ReferencedSeriesSequence", ())
    ]
    return patient, tuple(dict.fromkeys(uid for uid in series if uid))


# --- all objects ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Which structures become which class: (pattern on the whole name, class), first hit wins."""

    rules: tuple[tuple[str, str], ...]

    def label(self, name: str) -> str | None:
        for pattern, label in self.rules:
            if re.fullmatch(pattern, name, re.IGNORECASE):
                return label
        return None


SOFT_TISSUE_LABELS = LabelMap(((r"GTV.*|.*mass.*", "soft_tissue_mass"),))


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
    for drawing in drawings:
        try:
            regions = regions_of(annotations[drawing.source])
            annotated |= _place(drawing, regions, images, labels, boxes, notes)
        except BadAnnotation as error:
            notes.rejects.append(Reject(drawing.source, str(error)))
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
        notes.rejects += [Reject(m.source, UNANNOTATED) for m in members if m not in known]
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
    wanted = [region for region in regions if labels.label(region.name) and region.outlines]
    if not wanted:
        names = ", ".join(sorted({region.name for region in regions})) or "none"
        raise BadAnnotation(f"no structure is of a known class; structures: {names}")
    series = [uid for uid in drawing.referenced_series if uid in images] or [
        uid
        for uid, members in images.items()
        if not drawing.referenced_series
        and members[0].study_instance_uid == drawing.study_instance_uid
    ]
    if not series:
        raise BadAnnotation("the series it was drawn on is not here")
    for uid in series:
        frames = [(member, frame) for member in images[uid] for frame in member.frames]
        placed, remarks = place(
            wanted, [(frame.geometry, member.rows, member.columns) for member, frame in frames]
        )
        notes.remarks += [Reject(drawing.source, remark) for remark in remarks]
        for (member, frame), found in zip(frames, placed, strict=True):
            key = member.sop_instance_uid, frame.number
            boxes.setdefault(key, []).extend(_labelled(found, labels))
    return set(series)


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


# --- rendering ------------------------------------------------------------------------------


def render(
    image: PlannedImage,
    data: bytes,
    classes: Sequence[str],
    *,
    size: int,
    intensity: str,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Example]:
    """Render an object's planned frames.

    Raises:
        Rejected: it cannot be decoded.
        BadAnnotation: a box outside of its frame, or of a class that is not in `classes`.
    """
    wanted = {frame.number: frame for frame in image.frames}
    for frame in dicom.read_frames(data, limits):
        if frame.number in wanted:
            gray = pixels.to_gray(frame.values, intensity, frame.voi)
            planned = wanted[frame.number]
            yield example(gray, planned, image, classes, size=size)


def example(
    gray: NDArray[np.uint8],
    frame: PlannedFrame,
    image: PlannedImage,
    classes: Sequence[str],
    *,
    size: int,
) -> Example:
    """Letterbox a windowed frame and its boxes; see `render`."""
    picture, fit = pixels.letterbox(gray, size)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return Example(
        name=frame.name,
        split=image.split,
        patient=image.patient,
        study=image.study,
        series=image.series,
        order=frame.order,
        modality=image.modality,
        source=image.source,
        png=buffer.getvalue(),
        label_text="".join(_label_line(item, classes, fit) for item in frame.boxes),
        boxes=len(frame.boxes),
    )


def _label_line(item: Labelled, classes: Sequence[str], fit: pixels.Letterbox) -> str:
    """A line of a YOLO label file: class, then centre and size as shares of the picture."""
    if item.label not in classes:
        raise BadAnnotation(f"class {item.label!r} is none of {', '.join(classes)}")
    x1, y1, x2, y2 = item.box
    if not (-0.5 <= x1 < x2 <= fit.columns + 0.5 and -0.5 <= y1 < y2 <= fit.rows + 0.5):
        raise BadAnnotation(
            f"box {tuple(round(edge, 1) for edge in item.box)} is empty or lies outside of its "
            f"frame of {fit.columns} x {fit.rows} pixels"
        )
    left, top, right, bottom = fit.to_input(np.array([item.box], np.float32))[0] / fit.size
    middle = (left + right) / 2, (top + bottom) / 2
    return (
        f"{classes.index(item.label)} {middle[0]:.6f} {middle[1]:.6f} "
        f"{right - left:.6f} {bottom - top:.6f}\n"
    )
