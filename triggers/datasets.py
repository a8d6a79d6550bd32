"""What the doors of data sets share: start a preparation, tell a data set's name."""

from __future__ import annotations

import azure.durable_functions as df
import azure.functions as func
import grpc
from durabletask.internal.orchestrator_service_pb2 import OrchestrationIdReusePolicy

from slicewatch import dataset_store
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from triggers.admission import ENDED, GONE, is_running
from triggers.responses import Problem

PREPARE_EVENT = "prepare"


def ensure_preparation(
    client: df.SyncDurableFunctionsClient,
    storage: Storage,
    settings: Settings,
    dataset: str,
    *,
    at_once: bool = False,
) -> None:
    """Mark that there is something to prepare, and see that the orchestration runs.

    One that runs looks again at what came before it ends. `at_once` ends its waiting for more.
    """
    dataset_store.open_dataset(storage, dataset)
    instance = dataset_store.instance_id(dataset)
    if is_running(client.get_orchestration_state(instance)) and (
        not at_once or _tell(client, instance)
    ):
        return
    start_preparation(client, settings, dataset, at_once=at_once)


def start_preparation(
    client: df.SyncDurableFunctionsClient,
    settings: Settings,
    dataset: str,
    *,
    at_once: bool = False,
) -> None:
    """Start the data set's orchestration unless it runs; one that ended is replaced."""
    # On Azure, host.json's overridableExistingInstanceStates says the same.
    policy = OrchestrationIdReusePolicy(replaceableStatus=[status.value for status in ENDED])
    try:
        client.schedule_new_orchestration(
            "prepare_dataset",
            input=dataset_store.preparation_plan(settings, dataset, at_once=at_once).to_json(),
            instance_id=dataset_store.instance_id(dataset),
            reuse_id_policy=policy,
        )
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise


def _tell(client: df.SyncDurableFunctionsClient, instance: str) -> bool:
    """Raise the event; ``False`` when the orchestration ended meanwhile."""
    try:
        client.raise_orchestration_event(instance, PREPARE_EVENT)
    except grpc.RpcError as error:
        if error.code() not in GONE:
            raise
        return False
    return True


def dataset_of(request: func.HttpRequest) -> str:
    """The data set in the request's route. Raises `Problem` (400) for what is no name of one."""
    dataset = request.route_params.get("dataset") or ""
    if not dataset_store.is_dataset_name(dataset):
        raise Problem(
            400,
            "bad-dataset-name",
            "the data set's name is not 3 to 63 lower-case letters, digits and single hyphens, "
            "or is one of inbox, open and work",
            "use the name of its folder below training/inbox",
        )
    return dataset


def unknown_dataset() -> Problem:
    """404: storage has nothing of the data set."""
    return Problem(
        404,
        "unknown-dataset",
        "nothing came for this data set, and nothing was prepared",
        "put DICOM files or zip files below training/inbox/ and the data set's name",
    )
