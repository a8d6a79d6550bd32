"""Bring a generation's results to the PACS, and keep what it said of each."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from slicewatch import custody, custody_events
from slicewatch.report_messages import Delivered, Reported
from slicewatch.reporting import sending, stored
from slicewatch.reporting.sending import PacsUnavailable
from slicewatch.reporting.stored import Delivery
from slicewatch.settings import Settings
from slicewatch.storage import REVIEWS, BlobInfo, Storage

MAX_OBJECTS = 16
"""Objects of one transaction: a few MB each."""


def waiting(storage: Storage, study: str, generation: int) -> list[BlobInfo]:
    """The results that the PACS neither took nor refused."""
    known = stored.deliveries(storage, study, generation)
    return [
        blob
        for blob in stored.of_generation(storage, study, generation)
        if blob.name not in known or known[blob.name].state == "waiting"
    ]


def reported(storage: Storage, settings: Settings, study: str, generation: int) -> Reported:
    """How many results there are, and how many are to be sent."""
    unsent = waiting(storage, study, generation) if settings.pacs_url else []
    return Reported(len(stored.of_generation(storage, study, generation)), len(unsent))


def send(storage: Storage, settings: Settings, study: str, generation: int) -> Delivered:
    """Send what waits; what was sent or refused before is left alone.

    Raises:
        PacsUnavailable: to be tried again; what it said of some objects is kept.
        StorageUnavailable: to be tried again; an object may be sent twice, which changes nothing.
    """
    sent = refused = 0
    blobs = waiting(storage, study, generation)
    for start in range(0, len(blobs), MAX_OBJECTS):
        part = {blob.metadata[stored.INSTANCE]: blob for blob in blobs[start : start + MAX_OBJECTS]}
        data = {uid: storage.read(REVIEWS, blob.name) for uid, blob in part.items()}
        try:
            answers = sending.store(settings, data)
        except PacsUnavailable as error:
            _keep(storage, settings, study, part, error.refused)
            late = Delivery("waiting", stored.now(), str(error))
            for uid in part.keys() - error.refused.keys():
                stored.note_delivery(storage, part[uid].name, late)
            raise
        _keep(storage, settings, study, part, answers)
        refused += sum(bool(reason) for reason in answers.values())
        sent += sum(not reason for reason in answers.values())
    return Delivered(sent, refused)


def _keep(
    storage: Storage,
    settings: Settings,
    study: str,
    blobs: dict[str, BlobInfo],
    answers: Mapping[str, str],
) -> None:
    """Log what was taken, then note each answer: a log that cannot be written is tried again."""
    taken = {
        blobs[uid].name.removeprefix(f"{study}/"): blobs[uid].metadata[stored.SHA256]
        for uid, reason in answers.items()
        if not reason
    }
    if taken:
        host = urlsplit(settings.pacs_url).hostname or ""
        custody.of(storage, settings).append(study, custody_events.sent(host, taken))
    for uid, reason in answers.items():
        told = Delivery("refused" if reason else "sent", stored.now(), reason)
        stored.note_delivery(storage, blobs[uid].name, told)
