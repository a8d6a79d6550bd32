"""``prepare_dataset``: from annotated images that arrive to a checked data set to train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df
from durabletask.task import OrchestrationContext, Task, TaskFailedError, when_any

from orchestrators.answers import retry_policy
from slicewatch.dataset_messages import (
    DatasetOutcome,
    DatasetStatus,
    InboxSurvey,
    PreparationPlan,
    PreparationProgress,
    PreparationStep,
    StepCounts,
)

bp = df.Blueprint()

PREPARE_EVENT = "prepare"


@bp.orchestration_trigger(context_name="context")
def prepare_dataset(
    context: OrchestrationContext, plan: dict[str, Any]
) -> Generator[Task[Any], Any, dict[str, Any] | None]:
    """Wait until nothing more comes; unpack, inspect, plan, render, publish; again if more came.

    Input: `PreparationPlan`. Custom status: `PreparationProgress`. Event: ``prepare`` (do not
    wait). Output: the last `PreparationProgress`.
    """
    preparation = _Preparation(context, PreparationPlan.from_json(plan))
    try:
        return (yield from preparation.run())
    except TaskFailedError:
        # The data set stays among the unprepared ones, so the sweep starts it again.
        preparation.tell(status=DatasetStatus.FAILED)
        raise


class _Preparation:
    """One run of the orchestration: its context, its plan, its custom status."""

    def __init__(self, ctx: OrchestrationContext, plan: PreparationPlan) -> None:
        self._ctx = ctx
        self._plan = plan
        self._progress = PreparationProgress(DatasetStatus.COLLECTING)

    def run(self) -> Generator[Task[Any], Any, dict[str, Any] | None]:
        """The whole way; ``None`` when it continues as new."""
        looked = yield self._call("survey_inbox", PreparationStep(self._plan.dataset, ""))
        survey = InboxSurvey.from_json(looked)
        self.tell(files=survey.files)
        if not self._plan.at_once and survey.run != self._plan.seen:
            at_once = yield from self._wait()
            # A run of its own for each look: the history does not grow while more comes.
            self._go_on(seen=survey.run, at_once=at_once)
            return None
        # Told late of what it is made of already: nothing to do, unless somebody asks for it.
        if not survey.refused and (self._plan.at_once or not survey.done):
            yield from self._make(survey)
        done = yield self._call("publish_dataset", self._step(survey))
        outcome = DatasetOutcome.from_json(done)
        self.tell(
            status=outcome.status,
            examples=outcome.examples,
            rejected=outcome.rejected,
            problems=outcome.problems,
        )
        if outcome.covered:
            return self._progress.to_json()
        self._go_on(seen="", at_once=False)
        return None

    def tell(self, **changes: Any) -> None:
        """Change the custom status."""
        self._progress = dataclasses.replace(self._progress, **changes)
        self._ctx.set_custom_status(self._progress.to_json())

    def _wait(self) -> Generator[Task[Any], Any, bool]:
        """Wait for the quiet period; ``True`` when the event came first."""
        asked: Task[Any] = self._ctx.wait_for_external_event(PREPARE_EVENT)
        timer = self._ctx.create_timer(timedelta(seconds=self._plan.quiet_s))
        done = yield when_any([asked, timer])
        if done is asked:
            timer.cancel()
        return done is asked

    def _go_on(self, **changes: Any) -> None:
        plan = dataclasses.replace(self._plan, **changes)
        self._ctx.continue_as_new(plan.to_json(), save_events=True)

    def _make(self, survey: InboxSurvey) -> Generator[Task[Any], Any]:
        self.tell(status=DatasetStatus.UNPACKING)
        yield from self._fan_out("unpack_archive", survey, survey.archives)
        listed = yield self._call("batch_objects", self._step(survey))
        batched = StepCounts.from_json(listed)
        self.tell(status=DatasetStatus.INSPECTING, objects=batched.taken, rejected=batched.rejected)
        lost = yield from self._fan_out("inspect_objects", survey, batched.batches)
        joined = yield self._call("plan_dataset", self._step(survey))
        planned = StepCounts.from_json(joined)
        self.tell(
            status=DatasetStatus.RENDERING,
            images=planned.taken,
            rejected=batched.rejected + lost.rejected + planned.rejected,
        )
        yield from self._fan_out("render_examples", survey, planned.batches, counts="examples")

    def _fan_out(
        self, activity: str, survey: InboxSurvey, count: int, *, counts: str = ""
    ) -> Generator[Task[Any], Any, StepCounts]:
        """Call the activity for 0 to `count` - 1, a bounded number at a time; the sums.

        Args:
            counts: field of the custom status that shows what was taken so far.
        """
        in_flight: list[Task[Any]] = []
        following, taken, rejected = 0, 0, 0
        while following < count or in_flight:
            while following < count and len(in_flight) < self._plan.max_in_flight:
                in_flight.append(self._call(activity, self._step(survey, following)))
                following += 1
            done = yield when_any(in_flight)
            in_flight.remove(done)
            result = StepCounts.from_json(done.get_result())
            taken, rejected = taken + result.taken, rejected + result.rejected
            if counts:
                self.tell(**{counts: taken})
        return StepCounts(count, taken, rejected)

    def _step(self, survey: InboxSurvey, number: int = 0) -> PreparationStep:
        return PreparationStep(self._plan.dataset, survey.run, number)

    def _call(self, activity: str, step: PreparationStep) -> Task[Any]:
        return self._ctx.call_activity(
            activity, input=step.to_json(), retry_policy=retry_policy(self._plan.retry)
        )
