"""What `prepare_dataset` and its activities say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from slicewatch.messages import Retry
from slicewatch.record import Record


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
