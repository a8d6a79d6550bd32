"""What the custody log says of each step of a study's way, in the words of its entries.

Each function makes the happenings of one step, with keys that depend on the step alone: told
again, a step is in the log already. ``python -m slicewatch.custody verify`` reads the same data
back: the objects of `arrived` and `found`, the files of `screened` and `assessed`, the decision
of `item_decided`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from slicewatch import custody_chain
from slicewatch.arrival import Receipt
from slicewatch.custody import Event, Happening
from slicewatch.records import BatchResult, Review
from slicewatch.storage import BlobInfo
from slicewatch.worklist import Item

OBJECTS_AN_ENTRY = 4000
"""Objects that one entry lists: keeps it under the size of a block."""

type Objects = dict[str, list[Any]]
"""Name in ``incoming`` without the study → [SHA-256, bytes]."""


def arrived(
    receipts: Iterable[Receipt], *, door: str, sender: Mapping[str, str]
) -> dict[str, list[Happening]]:
    """``received`` and ``stored`` of the objects of one request, by their studies.

    The same objects from the same sender through the same door are one happening: a request that
    is repeated because its answer was lost adds nothing.
    """
    studies: defaultdict[str, Objects] = defaultdict(dict)
    for one in receipts:
        if one.reason is None:
            name = one.blob.removeprefix(f"{one.study_instance_uid}/")
            studies[one.study_instance_uid][name] = [one.sha256, one.size]
    actor = {"door": door, **sender}
    return {study: [*_arrival(objects, actor)] for study, objects in studies.items()}


def _arrival(objects: Objects, actor: Mapping[str, str]) -> Iterator[Happening]:
    content = custody_chain.digest(objects)
    key = custody_chain.digest([content, dict(actor)])
    data = {
        "objects": len(objects),
        "bytes": sum(size for _, size in objects.values()),
        "content_sha256": content,
    }
    yield Happening(Event.RECEIVED, f"received:{key}", actor, data)
    yield from _stored(objects, f"stored:{key}", {"door": actor["door"]})


def _stored(objects: Objects, key: str, actor: Mapping[str, str]) -> Iterator[Happening]:
    names = sorted(objects)
    for start in range(0, len(names), OBJECTS_AN_ENTRY):
        part = {name: objects[name] for name in names[start : start + OBJECTS_AN_ENTRY]}
        yield Happening(Event.STORED, f"{key}:{start}", actor, {"objects": part})


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
    return [*_stored(objects, key, {"found": "in storage, without an entry of its arrival"})]


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


def viewed(viewer: Mapping[str, str], day: str) -> list[Happening]:
    """``viewed``: somebody was given pixels of the study; once a day (UTC, ISO 8601) for each
    viewer, however many slices that were.
    """
    key = f"viewed:{custody_chain.digest([dict(viewer), day])}"
    return [Happening(Event.VIEWED, key, viewer, {"day": day})]


def item_claimed(item: Item) -> list[Happening]:
    """``claimed``: of an item that is claimed, or was when it was decided."""
    data = {"item": item.id, "generation": item.generation}
    key = f"claimed:{item.id}:{item.claimed}"
    return [Happening(Event.CLAIMED, key, {"reader": item.holder or ""}, data)]


def item_released(item: Item) -> list[Happening]:
    """``released``: of the item as it was claimed, to be told before it is given back.

    The claim is told with it, in case the entry of that was lost.
    """
    data = {"item": item.id, "generation": item.generation}
    key = f"released:{item.id}:{item.claimed}"
    return [
        *item_claimed(item),
        Happening(Event.RELEASED, key, {"reader": item.holder or ""}, data),
    ]


def item_decided(item: Item) -> list[Happening]:
    """``decided``: the verdict, and a hash of the whole decision (its comment is free text)."""
    decision = item.decision or {}
    data = {
        "item": item.id,
        "generation": item.generation,
        "verdict": decision.get("verdict", ""),
        "decision_sha256": custody_chain.digest(decision),
    }
    key = f"decided:{item.id}"
    return [
        *item_claimed(item),
        Happening(Event.DECIDED, key, {"reader": item.holder or ""}, data),
    ]


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
