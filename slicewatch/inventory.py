"""The ledger of a study in storage: what came, what is in which batch, what is done.

A study's state is in blobs alone, so that an orchestration that is lost or started anew goes on
where the last one stopped, and so that its history and messages do not grow with slices::

    incoming/{study}/{series}/{sop}.dcm            the originals
    reviews/{study}/arrived/{digest}.json          what one request brought
    reviews/{study}/closed/{digest}.json           a sender says that it is complete
    reviews/{study}/rejected/{sha256}.json         an object of it was refused at a door
    reviews/{study}/slices/{batch}.json            manifest: the objects of a batch, immutable
    reviews/{study}/slices/{batch}.{models}.json   slice results of a batch by these models
    reviews/{study}/{generation}/review.json       a published review

Manifests are numbered without gaps and written only where none is, so two writers cannot give
one number to different batches. The notes of what arrived make most looks at a study that arrives
cheap: they are few where its objects are many. The listing of ``incoming`` alone is the truth, and
the first look and those that take the rest (`InventoryRequest.flush`) go by it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from slicewatch import closings
from slicewatch.messages import Inventory, InventoryRequest, Retry, ReviewPlan
from slicewatch.record import Record
from slicewatch.records import BatchResult, EdgeScreening, Review, SliceResult
from slicewatch.settings import Settings
from slicewatch.storage import INCOMING, REVIEWS, BlobInfo, Conflict, Storage

_COUNTS = ("screened", "not_screened", "rejected", "with_detections")
MOST_BATCHES = 128
"""Batch numbers in one answer: keeps the durable message small at any size of study."""
MOST_BYTES = 256 << 20
"""Bytes of a batch: keeps an activity's time bounded where objects have many frames."""


@dataclass(frozen=True, slots=True)
class Entry(Record):
    """One object of a batch: its name in ``incoming`` and the SHA-256 of its bytes."""

    blob: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Arrived(Record):
    """One object that a request brought: its name in ``incoming``, its bytes' SHA-256 and size."""

    blob: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An object that is in no batch yet, and since when it is there."""

    object: Arrived
    since: datetime


def instance_id(study: str) -> str:
    """The orchestration's instance id of a study: tells nothing of the patient, and is stable."""
    return f"study-{hashlib.sha256(study.encode()).hexdigest()[:32]}"


def review_plan(settings: Settings, study: str) -> ReviewPlan:
    """The orchestrator's input for a study, with the app settings it needs."""
    return ReviewPlan(
        study=study,
        quiet_s=settings.quiet_s,
        force_s=settings.force_s,
        poll_s=settings.poll_s,
        max_poll_s=settings.max_poll_s,
        max_in_flight=settings.max_in_flight,
        retry=Retry(settings.retry_attempts, settings.retry_first_s),
        sla_s={"clinical": settings.clinical_sla_s, "forensic": settings.forensic_sla_s},
        max_escalation=settings.max_escalation,
    )


# --- what came ----------------------------------------------------------------------------------


def covers(storage: Storage, study: str, content_digest: str) -> bool:
    """Whether a review of this content is of everything received, of what doors refused, and of
    what is missing now.
    """
    blobs = received(storage, study)
    names = [blob.name for blob in blobs]
    missing = missing_instances(names, closings.expected_instances(storage, study) or ())
    refused = [(one.blob, one.content_sha256) for one in rejections(storage, study, names)]
    at_edge = closings.screened_at_edge(storage, study)
    return content_digest == digest([*content_of(blobs), *refused], missing, at_edge)


def received(storage: Storage, study: str) -> list[BlobInfo]:
    """The study's objects in ``incoming``, in the order of their names."""
    return list(storage.listing(INCOMING, f"{study}/"))


def digest(
    objects: Iterable[tuple[str, str]],
    missing: Iterable[str],
    at_edge: Iterable[EdgeScreening] = (),
) -> str:
    """SHA-256 over the sorted (blob name, content hash) pairs, the SOP instance UIDs that are
    missing, and what edge agents said: what a review covers, and what it says of the rest.
    """
    content: list[Any] = [sorted(objects), sorted(missing)]
    if said := [one.to_json() for one in at_edge]:
        content.append(said)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def content_of(blobs: Iterable[BlobInfo]) -> Iterator[tuple[str, str]]:
    """The (blob name, content hash) pairs of a listing, for `digest`."""
    for blob in blobs:
        yield blob.name, blob.metadata.get("sha256", "")


def note_rejection(storage: Storage, rejection: SliceResult) -> None:
    """Keep in the study that an object of it was refused at a door, so that its review says so."""
    name = f"{rejection.study_instance_uid}/rejected/{rejection.content_sha256}.json"
    storage.write(REVIEWS, name, json.dumps(rejection.to_json()).encode(), content_type=_JSON)


def rejections(storage: Storage, study: str, blobs: Iterable[str]) -> list[SliceResult]:
    """The objects of the study that doors refused, but for those whose instance is among `blobs`:
    it was sent again, and well.
    """
    came = {sop_instance_uid(blob) for blob in blobs}
    refused = [
        SliceResult.from_json(json.loads(storage.read(REVIEWS, blob.name)))
        for blob in storage.listing(REVIEWS, f"{study}/rejected/")
    ]
    return [one for one in refused if one.sop_instance_uid not in came]


def sop_instance_uid(blob: str) -> str:
    """SOP instance UID of an object's name; variants with other bytes have the same one."""
    return blob.rsplit("/", 1)[-1].removesuffix(".dcm").split("~", 1)[0]


def missing_instances(blobs: Iterable[str], expected: Iterable[str]) -> tuple[str, ...]:
    """The SOP instance UIDs that were listed and are among no blob names, sorted."""
    return tuple(sorted(set(expected) - {sop_instance_uid(blob) for blob in blobs}))


def note_arrival(storage: Storage, study: str, objects: Iterable[Arrived]) -> None:
    """Note what a request brought, once it is stored; the same objects again change nothing."""
    body = json.dumps([one.to_json() for one in objects], separators=(",", ":")).encode()
    name = f"{study}/arrived/{hashlib.sha256(body).hexdigest()[:32]}.json"
    with contextlib.suppress(Conflict):
        storage.write(REVIEWS, name, body, content_type=_JSON, if_absent=True)


# --- batches ------------------------------------------------------------------------------------


def take(
    storage: Storage,
    request: InventoryRequest,
    *,
    models_digest: str,
    batch_size: int,
    batch_wait_s: float,
) -> Inventory:
    """Count what came, put what is in no batch into batches, and name the batches to screen.

    Only full batches are made, unless `flush`, or an object has waited `batch_wait_s` for others.
    """
    study = request.study
    listed = request.flush or request.after < 0
    came = _stored(storage, study) if listed else _noted(storage, study)
    batches, results = _ledger(storage, study, models_digest)
    names = {entry.blob for number in batches for entry in manifest(storage, study, number)}
    waiting = [one for name, one in came.items() if name not in names]
    names |= came.keys()
    flush = request.flush or _waited(waiting, batch_wait_s)
    try:
        for chunk, full in list(_chunks([one.object for one in waiting], batch_size)):
            if full or flush:
                batches.append(_append(storage, study, len(batches), chunk))
                waiting = waiting[len(chunk) :]
    except Conflict:
        # Another run of this activity assigned objects meanwhile: look again.
        return take(
            storage,
            request,
            models_digest=models_digest,
            batch_size=batch_size,
            batch_wait_s=batch_wait_s,
        )
    pending = [n for n in batches if n > request.after and n not in results]
    answer = pending[:MOST_BATCHES]
    more = len(pending) > len(answer)
    awaited = closings.awaited_instances(storage, study)
    return Inventory(
        received=len(names),
        batches=tuple(answer),
        last_batch=answer[-1] if more else max(batches, default=-1),
        more=more,
        unassigned=len(waiting),
        done=BatchResult(-1, *(sum(int(r[k]) for r in results.values()) for k in _COUNTS)),
        closed=awaited is not None,
        missing=len(missing_instances(names, awaited or ())),
        listed=listed,
    )


def manifest(storage: Storage, study: str, batch: int) -> tuple[Entry, ...]:
    """The objects of a batch. Raises `storage.BlobMissing`."""
    return _manifest(storage, f"{study}/slices/{batch:05d}.json")


def all_screened(storage: Storage, study: str, models_digest: str) -> bool:
    """Whether every batch has results by these models."""
    batches, results = _ledger(storage, study, models_digest)
    return set(batches) == set(results)


def write_results(
    storage: Storage,
    study: str,
    batch: int,
    models_digest: str,
    slices: Sequence[SliceResult],
    counts: BatchResult,
) -> None:
    """Store the slice results of a batch; the same batch and models give the same name."""
    storage.write(
        REVIEWS,
        results_name(study, batch, models_digest),
        json.dumps([one.to_json() for one in slices], separators=(",", ":")).encode(),
        metadata={key: str(getattr(counts, key)) for key in _COUNTS},
        content_type=_JSON,
    )


def result_counts(
    storage: Storage, study: str, batch: int, models_digest: str
) -> BatchResult | None:
    """The counts of a batch that was screened already; ``None`` when it was not."""
    blob = storage.info(REVIEWS, results_name(study, batch, models_digest))
    if blob is None:
        return None
    return BatchResult(batch, *(int(blob.metadata[key]) for key in _COUNTS))


def read_results(storage: Storage, study: str, models_digest: str) -> list[SliceResult]:
    """All slice results of a study by these models."""
    _, results = _ledger(storage, study, models_digest)
    return [
        SliceResult.from_json(item)
        for number in sorted(results)
        for item in json.loads(storage.read(REVIEWS, results_name(study, number, models_digest)))
    ]


# --- reviews ------------------------------------------------------------------------------------


def latest_review(storage: Storage, study: str) -> Review | None:
    """The review of the newest generation; ``None`` before the first is published."""
    generations = [
        int(parts[1])
        for blob in storage.listing(REVIEWS, f"{study}/")
        if (parts := blob.name.split("/"))[-1] == "review.json" and parts[1].isdigit()
    ]
    if not generations:
        return None
    return read_review(storage, study, max(generations))


def read_review(storage: Storage, study: str, generation: int) -> Review:
    """One generation's review. Raises `storage.BlobMissing`."""
    return Review.from_json(json.loads(storage.read(REVIEWS, review_name(study, generation))))


def write_review(storage: Storage, review: Review) -> None:
    """Store ``review.json``. Raises `storage.Conflict` when the generation is written already."""
    storage.write(
        REVIEWS,
        review_name(review.study_instance_uid, review.generation),
        json.dumps(review.to_json(), indent=1).encode(),
        content_type=_JSON,
        if_absent=True,
    )


def review_name(study: str, generation: int) -> str:
    """Where `write_review` puts a review, in ``reviews``."""
    return f"{study}/{generation}/review.json"


_JSON = "application/json"


def results_name(study: str, batch: int, models_digest: str) -> str:
    """Where `write_results` puts the results of a batch, in ``reviews``."""
    return f"{study}/slices/{batch:05d}.{models_digest[:12]}.json"


def _ledger(
    storage: Storage, study: str, models_digest: str
) -> tuple[list[int], dict[int, dict[str, Any]]]:
    """Batch numbers, and number to result counts of those screened by these models."""
    batches: list[int] = []
    results: dict[int, dict[str, Any]] = {}
    prefix = f"{study}/slices/"
    for blob in storage.listing(REVIEWS, prefix):
        number, *models, _ = blob.name.removeprefix(prefix).split(".")
        if not models:
            batches.append(int(number))
        elif models[0] == models_digest[:12]:
            results[int(number)] = dict(blob.metadata)
    return sorted(batches), results


@lru_cache(maxsize=4096)
def _manifest(storage: Storage, name: str) -> tuple[Entry, ...]:
    # Manifests never change once written, so a process reads each of them once.
    return tuple(Entry.from_json(item) for item in json.loads(storage.read(REVIEWS, name)))


def _stored(storage: Storage, study: str) -> dict[str, _Waiting]:
    """By name, the objects that are in ``incoming``."""
    return {
        blob.name: _Waiting(
            Arrived(blob.name, blob.metadata.get("sha256", ""), blob.size), blob.last_modified
        )
        for blob in received(storage, study)
    }


def _noted(storage: Storage, study: str) -> dict[str, _Waiting]:
    """By name, the objects that requests noted as brought."""
    return {
        one.blob: _Waiting(one, note.last_modified)
        for note in storage.listing(REVIEWS, f"{study}/arrived/")
        for one in _note(storage, note.name)
    }


@lru_cache(maxsize=1024)
def _note(storage: Storage, name: str) -> tuple[Arrived, ...]:
    # A note is named by its content, so a process reads each of them once.
    return tuple(Arrived.from_json(item) for item in json.loads(storage.read(REVIEWS, name)))


def _append(storage: Storage, study: str, number: int, objects: Sequence[Arrived]) -> int:
    entries = [Entry(one.blob, one.sha256) for one in objects]
    body = json.dumps([entry.to_json() for entry in entries], separators=(",", ":")).encode()
    storage.write(
        REVIEWS, f"{study}/slices/{number:05d}.json", body, content_type=_JSON, if_absent=True
    )
    return number


def _waited(waiting: Sequence[_Waiting], wait_s: float) -> bool:
    oldest = min((one.since for one in waiting), default=None)
    return oldest is not None and (datetime.now(UTC) - oldest).total_seconds() >= wait_s


def _chunks(objects: Sequence[Arrived], size: int) -> Iterator[tuple[Sequence[Arrived], bool]]:
    """Runs of at most `size` objects and, but for a single larger one, `MOST_BYTES`; and whether
    the run is full.
    """
    start, held = 0, 0
    for end, one in enumerate(objects):
        if end - start == size or (end > start and held + one.size > MOST_BYTES):
            yield objects[start:end], True
            start, held = end, 0
        held += one.size
    if start < len(objects):
        yield objects[start:], len(objects) - start == size
