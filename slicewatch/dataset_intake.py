"""From what came to records of each object: the first steps that make a data set.

`survey` looks at all that came; `unpack` takes an archive apart; `batch` lists the objects;
`inspect` reads a batch of them. Each is an activity's work; bad data is a reject with its reason.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from slicewatch import archive, dataset, dataset_description, dataset_store, dicom, feedback
from slicewatch.arrival import Offered
from slicewatch.dataset import Inspected, Reject
from slicewatch.dataset_description import BadDescription, Description
from slicewatch.dataset_messages import InboxSurvey, PreparationStep, StepCounts
from slicewatch.dataset_store import TRAINING, Source, numbered
from slicewatch.limits import Limits, Rejected
from slicewatch.model_registry import Registry
from slicewatch.records import Reason
from slicewatch.settings import Settings
from slicewatch.storage import BlobInfo, Storage

_MAX_LABEL_BYTES = 64 << 10
_ARCHIVE, _LABELS = ".zip", ".txt"
_OTHER_FILES = frozenset(
    {".md", ".json", ".csv", ".toml", ".yaml", ".yml", ".png", ".jpg", ".jpeg", ".pdf", ".html"}
)
"""Endings of what lies beside images and is none; a file of any other may be an object."""


# --- look ---------------------------------------------------------------------------------------


def survey(storage: Storage, settings: Settings, name: str) -> InboxSurvey:
    """Look at all that a data set is to be made of, and write it down as its run."""
    blobs = dataset_store.inbox(storage, name)
    takes_feedback = settings.training_feedback == "on"
    items = (
        feedback.decided(storage)
        if takes_feedback and name == settings.training_feedback_dataset
        else []
    )
    content = [[blob.name, blob.etag] for blob in blobs]
    content += [[item.id, item.decided or ""] for item in items]
    run = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    files, archives = _sorted_out(blobs)
    fault, description = "", Description()
    try:
        description = _description(storage, name, blobs)
    except BadDescription as error:
        fault = str(error)
    record = {
        "files": [source.to_json() for source in files],
        "archives": [source.to_json() for source in archives],
        "items": [item.id for item in items],
        "description": description.to_json(),
        "fault": fault,
    }
    dataset_store.write_work(storage, PreparationStep(name, run), "survey", record)
    manifest = dataset_store.manifest(storage, name)
    return InboxSurvey(
        run,
        len(files) + len(archives),
        len(archives),
        refused=bool(fault),
        done=manifest is not None and manifest["run"] == run,
    )


def _description(storage: Storage, name: str, blobs: Iterable[BlobInfo]) -> Description:
    wanted = dataset_store.inbox_blob(name, dataset_description.FILE)
    for blob in blobs:
        if blob.name == wanted:
            bound = dataset_description.MAX_BYTES
            try:
                text = dataset_store.read_source(
                    storage, Source("", TRAINING, wanted, blob.size), bound
                )
            except dataset_store.SourceLost as error:
                raise BadDescription(f"{dataset_description.FILE}: {error}") from None
            return dataset_description.read(text)
    return Description()


def _sorted_out(blobs: Sequence[BlobInfo]) -> tuple[list[Source], list[Source]]:
    """The files that may be objects, and the archives; label files go with their images."""
    known = {blob.name for blob in blobs}
    files, archives = [], []
    for blob in blobs:
        name = dataset_store.source_name(blob.name)
        suffix = PurePosixPath(blob.name).suffix.lower()
        if suffix == _ARCHIVE:
            archives.append(Source(name, TRAINING, blob.name, blob.size))
        elif _may_be_an_object(blob.name):
            label = _label_of(blob.name, known)
            files.append(Source(name, TRAINING, blob.name, blob.size, label))
    return files, archives


def _may_be_an_object(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() not in {*_OTHER_FILES, _LABELS} and path.name != "DICOMDIR"


def _label_of(name: str, known: Container[str]) -> str:
    """The label file of an image: its name with ``.txt`` in place of its ending, or after it."""
    stem, dot, ending = name.rpartition(".")
    instead = (stem if dot and "/" not in ending else name) + _LABELS
    return next((one for one in (instead, name + _LABELS) if one in known), "")


# --- unpack -------------------------------------------------------------------------------------


def unpack(storage: Storage, settings: Settings, step: PreparationStep) -> StepCounts:
    """Take one archive apart; what it breaks of the bounds of `archive` is rejected."""
    taken: list[Source] = []
    rejects: list[Reject] = []
    source = Source.from_json(dataset_store.survey_of(storage, step)["archives"][step.number])
    try:
        data = dataset_store.read_source(storage, source, settings.max_request_bytes)
        offered = archive.unpack(data, settings)
    except (dataset_store.SourceLost, archive.BadArchive) as error:
        rejects.append(Reject(source.name, str(error)))
    else:
        taken, rejects = _entries(storage, step, source, data, offered)
    record = {
        "sources": [one.to_json() for one in taken],
        "rejects": [one.to_json() for one in rejects],
    }
    dataset_store.write_work(storage, step, numbered("unpacked", step.number), record)
    return StepCounts(taken=len(taken), rejected=len(rejects))


def _entries(
    storage: Storage, step: PreparationStep, source: Source, data: bytes, offered: Iterator[Offered]
) -> tuple[list[Source], list[Reject]]:
    # Names tell which label file is whose, and go no further: people put names of patients there.
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        names = [entry.filename for entry in file.infolist() if not entry.is_dir()]
    objects: list[tuple[str, Source]] = []
    labels: dict[str, str] = {}
    rejects = []
    for number, (name, one) in enumerate(zip(names, offered, strict=True), 1):
        entry = f"{source.name}#{number}"
        is_label = name.lower().endswith(_LABELS)
        if not (is_label or _may_be_an_object(name)):
            continue
        if one.refused is not None:
            rejects.append(Reject(entry, str(one.refused)))
            continue
        blob = dataset_store.work_blob(step, f"objects/{step.number:06d}/{number:06d}")
        storage.write(TRAINING, blob, one.data)
        if is_label:
            labels[name] = blob
        else:
            objects.append((name, Source(entry, TRAINING, blob, len(one.data))))
    taken = [
        dataclasses.replace(one, label=labels.get(_label_of(name, labels), ""))
        for name, one in objects
    ]
    return taken, rejects


# --- list ---------------------------------------------------------------------------------------


def batch(storage: Storage, settings: Settings, step: PreparationStep) -> StepCounts:
    """List all objects in batches."""
    survey = dataset_store.survey_of(storage, step)
    sources = [Source.from_json(one) for one in survey["files"]]
    rejected = 0
    for record in dataset_store.each_work(storage, step, "unpacked"):
        sources += [Source.from_json(one) for one in record["sources"]]
        rejected += len(record["rejects"])
    sources += feedback.gather(storage, survey["items"])[0]
    records = [(one.to_json(), one.size) for one in sources]
    batches = dataset_store.write_batches(storage, step, "sources", records, settings.batch_size)
    return StepCounts(batches=batches, taken=len(sources), rejected=rejected)


# --- inspect ------------------------------------------------------------------------------------


def inspect(
    storage: Storage, settings: Settings, registry: Registry, step: PreparationStep
) -> StepCounts:
    """Read a batch of objects, and decode each once."""
    limits = Limits.of(settings)
    found = dataset_store.survey_of(storage, step)
    share = Description.from_json(found["description"]).validation_share
    objects: list[Inspected] = []
    rejects: list[Reject] = []
    labels: dict[str, str] = {}
    models: Counter[str] = Counter()
    for record in dataset_store.read_work(storage, step, numbered("sources", step.number)):
        source = Source.from_json(record)
        try:
            data = dataset_store.read_source(storage, source, limits.max_bytes)
            if archive.is_archive(data):
                detail = f"an archive whose name does not end in {_ARCHIVE}"
                raise Rejected(Reason.NOT_DICOM, detail)
            one = dataset.inspect(source.name, data, validation_share=share, limits=limits)
            if isinstance(one, Reject):
                rejects.append(one)
                continue
            objects.append(one)
            if not one.is_annotation:
                choice = registry.choose(dicom.read_header(data, limits).attributes)
                models.update([choice.model.name] if choice else [])
                if source.label:
                    labels[source.name] = _label_text(storage, source)
        except (Rejected, dataset_store.SourceLost) as error:
            rejects.append(Reject(source.name, str(error)))
    record = {
        "objects": [one.to_json() for one in objects],
        "rejects": [one.to_json() for one in rejects],
        "labels": labels,
        "models": models,
    }
    dataset_store.write_work(storage, step, numbered("inspected", step.number), record)
    return StepCounts(taken=len(objects), rejected=len(rejects))


def _label_text(storage: Storage, source: Source) -> str:
    label = Source(source.name, source.container, source.label, 0)
    return dataset_store.read_source(storage, label, _MAX_LABEL_BYTES).decode("utf-8", "replace")
