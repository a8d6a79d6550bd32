"""``batch_objects``: all objects of a data set, in batches."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df

from slicewatch import settings, storage
from slicewatch.dataset_messages import PreparationStep

bp = df.Blueprint()


@bp.activity_trigger(input_name="step")
def batch_objects(step: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `PreparationStep`; output: `StepCounts`; the batches go to blobs."""
    from slicewatch import dataset_intake

    wanted = PreparationStep.from_json(step)
    answer: dict[str, Any] = dataset_intake.batch(
        storage.current(), settings.current(), wanted
    ).to_json()
    return answer
