"""``publish_review``: a review's items on the worklist, and a message on their lanes' queues."""

from __future__ import annotations

import azure.durable_functions as df

from slicewatch import storage
from slicewatch.records import Assessment

bp = df.Blueprint()


@bp.activity_trigger(input_name="assessment")
def publish_review(assessment: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `Assessment`; output: `Published`. Earlier generations' items are superseded."""
    from slicewatch import publication

    return publication.publish(storage.current(), Assessment.from_json(assessment)).to_json()
