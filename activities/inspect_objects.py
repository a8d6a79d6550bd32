"""``inspect_objects``: one batch of a data set's objects, read and decoded."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df

from slicewatch import settings, storage
from slicewatch.dataset_messages import PreparationStep

bp = df.Blueprint()


@bp.activity_trigger(input_name="step")
def inspect_objects(step: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `PreparationStep`; output: `StepCounts`; the records go to a blob."""
    from slicewatch import dataset_intake, model_registry

    wanted = PreparationStep.from_json(step)
    answer: dict[str, Any] = dataset_intake.inspect(
        storage.current(), settings.current(), model_registry.current(), wanted
    ).to_json()
    return answer
