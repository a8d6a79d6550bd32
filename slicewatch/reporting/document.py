"""A review as a Comprehensive 3D SR document with a Measurement Report (PS3.16, TID 1500).

- A finding that was linked in patient space over several planes is a TID 1411 Volumetric ROI
  Measurements group with a region a slice; any other is a TID 1410 Planar ROI Measurements group
  a slice. All groups of one finding share its tracking UID, which later generations keep.
- Each group says which algorithm made it (TID 4019): name, version, hash of the weights, threshold.
- The score is the measurement (111012, DCM, "Certainty of Finding"), percent.
- What was screened, what was not, and what the document is not for stands in the container
  Qualitative Evaluations of TID 1500.
- Before a decision the document is PARTIAL and PRELIMINARY, with a reader's decision COMPLETE and
  FINAL; it is never VERIFIED: nobody here attests it in the sense of PS3.3 section C.17.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    ObservationContext,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from slicewatch import __version__
from slicewatch.decision import FindingDecision
from slicewatch.records import Finding, Lane, LinkedBy, Review, Unscreened
from slicewatch.reporting import codes as concepts
from slicewatch.reporting import equipment, regions, uids
from slicewatch.reporting.reading import Reading
from slicewatch.reporting.regions import Originals, Region, Selection
from slicewatch.reporting.subject import Referenced, as_evidence
from slicewatch.review import NO_FLAG_MEANS, unflagged_status

SERIES_NUMBER = 9901
_MAX_LINES = 50
_MAX_TEXT = 4000

_CONTAINS = RelationshipTypeValues.CONTAINS
type _Group = (
    PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)


def instance_uid(review: Review, reading: Reading | None = None) -> str:
    """SOP instance UID of the document on a review, or on one reading of it."""
    if reading is None:
        return uids.of_review(review, "document")
    said = [reading.number, reading.reader, reading.decided, reading.reason]
    return uids.of_review(review, "document", *said, reading.decision.to_json())


def build(
    review: Review,
    subject: Dataset,
    originals: Originals,
    modality: str,
    *,
    reading: Reading | None = None,
    previous: str | None = None,
) -> Dataset:
    """The document as a dataset with file meta information.

    Args:
        subject: attributes of the patient and study, from `subject.subject`.
        originals: those that regions may refer to; one at least.
        modality: of what was screened, for the procedure reported; may be empty.
        reading: a clinical decision on it.
        previous: SOP instance UID of the document that this one replaces.
    """
    selection = regions.select(review, originals)
    groups = list(_groups(review, selection, originals, reading))
    root = _root(review, modality, reading, groups, selection)
    number = review.generation * 100 + (reading.number if reading else 0)
    report = Comprehensive3DSR(
        evidence=[
            as_evidence(one, equipment.nobody(subject)) for one in _evidence(root, originals)
        ],
        content=root,
        series_instance_uid=uids.series_uid(review.study_instance_uid, uids.Kind.REPORT),
        series_number=SERIES_NUMBER,
        sop_instance_uid=instance_uid(review, reading),
        instance_number=number,
        is_complete=reading is not None,
        is_final=reading is not None,
        **equipment.described(review, "Slicewatch report"),
    )
    if previous:
        report.PredecessorDocumentsSequence = _predecessor(review, previous)
    when = reading.decided if reading else str(review.timings["assessed"])
    return equipment.finish(report, subject, when)


# --- the tree -----------------------------------------------------------------------------------


def _root(
    review: Review,
    modality: str,
    reading: Reading | None,
    groups: Sequence[_Group],
    selection: Selection,
) -> ContainerContentItem:
    """Rows of TID 1500. highdicom's `MeasurementReport` has neither a report without groups nor
    row 12, Qualitative Evaluations, so that its parts are put together here.
    """
    root = ContainerContentItem(name=concepts.concept(concepts.REPORT_TITLE), template_id="1500")
    content = ContentSequence(is_root=False)
    content.extend(
        LanguageOfContentItemAndDescendants(
            CodedConcept("en-US", "RFC5646", "English (United States)")
        )
    )
    content.extend(_observers(review, reading))
    content.append(
        CodeContentItem(
            name=concepts.concept(concepts.PROCEDURE_REPORTED),
            value=concepts.procedure(modality),
            relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )
    if groups:
        content.append(_container(concepts.MEASUREMENTS, [item for one in groups for item in one]))
    said = [*_statements(review, reading), *_left_out(review, selection)]
    content.append(_container(concepts.QUALITATIVE, said))
    root.ContentSequence = content
    return root


def _container(name: concepts.Entry, items: Sequence[Any]) -> ContainerContentItem:
    found = ContainerContentItem(name=concepts.concept(name), relationship_type=_CONTAINS)
    found.ContentSequence = ContentSequence(items, is_root=False)
    return found


def _observers(review: Review, reading: Reading | None) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=uids.uid("device", __version__),
        name=equipment.MANUFACTURER,
        manufacturer_name=equipment.MANUFACTURER,
        model_name=f"{equipment.MANUFACTURER} {__version__}",
    )
    return ObservationContext(
        observer_person_context=_person(reading) if reading else None,
        observer_device_context=ObserverContext(codes.DCM.Device, device),
    )


def _person(reading: Reading) -> ObserverContext:
    name = person_name(reading.reader)
    attributes = PersonObserverIdentifyingAttributes(name, login_name=_text(reading.reader))
    return ObserverContext(codes.DCM.Person, attributes)


def person_name(reader: str) -> str:
    """A reader as a Person Name (PN) of one component: delimiters of the VR become spaces."""
    plain = "".join(" " if char in "^=\\" or ord(char) < 32 else char for char in reader)
    return f"{' '.join(plain.split())[:62]}^"


def _statements(review: Review, reading: Reading | None) -> Iterator[Any]:
    """What the document is for, what was looked at, and what the reader said of the whole."""
    yield _says(
        concepts.INTENDED_USE,
        "Research and evaluation. Not for clinical use: not a medical device.",
    )
    flag = next((one for one in review.lanes if one.lane is Lane.CLINICAL), None)
    status = "flagged" if flag else unflagged_status(review.coverage).value
    words = status.replace("_", " ").capitalize()
    yield _code(
        concepts.STATUS,
        concepts.ours(status.upper(), words),
    )
    coverage = review.coverage
    yield _says(
        concepts.COVERAGE,
        f"{coverage.screened} of {coverage.images} images were screened; "
        f"{coverage.received_objects} objects were received. {NO_FLAG_MEANS}",
    )
    for line in _not_covered(review):
        yield _says(concepts.NOT_COVERED, line)
    yield _says(concepts.POLICY, f"{review.policy_name}, SHA-256 {review.policy_sha256}")
    if reading is not None:
        yield _code(concepts.VERDICT, concepts.verdict(reading.decision.verdict))
        if reading.reason:
            yield _says(concepts.CORRECTION, reading.reason)
        if reading.decision.comment:
            yield _says(concepts.COMMENT, reading.decision.comment)


def _not_covered(review: Review) -> Iterator[str]:
    coverage = review.coverage
    lines = [
        f"{one.count} {what}: {one.reason}{_in_series(one)}"
        for what, groups in (
            ("not screened", coverage.not_screened),
            ("rejected", coverage.rejected),
        )
        for one in groups
    ]
    yield from lines[:_MAX_LINES]
    if len(lines) > _MAX_LINES:
        yield f"and {len(lines) - _MAX_LINES} more groups of objects"
    if coverage.missing:
        yield f"{len(coverage.missing)} announced by the sender and never received"


def _in_series(one: Unscreened) -> str:
    return f" (series {one.series_instance_uid})" if one.series_instance_uid else ""


def _left_out(review: Review, selection: Selection) -> Iterator[Any]:
    remarks = selection.remarks
    folded = sum(one.count for one in review.folded_findings)
    if folded:
        remarks.append(f"{folded} findings that the review counts and does not list")
    for line in remarks:
        yield _says(concepts.LEFT_OUT, line)


def _says(name: concepts.Entry, text: str) -> TextContentItem:
    return TextContentItem(
        name=concepts.concept(name), value=_text(text), relationship_type=_CONTAINS
    )


def _code(name: concepts.Entry, value: CodedConcept) -> CodeContentItem:
    return CodeContentItem(name=concepts.concept(name), value=value, relationship_type=_CONTAINS)


def _text(text: str) -> str:
    """Free text as a UT value may have it: no control characters but line ends, bounded."""
    kept = "".join(char if ord(char) >= 32 or char in "\r\n\t" else " " for char in text)
    return kept[:_MAX_TEXT] or "-"


# --- measurement groups -------------------------------------------------------------------------


def _groups(
    review: Review, selection: Selection, originals: Originals, reading: Reading | None
) -> Iterator[_Group]:
    for finding in review.findings:
        judged = reading.decision.findings.get(finding.id) if reading else None
        yield from _of_detector(review, finding, selection.findings[finding.id], judged)
        if reading and judged and judged.boxes:
            tracking = _tracking(review, finding)
            label = judged.label or finding.label
            drawn = selection.take(((box, None) for box in judged.boxes), originals)
            yield from _of_reader(reading, tracking, label, drawn, "")
    for one in reading.decision.additions if reading else ():
        identifier = f"{one.label} {one.id}"
        tracking = TrackingIdentifier(uids.of_review(review, "addition", one.id), identifier)
        drawn = selection.take(((box, None) for box in one.boxes), originals)
        assert reading is not None
        yield from _of_reader(reading, tracking, one.label, drawn, one.comment)


def _of_detector(
    review: Review, finding: Finding, found: Sequence[Region], judged: FindingDecision | None
) -> Iterator[_Group]:
    evaluations = []
    if judged is not None:
        verdict = concepts.verdict(judged.verdict)
        evaluations.append(QualitativeEvaluation(concepts.concept(concepts.VERDICT), verdict))
    common: dict[str, Any] = {
        "tracking_identifier": _tracking(review, finding),
        "finding_type": concepts.label(finding.label),
        "algorithm_id": _algorithm(review, finding),
        "qualitative_evaluations": evaluations or None,
    }
    if finding.linked_by is LinkedBy.POSITION and finding.planes > 1 and len(found) > 1:
        volume = VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_regions=[_outline(region) for region in found],
            measurements=[
                _certainty(finding.score, concepts.MAXIMUM),
                _certainty(finding.mean_score, concepts.MEAN),
            ],
            **common,
        )
        yield _commented(volume, judged)
        return
    for region in found:
        plane = PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=_outline(region),
            measurements=[_certainty(region.score or 0.0)],
            **common,
        )
        yield _commented(plane, judged)


def _of_reader(
    reading: Reading,
    tracking: TrackingIdentifier,
    label: str,
    drawn: Sequence[Region],
    comment: str,
) -> Iterator[_Group]:
    """Regions that a person drew: the group's own observer stands before the document's."""
    for region in drawn:
        group = PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            referenced_region=_outline(region),
            finding_type=concepts.label(label),
            qualitative_evaluations=[
                QualitativeEvaluation(
                    concepts.concept(concepts.ORIGIN), concepts.concept(concepts.BY_READER)
                )
            ],
        )
        group[0].ContentSequence.extend(_person(reading))
        if comment:
            group[0].ContentSequence.append(_says(concepts.COMMENT, comment))
        yield group


def _commented(group: _Group, judged: FindingDecision | None) -> _Group:
    if judged is not None and judged.comment:
        group[0].ContentSequence.append(_says(concepts.COMMENT, judged.comment))
    return group


def _tracking(review: Review, finding: Finding) -> TrackingIdentifier:
    return TrackingIdentifier(
        uids.of_finding(review.study_instance_uid, finding.id), f"{finding.label} {finding.id}"
    )


def _algorithm(review: Review, finding: Finding) -> AlgorithmIdentification:
    name, _, version = finding.model.partition("@")
    used = [one for one in review.models if (one.name, one.version) == (name, version)]
    parameters = [
        text
        for one in used
        for text in (f"weights SHA-256 {one.sha256}", f"score threshold {one.threshold:g}")
    ]
    return AlgorithmIdentification(
        name=name or "unknown", version=version or "unknown", parameters=parameters or None
    )


def _certainty(score: float, derivation: concepts.Entry | None = None) -> Measurement:
    return Measurement(
        name=concepts.concept(concepts.CERTAINTY),
        value=round(100 * score, 2),
        unit=concepts.concept(concepts.PERCENT),
        derivation=concepts.concept(derivation) if derivation else None,
    )


def _outline(region: Region) -> ImageRegion:
    source = SourceImageForRegion(region.on.sop_class, region.on.instance, region.frames)
    return ImageRegion("POLYLINE", np.array(region.corners, np.float32), source)


# --- references ---------------------------------------------------------------------------------


def _evidence(root: Dataset, originals: Originals) -> list[Referenced]:
    """The originals that the tree refers to, by series and instance; where it refers to none, the
    first one, since a document needs a study to belong to.
    """
    named = set(_referenced(root))
    every = sorted(originals.values(), key=lambda one: (one.series, one.instance))
    return [one for one in every if one.instance in named] or every[:1]


def _referenced(item: Dataset) -> Iterator[str]:
    for one in item.get("ReferencedSOPSequence", ()):
        yield str(one.ReferencedSOPInstanceUID)
    for inner in item.get("ContentSequence", ()):
        yield from _referenced(inner)


def _predecessor(review: Review, previous: str) -> list[Dataset]:
    """PS3.3 section C.17.2.2: an earlier document of the same series."""
    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID = equipment.COMPREHENSIVE_3D_SR
    instance.ReferencedSOPInstanceUID = previous
    series.SeriesInstanceUID = uids.series_uid(review.study_instance_uid, uids.Kind.REPORT)
    series.ReferencedSOPSequence = [instance]
    study.StudyInstanceUID = review.study_instance_uid
    study.ReferencedSeriesSequence = [series]
    return [study]
