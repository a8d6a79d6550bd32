"""One data set's inbox, the engine behind it, and what hospitals send."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from activities import (
    batch_objects,
    inspect_objects,
    plan_dataset,
    publish_dataset,
    render_examples,
    survey_inbox,
    unpack_archive,
)
from orchestrators import prepare_dataset
from slicewatch import dataset, dataset_store
from slicewatch import settings as app_settings
from slicewatch.dataset_store import TRAINING
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from tests import studies
from tests.azurite import Azurite
from tests.doors import body_of, function_of, orchestrator_of, request
from tests.identities import DEVELOPER

ORCHESTRATOR = orchestrator_of(prepare_dataset.prepare_dataset)
ACTIVITIES: tuple[ModuleType, ...] = (
    batch_objects,
    inspect_objects,
    plan_dataset,
    publish_dataset,
    render_examples,
    survey_inbox,
    unpack_archive,
)


@dataclass
class Engine:
    client: df.SyncDurableFunctionsClient
    backend: Any


@dataclass
class Inbox:
    """One data set of its own, and what a test does with it."""

    storage: Storage
    engine: df.SyncDurableFunctionsClient
    name: str

    def put(self, path: str, data: bytes) -> str:
        blob = dataset_store.inbox_blob(self.name, path)
        self.storage.write(TRAINING, blob, data)
        return blob

    def tell(self, blob: str) -> None:
        """What the blob trigger does."""
        from triggers import training_inbox

        event = func.blob.InputStream(data=b"", name=f"{TRAINING}/{blob}")
        function_of(training_inbox)(event, self.engine)

    def post(self) -> func.HttpResponse:
        from triggers import dataset_prepare

        path = f"datasets/{self.name}/prepare"
        answer: func.HttpResponse = function_of(dataset_prepare)(
            request("POST", path, dataset=self.name), self.engine
        )
        return answer

    def status(self) -> Any:
        from triggers import dataset_status

        asked = request("GET", f"datasets/{self.name}", dataset=self.name)
        answer = function_of(dataset_status)(asked, self.engine)
        assert answer.status_code == 200
        return body_of(answer)

    def prepared(self) -> dict[str, Any]:
        """POST, wait for the end, and the manifest."""
        assert self.post().status_code == 202
        return self.finished()

    def finished(self) -> dict[str, Any]:
        state = self.engine.wait_for_orchestration_completion(
            dataset_store.instance_id(self.name), timeout=60
        )
        assert state is not None
        assert state.runtime_status.name == "COMPLETED", state
        manifest = dataset_store.manifest(self.storage, self.name)
        assert manifest is not None
        return manifest

    def files(self) -> dict[str, bytes]:
        """The data set, as a download has it."""
        prefix = f"{self.name}/"
        return {
            blob.name.removeprefix(prefix): self.storage.read(TRAINING, blob.name)
            for blob in self.storage.listing(TRAINING, prefix)
        }

    def work(self) -> dict[str, bytes]:
        """The records of its preparations."""
        listing = self.storage.listing(TRAINING, f"work/{self.name}/")
        return {blob.name: self.storage.read(TRAINING, blob.name) for blob in listing}


def configured(azurite: Azurite, **environ: str) -> Settings:
    waits = {"SLICEWATCH_TRAINING_QUIET_SECONDS": "0.3", "SLICEWATCH_RETRY_FIRST_SECONDS": "0.01"}
    small = {"SLICEWATCH_BATCH_SIZE": "5", "SLICEWATCH_MAX_IN_FLIGHT": "3"}
    connection = {
        "AzureWebJobsStorage": azurite.connection_string,
        "SLICEWATCH_DEVELOPMENT_IDENTITY": DEVELOPER,
    }
    return app_settings.load(connection | waits | small | environ)


# --- what is sent -------------------------------------------------------------------------------


def patient(split: str, seed: int) -> str:
    """An id that the hash sends to this split."""
    ids = (f"PAT-{seed}-{n}" for n in range(1000))
    return next(one for one in ids if dataset.split_of(one) == split)


def annotated(
    seed: int, split: str = "train", *, slices: int = 6, marked: tuple[int, ...] = (3, 4)
) -> dict[str, bytes]:
    """A series and the structure set that outlines the marked slices, by file name."""
    images = studies.ct_series(slices, seed=seed, lesion=marked)
    structures = studies.rt_structure_set(seed=seed, references=[images[n - 1] for n in marked])
    for one in (*images, structures):
        one.PatientID = patient(split, seed)
    return {
        **{f"{one.InstanceNumber}.dcm": studies.to_bytes(one) for one in images},
        "RS.dcm": studies.to_bytes(structures),
    }


def zipped(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def two_patients(seed: int) -> dict[str, bytes]:
    """One of each split, so that nothing misleads."""
    return below("a", annotated(seed)) | below("b", annotated(seed + 50_000, "val"))


def reasons(manifest: dict[str, Any]) -> list[str]:
    return [one["reason"] for one in manifest["rejected"]]
