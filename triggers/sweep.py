"""``sweep``: finds what a lost event or a crashed host left behind."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import azure.durable_functions as df
import azure.functions as func

from slicewatch import dataset_store, inventory, settings, storage
from slicewatch.storage import DROPBOX
from triggers.admission import admit_dropped, ensure_review, is_running, progress_of
from triggers.datasets import start_preparation

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
    """Start the orchestration of each unfinished study and data set that has none running, and
    admit blobs that were left in the dropbox.
    """
    store, config = storage.current(), settings.current()
    woken = 0
    for study, marked in inventory.open_studies_marked(store):
        if not _is_cared_for(client, store, study, marked):
            ensure_review(client, config, study)
            woken += 1
    for dataset in dataset_store.open_datasets(store):
        if not is_running(client.get_orchestration_state(dataset_store.instance_id(dataset))):
            start_preparation(client, config, dataset)
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
            "sweep: woke %d studies and data sets, admitted %d dropped blobs", woken, len(stale)
        )


def _is_cared_for(
    client: df.SyncDurableFunctionsClient, store: storage.Storage, study: str, marked: datetime
) -> bool:
    """Whether an orchestration works on the study, or waits with a review of all that came.

    One that waits for a decision does not look for more: a door that died between storing and
    telling it leaves objects that only this look finds. Nothing came when no door marked the
    study since the review was made, which spares the listing of a study that waits for days.
    """
    state = client.get_orchestration_state(inventory.instance_id(study))
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
