"""Objects that arrive are kept byte for byte, whatever they are and however often they come."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from slicewatch import inventory, unfinished
from slicewatch.arrival import Intake, Offered, Receipt
from slicewatch.limits import Rejected
from slicewatch.records import Reason
from slicewatch.settings import Settings
from slicewatch.storage import INCOMING, QUARANTINE, REVIEWS, Storage, StorageUnavailable
from tests import studies


@pytest.fixture
def intake(storage: Storage, settings: Settings) -> Intake:
    return Intake(storage, settings, "test")


def one(intake: Intake, data: bytes) -> Receipt:
    return intake.receive(Offered(data))


def test_an_object_is_stored_under_its_uids_unchanged(
    intake: Intake, storage: Storage, seed: int
) -> None:
    dataset = studies.ct_image(seed=seed)
    data = studies.to_bytes(dataset)
    receipt = one(intake, data)
    name = "/".join((dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID))
    assert receipt == Receipt(
        1,
        len(data),
        dataset.StudyInstanceUID,
        dataset.SeriesInstanceUID,
        dataset.SOPInstanceUID,
        dataset.SOPClassUID,
        sha256=hashlib.sha256(data).hexdigest(),
        blob=f"{name}.dcm",
    )
    assert storage.read(INCOMING, receipt.blob) == data
    info = storage.info(INCOMING, receipt.blob)
    assert info is not None
    assert info.metadata["sha256"] == hashlib.sha256(data).hexdigest()
    assert info.metadata["source"] == "test"
    assert info.metadata["received"].endswith("+00:00")


def test_a_request_notes_what_it_brought(intake: Intake, storage: Storage, seed: int) -> None:
    sent = [studies.to_bytes(studies.ct_image(seed=seed, number=n)) for n in (1, 2)]
    receipts = intake.receive_all([Offered(sent[0]), Offered(b"no DICOM"), Offered(sent[1])])
    study = receipts[0].study_instance_uid
    (note,) = storage.listing(REVIEWS, f"{study}/arrived/")
    told = json.loads(storage.read(REVIEWS, note.name))
    assert told == [
        {"blob": one.blob, "sha256": one.sha256, "size": one.size}
        for one in (receipts[0], receipts[2])
    ]
    intake.receive_all([Offered(sent[0]), Offered(sent[1])])
    assert list(storage.listing(REVIEWS, f"{study}/arrived/")) == [note], "repeated, it is one"


def test_the_same_bytes_again_change_nothing(intake: Intake, storage: Storage, seed: int) -> None:
    data = studies.to_bytes(studies.ct_image(seed=seed))
    first = one(intake, data)
    before = storage.info(INCOMING, first.blob)
    again = one(intake, data)
    assert again == dataclasses.replace(first, duplicate=True)
    assert storage.info(INCOMING, first.blob) == before


def test_other_bytes_under_one_instance_uid_are_both_kept(
    intake: Intake, storage: Storage, seed: int
) -> None:
    original = studies.to_bytes(studies.ct_image(seed=seed))
    altered = studies.to_bytes(studies.ct_image(seed=seed, SeriesDescription="altered"))
    first, other = one(intake, original), one(intake, altered)
    assert other.conflicting
    assert not other.duplicate
    digest = hashlib.sha256(altered).hexdigest()
    assert other.blob == first.blob.removesuffix(".dcm") + f"~{digest[:16]}.dcm"
    assert storage.read(INCOMING, first.blob) == original
    assert storage.read(INCOMING, other.blob) == altered
    assert one(intake, altered) == dataclasses.replace(other, duplicate=True)
    assert not one(intake, original).conflicting


def test_a_blob_without_metadata_is_compared_by_its_bytes(
    intake: Intake, storage: Storage, seed: int
) -> None:
    data = studies.to_bytes(studies.ct_image(seed=seed))
    name = one(intake, data).blob
    storage.write(INCOMING, name, data)
    assert one(intake, data).duplicate


@pytest.mark.parametrize("make", [studies.structured_report, studies.rt_structure_set])
def test_objects_that_are_no_images_are_stored(
    intake: Intake, storage: Storage, seed: int, make: object
) -> None:
    data = studies.to_bytes(make(seed=seed))  # type: ignore[operator]
    assert storage.read(INCOMING, one(intake, data).blob) == data


def bad_objects() -> Iterator[tuple[str, bytes, Reason]]:
    good = studies.to_bytes(studies.ct_image(seed=1))
    yield "text", b"this is not DICOM", Reason.NOT_DICOM
    yield "empty", b"", Reason.NOT_DICOM
    yield "truncated", good[:-2000], Reason.TRUNCATED
    for name, uid in (("separators", "1.2/../../3"), ("long", "1." + "2" * 63), ("missing", "")):
        # pydicom writes no such UID, so it takes the place of another one.
        placeholder = "9." + "7" * max(len(uid) - 2, 6)
        with warnings.catch_warnings(action="ignore"):
            data = studies.to_bytes(studies.ct_image(seed=1, SeriesInstanceUID=placeholder))
        made = uid.encode().ljust(len(placeholder) + len(placeholder) % 2, b"\0")
        padded = placeholder.encode().ljust(len(made), b"\0")
        assert padded in data
        yield f"uid-{name}", data.replace(padded, made), Reason.BAD_UID


BAD_OBJECTS = {name: (data, reason) for name, data, reason in bad_objects()}


@pytest.mark.parametrize("name", BAD_OBJECTS)
def test_a_bad_object_is_in_quarantine_with_its_reason(
    intake: Intake, storage: Storage, name: str
) -> None:
    data, reason = BAD_OBJECTS[name]
    receipt = one(intake, data)
    assert receipt.reason is reason
    assert not receipt.blob
    assert storage.read(QUARANTINE, receipt.quarantine) == data
    assert receipt.quarantine.endswith(f"/{hashlib.sha256(data).hexdigest()}.bin")
    info = storage.info(QUARANTINE, receipt.quarantine)
    assert info is not None
    assert info.metadata["reason"].startswith(reason.value)
    assert info.metadata["source"] == "test"


def test_an_object_over_the_bound_is_rejected(
    storage: Storage, settings: Settings, seed: int
) -> None:
    small = dataclasses.replace(settings, max_object_bytes=5000)
    receipt = one(Intake(storage, small, "test"), studies.to_bytes(studies.ct_image(seed=seed)))
    assert receipt.reason is Reason.TOO_LARGE


def test_a_frame_over_the_pixel_bound_is_rejected_before_it_is_decoded(
    storage: Storage, settings: Settings, seed: int
) -> None:
    small = dataclasses.replace(settings, max_frame_pixels=4096)
    receipt = one(Intake(storage, small, "test"), studies.to_bytes(studies.ct_image(seed=seed)))
    assert receipt.reason is Reason.TOO_LARGE


def test_an_object_of_another_study_than_the_requests_is_rejected(
    storage: Storage, settings: Settings, seed: int
) -> None:
    dataset = studies.ct_image(seed=seed)
    data = studies.to_bytes(dataset)
    receipt = one(Intake(storage, settings, "test", "1.2.3"), data)
    assert receipt.reason is Reason.WRONG_STUDY
    assert receipt.sop_instance_uid == dataset.SOPInstanceUID
    assert storage.read(QUARANTINE, receipt.quarantine) == data


def test_an_object_refused_unread_is_quarantined_only_when_it_has_bytes(
    intake: Intake, storage: Storage
) -> None:
    refused = Rejected(Reason.REFUSED_ENTRY, "a link")
    kept = intake.receive(Offered(b"target", refused))
    assert storage.read(QUARANTINE, kept.quarantine) == b"target"
    assert intake.receive(Offered(b"", refused)).quarantine == ""


def test_receipts_come_in_the_order_of_the_objects(
    intake: Intake, storage: Storage, seed: int
) -> None:
    files = studies.study_bytes(20, seed=seed, others=True)
    objects = [*files.values(), b"not DICOM", *files.values()]
    receipts = intake.receive_all(map(Offered, objects))
    assert [receipt.position for receipt in receipts] == list(range(1, len(objects) + 1))
    assert [receipt.sop_instance_uid for receipt in receipts] == [*files, "", *files]
    study = receipts[0].study_instance_uid
    assert len(inventory.received(storage, study)) == len(files)


def test_of_one_object_sent_many_times_at_once_one_is_stored(
    intake: Intake, storage: Storage, seed: int
) -> None:
    data = studies.to_bytes(studies.ct_image(seed=seed))
    receipts = intake.receive_all([Offered(data)] * 16)
    assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * 15
    assert not any(receipt.conflicting for receipt in receipts)
    assert len(inventory.received(storage, receipts[0].study_instance_uid)) == 1


def test_objects_are_read_only_as_fast_as_they_are_stored(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(20 << 20)
    read: list[int] = []
    release = threading.Event()

    def objects() -> Iterator[Offered]:
        for count in range(8):
            read.append(count)
            yield Offered(large)

    def store(_: Intake, offered: Offered, position: int = 1) -> Receipt:
        assert release.wait(20)
        return Receipt(position, len(offered.data))

    monkeypatch.setattr(Intake, "receive", store)
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(intake.receive_all, objects())
        with pytest.raises(TimeoutError):
            receiving.result(timeout=0.3)
        # 64 MiB are three such objects; the fourth was read and waits.
        assert len(read) == 4
        release.set()
        assert len(receiving.result(timeout=20)) == 8


def test_a_study_is_marked_unfinished_before_its_first_object_is_stored(
    storage: Storage, settings: Settings, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = studies.ct_image(seed=seed)

    def crash(container: str, *_: object, **__: object) -> None:
        raise KeyboardInterrupt(container)

    opened: list[str] = []
    monkeypatch.setattr(unfinished, "open_study", lambda _, study: opened.append(study))
    monkeypatch.setattr(storage, "write", crash)
    with pytest.raises(KeyboardInterrupt, match=INCOMING):
        one(Intake(storage, settings, "test"), studies.to_bytes(dataset))
    assert opened == [dataset.StudyInstanceUID]


def test_when_storage_goes_away_the_rest_is_not_tried(
    storage: Storage, settings: Settings, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def objects() -> Iterator[Offered]:
        for count, data in enumerate(studies.study_bytes(60, seed=seed).values()):
            read.append(count)
            yield Offered(data)

    def gone(*_: object, **__: object) -> None:
        raise StorageUnavailable("storage does not answer")

    monkeypatch.setattr(storage, "write", gone)
    with pytest.raises(StorageUnavailable):
        Intake(storage, settings, "test").receive_all(objects())
    assert len(read) < 30


def test_no_text_of_a_receipt_or_of_quarantine_tells_the_patient(
    intake: Intake, storage: Storage, seed: int
) -> None:
    data = studies.to_bytes(studies.ct_image(seed=seed, PatientName="DOE^JANE"))[:-500]
    receipt = one(intake, data)
    info = storage.info(QUARANTINE, receipt.quarantine)
    assert info is not None
    assert "DOE" not in repr(receipt) + repr(info)
