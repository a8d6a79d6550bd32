"""``assess_study``: from slice results to the review of a study's next generation."""

from __future__ import annotations

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import storage
from slicewatch.messages import AssessRequest

bp = df.Blueprint()


@bp.activity_trigger(input_name="request")
@only_transient_faults_raise
def assess_study(request: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `AssessRequest`; output: `Assessment`. The review goes to ``review.json``."""
    from slicewatch import assessment, model_registry, triage

    return assessment.assess(
        storage.current(),
        AssessRequest.from_json(request),
        registry=model_registry.current(),
        policy=triage.current(),
    ).to_json()
