"""What `review_study` and its activities say to each other: under 16 KiB each, whatever the study's
size.
"""

from __future__ import annotations

from dataclasses import dataclass

from slicewatch.record import Record
from slicewatch.records import BatchResult, Lane, LaneFlag, StudyStatus


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
            UIDs that it listed, does not hold at the edge, and that have not come.
        listed: the answer goes by the objects that are stored, not by notes of their arrival.
    """

    received: int
    batches: tuple[int, ...]
    last_batch: int
    more: bool
    unassigned: int
    done: BatchResult
    closed: bool
    missing: int
    listed: bool = True


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
