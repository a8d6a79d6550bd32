"""Where the results of a study are, and what became of them::

    reviews/{study}/{generation}/sr.dcm                 the report
    reviews/{study}/{generation}/pr-{n}.dcm             presentation states
    reviews/{study}/{generation}/sr-decided-{k}.dcm     the report with a decision or correction
    reviews/reporting/open/{study}/{generation}         to be made or sent: the sweep's list
    reviews/reporting/{study}/{generation}.json         a fault of making them, remarks
    reviews/reporting/{study}/{generation}/{name}       metadata: what the PACS said of it

The results themselves never change once written; what changes lies apart from the study's blobs,
which an evidence bundle packs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from slicewatch.record import Record
from slicewatch.storage import REVIEWS, BlobInfo, BlobMissing, Storage

SERIES, INSTANCE, SHA256 = "series", "instance", "sha256"
"""Keys of a result's blob metadata."""

_STATE = "reporting/"
_OPEN = _STATE + "open/"
_JSON = "application/json"
_TRIES = "tries"
_FIRST_PAUSE = timedelta(minutes=15)
"""Longer than the pauses between the attempts of one orchestration."""
_MOST_DOUBLINGS = 6


@dataclass(frozen=True, slots=True)
class Outcome(Record):
    """How the making of a generation's results ended.

    Attributes:
        fault: type of the error that another try would not cure; empty: none.
        remarks: what could not be shown, and why; free of patient data.
    """

    fault: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery(Record):
    """What became of sending one object.

    Attributes:
        state: ``sent``, ``refused`` (not tried again), or ``waiting`` (it is).
        reason: why, in words; empty once it is sent.
        at: UTC ISO 8601 of the last attempt.
    """

    state: str
    at: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A generation whose results are not all made and sent."""

    study: str
    generation: int
    tries: int
    touched: datetime

    def is_due(self, now: datetime) -> bool:
        """Whether nothing worked on it for so long that something is to be started: a quarter of
        an hour, doubled with each time that did not help, up to 16 hours.
        """
        pause: timedelta = _FIRST_PAUSE * 2.0 ** min(self.tries, _MOST_DOUBLINGS)
        return now - self.touched > pause


# --- results ------------------------------------------------------------------------------------


def name(study: str, generation: int, file: str) -> str:
    """Where a result is, in ``reviews``."""
    return f"{study}/{generation}/{file}"


def results(storage: Storage, study: str) -> Iterator[BlobInfo]:
    """The results of all generations, the earliest first.

    Generations are numbered without gaps, so that looking for them lists nothing of the rest of
    the study's blobs.
    """
    for generation in count(1):
        found = list(storage.listing(REVIEWS, f"{study}/{generation}/"))
        if not found:
            return
        yield from filter(_is_result, found)


def of_generation(storage: Storage, study: str, generation: int) -> list[BlobInfo]:
    """The results of one generation, by name."""
    return [*filter(_is_result, storage.listing(REVIEWS, f"{study}/{generation}/"))]


def _is_result(blob: BlobInfo) -> bool:
    return blob.name.endswith(".dcm") and INSTANCE in blob.metadata


# --- what is still to be done -------------------------------------------------------------------


def open_report(storage: Storage, study: str, generation: int, *, tries: int = 0) -> None:
    """Mark that results are to be made or sent; again, that something works on it now."""
    storage.write(REVIEWS, f"{_OPEN}{study}/{generation}", b"", metadata={_TRIES: str(tries)})


def touch(storage: Storage, study: str, generation: int) -> None:
    """Something works on it: the sweep need not."""
    found = storage.info(REVIEWS, f"{_OPEN}{study}/{generation}")
    tries = int(found.metadata.get(_TRIES, 0)) if found else 0
    open_report(storage, study, generation, tries=tries)


def close_report(storage: Storage, study: str, generation: int) -> None:
    """All is made, and sent or refused."""
    storage.delete(REVIEWS, f"{_OPEN}{study}/{generation}")


def unfinished(storage: Storage) -> Iterator[Unfinished]:
    """What is still to be done."""
    for blob in storage.listing(REVIEWS, _OPEN):
        study, generation = blob.name.removeprefix(_OPEN).split("/")
        tries = int(blob.metadata.get(_TRIES, 0))
        yield Unfinished(study, int(generation), tries, blob.last_modified)


# --- what became of it --------------------------------------------------------------------------


def note_outcome(storage: Storage, study: str, generation: int, outcome: Outcome) -> None:
    """Keep how the making ended."""
    body = json.dumps(outcome.to_json()).encode()
    storage.write(REVIEWS, f"{_STATE}{study}/{generation}.json", body, content_type=_JSON)


def outcome_of(storage: Storage, study: str, generation: int) -> Outcome | None:
    """How the making ended; ``None`` while it has not."""
    try:
        text = storage.read(REVIEWS, f"{_STATE}{study}/{generation}.json")
    except BlobMissing:
        return None
    return Outcome.from_json(json.loads(text))


def note_delivery(storage: Storage, result: str, delivery: Delivery) -> None:
    """Keep what became of sending a result, in a blob's metadata: one listing tells all of them.

    Args:
        result: its name in ``reviews``.
    """
    storage.write(REVIEWS, _STATE + result, b"", metadata=delivery.to_json())


def deliveries(storage: Storage, study: str, generation: int) -> dict[str, Delivery]:
    """What became of sending the results of a generation, by their names in ``reviews``."""
    return {
        blob.name.removeprefix(_STATE): Delivery.from_json(dict(blob.metadata))
        for blob in storage.listing(REVIEWS, f"{_STATE}{study}/{generation}/")
    }


def standing(storage: Storage, study: str, generation: int) -> dict[str, Any]:
    """Where the results of a generation stand, for the study's status.

    ``objects`` lists them with their UIDs and what became of sending each (``null``: not tried);
    ``fault`` names an error that they were not made for, ``remarks`` what they do not show.
    """
    outcome = outcome_of(storage, study, generation)
    told = deliveries(storage, study, generation)
    return {
        "fault": outcome.fault or None if outcome else None,
        "remarks": list(outcome.remarks) if outcome else [],
        "objects": [
            {
                "name": blob.name.rsplit("/", 1)[-1],
                "series": blob.metadata[SERIES],
                "instance": blob.metadata[INSTANCE],
                "delivery": told[blob.name].to_json() if blob.name in told else None,
            }
            for blob in of_generation(storage, study, generation)
        ],
    }


def now() -> str:
    """The time as it is noted."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
