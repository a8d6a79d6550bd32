"""What is evaluated: slices with truth and detections, from a data set or from a DICOM folder.

Detection is serving's own: `slicewatch.detector` on the frames in display gray.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicewatch import dataset, dicom, pixels
from slicewatch.annotations import yolo_boxes
from slicewatch.dataset import Reject
from slicewatch.dataset_checks import Entry, check_label, check_splits, read_manifest
from slicewatch.dataset_planning import LabelMap
from slicewatch.detector import Detector
from slicewatch.limits import Rejected
from slicewatch.model_registry import Model
from slicewatch.records import Detection, Geometry, Outcome, SliceResult
from slicewatch.single_image import photograph
from training.layout import FORMATS, Picture, class_of_each, is_layout, read_layout
from training.metrics import Slice
from training.progress import Progress
from training.sources import BadSource, Findings, plan_folder, read_gray, read_masked, summary

FLOOR = 0.01
"""Detections below this score are not looked at: they change no figure."""

UNFIT = "the model's [[series]] do not name its series: serving would not screen it with this model"

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
    data: Path,
    detector: Detector,
    labels: LabelMap,
    *,
    split: str = "val",
    unannotated_free: bool = False,
) -> tuple[list[Case], Findings]:
    """Slices of a data set in YOLO layout, of DICOM with annotations, or of masked pictures.

    Args:
        data: a data set in YOLO layout (see `training.layout`); a folder with DICOM files and
            RTSTRUCT, SEG or YOLO label files anywhere below; or one of `sources.read_masked`.
        detector: its model's threshold should be `FLOOR`.
        labels: which outlined structures and which names of the data set are of which class.
        split: of a data set in YOLO layout.
        unannotated_free: see `training.sources.plan_folder`.

    Raises:
        BadSource: there is nothing to evaluate, or the data set would mislead.
    """
    if not data.exists():
        raise BadSource(f"{data} does not exist")
    findings = Findings()
    if (data / "index.csv").is_file() and (data / "masks").is_dir():
        frames = _masked_frames(data, detector.model, labels, findings)
    elif is_layout(data):
        frames = _layout_frames(data, detector.model, labels, split, findings)
    elif data.is_dir():
        frames = _dicom_frames(data, detector.model, labels, findings, unannotated_free)
    else:
        raise BadSource(f"{data} is neither a folder nor the YAML file of a data set")
    cases = list(_detected(frames, detector))
    if not cases:
        raise BadSource(
            "\n  ".join(
                (
                    f"{data} gave no slice to evaluate; "
                    f"{len(findings.rejects)} sources were rejected",
                    *summary(findings.rejects),
                )
            )
        )
    return cases, findings


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
    folder: Path, model: Model, labels: LabelMap, findings: Findings, unannotated_free: bool
) -> Iterator[_Frame]:
    plan = plan_folder(folder, model.classes, labels, findings, unannotated_free=unannotated_free)
    for image in Progress(plan.images, "detecting"):
        unfit = [b.label for f in image.frames for b in f.boxes if b.label not in model.classes]
        if unfit:
            findings.drop(image.source, f"the model has no class {unfit[0]}")
            continue
        try:
            yield from _frames_of((folder / image.source).read_bytes(), image, model, findings)
        except (Rejected, OSError) as error:
            findings.drop(image.source, str(error))


def _frames_of(
    data: bytes, image: dataset.PlannedImage, model: Model, findings: Findings
) -> Iterator[_Frame]:
    instance = dicom.read(data)
    header = instance.header
    fitting = (block for block in model.series if block.fits(header.attributes))
    block = next(fitting, None)
    if block is None:
        findings.remarks.append(Reject(image.source, UNFIT))
    intensity = block.intensity if block else model.intensity
    planned = {frame.number: frame for frame in image.frames}
    for frame in instance.frames():
        if frame.number not in planned:
            continue
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
    data: Path, model: Model, labels: LabelMap, split: str, findings: Findings
) -> Iterator[_Frame]:
    layout = read_layout(data, split)
    findings.sources += len(layout.pictures)
    known = _manifest(layout.root, findings)
    classes = class_of_each(layout.names or model.classes, model.classes, labels)
    if not set(classes) & set(model.classes):
        raise BadSource(
            f"{data}: the model has none of its classes {', '.join(classes)}, but "
            f"{', '.join(model.classes)}; say which is which with --label 'NAME=CLASS'"
        )
    if not layout.names:
        unnamed = f"names no classes: {', '.join(model.classes)} is taken as their order"
        findings.remarks.append(Reject(str(data), unnamed))
    for picture in Progress(layout.pictures, "detecting"):
        entry = known.get(picture.path.stem)
        try:
            yield _layout_frame(layout.root, picture, entry, model, classes)
        except (ValueError, OSError, Rejected) as error:
            findings.drop(os.path.relpath(picture.path, layout.root), str(error))


def _manifest(root: Path, findings: Findings) -> dict[str, Entry]:
    """The rows of a manifest that preparation wrote, by example; another's is left alone."""
    file = root / "manifest.csv"
    if not file.is_file():
        return {}
    try:
        entries = read_manifest(file.read_text("utf-8"))
    except ValueError as error:
        findings.remarks.append(Reject(file.name, f"is not read: {error}"))
        return {}
    if problems := check_splits(entries):
        listed = "; ".join(f"{p.source}: {p.reason}" for p in problems[:5])
        raise BadSource(f"{root} would mislead: {listed}")
    return {entry.name: entry for entry in entries}


def _layout_frame(
    root: Path, picture: Picture, entry: Entry | None, model: Model, names: Sequence[str]
) -> _Frame:
    path = picture.path
    # Preparation windowed its pictures already; those of others take the way of single images.
    gray = (
        read_gray(path)
        if entry
        else photograph(path.read_bytes(), model.intensity, formats=FORMATS)
    )
    text = picture.label.read_text("utf-8-sig") if picture.label else ""
    fault = check_label(text, len(names))
    if fault:
        raise ValueError(f"its label file: {fault}")
    rows, columns = gray.shape
    name = os.path.relpath(path, root)
    patient = entry.patient if entry else picture.group or _stem_without_number(path.stem)
    study = entry.study if entry else patient
    modality = entry.modality if entry else ""
    order = int(entry.order) if entry and entry.order.isdigit() else 0
    series = entry.series if entry else name
    result = SliceResult(
        blob=name,
        content_sha256=name,
        outcome=Outcome.SCREENED,
        study_instance_uid=study,
        series_instance_uid=f"{study}/{series}",
        sop_instance_uid=name,
        modality=modality,
        frame=1,
        rows=rows,
        columns=columns,
        instance_number=order,
        geometry=Geometry(),
        model=model.key,
    )
    truth = tuple(
        dataset.Labelled(one.name, one.box) for one in yolo_boxes(text, names, rows, columns)
    )
    for one in truth:
        if one.label not in model.classes:
            raise ValueError(f"the model has no class {one.label}")
    return _Frame(Case(patient, f"{study}/{modality}", modality, order, truth, result), gray)


def _masked_frames(
    folder: Path, model: Model, labels: LabelMap, findings: Findings
) -> Iterator[_Frame]:
    for one in read_masked(folder, findings):
        (label,) = class_of_each([one.lesion.label], model.classes, labels)
        if label not in model.classes:
            findings.drop(one.source, f"the model has no class {label}")
            continue
        key = dataset.patient_key(one.patient)
        gray = pixels.to_gray(one.gray.astype(np.float32), _picture_intensity(model))
        rows, columns = gray.shape
        result = SliceResult(
            blob=one.source,
            content_sha256=one.source,
            outcome=Outcome.SCREENED,
            study_instance_uid=key,
            series_instance_uid=f"{key}/{one.sample}",
            sop_instance_uid=one.sample,
            modality="MR",
            frame=1,
            rows=rows,
            columns=columns,
            instance_number=0,
            geometry=Geometry(),
            model=model.key,
        )
        truth = (dataset.Labelled(label, one.lesion.box),)
        yield _Frame(Case(key, f"{key}/MR", "MR", 0, truth, result), gray)


def _picture_intensity(model: Model) -> str:
    """Masked pictures are MR, windowed already: a window in modality units means nothing here."""
    return model.intensity if model.intensity.startswith("mr_") else "eight_bit"


def _stem_without_number(stem: str) -> str:
    """Pictures without a manifest: the name up to its last number tells the patient."""
    return re.sub(r"[-_.]?\d+$", "", stem) or stem
