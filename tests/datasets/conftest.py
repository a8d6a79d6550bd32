"""The app's settings, storage, models and engine, for tests of data sets."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import azure.durable_functions as df
import pytest
from durabletask.testing import create_test_backend
from durabletask.worker import TaskHubGrpcWorker

from slicewatch import model_registry
from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.dataset_store import TRAINING
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from tests.azurite import Azurite
from tests.datasets.inbox import (
    ACTIVITIES,
    ORCHESTRATOR,
    Engine,
    Inbox,
    configured,
)
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> model_registry.Registry:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder)
    return model_registry.Registry.load(folder)


@pytest.fixture
def config(azurite: Azurite) -> Settings:
    return configured(azurite)


@pytest.fixture(autouse=True)
def app(
    config: Settings,
    storage: Storage,
    models: model_registry.Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> pytest.MonkeyPatch:
    """The app's settings, storage and models are the tests'."""
    monkeypatch.setattr(app_settings, "current", lambda: config)
    monkeypatch.setattr(app_storage, "current", lambda: storage)
    monkeypatch.setattr(model_registry, "current", lambda: models)
    return monkeypatch


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The durable engine with the real orchestrator over the real activities."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    backend = create_test_backend(port=port)
    worker: Any = TaskHubGrpcWorker(host_address=f"127.0.0.1:{port}")
    worker._registry.add_named_orchestrator("prepare_dataset", ORCHESTRATOR)
    for module in ACTIVITIES:
        name = module.__name__.rpartition(".")[2]
        work = getattr(module, name).build().get_user_function()
        worker._registry.add_named_activity(name, lambda _, data, work=work: work(data))
    worker.start()
    client = df.SyncDurableFunctionsClient(json.dumps({"rpcBaseUrl": f"127.0.0.1:{port}"}))
    try:
        yield Engine(client, backend)
    finally:
        worker.stop()
        client.close()
        backend.stop()


@pytest.fixture
def inbox(storage: Storage, engine: Engine) -> Iterator[Inbox]:
    name = f"set-{uuid.uuid4().hex[:12]}"
    yield Inbox(storage, engine.client, name)
    # A mark that is left would be found by the sweeps of other tests.
    storage.delete(TRAINING, f"open/{name}")
