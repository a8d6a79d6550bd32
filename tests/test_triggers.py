"""The doors: what is sent is stored and reviewed, and each fault has its answer."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import azure.functions as func
import pydicom
import pytest
import requests
from azure.storage.blob import BlobServiceClient
from dicomweb_client import DICOMwebClient

from slicewatch import closings, inventory, unfinished
from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.records import Coverage, Review, StudyStatus
from slicewatch.settings import Settings
from slicewatch.storage import DROPBOX, INCOMING, QUARANTINE, Storage
from tests import studies
from tests.azurite import Azurite
from tests.doors import BASE, Bridge, Engine, body_of, function_of, request, running_engine

ROOT = Path(__file__).resolve().parent.parent
BOUNDARY = "a-boundary"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    yield from running_engine()


@pytest.fixture(autouse=True)
def app(
    settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The app's settings and storage are the tests'."""
    monkeypatch.setattr(app_settings, "current", lambda: settings)
    monkeypatch.setattr(app_storage, "current", lambda: storage)
    return monkeypatch


@pytest.fixture
def call(engine: Engine) -> Any:
    """Calls a door by its name: ``call("stow_store", request)``."""

    def calling(name: str, argument: Any) -> Any:
        module = __import__(f"triggers.{name}", fromlist=[name])
        return function_of(module)(argument, engine.client)

    return calling


def related(*objects: bytes, part_type: str = "application/dicom") -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: {part_type}\r\n\r\n".encode()
    return b"".join(head + one + b"\r\n" for one in objects) + f"--{BOUNDARY}--".encode()


def stow(body: bytes, study: str = "", content_type: str = RELATED) -> func.HttpRequest:
    path = f"dicomweb/studies/{study}".rstrip("/")
    route = {"study": study} if study else {}
    return request("POST", path, body, headers={"Content-Type": content_type}, **route)


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def upload(body: bytes, content_type: str = "application/zip") -> func.HttpRequest:
    return request("POST", "studies", body, headers={"Content-Type": content_type})


def quarantined(storage: Storage, data: bytes) -> bool:
    return any(
        storage.read(QUARANTINE, blob.name) == data
        for blob in storage.listing(QUARANTINE)
        if blob.size == len(data)
    )


def error_of(response: func.HttpResponse) -> dict[str, str]:
    """The error of a response, which is of the one form that all doors have."""
    error: dict[str, str] = body_of(response)["error"]
    assert error.keys() == {"code", "message", "remedy"}
    assert all(error.values())
    assert response.mimetype == "application/json"
    return error


def a_study(seed: int, slices: int = 3) -> tuple[str, dict[str, bytes]]:
    return studies.new_uid("study", seed), studies.study_bytes(slices, seed=seed)


# --- store --------------------------------------------------------------------------------------


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


# --- the study's orchestration ------------------------------------------------------------------


def test_one_that_collects_is_left_alone(call: Any, engine: Engine, seed: int) -> None:
    study, files = a_study(seed)
    for data in files.values():
        assert call("stow_store", stow(related(data))).status_code == 200
    assert engine.events(study) == []


def test_one_that_has_published_is_told_of_late_slices(
    call: Any, engine: Engine, seed: int
) -> None:
    study, files = a_study(seed, 2)
    first, late = files.values()
    call("stow_store", stow(related(first)))
    engine.publish(study)
    call("stow_store", stow(related(late)))
    assert engine.events(study) == ["late"]


def test_one_that_has_ended_is_replaced(call: Any, engine: Engine, seed: int) -> None:
    study, files = a_study(seed, 2)
    first, late = files.values()
    call("stow_store", stow(related(first)))
    engine.publish(study)
    engine.end(study)
    call("stow_store", stow(related(late)))
    assert engine.runtime_status(study) in ("PENDING", "RUNNING")


def test_starting_one_twice_is_harmless(engine: Engine, settings: Settings, seed: int) -> None:
    from triggers.admission import start_review

    study, _ = a_study(seed)
    start_review(engine.client, settings, study)
    engine.publish(study)
    start_review(engine.client, settings, study)
    assert engine.wait(study, bool)["published"], "the one that runs was not replaced"


def test_with_the_engine_away_slices_are_stored_and_left_to_the_sweep(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    from triggers import stow_store

    study, files = a_study(seed)
    away = df.SyncDurableFunctionsClient(json.dumps({"rpcBaseUrl": "127.0.0.1:1"}))
    response = function_of(stow_store)(stow(related(*files.values())), away)
    assert response.status_code == 200
    assert engine.runtime_status(study) is None
    call("sweep", None)
    assert engine.runtime_status(study) in ("PENDING", "RUNNING")


def test_with_storage_away_a_sender_is_told_to_come_again(
    call: Any, app: pytest.MonkeyPatch, settings: Settings, seed: int
) -> None:
    nowhere = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint=http://127.0.0.1:1/a;"
    away = Storage(dataclasses.replace(settings, storage=nowhere, storage_timeout_s=1))
    app.setattr(app_storage, "current", lambda: away)
    response = call("stow_store", stow(related(*a_study(seed)[1].values())))
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert error_of(response)["code"] == "storage-unavailable"


# --- upload -------------------------------------------------------------------------------------


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
    response = call("studies_upload", upload(prepared.body, prepared.headers["Content-Type"]))
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


# --- dropbox ------------------------------------------------------------------------------------


def drop(storage: Storage, data: bytes) -> Any:
    """Put a blob into the dropbox; the trigger's argument for it."""
    name = f"ward 3/{uuid.uuid4()}"
    storage.write(DROPBOX, name, data)
    return func.blob.InputStream(data=data, name=f"{DROPBOX}/{name}")


def name_of(blob: Any) -> str:
    return str(blob.name).removeprefix(f"{DROPBOX}/")


@pytest.mark.parametrize("archived", [False, True])
def test_a_dropped_file_is_stored_and_removed(
    call: Any, engine: Engine, storage: Storage, seed: int, archived: bool
) -> None:
    study, files = a_study(seed, 1)
    blob = drop(storage, zipped(files) if archived else next(iter(files.values())))
    call("dropbox", blob)
    assert len(inventory.received(storage, study)) == 1
    assert storage.info(DROPBOX, name_of(blob)) is None
    assert engine.runtime_status(study) in ("PENDING", "RUNNING")


def test_an_event_that_is_repeated_is_harmless(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed, 1)
    blob = drop(storage, next(iter(files.values())))
    call("dropbox", blob)
    engine.publish(study)
    call("dropbox", blob)
    assert engine.events(study) == []
    assert len(inventory.received(storage, study)) == 1


@pytest.mark.parametrize("make", [lambda: b"not DICOM " + uuid.uuid4().bytes,
                                  lambda: b"PK\x03\x04" + uuid.uuid4().bytes])  # fmt: skip
def test_a_bad_dropped_file_ends_in_quarantine(call: Any, storage: Storage, make: Any) -> None:
    data = make()
    blob = drop(storage, data)
    call("dropbox", blob)
    assert quarantined(storage, data)
    assert storage.info(DROPBOX, name_of(blob)) is None


def test_a_file_that_is_still_empty_is_left_for_the_event_of_its_content(
    call: Any, storage: Storage
) -> None:
    blob = drop(storage, b"")
    call("dropbox", blob)
    assert storage.info(DROPBOX, name_of(blob)) is not None
    storage.delete(DROPBOX, name_of(blob))


def test_a_file_that_is_replaced_while_it_is_read_is_not_removed(
    call: Any, storage: Storage, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = a_study(seed, 2)
    first, second = files.values()
    blob = drop(storage, first)
    read = storage.read

    def replaced_after(container: str, name: str) -> bytes:
        data = read(container, name)
        if container == DROPBOX:
            storage.write(DROPBOX, name, second)
        return data

    monkeypatch.setattr(storage, "read", replaced_after)
    call("dropbox", blob)
    monkeypatch.undo()
    assert storage.read(DROPBOX, name_of(blob)) == second
    storage.delete(DROPBOX, name_of(blob))


# --- close and status ---------------------------------------------------------------------------


def close(study: str, body: Any = None) -> func.HttpRequest:
    data = b"" if body is None else json.dumps(body).encode()
    return request("POST", f"studies/{study}/close", data, study=study)


def test_a_close_is_noted_and_told_to_the_orchestration(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    response = call("study_close", close(study))
    assert response.status_code == 202
    assert body_of(response) == {"study": study, "closed": True, "received": 3, "missing": 0}
    assert closings.expected_instances(storage, study) == ()
    assert engine.events(study) == ["close"]


def test_a_close_with_a_list_tells_what_is_missing(call: Any, storage: Storage, seed: int) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    response = call("study_close", close(study, {"instances": [*files, "1.2.3"]}))
    assert body_of(response)["missing"] == 1
    assert set(closings.expected_instances(storage, study) or ()) == {*files, "1.2.3"}


def test_a_close_says_what_was_screened_at_the_edge_and_that_is_expected_too(
    call: Any, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    said = {"outcome": "screened", "whereabouts": "held", "instances": ["1.2.3"], "model": "m@1"}
    response = call("study_close", close(study, {"screened_at_edge": [said]}))
    assert body_of(response)["missing"] == 1
    [stored] = closings.screened_at_edge(storage, study)
    assert (stored.model, stored.instances) == ("m@1", ("1.2.3",))


def test_a_close_after_publication_has_the_review_made_again(
    call: Any, engine: Engine, seed: int
) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    engine.publish(study)
    call("study_close", close(study, {"instances": [*files, "1.2.3"]}))
    assert engine.events(study) == ["late", "close"]
    engine.end(study)
    call("study_close", close(study))
    assert engine.runtime_status(study) in ("PENDING", "RUNNING")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 100_000,
        b"\xff",
        b'["1.2"]',
        b'{"instance": ["1.2"]}',
        b'{"instances": "1.2"}',
        b'{"instances": ["1.2", 3]}',
        b'{"instances": ["1.2/../3"]}',
        b'{"instances": [], "screened_at_edge": {}}',
        b'{"screened_at_edge": [{"outcome": "flagged", "whereabouts": "held", "instances": []}]}',
    ],
)
def test_a_bad_body_of_a_close_is_told(call: Any, seed: int, body: bytes) -> None:
    study = studies.new_uid("study", seed)
    response = call("study_close", request("POST", "x", body, study=study))
    assert response.status_code == 400
    assert error_of(response)["code"] == "bad-body"


@pytest.mark.parametrize("door", ["study_close", "study_status"])
def test_an_unknown_study_is_told(call: Any, seed: int, door: str) -> None:
    response = call(door, request("POST", "x", study=studies.new_uid("study", seed)))
    assert response.status_code == 404
    assert error_of(response)["code"] == "unknown-study"


def a_review(study: str, content_digest: str = "") -> Review:
    return Review(
        study_instance_uid=study,
        generation=2,
        status=StudyStatus.NOT_FLAGGED,
        lanes=(),
        coverage=Coverage(received_objects=3, images=3, screened=3),
        findings=(),
        integrity=(),
        models=(),
        policy_name="default",
        policy_sha256="0" * 64,
        content_digest=content_digest,
        supersedes=1,
    )


def test_the_status_is_the_orchestrations_with_the_latest_review(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    engine.publish(study)
    inventory.write_review(storage, a_review(study))
    said = body_of(call("study_status", request("GET", "x", study=study)))
    assert said["study"] == study
    assert said["status"] == "flagged"
    assert said["progress"]["published"]
    assert said["orchestration"]["instance_id"] == inventory.instance_id(study)
    assert said["orchestration"]["runtime_status"] == "running"
    assert said["review"]["generation"] == 2
    assert said["review"]["coverage"]["screened"] == 3
    assert said["review"]["disclaimer"].startswith("not a medical device")


def test_a_study_without_orchestration_has_the_status_of_its_review(
    call: Any, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    storage.write(INCOMING, f"{study}/1/2.dcm", next(iter(files.values())))
    said = body_of(call("study_status", request("GET", "x", study=study)))
    assert (said["status"], said["review"], said["orchestration"]) == ("receiving", None, None)
    inventory.write_review(storage, a_review(study))
    said = body_of(call("study_status", request("GET", "x", study=study)))
    assert said["status"] == "not_flagged"


# --- sweep --------------------------------------------------------------------------------------


def test_the_sweep_starts_each_unfinished_study_that_nothing_works_on(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    lost, running, ended = (studies.new_uid("sweep", seed, n) for n in range(3))
    for study in (lost, running, ended):
        unfinished.open_study(storage, study)
    from triggers.admission import start_review

    for study in (running, ended):
        start_review(engine.client, app_settings.current(), study)
    engine.end(ended)
    call("sweep", None)
    assert engine.runtime_status(lost) in ("PENDING", "RUNNING")
    assert engine.runtime_status(ended) in ("PENDING", "RUNNING")
    assert engine.events(running) == []


def test_the_sweep_tells_a_waiting_orchestration_only_of_what_its_review_lacks(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed, 2)
    call("stow_store", stow(related(*files.values())))
    engine.publish(study)
    content = inventory.digest(inventory.content_of(inventory.received(storage, study)), ())
    inventory.write_review(storage, a_review(study, content))
    call("sweep", None)
    assert engine.events(study) == []
    late = studies.to_bytes(studies.ct_image(seed=seed, number=9))
    storage.write(INCOMING, f"{study}/1/9.dcm", late, metadata={"sha256": "9"})
    call("sweep", None)
    assert engine.events(study)[-1] == "late"


def test_a_study_that_fails_again_and_again_is_tried_at_growing_intervals(
    call: Any, engine: Engine, storage: Storage, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, files = a_study(seed, 1)
    call("stow_store", stow(related(*files.values())))
    engine.fail(study)
    told = body_of(call("study_status", request("GET", "x", study=study)))
    assert (told["status"], told["failure"]) == ("failed", None), "no sweep has seen it"

    call("sweep", None)
    call("sweep", None)
    assert engine.runtime_status(study) == "FAILED", "its pause is not over"
    told = body_of(call("study_status", request("GET", "x", study=study)))["failure"]
    pauses = [_pause(told)]
    assert told["attempts"] == 1, "one failure is counted once"
    from triggers import health

    assert body_of(function_of(health)(request("GET", "x")))["failed_studies"] >= 1

    with monkeypatch.context() as later:
        later.setattr(unfinished.Failure, "due", lambda self, _: self.last)
        call("sweep", None)
    assert engine.runtime_status(study) in ("PENDING", "RUNNING"), "it is not forgotten"
    engine.fail(study)
    call("sweep", None)
    told = body_of(call("study_status", request("GET", "x", study=study)))["failure"]
    assert told["attempts"] == 2
    pauses.append(_pause(told))
    assert pauses == [60, 120]


def _pause(failure: dict[str, Any]) -> float:
    last, following = (datetime.fromisoformat(failure[key]) for key in ("last", "next_attempt"))
    assert last.tzinfo is not None
    return (following - last).total_seconds()


def test_a_study_that_went_well_after_a_failure_begins_to_count_anew(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    published, settled = (studies.new_uid("went-well", seed, n) for n in range(2))
    now = datetime.now(UTC)
    for study in (published, settled):
        unfinished.note_failure(storage, study, None, now)
    unfinished.open_study(storage, published)
    from triggers.admission import start_review

    start_review(engine.client, app_settings.current(), published)
    engine.publish(published)
    call("sweep", None)
    assert unfinished.failure_of(storage, published) is None
    assert unfinished.failure_of(storage, settled) is None


def test_what_arrives_of_a_failed_study_starts_it_at_once(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed, 2)
    first, second = files.values()
    call("stow_store", stow(related(first)))
    engine.fail(study)
    call("sweep", None)
    call("stow_store", stow(related(second)))
    assert engine.runtime_status(study) in ("PENDING", "RUNNING")


def test_the_sweep_admits_what_was_left_in_the_dropbox(
    call: Any, storage: Storage, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from triggers import sweep

    study, files = a_study(seed, 1)
    drop(storage, next(iter(files.values())))
    call("sweep", None)
    assert not inventory.received(storage, study), "its own event comes first"
    monkeypatch.setattr(sweep, "_DROP_IS_STALE", timedelta(seconds=-1))
    call("sweep", None)
    assert len(inventory.received(storage, study)) == 1


# --- health -------------------------------------------------------------------------------------


def test_health_says_which_check_failed_and_no_more(
    app: pytest.MonkeyPatch, settings: Settings
) -> None:
    from slicewatch import model_registry, triage
    from triggers import health

    app.setattr(model_registry, "current", lambda: None)
    app.setattr(triage, "current", lambda: None)
    response = function_of(health)(request("GET", "health"))
    assert response.status_code == 200
    assert body_of(response)["status"] == "ready"

    def broken() -> None:
        raise ValueError("AccountKey=secret")

    app.setattr(triage, "current", broken)
    response = function_of(health)(request("GET", "health"))
    assert response.status_code == 503
    checks = body_of(response)["checks"]
    assert checks == {"settings": "ok", "storage": "ok", "models": "ok", "policy": "failed"}
    assert b"secret" not in response.get_body()


# --- registration -------------------------------------------------------------------------------

_INDEX = """
import json, sys
import azure.durable_functions as df
import azure.functions
from triggers import (
    dropbox, health, stow_store, studies_upload, study_close, study_status, sweep,
)
app = df.DFApp()
for module in (
    dropbox, health, stow_store, studies_upload, study_close, study_status, sweep,
):
    app.register_functions(module.bp)
bindings = {
    one.get_function_name(): json.loads(one.get_function_json())["bindings"]
    for one in app.get_functions()
}
heavy = sorted({"numpy", "pydicom", "onnxruntime", "azure.storage.blob", "PIL"} & set(sys.modules))
print(json.dumps({"bindings": bindings, "heavy": heavy}))
"""


def indexed(**environ: str) -> dict[str, Any]:
    """The doors as a fresh process registers them."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLICEWATCH_")}
    done = subprocess.run(
        [sys.executable, "-c", _INDEX],
        cwd=ROOT,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_doors_register_with_their_settings_and_load_nothing_heavy(azurite: Azurite) -> None:
    found = indexed(AzureWebJobsStorage=azurite.connection_string)
    assert found["heavy"] == []
    triggers = {
        name: next(one for one in bindings if one["type"].endswith("Trigger"))
        for name, bindings in found["bindings"].items()
    }
    assert triggers["stow_store"]["route"] == "dicomweb/studies/{study?}"
    assert triggers["dropbox"]["path"] == "dropbox/{name}"
    assert triggers["dropbox"]["source"] == "LogsAndContainerScan"
    assert triggers["dropbox"]["connection"] == "AzureWebJobsStorage"
    assert triggers["sweep"]["schedule"] == "0 */5 * * * *"


def test_app_settings_say_how_drops_are_noticed_and_when_the_sweep_runs() -> None:
    found = indexed(
        SLICEWATCH_STORAGE="UseDevelopmentStorage=true",
        SLICEWATCH_DROPBOX_SOURCE="EventGrid",
        SLICEWATCH_SWEEP_SCHEDULE="0 0 * * * *",
    )["bindings"]
    triggers = {
        name: next(one for one in found[name] if one["type"].endswith("Trigger"))
        for name in ("dropbox", "sweep")
    }
    assert triggers["dropbox"]["source"] == "EventGrid"
    assert triggers["dropbox"]["connection"] == "SLICEWATCH_STORAGE"
    assert triggers["sweep"]["schedule"] == "0 0 * * * *"


def test_what_is_dropped_by_another_client_is_admitted_the_same(
    call: Any, azurite: Azurite, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed, 1)
    name = f"{uuid.uuid4()}.dcm"
    data = next(iter(files.values()))
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    with service, service.get_container_client(DROPBOX) as container:
        container.upload_blob(name, data)
    call("dropbox", func.blob.InputStream(data=data, name=f"{DROPBOX}/{name}"))
    assert len(inventory.received(storage, study)) == 1
