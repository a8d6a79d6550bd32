"""What can be searched for: the attributes of studies, series and instances.

Nothing here is counted as slices arrive, so nothing is contended for:

- A study and a series have an entity of the table ``catalogue``, written before their first object
  is stored and only where none is; its attributes are those of that object. (That objects of one
  study differ in them is a matter of the integrity checks.)
- An instance has its few attributes in the metadata of its own blob, written with its bytes.
- How many there are is what the listing of ``incoming`` says. Of a study at rest it is kept: each
  request stamps the studies it brings objects of, before it stores them, and counts that were
  taken longer after the last stamp than any request can last stay right.

So whatever is stored can be found, and a study or series of which nothing was stored (a request
ended in between) shows when it is listed. `rebuild` makes the table anew from the objects.

The table holds names and ids of patients, as the archive itself does; nothing else may.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from slicewatch import holdings
from slicewatch.holdings import Held
from slicewatch.limits import Limits, Rejected
from slicewatch.storage import INCOMING, BlobMissing, Conflict, Storage

if TYPE_CHECKING:
    from slicewatch.dicom import Header

CATALOGUE = "catalogue"
NOTE = "dicom"
"""Key of the blob metadata that holds an instance's attributes."""

_STUDIES = "study"
_MAX_VALUE = 1024
_MAX_COUNTS = 30_000  # characters; a property holds 32 Ki
_AT_REST = timedelta(hours=1)
"""Longer than a request can last (`functionTimeout` in host.json), and clocks differ."""

type Json = dict[str, Any]

# PS3.18 tables 10.6.3-3 and 10.6.3-4: attributes of the Patient, Study and Series modules that a
# search returns, with their VRs. What is counted or derived is added by the search.
STUDY_ATTRIBUTES = {
    "00080020": "DA",  # Study Date
    "00080030": "TM",  # Study Time
    "00080050": "SH",  # Accession Number
    "00080090": "PN",  # Referring Physician's Name
    "00080201": "SH",  # Timezone Offset From UTC
    "00081030": "LO",  # Study Description
    "00100010": "PN",  # Patient's Name
    "00100020": "LO",  # Patient ID
    "00100021": "LO",  # Issuer of Patient ID
    "00100030": "DA",  # Patient's Birth Date
    "00100040": "CS",  # Patient's Sex
    "0020000D": "UI",  # Study Instance UID
    "00200010": "SH",  # Study ID
}
SERIES_ATTRIBUTES = {
    "00080021": "DA",  # Series Date
    "00080031": "TM",  # Series Time
    "00080060": "CS",  # Modality
    "0008103E": "LO",  # Series Description
    "00180015": "CS",  # Body Part Examined
    "0020000E": "UI",  # Series Instance UID
    "00200011": "IS",  # Series Number
    "00200060": "CS",  # Laterality
    "00400244": "DA",  # Performed Procedure Step Start Date
    "00400245": "TM",  # Performed Procedure Step Start Time
}
INSTANCE_ATTRIBUTES = {
    "00080016": "UI",  # SOP Class UID
    "00083002": "UI",  # Available Transfer Syntax UID
    "00200013": "IS",  # Instance Number
    "00280010": "US",  # Rows
    "00280011": "US",  # Columns
    "00280100": "US",  # Bits Allocated
    "00280008": "IS",  # Number of Frames
}
"""In the order in which `note` has them. The SOP instance UID is the blob's name."""


@dataclass(frozen=True, slots=True)
class Study:
    """A study of the catalogue, its attributes as a DICOM JSON object.

    Attributes:
        arrived: when the last request began that brought objects of it.
        counts: series UID → objects, where they are kept and right; else ``None``.
    """

    uid: str
    attributes: Json
    arrived: datetime
    counts: dict[str, int] | None


@dataclass(frozen=True, slots=True)
class Series:
    """A series of the catalogue, its attributes as a DICOM JSON object."""

    study: str
    uid: str
    attributes: Json


class Cataloguer:
    """Enters the studies and series of one request; safe under threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._entered: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def enter(self, header: Header, data: bytes) -> None:
        """Enter the object's study and series before it is stored. Raises `StorageUnavailable`."""
        key = header.study_instance_uid, header.series_instance_uid
        with self._lock:
            if key not in self._entered:
                if not _arrives_again(self._storage, *key):
                    enter(self._storage, *key, data)
                    _remember(self._storage, *key)
                self._entered.add(key)


_KNOWN_AT_MOST = 4096
_known: OrderedDict[tuple[Storage, str, str], None] = OrderedDict()
_known_lock = threading.Lock()


def _arrives_again(storage: Storage, study: str, uid: str) -> bool:
    """Stamp a study of which this process entered the series; ``False`` when it did not, or when
    somebody removed the study since. Entering them again would say nothing new.
    """
    with _known_lock:
        if (storage, study, uid) not in _known:
            return False
    try:
        storage.merge_entity(CATALOGUE, _stamp(study))
    except BlobMissing:
        return False
    return True


def _remember(storage: Storage, study: str, uid: str) -> None:
    with _known_lock:
        _known[storage, study, uid] = None
        while len(_known) > _KNOWN_AT_MOST:
            _known.popitem(last=False)


def _stamp(study: str) -> Json:
    """The study's entity, as far as every request that brings something of it sets it."""
    return {"PartitionKey": _STUDIES, "RowKey": study, "arrived": datetime.now(UTC).isoformat()}


def note(header: Header) -> dict[str, str]:
    """An instance's attributes, for the metadata of its blob: ASCII, and nothing of the patient."""
    values = (
        header.sop_class_uid,
        header.transfer_syntax_uid,
        header.instance_number,
        header.rows or None,
        header.columns or None,
        header.bits_allocated,
        header.frames if header.rows else None,
    )
    return {NOTE: ";".join("" if value is None else str(value) for value in values)}


def instance_attributes(storage: Storage, one: Held, limits: Limits) -> Json:
    """The attributes of an instance as a DICOM JSON object.

    An object without a note (something else than a door stored it) is read; of one that cannot be
    read only the UID is known.
    """
    noted = one.metadata.get(NOTE)
    if noted is None:
        noted = _read_note(storage, one, limits)
    found: Json = {"00080018": {"vr": "UI", "Value": [one.instance]}}
    for (tag, vr), text in zip(INSTANCE_ATTRIBUTES.items(), noted.split(";"), strict=False):
        if text:
            found[tag] = {"vr": vr, "Value": [text if vr == "UI" else int(text)]}
    return found


def studies(
    storage: Storage, uids: frozenset[str] | None = None, dates: tuple[str, str] = ("", "")
) -> Iterator[Study]:
    """The studies, in the order of their UIDs.

    Args:
        uids: only these; ``None``: all.
        dates: only those with a Study Date from and to these, where they are not empty.
    """
    if uids is not None:
        for uid in sorted(uids):
            entity = storage.entity(CATALOGUE, _STUDIES, uid)
            if entity is not None:
                yield _study(entity)
        return
    query, parameters = "PartitionKey eq @p", {"p": _STUDIES}
    for name, operator, date in zip(("low", "high"), ("ge", "le"), dates, strict=True):
        if date:
            query += f" and date {operator} @{name}"
            parameters[name] = date
    for entity in storage.entities(CATALOGUE, query, parameters):
        yield _study(entity)


def counts_of(storage: Storage, study: Study) -> dict[str, int]:
    """How many objects each series of the study has, those without any left out."""
    if study.counts is not None:
        return study.counts
    begun = datetime.now(UTC)
    counts = dict(Counter(one.series for one in holdings.listing(storage, study.uid)))
    text = json.dumps(counts)
    if begun - study.arrived > _AT_REST and len(text) <= _MAX_COUNTS:
        counted = {"counts": text, "counted": begun.isoformat()}
        storage.merge_entity(CATALOGUE, {"PartitionKey": _STUDIES, "RowKey": study.uid, **counted})
    return counts


def _study(entity: Json) -> Study:
    arrived = datetime.fromisoformat(entity["arrived"])
    counts = None
    if "counted" in entity and datetime.fromisoformat(entity["counted"]) - arrived > _AT_REST:
        counts = json.loads(entity["counts"])
    return Study(entity["RowKey"], json.loads(entity["attributes"]), arrived, counts)


def series(storage: Storage, study: str | None = None) -> Iterator[Series]:
    """The series of a study; ``None``: of all of them."""
    operator, value = ("ne", _STUDIES) if study is None else ("eq", study)
    for entity in storage.entities(CATALOGUE, f"PartitionKey {operator} @p", {"p": value}):
        yield Series(entity["PartitionKey"], entity["RowKey"], json.loads(entity["attributes"]))


def rebuild(storage: Storage) -> int:
    """Enter every study and series of which there are objects; how many series were missing.

    It lists all objects and reads one of each series that is not entered.
    """
    known = {(one.study, one.uid) for one in series(storage)}
    added = 0
    for blob in storage.listing(INCOMING):
        study, uid, _ = blob.name.split("/")
        if (study, uid) not in known:
            known.add((study, uid))
            enter(storage, study, uid, storage.read(INCOMING, blob.name))
            added += 1
    for study in {study for study, _ in known}:
        for one in holdings.results(storage, study):
            if (study, one.series) not in known:
                known.add((study, one.series))
                enter(storage, study, one.series, holdings.read(storage, one))
                added += 1
    return added


def enter(storage: Storage, study: str, uid: str, data: bytes) -> None:
    """Enter a study and a series with the attributes of an object, where they are not entered; and
    that something of the study comes now. Raises `StorageUnavailable`.

    Args:
        uid: of the series.
    """
    from slicewatch import dicom_json

    dataset = dicom_json.read(data)
    of_study = dicom_json.pick(dataset, STUDY_ATTRIBUTES, _MAX_VALUE)
    of_series = dicom_json.pick(dataset, SERIES_ATTRIBUTES, _MAX_VALUE)
    # The names of the path are checked; a UID as the object writes it may be padded.
    of_study["0020000D"] = {"vr": "UI", "Value": [study]}
    of_series["0020000E"] = {"vr": "UI", "Value": [uid]}
    date = str((of_study.get("00080020", {}).get("Value") or [""])[0])
    stamp = _stamp(study)
    try:
        attributes = {"date": date, "attributes": json.dumps(of_study)}
        storage.insert_entity(CATALOGUE, stamp | attributes)
    except Conflict:  # it is entered already
        storage.merge_entity(CATALOGUE, stamp)
    with contextlib.suppress(Conflict):
        attributes = {"attributes": json.dumps(of_series)}
        storage.insert_entity(CATALOGUE, {"PartitionKey": study, "RowKey": uid, **attributes})


def _read_note(storage: Storage, one: Held, limits: Limits) -> str:
    from slicewatch.dicom import read_header

    try:
        return note(read_header(holdings.read(storage, one), limits))[NOTE]
    except Rejected:
        return ""


if __name__ == "__main__":
    from slicewatch.storage import current

    sys.stdout.write(f"{rebuild(current())} series entered\n")
