"""``build_evidence``: the export's entry in the custody log, and the finished bundle."""

from __future__ import annotations

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import settings, storage

bp = df.Blueprint()


@bp.activity_trigger(input_name="request")
@only_transient_faults_raise
def build_evidence(request: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: ``{"study", "export", "requester"}``; output: `Evidence`."""
    from slicewatch import custody, evidence

    store = storage.current()
    log = custody.of(store, settings.current())
    return evidence.build(
        store, log, request["study"], request["export"], request["requester"]
    ).to_json()
