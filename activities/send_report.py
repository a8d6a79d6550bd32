"""``send_report``: what was made of a review, to the PACS."""

from __future__ import annotations

import logging

import azure.durable_functions as df

from activities.faults import only_transient_faults_raise
from slicewatch import settings, storage
from slicewatch.report_messages import ReportRequest

bp = df.Blueprint()
_log = logging.getLogger(__name__)


@bp.activity_trigger(input_name="request")
@only_transient_faults_raise
def send_report(request: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `ReportRequest`; output: `Delivered`. Raises while the PACS does not answer; what it
    refuses is noted, and not sent again.
    """
    from slicewatch import inventory
    from slicewatch.reporting import delivery, stored

    wanted = ReportRequest.from_json(request)
    store, config = storage.current(), settings.current()
    stored.touch(store, wanted.study, wanted.generation)
    delivered = delivery.send(store, config, wanted.study, wanted.generation)
    stored.close_report(store, wanted.study, wanted.generation)
    if delivered.refused:
        study = inventory.instance_id(wanted.study)
        _log.warning("the PACS refused %d results of %s", delivered.refused, study)
    return delivered.to_json()
