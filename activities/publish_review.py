"""``publish_review``: a review's items on the worklist, and a message on their lanes' queues."""

from __future__ import annotations

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import settings, storage
from slicewatch.messages import Assessment

bp = df.Blueprint()


@bp.activity_trigger(input_name="assessment")
@only_transient_faults_raise
def publish_review(assessment: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `Assessment`; output: `Published`. Earlier generations' items are superseded."""
    from slicewatch import custody_record, publication
    from slicewatch.reporting import stored

    store, review = storage.current(), Assessment.from_json(assessment)
    published = publication.publish(store, settings.current(), review)
    # Whatever ends the orchestration from here on, the sweep has the results made.
    stored.open_report(store, review.study, review.generation)
    custody_record.publication(store, settings.current(), review.study, review.generation)
    return published.to_json()
