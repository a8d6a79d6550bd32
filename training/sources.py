"""Where examples come from: DICOM folders, masked pictures, and generated studies."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from slicewatch import dataset, dataset_planning, pixels
from slicewatch.annotations import BadAnnotation, mask_box, yolo_boxes
from slicewatch.dataset import (
    TRAIN,
    Example,
    Inspected,
    Labelled,
    Plan,
    PlannedFrame,
    PlannedImage,
    Reject,
)
from slicewatch.dataset_checks import check_label
from slicewatch.dataset_planning import LabelMap
from slicewatch.limits import Rejected
from slicewatch.records import Box
from training.domains import Domain
from training.normal_brain import normal_slice
from training.phantom import generate_phantom
from training.progress import Progress


class BadSource(Exception):
    """A source cannot be used at all; the text names it and the remedy."""


@dataclass
class Findings:
    """What preparation noticed on the way."""

    rejects: list[Reject] = field(default_factory=list)
    remarks: list[Reject] = field(default_factory=list)
    sources: int = 0

    def drop(self, source: str, reason: str) -> None:
        self.rejects.append(Reject(source, reason))


def summary(notes: Sequence[Reject], shown: int = 3) -> list[str]:
    """One line a reason: the first sources that it holds for, and how many more there are."""
    sources: dict[str, list[str]] = {}
    for note in notes:
        sources.setdefault(note.reason, []).append(note.source)
    return [
        f"{reason}: {', '.join(names[:shown])}"
        + (f" and {len(names) - shown} more" if len(names) > shown else "")
        for reason, names in sources.items()
    ]


def dicom_folder(
    folder: Path,
    domain: Domain,
    findings: Findings,
    *,
    validation_share: float,
) -> Iterator[Example]:
    """Examples of what `plan_folder` finds."""
    plan = plan_folder(
        folder, domain.classes, domain.labels, findings, validation_share=validation_share
    )
    for image in Progress(plan.images, "rendering"):
        yield from _rendered(image, (folder / image.source).read_bytes(), domain, findings)


def plan_folder(
    folder: Path,
    classes: Sequence[str],
    labels: LabelMap,
    findings: Findings,
    *,
    validation_share: float = 0.2,
    unannotated_free: bool = False,
) -> Plan:
    """Images with RTSTRUCT or SEG anywhere below `folder`, or with YOLO label files beside.

    A label file has the image's name, with ``.txt`` in place of its ending or after it; an empty
    one is a negative frame.

    Args:
        labels: which outlined structures are of which class.
        findings: takes what was rejected and remarked.
        unannotated_free: studies without any annotation count as free of lesions; otherwise they
            are left out, for nobody said so.

    Raises:
        BadSource: no file could be DICOM.
    """
    files = [path for path in files_below(folder) if _may_be_dicom(path)]
    if not files:
        raise BadSource(f"{folder} holds no files that could be DICOM")
    objects: list[Inspected | Reject] = []
    annotations: dict[str, bytes] = {}
    drawn: dict[tuple[str, int], list[Labelled]] = {}
    for path in Progress(files, "reading"):
        source = path.relative_to(folder).as_posix()
        try:
            data = path.read_bytes()
        except OSError as error:
            objects.append(Reject(source, f"cannot be read: {error.strerror}"))
            continue
        found = dataset.inspect(source, data, validation_share=validation_share)
        objects.append(found)
        if isinstance(found, Reject):
            continue
        if found.is_annotation:
            annotations[source] = data
        elif label := _label_beside(path):
            try:
                drawn[found.sop_instance_uid, 1] = _boxes_of(label, found, classes)
            except (BadAnnotation, OSError) as error:
                findings.drop(f"{source} ({label.name})", str(error))
    findings.sources += len(files)
    if unannotated_free:
        drawn = _free(objects) | drawn
    plan = dataset_planning.plan(objects, annotations, labels, drawn=drawn)
    findings.rejects += plan.rejects
    findings.remarks += plan.remarks
    return plan


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted; links to folders are followed, each folder once."""
    found: list[Path] = []
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [path for name in names if (path := Path(here, name)).is_file()]
    return sorted(found)


def _may_be_dicom(path: Path) -> bool:
    other = {".txt", ".md", ".json", ".csv", ".toml", ".yaml", ".yml", ".png", ".jpg", ".zip"}
    other |= {".jpeg", ".pdf", ".html", ".xlsx", ".xml"}
    hidden = path.name.startswith(".") or path.name.lower() in {"thumbs.db", "license"}
    return path.suffix.lower() not in other and path.name != "DICOMDIR" and not hidden


def _label_beside(image: Path) -> Path | None:
    """Names such as 1.2.840.7 end in no suffix: theirs is 1.2.840.7.txt."""
    candidates = (image.with_name(image.name + ".txt"), image.with_suffix(".txt"))
    return next((path for path in candidates if path.is_file()), None)


def _boxes_of(label: Path, image: Inspected, classes: Sequence[str]) -> list[Labelled]:
    if len(image.frames) > 1:
        raise BadAnnotation(f"label files are for one frame; the image has {len(image.frames)}")
    text = label.read_text("utf-8-sig", "replace")
    found = yolo_boxes(text, classes, image.rows, image.columns)
    if fault := check_label(text, len(classes)):
        raise BadAnnotation(fault)
    return [Labelled(one.name, one.box) for one in found]


def _free(objects: Sequence[Inspected | Reject]) -> dict[tuple[str, int], list[Labelled]]:
    """No box for every frame of the studies that have no annotation of their own."""
    read = [one for one in objects if isinstance(one, Inspected)]
    drawings = [one for one in read if one.is_annotation]
    studies = {one.study_instance_uid for one in drawings}
    series = {uid for one in drawings for uid in one.referenced_series}
    studies |= {one.study_instance_uid for one in read if one.series_instance_uid in series}
    return {
        (one.sop_instance_uid, frame.number): []
        for one in read
        if not one.is_annotation and one.study_instance_uid not in studies
        for frame in one.frames
    }


def _rendered(
    image: PlannedImage, data: bytes, domain: Domain, findings: Findings
) -> Iterator[Example]:
    try:
        yield from dataset.render(
            image,
            data,
            domain.classes,
            size=domain.size,
            intensity=domain.intensity(image.modality),
        )
    except (Rejected, BadAnnotation) as error:
        findings.drop(image.source, str(error))


@dataclass(frozen=True, slots=True)
class Masked:
    """A picture with a mask: a row of ``index.csv``."""

    sample: str
    patient: str
    source: str
    gray: NDArray[np.uint8]
    lesion: Labelled


def read_masked(folder: Path, findings: Findings) -> Iterator[Masked]:
    """``index.csv`` with sample_id, patient_id and class; ``images/ID.jpg``, ``masks/ID.jpg``.

    The box is the extent of the mask's pixels above 127.
    """
    index = folder / "index.csv"
    if not index.is_file():
        raise BadSource(f"{folder} has no index.csv with sample_id, patient_id and class")
    with index.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"sample_id", "patient_id", "class"} <= rows[0].keys():
        raise BadSource(f"{index} lacks rows, or a column of sample_id, patient_id, class")
    findings.sources += len(rows)
    for row in Progress(rows, "pictures"):
        source = f"images/{row['sample_id']}.jpg"
        try:
            gray = read_gray(folder / source)
            mask = read_gray(folder / "masks" / f"{row['sample_id']}.jpg")
            lesion = Labelled(row["class"], _box_of(mask, gray))
        except (ValueError, BadAnnotation) as error:
            findings.drop(source, str(error))
        else:
            yield Masked(row["sample_id"], row["patient_id"], source, gray, lesion)


def _box_of(mask: NDArray[np.uint8], gray: NDArray[np.uint8]) -> Box:
    if gray.shape != mask.shape:
        raise BadAnnotation(f"mask of {mask.shape} for an image of {gray.shape} pixels")
    box = mask_box(mask > 127)
    if box is None:
        raise BadAnnotation("the mask is empty")
    return box


def masked_pictures(
    folder: Path, domain: Domain, findings: Findings, *, validation_share: float
) -> Iterator[Example]:
    """Examples of what `read_masked` finds."""
    for one in read_masked(folder, findings):
        key = dataset.patient_key(one.patient)
        split = dataset.split_of(one.patient, validation_share)
        # Slices of one patient are of several planes and in no order: each is a series of its own.
        frame = PlannedFrame(1, 0, f"{key}-MR-{one.sample}", (one.lesion,))
        image = PlannedImage(one.source, key, key, one.sample, split, "MR", (frame,))
        windowed = pixels.to_gray(one.gray.astype(np.float32), domain.intensity("MR"))
        try:
            yield dataset.example(windowed, frame, image, domain.classes, size=domain.size)
        except BadAnnotation as error:
            findings.drop(one.source, str(error))


def read_gray(path: Path) -> NDArray[np.uint8]:
    """A picture file as gray (rows, columns).

    Raises:
        ValueError: it is missing or does not decode.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture {path.name} does not decode") from error


def phantoms(domain: Domain, count: int, findings: Findings) -> Iterator[Example]:
    """Slices of generated studies, every second one with a mass; for training only."""
    findings.sources += count
    for seed in Progress(range(1, count + 1), "generating"):
        rng = np.random.default_rng(seed)
        with_mass = seed % 2 == 0
        rows = int(rng.integers(140, 260))
        columns = max(64, int(rows * rng.uniform(0.8, 1.2)))
        phantom = generate_phantom(seed=seed, lesions=with_mass, rows=rows, columns=columns)
        holds = phantom.lesion.any(axis=(1, 2))
        chosen = [*_some(rng, np.flatnonzero(holds), 6), *_some(rng, np.flatnonzero(~holds), 4)]
        key = f"phantom{seed:03d}"
        for index in sorted(chosen):
            box = mask_box(phantom.lesion[index])
            if box is not None and min(box[2] - box[0], box[3] - box[1]) < 4:
                continue  # a sliver of the mass' pole is neither positive nor negative
            gray = pixels.to_gray(
                phantom.hounsfield[index].astype(np.float32), domain.intensity("CT")
            )
            boxes = (Labelled(domain.classes[0], box),) if box else ()
            frame = PlannedFrame(1, index, f"{key}-CT-{index:04d}", boxes)
            image = PlannedImage(key, key, key, key, TRAIN, "CT", (frame,))
            yield dataset.example(gray, frame, image, domain.classes, size=domain.size)


def normal_brains(domain: Domain, count: int, findings: Findings) -> Iterator[Example]:
    """Slices of a normal brain without a box; for training only.

    Raises:
        BadSource: nilearn, which ships the brain, is not installed.
    """
    findings.sources += count
    for seed in Progress(range(1, count + 1), "normal brain"):
        try:
            values, plane = normal_slice(seed)
        except ImportError as error:
            raise BadSource(
                f"{error}: the normal brain comes with requirements-train.txt"
            ) from error
        key = f"icbm152{seed:04d}"
        frame = PlannedFrame(1, 0, f"{key}-MR-{plane}", ())
        image = PlannedImage(key, key, key, key, TRAIN, "MR", (frame,))
        gray = pixels.to_gray(values, domain.intensity("MR"))
        yield dataset.example(gray, frame, image, domain.classes, size=domain.size)


def _some(rng: np.random.Generator, indices: NDArray[np.intp], count: int) -> list[int]:
    return [int(i) for i in rng.choice(indices, min(count, len(indices)), replace=False)]
