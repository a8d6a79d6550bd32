"""A study of 2,000 slices costs the durable engine little: small messages, a short history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slicewatch.records import StudyStatus
from tests import studies
from tests.integration.running_app import RunningApp

SLICES = 2_000
LARGEST_MESSAGE = 16 << 10
MOST_EVENTS_A_SLICE = 0.5

# The history endpoint leaves out the two events around each turn of the orchestrator, and shows
# what is scheduled and its outcome as one.
_TURNS = ("ExecutionStarted", "TaskCompleted", "TaskFailed", "TimerFired", "EventRaised")
_PAIRS = ("TaskCompleted", "TaskFailed")


def event_bound(history: list[dict[str, Any]]) -> int:
    """At most so many events are in the stored history: each outcome with its schedule, and each
    that wakes the orchestrator with a turn of its own.
    """
    kinds = [event["EventType"] for event in history]
    return (
        len(kinds)
        + sum(kind in _PAIRS for kind in kinds)
        + 2 * sum(kind in _TURNS for kind in kinds)
    )


def messages(instance: dict[str, Any]) -> list[str]:
    """Every payload that went through the engine: inputs, results, events, custom status."""
    payloads = [instance["input"], instance["output"], instance["customStatus"]]
    for event in instance["historyEvents"]:
        payloads += [event.get(key) for key in ("Input", "Result", "Output", "Data")]
    return [one if isinstance(one, str) else json.dumps(one) for one in payloads if one is not None]


def test_messages_stay_small_and_the_history_short(tmp_path: Path, models: Path, seed: int) -> None:
    settings = {
        # As shipped: a short pause between inventories would be a longer history.
        "SLICEWATCH_POLL_SECONDS": "",
        "SLICEWATCH_MAX_POLL_SECONDS": "",
        "SLICEWATCH_BATCH_WAIT_SECONDS": "",
    }
    lesion = range(1_000, 1_031)
    series = studies.ct_series(SLICES, seed=seed, rows=32, columns=32, lesion=lesion)
    objects = {one.SOPInstanceUID: studies.to_bytes(one) for one in series}
    study = studies.new_uid("study", seed)
    with RunningApp(tmp_path, models, settings) as app:
        app.send(study, objects, chunk=250)
        review = app.await_review(study, seconds=120)
        assert review.coverage.screened == SLICES
        assert review.status is StudyStatus.FLAGGED
        app.decide(app.worklist(study)[0].id)
        app.await_end(study)
        instance = app.instance(
            study, showInput="true", showHistory="true", showHistoryOutput="true"
        )
    history = instance["historyEvents"]
    batches = [one for one in history if one.get("FunctionName") == "screen_slices"]
    assert len(batches) >= SLICES / 256, "the history is not of the whole study"
    assert event_bound(history) / SLICES < MOST_EVENTS_A_SLICE
    sizes = [len(one.encode()) for one in messages(instance)]
    assert len(sizes) > 2 * len(batches), "the history has no payloads"
    assert max(sizes) < LARGEST_MESSAGE


@pytest.mark.parametrize("missing", ["TaskCompleted", "TimerFired"])
def test_the_bound_counts_what_the_endpoint_leaves_out(missing: str) -> None:
    assert event_bound([{"EventType": missing}]) == (4 if missing == "TaskCompleted" else 3)
