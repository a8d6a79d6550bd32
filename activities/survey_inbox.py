"""``survey_inbox``: what came for a data set, and what describes it."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df

from slicewatch import settings, storage
from slicewatch.dataset_messages import PreparationStep

bp = df.Blueprint()


@bp.activity_trigger(input_name="step")
def survey_inbox(step: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `PreparationStep`; output: `InboxSurvey`; only the data set of the step counts."""
    from slicewatch import dataset_intake

    wanted = PreparationStep.from_json(step)
    answer: dict[str, Any] = dataset_intake.survey(
        storage.current(), settings.current(), wanted.dataset
    ).to_json()
    return answer
