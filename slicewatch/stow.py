"""Responses of the STOW-RS Store transaction (PS3.18 section 10.5.3 and annex I)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slicewatch.arrival import Receipt
from slicewatch.records import Reason

type Json = dict[str, Any]

MEDIA_TYPE = "application/dicom+json"

# Attributes of the Store Instances Response Module (PS3.18 table I.1-1), with their VRs.
_ERROR_COMMENT = ("00000902", "LO")  # PS3.7 annex E.2; names the cause for people
_REFERENCED_SOP_CLASS_UID = ("00081150", "UI")
_REFERENCED_SOP_INSTANCE_UID = ("00081155", "UI")
_RETRIEVE_URL = ("00081190", "UR")
_WARNING_REASON = ("00081196", "US")
_FAILURE_REASON = ("00081197", "US")
_FAILED_SOP_SEQUENCE = ("00081198", "SQ")
_REFERENCED_SOP_SEQUENCE = ("00081199", "SQ")
_OTHER_FAILURES_SEQUENCE = ("0008119A", "SQ")

# Failure Reason (PS3.18 table I.2-2). The last two digits of A7xx, A9xx and Cxxx are ours.
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_SOP_CLASS = 0xA900
STUDY_MISMATCH = 0xA901
CANNOT_UNDERSTAND = 0xC000
MEDIA_TYPE_NOT_ACCEPTED = 0xC001
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122

FAILURE_REASONS: Mapping[Reason, int] = {
    Reason.NOT_DICOM: CANNOT_UNDERSTAND,
    Reason.TRUNCATED: CANNOT_UNDERSTAND,
    Reason.BAD_UID: CANNOT_UNDERSTAND,
    Reason.BAD_HEADER: DOES_NOT_MATCH_SOP_CLASS,
    Reason.NO_PIXEL_DATA: DOES_NOT_MATCH_SOP_CLASS,
    Reason.NOT_AN_IMAGE: SOP_CLASS_NOT_SUPPORTED,
    Reason.TOO_LARGE: OUT_OF_RESOURCES,
    Reason.UNSUPPORTED_TRANSFER_SYNTAX: TRANSFER_SYNTAX_NOT_SUPPORTED,
    Reason.WRONG_STUDY: STUDY_MISMATCH,
    Reason.WRONG_MEDIA_TYPE: MEDIA_TYPE_NOT_ACCEPTED,
}

CONFLICTING_DUPLICATE = 0xB011
"""Warning Reason of our own (table I.2-1 leaves it open): other bytes were received under this
SOP instance UID, and both are kept.
"""


def status_code(receipts: Sequence[Receipt]) -> int:
    """HTTP status of the transaction (PS3.18 table 10.5.3-1)."""
    stored = [receipt for receipt in receipts if receipt.reason is None]
    if not stored:
        return 409
    whole = len(stored) == len(receipts) and not any(receipt.conflicting for receipt in stored)
    return 200 if whole else 202


def response(receipts: Sequence[Receipt], base_url: str) -> Json:
    """The Store Instances Response Module as a DICOM JSON object (PS3.18 annex F).

    Args:
        base_url: of the DICOMweb service, without a slash at its end.
    """
    stored = [receipt for receipt in receipts if receipt.reason is None]
    failed = [receipt for receipt in receipts if receipt.reason is not None]
    known = [receipt for receipt in failed if receipt.sop_instance_uid]
    unknown = [receipt for receipt in failed if not receipt.sop_instance_uid]
    studies = {receipt.study_instance_uid for receipt in stored}
    module = _attributes(
        (_RETRIEVE_URL, [f"{base_url}/studies/{study}" for study in studies][: len(studies) == 1])
    )
    for sequence, items in (
        (_REFERENCED_SOP_SEQUENCE, [_stored_item(receipt, base_url) for receipt in stored]),
        (_FAILED_SOP_SEQUENCE, [_failed_item(receipt) for receipt in known]),
        (_OTHER_FAILURES_SEQUENCE, [_failed_item(receipt) for receipt in unknown]),
    ):
        if items:
            module |= _attributes((sequence, items))
    return module


def _stored_item(receipt: Receipt, base_url: str) -> Json:
    url = (
        f"{base_url}/studies/{receipt.study_instance_uid}/series/{receipt.series_instance_uid}"
        f"/instances/{receipt.sop_instance_uid}"
    )
    item = _reference(receipt) | _attributes((_RETRIEVE_URL, [url]))
    if receipt.conflicting:
        item |= _attributes((_WARNING_REASON, [CONFLICTING_DUPLICATE]))
    return item


def _failed_item(receipt: Receipt) -> Json:
    assert receipt.reason is not None
    code = FAILURE_REASONS.get(receipt.reason, PROCESSING_FAILURE)
    reference = _reference(receipt) if receipt.sop_instance_uid else {}
    # An LO value has at most 64 characters (PS3.5 section 6.2).
    comment = f"part {receipt.position}: {receipt.reason.value}"[:64]
    return reference | _attributes((_FAILURE_REASON, [code]), (_ERROR_COMMENT, [comment]))


def _reference(receipt: Receipt) -> Json:
    return _attributes(
        (_REFERENCED_SOP_CLASS_UID, [receipt.sop_class_uid]),
        (_REFERENCED_SOP_INSTANCE_UID, [receipt.sop_instance_uid]),
    )


def _attributes(*attributes: tuple[tuple[str, str], list[Any]]) -> Json:
    return {
        tag: {"vr": vr} | ({"Value": value} if value else {}) for (tag, vr), value in attributes
    }
