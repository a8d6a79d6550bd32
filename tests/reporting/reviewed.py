"""Studies that are stored and reviewed, with boxes where a test wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydicom import Dataset

from slicewatch import inventory, worklist
from slicewatch.arrival import Intake, Offered
from slicewatch.dicom import read_header
from slicewatch.limits import Limits
from slicewatch.records import (
    Box,
    Detection,
    Geometry,
    IntegrityIssue,
    Lane,
    LaneFlag,
    ModelUse,
    Outcome,
    Reason,
    Review,
    SliceResult,
    StudyStatus,
)
from slicewatch.reporting import making, stored
from slicewatch.review import assemble
from slicewatch.settings import Settings
from slicewatch.storage import REVIEWS, Storage
from slicewatch.triage import load_policy
from slicewatch.worklist import Item, Reader
from tests import studies

BOX: Box = (20.25, 10.5, 44.75, 30.0)
MODEL = ModelUse("test-model", "1.2.0", "ab" * 32, 0.25, 10)
ASSESSED = "2026-01-02T03:04:05.678901+00:00"
READER = Reader("reader-1", "Dr. Käthe Probe")

type Where = Mapping[tuple[int, int], Sequence[tuple[str, float, Box]]]
"""(index of the object, frame) → label, score, box."""


@dataclass(frozen=True)
class Reported:
    """A study with a review of its first generation."""

    storage: Storage
    settings: Settings
    study: str
    review: Review

    def make(self) -> stored.Outcome:
        return making.make(self.storage, self.study, 1, Limits.of(self.settings))

    @property
    def files(self) -> dict[str, bytes]:
        """The results by file name."""
        return {
            blob.name.rsplit("/", 1)[-1]: self.storage.read(REVIEWS, blob.name)
            for blob in stored.of_generation(self.storage, self.study, 1)
        }

    def publish(self) -> list[Item]:
        wanted = worklist.items_of(
            self.review, inventory.instance_id(self.study), datetime.now(UTC)
        )
        return [worklist.add(self.storage, item) for item in wanted]

    def decide(self, item: Item, decision: dict[str, Any]) -> None:
        worklist.claim(self.storage, item.id, READER)
        worklist.decide(self.storage, item.id, READER, decision)


def marked(
    indices: Sequence[int], box: Box = BOX, label: str = "soft_tissue_mass", score: float = 0.875
) -> Where:
    """The same box on single-frame objects, by their index."""
    return {(index, 1): [(label, score, box)] for index in indices}


def reported(
    storage: Storage,
    settings: Settings,
    objects: Sequence[Dataset],
    where: Where,
    *,
    lanes: Sequence[Lane] = (Lane.CLINICAL,),
    issues: Sequence[IntegrityIssue] = (),
) -> Reported:
    """Store the objects of one study and review them with these detections."""
    files = [studies.to_bytes(one) for one in objects]
    receipts = Intake(storage, settings, "stow-rs").receive_all(map(Offered, files))
    slices = [
        one
        for index, (dataset, data) in enumerate(zip(objects, files, strict=True))
        for one in _slices(dataset, data, receipts[index].blob, index, where)
    ]
    study = receipts[0].study_instance_uid
    review = assemble(
        study_instance_uid=study,
        generation=1,
        slices=slices,
        missing=("1.2.3.4.5",),
        policy=load_policy(settings.policy),
        models=[MODEL],
        content_digest="cd" * 32,
        timings={"assessed": ASSESSED},
    )
    flags = tuple(LaneFlag(lane, 50, ("finding",), "") for lane in lanes)
    status = StudyStatus.FLAGGED if flags else review.status
    review = Review.from_json(
        review.to_json()
        | {
            "lanes": [flag.to_json() for flag in flags],
            "status": status.value,
            "integrity": [issue.to_json() for issue in issues],
        }
    )
    inventory.write_review(storage, review)
    return Reported(storage, settings, study, review)


def _slices(
    dataset: Dataset, data: bytes, blob: str, index: int, where: Where
) -> list[SliceResult]:
    header = read_header(data)
    found = []
    for frame in range(1, header.frames + 1):
        boxes = where.get((index, frame), ())
        found.append(
            SliceResult(
                blob=blob,
                content_sha256=f"{index:064x}",
                outcome=Outcome.SCREENED if header.is_image else Outcome.NOT_SCREENED,
                reason=None if header.is_image else Reason.NOT_AN_IMAGE,
                study_instance_uid=header.study_instance_uid,
                series_instance_uid=header.series_instance_uid,
                sop_instance_uid=header.sop_instance_uid,
                sop_class_uid=header.sop_class_uid,
                frame=frame,
                modality=header.modality,
                rows=header.rows,
                columns=header.columns,
                instance_number=header.instance_number,
                geometry=_geometry(dataset),
                pixel_sha256=f"{index:032x}{frame:032x}",
                model=f"{MODEL.name}@{MODEL.version}",
                detections=tuple(Detection(*one) for one in boxes),
            )
        )
    return found


def _geometry(dataset: Dataset) -> Geometry:
    if "ImagePositionPatient" not in dataset:
        return Geometry()
    x, y, z = map(float, dataset.ImagePositionPatient)
    rx, ry, rz, cx, cy, cz = map(float, dataset.ImageOrientationPatient)
    rows, columns = map(float, dataset.PixelSpacing)
    return Geometry(
        position=(x, y, z),
        orientation=(rx, ry, rz, cx, cy, cz),
        spacing=(rows, columns),
        thickness=float(dataset.SliceThickness),
        frame_of_reference_uid=str(dataset.FrameOfReferenceUID),
    )
