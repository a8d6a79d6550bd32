"""``plan_evidence``: what an evidence bundle is to hold, in parts that are packed one by one."""

from __future__ import annotations

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import settings, storage

bp = df.Blueprint()


@bp.activity_trigger(input_name="request")
@only_transient_faults_raise
def plan_evidence(request: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: ``{"study", "export"}``; output: `EvidenceParts`. The plan goes to a blob."""
    from slicewatch import custody, evidence

    store = storage.current()
    log = custody.of(store, settings.current())
    return evidence.plan(store, log, request["study"], request["export"]).to_json()
