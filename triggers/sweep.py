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


# It also runs when an instance starts, which is when a crash is over; it is cheap to run it often.
@bp.timer_trigger(arg_name="timer", schedule=settings.current().sweep_schedule, run_on_startup=True)
@bp.durable_client_input(client_name="client")
def sweep(timer: func.TimerRequest, client: df.SyncDurableFunctionsClient) -> None:
    """Start the orchestration of each unfinished study that has none running, and admit blobs
    that were left in the dropbox.
    """
    store, config = storage.current(), settings.current()
    woken = 0
    for study in inventory.open_studies(store):
        if not _is_cared_for(client, store, study):
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
        _log.info("sweep: woke %d studies, admitted %d dropped blobs", woken, len(stale))


def _is_cared_for(
    client: df.SyncDurableFunctionsClient, store: storage.Storage, study: str
) -> bool:
    """Whether an orchestration works on the study, or waits with a review of all that came.

    One that waits for a decision does not look for more: a door that died between storing and
    telling it leaves objects that only this look finds.
    """
    state = client.get_orchestration_state(inventory.instance_id(study))
    if not is_running(state):
        return False
    if not progress_of(state).get("published"):
        return True
    review = inventory.latest_review(store, study)
    return review is not None and inventory.covers(store, study, review.content_digest)
