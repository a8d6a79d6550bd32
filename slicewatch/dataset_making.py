"""From records of each object to a data set: the last steps that make one.

`plan` joins images and annotations; `render` makes the examples of a batch of images; `publish`
checks the whole and writes its manifests. Each is an activity's work.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from slicewatch import (
    dataset,
    dataset_description,
    dataset_intake,
    dataset_planning,
    dataset_store,
    feedback,
)
from slicewatch.annotations import BadAnnotation, yolo_boxes
from slicewatch.dataset import Example, Inspected, Labelled, PlannedImage, Reject
from slicewatch.dataset_checks import (
    Entry,
    check,
    check_losses,
    entry_of,
    manifest_text,
    picture_digest,
    read_manifest,
    yaml_text,
)
from slicewatch.dataset_description import BadDescription, Description
from slicewatch.dataset_messages import DatasetOutcome, DatasetStatus, PreparationStep, StepCounts
from slicewatch.dataset_store import Source, numbered
from slicewatch.limits import Limits, Rejected
from slicewatch.model_registry import Registry
from slicewatch.settings import Settings
from slicewatch.storage import BlobMissing, Storage

# --- plan ---------------------------------------------------------------------------------------


def plan(
    storage: Storage, settings: Settings, registry: Registry, step: PreparationStep
) -> StepCounts:
    """Give every image its boxes; from here on, the earlier data set is no longer whole."""
    earlier = dataset_store.heads(storage, step.dataset)
    found = dataset_store.survey_of(storage, step)
    sources = {one.name: one for one in dataset_store.sources_of(storage, step)}
    objects: list[Inspected] = []
    labels: dict[str, str] = {}
    models: Counter[str] = Counter()
    for record in dataset_store.each_work(storage, step, "inspected"):
        objects += [Inspected.from_json(one) for one in record["objects"]]
        labels |= record["labels"]
        models.update(record["models"])
    try:
        description = dataset_description.completed(
            Description.from_json(found["description"]), registry, models
        )
    except BadDescription as error:
        dataset_store.write_work(storage, step, "plan", {"fault": str(error)})
        dataset_store.behead(storage, earlier)
        return StepCounts(refused=True)
    drawn, rejects = _drawn_by_labels(objects, labels, description)
    drawn |= feedback.gather(storage, found["items"], description.classes)[1]
    planned = dataset_planning.plan(
        objects, _Annotations(storage, settings, sources), description.label_map(), drawn=drawn
    )
    rejects += planned.rejects
    record = {
        "description": description.to_json(),
        "rejects": [one.to_json() for one in rejects],
        "remarks": [one.to_json() for one in planned.remarks],
    }
    dataset_store.write_work(storage, step, "plan", record)
    pairs = [(image, sources[image.source]) for image in planned.images]
    images = [({"image": a.to_json(), "source": b.to_json()}, b.size) for a, b in pairs]
    batches = dataset_store.write_batches(storage, step, "images", images, settings.batch_size)
    dataset_store.behead(storage, earlier)
    return StepCounts(batches=batches, taken=len(planned.images), rejected=len(rejects))


class _Annotations(Mapping[str, bytes]):
    """The annotation objects by source, one in memory at a time."""

    def __init__(self, storage: Storage, settings: Settings, sources: Mapping[str, Source]) -> None:
        self._storage = storage
        self._bound = settings.max_object_bytes
        self._sources = sources

    def __getitem__(self, source: str) -> bytes:
        try:
            return dataset_store.read_source(self._storage, self._sources[source], self._bound)
        except dataset_store.SourceLost as error:
            raise BadAnnotation(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def _drawn_by_labels(
    objects: Iterable[Inspected], labels: Mapping[str, str], description: Description
) -> tuple[feedback.Drawn, list[Reject]]:
    drawn: feedback.Drawn = {}
    rejects = []
    for image in objects:
        if image.source in labels:
            text = labels[image.source]
            try:
                boxes = yolo_boxes(text, description.classes, image.rows, image.columns)
            except BadAnnotation as error:
                rejects.append(Reject(f"{image.source} (labels)", str(error)))
            else:
                drawn[image.sop_instance_uid, 1] = [Labelled(one.name, one.box) for one in boxes]
    return drawn, rejects


# --- render -------------------------------------------------------------------------------------


def render(storage: Storage, settings: Settings, step: PreparationStep) -> StepCounts:
    """Write the examples of a batch of images: pictures on serving's own path, and labels."""
    limits = Limits.of(settings)
    description = Description.from_json(
        dataset_store.read_work(storage, step, "plan")["description"]
    )
    entries: list[Entry] = []
    rejects: list[Reject] = []
    for record in dataset_store.read_work(storage, step, numbered("images", step.number)):
        image = PlannedImage.from_json(record["image"])
        try:
            data = dataset_store.read_source(
                storage, Source.from_json(record["source"]), limits.max_bytes
            )
            for example in dataset.render(
                image,
                data,
                description.classes,
                size=description.size,
                intensity=description.intensity(image.modality),
                limits=limits,
            ):
                if not example.boxes and not picture_digest(example.png)[1]:
                    reason = f"frame {_frame_of(example)} is of one gray value"
                    rejects.append(Reject(image.source, reason))
                    continue
                _write_example(storage, step.dataset, example)
                entries.append(entry_of(example))
        except (Rejected, dataset_store.SourceLost, BadAnnotation) as error:
            rejects.append(Reject(image.source, str(error)))
    done = {
        "entries": manifest_text(entries),
        "rejects": [one.to_json() for one in rejects],
    }
    dataset_store.write_work(storage, step, numbered("rendered", step.number), done)
    return StepCounts(taken=len(entries), rejected=len(rejects))


def _frame_of(example: Example) -> int:
    return int(example.name.rsplit("-", 1)[-1])


def _write_example(storage: Storage, name: str, example: Example) -> None:
    path = f"{example.split}/{example.name}"
    dataset_store.write_file(storage, name, f"images/{path}.png", example.png, "image/png")
    labels = example.label_text.encode()
    dataset_store.write_file(storage, name, f"labels/{path}.txt", labels, "text/plain")


# --- publish ------------------------------------------------------------------------------------


def publish(storage: Storage, settings: Settings, step: PreparationStep) -> DatasetOutcome:
    """Check the data set, write its manifests, and forget the records of the run."""
    # In this order: the mark, then what came. A door writes the mark after it stored.
    mark = dataset_store.opened(storage, step.dataset)
    manifest = dataset_store.manifest(storage, step.dataset)
    # Done by another run of this activity, which may have begun to forget the records.
    if manifest is None or manifest["run"] != step.run:
        manifest = _publish(storage, step)
    covered = dataset_intake.survey(storage, settings, step.dataset).run == step.run
    covered = covered and dataset_store.settle(storage, step.dataset, mark)
    dataset_store.clear_work(storage, step.dataset)
    return DatasetOutcome(
        status=DatasetStatus(manifest["status"]),
        examples=sum(sum(counts.values()) for counts in manifest["examples"].values()),
        rejected=len(manifest["rejected"]),
        problems=len(manifest["problems"]),
        covered=covered,
    )


def _publish(storage: Storage, step: PreparationStep) -> dict[str, Any]:
    """Write the data set's heads; its manifest, last."""
    try:
        planned = dataset_store.read_work(storage, step, "plan")
    except BlobMissing:
        planned = {"fault": dataset_store.survey_of(storage, step)["fault"]}
    if "fault" in planned:
        manifest = _refused(step, planned["fault"])
        dataset_store.behead(storage, dataset_store.heads(storage, step.dataset))
    else:
        manifest = _checked(storage, step, planned)
    dataset_store.write_manifest(storage, step.dataset, manifest)
    return manifest


def _checked(storage: Storage, step: PreparationStep, planned: dict[str, Any]) -> dict[str, Any]:
    entries: list[Entry] = []
    rejects = [Reject.from_json(one) for one in planned["rejects"]]
    sources = len(dataset_store.sources_of(storage, step))
    for folder in ("unpacked", "inspected", "rendered"):
        for record in dataset_store.each_work(storage, step, folder):
            rejects += [Reject.from_json(one) for one in record["rejects"]]
            if folder == "unpacked":
                sources += len(record["rejects"])
            if folder == "rendered":
                entries += read_manifest(record["entries"])
    classes = Description.from_json(planned["description"]).classes
    dataset_store.remove_others(storage, step.dataset, {f"{e.split}/{e.name}" for e in entries})
    for name, text, media_type in (
        ("manifest.csv", manifest_text(entries), "text/csv"),
        ("dataset.yaml", yaml_text(classes), "application/yaml"),
    ):
        dataset_store.write_file(storage, step.dataset, name, text.encode(), media_type)
    problems = check(entries, classes) + check_losses(rejects, sources)
    return {
        "dataset": step.dataset,
        "run": step.run,
        "status": DatasetStatus.MISLEADING if problems else DatasetStatus.PREPARED,
        "prepared": datetime.now(UTC).isoformat(timespec="seconds"),
        "description": planned["description"],
        "sources": sources,
        **_counts(entries, classes),
        "problems": [f"{problem.source}: {problem.reason}" for problem in problems],
        "rejected": [one.to_json() for one in sorted(rejects, key=lambda one: one.source)],
        "remarks": planned["remarks"],
    }


def _refused(step: PreparationStep, fault: str) -> dict[str, Any]:
    return {
        "dataset": step.dataset,
        "run": step.run,
        "status": DatasetStatus.REFUSED,
        "prepared": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": 0,
        **_counts((), ()),
        "problems": [fault],
        "rejected": [],
        "remarks": [],
    }


def _counts(entries: Sequence[Entry], classes: Sequence[str]) -> dict[str, Any]:
    """Examples, patients and boxes, by split."""
    examples: dict[str, Counter[str]] = defaultdict(Counter)
    boxes: dict[str, Counter[str]] = defaultdict(Counter)
    patients: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        examples[entry.split]["positive" if entry.classes else "negative"] += 1
        boxes[entry.split].update(classes[int(index)] for index in entry.classes.split())
        patients[entry.split].add(entry.patient)
    return {
        "examples": examples,
        "boxes": boxes,
        "patients": {split: len(members) for split, members in patients.items()},
    }
