"""Records that cross a boundary: durable messages, result blobs, the review that is published.

Every record is a frozen dataclass with ``to_json`` and ``from_json`` (plain dicts of JSON types).
Boxes are in pixels of the source frame, ``(x1, y1, x2, y2)``: x to the right, y down, pixel
edges, so a box that covers the whole frame is ``(0, 0, columns, rows)``. Patient coordinates
are LPS in millimetres (PS3.3 section C.7.6.2.1.1). Times are UTC, ISO 8601.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, Self

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


class Record:
    """JSON in both directions for a frozen dataclass, driven by its type hints."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON types; fields that hold their default ``None`` are left out."""
        return {
            f.name: _plain(value)
            for f in dataclasses.fields(typing.cast(Any, self))
            if not ((value := getattr(self, f.name)) is None and f.default is None)
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Build the record from `to_json`'s dict; keys of a later version are ignored.

        Raises:
            KeyError: a field without default is missing.
        """
        hints = _hints(typing.cast("Hashable", cls))
        values: dict[str, Any] = {}
        for f in dataclasses.fields(typing.cast(Any, cls)):
            if f.name in data:
                values[f.name] = _typed(hints[f.name], data[f.name])
            elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise KeyError(f"{cls.__name__}.{f.name}")
        return cls(**values)


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(typing.cast("type", cls))


def _plain(value: Any) -> Any:
    match value:
        case Record():
            return value.to_json()
        case StrEnum():
            return value.value
        case tuple() | list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case _:
            return value


def _typed(hint: Any, value: Any) -> Any:
    if isinstance(hint, typing.TypeAliasType):
        hint = hint.__value__
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(arm for arm in hint.__args__ if arm is not types.NoneType)
        return _typed(hint, value)
    origin = typing.get_origin(hint)
    if origin is tuple:
        args = typing.get_args(hint)
        each = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_typed(arm, item) for arm, item in zip(each, value, strict=True))
    if origin is dict:
        return {key: _typed(typing.get_args(hint)[1], item) for key, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_json(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    return float(value) if hint is float else value


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


@dataclass(frozen=True, slots=True)
class Coverage(Record):
    """What of the study was looked at, counted in frames (objects where none decode).

    `images` counts what a model should have looked at: non-image objects are left out of it and
    listed in `not_screened` with the reason "not an image object".
    `missing` holds SOP instance UIDs that the sender listed and that never came.
    """

    received_objects: int
    images: int
    screened: int
    not_screened: tuple[Unscreened, ...] = ()
    rejected: tuple[Unscreened, ...] = ()
    missing: tuple[str, ...] = ()


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


# --- durable messages -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault(Record):
    """Answer of an activity that failed for good: the error's type, and which activity.

    No other answer has a field `fault`.
    """

    fault: str
    activity: str


@dataclass(frozen=True, slots=True)
class Retry(Record):
    """How an activity is tried again at transient faults; seconds, doubled each time."""

    attempts: int
    first_s: float


@dataclass(frozen=True, slots=True)
class ReviewPlan(Record):
    """Input of ``review_study``: an orchestrator reads no settings, so they come with it.

    Attributes:
        quiet_s: the study is complete when nothing came for this long.
        force_s: it is reviewed at the latest this long after `started`.
        started: UTC ISO 8601 of the first run, kept over continue-as-new; ``None`` at first.
        received, changed: what the inventory last counted, and when (UTC ISO 8601) it changed.
        sla_s: lane to seconds until an undecided item escalates.
    """

    study: str
    quiet_s: float
    force_s: float
    poll_s: float
    max_poll_s: float
    max_in_flight: int
    retry: Retry
    sla_s: dict[str, float]
    max_escalation: int
    started: str | None = None
    received: int = 0
    changed: str | None = None


@dataclass(frozen=True, slots=True)
class InventoryRequest(Record):
    """Input of ``take_inventory``.

    Attributes:
        after: highest batch number that the caller knows; -1 for none.
        flush: put slices into a batch that is not full, too.
    """

    study: str
    after: int = -1
    flush: bool = False


@dataclass(frozen=True, slots=True)
class Inventory(Record):
    """Answer of ``take_inventory``: the study as storage holds it; counts are objects.

    Attributes:
        batches: numbers above `InventoryRequest.after` of batches to screen, ascending.
        last_batch: the highest number looked at; ask again after it when `more`.
        unassigned: received, in no batch yet.
        done: totals of the batches screened already.
        closed: the sender said that the study is complete; `missing` counts the SOP instance
            UIDs that it listed and that have not come.
    """

    received: int
    batches: tuple[int, ...]
    last_batch: int
    more: bool
    unassigned: int
    done: BatchResult
    closed: bool
    missing: int


@dataclass(frozen=True, slots=True)
class BatchRequest(Record):
    """Input of ``screen_slices``."""

    study: str
    batch: int


@dataclass(frozen=True, slots=True)
class AssessRequest(Record):
    """Input of ``assess_study``: UTC ISO 8601 times as the orchestrator saw them."""

    study: str
    started: str
    last_arrival: str
    screened: str
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Assessment(Record):
    """Answer of ``assess_study``: what the orchestrator needs of the review that was written.

    `assessed` is when, UTC ISO 8601.
    """

    study: str
    generation: int
    status: StudyStatus
    lanes: tuple[LaneFlag, ...]
    findings: int
    content_digest: str
    objects: int
    assessed: str = ""


@dataclass(frozen=True, slots=True)
class WaitingItem(Record):
    """A worklist item that waits for a decision; `created` is UTC ISO 8601."""

    item: str
    lane: Lane
    created: str


@dataclass(frozen=True, slots=True)
class Published(Record):
    """Answer of ``publish_review``: the items that wait, and how many are decided already."""

    waiting: tuple[WaitingItem, ...]
    decided: int = 0


@dataclass(frozen=True, slots=True)
class Escalation(Record):
    """Input of ``escalate_item``: the level that the item rises to."""

    item: str
    level: int


@dataclass(frozen=True, slots=True)
class ItemState(Record):
    """Answer of ``escalate_item``: the item's state, for a decision whose event got lost."""

    item: str
    state: str
    level: int


@dataclass(frozen=True, slots=True)
class SettleRequest(Record):
    """Input of ``settle_study``: the content that a review covers.

    `finished` takes the study off the unfinished ones when that is all there is.
    """

    study: str
    content_digest: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Settlement(Record):
    """Answer of ``settle_study``: whether the review covers everything received."""

    covered: bool


@dataclass(frozen=True, slots=True)
class Progress(Record):
    """Custom status of ``review_study``: `received` and `missing` count objects, the others what
    screening made of them, frames where there are frames.

    `published` says that a review of what was received then is out; `assessed` when it was made,
    UTC ISO 8601.
    """

    status: StudyStatus
    received: int
    screened: int
    not_screened: int
    rejected: int
    with_detections: int
    published: bool = False
    generation: int | None = None
    assessed: str = ""
    lanes: tuple[str, ...] = ()
    priority: int = 0
    closed: bool = False
    missing: int = 0


# --- data set preparation -------------------------------------------------------------------------


class DatasetStatus(StrEnum):
    """Status of a data set's preparation; only ``PREPARED`` is fit to train and measure on."""

    COLLECTING = "collecting"
    UNPACKING = "unpacking"
    INSPECTING = "inspecting"
    RENDERING = "rendering"
    PREPARED = "prepared"
    MISLEADING = "misleading"
    """It is written, and what is trained or measured on it would mislead; `problems` say why."""
    REFUSED = "refused"
    """Nothing was written: its description cannot be used, or no model is for its series."""
    FAILED = "failed"
    """Faults did not pass; the sweep tries again."""


@dataclass(frozen=True, slots=True)
class PreparationPlan(Record):
    """Input of ``prepare_dataset``.

    Attributes:
        quiet_s: preparation starts when nothing came for this long.
        at_once: do not wait for that.
        seen: the inbox's content as the last look found it (`InboxSurvey.run`).
    """

    dataset: str
    quiet_s: float
    max_in_flight: int
    retry: Retry
    at_once: bool = False
    seen: str = ""


@dataclass(frozen=True, slots=True)
class InboxSurvey(Record):
    """Answer of ``survey_inbox``.

    Attributes:
        run: digest of all that the data set is made of: the same content, the same run.
        files: that may hold objects; archives: of them.
        refused: the data set's description cannot be used.
        done: the data set is made of just this already.
    """

    run: str
    files: int
    archives: int
    refused: bool = False
    done: bool = False


@dataclass(frozen=True, slots=True)
class PreparationStep(Record):
    """Input of the activities of a run; `number` is that of an archive or a batch."""

    dataset: str
    run: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class StepCounts(Record):
    """Answer of the activities of a run: what they counted; the records are in blobs.

    Attributes:
        batches: to do in the next step; taken: objects, images or examples; rejected: sources.
    """

    batches: int = 0
    taken: int = 0
    rejected: int = 0
    refused: bool = False


@dataclass(frozen=True, slots=True)
class DatasetOutcome(Record):
    """Answer of ``publish_dataset``; `covered` says that nothing came meanwhile."""

    status: DatasetStatus
    examples: int
    rejected: int
    problems: int
    covered: bool


@dataclass(frozen=True, slots=True)
class PreparationProgress(Record):
    """Custom status of ``prepare_dataset``, and its output."""

    status: DatasetStatus
    files: int = 0
    objects: int = 0
    images: int = 0
    examples: int = 0
    rejected: int = 0
    problems: int = 0


# --- evidence bundles -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EvidenceRequest(Record):
    """Input of ``export_evidence``; `requester` is who asked, as they said.

    Attributes:
        export: names the bundle; empty: the time at which the orchestration started.
    """

    study: str
    requester: str
    max_in_flight: int
    retry: Retry
    export: str = ""


@dataclass(frozen=True, slots=True)
class EvidenceParts(Record):
    """Answer of ``plan_evidence``: the parts to pack, the files and bytes in them."""

    parts: int
    files: int
    size: int


@dataclass(frozen=True, slots=True)
class EvidencePart(Record):
    """Input of ``pack_evidence``: one part, numbered from 0."""

    study: str
    export: str
    part: int


@dataclass(frozen=True, slots=True)
class Evidence(Record):
    """Output of ``export_evidence``.

    Attributes:
        bundle: the zip file's name in the container ``custody``.
        entries, head: of the custody log in it; the hash of its last entry.
        manifest: hash of its manifest, which has the hashes of all files.
    """

    study: str
    bundle: str
    files: int
    entries: int
    head: str
    manifest: str
    signed: bool
