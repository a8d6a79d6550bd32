"""Custody where it happens: doors and activities log what they did before they answer."""

from __future__ import annotations

import hashlib
import json
import socket
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.durable_functions as df
import azure.functions as func
import pytest
from durabletask.testing import InMemoryOrchestrationBackend
from durabletask.worker import TaskHubGrpcWorker

from activities import build_evidence, pack_evidence, plan_evidence
from orchestrators import export_evidence
from slicewatch import custody, worklist
from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.evidence_check import check
from slicewatch.evidence_files import Bundle
from slicewatch.records import Lane, Reason
from slicewatch.settings import Settings
from slicewatch.storage import CUSTODY, QUARANTINE, Storage, StorageUnavailable
from slicewatch.worklist import Item, Reader
from tests.custody_study import slices
from tests.doors import Engine, body_of, function_of, orchestrator_of, request, running_engine
from tests.identities import principal
from triggers import (
    stow_store,
    studies_upload,
    study_evidence,
    wado_study,
    worklist_claim,
    worklist_release,
)

BOUNDARY = "a-boundary"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    yield from running_engine()


@pytest.fixture(autouse=True)
def app(settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_settings, "current", lambda: settings)
    monkeypatch.setattr(app_storage, "current", lambda: storage)


def stow(objects: list[bytes]) -> func.HttpRequest:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + one + b"\r\n" for one in objects) + f"--{BOUNDARY}--".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    told = {"Content-Type": kind, "X-Forwarded-For": "203.0.113.9, 192.0.2.7:51234"}
    return request("POST", "dicomweb/studies", body, headers=told)


def told(storage: Storage, settings: Settings, study: str) -> list[dict[str, Any]]:
    log = custody.of(storage, settings)
    return [json.loads(line)["body"] for line in log.lines(study)]


def test_a_request_is_one_receipt_in_the_log_however_often_it_is_sent(
    engine: Engine, storage: Storage, settings: Settings, seed: int
) -> None:
    study, objects = slices(seed)
    for _ in range(2):
        assert function_of(stow_store)(stow(objects), engine.client).status_code == 200
    received, stored = told(storage, settings, study)
    assert received["event"] == "received"
    assert received["actor"] == {
        "door": "stow-rs",
        "principal": "developer",
        "identity": "development",
        "address": "192.0.2.7",
    }
    assert received["data"]["objects"] == len(objects)
    assert len(stored["data"]["objects"]) == len(objects)


def test_what_a_door_refuses_is_logged_by_its_hash_and_reason(
    engine: Engine, storage: Storage, settings: Settings, seed: int
) -> None:
    study, [good, damaged] = slices(seed, 2)
    damaged = damaged[:-1000]
    junk = f"no DICOM object {seed}".encode()
    for _ in range(2):
        answer = function_of(stow_store)(stow([good, damaged, junk]), engine.client)
        assert answer.status_code == 202
    log = told(storage, settings, study)
    assert [body["event"] for body in log] == ["received", "stored", "rejected"]
    assert log[2]["actor"] == log[0]["actor"]
    [(sha256, [size, reason, kept])] = log[2]["data"]["objects"].items()
    assert sha256 == hashlib.sha256(damaged).hexdigest()
    assert (size, reason) == (len(damaged), Reason.TRUNCATED.value)
    assert storage.read(QUARANTINE, kept) == damaged
    assert (
        of_no_study(storage, settings)[hashlib.sha256(junk).hexdigest()][1]
        == Reason.NOT_DICOM.value
    )


def test_what_cannot_be_taken_apart_is_logged_as_a_whole(
    engine: Engine, storage: Storage, settings: Settings, seed: int
) -> None:
    bodies = [f"{name} {seed}".encode() for name in ("no form", "no archive")]
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    asked = request("POST", "dicomweb/studies", bodies[0], headers={"Content-Type": kind})
    assert function_of(stow_store)(asked, engine.client).status_code == 400
    kind = "application/zip"
    asked = request("POST", "studies", bodies[1], headers={"Content-Type": kind})
    assert function_of(studies_upload)(asked, engine.client).status_code == 400
    logged = of_no_study(storage, settings)
    for body in bodies:
        size, _, kept = logged[hashlib.sha256(body).hexdigest()]
        assert size == len(body)
        assert storage.read(QUARANTINE, kept) == body


def of_no_study(storage: Storage, settings: Settings) -> dict[str, Any]:
    log = told(storage, settings, custody.unassigned(datetime.now(UTC).date()))
    assert {body["event"] for body in log} == {"rejected"}
    return {sha256: said for body in log for sha256, said in body["data"]["objects"].items()}


def test_a_door_that_cannot_log_does_not_acknowledge(
    engine: Engine,
    storage: Storage,
    settings: Settings,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study, objects = slices(seed)

    def away(*_: Any, **__: Any) -> None:
        raise StorageUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "append", away)
        answer = function_of(stow_store)(stow(objects), engine.client)
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        assert told(storage, settings, study) == []
    assert function_of(stow_store)(stow(objects), engine.client).status_code == 200
    assert [one["event"] for one in told(storage, settings, study)] == ["received", "stored"]


def an_item(storage: Storage, seed: int) -> Item:
    study, _ = slices(seed, 1)
    name = f"study-{seed:032x}-1-{Lane.CLINICAL}"
    item = Item(name, study, 1, Lane.CLINICAL, 50, "", (), "2026-01-01T00:00:00+00:00")
    return worklist.add(storage, item)


def act(
    door: ModuleType, item: Item, *more: Any, roles: tuple[str, ...] = (), **body: Any
) -> func.HttpResponse:
    text = json.dumps(body).encode()
    found: func.HttpResponse = function_of(door)(
        request("POST", "worklist", text, headers=principal("R", *roles), item=item.id), *more
    )
    return found


def test_claims_and_releases_are_told_each_time(
    storage: Storage, settings: Settings, seed: int
) -> None:
    item = an_item(storage, seed)
    for door in (worklist_claim, worklist_claim, worklist_release, worklist_claim):
        assert act(door, item).status_code == 200
    actor = {"reader": "R", "identity": "development"}
    events = [(one["event"], one["actor"]) for one in told(storage, settings, item.study)]
    assert events == [("claimed", actor), ("released", actor), ("claimed", actor)]


def test_an_administrator_gives_back_what_another_holds_and_the_log_names_both(
    storage: Storage, settings: Settings, seed: int
) -> None:
    item = an_item(storage, seed)
    worklist.claim(storage, item.id, Reader("gone", "Gone Home"))
    assert act(worklist_release, item, roles=("administrator",)).status_code == 200
    assert worklist.get(storage, item.id).state == "open"
    released = told(storage, settings, item.study)[-1]
    assert (released["actor"]["reader"], released["data"]["holder"]) == ("R", "gone")


def test_a_release_or_decision_makes_up_for_the_entry_of_a_claim_that_was_not_logged(
    storage: Storage, settings: Settings, seed: int
) -> None:
    item = an_item(storage, seed)
    worklist.claim(storage, item.id, Reader("R", "R"))
    assert act(worklist_release, item).status_code == 200
    assert [one["event"] for one in told(storage, settings, item.study)] == ["claimed", "released"]


def test_what_another_holds_is_neither_released_nor_logged(
    storage: Storage, settings: Settings, seed: int
) -> None:
    item = an_item(storage, seed)
    worklist.claim(storage, item.id, Reader("another", ""))
    assert act(worklist_release, item, roles=("clinical-reviewer",)).status_code == 409
    assert told(storage, settings, item.study) == []


def test_who_was_given_pixels_is_told_once_a_day(
    engine: Engine, storage: Storage, settings: Settings, seed: int
) -> None:
    study, objects = slices(seed)
    assert function_of(stow_store)(stow(objects), engine.client).status_code == 200
    for address in ("192.0.2.8", "192.0.2.8:99", "192.0.2.9"):
        asked = request(
            "GET",
            f"dicomweb/studies/{study}",
            headers={"X-Forwarded-For": address, **principal("R")},
            study=study,
        )
        assert function_of(wado_study)(asked).status_code == 200
    told_of = told(storage, settings, study)[2:]
    viewer = {"principal": "R", "identity": "development"}
    assert [(one["event"], one["actor"]) for one in told_of] == [
        ("viewed", {**viewer, "address": "192.0.2.8"}),
        ("viewed", {**viewer, "address": "192.0.2.9"}),
    ]


# --- ordering a bundle --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exporting() -> Iterator[df.SyncDurableFunctionsClient]:
    """A durable engine that runs `export_evidence` and its activities."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    backend = InMemoryOrchestrationBackend(port=port)
    backend.start()
    worker: Any = TaskHubGrpcWorker(host_address=f"127.0.0.1:{port}")
    orchestrator = orchestrator_of(export_evidence.export_evidence)
    worker._registry.add_named_orchestrator("export_evidence", orchestrator)
    for module in (plan_evidence, pack_evidence, build_evidence):
        work = function_of(module)
        name = module.__name__.rpartition(".")[2]
        worker._registry.add_named_activity(name, lambda _, data, work=work: work(data))
    worker.start()
    config = {"rpcBaseUrl": f"127.0.0.1:{port}"}
    client = df.SyncDurableFunctionsClient(json.dumps(config))
    yield client
    client.close()
    worker.stop()
    backend.stop()


def test_a_bundle_that_is_ordered_holds_when_it_is_made(
    engine: Engine,
    exporting: df.SyncDurableFunctionsClient,
    storage: Storage,
    settings: Settings,
    seed: int,
    tmp_path: Path,
) -> None:
    study, objects = slices(seed)
    assert function_of(stow_store)(stow(objects), engine.client).status_code == 200
    order = request("POST", "evidence", headers=principal("R"), study=study)
    answer = function_of(study_evidence)(order, exporting)
    assert answer.status_code == 202
    status = body_of(answer)
    assert "statusQueryGetUri" in status
    state = exporting.wait_for_orchestration_completion(status["id"], timeout=30)
    assert state is not None
    assert state.runtime_status.name == "COMPLETED", state.failure_details
    made = json.loads(state.serialized_output or "")
    (tmp_path / "bundle.zip").write_bytes(storage.read(CUSTODY, made["bundle"]))
    report = check(Bundle(tmp_path / "bundle.zip"))
    assert report.faults == ()
    assert told(storage, settings, study)[-1]["actor"] == {"requester": "R"}
    with zipfile.ZipFile(BytesIO(storage.read(CUSTODY, made["bundle"]))) as archive:
        assert archive.testzip() is None


def test_nothing_is_ordered_of_an_unknown_study(
    exporting: df.SyncDurableFunctionsClient, seed: int
) -> None:
    study, _ = slices(seed)
    answer = function_of(study_evidence)(request("POST", "evidence", study=study), exporting)
    assert answer.status_code == 404
