"""Wait for a person: the items of a published review against their service levels.

A plain generator inside ``review_study``, apart from it because it is an event loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import Any

from durabletask.task import OrchestrationContext, Task, TimerTask, when_any

from orchestrators.answers import answer_of, retry_policy
from slicewatch.messages import Escalation, ItemState, ReviewPlan, WaitingItem

DECISION_EVENT = "decision"
LATE_EVENT = "late"
LAST_LEVEL_LOOK = timedelta(days=1)
"""At the last level nothing rises further; the item is still looked at this often, in case the
event of its decision was lost."""

type Covers = Callable[[], Generator[Task[Any], Any, bool]]
type Decided = Callable[[WaitingItem], None]


def await_decisions(
    ctx: OrchestrationContext,
    plan: ReviewPlan,
    items: tuple[WaitingItem, ...],
    covers: Covers,
    on_decided: Decided,
) -> Generator[Task[Any], Any, bool]:
    """Wait until every item is decided, escalating those whose time runs out.

    Events: ``decision`` with ``{"item": id}``; ``late`` when something came after publication.

    Args:
        covers: whether the review still covers the study.
        on_decided: told of each item that is decided, at once.

    Returns:
        ``True`` when all are decided, ``False`` when the review no longer covers the study.
    """
    waiting = {item.item: item for item in items}
    levels = dict.fromkeys(waiting, 0)
    timers = {name: ctx.create_timer(_due(ctx, plan, waiting[name], 0)) for name in waiting}
    decision = ctx.wait_for_external_event(DECISION_EVENT)
    late = ctx.wait_for_external_event(LATE_EVENT)
    covered = yield from covers()
    while covered and waiting:
        done = yield when_any([decision, late, *timers.values()])
        if done is late:
            late = ctx.wait_for_external_event(LATE_EVENT)
            covered = yield from covers()
        elif done is decision:
            decided = done.get_result()
            decision = ctx.wait_for_external_event(DECISION_EVENT)
            name = decided.get("item") if isinstance(decided, dict) else None
            if name in waiting:
                on_decided(waiting[name])
            _forget(name, waiting, timers)
        else:
            name = next(name for name, timer in timers.items() if timer is done)
            levels[name] = min(levels[name] + 1, plan.max_escalation)
            state = yield from _escalate(ctx, plan, name, levels[name])
            if state.state == "decided":
                on_decided(waiting[name])
            if state.state in ("decided", "superseded"):
                _forget(name, waiting, timers)
            else:
                due = _due(ctx, plan, waiting[name], levels[name])
                timers[name] = ctx.create_timer(due)
    for name in list(waiting):
        _forget(name, waiting, timers)
    return covered


def _escalate(
    ctx: OrchestrationContext, plan: ReviewPlan, item: str, level: int
) -> Generator[Task[Any], Any, ItemState]:
    answer = yield ctx.call_activity(
        "escalate_item",
        input=Escalation(item, level).to_json(),
        retry_policy=retry_policy(plan.retry),
    )
    return answer_of(ItemState, answer)


def _forget(
    name: str | None, waiting: dict[str, WaitingItem], timers: dict[str, TimerTask]
) -> None:
    """No longer wait for an item; an event for an item that is not waited for does nothing."""
    if name in waiting:
        del waiting[name]
        timers.pop(name).cancel()


def _due(ctx: OrchestrationContext, plan: ReviewPlan, item: WaitingItem, level: int) -> datetime:
    """When the next level is reached, naive UTC as the context's clock, counted from the item's
    creation: a restart of the orchestration gives nobody more time.
    """
    now = ctx.current_utc_datetime
    if level >= plan.max_escalation:
        return now + LAST_LEVEL_LOOK
    created = datetime.fromisoformat(item.created).replace(tzinfo=None)
    return max(now, created + timedelta(seconds=plan.sla_s[item.lane] * (level + 1)))
