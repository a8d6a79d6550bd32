"""``plan_dataset``: images and annotations of a data set, joined."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df

from slicewatch import settings, storage
from slicewatch.dataset_messages import PreparationStep

bp = df.Blueprint()


@bp.activity_trigger(input_name="step")
def plan_dataset(step: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `PreparationStep`; output: `StepCounts`; the plan goes to blobs."""
    from slicewatch import dataset_making, model_registry

    wanted = PreparationStep.from_json(step)
    answer: dict[str, Any] = dataset_making.plan(
        storage.current(), settings.current(), model_registry.current(), wanted
    ).to_json()
    return answer
