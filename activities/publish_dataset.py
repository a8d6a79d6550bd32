"""``publish_dataset``: a data set, checked, with its manifests."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df

from slicewatch import settings, storage
from slicewatch.dataset_messages import PreparationStep

bp = df.Blueprint()


@bp.activity_trigger(input_name="step")
def publish_dataset(step: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `PreparationStep`; output: `DatasetOutcome`."""
    from slicewatch import dataset_making

    wanted = PreparationStep.from_json(step)
    answer: dict[str, Any] = dataset_making.publish(
        storage.current(), settings.current(), wanted
    ).to_json()
    return answer
