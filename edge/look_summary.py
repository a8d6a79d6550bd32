"""What leaves in place of slices that stay on site: a DICOM structured report of the study that
says which slice was screened here, with which model, what was seen, and where the slice is.

It is stored like any other object of the study, so the record is where the study is. It is a
Comprehensive SR (PS3.3 section A.35.3) with codes of a private scheme, ``99SLICEWATCH``.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian

from edge.arriving import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from edge.entries import Entry, Look, State
from edge.spool import Spool

type Summarise = Callable[[Sequence[tuple[Entry, Look]], dict[str, State]], Entry]
"""Writes a study's summary into the spool; gives its journal entry."""

COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
_SCHEME = "99SLICEWATCH"
_NOT_A_DEVICE = "Not a medical device; for research and evaluation."
_IDENTITY = (
    "SpecificCharacterSet",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
)
"""Patient and General Study modules, as the study's own objects have them."""


def summary_writer(
    spool: Spool,
    outside: Callable[[str], str] = lambda uid: uid,
    clean: Callable[[Dataset], None] | None = None,
) -> Summarise:
    """Gives the function that writes summaries.

    Args:
        outside: the UID that the cloud knows for one of the site's.
        clean: de-identifies a dataset in place.
    """

    def write(looks: Sequence[tuple[Entry, Look]], routes: dict[str, State]) -> Entry:
        # What was sent at once may be gone from the spool.
        first = next(entry for entry, look in looks if look.sha256 in routes)
        dataset = _identity(spool, first)
        if clean is not None:
            clean(dataset)
        _fill(dataset, looks, routes, outside)
        data = _encode(dataset)
        sha256 = hashlib.sha256(data).hexdigest()
        spool.keep(data, sha256)
        return Entry(
            sha256=sha256,
            size=len(data),
            study=first.study,
            series=dataset.SeriesInstanceUID,
            sop_instance=dataset.SOPInstanceUID,
            sop_class=COMPREHENSIVE_SR,
            modality="SR",
            instance_number=1,
            source="edge",
            received=max(entry.received for entry, _ in looks),
            state=State.READY,
            generated=True,
        )

    return write


def _identity(spool: Spool, entry: Entry) -> Dataset:
    """Raises `edge.spool.Damaged` when the object it is taken from is."""
    source = pydicom.dcmread(
        spool.verify(entry.sha256), stop_before_pixels=True, specific_tags=list(_IDENTITY)
    )
    dataset = Dataset()
    for keyword in _IDENTITY:
        setattr(dataset, keyword, source.get(keyword) or "")
    if not dataset.IssuerOfPatientID:
        del dataset.IssuerOfPatientID
    if not dataset.SpecificCharacterSet:
        del dataset.SpecificCharacterSet
    return dataset


def _fill(
    dataset: Dataset,
    looks: Sequence[tuple[Entry, Look]],
    routes: dict[str, State],
    outside: Callable[[str], str],
) -> None:
    received = max(entry.received for entry, _ in looks)
    digest = hashlib.sha256(
        "\n".join(
            f"{look.sha256} {look.outcome} {look.model_sha256} {look.score:.6f}"
            f" {routes.get(look.sha256, State.READY)}"
            for _, look in looks
        ).encode()
    ).digest()
    dataset.SOPClassUID = COMPREHENSIVE_SR
    dataset.SOPInstanceUID = f"2.25.{int.from_bytes(digest[:16])}"
    dataset.SeriesInstanceUID = f"2.25.{int.from_bytes(digest[16:])}"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "SR", "9901", "1"
    dataset.SeriesDescription = "Edge screening summary"
    dataset.Manufacturer = "Slicewatch"
    dataset.ReferencedPerformedProcedureStepSequence = Items()
    dataset.PerformedProcedureCodeSequence = Items()
    dataset.ContentDate = received[:10].replace("-", "")
    dataset.ContentTime = received[11:19].replace(":", "")
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = _concept("summary", "Edge screening summary")
    dataset.CurrentRequestedProcedureEvidenceSequence = _evidence(
        outside(looks[0][0].study), looks, outside
    )
    dataset.ContentSequence = Items(
        [_text("remark", "Remark", _NOT_A_DEVICE), *_groups(looks, routes, outside)]
    )


def _groups(
    looks: Sequence[tuple[Entry, Look]],
    routes: dict[str, State],
    outside: Callable[[str], str],
) -> list[Dataset]:
    """A container for each model, outcome and whereabouts, with its slices."""
    groups: defaultdict[tuple[str, str, str, str], list[tuple[Entry, Look]]] = defaultdict(list)
    for entry, look in looks:
        where = _WHEREABOUTS[routes.get(look.sha256, State.READY)]
        groups[look.model, look.model_sha256, look.outcome, where].append((entry, look))
    containers = []
    for (model, sha256, outcome, where), members in sorted(groups.items()):
        container = Dataset()
        container.RelationshipType, container.ValueType = "CONTAINS", "CONTAINER"
        container.ContinuityOfContent = "SEPARATE"
        container.ConceptNameCodeSequence = _concept("slices", "Slices screened on site")
        container.ContentSequence = Items(
            [
                _text("model", "Model", f"{model or 'none'} sha256 {sha256 or 'none'}"),
                _text("outcome", "Outcome", outcome),
                _text("where", "Whereabouts", where),
                *(_image(entry, look, outside) for entry, look in members),
            ]
        )
        containers.append(container)
    return containers


_WHEREABOUTS = {
    State.READY: "sent at once",
    State.NIGHT: "sent in the night window",
    State.KEPT: "kept on site",
}


def _image(entry: Entry, look: Look, outside: Callable[[str], str]) -> Dataset:
    """The slice; where something was seen, what, inferred from the slice."""
    image = Dataset()
    image.RelationshipType, image.ValueType = "CONTAINS", "IMAGE"
    image.ReferencedSOPSequence = Items([_reference(entry, outside)])
    if not look.detections:
        return image
    text = f"{look.detections} detections, best score {look.score:.3f}"
    seen = _text("seen", "Seen", text)
    image.RelationshipType = "INFERRED FROM"
    seen.ContentSequence = Items([image])
    return seen


def _evidence(
    study: str, looks: Sequence[tuple[Entry, Look]], outside: Callable[[str], str]
) -> Items:
    by_series: defaultdict[str, list[Dataset]] = defaultdict(list)
    for entry, _ in looks:
        by_series[outside(entry.series)].append(_reference(entry, outside))
    series_items = []
    for uid, references in by_series.items():
        series = Dataset()
        series.SeriesInstanceUID, series.ReferencedSOPSequence = uid, Items(references)
        series_items.append(series)
    item = Dataset()
    item.StudyInstanceUID, item.ReferencedSeriesSequence = study, Items(series_items)
    return Items([item])


def _reference(entry: Entry, outside: Callable[[str], str]) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = entry.sop_class
    item.ReferencedSOPInstanceUID = outside(entry.sop_instance)
    return item


def _text(code: str, meaning: str, text: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = _concept(code, meaning)
    item.TextValue = text
    return item


def _concept(code: str, meaning: str) -> Any:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, _SCHEME, meaning
    return Items([item])


def _encode(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
