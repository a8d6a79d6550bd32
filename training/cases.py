"""What is evaluated: slices with truth and detections, from a data set or from a DICOM folder.

Detection is serving's own: `slicewatch.detector` on the frames in display gray.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicewatch import dataset, dataset_planning, dicom, pixels
from slicewatch.dataset import Inspected, Plan, Reject
from slicewatch.dataset_checks import Entry, check, check_label, read_manifest
from slicewatch.dataset_planning import LabelMap
from slicewatch.detector import Detector
from slicewatch.limits import Rejected
from slicewatch.model_registry import Model
from slicewatch.records import Detection, Geometry, Outcome, SliceResult
from training.metrics import Slice
from training.progress import Progress
from training.sources import BadSource, read_gray

FLOOR = 0.01
"""Detections below this score are not looked at: they change no figure."""

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Case:
    """One slice: its truth, and what screening would say of it.

    Attributes:
        unit: study and modality; false flags and sensitivity are counted by it.
        order: place in the series, for the runs of slices without truth.
        truth: (label, box) in pixels of the frame.
    """

    patient: str
    unit: str
    modality: str
    order: int
    truth: tuple[dataset.Labelled, ...]
    result: SliceResult

    def as_slice(self, classes: Sequence[str]) -> Slice:
        """The same for `training.metrics`."""
        found = self.result.detections
        return Slice(
            self.patient,
            np.array([item.box for item in self.truth], np.float64).reshape(-1, 4),
            np.array([classes.index(item.label) for item in self.truth], np.intp),
            np.array([item.box for item in found], np.float64).reshape(-1, 4),
            np.array([item.score for item in found], np.float64),
            np.array([classes.index(item.label) for item in found], np.intp),
        )


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame that waits for its detections."""

    case: Case
    gray: NDArray[np.uint8]


def load_cases(
    data: Path, detector: Detector, labels: LabelMap, *, split: str = "val"
) -> tuple[list[Case], list[Reject]]:
    """Slices of a data set in YOLO layout, or of a folder with DICOM and RTSTRUCT or SEG.

    Args:
        data: a folder with ``images`` and ``labels``, or with DICOM files anywhere below.
        detector: its model's threshold should be `FLOOR`.
        labels: which outlined structures are of which class, for DICOM.
        split: of a data set in YOLO layout.

    Raises:
        BadSource: there is nothing to evaluate, or the data set would mislead.
    """
    if not data.is_dir():
        raise BadSource(f"{data} is no folder")
    rejects: list[Reject] = []
    if (data / "images").is_dir():
        frames = _layout_frames(data, detector.model, split, rejects)
    else:
        frames = _dicom_frames(data, detector.model, labels, rejects)
    cases = list(_detected(frames, detector))
    if not cases:
        raise BadSource(f"{data} gave no slice to evaluate; {len(rejects)} sources were rejected")
    return cases, rejects


def _detected(frames: Iterator[_Frame], detector: Detector) -> Iterator[Case]:
    batch: list[_Frame] = []

    def flush() -> Iterator[Case]:
        found = detector.detect([frame.gray for frame in batch])
        for frame, detections in zip(batch, found, strict=True):
            yield with_detections(frame.case, detections)
        batch.clear()

    for frame in frames:
        batch.append(frame)
        if len(batch) == _BATCH:
            yield from flush()
    yield from flush()


def with_detections(case: Case, detections: tuple[Detection, ...]) -> Case:
    """The case with other detections."""
    return replace(case, result=replace(case.result, detections=detections))


# --- DICOM ----------------------------------------------------------------------------------


def _dicom_frames(
    folder: Path, model: Model, labels: LabelMap, rejects: list[Reject]
) -> Iterator[_Frame]:
    objects: list[Inspected | Reject] = []
    annotations: dict[str, bytes] = {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in Progress(files, "reading"):
        source = path.relative_to(folder).as_posix()
        data = path.read_bytes()
        found = dataset.inspect(source, data)
        objects.append(found)
        if isinstance(found, Inspected) and found.is_annotation:
            annotations[source] = data
    plan: Plan = dataset_planning.plan(objects, annotations, labels)
    rejects += plan.rejects
    for image in Progress(plan.images, "detecting"):
        data = (folder / image.source).read_bytes()
        unfit = [b.label for f in image.frames for b in f.boxes if b.label not in model.classes]
        if unfit:
            rejects.append(Reject(image.source, f"the model has no class {unfit[0]}"))
            continue
        try:
            yield from _frames_of(data, image, model)
        except Rejected as error:
            rejects.append(Reject(image.source, str(error)))


def _frames_of(data: bytes, image: dataset.PlannedImage, model: Model) -> Iterator[_Frame]:
    instance = dicom.read(data)
    header = instance.header
    fitting = (block for block in model.series if block.fits(header.attributes))
    block = next(fitting, None)
    intensity = block.intensity if block else model.intensity
    planned = {frame.number: frame for frame in image.frames}
    for frame in instance.frames():
        gray = pixels.to_gray(frame.values, intensity, frame.voi)
        result = SliceResult(
            blob=image.source,
            content_sha256=f"{image.source}#{frame.number}",
            outcome=Outcome.SCREENED,
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            sop_instance_uid=header.sop_instance_uid,
            modality=header.modality,
            frame=frame.number,
            rows=header.rows,
            columns=header.columns,
            instance_number=header.instance_number,
            geometry=frame.geometry,
            model=model.key,
        )
        mark = planned[frame.number]
        unit = f"{image.study}/{header.modality}"
        yield _Frame(
            Case(image.patient, unit, header.modality, mark.order, mark.boxes, result), gray
        )


# --- YOLO layout ----------------------------------------------------------------------------


def _layout_frames(
    folder: Path, model: Model, split: str, rejects: list[Reject]
) -> Iterator[_Frame]:
    manifest = folder / "manifest.csv"
    entries = read_manifest(manifest.read_text("utf-8")) if manifest.is_file() else []
    problems = check(entries, model.classes) if entries else []
    if problems:
        listed = "; ".join(f"{p.source}: {p.reason}" for p in problems[:5])
        raise BadSource(f"{folder} would mislead: {listed}")
    known = {entry.name: entry for entry in entries}
    pictures = sorted((folder / "images" / split).glob("*.*"))
    if not pictures:
        raise BadSource(f"{folder / 'images' / split} holds no pictures")
    for path in Progress(pictures, "detecting"):
        label = folder / "labels" / split / f"{path.stem}.txt"
        try:
            yield _layout_frame(path, label, known.get(path.stem), model)
        except ValueError as error:
            rejects.append(Reject(path.name, str(error)))


def _layout_frame(path: Path, label: Path, entry: Entry | None, model: Model) -> _Frame:
    gray = read_gray(path)
    text = label.read_text("utf-8") if label.is_file() else ""
    fault = check_label(text, len(model.classes))
    if fault:
        raise ValueError(f"{label.name}: {fault}")
    rows, columns = gray.shape
    patient = entry.patient if entry else _stem_without_number(path.stem)
    study = entry.study if entry else patient
    modality = entry.modality if entry else ""
    order = int(entry.order) if entry and entry.order else 0
    series = entry.series if entry else path.stem
    result = SliceResult(
        blob=path.name,
        content_sha256=path.stem,
        outcome=Outcome.SCREENED,
        study_instance_uid=study,
        series_instance_uid=f"{study}/{series}",
        sop_instance_uid=path.stem,
        modality=modality,
        frame=1,
        rows=rows,
        columns=columns,
        instance_number=order,
        geometry=Geometry(),
        model=model.key,
    )
    truth = tuple(_truth(text, rows, columns, model.classes))
    return _Frame(Case(patient, f"{study}/{modality}", modality, order, truth, result), gray)


def _truth(
    text: str, rows: int, columns: int, classes: Sequence[str]
) -> Iterator[dataset.Labelled]:
    for line in text.splitlines():
        if line.strip():
            label, x, y, width, height = (float(word) for word in line.split())
            box = (
                (x - width / 2) * columns,
                (y - height / 2) * rows,
                (x + width / 2) * columns,
                (y + height / 2) * rows,
            )
            yield dataset.Labelled(classes[int(label)], box)


def _stem_without_number(stem: str) -> str:
    """Pictures without a manifest: the name up to its last number tells the patient."""
    return re.sub(r"[-_.]?\d+$", "", stem) or stem
