"""``sweep``: finds what a lost event or a crashed host left behind."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import azure.durable_functions as df
import azure.functions as func
from durabletask.client import OrchestrationState, OrchestrationStatus

from slicewatch import dataset_store, inventory, settings, storage, unfinished
from slicewatch.reporting import stored
from slicewatch.settings import Settings
from slicewatch.storage import DROPBOX
from slicewatch.unfinished import Failure
from triggers.admission import admit_dropped, ensure_review, is_running, progress_of
from triggers.datasets import start_preparation
from triggers.reporting import start_report

bp = df.Blueprint()
_log = logging.getLogger(__name__)

_DROP_IS_STALE = timedelta(minutes=10)
"""A dropped blob this old is one that its events did not get admitted: their tries are over."""
_CLOCKS_DIFFER = timedelta(minutes=5)
"""By how much the account's clock and a function's may differ."""


# It also runs when an instance starts, which is when a crash is over; it is cheap to run it often.
@bp.timer_trigger(arg_name="timer", schedule=settings.current().sweep_schedule, run_on_startup=True)
@bp.durable_client_input(client_name="client")
def sweep(timer: func.TimerRequest, client: df.SyncDurableFunctionsClient) -> None:
    """Start the orchestration of each unfinished study and data set that has none running, those
    that failed at growing intervals, have results made and sent that were left behind, and admit
    blobs that were left in the dropbox.
    """
    store, config = storage.current(), settings.current()
    woken = 0
    failures = {one.study: one for one in unfinished.failures(store)}
    for study, marked in unfinished.open_studies(store):
        state = client.get_orchestration_state(inventory.instance_id(study))
        failure = failures.pop(study, None)
        if failure is not None and progress_of(state).get("published"):
            unfinished.forget_failure(store, study)
        if not _is_cared_for(state, store, study, marked) and not _rests(
            state, store, config, study, failure
        ):
            ensure_review(client, config, study)
            woken += 1
    for study in failures:  # finished meanwhile
        unfinished.forget_failure(store, study)
    for dataset in dataset_store.open_datasets(store):
        if not is_running(client.get_orchestration_state(dataset_store.instance_id(dataset))):
            start_preparation(client, config, dataset)
            woken += 1
    for report in stored.unfinished(store):
        if report.is_due(datetime.now(UTC)):
            stored.open_report(store, report.study, report.generation, tries=report.tries + 1)
            start_report(client, config, report.study, report.generation, "sweep")
            woken += 1
    stale = [
        blob.name
        for blob in store.listing(DROPBOX)
        if datetime.now(UTC) - blob.last_modified > _DROP_IS_STALE
    ]
    for name in stale:
        admit_dropped(client, store, config, name)
    if woken or stale:
        _log.info(
            "sweep: woke %d studies, data sets and reports, admitted %d dropped blobs",
            woken,
            len(stale),
        )


def _is_cared_for(
    state: OrchestrationState | None, store: storage.Storage, study: str, marked: datetime
) -> bool:
    """Whether an orchestration works on the study, or waits with a review of all that came.

    One that waits for a decision does not look for more: a door that died between storing and
    telling it leaves objects that only this look finds. Nothing came when no door marked the
    study since the review was made, which spares the listing of a study that waits for days.
    """
    if not is_running(state):
        return False
    progress = progress_of(state)
    if not progress.get("published"):
        return True
    assessed = progress.get("assessed")
    if assessed and marked + _CLOCKS_DIFFER < datetime.fromisoformat(assessed):
        return True
    review = inventory.latest_review(store, study)
    return review is not None and inventory.covers(store, study, review.content_digest)


def _rests(
    state: OrchestrationState | None,
    store: storage.Storage,
    config: Settings,
    study: str,
    failure: Failure | None,
) -> bool:
    """Whether the study's orchestration failed, and it is too early to start it again."""
    if state is None or state.runtime_status is not OrchestrationStatus.FAILED:
        return False
    ended = state.last_updated_at.replace(tzinfo=UTC)
    if failure is None or failure.last < ended:
        failure = unfinished.note_failure(store, study, failure, ended)
        _log.error(
            "sweep: %s failed %d times in a row; it is started again after %s",
            inventory.instance_id(study),
            failure.attempts,
            failure.due(config.failed_study_pause_s).isoformat(timespec="seconds"),
        )
    return datetime.now(UTC) < failure.due(config.failed_study_pause_s)
