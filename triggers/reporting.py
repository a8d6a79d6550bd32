"""Start the making and sending of a review's results from outside its orchestration."""

from __future__ import annotations

import azure.durable_functions as df
import grpc
from durabletask.internal.orchestrator_service_pb2 import OrchestrationIdReusePolicy

from slicewatch import inventory
from slicewatch.messages import Retry
from slicewatch.report_messages import ReportPlan
from slicewatch.settings import Settings
from triggers.admission import ENDED


def start_report(
    client: df.SyncDurableFunctionsClient, settings: Settings, study: str, generation: int
) -> None:
    """Start ``report_study`` for a generation unless this started one that runs."""
    retry = Retry(settings.retry_attempts, settings.retry_first_s)
    try:
        client.schedule_new_orchestration(
            "report_study",
            input=ReportPlan(study, generation, retry).to_json(),
            instance_id=inventory.instance_id(study).replace("study-", "report-")
            + f"-{generation}",
            reuse_id_policy=OrchestrationIdReusePolicy(
                replaceableStatus=[status.value for status in ENDED]
            ),
        )
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
