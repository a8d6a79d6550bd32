"""What readers decided, as boxes to train on: the review queue's accepted and rejected findings.

A decided item judges the findings that its decision names. Of the flagged findings that it does
not name, a rejected item rejects all, and a confirmed item confirms the only one: which of several
it meant is not known, so they are left out. A finding that readers judged differently, or whose
box was changed, is left out, too. Of a study with several decided generations the newest counts.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from slicewatch import dataset, inventory, worklist
from slicewatch.dataset import Labelled
from slicewatch.dataset_store import Source, source_name
from slicewatch.records import Review
from slicewatch.storage import INCOMING, Storage
from slicewatch.worklist import Item

type Drawn = dict[tuple[str, int], list[Labelled]]


def decided(storage: Storage) -> list[Item]:
    """The decided items, sorted by id."""
    return sorted(worklist.listing(storage, states=("decided",)), key=lambda item: item.id)


def verdicts(review: Review, items: Iterable[Item]) -> dict[str, bool]:
    """Finding id → accepted, for the findings that the items of this review judge."""
    said: dict[str, set[str]] = defaultdict(set)
    for item in items:
        decision = item.decision or {}
        named: Mapping[str, str] = decision.get("findings") or {}
        for finding, verdict in named.items():
            said[finding].add(verdict)
        others = [
            finding.id
            for finding in review.findings
            if finding.id not in named and set(finding.rules) & set(item.rules)
        ]
        overall = decision.get("verdict")
        if overall == "rejected" or (overall == "confirmed" and len(others) == 1 and not named):
            for finding in others:
                said[finding].add(overall)
    return {
        finding: given == {"confirmed"}
        for finding, given in said.items()
        if given in ({"confirmed"}, {"rejected"})
    }


def gather(
    storage: Storage, item_ids: Iterable[str], classes: Collection[str] | None = None
) -> tuple[list[Source], Drawn]:
    """The objects that judged findings lie on, and their boxes by (SOP instance UID, frame).

    A slice whose findings were all rejected has no boxes.

    Args:
        classes: findings of others are left out; ``None``: of none.
    """
    by_review: dict[tuple[str, int], list[Item]] = defaultdict(list)
    for item_id in item_ids:
        item = worklist.get(storage, item_id)
        by_review[item.study, item.generation].append(item)
    newest = dict(sorted(by_review))
    sources: dict[str, Source] = {}
    drawn: Drawn = {}
    for study, generation in newest.items():
        review = inventory.read_review(storage, study, generation)
        if classes is not None:
            wanted = tuple(finding for finding in review.findings if finding.label in classes)
            review = dataclasses.replace(review, findings=wanted)
        boxes = dataset.reviewed(review, verdicts(review, by_review[study, generation]))
        drawn |= boxes
        for finding in review.findings:
            for one in finding.slices:
                if (one.sop_instance_uid, one.frame) in boxes:
                    # The size bound was kept when the object arrived.
                    name = source_name(f"{INCOMING}/{one.blob}")
                    sources[one.blob] = Source(name, INCOMING, one.blob, 0)
    return [sources[blob] for blob in sorted(sources)], drawn
