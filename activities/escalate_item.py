"""``escalate_item``: a worklist item whose service level ran out rises, and its lane is told."""

from __future__ import annotations

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import storage, worklist
from slicewatch.messages import Escalation, ItemState

bp = df.Blueprint()


@bp.activity_trigger(input_name="escalation")
@only_transient_faults_raise
def escalate_item(escalation: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `Escalation`; output: `ItemState`, unchanged when the item is decided already."""
    wanted = Escalation.from_json(escalation)
    item = worklist.escalate(storage.current(), wanted.item, wanted.level)
    worklist.notify(storage.current(), item)
    return ItemState(item.id, item.state, item.level).to_json()
