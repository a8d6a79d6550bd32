"""Doors and the study's orchestration: it is started, told or left alone, as its state asks for."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import azure.durable_functions as df
import pytest

from slicewatch import storage as app_storage
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from tests.doors import Engine, function_of
from tests.intake.senders import (
    a_study,
    error_of,
    related,
    stow,
)


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
