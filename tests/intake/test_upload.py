"""Archive upload: what unpacks is stored, what does not is told and kept."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests

from slicewatch import inventory
from slicewatch.storage import QUARANTINE, Storage
from tests.doors import BASE, Engine, body_of
from tests.intake.senders import (
    BOUNDARY,
    a_study,
    error_of,
    quarantined,
    related,
    upload,
    zipped,
)


def test_an_archive_is_stored_study_by_study(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    other, more = a_study(seed + 1_000_000)
    entries = {f"{n}.dcm": data for n, data in enumerate([*files.values(), *more.values()])}
    response = call("studies_upload", upload(zipped(entries)))
    assert response.status_code == 200
    said = body_of(response)
    assert said["entries"] == 6
    assert said["rejected"] == []
    assert {one["study"]: one["objects"] for one in said["studies"]} == {study: 3, other: 3}
    for one in (study, other):
        assert len(inventory.received(storage, one)) == 3
        assert engine.runtime_status(one) in ("PENDING", "RUNNING")


def test_an_archive_in_a_form_is_stored(call: Any, storage: Storage, seed: int) -> None:
    study, files = a_study(seed)
    prepared = requests.Request(
        "POST",
        f"{BASE}/studies",
        data={"comment": "from the portal"},
        files={"file": ("study.zip", zipped(files), "application/zip")},
    ).prepare()
    assert isinstance(prepared.body, bytes)
    content_type = prepared.headers["Content-Type"]
    assert isinstance(content_type, str)
    response = call("studies_upload", upload(prepared.body, content_type))
    assert response.status_code == 200
    assert len(inventory.received(storage, study)) == 3


def test_bad_entries_are_reported_by_number_and_the_good_ones_stored(
    call: Any, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed, 1)
    bad = b"not DICOM " + uuid.uuid4().bytes
    entries = {"DOE^JANE.txt": bad, "../up.dcm": b"x", "inner.zip": zipped({"a": b""}), **files}
    response = call("studies_upload", upload(zipped(entries)))
    assert response.status_code == 202
    said = body_of(response)
    assert [(one["entry"], one["detail"]) for one in said["rejected"]][1:] == [
        (2, "its name leads out of the archive"),
        (3, "an archive inside the archive"),
    ]
    assert said["rejected"][0]["reason"] == "not a DICOM file"
    assert b"DOE" not in response.get_body()
    assert storage.read(QUARANTINE, said["rejected"][0]["quarantine"]) == bad
    assert len(inventory.received(storage, study)) == 1


def test_an_archive_with_an_entry_that_does_not_unpack_is_kept_whole(
    call: Any, storage: Storage, seed: int
) -> None:
    _, files = a_study(seed, 1)
    body = bytearray(zipped({"damaged": uuid.uuid4().bytes * 9, **files}))
    body[body.index(b"damaged") + 12] ^= 0xFF
    response = call("studies_upload", upload(bytes(body)))
    assert response.status_code == 202
    assert body_of(response)["rejected"][0]["quarantine"] == "with its archive"
    assert quarantined(storage, bytes(body))


def test_a_bomb_is_refused_whole_and_kept(call: Any, storage: Storage, seed: int) -> None:
    study, files = a_study(seed)
    bomb = zipped({**files, "bomb": bytes(100 << 20)})
    response = call("studies_upload", upload(bomb))
    assert response.status_code == 413
    assert error_of(response)["code"] == "archive-too-large"
    assert not inventory.received(storage, study)
    assert quarantined(storage, bomb)


def test_what_is_no_archive_is_told_and_kept(call: Any, storage: Storage) -> None:
    body = b"no zip file " + uuid.uuid4().bytes
    response = call("studies_upload", upload(body))
    assert response.status_code == 400
    assert error_of(response)["code"] == "bad-archive"
    assert quarantined(storage, body)


def test_an_archive_without_dicom_is_told(call: Any) -> None:
    response = call("studies_upload", upload(zipped({"readme.txt": b"hello"})))
    assert response.status_code == 400
    assert error_of(response)["code"] == "nothing-stored"
    assert body_of(response)["rejected_entries"] == 1


@pytest.mark.parametrize("content_type", ["text/plain", "", "image/png"])
def test_another_media_type_is_told_and_kept(
    call: Any, storage: Storage, content_type: str
) -> None:
    body = zipped({"a": uuid.uuid4().bytes})
    response = call("studies_upload", upload(body, content_type))
    assert response.status_code == 415
    assert error_of(response)["code"] == "wrong-media-type"
    assert quarantined(storage, body)


def test_a_form_without_a_file_is_told(call: Any) -> None:
    body = related(b"x", part_type='text/plain\r\nContent-Disposition: form-data; name="a"')
    response = call("studies_upload", upload(body, f"multipart/form-data; boundary={BOUNDARY}"))
    assert response.status_code == 400
    assert error_of(response)["code"] == "bad-form"
