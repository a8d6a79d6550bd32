"""Training examples from DICOM objects and their annotations, in steps that can be fanned out.

`inspect` reads one object; `dataset_planning.plan` joins images and annotations of all objects by
series and geometry, and gives every image its boxes and split; `render` turns one object into
examples. `inspect` and `render` need one object each, so activities can do them side by side;
`plan` needs the small records of all. The pixels take serving's own path (`slicewatch.pixels`): an
example's picture is the very letterboxed picture the detector would be fed.

Patients are split by a hash of their id, so a patient stays where they are whatever else is added.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicewatch import dicom, pixels
from slicewatch.annotations import (
    DAMAGED,
    BadAnnotation,
)
from slicewatch.limits import DEFAULT_LIMITS, Limits, Rejected
from slicewatch.record import Record
from slicewatch.records import Box, Geometry, Reason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TRAIN, VALIDATION = "train", "val"
UNANNOTATED = "nothing was drawn on its series"
SPOILT = "what was drawn on its series cannot be used"
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
