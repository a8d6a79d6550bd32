"""Collect and screen: inventories of what arrives, batches in flight, until the study is whole.

A plain generator inside ``review_study``, apart from it because it is an event loop of its own.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from durabletask.task import OrchestrationContext, Task, TimerTask, when_any

from orchestrators.answers import answer_of, retry_policy
from slicewatch.messages import BatchRequest, Inventory, InventoryRequest, Progress, ReviewPlan
from slicewatch.records import BatchResult, StudyStatus

CLOSE_EVENT = "close"
LOOKS_A_RUN = 100
"""Inventories in one run's history; then the loop drains and continues as new."""
OBJECTS_A_PAUSE_SECOND = 5000
"""An inventory takes longer the more objects there are: the pause before the next one grows with
them, so that looking stays the smaller part of the work at any size of study."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A whole study, screened: the last counts, and when its last object was noticed."""

    progress: Progress
    last_arrival: datetime
    forced: bool


def collect(
    ctx: OrchestrationContext, plan: ReviewPlan
) -> Generator[Task[Any], Any, Collected | ReviewPlan]:
    """Screen the study while it arrives, until it is complete and all of it is screened.

    Returns:
        `Collected`, or the plan to continue as new with when the history has grown long.
    """
    loop = _Loop(ctx, plan)
    while True:
        loop.refill()
        if loop.finished:
            return loop.collected()
        if loop.drained:
            return loop.next_plan()
        done = yield when_any(loop.waits())
        loop.take(done)
        ctx.set_custom_status(loop.progress().to_json())


class _Loop:
    """State of the loop. Replay builds it again from the history, so it may hold tasks."""

    def __init__(self, ctx: OrchestrationContext, plan: ReviewPlan) -> None:
        assert plan.started is not None
        self._ctx = ctx
        self._plan = plan
        self._retry = retry_policy(plan.retry)
        self._deadline = datetime.fromisoformat(plan.started) + timedelta(seconds=plan.force_s)
        self._changed = datetime.fromisoformat(plan.changed or plan.started)
        self._received = plan.received
        self._queue: deque[int] = deque()
        self._in_flight: list[Task[Any]] = []
        self._close: Task[Any] = ctx.wait_for_external_event(CLOSE_EVENT)
        self._timer: TimerTask | None = None
        self._look: Task[Any] | None = None
        self._looks = 0
        self._looked: datetime | None = None
        self._last: Inventory | None = None
        self._before: BatchResult | None = None
        self._done = BatchResult(-1, 0, 0, 0, 0)
        self._pause = plan.poll_s
        self._hurry = False

    # --- what to start next

    def refill(self) -> None:
        """Start what may run now: batches up to the bound, and an inventory or a timer to it."""
        while self._queue and len(self._in_flight) < self._plan.max_in_flight:
            request = BatchRequest(self._plan.study, self._queue.popleft())
            self._in_flight.append(self._call("screen_slices", request.to_json()))
        if self._look is not None or self._full:
            return
        last = self._last
        # Notes of arrivals may lack something: a study is complete by what is stored.
        if (
            self._hurry
            or last is None
            or last.more
            or (self._whole and (last.unassigned or not last.listed))
        ):
            self._start_look()
        elif not self._whole and self._timer is None:
            self._timer = self._ctx.create_timer(timedelta(seconds=self._wait_s()))

    def waits(self) -> list[Task[Any]]:
        """The tasks of which the next to finish moves the loop."""
        tasks: list[Task[Any]] = [self._close, *self._in_flight]
        return tasks + [task for task in (self._look, self._timer) if task is not None]

    def take(self, done: Task[Any]) -> None:
        """Take in a finished task. Raises TaskFailedError when an activity failed for good."""
        if done is self._close:
            self._close = self._ctx.wait_for_external_event(CLOSE_EVENT)
            # Look now, not when the timer fires; again if a look under way may have missed it.
            self._hurry = True
        elif done is self._timer:
            self._timer = None
            if self._look is None and not self._full:
                self._start_look()
        elif done is self._look:
            self._look = None
            self._take_inventory(answer_of(Inventory, done.get_result()))
        else:
            self._in_flight.remove(done)
            self._done = _sum(self._done, answer_of(BatchResult, done.get_result()))

    # --- where it stands

    @property
    def finished(self) -> bool:
        """Complete, and every object that was noticed is screened."""
        last = self._last
        return (
            last is not None
            and self._whole
            and not (self._queue or self._in_flight or self._look)
            and not (last.unassigned or last.more or not last.listed)
        )

    @property
    def drained(self) -> bool:
        """The history is long, and nothing is in flight that a new run would lose."""
        return self._full and not (self._queue or self._in_flight or self._look)

    def collected(self) -> Collected:
        """The result of a finished loop."""
        return Collected(self.progress(), self._changed, self._looked_at >= self._deadline)

    def next_plan(self) -> ReviewPlan:
        """The plan that a new run goes on with."""
        return dataclasses.replace(
            self._plan, received=self._received, changed=self._changed.isoformat()
        )

    def progress(self) -> Progress:
        """The custom status."""
        total = _sum(self._before or BatchResult(-1, 0, 0, 0, 0), self._done)
        return Progress(
            status=StudyStatus.SCREENING if self._whole else StudyStatus.RECEIVING,
            received=self._received,
            screened=total.screened,
            not_screened=total.not_screened,
            rejected=total.rejected,
            with_detections=total.with_detections,
            closed=bool(self._last and self._last.closed),
            missing=self._last.missing if self._last else 0,
        )

    @property
    def _looked_at(self) -> datetime:
        assert self._looked is not None
        return self._looked

    @property
    def _whole(self) -> bool:
        """Whether the last inventory was of a complete study: closed with nothing missing,
        quiet for long enough, or past the deadline.
        """
        if self._last is None:
            return False
        quiet = timedelta(seconds=self._plan.quiet_s)
        return (
            (self._last.closed and not self._last.missing)
            or self._looked_at - self._changed >= quiet
            or self._looked_at >= self._deadline
        )

    @property
    def _full(self) -> bool:
        return self._looks >= LOOKS_A_RUN and not self._whole

    def _start_look(self) -> None:
        # At the close nothing more is to be waited for: what is left makes a last, smaller batch.
        flush = self._whole or self._hurry
        self._hurry = False
        self._looks += 1
        after = self._last.last_batch if self._last else -1
        request = InventoryRequest(self._plan.study, after, flush=flush)
        self._look = self._call("take_inventory", request.to_json())

    def _take_inventory(self, inventory: Inventory) -> None:
        if self._before is None:
            self._before = inventory.done
        self._looked = self._ctx.current_utc_datetime
        self._last = inventory
        self._queue.extend(inventory.batches)
        if inventory.received != self._received:
            self._received, self._changed = inventory.received, self._looked
            self._pause = self._plan.poll_s
        else:
            self._pause = min(self._pause * 1.5, self._plan.max_poll_s)

    def _wait_s(self) -> float:
        """Until the next inventory: the pause, longer for many objects (`OBJECTS_A_PAUSE_SECOND`),
        but not past the end of quiet or the deadline.
        """
        now = self._ctx.current_utc_datetime
        quiet_ends = self._changed + timedelta(seconds=self._plan.quiet_s)
        ahead = min((quiet_ends - now).total_seconds(), (self._deadline - now).total_seconds())
        listing = min(self._received / OBJECTS_A_PAUSE_SECOND, self._plan.max_poll_s)
        return max(0.0, min(max(self._pause, listing), ahead))

    def _call(self, activity: str, request: dict[str, Any]) -> Task[Any]:
        return self._ctx.call_activity(activity, input=request, retry_policy=self._retry)


def _sum(a: BatchResult, b: BatchResult) -> BatchResult:
    return BatchResult(
        -1,
        a.screened + b.screened,
        a.not_screened + b.not_screened,
        a.rejected + b.rejected,
        a.with_detections + b.with_detections,
    )
