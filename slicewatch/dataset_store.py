"""The ledger of a data set in storage: what came, what is being made of it, what it became.

In the container ``training``::

    inbox/{dataset}/…                       what was sent, unchanged: DICOM files, zip files, labels
    open/{dataset}                          something came that is not prepared: the sweep's list
    work/{dataset}/{run}/…                  records of a preparation, gone when it is over
    {dataset}/images/{split}/{name}.png     the data set, as ``python -m training`` reads it
    {dataset}/labels/{split}/{name}.txt
    {dataset}/dataset.yaml, manifest.csv    written last: a data set without them is not whole
    {dataset}/manifest.json                 what was rejected and why, and whether it would mislead

A run is the digest of all that a data set is made of, so an activity that runs twice writes the
same blobs. The data set and its manifests hold digests of patients; what was sent stays in the
inbox, and is named in the manifests by digests of its blob names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from slicewatch.dataset_messages import PreparationPlan, PreparationStep
from slicewatch.messages import Retry
from slicewatch.record import Record
from slicewatch.settings import Settings
from slicewatch.storage import BlobInfo, BlobMissing, Conflict, Storage

TRAINING = "training"
_INBOX, _OPEN, _WORK = "inbox/", "open/", "work/"
_NAME = re.compile(r"[a-z0-9](-?[a-z0-9]){2,62}")
_RESERVED = frozenset({"inbox", "open", "work"})
_JSON = "application/json"
MOST_BATCHES = 500
"""Batches of a step: an orchestration's history grows with them, whatever the data set's size."""
MOST_BYTES = 256 << 20
"""Bytes of a batch, where they are known."""


@dataclass(frozen=True, slots=True)
class Source(Record):
    """One object to prepare.

    Attributes:
        name: what the manifests call it, see `source_name`; an archive's entry has ``#number``.
        label: blob of the same container with its YOLO labels; empty without.
    """

    name: str
    container: str
    blob: str
    size: int
    label: str = ""


class SourceLost(Exception):
    """A source's bytes cannot be had; the text says why."""


def is_dataset_name(name: str) -> bool:
    """3 to 63 lower-case letters, digits and single hyphens, and none of the ledger's folders."""
    return _NAME.fullmatch(name) is not None and name not in _RESERVED


def dataset_of(blob: str) -> str | None:
    """The data set that a blob of the inbox belongs to; ``None`` where the folder has no name."""
    dataset, _, rest = blob.removeprefix(_INBOX).partition("/")
    return dataset if blob.startswith(_INBOX) and rest and is_dataset_name(dataset) else None


def instance_id(dataset: str) -> str:
    """The instance id of the data set's orchestration."""
    return f"dataset-{dataset}"


def source_name(blob: str) -> str:
    """What stands for a blob in manifests: people put names of patients into names of files."""
    return hashlib.sha256(blob.encode()).hexdigest()[:12]


def preparation_plan(settings: Settings, dataset: str, *, at_once: bool) -> PreparationPlan:
    """The orchestrator's input, with the app settings it needs."""
    return PreparationPlan(
        dataset=dataset,
        quiet_s=settings.training_quiet_s,
        max_in_flight=settings.max_in_flight,
        retry=Retry(settings.retry_attempts, settings.retry_first_s),
        at_once=at_once,
    )


# --- what came ----------------------------------------------------------------------------------


def inbox_blob(dataset: str, path: str) -> str:
    """Name of a blob of the data set's inbox."""
    return f"{_INBOX}{dataset}/{path}"


def inbox(storage: Storage, dataset: str) -> list[BlobInfo]:
    """What was sent, in the order of names."""
    return list(storage.listing(TRAINING, inbox_blob(dataset, "")))


def open_dataset(storage: Storage, dataset: str) -> None:
    """Mark that something came. Call it before looking for the orchestration: `settle` then
    either sees what came or loses to this write.
    """
    storage.write(TRAINING, _OPEN + dataset, b"")


def open_datasets(storage: Storage) -> Iterator[str]:
    """Data sets with something that is not prepared."""
    for blob in storage.listing(TRAINING, _OPEN):
        yield blob.name.removeprefix(_OPEN)


def opened(storage: Storage, dataset: str) -> str | None:
    """The mark as it stands, for `settle`; ``None`` when there is none."""
    marker = storage.info(TRAINING, _OPEN + dataset)
    return marker.etag if marker else None


def settle(storage: Storage, dataset: str, mark: str | None) -> bool:
    """Take the mark off as it was read before looking at what came; ``False`` when it changed."""
    if mark is None:
        return opened(storage, dataset) is None
    try:
        storage.delete(TRAINING, _OPEN + dataset, etag=mark)
    except Conflict:
        return False
    return True


# --- a run --------------------------------------------------------------------------------------


def work_blob(step: PreparationStep, name: str) -> str:
    """Name of a blob of the run."""
    return f"{_WORK}{step.dataset}/{step.run}/{name}"


def write_work(storage: Storage, step: PreparationStep, name: str, content: Any) -> None:
    """Store a record of the run as JSON."""
    body = json.dumps(content, separators=(",", ":")).encode()
    storage.write(TRAINING, work_blob(step, f"{name}.json"), body, content_type=_JSON)


def read_work(storage: Storage, step: PreparationStep, name: str) -> Any:
    """A record of the run. Raises `storage.BlobMissing`."""
    return json.loads(storage.read(TRAINING, work_blob(step, f"{name}.json")))


def each_work(storage: Storage, step: PreparationStep, folder: str) -> Iterator[Any]:
    """The records in a folder of the run, in the order of their numbers."""
    for blob in storage.listing(TRAINING, work_blob(step, f"{folder}/")):
        yield json.loads(storage.read(TRAINING, blob.name))


def numbered(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}"


def survey_of(storage: Storage, step: PreparationStep) -> Any:
    """What the run's look found."""
    return read_work(storage, step, "survey")


def write_batches(
    storage: Storage,
    step: PreparationStep,
    folder: str,
    records: Sequence[tuple[Any, int]],
    batch_size: int,
) -> int:
    """Write (record, bytes of its object) in batches, larger ones where they would be many.

    Returns:
        How many batches; they are numbered from 0.
    """
    most = max(batch_size, math.ceil(len(records) / MOST_BATCHES))
    batches: list[list[Any]] = []
    held = 0
    for record, size in records:
        full = len(batches) < MOST_BATCHES and held + size > MOST_BYTES
        if not batches or len(batches[-1]) == most or full:
            batches.append([])
            held = 0
        batches[-1].append(record)
        held += size
    for number, content in enumerate(batches):
        write_work(storage, step, numbered(folder, number), content)
    return len(batches)


def read_source(storage: Storage, source: Source, bound: int) -> bytes:
    """The source's bytes. Raises `SourceLost` when they are gone, or more than the bound."""
    try:
        info = storage.info(source.container, source.blob)
        if info is None:
            raise BlobMissing(source.name)
        if info.size > bound:
            raise SourceLost(f"it has {info.size} bytes; at most {bound} are read")
        return storage.read(source.container, source.blob)
    except BlobMissing:
        raise SourceLost("it was removed before it was read") from None


def sources_of(storage: Storage, step: PreparationStep) -> list[Source]:
    """All objects of the run."""
    batches = each_work(storage, step, "sources")
    return [Source.from_json(one) for content in batches for one in content]


def clear_work(storage: Storage, dataset: str) -> None:
    """Remove the records of all runs, and the objects that archives were unpacked to."""
    for blob in storage.listing(TRAINING, f"{_WORK}{dataset}/"):
        storage.delete(TRAINING, blob.name)


# --- the data set -------------------------------------------------------------------------------

HEADS = ("dataset.yaml", "manifest.csv", "manifest.json")


def write_file(storage: Storage, dataset: str, path: str, data: bytes, content_type: str) -> None:
    storage.write(TRAINING, f"{dataset}/{path}", data, content_type=content_type)


def heads(storage: Storage, dataset: str) -> list[BlobInfo]:
    """The files that make a data set whole, as they stand."""
    found = (storage.info(TRAINING, f"{dataset}/{name}") for name in HEADS)
    return [blob for blob in found if blob]


def behead(storage: Storage, blobs: Sequence[BlobInfo]) -> None:
    """Remove these `heads`, but those that were written anew since."""
    for blob in blobs:
        with contextlib.suppress(Conflict):
            storage.delete(TRAINING, blob.name, etag=blob.etag)


def remove_others(storage: Storage, dataset: str, names: set[str]) -> None:
    """Remove the pictures and labels of examples that are not among `names`."""
    for folder in ("images", "labels"):
        for blob in storage.listing(TRAINING, f"{dataset}/{folder}/"):
            stem, _, _ = blob.name.removeprefix(f"{dataset}/{folder}/").rpartition(".")
            if stem not in names:
                storage.delete(TRAINING, blob.name)


def write_manifest(storage: Storage, dataset: str, manifest: dict[str, Any]) -> None:
    body = json.dumps(manifest, indent=1).encode()
    write_file(storage, dataset, "manifest.json", body, _JSON)


def manifest(storage: Storage, dataset: str) -> dict[str, Any] | None:
    """``manifest.json``; ``None`` when there is none."""
    try:
        found: dict[str, Any] = json.loads(storage.read(TRAINING, f"{dataset}/manifest.json"))
    except BlobMissing:
        return None
    return found
