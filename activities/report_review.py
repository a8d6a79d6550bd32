"""``report_review``: a review as DICOM objects, stored beside it."""

from __future__ import annotations

import logging

import azure.durable_functions as df

from activities.faults import TRANSIENT, only_transient_faults_raise
from slicewatch import settings, storage
from slicewatch.report_messages import ReportRequest

bp = df.Blueprint()
_log = logging.getLogger(__name__)


@bp.activity_trigger(input_name="request")
@only_transient_faults_raise
def report_review(request: dict) -> dict:  # type: ignore[type-arg]  # the worker wants bare types
    """Input: `ReportRequest`; output: `Reported`. What is there already is left as it is."""
    from slicewatch import inventory
    from slicewatch.limits import Limits
    from slicewatch.reporting import delivery, making, stored

    wanted = ReportRequest.from_json(request)
    store, config = storage.current(), settings.current()
    stored.touch(store, wanted.study, wanted.generation)
    try:
        outcome = making.make(store, wanted.study, wanted.generation, Limits.of(config))
    except TRANSIENT:
        raise
    except Exception as error:
        # Said in the study's status: the flag stands without it, and another try would not help.
        fault = stored.Outcome(fault=type(error).__name__)
        stored.note_outcome(store, wanted.study, wanted.generation, fault)
        stored.close_report(store, wanted.study, wanted.generation)
        raise
    stored.note_outcome(store, wanted.study, wanted.generation, outcome)
    if outcome.remarks:
        study = inventory.instance_id(wanted.study)
        _log.warning("the report of %s leaves out: %s", study, "; ".join(outcome.remarks))
    reported = delivery.reported(store, config, wanted.study, wanted.generation)
    if not reported.unsent:
        stored.close_report(store, wanted.study, wanted.generation)
    return reported.to_json()
