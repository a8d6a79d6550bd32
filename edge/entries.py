"""What the journal says of objects and studies. The states of an object:

==========  ==================================================================================
looking     waits to be screened on site (only with look-first)
waiting     screened, nothing suspicious so far; waits until its study is over
night       goes up in the night window
ready       goes up as soon as possible
sending     in a request whose answer is not known: after a crash, it is offered again, which
            the cloud answers as it did the first time
sent        the cloud said that it has stored it
refused     the cloud refused it, or it must not leave; the file stays, with the reason
kept        stays on site by policy; its summary went up
aside       its file was damaged and is set aside
==========  ==================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class State(StrEnum):
    """What is to become of an object, or became of it."""

    LOOKING = "looking"
    WAITING = "waiting"
    NIGHT = "night"
    READY = "ready"
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"
    KEPT = "kept"
    ASIDE = "aside"


PENDING = (State.LOOKING, State.WAITING, State.NIGHT, State.READY, State.SENDING)
"""States that still hold something to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object. `sha256` is of the spooled file and names it; `attempts` counts answers that
    spoke of the request and not of the network. Times are UTC ISO 8601.
    """

    sha256: str
    size: int
    study: str
    series: str
    sop_instance: str
    sop_class: str
    modality: str
    instance_number: int
    source: str
    received: str
    state: State
    id: int = 0
    reason: str = ""
    attempts: int = 0
    generated: bool = False


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One study. `over`: nothing came for long enough; `settled_at_close`: how many of its objects
    had been sent or refused when the cloud was last told that it is complete, -1 before that;
    `rebuilt`: its list may lack objects, because the journal was lost.
    """

    uid: str
    over: bool
    urgent: bool
    rebuilt: bool
    settled_at_close: int


@dataclass(frozen=True, slots=True)
class Look:
    """What the models on site saw in an object.

    Attributes:
        outcome: ``screened``, ``not_screened`` (no model covers it) or ``rejected``.
        score: of the best detection, 0 without one.
        position: along the slice normal, mm; ``None`` where the object does not say.
    """

    sha256: str
    outcome: str
    model: str
    model_sha256: str
    score: float
    detections: int
    position: float | None


def utc_now() -> str:
    """UTC in ISO 8601: for people; nothing is timed by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
