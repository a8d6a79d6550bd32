"""Start the making and sending of a review's results from outside its orchestration."""

from __future__ import annotations

import logging

import azure.durable_functions as df
import grpc
from durabletask.internal.orchestrator_service_pb2 import OrchestrationIdReusePolicy

from slicewatch import inventory
from slicewatch.messages import Retry
from slicewatch.records import Lane
from slicewatch.report_messages import ReportPlan
from slicewatch.reporting import stored
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from slicewatch.worklist import Item
from triggers.admission import ENDED

_log = logging.getLogger(__name__)


def start_report(
    client: df.SyncDurableFunctionsClient,
    settings: Settings,
    study: str,
    generation: int,
    cause: str,
) -> None:
    """Start ``report_study`` for a generation unless one runs that was started for this cause."""
    name = inventory.instance_id(study).removeprefix("study-")
    retry = Retry(settings.retry_attempts, settings.retry_first_s)
    try:
        client.schedule_new_orchestration(
            "report_study",
            input=ReportPlan(study, generation, retry).to_json(),
            instance_id=f"report-{name}-{generation}-{cause}",
            reuse_id_policy=OrchestrationIdReusePolicy(
                replaceableStatus=[status.value for status in ENDED]
            ),
        )
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise


def report_again(
    client: df.SyncDurableFunctionsClient,
    storage: Storage,
    settings: Settings,
    item: Item,
    correction: int,
) -> None:
    """Have the report of a corrected item made; nothing of the forensic lane is reported.

    The correction stands without it: where the engine does not answer, the sweep does it later.
    """
    if item.lane is not Lane.CLINICAL:
        return
    stored.open_report(storage, item.study, item.generation)
    try:
        start_report(client, settings, item.study, item.generation, f"correction-{correction}")
    except grpc.RpcError as error:
        _log.warning("the report of %s waits for the sweep: %s", item.id, error.code().name)
