"""How an orchestrator calls activities: tried again at transient faults, and no others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from durabletask.task import RetryPolicy

from slicewatch.messages import Fault, Retry
from slicewatch.record import Record


class FinalFault(Exception):
    """An activity answered that it failed, and would again."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.activity} failed for good: {fault.fault}")


def retry_policy(retry: Retry) -> RetryPolicy:
    """The retry policy of an activity call: activities raise at transient faults only."""
    return RetryPolicy(
        first_retry_interval=timedelta(seconds=retry.first_s),
        max_number_of_attempts=retry.attempts,
        backoff_coefficient=2.0,
        max_retry_interval=timedelta(minutes=5),
    )


def answer_of[T: Record](kind: type[T], answer: dict[str, Any]) -> T:
    """An activity's answer as its record. Raises `FinalFault` where the answer is a `Fault`."""
    if "fault" in answer:
        raise FinalFault(Fault.from_json(answer))
    return kind.from_json(answer)
