"""How the doors register: with their settings, and with nothing heavy."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import azure.functions as func
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient

from slicewatch import inventory
from slicewatch.storage import DROPBOX, Storage
from tests.azurite import Azurite
from tests.intake.senders import (
    a_study,
)

ROOT = Path(__file__).resolve().parents[2]

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
        with contextlib.suppress(ResourceExistsError):
            container.create_container()
        container.upload_blob(name, data)
    call("dropbox", func.blob.InputStream(data=data, name=f"{DROPBOX}/{name}"))
    assert len(inventory.received(storage, study)) == 1
