"""``review_study``: one study from its first slice to its decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from functools import partial
from typing import Any

import azure.durable_functions as df
from durabletask.task import OrchestrationContext, Task, TaskFailedError

from orchestrators.answers import FinalFault, answer_of, retry_policy
from orchestrators.collection import Collected, collect
from orchestrators.decisions import await_decisions
from slicewatch.messages import (
    Assessment,
    AssessRequest,
    Progress,
    Published,
    ReviewPlan,
    Settlement,
    SettleRequest,
    WaitingItem,
)
from slicewatch.records import Lane, StudyStatus
from slicewatch.report_messages import ReportPlan

bp = df.Blueprint()


@bp.orchestration_trigger(context_name="context")
def review_study(
    context: OrchestrationContext, plan: dict[str, Any]
) -> Generator[Task[Any], Any, dict[str, Any] | None]:
    """Collect and screen, assess, publish, wait for a person; again when slices come late.

    Input: `ReviewPlan`. Custom status: `Progress`. Events: ``close`` (the sender is done),
    ``late`` (something came after publication), ``decision`` (``{"item": id}``). Output: the
    last `Progress`.
    """
    review = _Review(context, ReviewPlan.from_json(plan))
    try:
        return (yield from review.run())
    except (TaskFailedError, FinalFault):
        # The study stays among the unfinished ones, so the sweep starts it again.
        review.tell(status=StudyStatus.FAILED)
        raise


class _Review:
    """One run of the orchestration: its context, its plan, its custom status."""

    def __init__(self, ctx: OrchestrationContext, plan: ReviewPlan) -> None:
        self._ctx = ctx
        now = ctx.current_utc_datetime.isoformat()
        self._plan = dataclasses.replace(
            plan, started=plan.started or now, changed=plan.changed or now
        )
        self._progress = Progress(StudyStatus.RECEIVING, plan.received, 0, 0, 0, 0)

    def run(self) -> Generator[Task[Any], Any, dict[str, Any] | None]:
        """The whole way; ``None`` when it continues as new."""
        collected = yield from collect(self._ctx, self._plan)
        if isinstance(collected, ReviewPlan):
            self._ctx.continue_as_new(collected.to_json(), save_events=True)
            return None
        self._progress = collected.progress
        assessment = yield from self._assess(collected)
        answer = yield self._call("publish_review", assessment.to_json())
        published = answer_of(Published, answer)
        self.tell(
            status=_standing(assessment, published),
            published=True,
            generation=assessment.generation,
            assessed=assessment.assessed,
            lanes=tuple(flag.lane.value for flag in assessment.lanes),
            priority=max((flag.priority for flag in assessment.lanes), default=0),
        )
        self._report(assessment.generation)
        if (yield from self._follow(assessment, published)):
            return self._progress.to_json()
        self._ctx.continue_as_new(self._renewed().to_json(), save_events=True)
        return None

    def tell(self, **changes: Any) -> None:
        """Change the custom status."""
        self._progress = dataclasses.replace(self._progress, **changes)
        self._ctx.set_custom_status(self._progress.to_json())

    def _assess(self, collected: Collected) -> Generator[Task[Any], Any, Assessment]:
        assert self._plan.started is not None
        request = AssessRequest(
            study=self._plan.study,
            started=self._plan.started,
            last_arrival=collected.last_arrival.isoformat(),
            screened=self._ctx.current_utc_datetime.isoformat(),
            forced=collected.forced,
        )
        answer = yield self._call("assess_study", request.to_json())
        return answer_of(Assessment, answer)

    def _follow(
        self, assessment: Assessment, published: Published
    ) -> Generator[Task[Any], Any, bool]:
        """Wait for the decisions, if any, with an eye on late slices.

        Returns:
            ``True`` when the study is finished, ``False`` when something came that the review
            does not cover.
        """
        # Whatever a door stored without an event, since it saw the study unpublished, is seen by
        # the look that `covers` takes after the custom status says published.
        if published.waiting:
            covers = partial(self._covers, assessment, finished=False)
            decided = partial(self._decided, assessment)
            if not (
                yield from await_decisions(
                    self._ctx, self._plan, published.waiting, covers, decided
                )
            ):
                return False
            self.tell(status=StudyStatus.REVIEWED)
        return (yield from self._covers(assessment, finished=True))

    def _decided(self, assessment: Assessment, item: WaitingItem) -> None:
        """Reports tell what clinical readers say; nothing of the forensic lane enters them."""
        if item.lane is Lane.CLINICAL:
            self._report(assessment.generation)

    def _report(self, generation: int) -> None:
        """Have the results of the review made and sent, and wait for none of it: neither a PACS
        that is away nor a report that fails delays what follows here.
        """
        now = self._ctx.current_utc_datetime.strftime("%Y%m%d%H%M%S%f")
        name = self._ctx.instance_id.removeprefix("study-")
        self._ctx.call_sub_orchestrator(
            "report_study",
            input=ReportPlan(self._plan.study, generation, self._plan.retry).to_json(),
            # One of its own each time: the number that would be given by default starts anew with
            # each run of this orchestration.
            instance_id=f"report-{name}-{generation}-{now}",
        )

    def _covers(self, assessment: Assessment, *, finished: bool) -> Generator[Task[Any], Any, bool]:
        request = SettleRequest(self._plan.study, assessment.content_digest, finished)
        settlement = yield self._call("settle_study", request.to_json())
        return answer_of(Settlement, settlement).covered

    def _renewed(self) -> ReviewPlan:
        """The plan of the next generation: its clocks start anew."""
        return dataclasses.replace(
            self._plan, started=None, changed=None, received=self._progress.received
        )

    def _call(self, activity: str, request: dict[str, Any]) -> Task[Any]:
        return self._ctx.call_activity(
            activity, input=request, retry_policy=retry_policy(self._plan.retry)
        )


def _standing(assessment: Assessment, published: Published) -> StudyStatus:
    """A flagged study whose items are all decided was reviewed before this run."""
    if assessment.status is StudyStatus.FLAGGED and not published.waiting and published.decided:
        return StudyStatus.REVIEWED
    return assessment.status
