"""STOW-RS store: what is sent is stored, and each fault has its answer."""

from __future__ import annotations

import dataclasses
import gzip
import io
import uuid
from functools import partial
from typing import Any

import pydicom
import pytest
import requests
from dicomweb_client import DICOMwebClient

from slicewatch import inventory, unfinished
from slicewatch import settings as app_settings
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from tests import studies
from tests.doors import BASE, Bridge, Engine, body_of, function_of, request
from tests.intake.senders import (
    BOUNDARY,
    a_study,
    error_of,
    quarantined,
    related,
    stow,
    upload,
)


@pytest.mark.parametrize("naming_the_study", [False, True])
def test_a_dicomweb_client_stores_a_study(
    engine: Engine, storage: Storage, seed: int, naming_the_study: bool
) -> None:
    from triggers import stow_store

    session = requests.Session()
    session.mount("https://", Bridge(partial(function_of(stow_store), client=engine.client)))
    client = DICOMwebClient(f"{BASE}/dicomweb", session=session)
    series = [pydicom.dcmread(io.BytesIO(data)) for data in a_study(seed)[1].values()]
    study = series[0].StudyInstanceUID
    said = client.store_instances(series, study if naming_the_study else None)
    assert [item.ReferencedSOPInstanceUID for item in said.ReferencedSOPSequence] == [
        slice_.SOPInstanceUID for slice_ in series
    ]
    assert said.RetrieveURL == f"{BASE}/dicomweb/studies/{study}"
    assert len(inventory.received(storage, study)) == 3
    assert unfinished.is_open(storage, study)
    assert engine.runtime_status(study) in ("PENDING", "RUNNING")


def test_storing_again_is_answered_alike(call: Any, storage: Storage, seed: int) -> None:
    study, files = a_study(seed)
    first = call("stow_store", stow(related(*files.values())))
    again = call("stow_store", stow(related(*files.values())))
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.get_body() == again.get_body()
    assert first.mimetype == "application/dicom+json"
    assert len(inventory.received(storage, study)) == 3


def test_a_bad_instance_does_not_keep_the_good_ones_out(
    call: Any, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    bad = b"not DICOM " + uuid.uuid4().bytes
    response = call("stow_store", stow(related(bad, *files.values())))
    assert response.status_code == 202
    said = pydicom.Dataset.from_json(body_of(response))
    assert len(said.ReferencedSOPSequence) == 3
    assert said.OtherFailuresSequence[0].FailureReason == 0xC000
    assert len(inventory.received(storage, study)) == 3
    assert quarantined(storage, bad)


def test_other_bytes_of_an_instance_are_stored_with_a_warning(
    call: Any, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed, 1)
    call("stow_store", stow(related(*files.values())))
    altered = studies.to_bytes(studies.ct_image(seed=seed, SeriesDescription="altered"))
    response = call("stow_store", stow(related(altered)))
    assert response.status_code == 202
    said = pydicom.Dataset.from_json(body_of(response))
    assert said.ReferencedSOPSequence[0].WarningReason == 0xB011
    assert len(inventory.received(storage, study)) == 2


def test_instances_of_another_study_than_the_urls_fail(
    call: Any, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    response = call("stow_store", stow(related(*files.values()), study="1.2.3"))
    assert response.status_code == 409
    said = pydicom.Dataset.from_json(body_of(response))
    assert [item.FailureReason for item in said.FailedSOPSequence] == [0xA901] * 3
    assert not inventory.received(storage, study)
    assert all(quarantined(storage, data) for data in files.values())


def test_a_part_of_another_media_type_fails(call: Any, storage: Storage) -> None:
    part = b"<dicom>" + uuid.uuid4().bytes
    response = call("stow_store", stow(related(part, part_type="application/dicom+xml")))
    assert response.status_code == 409
    said = pydicom.Dataset.from_json(body_of(response))
    assert said.OtherFailuresSequence[0].FailureReason == 0xC001
    assert quarantined(storage, part)


@pytest.mark.parametrize(
    ("content_type", "status", "code"),
    [
        ('multipart/related; type="application/dicom"', 400, "bad-multipart"),
        ('multipart/related; type="application/dicom"; boundary=other', 400, "bad-multipart"),
        (f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}', 415, None),
        (f"multipart/form-data; boundary={BOUNDARY}", 415, None),
        ("application/dicom", 415, None),
        ("", 415, None),
    ],
)
def test_a_body_that_is_not_what_it_should_be_is_told_and_kept(
    call: Any, storage: Storage, content_type: str, status: int, code: str | None
) -> None:
    body = related(b"some bytes " + uuid.uuid4().bytes)
    response = call("stow_store", stow(body, content_type=content_type))
    assert response.status_code == status
    assert error_of(response)["code"] == (code or "wrong-media-type")
    assert quarantined(storage, body)


@pytest.mark.parametrize("door", ["stow_store", "studies_upload", "study_close"])
def test_a_compressed_body_is_refused_with_the_remedy(call: Any, seed: int, door: str) -> None:
    study, files = a_study(seed, 1)
    call("stow_store", stow(related(*files.values())))
    content_type = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    headers = {"Content-Type": content_type, "Content-Encoding": "gzip"}
    body = gzip.compress(related(*files.values()))
    response = call(door, request("POST", "x", body, headers=headers, study=study))
    assert response.status_code == 415
    assert error_of(response)["code"] == "content-encoding"
    assert "without Content-Encoding" in error_of(response)["remedy"]


def test_of_a_body_that_is_cut_nothing_is_stored(call: Any, storage: Storage, seed: int) -> None:
    study, files = a_study(seed)
    body = related(*files.values())[:-100]
    response = call("stow_store", stow(body))
    assert response.status_code == 400
    assert "does not close the body" in error_of(response)["message"]
    assert not inventory.received(storage, study)
    assert quarantined(storage, body)


@pytest.mark.parametrize("body", [b"", f"--{BOUNDARY}--".encode()])
def test_an_empty_body_is_told(call: Any, body: bytes) -> None:
    response = call("stow_store", stow(body))
    assert response.status_code == 400
    assert error_of(response)["code"] == "empty-body"


def test_a_body_over_the_bound_is_told(
    call: Any, app: pytest.MonkeyPatch, settings: Settings
) -> None:
    small = dataclasses.replace(settings, max_request_bytes=1024)
    app.setattr(app_settings, "current", lambda: small)
    for response in (
        call("stow_store", stow(related(bytes(2000)))),
        call("studies_upload", upload(bytes(2000))),
    ):
        assert response.status_code == 413
        assert "SLICEWATCH_MAX_REQUEST_BYTES" in error_of(response)["remedy"]


@pytest.mark.parametrize("study", ["..", "1.2/../3", "1" * 65, "a.b", "1..2"])
@pytest.mark.parametrize("door", ["stow_store", "study_close", "study_status"])
def test_a_study_that_is_no_uid_is_refused(call: Any, door: str, study: str) -> None:
    response = call(door, request("POST", f"x/{study}", b"body", study=study))
    assert response.status_code == 400
    assert error_of(response)["code"] == "bad-study-uid"
