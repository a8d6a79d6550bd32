"""Make the results of a study's review from what is stored, and store them beside it.

Everything follows from the review, its originals and the decisions on it, so that doing it again
makes nothing anew: what is there already stays as it is. ``sr.dcm`` is written after the
presentation states of its generation; where it is, they are.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset

from slicewatch import catalogue, corrections, decision, dicom_json, holdings, inventory, worklist
from slicewatch.dicom import read, read_header
from slicewatch.holdings import Held
from slicewatch.limits import Limits
from slicewatch.records import Lane, Review
from slicewatch.reporting import document, equipment, presentation, regions, stored
from slicewatch.reporting.reading import Reading
from slicewatch.reporting.regions import Region
from slicewatch.reporting.subject import Referenced, can_be_referred_to, subject
from slicewatch.storage import REVIEWS, Conflict, Storage

REPORT = "sr.dcm"
_SOFT_TISSUE: presentation.Window = (40.0, 400.0, "LINEAR")  # HU


@dataclass(frozen=True, slots=True)
class _Source:
    """What the results of a review are made of.

    Attributes:
        subject: the patient and study as an original has them.
        held: SOP instance UID → the original.
        originals: those of them that boxes may lie on.
    """

    review: Review
    subject: Dataset
    modality: str
    held: Mapping[str, Held]
    originals: Mapping[str, Referenced]


def make(storage: Storage, study: str, generation: int, limits: Limits) -> stored.Outcome:
    """Make what a generation lacks: its report, its presentation states, a report a reading.

    Raises:
        StorageUnavailable: to be tried again.
        NotHeld: an original is gone.
    """
    have = {blob.name for blob in stored.of_generation(storage, study, generation)}
    review = inventory.read_review(storage, study, generation)
    readings = list(_readings(storage, review))
    wanted = [one for one in readings if stored.name(study, generation, _file(one)) not in have]
    is_reported = stored.name(study, generation, REPORT) in have
    before = stored.outcome_of(storage, study, generation)
    if is_reported and not wanted:
        return before or stored.Outcome()
    source = _source(storage, review, readings, limits)
    if source is None:
        return stored.Outcome(remarks=("no object that a report could refer to",))
    remarks = before.remarks if before and is_reported else ()
    if not is_reported:
        remarks = tuple(_present(storage, source, limits))
        _report(storage, source, limits)
    for one in wanted:
        before_it = readings[one.number - 2] if one.number > 1 else None
        _report(storage, source, limits, one, before_it)
    return stored.Outcome(remarks=remarks)


def _file(reading: Reading) -> str:
    return f"sr-decided-{reading.number}.dcm"


def _readings(storage: Storage, review: Review) -> Iterator[Reading]:
    """The decision on the clinical item, and its corrections; nothing of the forensic lane."""
    instance = inventory.instance_id(review.study_instance_uid)
    for item in worklist.of_review(storage, review, instance):
        if item.lane is not Lane.CLINICAL or not item.decided or item.decision is None:
            continue
        reader = item.holder_name or item.holder or "unknown"
        yield Reading(1, reader, item.decided, decision.stored(item.decision))
        for one in corrections.of_item(storage, item.id):
            said = decision.stored(one.decision)
            yield Reading(one.number + 1, one.name, one.time, said, one.reason)


# --- what they are made of ----------------------------------------------------------------------


def _source(
    storage: Storage, review: Review, readings: list[Reading], limits: Limits
) -> _Source | None:
    """``None`` when the study has no object that a result may refer to."""
    named = regions.instances(review).union(*(regions.instances(review, one) for one in readings))
    held: dict[str, Held] = {}
    originals: dict[str, Referenced] = {}
    other: Held | None = None
    for one in holdings.originals(storage, review.study_instance_uid):
        if one.instance in named:
            referenced = _referenced(storage, one, limits)
            held[one.instance] = one
            if can_be_referred_to(referenced.sop_class):
                originals[one.instance] = referenced
        elif other is None and can_be_referred_to(_referenced(storage, one, limits).sop_class):
            other = one
    if not originals:
        if other is None:
            return None
        held[other.instance] = other
        originals[other.instance] = _referenced(storage, other, limits)
    first = held[min(originals.values(), key=lambda one: (one.series, one.instance)).instance]
    dataset = dicom_json.read(holdings.read(storage, first))
    return _Source(
        review,
        subject(dataset, review.study_instance_uid),
        str(dataset.get("Modality") or ""),
        held,
        originals,
    )


def _referenced(storage: Storage, one: Held, limits: Limits) -> Referenced:
    noted = catalogue.instance_attributes(storage, one, limits)

    def value(tag: str, default: int) -> int:
        return int((noted.get(tag, {}).get("Value") or [default])[0])

    return Referenced(
        series=one.series,
        instance=one.instance,
        sop_class=str((noted.get("00080016", {}).get("Value") or [""])[0]),
        frames=value("00280008", 1),
        rows=value("00280010", 0),
        columns=value("00280011", 0),
    )


# --- the objects --------------------------------------------------------------------------------


def _report(
    storage: Storage,
    source: _Source,
    limits: Limits,
    reading: Reading | None = None,
    before: Reading | None = None,
) -> None:
    """Args: `before` is the reading that this one corrects."""
    review = source.review
    previous = document.instance_uid(review, before) if reading else None
    report = document.build(
        review,
        source.subject,
        source.originals,
        source.modality,
        reading=reading,
        previous=previous,
    )
    _store(storage, review, _file(reading) if reading else REPORT, report, limits)


def _present(storage: Storage, source: _Source, limits: Limits) -> list[str]:
    """Make the presentation states; what boxes they do not show, in words."""
    review = source.review
    selection = regions.select(review, source.originals)
    boxes: dict[str, list[tuple[str, Region]]] = defaultdict(list)
    for finding in review.findings:
        for region in selection.findings[finding.id]:
            boxes[region.on.instance].append((finding.label, region))

    def shown(one: Held, data: bytes) -> list[presentation.Shown]:
        return presentation.shown(dicom_json.read(data), one.series, boxes[one.instance])

    images = [source.held[instance] for instance in sorted(boxes)]
    frames = [
        frame for of_image in holdings.map_objects(storage, images, shown) for frame in of_image
    ]
    groups = presentation.grouped(frames)
    for number, group in enumerate(groups[: presentation.MAX_STATES], start=1):
        windowed = _windowed(storage, source, group, limits)
        state = presentation.build(review, source.subject, windowed, number)
        _store(storage, review, f"pr-{number}.dcm", state, limits)
    remarks = list(selection.remarks)
    plain = sum(map(len, boxes.values())) - sum(len(frame.regions) for frame in frames)
    if plain:
        remarks.append(f"{plain} boxes on images that have no grayscale presentation state")
    if len(groups) > presentation.MAX_STATES:
        left = len(groups) - presentation.MAX_STATES
        remarks.append(f"{left} presentation states beyond {presentation.MAX_STATES}")
    return remarks


def _windowed(
    storage: Storage, source: _Source, group: list[presentation.Shown], limits: Limits
) -> list[presentation.Shown]:
    """The frames with a window where they name none: the usual one of soft tissue for CT, else the
    middle 98 % of the values of the frame with the highest score. An inverted image keeps none:
    its values are read as they are shown, and a window is of values as they are stored.
    """
    display = group[0].display
    if display.modality == "CT":
        return presentation.with_window(group, _SOFT_TISSUE)
    if display.inverted or all(one.window for one in group):
        return group
    best = max(group, key=lambda one: one.region.score or 0.0).region
    data = holdings.read(storage, source.held[best.on.instance])
    low, high = np.percentile(read(data, limits).frame(best.frame).values, (1, 99))
    centre, width = (float(low) + float(high)) / 2, max(float(high) - float(low), 1.0)
    return presentation.with_window(group, (round(centre, 3), round(width, 3), "LINEAR"))


def _store(storage: Storage, review: Review, file: str, made: Dataset, limits: Limits) -> None:
    """Enter the object's series and store the object, unless it is there already."""
    data = equipment.as_bytes(made)
    header = read_header(data, limits)
    study = review.study_instance_uid
    # Entered first, as at arrival: whatever is stored can be found.
    catalogue.enter(storage, study, header.series_instance_uid, data)
    metadata = {
        stored.SERIES: header.series_instance_uid,
        stored.INSTANCE: header.sop_instance_uid,
        stored.SHA256: hashlib.sha256(data).hexdigest(),
        **catalogue.note(header),
    }
    with contextlib.suppress(Conflict):
        storage.write(
            REVIEWS,
            stored.name(study, review.generation, file),
            data,
            metadata=metadata,
            content_type="application/dicom",
            if_absent=True,
        )
