"""``study_evidence``: order the evidence bundle of a study."""

from __future__ import annotations

import hashlib

import azure.durable_functions as df
import azure.functions as func
import grpc
from durabletask.internal.orchestrator_service_pb2 import OrchestrationIdReusePolicy

from slicewatch import settings, storage
from slicewatch.evidence_messages import EvidenceRequest
from slicewatch.identity import Role
from slicewatch.messages import Retry
from triggers import access
from triggers.admission import ENDED, is_known
from triggers.responses import answers_problems, study_of, unknown_study

bp = df.Blueprint()


@bp.route("studies/{study}/evidence", methods=["POST"])
@bp.durable_client_input(client_name="client")
@answers_problems
def study_evidence(
    req: func.HttpRequest, client: df.SyncDurableFunctionsClient
) -> func.HttpResponse:
    """Start ``export_evidence``, or find the one that runs.

    202: the durable status URLs; the output of the orchestration names the bundle in the container
    ``custody``, and the custody log who asked for it. 400: a malformed UID; 404: nothing of the
    study was received.
    """
    identity = access.require(req, Role.ADMINISTRATOR)
    study = study_of(req)
    if not is_known(storage.current(), study):
        raise unknown_study()
    instance = f"evidence-{hashlib.sha256(study.encode()).hexdigest()[:32]}"
    config = settings.current()
    request = EvidenceRequest(
        study=study,
        requester=identity.user,
        max_in_flight=config.max_in_flight,
        retry=Retry(config.retry_attempts, config.retry_first_s),
    )
    try:
        client.schedule_new_orchestration(
            "export_evidence",
            input=request.to_json(),
            instance_id=instance,
            reuse_id_policy=OrchestrationIdReusePolicy(
                replaceableStatus=[status.value for status in ENDED]
            ),
        )
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
    return client.create_check_status_response(req, instance)
