"""``dataset_status``: where a data set stands, what it holds, and what was left out and why."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df
import azure.functions as func

from slicewatch import dataset_store, storage
from slicewatch.dataset_messages import DatasetStatus
from slicewatch.identity import Role
from triggers import access
from triggers.admission import is_running, progress_of
from triggers.datasets import dataset_of, unknown_dataset
from triggers.responses import answers_problems, as_json

bp = df.Blueprint()

_MAX_LISTED = 200


@bp.route("datasets/{dataset}", methods=["GET"])
@bp.durable_client_input(client_name="client")
@answers_problems
def dataset_status(
    req: func.HttpRequest, client: df.SyncDurableFunctionsClient
) -> func.HttpResponse:
    """Status, progress, and the manifest's summary with the first rejects.

    A reject of the inbox has the ``file`` that it is of, and the number of the ``entry`` of an
    archive: the manifest itself has digests of file names only. 404: nothing is known of it.
    """
    access.require(req, Role.UPLOADER, Role.ADMINISTRATOR)
    dataset = dataset_of(req)
    store = storage.current()
    files = dataset_store.inbox(store, dataset)
    state = client.get_orchestration_state(dataset_store.instance_id(dataset))
    manifest = dataset_store.manifest(store, dataset)
    if not files and state is None and manifest is None:
        raise unknown_dataset()
    progress = progress_of(state)
    standing = manifest["status"] if manifest else DatasetStatus.COLLECTING
    if progress and (is_running(state) or manifest is None):
        standing = progress["status"]
    names = {dataset_store.source_name(blob.name): blob.name for blob in files}
    return as_json(
        {
            "dataset": dataset,
            "status": standing,
            "files": len(files),
            "progress": progress or None,
            "manifest": _summary(manifest, names),
        }
    )


def _summary(manifest: dict[str, Any] | None, names: dict[str, str]) -> dict[str, Any] | None:
    if manifest is None:
        return None
    lists = {
        key: [_located(one, names) for one in manifest[key][:_MAX_LISTED]]
        for key in ("rejected", "remarks")
    }
    counts = {f"{key}_count": len(manifest[key]) for key in lists}
    return {**manifest, **lists, **counts}


def _located(reject: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    """A reject with the file of the inbox that it is of, where it is still there."""
    name, _, entry = reject["source"].split(" ")[0].partition("#")
    where = {"file": names[name]} if name in names else {}
    return {**reject, **where, **({"entry": entry} if entry else {})}
