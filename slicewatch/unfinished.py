"""Studies that are not done yet: the sweep's list, and how often it started each in vain.

Blobs in ``reviews``, apart from the studies' own, so that a sweep lists no more than it needs::

    open/{study}       a door stored something that no finished review covers
    failed/{study}     the study's orchestration failed; the metadata count the attempts
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from slicewatch import inventory
from slicewatch.storage import REVIEWS, BlobInfo, Conflict, Storage

_OPEN = "open/"
_FAILED = "failed/"
_LONGEST_PAUSE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Failure:
    """A study whose orchestration failed.

    Attributes:
        attempts: how often in a row it failed.
        last: when it failed last, UTC.
    """

    study: str
    attempts: int
    last: datetime

    def due(self, first_pause_s: float) -> datetime:
        """When to start it again: after the pause, doubled with each attempt, at most a day."""
        pause = first_pause_s * 2.0 ** min(self.attempts - 1, 30)
        return self.last + min(timedelta(seconds=pause), _LONGEST_PAUSE)


def open_study(storage: Storage, study: str) -> None:
    """Mark the study unfinished. A door calls it after it stored, before it looks for the
    orchestration: `settle` then either sees the new object or loses to this write.
    """
    storage.write(REVIEWS, _OPEN + study, b"")


def open_studies(storage: Storage) -> Iterator[tuple[str, datetime]]:
    """The unfinished studies, and when a door last marked each, UTC by the account's clock."""
    for blob in storage.listing(REVIEWS, _OPEN):
        yield blob.name.removeprefix(_OPEN), blob.last_modified


def is_open(storage: Storage, study: str) -> bool:
    """Whether the study is unfinished."""
    return storage.info(REVIEWS, _OPEN + study) is not None


def settle(storage: Storage, study: str, content_digest: str, *, finished: bool) -> bool:
    """Whether a review of this content covers everything received.

    When it does and the study is `finished`, the study leaves the unfinished ones. The marker is
    read before the objects are listed and deleted only as it was read, so an object that a door
    stores in between keeps the study unfinished.

    Returns:
        ``False`` when something came that the review does not cover.
    """
    marker = storage.info(REVIEWS, _OPEN + study)
    if not inventory.covers(storage, study, content_digest):
        return False
    if marker is None or not finished:
        return True
    try:
        storage.delete(REVIEWS, marker.name, etag=marker.etag)
    except Conflict:
        return False
    return True


def note_failure(storage: Storage, study: str, before: Failure | None, ended: datetime) -> Failure:
    """Count that the study's orchestration failed once more, at `ended` (UTC)."""
    failure = Failure(study, before.attempts + 1 if before else 1, ended)
    metadata = {"attempts": str(failure.attempts), "last": failure.last.isoformat()}
    storage.write(REVIEWS, _FAILED + study, b"", metadata=metadata)
    return failure


def failure_of(storage: Storage, study: str) -> Failure | None:
    """The study's failure; ``None`` when it did not fail, or went well since."""
    blob = storage.info(REVIEWS, _FAILED + study)
    return None if blob is None else _failure(blob)


def failures(storage: Storage) -> Iterator[Failure]:
    """The studies that failed and did not go well since."""
    return map(_failure, storage.listing(REVIEWS, _FAILED))


def forget_failure(storage: Storage, study: str) -> None:
    """The study went well: its next failure is the first one again."""
    storage.delete(REVIEWS, _FAILED + study)


def _failure(blob: BlobInfo) -> Failure:
    return Failure(
        blob.name.removeprefix(_FAILED),
        int(blob.metadata["attempts"]),
        datetime.fromisoformat(blob.metadata["last"]),
    )
