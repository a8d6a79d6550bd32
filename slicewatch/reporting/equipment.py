"""What all results say of themselves: who made them, when, of whom, and that they are research."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any

from pydicom import Dataset, dcmwrite
from pydicom.sequence import Sequence

from slicewatch import __version__
from slicewatch.records import Review
from slicewatch.reporting import codes
from slicewatch.reporting.subject import UTF_8

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
MANUFACTURER = "Slicewatch"
_RESEARCH = "research, not for clinical use"
_CLOCK = ("Content", "InstanceCreation", "PresentationCreation")
_MAX_VERSIONS = 8


def described(review: Review, what: str) -> dict[str, Any]:
    """Arguments of highdicom's SOP classes that all results share."""
    _silence()
    models = tuple(f"{one.name} {one.version}"[:64] for one in review.models[:_MAX_VERSIONS])
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": [__version__, *models],
        "series_description": f"{what}: {_RESEARCH}",
        "content_qualification": "RESEARCH",
        "coding_schemes": codes.schemes(),
        "specific_character_set": UTF_8,
    }


def nobody(subject: Dataset) -> Dataset:
    """The subject's study with nothing of the patient: highdicom quotes names that it doubts.
    `finish` fills in what is left out here.
    """
    found = Dataset()
    for element in subject:
        found.add_new(element.tag, element.VR, Sequence() if element.VR == "SQ" else "")
    found.StudyInstanceUID = subject.StudyInstanceUID
    found.SpecificCharacterSet = UTF_8
    return found


def finish(dataset: Dataset, subject: Dataset, when: str) -> Dataset:
    """Fill in patient and study as the original has them, and the time it was said.

    Args:
        when: UTC ISO 8601; written in the zone of the original's own dates, where it names one.
    """
    for element in subject:
        dataset.add(copy.deepcopy(element))
    moment = datetime.fromisoformat(when).astimezone(_zone(str(subject.get(_ZONE, ""))))
    for name in _CLOCK:
        if f"{name}Date" in dataset:
            setattr(dataset, f"{name}Date", moment.strftime("%Y%m%d"))
            setattr(dataset, f"{name}Time", moment.strftime("%H%M%S.%f"))
    for tool in dataset.get("ContributingEquipmentSequence", ()):  # highdicom names itself
        tool.pop("ContributionDateTime", None)
    return dataset


def as_bytes(dataset: Dataset) -> bytes:
    """The DICOM file (PS3.10), Explicit VR Little Endian."""
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


_ZONE = "TimezoneOffsetFromUTC"


def _zone(text: str) -> timezone:
    if len(text) != 5:
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[3:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


@cache
def _silence() -> None:
    """What highdicom says of values quotes them: UIDs, and names of patients and readers."""
    logging.getLogger("highdicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="highdicom")
