"""What the custody log says of each step of a study's way, in the words of its entries.

Each function makes the happenings of one step, with keys that depend on the step alone: told
again, a step is in the log already. ``python -m slicewatch.custody verify`` reads the same data
back: the objects of `arrived` and `found`, the files of `screened` and `assessed`, the decisions
and corrections of `item_read` and `item_corrected`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from slicewatch import custody_chain
from slicewatch.arrival import Receipt
from slicewatch.corrections import Correction
from slicewatch.custody import Event, Happening
from slicewatch.records import BatchResult, Review
from slicewatch.storage import BlobInfo
from slicewatch.worklist import Item

OBJECTS_AN_ENTRY = 4000
"""Objects that one entry lists: keeps it under the size of a block."""

type Objects = dict[str, list[Any]]
"""Stored: name in ``incoming`` without the study → [SHA-256, bytes]. Rejected: SHA-256 →
[bytes, reason, name in ``quarantine``].
"""


def arrived(
    receipts: Iterable[Receipt], *, door: str, sender: Mapping[str, str]
) -> dict[str, list[Happening]]:
    """``received``, ``stored`` and ``rejected`` of the objects of one request, by their studies.

    What was rejected and names no study that could be read is told under the study "". The same
    objects from the same sender through the same door are one happening: a request that is
    repeated because its answer was lost adds nothing.
    """
    stored: defaultdict[str, Objects] = defaultdict(dict)
    rejected: defaultdict[str, Objects] = defaultdict(dict)
    for one in receipts:
        study = one.study_instance_uid
        if one.reason is None and not one.blob:
            continue  # a result of the study's own that came back: it was stored when it was made
        if one.reason is None:
            name = one.blob.removeprefix(f"{study}/")
            stored[study][name] = [one.sha256, one.size]
        elif one.sha256:  # what has no bytes of its own is part of something that has
            rejected[study][one.sha256] = [one.size, one.reason.value, one.quarantine]
    actor = {"door": door, **sender}
    told: defaultdict[str, list[Happening]] = defaultdict(list)
    for study, objects in stored.items():
        told[study] += _arrival(objects, actor)
    for study, objects in rejected.items():
        told[study] += _rejection(objects, actor)
    return told


def _arrival(objects: Objects, actor: Mapping[str, str]) -> Iterator[Happening]:
    content = custody_chain.digest(objects)
    key = custody_chain.digest([content, dict(actor)])
    data = {
        "objects": len(objects),
        "bytes": sum(size for _, size in objects.values()),
        "content_sha256": content,
    }
    yield Happening(Event.RECEIVED, f"received:{key}", actor, data)
    yield from _listed(Event.STORED, objects, f"stored:{key}", {"door": actor["door"]})


def _listed(
    event: Event, objects: Objects, key: str, actor: Mapping[str, str]
) -> Iterator[Happening]:
    names = sorted(objects)
    for start in range(0, len(names), OBJECTS_AN_ENTRY):
        part = {name: objects[name] for name in names[start : start + OBJECTS_AN_ENTRY]}
        yield Happening(event, f"{key}:{start}", actor, {"objects": part})


def _rejection(objects: Objects, actor: Mapping[str, str]) -> Iterator[Happening]:
    # Not where it was put: that has the day in its name, and the same object may come again.
    content = {sha256: [size, reason] for sha256, (size, reason, _) in objects.items()}
    key = f"rejected:{custody_chain.digest([content, dict(actor)])}"
    yield from _listed(Event.REJECTED, objects, key, actor)


def found(study: str, blobs: Iterable[BlobInfo], logged: Iterable[str]) -> list[Happening]:
    """``stored`` of objects that are in storage and that no entry lists: the request that brought
    them ended before it was logged. Their entry says that they were found.
    """
    known = set(logged)
    objects: Objects = {
        name: [blob.metadata.get("sha256", ""), blob.size]
        for blob in blobs
        if (name := blob.name.removeprefix(f"{study}/")) not in known
    }
    key = f"found:{custody_chain.digest(objects)}"
    actor = {"found": "in storage, without an entry of its arrival"}
    return [*_listed(Event.STORED, objects, key, actor)]


def screened(
    batch: BatchResult, *, results: str, content: bytes, models: Sequence[str], registry: str
) -> list[Happening]:
    """``screened``: one batch, the blob with its results as it is stored, and the models.

    Args:
        results: the blob's name in ``reviews`` without the study.
        models: ``name@version:sha256`` of each model of the registry that took part.
        registry: digest of the model registry.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    data = {
        "batch": batch.batch,
        "results": {results: sha256},
        "models": sorted(models),
        "registry": registry,
        "counts": {
            "screened": batch.screened,
            "not_screened": batch.not_screened,
            "rejected": batch.rejected,
            "with_detections": batch.with_detections,
        },
    }
    # A batch that ran twice at once may have left either result: each of them has an entry.
    key = f"screened:{results}:{sha256}"
    return [Happening(Event.SCREENED, key, {"activity": "screen_slices"}, data)]


def assessed(review: Review, content: bytes) -> list[Happening]:
    """``assessed``, ``flagged`` for each lane, ``superseded``: one generation of the review."""
    generation = review.generation
    actor = {"activity": "publish_review"}
    data = {
        "generation": generation,
        "status": review.status.value,
        "content_digest": review.content_digest,
        "results": {f"{generation}/review.json": hashlib.sha256(content).hexdigest()},
        "models": sorted(f"{one.name}@{one.version}:{one.sha256}" for one in review.models),
        "policy": f"{review.policy_name}:{review.policy_sha256}",
    }
    told = [Happening(Event.ASSESSED, f"assessed:{generation}", actor, data)]
    told += [
        Happening(
            Event.FLAGGED,
            f"flagged:{generation}:{flag.lane}",
            actor,
            {
                "generation": generation,
                "lane": flag.lane.value,
                "priority": flag.priority,
                "rules": list(flag.rules),
            },
        )
        for flag in review.lanes
    ]
    if review.supersedes is not None:
        data = {"generation": review.supersedes, "by": generation}
        told.append(Happening(Event.SUPERSEDED, f"superseded:{review.supersedes}", actor, data))
    return told


def viewed(viewer: Mapping[str, str], day: str, item: str = "") -> list[Happening]:
    """``viewed``: somebody was given pixels or metadata of the study, or what was found in it by
    opening an `item`; once a day (UTC, ISO 8601) for each viewer, however many slices that were.
    """
    what = {"item": item} if item else {}
    key = f"viewed:{custody_chain.digest([dict(viewer), day, *what.values()])}"
    return [Happening(Event.VIEWED, key, viewer, {"day": day, **what})]


def item_claimed(item: Item, actor: Mapping[str, str] | None = None) -> list[Happening]:
    """``claimed``: of an item that is claimed.

    Args:
        actor: who; left out, the holder, of a claim that is told by what follows it.
    """
    data = {"item": item.id, "generation": item.generation}
    key = f"claimed:{item.id}:{item.claimed}"
    return [Happening(Event.CLAIMED, key, actor or {"reader": item.holder or ""}, data)]


def item_released(item: Item, actor: Mapping[str, str]) -> list[Happening]:
    """``released``: of the item as it was claimed, to be told before it is given back.

    The claim is told with it, in case the entry of that was lost; `actor` may be another than who
    claimed it, and then the entry says who held it.
    """
    data = {"item": item.id, "generation": item.generation}
    if actor.get("reader") != item.holder:
        data["holder"] = item.holder or ""
    key = f"released:{item.id}:{item.claimed}"
    return [*item_claimed(item), Happening(Event.RELEASED, key, actor, data)]


def item_read(item: Item, number: int, actor: Mapping[str, str]) -> list[Happening]:
    """``read``: reading `number` (from 1) of an item, by a hash of all it says, and ``decided``
    when it was the last: the verdict, and a hash of the decision (its comment is free text).
    """
    reading = item.readings[number - 1]
    data = {
        "item": item.id,
        "generation": item.generation,
        "stage": reading.stage,
        "decision_sha256": custody_chain.digest(reading.decision),
    }
    told = []
    if item.readers_needed > 1:
        told = [Happening(Event.READ, f"read:{item.id}:{number}", actor, data)]
    if item.state == "decided" and number == len(item.readings):
        data = {
            "item": item.id,
            "generation": item.generation,
            "verdict": reading.decision.get("verdict", ""),
            "decision_sha256": custody_chain.digest(item.decision or {}),
        }
        told.append(Happening(Event.DECIDED, f"decided:{item.id}", actor, data))
    return told


def item_corrected(item: Item, correction: Correction, actor: Mapping[str, str]) -> list[Happening]:
    """``corrected``: a correction of a decided item, with its number and a hash of all it says."""
    data = {
        "item": item.id,
        "generation": item.generation,
        "number": correction.number,
        "verdict": correction.decision.get("verdict", ""),
        "correction_sha256": custody_chain.digest(correction.to_json()),
    }
    return [Happening(Event.CORRECTED, f"corrected:{item.id}:{correction.number}", actor, data)]


def exported(bundle: str, requester: str, files: Mapping[str, str]) -> list[Happening]:
    """``exported``: the files (path → SHA-256) that a bundle holds beside the log."""
    content = custody_chain.digest(dict(files))
    data = {"bundle": bundle, "files": len(files), "content_sha256": content}
    key = f"exported:{bundle}:{content}"
    return [Happening(Event.EXPORTED, key, {"requester": requester}, data)]


def sent(destination: str, files: Mapping[str, str]) -> list[Happening]:
    """``exported``: results (name in ``reviews`` without the study → SHA-256) that a PACS took.

    Args:
        destination: the PACS's host.
    """
    key = f"sent:{destination}:{custody_chain.digest(dict(files))}"
    data = {"destination": destination, "results": dict(files)}
    return [Happening(Event.EXPORTED, key, {"activity": "send_report"}, data)]
