"""``take_inventory``: what came of a study, and which batches of it are to be screened."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import inventory, settings, storage
from slicewatch.messages import InventoryRequest

bp = df.Blueprint()


@bp.activity_trigger(input_name="request")
@only_transient_faults_raise
def take_inventory(request: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `InventoryRequest`; output: `Inventory`."""
    from slicewatch import model_registry

    app = settings.current()
    answer: dict[str, Any] = inventory.take(
        storage.current(),
        InventoryRequest.from_json(request),
        models_digest=model_registry.current().digest,
        batch_size=app.batch_size,
        batch_wait_s=app.batch_wait_s,
    ).to_json()
    return answer
