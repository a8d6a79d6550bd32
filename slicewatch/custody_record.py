"""Write the steps of a study's way into its custody log, where they happen.

Each is called after its step and before that is answered: a step whose entry cannot be written
is not acknowledged, its caller tries again, and nothing is written twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from slicewatch import (
    corrections,
    custody,
    custody_chain,
    custody_events,
    inventory,
    worklist,
)
from slicewatch.arrival import Receipt
from slicewatch.corrections import Correction
from slicewatch.custody import Event, Log
from slicewatch.model_registry import Registry
from slicewatch.records import BatchResult, Review
from slicewatch.settings import Settings
from slicewatch.storage import REVIEWS, Storage
from slicewatch.worklist import Item, Reader


def arrivals(
    storage: Storage,
    settings: Settings,
    receipts: Iterable[Receipt],
    *,
    door: str,
    sender: Mapping[str, str],
) -> None:
    """One request's objects: one append for each study, and one for those of no known study.

    Raises `StorageUnavailable`.
    """
    log = custody.of(storage, settings)
    for study, told in custody_events.arrived(receipts, door=door, sender=sender).items():
        log.append(study or custody.unassigned(datetime.now(UTC).date()), told)


def screening(
    storage: Storage, settings: Settings, study: str, counts: BatchResult, registry: Registry
) -> None:
    """One batch, with its results as they are stored. Raises `StorageUnavailable`."""
    name = inventory.results_name(study, counts.batch, registry.digest)
    content = storage.read(REVIEWS, name)
    used = {one["model"] for one in json.loads(content)}
    told = custody_events.screened(
        counts,
        results=name.removeprefix(f"{study}/"),
        content=content,
        models=[f"{one.key}:{one.sha256}" for one in registry.models if one.key in used],
        registry=registry.digest,
    )
    custody.of(storage, settings).append(study, told)


def publication(storage: Storage, settings: Settings, study: str, generation: int) -> None:
    """A review that is published, and objects whose arrival could not be logged.

    Raises `StorageUnavailable`.
    """
    log = custody.of(storage, settings)
    found(storage, log, study)
    content = storage.read(REVIEWS, inventory.review_name(study, generation))
    log.append(study, custody_events.assessed(Review.from_json(json.loads(content)), content))


def found(storage: Storage, log: Log, study: str) -> None:
    """Log the objects in storage that no entry lists. Raises `StorageUnavailable`."""
    # Listed first: what comes after the listing is logged by the door that stores it.
    blobs = inventory.received(storage, study)
    logged: set[str] = set()
    for line in log.lines(study):
        try:
            body = custody_chain.parse(line).body
        except custody_chain.Broken:
            continue  # `verify` names it
        if body.get("event") == Event.STORED:
            logged |= body["data"]["objects"].keys()
    log.append(study, custody_events.found(study, blobs, logged))


def viewing(
    storage: Storage, settings: Settings, study: str, viewer: Mapping[str, str], item: str = ""
) -> None:
    """What a viewer is given today of a study: the first time costs an append, the others nothing.

    Raises `StorageUnavailable`.
    """
    told = custody_events.viewed(viewer, datetime.now(UTC).date().isoformat(), item)
    custody.of(storage, settings).append(study, told)


def claim(storage: Storage, settings: Settings, item: str, reader: Reader) -> Item:
    """`worklist.claim`, logged; a claim whose entry failed is logged by what follows it."""
    claimed = worklist.claim(storage, item, reader)
    told = custody_events.item_claimed(claimed, actor(reader))
    custody.of(storage, settings).append(claimed.study, told)
    return claimed


def release(
    storage: Storage, settings: Settings, item: str, reader: Reader, *, anybodys: bool = False
) -> Item:
    """`worklist.release`, logged before it is done: a released item cannot be released again,
    so a request that is repeated would find no way to make up for a missing entry.
    """
    found = worklist.get(storage, item)
    if found.is_held_by(reader) or (anybodys and found.state == "claimed"):
        told = custody_events.item_released(found, actor(reader))
        custody.of(storage, settings).append(found.study, told)
    return worklist.release(storage, item, reader, anybodys=anybodys)


def decide(
    storage: Storage, settings: Settings, item: str, reader: Reader, decision: dict[str, Any]
) -> Item:
    """`worklist.decide`, logged, with the claim in case its entry was lost; the lane is told of
    what waits for the next reader.
    """
    before = worklist.get(storage, item)
    decided = worklist.decide(storage, item, reader, decision)
    claimed = custody_events.item_claimed(before) if before.is_held_by(reader) else []
    number = next(
        number
        for number, one in enumerate(decided.readings, start=1)
        if (one.reader, one.decision) == (reader.user, decision)
    )
    told = [*claimed, *custody_events.item_read(decided, number, actor(reader))]
    custody.of(storage, settings).append(decided.study, told)
    worklist.notify(storage, decided)
    return decided


def correct(
    storage: Storage,
    settings: Settings,
    item: str,
    reader: Reader,
    decision: dict[str, Any],
    reason: str,
) -> tuple[Item, Correction]:
    """`corrections.correct`, logged."""
    found, made = corrections.correct(storage, item, reader, decision, reason)
    told = custody_events.item_corrected(found, made, actor(reader))
    custody.of(storage, settings).append(found.study, told)
    return found, made


def actor(reader: Reader) -> dict[str, str]:
    """Who acted, as an entry says it."""
    told = {"reader": reader.user}
    if reader.name != reader.user:
        told["name"] = reader.name
    if reader.lock:
        told["door"] = "ups-rs"
    if reader.development:
        told["identity"] = "development"
    return told
