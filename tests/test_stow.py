"""The response module of the Store transaction, as PS3.18 annex I has it."""

from __future__ import annotations

import pydicom
import pytest

from slicewatch import stow
from slicewatch.arrival import Receipt
from slicewatch.records import Reason

BASE = "https://pacs.example/api/dicomweb"
STORED = Receipt(1, 10, "1.2", "1.2.3", "1.2.3.4", "1.2.840.10008.5.1.4.1.1.2", blob="x")
CONFLICTING = Receipt(
    2, 10, "1.2", "1.2.3", "1.2.3.5", "1.2.840.10008.5.1.4.1.1.2", "y", False, True
)
MISMATCH = Receipt(
    3, 10, "1.9", "1.9.3", "1.9.3.5", "1.2.840.10008.5.1.4.1.1.2", reason=Reason.WRONG_STUDY
)
NOT_DICOM = Receipt(4, 10, reason=Reason.NOT_DICOM)


def module(*receipts: Receipt) -> pydicom.Dataset:
    return pydicom.Dataset.from_json(stow.response(receipts, BASE))


@pytest.mark.parametrize(
    ("receipts", "status"),
    [
        ([STORED], 200),
        ([STORED, CONFLICTING], 202),
        ([STORED, MISMATCH], 202),
        ([MISMATCH], 409),
        ([MISMATCH, NOT_DICOM], 409),
    ],
)
def test_the_status_code_says_whether_all_some_or_none_was_stored(
    receipts: list[Receipt], status: int
) -> None:
    assert stow.status_code(receipts) == status


def test_a_stored_instance_is_referenced_with_its_url() -> None:
    said = module(STORED)
    assert said.RetrieveURL == f"{BASE}/studies/1.2"
    (item,) = said.ReferencedSOPSequence
    assert item.ReferencedSOPClassUID == STORED.sop_class_uid
    assert item.ReferencedSOPInstanceUID == "1.2.3.4"
    assert item.RetrieveURL == f"{BASE}/studies/1.2/series/1.2.3/instances/1.2.3.4"
    assert "WarningReason" not in item
    assert "FailedSOPSequence" not in said
    assert "OtherFailuresSequence" not in said


def test_instances_of_several_studies_have_no_url_in_common() -> None:
    other = Receipt(2, 10, "1.7", "1.7.3", "1.7.4", STORED.sop_class_uid, blob="z")
    assert not module(STORED, other).RetrieveURL


def test_a_conflicting_instance_is_stored_with_a_warning() -> None:
    item = module(CONFLICTING).ReferencedSOPSequence[0]
    assert item.WarningReason == stow.CONFLICTING_DUPLICATE


def test_a_failed_instance_is_referenced_with_its_reason() -> None:
    said = module(MISMATCH)
    (item,) = said.FailedSOPSequence
    assert item.ReferencedSOPInstanceUID == "1.9.3.5"
    assert item.FailureReason == 0xA901
    assert item[0x00000902].value == "part 3: belongs to another study than the request names"
    assert "ReferencedSOPSequence" not in said


def test_what_has_no_uids_is_among_the_other_failures() -> None:
    (item,) = module(STORED, NOT_DICOM).OtherFailuresSequence
    assert item.FailureReason == 0xC000
    assert "ReferencedSOPInstanceUID" not in item


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_a_code_and_a_comment_that_fits_its_vr(reason: Reason) -> None:
    receipt = Receipt(12345, 10, reason=reason)
    (item,) = module(receipt).OtherFailuresSequence
    code = item.FailureReason
    assert code in (0x0110, 0x0122, 0xC122) or code >> 8 in (0xA7, 0xA9, 0xC0)
    assert len(item[0x00000902].value) <= 64
