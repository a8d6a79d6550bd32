"""Worklist items as workitems: their UIDs, and what is said of them in DICOM JSON.

The attributes are those of PS3.4 table CC.2.5-3, as far as they are known of an item.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from slicewatch.records import DISCLAIMER, Lane
from slicewatch.worklist import Item

type Json = dict[str, Any]

CODING_SCHEME = "99SLICEWATCH"
VERDICTS = {"CONFIRMED": "confirmed", "REJECTED": "rejected", "CHANGED": "changed"}
"""Code values of the Performed Workitem Code Sequence, and the verdicts they stand for."""

STATES = {
    "open": "SCHEDULED",
    "claimed": "IN PROGRESS",
    "decided": "COMPLETED",
    "superseded": "CANCELED",
}

_PUSH_SOP_CLASS = "1.2.840.10008.5.1.4.34.6.1"
_ITEM = re.compile(r"study-([0-9a-f]{32})-([1-9][0-9]{0,9})-(clinical|forensic)")
_UID = re.compile(r"2\.25\.(0|[1-9][0-9]{0,38})\.([1-9][0-9]{0,9})\.([12])")
_LANES = {Lane.CLINICAL: "1", Lane.FORENSIC: "2"}
_MAX_COMMENT = 1024  # an ST value (PS3.5 section 6.2)

SOP_INSTANCE_UID = "00080018"
TRANSACTION_UID = "00081195"
STATE = "00741000"
PROGRESS = "00741002"
_PROGRESS_DESCRIPTION = "00741006"
_PERFORMED = "00741216"
_PERFORMED_CODE = "00404019"
_COMMENTS = "00400280"
_PRIORITY = "00741200"
_WORKLIST_LABEL = "00741202"
_STEP_LABEL = "00741204"
_START = "00404005"

KEYS: Mapping[str, str] = {
    SOP_INSTANCE_UID: "UI",
    "0020000D": "UI",  # Study Instance UID
    STATE: "CS",
    _PRIORITY: "CS",  # Scheduled Procedure Step Priority
    _WORKLIST_LABEL: "LO",
    _STEP_LABEL: "LO",
    _START: "DT",  # Scheduled Procedure Step Start DateTime
}
"""Tag → VR of what workitems are searched by."""


class NoSuchWorkitem(KeyError):
    """No workitem has this UID."""


class BadDataset(ValueError):
    """The payload is not what the transaction asks for; the text says what is."""


# --- names --------------------------------------------------------------------------------------


def has_uid(item: str) -> bool:
    """Whether `uid_of` gives a UID: ids of published items do."""
    return _ITEM.fullmatch(item) is not None


def uid_of(item: str) -> str:
    """SOP Instance UID of an item's workitem: the study's hash as a UUID-derived UID (PS3.5 annex
    B.2), the generation and the lane. Raises `NoSuchWorkitem` for an id that has none.
    """
    found = _ITEM.fullmatch(item)
    if found is None:
        raise NoSuchWorkitem(item)
    return f"2.25.{int(found[1], 16)}.{found[2]}.{_LANES[Lane(found[3])]}"


def item_id(uid: str) -> str:
    """The id of the item that has this UID. Raises `NoSuchWorkitem`."""
    found = _UID.fullmatch(uid)
    if found is None or int(found[1]) >> 128:
        raise NoSuchWorkitem(uid)
    return f"study-{int(found[1]):032x}-{found[2]}-{lane_of(uid)}"


def lane_of(uid: str) -> Lane:
    """The lane of the item that has this UID. Raises `NoSuchWorkitem`."""
    found = _UID.fullmatch(uid)
    if found is None:
        raise NoSuchWorkitem(uid)
    return next(lane for lane, number in _LANES.items() if number == found[3])


# --- workitems ----------------------------------------------------------------------------------


def workitem(item: Item, base_url: str, told: Json | None = None) -> Json:
    """An item as a DICOM JSON object (PS3.4 table CC.2.5-3). It names no patient: the study's UID
    leads to them.

    Args:
        base_url: of the DICOMweb service, without a slash at its end.
        told: what its performer told, of `told_of`.
    """
    found = {
        **_one("00080016", "UI", _PUSH_SOP_CLASS),
        **_one(SOP_INSTANCE_UID, "UI", uid_of(item.id)),
        **_none("00100010", "PN"),
        **_none("00100020", "LO"),
        **_one("0020000D", "UI", item.study),
        **_one("00400400", "LT", item.summary[:10_000]),  # Comments on the Scheduled Procedure Step
        **_one(_START, "DT", _date_time(item.created)),
        **_one("00404010", "DT", _date_time(item.decided or item.claimed or item.created)),
        **_one("00404018", "SQ", _code("REVIEW", "Review of what a detector flagged")),
        **_one("00404021", "SQ", _input(item, base_url)),
        **_one("00404041", "CS", "READY"),  # Input Readiness State
        **_one(STATE, "CS", STATES[item.state]),
        **_one(_PRIORITY, "CS", _priority(item.urgency)),
        **_one(_WORKLIST_LABEL, "LO", f"review-{item.lane}"),
        **_one(_STEP_LABEL, "LO", f"{item.lane.capitalize()} review"),
    }
    if item.state == "superseded":
        # Reason For Cancellation
        reason = _one("00741238", "LT", "superseded by a newer review of the study")
        found |= _one(PROGRESS, "SQ", reason)
    elif told and told.get("progress"):
        found |= _one(PROGRESS, "SQ", _one(_PROGRESS_DESCRIPTION, "ST", told["progress"]))
    if item.state == "decided":
        found |= _one(_PERFORMED, "SQ", _performed(item))
    return dict(sorted(found.items()))


def _one(tag: str, vr: str, value: Any) -> Json:
    return {tag: {"vr": vr, "Value": [value]}}


def _none(tag: str, vr: str) -> Json:
    return {tag: {"vr": vr}}


def _code(value: str, meaning: str) -> Json:
    return {
        **_one("00080100", "SH", value),
        **_one("00080102", "SH", CODING_SCHEME),
        **_one("00080104", "LO", meaning),
    }


def _input(item: Item, base_url: str) -> Json:
    """An item of the Input Information Sequence: the study, and where it is retrieved."""
    address = _one("00081190", "UR", f"{base_url}/studies/{item.study}")
    return {
        **_one("0020000D", "UI", item.study),
        **_one("0040E020", "CS", "DICOM"),  # Type of Instances
        **_one("0040E025", "SQ", address),  # WADO-RS Retrieval Sequence
    }


def _performed(item: Item) -> Json:
    """An item of the Unified Procedure Step Performed Procedure Sequence: the decision."""
    decision = item.decision or {}
    verdict = str(decision.get("verdict", ""))
    code = next((code for code, one in VERDICTS.items() if one == verdict), verdict.upper())
    found = _one(_PERFORMED_CODE, "SQ", _code(code, f"The flag was {verdict}"))
    found |= _one("00404050", "DT", _date_time(item.claimed or item.created))
    found |= _one("00404051", "DT", _date_time(item.decided or item.created))
    if decision.get("comment"):
        found |= _one(_COMMENTS, "ST", str(decision["comment"])[:_MAX_COMMENT])
    return found | _one("00400254", "LO", DISCLAIMER[:64])  # Procedure Step Description


def _priority(urgency: int) -> str:
    """Scheduled Procedure Step Priority of an urgency, 0 to 100."""
    return "HIGH" if urgency >= 70 else "MEDIUM" if urgency >= 40 else "LOW"


def _date_time(text: str) -> str:
    """ISO 8601 in UTC as a DT value."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")


# --- what a performer tells ---------------------------------------------------------------------


def read_payload(body: bytes) -> Json:
    """The one dataset of a request, DICOM JSON, bare or in an array.

    Raises:
        BadDataset: it is none.
    """
    try:
        given = json.loads(body)
        if isinstance(given, list) and len(given) == 1:
            (given,) = given
        if not isinstance(given, dict):
            raise ValueError
        _check(given)
    except (ValueError, RecursionError):
        raise BadDataset("the payload is not one dataset as DICOM JSON (PS3.18 annex F)") from None
    found: Json = given
    return found


def first(attribute: Mapping[str, Any]) -> Any:
    """An attribute's first value; empty text where it has none."""
    return (attribute.get("Value") or [""])[0]


def _check(dataset: Mapping[str, Any]) -> None:
    for tag, attribute in dataset.items():
        values = attribute.get("Value", []) if isinstance(attribute, dict) else None
        if not re.fullmatch("[0-9A-F]{8}", tag) or not isinstance(values, list):
            raise ValueError
        if attribute.get("vr") == "SQ":
            for item in values:
                if not isinstance(item, dict):
                    raise ValueError
                _check(item)


def read_update(dataset: Mapping[str, Any]) -> tuple[Json, bool]:
    """What is kept of an update (``verdict``, ``progress``, ``comment``), and whether that is all.

    Raises `BadDataset`.
    """
    told: Json = {}
    rest = {tag: dict(attribute) for tag, attribute in dataset.items() if tag != TRANSACTION_UID}
    progress = _item(rest.pop(PROGRESS, {}))
    performed = _item(rest.pop(_PERFORMED, {}))
    description = _text(
        progress.pop(_PROGRESS_DESCRIPTION, {}), "Procedure Step Progress Description"
    )
    comment = _text(performed.pop(_COMMENTS, {}), "Comments on the Performed Procedure Step")
    code = _item(performed.pop(_PERFORMED_CODE, {}))
    if code:
        told["verdict"] = _verdict(code)
    if description is not None:
        told["progress"] = description
    if comment is not None:
        told["comment"] = comment
    return told, not (rest or progress or performed)


def _item(attribute: Mapping[str, Any]) -> Json:
    """The only item of a sequence; empty where it is absent or has none."""
    items = attribute.get("Value") or [{}]
    if len(items) != 1 or not isinstance(items[0], dict):
        raise BadDataset("a sequence does not have one item")
    return dict(items[0])


def _text(attribute: Mapping[str, Any], name: str) -> str | None:
    if not attribute:
        return None
    value = first(attribute)
    if not isinstance(value, str) or len(value) > _MAX_COMMENT:
        raise BadDataset(f"{name} is no text of at most {_MAX_COMMENT} characters")
    return value


def _verdict(code: Mapping[str, Any]) -> str:
    value, scheme = first(code.get("00080100", {})), first(code.get("00080102", {}))
    if scheme != CODING_SCHEME or not isinstance(value, str) or value not in VERDICTS:
        raise BadDataset(
            f"the Performed Workitem Code is none of {', '.join(VERDICTS)} of {CODING_SCHEME}"
        )
    return VERDICTS[value]
