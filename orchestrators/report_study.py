"""``report_study``: the results of one review, made and sent.

An orchestration of its own, so that a review that is published waits for nothing here: a PACS that
is away is tried again while readers work, and a report that fails leaves the flag as it is.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import azure.durable_functions as df
from durabletask.task import OrchestrationContext, Task

from orchestrators.answers import answer_of, retry_policy
from slicewatch.report_messages import Delivered, Reported, ReportPlan, ReportRequest

bp = df.Blueprint()


@bp.orchestration_trigger(context_name="context")
def report_study(
    context: OrchestrationContext, plan: dict[str, Any]
) -> Generator[Task[Any], Any, dict[str, Any]]:
    """Make what the generation's results lack, and send what was not sent.

    Input: `ReportPlan`. Output: `Reported`, or `Delivered` where something was sent. Fails when a
    fault does not pass; the sweep starts it again where another try may help.
    """
    wanted = ReportPlan.from_json(plan)
    retry = retry_policy(wanted.retry)
    request = ReportRequest(wanted.study, wanted.generation).to_json()
    made = yield context.call_activity("report_review", input=request, retry_policy=retry)
    reported = answer_of(Reported, made)
    if not reported.unsent:
        return reported.to_json()
    sent = yield context.call_activity("send_report", input=request, retry_policy=retry)
    return answer_of(Delivered, sent).to_json()
