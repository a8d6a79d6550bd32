"""What is known of slices and studies: results, findings, flags, the review that is published.

Every record is a frozen dataclass with ``to_json`` and ``from_json`` (plain dicts of JSON types).
Boxes are in pixels of the source frame, ``(x1, y1, x2, y2)``: x to the right, y down, pixel
edges, so a box that covers the whole frame is ``(0, 0, columns, rows)``. Patient coordinates
are LPS in millimetres (PS3.3 section C.7.6.2.1.1). Times are UTC, ISO 8601.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from slicewatch.record import Record

type Box = tuple[float, float, float, float]


class Outcome(StrEnum):
    """What became of one slice."""

    SCREENED = "screened"
    NOT_SCREENED = "not_screened"
    """No model covers it, or it is no image: stored, and said so."""
    REJECTED = "rejected"
    """It could not be read; `SliceResult.reason` says why."""


class StudyStatus(StrEnum):
    """Status of a study; no status but ``NOT_FLAGGED`` says that everything was screened."""

    RECEIVING = "receiving"
    SCREENING = "screening"
    FLAGGED = "flagged"
    NOT_FLAGGED = "not_flagged"
    INCOMPLETE = "incomplete"
    NOT_SCREENED = "not_screened"
    FAILED = "failed"
    IN_REVIEW = "in_review"
    REVIEWED = "reviewed"
    SUPERSEDED = "superseded"


class Lane(StrEnum):
    """Who looks at a flagged study."""

    CLINICAL = "clinical"
    FORENSIC = "forensic"


class Reason(StrEnum):
    """Why an object was not screened, or was refused. The value is what people read."""

    NOT_DICOM = "not a DICOM file"
    TRUNCATED = "file ends before its data does"
    NO_PIXEL_DATA = "no pixel data"
    NOT_AN_IMAGE = "not an image object"
    TOO_LARGE = "larger than the configured bound"
    BAD_UID = "a UID is missing or malformed"
    BAD_HEADER = "a required attribute is missing or contradicts itself"
    UNSUPPORTED_TRANSFER_SYNTAX = "transfer syntax cannot be decoded here"
    DECODE_FAILED = "pixel data does not decode"
    NO_MODEL = "no model covers this series"
    BAD_ARCHIVE = "archive is damaged or breaks its bounds"
    REFUSED_ENTRY = "archive entry is of a kind that is not accepted"
    WRONG_STUDY = "belongs to another study than the request names"
    WRONG_MEDIA_TYPE = "media type is not accepted"


# --- slices ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Detection(Record):
    """One box of the detector on one slice."""

    label: str
    score: float
    box: Box


@dataclass(frozen=True, slots=True)
class Geometry(Record):
    """Where a frame lies in the patient (Image Plane module, PS3.3 section C.7.6.2)."""

    position: tuple[float, float, float] | None = None
    """Centre of the first pixel, LPS mm."""
    orientation: tuple[float, float, float, float, float, float] | None = None
    """Direction cosines of a row (x index grows), then of a column (y index grows)."""
    spacing: tuple[float, float] | None = None
    """PixelSpacing: distance between rows, then between columns, mm."""
    thickness: float | None = None
    frame_of_reference_uid: str | None = None


UNIFORM_PIXELS = "uniform-pixels"
"""Note of a frame whose pixels all have one value: padding, which repeats without meaning."""

NOT_MEASURED = "not-measured"
"""Note of a frame or object on which a forensic measurement failed."""


@dataclass(frozen=True, slots=True)
class Traces(Record):
    """What was measured of a frame's pixels, for the forensic checks; see `forensics.features`.

    Attributes:
        noise: median over the body, units of the values; sharpness: log2 of fine to coarse noise.
        cell, grid: noise by cells of `cell` pixels, packed.
        landmarks: hashes of windows with structure, and their places, packed.
        copies: windows that repeat within the frame at one displacement, and that (y, x), pixels.
        blocks, comb: traces of 8 × 8 blocks: at their edges, and in their coefficients.
        periodicity: trace of interpolation.
    """

    noise: float
    sharpness: float
    cell: int
    grid: str
    landmarks: str
    copies: tuple[int, int, int] = (0, 0, 0)
    blocks: float = 0.0
    comb: float = 0.0
    periodicity: float = 0.0


@dataclass(frozen=True, slots=True)
class SliceResult(Record):
    """What screening learned of one frame, or of one object that could not be screened.

    Attributes:
        blob: name in the container ``incoming``.
        frame: frame number from 1; 0 for an object that gave no frames.
        content_sha256: of the file's bytes; pixel_sha256: of the decoded stored values.
        patient_hash: keyless digest of patient id and issuer, only to compare within a study.
        times: attribute keyword to DICOM DT/DA+TM text (StudyDateTime, SeriesDateTime,
            AcquisitionDateTime, ContentDateTime), for the integrity checks.
        model: ``name@version`` of the model that screened it.
        notes: machine-readable remarks for the integrity checks (``preamble:pe``, …).
        acquisition: attribute keyword to text, of scanner, exposure and geometry, for the same.
        traces: what was measured of the pixels; ``None`` where there was nothing to measure.
    """

    blob: str
    content_sha256: str
    outcome: Outcome
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    frame: int = 0
    modality: str = ""
    rows: int = 0
    columns: int = 0
    instance_number: int | None = None
    geometry: Geometry = field(default_factory=Geometry)
    pixel_sha256: str = ""
    patient_hash: str = ""
    times: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    model: str = ""
    reason: Reason | None = None
    detail: str = ""
    detections: tuple[Detection, ...] = ()
    acquisition: dict[str, str] = field(default_factory=dict)
    traces: Traces | None = None


@dataclass(frozen=True, slots=True)
class BatchResult(Record):
    """The compact answer of ``screen_slices``; the slice results are in a blob."""

    batch: int
    screened: int
    not_screened: int
    rejected: int
    with_detections: int


# --- findings, integrity, triage --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindingSlice(Record):
    """One slice of a finding: which frame, and the hull of the finding's boxes there."""

    sop_instance_uid: str
    frame: int
    blob: str
    score: float
    box: Box
    instance_number: int | None = None


class LinkedBy(StrEnum):
    """What told which slices are neighbours."""

    POSITION = "position"
    """Position along the slice normal, in patient space."""
    ORDER = "order"
    """Instance and frame numbers, boxes in pixels: the geometry is missing."""


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """Detections of neighbouring slices that show one thing.

    Attributes:
        id: stable within a study: the same slices and boxes give the same id.
        score: the highest of its slices; `mean_score` their mean.
        slices: in the order of their positions (without geometry: of their numbers).
        centre_mm: LPS mm, of the box hull; ``None`` without geometry.
        extent_mm: size of the box hull along the row, the column and the slice normal, mm.
        planes: distinct slice positions; fewer than `slices` where a dynamic series shows a
            position several times.
        rules: names of the triage rules it met; empty when it is listed and flagged nothing.
    """

    id: str
    label: str
    score: float
    mean_score: float
    series_instance_uid: str
    slices: tuple[FindingSlice, ...]
    model: str = ""
    centre_mm: tuple[float, float, float] | None = None
    extent_mm: tuple[float, float, float] | None = None
    planes: int = 0
    linked_by: LinkedBy = LinkedBy.POSITION
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoldedFindings(Record):
    """Findings beyond what one review lists, counted; their boxes are in the slice results.

    Attributes:
        count: findings; slices: boxes of theirs, one a frame; score: the highest of them.
        flagged: how many of them met a triage rule (they were triaged like all others).
    """

    series_instance_uid: str
    label: str
    model: str
    count: int
    slices: int
    score: float
    flagged: int = 0


@dataclass(frozen=True, slots=True)
class IntegrityIssue(Record):
    """Evidence that something in the study does not fit; never a statement that it is authentic.

    Attributes:
        code: kebab-case name of the check.
        severity: ``info``, ``warning`` or ``error``.
        explanation: a sentence for the reviewer, free of patient data.
        blobs: objects concerned, names in ``incoming``.
    """

    code: str
    severity: str
    explanation: str
    series_instance_uid: str = ""
    blobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LaneFlag(Record):
    """One lane that the triage policy sends a study to.

    Attributes:
        priority: 0 to 100, higher is more urgent.
        rules: names of the policy rules that matched.
        summary: a line for the worklist, free of patient data.
    """

    lane: Lane
    priority: int
    rules: tuple[str, ...]
    summary: str


# --- the published review -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unscreened(Record):
    """Objects of one series that were not screened, or were rejected, for one reason."""

    series_instance_uid: str
    reason: Reason
    count: int
    blobs: tuple[str, ...] = ()
    detail: str = ""


class Whereabouts(StrEnum):
    """Where an edge agent says that an instance is."""

    SENT = "sent"
    LATER = "later"
    """Held for the night window."""
    HELD = "held"
    """Stays on site."""

    @property
    def is_on_site(self) -> bool:
        return self is not Whereabouts.SENT


@dataclass(frozen=True, slots=True)
class EdgeDetection(Record):
    """What an edge agent's model saw in one instance: how many boxes, the best one's score."""

    sop_instance_uid: str
    count: int
    score: float


@dataclass(frozen=True, slots=True)
class EdgeScreening(Record):
    """What an edge agent says of instances that it looked at before it sent them, or kept them.

    Attributes:
        outcome: of the screening there; whereabouts: what became of them since.
        model: ``name@version``; model_sha256: of its weights; threshold: of a detection's score.
    """

    outcome: Outcome
    whereabouts: Whereabouts
    instances: tuple[str, ...]
    model: str = ""
    model_sha256: str = ""
    threshold: float = 0.0
    detections: tuple[EdgeDetection, ...] = ()


@dataclass(frozen=True, slots=True)
class Coverage(Record):
    """What of the study was looked at, counted in frames (objects where none decode).

    `images` counts what a model should have looked at: non-image objects are left out of it and
    listed in `not_screened` with the reason "not an image object".
    `missing` holds SOP instance UIDs that the sender listed and that never came; `held_at_edge`
    those of them that an edge agent says it keeps. `screened_at_edge` is that agent's word for
    what it looked at: nothing of it counts as screened here.
    """

    received_objects: int
    images: int
    screened: int
    not_screened: tuple[Unscreened, ...] = ()
    rejected: tuple[Unscreened, ...] = ()
    missing: tuple[str, ...] = ()
    held_at_edge: tuple[str, ...] = ()
    screened_at_edge: tuple[EdgeScreening, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelUse(Record):
    """A model that took part, and on what."""

    name: str
    version: str
    sha256: str
    threshold: float
    slices: int
    series: tuple[str, ...] = ()


DISCLAIMER = "not a medical device; for research and evaluation"


@dataclass(frozen=True, slots=True)
class Review(Record):
    """``review.json``: one generation of a study's review.

    Attributes:
        content_digest: digest of the sorted (blob, content hash) pairs it covers.
        timings: seconds by phase, and the UTC times of start, last arrival and publication.
    """

    study_instance_uid: str
    generation: int
    status: StudyStatus
    lanes: tuple[LaneFlag, ...]
    coverage: Coverage
    findings: tuple[Finding, ...]
    integrity: tuple[IntegrityIssue, ...]
    models: tuple[ModelUse, ...]
    policy_name: str
    policy_sha256: str
    content_digest: str
    timings: dict[str, Any] = field(default_factory=dict)
    supersedes: int | None = None
    folded_findings: tuple[FoldedFindings, ...] = ()
    disclaimer: str = DISCLAIMER

    @property
    def priority(self) -> int:
        """The highest priority of its lanes; 0 when none was flagged."""
        return max((flag.priority for flag in self.lanes), default=0)
