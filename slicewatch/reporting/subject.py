"""What results inherit from the originals of a study, and what they refer to.

Objects come from anywhere: a value that breaks the rules of its VR is left out rather than copied
into an object that is ours, and text is written in UTF-8 whatever it came in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Private, and the pinned version is the one it was read in: there is no public way to ask.
from highdicom._standard_utils import get_sop_class_iod_map
from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.valuerep import PersonName, validate_value

UTF_8 = "ISO_IR 192"

# PS3.3 tables C.7-1 (Patient), C.7-3 (General Study) and C.7-4a (Patient Study).
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_OPTIONAL = (
    "IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthTime", "OtherPatientNames", "EthnicGroup", "PatientComments",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "IssuerOfAccessionNumberSequence", "StudyDescription", "PhysiciansOfRecord",
    "ProcedureCodeSequence", "AdmittingDiagnosesDescription", "PatientAge", "PatientSize",
    "PatientWeight", "TimezoneOffsetFromUTC",
)  # fmt: skip
_SEXES = ("F", "M", "O")
_FILED_BY = ("PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber")
"""An archive files an object by these: they are kept even where they are too long for their VR, so
that a result lies where its originals do."""


@dataclass(frozen=True, slots=True)
class Referenced:
    """An original that a result refers to.

    Attributes:
        frames: as declared; 1 for an object of a single frame.
    """

    series: str
    instance: str
    sop_class: str
    frames: int = 1
    rows: int = 0
    columns: int = 0


def subject(original: Dataset, study: str) -> Dataset:
    """The attributes of the patient and the study of an original, as a dataset of their own.

    What the standard requires is there, empty where the original has nothing that can be kept.

    Args:
        study: the StudyInstanceUID as the archive has it.
    """
    found = Dataset()
    found.SpecificCharacterSet = UTF_8
    for keyword in (*_REQUIRED, *_OPTIONAL):
        element = _element(original, keyword)
        if element is not None and _is_sound(element, lenient=keyword in _FILED_BY):
            found.add(element)
    if found.get("PatientSex") not in _SEXES:
        found.PatientSex = ""
    if found.get("PatientIdentityRemoved") == "YES" and not (
        found.get("DeidentificationMethod") or found.get("DeidentificationMethodCodeSequence")
    ):
        found.DeidentificationMethod = "not stated by the original"
    for keyword in _REQUIRED:
        if keyword not in found:
            setattr(found, keyword, "")
    found.StudyInstanceUID = study
    return found


def as_evidence(one: Referenced, study: Dataset) -> Dataset:
    """A reference as the dataset that highdicom takes it from, with the subject's attributes."""
    found = Dataset()
    found.update(study)
    found.SeriesInstanceUID = one.series
    found.SOPInstanceUID = one.instance
    found.SOPClassUID = one.sop_class
    found.Rows, found.Columns = one.rows, one.columns
    found.SamplesPerPixel = 1
    if one.frames > 1:
        found.NumberOfFrames = one.frames
    return found


def _element(original: Dataset, keyword: str) -> DataElement | None:
    """The element, decoded; ``None`` where it is missing or cannot be read."""
    try:
        element = original[keyword]
        vr = dictionary_VR(keyword)
        value = _plain(element.value)
        return DataElement(element.tag, vr, value, validation_mode=config.IGNORE)
    except Exception:  # pydicom raises many things at bad values
        return None


def _plain(value: object) -> object:
    """The value without the bytes and the character set it came in."""
    match value:
        case PersonName():
            return str(value)
        case Sequence():
            return Sequence([_plain_item(item) for item in value])
        case MultiValue():
            return [_plain(one) for one in value]
        case None:
            return ""
        case _:
            return str(value)


def _plain_item(item: Dataset) -> Dataset:
    found = Dataset()
    for element in item:
        value = _plain(element.value)
        found.add(DataElement(element.tag, element.VR, value, validation_mode=config.IGNORE))
    return found


def _is_sound(element: DataElement, *, lenient: bool) -> bool:
    return all(_holds(one, lenient=lenient) for one in _leaves(element))


def _leaves(element: DataElement) -> Iterator[DataElement]:
    if element.VR == "SQ":
        for item in element.value:
            for inner in item:
                yield from _leaves(inner)
    else:
        yield element


def _holds(element: DataElement, *, lenient: bool) -> bool:
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    for value in map(str, values):
        if any(ord(char) < 32 for char in value):  # line breaks, escapes
            return False
        if not lenient:
            try:
                validate_value(element.VR, value, config.RAISE)
            except ValueError:
                return False
    return True


def can_be_referred_to(sop_class: str) -> bool:
    """Whether the standard knows the SOP class: highdicom looks its modules up."""
    return sop_class in get_sop_class_iod_map()
