"""``export_evidence``: the evidence bundle of a study, packed part by part."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import azure.durable_functions as df
from durabletask.task import OrchestrationContext, Task, when_all

from orchestrators.answers import answer_of, retry_policy
from slicewatch.evidence_messages import Evidence, EvidencePart, EvidenceParts, EvidenceRequest

bp = df.Blueprint()


@bp.orchestration_trigger(context_name="context")
def export_evidence(
    context: OrchestrationContext, request: dict[str, Any]
) -> Generator[Task[Any], Any, dict[str, Any]]:
    """Plan the bundle, pack its parts a few at a time, build it.

    Input: `EvidenceRequest`. Output: `Evidence`. Custom status: ``{"parts", "packed"}``. Fails
    when a fault does not pass.
    """
    wanted = EvidenceRequest.from_json(request)
    retry = retry_policy(wanted.retry)
    export = wanted.export or context.current_utc_datetime.strftime("%Y%m%dT%H%M%SZ")
    whole = {"study": wanted.study, "export": export, "requester": wanted.requester}
    planned = yield context.call_activity("plan_evidence", input=whole, retry_policy=retry)
    parts = answer_of(EvidenceParts, planned).parts
    for start in range(0, parts, wanted.max_in_flight):
        context.set_custom_status({"parts": parts, "packed": start})
        packed = yield when_all(
            [
                context.call_activity(
                    "pack_evidence",
                    input=EvidencePart(wanted.study, export, number).to_json(),
                    retry_policy=retry,
                )
                for number in range(start, min(start + wanted.max_in_flight, parts))
            ]
        )
        for answer in packed:
            answer_of(EvidencePart, answer)
    context.set_custom_status({"parts": parts, "packed": parts})
    built = yield context.call_activity("build_evidence", input=whole, retry_policy=retry)
    return answer_of(Evidence, built).to_json()
