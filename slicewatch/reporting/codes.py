"""Coded concepts of the reports: the standard's where it has them, elsewhere ours."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from slicewatch.workitems import CODING_SCHEME as OURS

type Entry = tuple[str, str, str]
"""Code value, coding scheme designator, code meaning."""

# --- what is said (PS3.16 annex D, DICOM Controlled Terminology)
CERTAINTY: Entry = ("111012", "DCM", "Certainty of Finding")
"""The certainty that a device places on a finding, 0 to 100 %."""
PERCENT: Entry = ("%", "UCUM", "Percent")
MAXIMUM: Entry = ("56851009", "SCT", "Maximum")
MEAN: Entry = ("373098007", "SCT", "Mean")
COMMENT: Entry = ("121106", "DCM", "Comment")
REPORT_TITLE: Entry = ("126000", "DCM", "Imaging Measurement Report")  # CID 7021
QUALITATIVE: Entry = ("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500, row 12
MEASUREMENTS: Entry = ("126010", "DCM", "Imaging Measurements")  # TID 1500, row 6
PROCEDURE_REPORTED: Entry = ("121058", "DCM", "Procedure reported")

# --- what the standard has no code for
INTENDED_USE: Entry = ("INTENDED_USE", OURS, "Intended use")
STATUS: Entry = ("STATUS", OURS, "Screening status")
COVERAGE: Entry = ("COVERAGE", OURS, "What was screened")
NOT_COVERED: Entry = ("NOT_COVERED", OURS, "What was not screened")
LEFT_OUT: Entry = ("LEFT_OUT", OURS, "Left out of this document")
POLICY: Entry = ("POLICY", OURS, "Triage policy")
VERDICT: Entry = ("VERDICT", OURS, "Reader's verdict")
ORIGIN: Entry = ("ORIGIN", OURS, "Origin of the region")
BY_DETECTOR: Entry = ("DETECTOR", OURS, "Found by the detector")
BY_READER: Entry = ("READER", OURS, "Drawn by the reader")
CORRECTION: Entry = ("CORRECTION", OURS, "Reason of the correction")

_VERDICTS = {
    "confirmed": ("CONFIRMED", OURS, "Confirmed"),
    "rejected": ("REJECTED", OURS, "Rejected"),
    "changed": ("CHANGED", OURS, "Changed"),
}

# PS3.16 CID 100, by modality of what was screened.
_PROCEDURES: dict[str, Entry] = {
    "CT": ("25045-6", "LN", "CT unspecified body region"),
    "MR": ("25056-3", "LN", "MRI unspecified body region"),
}
_IMAGING: Entry = ("363679005", "SCT", "Imaging procedure")

# Labels of models that SNOMED CT has a concept of in the standard's own context groups (CID 6102,
# 7159). A label that none of them means exactly keeps a code of ours rather than a near one.
_LABELS: dict[str, Entry] = {
    "soft_tissue_mass": ("4147007", "SCT", "Mass"),
    "mass": ("4147007", "SCT", "Mass"),
    "lesion": ("52988006", "SCT", "Lesion"),
    "neoplasm": ("108369006", "SCT", "Neoplasm"),
}


def concept(entry: Entry) -> CodedConcept:
    """The concept as highdicom has it."""
    return CodedConcept(*entry)


def ours(value: str, meaning: str) -> CodedConcept:
    """A concept of our own coding scheme."""
    return concept((value, OURS, meaning))


def label(name: str) -> CodedConcept:
    """A model's or a reader's label as a coded finding; its meaning is the label in words."""
    known = _LABELS.get(name)
    if known is not None:
        return concept(known)
    words = " ".join(name.replace("_", " ").split())[:64]
    return ours(name, words or "unnamed")


def verdict(name: str) -> CodedConcept:
    """A verdict: confirmed, rejected or changed. Raises KeyError for another."""
    return concept(_VERDICTS[name])


def procedure(modality: str) -> CodedConcept:
    """The procedure reported, as far as a modality tells it."""
    return concept(_PROCEDURES.get(modality, _IMAGING))


def schemes() -> list[CodingSchemeIdentificationItem]:
    """What the private designator stands for."""
    return [
        CodingSchemeIdentificationItem(
            designator=OURS,
            name="Slicewatch's codes",
            responsible_organization="Slicewatch",
        )
    ]
