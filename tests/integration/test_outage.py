"""The storage account goes away and comes back: senders are told, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local_host.azurite import Azurite
from slicewatch import inventory
from slicewatch.records import StudyStatus
from tests import studies
from tests.integration.running_app import RunningApp

SLICES = 12
LESION = (3, 4, 9, 10)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """An emulator that keeps what it holds when it is stopped."""
    with Azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture(scope="module")
def app(
    emulator: Azurite, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[RunningApp]:
    settings = {
        "SLICEWATCH_STORAGE_TIMEOUT_SECONDS": "2",
        "SLICEWATCH_RETRY_ATTEMPTS": "2",
        "SLICEWATCH_RETRY_FIRST_SECONDS": "0.1",
        # Longer than an outage here: a study that nobody closed must not end in between.
        "SLICEWATCH_QUIET_SECONDS": "100",
    }
    with RunningApp(tmp_path_factory.mktemp("outage"), models, settings, emulator) as running:
        yield running


def refused(app: RunningApp, objects: list[bytes]) -> httpx.Response:
    answer = app.store(objects)
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["error"]["code"] == "storage-unavailable"
    return answer


def finish(app: RunningApp, study: str, objects: dict[str, bytes], rest: list[bytes]) -> None:
    """The sender sends the rest again; the review must cover everything."""
    assert app.store(rest).status_code == 200
    assert app.close(study, list(objects)).status_code == 202
    review = app.await_review(study)
    assert review.status is StudyStatus.FLAGGED
    assert review.coverage.screened == SLICES
    assert review.coverage.missing == ()
    assert sorted(app.stored(study).values()) == sorted(objects.values())
    found = [[one.instance_number for one in finding.slices] for finding in review.findings]
    assert sorted(found) == [[3, 4], [9, 10]]


def test_a_study_whose_review_gave_up_in_an_outage_is_picked_up_again(
    app: RunningApp, emulator: Azurite, seed: int
) -> None:
    objects = studies.study_bytes(SLICES, seed=seed, lesion=LESION)
    study = studies.new_uid("study", seed)
    early, late = list(objects.values())[:6], list(objects.values())[6:]
    assert app.store(early).status_code == 200
    emulator.stop()
    refused(app, late)
    assert app.http.get(f"/api/studies/{study}").status_code == 503
    health = app.http.get("/api/health")
    assert (health.status_code, health.json()["checks"]["storage"]) == (503, "failed")
    app.wait(
        lambda: app.instance(study),
        lambda instance: instance["runtimeStatus"] == "Failed",
        "the review did not give up",
    )
    assert app.progress(study)["status"] == "failed"

    emulator.start()
    app.wait(
        lambda: app.instance(study),
        lambda instance: instance["runtimeStatus"] == "Running",
        "the sweep did not start the review again",
    )
    assert app.http.get("/api/health").status_code == 200
    assert len(inventory.received(app.storage, study)) == len(early)
    finish(app, study, objects, late)


def test_a_silent_storage_account_is_answered_503_and_activities_are_tried_again(
    app: RunningApp, emulator: Azurite, seed: int
) -> None:
    objects = studies.study_bytes(SLICES, seed=seed, lesion=LESION)
    study = studies.new_uid("study", seed)
    early, late = list(objects.values())[:6], list(objects.values())[6:]
    assert app.store(early).status_code == 200
    before = app.log
    process = emulator._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        refused(app, late)
        app.wait(
            lambda: app.log.removeprefix(before),
            lambda log: "Executed 'Functions.take_inventory' (Failed" in log,
            "no activity noticed",
        )
    finally:
        os.kill(process.pid, signal.SIGCONT)
    finish(app, study, objects, late)
    assert "Executed 'Functions.review_study' (Failed" not in app.log.removeprefix(before)
