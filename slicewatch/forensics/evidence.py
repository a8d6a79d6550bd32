"""The one seam to screening: what an object and its frames leave for the forensic checks."""

from __future__ import annotations

import hashlib
import logging
import struct
import traceback
from dataclasses import replace

from slicewatch import tags
from slicewatch.dicom import Instance
from slicewatch.elements import Dataset
from slicewatch.forensics import private_data, signatures
from slicewatch.forensics.features import measure
from slicewatch.forensics.noise import Image
from slicewatch.records import NOT_MEASURED, SliceResult

_logger = logging.getLogger(__name__)

_IDENTIFYING = frozenset({"DeviceSerialNumber", "StationName"})
"""Compared only, so their digest does: they name a place (PS3.15 annex E)."""
_DOUBLES = frozenset({"CTDIvol"})
"""Of VR FD: binary, also where the object carries no VRs."""
_MAX_TEXT = 64


def with_object(known: SliceResult, data: bytes, instance: Instance) -> SliceResult:
    """Add what the object's bytes and attributes tell, whatever becomes of its pixels."""
    dataset = instance.dataset
    try:
        notes = private_data.notes(data, dataset) + signatures.notes(dataset)
        acquisition = _acquisition(dataset) if instance.header.is_image else {}
    except Exception as error:
        return _not_measured(known, error)
    return replace(known, notes=known.notes + notes, acquisition=acquisition)


def with_pixels(known: SliceResult, values: Image) -> SliceResult:
    """Add what a frame's pixels tell.

    Args:
        values: (rows, columns) in modality units.
    """
    try:
        return replace(known, traces=measure(values, known.modality))
    except Exception as error:
        return _not_measured(known, error)


def _not_measured(known: SliceResult, error: Exception) -> SliceResult:
    """A fault of ours must not keep a slice from its clinical screening; a check tells of it."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    _logger.error("unexpected %s in a forensic measurement: %s", type(error).__name__, where)
    return replace(known, notes=(*known.notes, NOT_MEASURED))


def _acquisition(dataset: Dataset) -> dict[str, str]:
    found = {}
    for keyword, tag in tags.ACQUISITION.items():
        if tag in dataset:
            text = _doubles(dataset, tag) if keyword in _DOUBLES else dataset.ascii(tag)
            if keyword in _IDENTIFYING:
                text = hashlib.sha256(text.encode()).hexdigest()[:12]
            found[keyword] = text[:_MAX_TEXT]
    return {keyword: text for keyword, text in found.items() if text}


def _doubles(dataset: Dataset, tag: int) -> str:
    value = dataset.raw(tag)
    numbers = struct.unpack_from(f"{dataset.encoding.order}{len(value) // 8}d", value)
    return "\\".join(f"{number:.6g}" for number in numbers)
