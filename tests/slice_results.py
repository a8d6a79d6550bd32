"""Slice results for the tests of what is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from slicewatch.records import Box, Detection, Geometry, Outcome, Reason, SliceResult

STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = f"{STUDY}.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
MODEL = "test-model@1.0.0"


def digest(*parts: object) -> str:
    """A hash that differs for different parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def mass(box: Box, score: float = 0.8, label: str = "mass") -> Detection:
    """A detection."""
    return Detection(label, score, box)


def axial(z: float, x: float = 0.0, y: float = 0.0, **changes: Any) -> Geometry:
    """An axial plane at z mm with pixels of 1 mm and slices of 2 mm."""
    values: dict[str, Any] = {
        "position": (x, y, z),
        "orientation": AXIAL,
        "spacing": (1.0, 1.0),
        "thickness": 2.0,
        "frame_of_reference_uid": f"{STUDY}.9",
    }
    return Geometry(**values | changes)


def frame(
    number: int, geometry: Geometry | None = None, *detections: Detection, **changes: Any
) -> SliceResult:
    """A screened single-frame CT instance, the `number`-th of its series."""
    series = changes.get("series_instance_uid", SERIES)
    uid = changes.pop("sop_instance_uid", f"{series}.{number}")
    values: dict[str, Any] = {
        "blob": f"{STUDY}/{series}/{uid}.dcm",
        "content_sha256": digest("content", uid),
        "outcome": Outcome.SCREENED,
        "study_instance_uid": STUDY,
        "series_instance_uid": series,
        "sop_instance_uid": uid,
        "frame": 1,
        "modality": "CT",
        "rows": 512,
        "columns": 512,
        "instance_number": number,
        "geometry": geometry or Geometry(),
        "pixel_sha256": digest("pixels", uid, changes.get("frame", 1)),
        "patient_hash": "a1",
        "model": MODEL,
        "detections": detections,
    }
    return SliceResult(**values | changes)


def axial_series(count: int, step: float = 2.0, **changes: Any) -> list[SliceResult]:
    """Evenly spaced axial slices without detections, instance numbers from 1."""
    return [frame(index + 1, axial(index * step), **changes) for index in range(count)]


def lesion(
    planes: Sequence[int],
    box: Box = (10.0, 10.0, 30.0, 30.0),
    count: int = 12,
    step: float = 2.0,
    **changes: Any,
) -> list[SliceResult]:
    """An axial series with one box on the given planes (from 0)."""
    return [
        frame(index + 1, axial(index * step), *([mass(box)] if index in planes else []), **changes)
        for index in range(count)
    ]


def rejected(number: int, reason: Reason = Reason.TRUNCATED, **changes: Any) -> SliceResult:
    """An object that could not be read."""
    return frame(
        number, frame=0, outcome=Outcome.REJECTED, reason=reason, pixel_sha256="", model="",
        **changes,
    )  # fmt: skip


def unscreened(number: int, reason: Reason = Reason.NO_MODEL, **changes: Any) -> SliceResult:
    """An object that nobody looked at."""
    return frame(
        number, frame=0, outcome=Outcome.NOT_SCREENED, reason=reason, pixel_sha256="", model="",
        **changes,
    )  # fmt: skip
