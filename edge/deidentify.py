"""De-identification by the Basic Application Level Confidentiality Profile and some of its options
(PS3.15 annex E), on the way out. Pixel data stays as it is, compressed or not.

The actions come from ``confidentiality_profile.csv``, the standard's table E.1-1. Where it leaves
a choice (``X/Z/D``: whatever the IOD needs), the last one is taken, which fits every IOD. What the
clean options leave is in `edge.cleaning`; where a retain option asks for cleaning, and nothing left
may stay, the basic profile's action is taken. Clean Pixel Data and Clean Recognizable Visual
Features are not offered. Beyond the table, these go too: person names that it does not list, UIDs
that are neither listed nor of the standard, whole overlay groups (the table lists their pictures
and comments), and attributes that are unknown here.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from edge.cleaning import Vocabulary, clean_content_item, clean_graphics
from edge.config import Deidentify
from edge.entries import Entry
from edge.pseudonyms import Pseudonyms
from edge.spool import Spool
from edge.stow_client import Part, bytes_part, file_part
from edge.uploader import MustStay, Prepare

_TABLE = Path(__file__).with_name("confidentiality_profile.csv")

# De-identification Method codes (PS3.16 CID 7050).
_BASIC = ("113100", "Basic Application Confidentiality Profile")
_OPTION_CODES = {
    "graphics": ("113103", "Clean Graphics Option"),
    "structured_content": ("113104", "Clean Structured Content Option"),
    "descriptors": ("113105", "Clean Descriptors Option"),
    "full_dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "modified_dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "safe_private": ("113111", "Retain Safe Private Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}
_CLEANED = {
    "modified_dates": "SHIFT",
    "structured_content": "CONTENT",
    "graphics": "GRAPHICS",
    "descriptors": "WORDS",
}
"""What is done where an option's cell is C; other options have no way to clean."""
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_STANDARD_UIDS = "1.2.840.10008."
_DATES = re.compile(r"(\d{8})(.*)", re.DOTALL)
_DUMMIES: dict[str, Any] = {
    "AE": "REMOVED",
    "AS": "000Y",
    "CS": "REMOVED",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "LO": "REMOVED",
    "LT": "REMOVED",
    "PN": "REMOVED",
    "SH": "REMOVED",
    "ST": "REMOVED",
    "TM": "000000",
    "UC": "REMOVED",
    "UR": "REMOVED",
    "UT": "REMOVED",
    **dict.fromkeys(("FD", "FL"), 0.0),
    **dict.fromkeys(("SL", "SS", "SV", "UL", "US", "UV"), 0),
    **dict.fromkeys(("OB", "OD", "OF", "OL", "OV", "OW", "UN"), bytes(8)),
}
"""Values of their VRs (PS3.5 table 6.2-1) that say nothing."""


class Deidentifier:
    """De-identifies objects; the same object always gives the same bytes.

    `outside` is the UID that the cloud knows for one of the site's.
    """

    def __init__(self, config: Deidentify, pseudonyms: Pseudonyms) -> None:
        self._config = config
        self._pseudonyms = pseudonyms
        self._retains_uids = "uids" in config.options
        self._basic = {tag: _last_choice(row) for tag, row in profile().items()}
        self._actions = {tag: _resolve(row, config.options) for tag, row in profile().items()}
        self._vocabulary = Vocabulary(config.vocabulary)
        self._safe_private = set(config.safe_private)
        self.warnings = 0

    def outside(self, uid: str) -> str:
        return uid if self._retains_uids else self._pseudonyms.uid(uid)

    def apply(self, file: Path) -> tuple[str, bytes]:
        """SOP instance UID and bytes of a file as it may leave.

        Raises:
            MustStay: text may be burned into its pixels and the policy is to refuse, or it cannot
                be read or written.
        """
        try:
            dataset = pydicom.dcmread(file)
            self._check_burned_in(dataset)
            self.clean(dataset)
            dataset.preamble = bytes(128)
            meta = dataset.file_meta
            for keyword in list(meta.dir()):
                if keyword not in _META_KEPT:
                    delattr(meta, keyword)
            meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
        except MustStay:
            raise
        except Exception as error:
            # Whatever a hostile object makes the reader do: it stays, and the rest goes on.
            raise MustStay(f"it cannot be de-identified: {type(error).__name__}") from error
        self._pseudonyms.save()
        return str(dataset.SOPInstanceUID), buffer.getvalue()

    def clean(self, dataset: Dataset) -> None:
        """De-identify a dataset in place, and say so in it (PS3.15 section E.1.1)."""
        issuer = str(dataset.get("IssuerOfPatientID", "") or "")
        patient_id = str(dataset.get("PatientID", "") or "")
        has_patient = "PatientID" in dataset or "PatientName" in dataset
        shift = self._pseudonyms.shift_days(issuer, patient_id)
        self._clean_level(dataset, shift)
        if has_patient:
            name = self._pseudonyms.patient(issuer, patient_id) if patient_id else ""
            dataset.PatientID = name
            dataset.PatientName = name
        dataset.PatientIdentityRemoved = "YES"
        options = self._config.options
        codes = [_BASIC, *(_OPTION_CODES[option] for option in sorted(options))]
        dataset.DeidentificationMethod = "Slicewatch edge"
        dataset.DeidentificationMethodCodeSequence = Sequence([_code(*code) for code in codes])
        dataset.LongitudinalTemporalInformationModified = (
            "UNMODIFIED"
            if "full_dates" in options
            else "MODIFIED"
            if "modified_dates" in options
            else "REMOVED"
        )

    def _check_burned_in(self, dataset: Dataset) -> None:
        """Text in the pixels is out of the profile's reach: warn or refuse."""
        said = str(dataset.get("BurnedInAnnotation", "") or "").strip().upper()
        risky = (
            str(dataset.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE)
            or str(dataset.get("Modality", "")) in self._config.burned_in_modalities
        )
        if said == "YES" or (said != "NO" and risky):
            if self._config.burned_in == "refuse":
                raise MustStay("text may be burned into its pixels (deidentify.burned_in)")
            self.warnings += 1

    # --- elements -------------------------------------------------------------------------------

    def _clean_level(self, dataset: Dataset, shift: int) -> None:
        safe = self._safe_private_of(dataset)
        for tag in list(dataset.keys()):
            if tag.is_private:
                if tag not in safe:
                    del dataset[tag]
                continue
            action = self._action(tag)
            if action == "X":
                del dataset[tag]
                continue
            # Only what has to be looked at is parsed: pixel data stays as it was read.
            if action == "" and not _needs_look(dataset, tag):
                continue
            self._treat(dataset, dataset[tag], action, shift)

    def _treat(self, dataset: Dataset, element: DataElement, action: str, shift: int) -> None:
        is_sequence = element.VR == "SQ"
        match action:
            case "Z":
                element.value = Sequence() if is_sequence else None
            case "D":
                element.value = Sequence() if is_sequence else _dummy(element, self.outside)
            case "CONTENT" | "GRAPHICS" if is_sequence:
                for item in element.value:
                    self._clean_level(item, shift)
                    if action == "CONTENT":
                        clean_content_item(item, self._vocabulary)
                    else:
                        clean_graphics(item)
            case "WORDS":
                self._keep_words(dataset, element, shift)
            case "SHIFT" if not is_sequence:
                element.value = _shifted(element, shift)
            case "U" if element.VR == "UI":
                self._replace_uids(element)
            case "" if not is_sequence:
                self._treat_unlisted(dataset, element)
            case _ if is_sequence:
                for item in element.value:
                    self._clean_level(item, shift)

    def _treat_unlisted(self, dataset: Dataset, element: DataElement) -> None:
        """What the table does not name, and could identify all the same."""
        match element.VR:
            case "PN":
                element.value = None
            case "UI" if not self._retains_uids:
                self._replace_uids(element)
            case "UN":
                del dataset[element.tag]

    def _keep_words(self, dataset: Dataset, element: DataElement, shift: int) -> None:
        """What the vocabulary leaves of a text; of what is no text, or left empty, the basic
        profile's action.
        """
        kept = self._vocabulary.cleaned_element(element.VR, element.value)
        basic = self._basic[int(element.tag)]
        if kept:
            element.value = kept if len(kept) > 1 else kept[0]
        elif basic == "X":
            del dataset[element.tag]
        else:
            self._treat(dataset, element, basic, shift)

    def _safe_private_of(self, dataset: Dataset) -> set[Any]:
        """The private attributes of a level that may stay, and their creators."""
        safe: set[Any] = set()
        if not self._safe_private:
            return safe
        for tag in list(dataset.keys()):
            creator_tag = Tag(tag.group, tag.element >> 8)
            if not tag.is_private or tag.element <= 0xFF or creator_tag not in dataset:
                continue
            creator = str(dataset[creator_tag].value or "").strip()
            if f"{creator}:{tag.group:04X},{tag.element & 0xFF:02X}" in self._safe_private:
                safe |= {tag, creator_tag}
        return safe

    def _replace_uids(self, element: DataElement) -> None:
        values = [element.value] if element.VM <= 1 else list(element.value)
        element.value = [
            uid if not uid or str(uid).startswith(_STANDARD_UIDS) else self.outside(str(uid))
            for uid in values
        ]

    def _action(self, tag: Any) -> str:
        group = tag.group
        if 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF:
            return "X"  # an overlay's label and description say what its picture did
        return self._actions.get(int(tag), "")


def deidentified(spool: Spool, deidentifier: Deidentifier) -> Prepare:
    """Objects leave de-identified; what the agent made itself is so already."""

    def prepare(entry: Entry) -> Part:
        path = spool.verify(entry.sha256)
        if entry.generated:
            return file_part(entry.sop_instance, path, entry.size)
        return bytes_part(*deidentifier.apply(path))

    return prepare


@cache
def profile() -> dict[int, dict[str, str]]:
    """The table by tag; groups with an x, and private attributes, are in the code."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {int(row["tag"].replace(",", ""), 16): row for row in rows if "x" not in row["tag"]}


_META_KEPT = (
    "FileMetaInformationGroupLength",
    "FileMetaInformationVersion",
    "MediaStorageSOPClassUID",
    "MediaStorageSOPInstanceUID",
    "TransferSyntaxUID",
    "ImplementationClassUID",
    "ImplementationVersionName",
)


def _resolve(row: dict[str, str], options: tuple[str, ...]) -> str:
    """One action for an attribute: X, Z, D, U, K, or one of `_CLEANED`."""
    if any(row.get(option) == "K" for option in options):
        return "K"
    for option, action in _CLEANED.items():
        if option in options and row[option] == "C":
            return action
    return _last_choice(row)


def _last_choice(row: dict[str, str]) -> str:
    return row["basic"].rstrip("*").rpartition("/")[2]


def _needs_look(dataset: Dataset, tag: Any) -> bool:
    raw = dataset.get_item(tag)
    vr = getattr(raw, "VR", None)
    if vr is None or vr == "UN":
        # Implicit VR: the dictionary has it, or nobody has.
        return not dictionary_has_tag(tag) or pydicom.datadict.dictionary_VR(tag) in _LOOKED_AT
    return vr in _LOOKED_AT


_LOOKED_AT = ("SQ", "PN", "UI", "UN")


def _dummy(element: DataElement, outside: Any) -> Any:
    if element.VR == "UI":
        return outside(str(element.value))
    return _DUMMIES.get(element.VR)


def _shifted(element: DataElement, days: int) -> Any:
    """Dates and the dates of date-times, `days` earlier; times stay; what is no date goes."""
    if element.VR == "TM":
        return element.value
    values = [element.value] if element.VM <= 1 else list(element.value)
    moved = []
    for value in values:
        found = _DATES.fullmatch(str(value or "").replace(".", "", 2 * (element.VR == "DA")))
        try:
            date = datetime.datetime.strptime(found[1], "%Y%m%d").date() if found else None
            earlier = date - datetime.timedelta(days=days) if date else None
        except (ValueError, OverflowError):
            earlier = None
        moved.append(f"{earlier:%Y%m%d}{found[2]}" if earlier and found else "")
    return moved if len(moved) > 1 else moved[0]


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
