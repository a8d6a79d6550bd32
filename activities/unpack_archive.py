"""``unpack_archive``: an archive of a data set's inbox, taken apart."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df

from slicewatch import settings, storage
from slicewatch.dataset_messages import PreparationStep

bp = df.Blueprint()


@bp.activity_trigger(input_name="step")
def unpack_archive(step: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `PreparationStep`; output: `StepCounts`; the objects go to blobs."""
    from slicewatch import dataset_intake

    wanted = PreparationStep.from_json(step)
    answer: dict[str, Any] = dataset_intake.unpack(
        storage.current(), settings.current(), wanted
    ).to_json()
    return answer
