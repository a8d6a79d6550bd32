"""Annotated images that land in the inbox become a data set, in the app as it is deployed."""

from __future__ import annotations

import uuid

from slicewatch import dataset_store
from slicewatch.dataset_store import TRAINING
from tests.datasets.inbox import two_patients, zipped
from tests.integration.running_app import RunningApp


def test_an_archive_in_the_inbox_becomes_a_data_set(app: RunningApp, seed: int) -> None:
    name = f"set-{uuid.uuid4().hex[:12]}"
    app.storage.write(
        TRAINING, dataset_store.inbox_blob(name, "all.zip"), zipped(two_patients(seed))
    )
    app.wait(
        lambda: list(dataset_store.open_datasets(app.storage)),
        lambda opened: name in opened,
        "the blob was not noticed",
    )
    accepted = app.http.post(f"/api/datasets/{name}/prepare")
    assert accepted.status_code == 202, accepted.text
    found = app.wait(
        lambda: app.http.get(f"/api/datasets/{name}").raise_for_status().json(),
        lambda status: status["status"] in ("prepared", "misleading", "refused", "failed"),
        "the data set was never prepared",
    )
    assert found["status"] == "prepared"
    assert found["manifest"]["examples"]["val"] == {"positive": 2, "negative": 4}
    assert app.storage.info(TRAINING, f"{name}/dataset.yaml") is not None
