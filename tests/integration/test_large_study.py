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
LESION = range(1_000, 1_031)
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


def large_study(seed: int) -> tuple[str, dict[str, bytes]]:
    """A study and its slices of 32 x 32 pixels by SOP instance UID, made from one that is
    written properly: its numbers are replaced by others of the same length.
    """
    first = studies.ct_image(studies.body_slice(32, 32), seed=seed, number=1000)
    first.SOPInstanceUID = "2.25.100000"
    template = studies.to_bytes(first)
    pixels = first.PixelData
    objects = {}
    for n in range(SLICES):
        uid, number, position = f"2.25.{100_000 + n}", f"{1000 + n}", f"{3.0 * (1000 + n)}"
        shown = studies.body_slice(32, 32, seed=seed + n, lesion=n in LESION)
        objects[uid] = (
            template.replace(b"2.25.100000", uid.encode())
            .replace(b"\\3000.0", b"\\" + position.encode())
            .replace(b"IS\4\0" + b"1000", b"IS\4\0" + number.encode())
            .replace(pixels, shown.tobytes())
        )
    assert {len(one) for one in objects.values()} == {len(template)}
    return first.StudyInstanceUID, objects


@pytest.mark.timeout(400)  # 5,000 objects are sent; a busy machine takes its time
def test_messages_stay_small_and_the_history_short(tmp_path: Path, models: Path, seed: int) -> None:
    settings = {
        # As shipped: a short pause between inventories would be a longer history.
        "SLICEWATCH_POLL_SECONDS": "",
        "SLICEWATCH_MAX_POLL_SECONDS": "",
        "SLICEWATCH_BATCH_WAIT_SECONDS": "",
        "SLICEWATCH_SWEEP_SCHEDULE": "",
    }
    study, objects = large_study(seed)
    with RunningApp(tmp_path, models, settings) as app:
        app.send(study, objects, chunk=250)
        review = app.await_review(study, seconds=120)
        assert review.coverage.screened == SLICES
        assert review.status is StudyStatus.FLAGGED
        assert len(review.findings[0].slices) == len(LESION)
        assert review.integrity == ()
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
