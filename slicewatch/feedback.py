"""What readers decided, as boxes to train on: what they accepted, rejected, changed and drew.

What counts is the last correction of an item, else its decision. It judges the findings that it
names. Of the flagged findings that it does not name, a rejected item rejects all, and a confirmed
item confirms the only one: which of several it meant is not known, so they are left out. A changed
finding counts with its new label and boxes; where its old boxes were and the new ones are not, it
is not known what there is. Boxes that a reader added count as they are. A finding that readers
judged differently is left out. Of a study with several decided generations the newest counts.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from slicewatch import corrections, dataset_planning, holdings, inventory, worklist
from slicewatch import decision as decisions
from slicewatch.dataset import Labelled
from slicewatch.dataset_store import Source, source_name
from slicewatch.decision import DrawnBox, FindingDecision, Verdict
from slicewatch.records import Finding, FindingSlice, Review
from slicewatch.storage import INCOMING, Storage
from slicewatch.worklist import Item

type Drawn = dict[tuple[str, int], list[Labelled]]


def decided(storage: Storage) -> list[Item]:
    """The decided items, sorted by id."""
    return worklist.listing(storage, states=("decided",))


def verdicts(review: Review, items: Iterable[Item]) -> dict[str, bool]:
    """Finding id → accepted, for the findings that the items of this review judge."""
    said: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.decision is None:
            continue
        decision = decisions.stored(item.decision)
        named = decision.findings
        for finding, one in named.items():
            said[finding].add(one.verdict)
        others = [
            finding.id
            for finding in review.findings
            if finding.id not in named and set(finding.rules) & set(item.rules)
        ]
        overall = decision.verdict
        if overall == "rejected" or (overall == "confirmed" and len(others) == 1 and not named):
            for finding in others:
                said[finding].add(overall)
    return {
        finding: given == {"confirmed"}
        for finding, given in said.items()
        if given in ({"confirmed"}, {"rejected"})
    }


def redrawn(
    review: Review, items: Sequence[Item], blobs: Mapping[str, str]
) -> tuple[Review, dict[str, bool]]:
    """The review with what its readers changed and added, and `verdicts` on that.

    Args:
        blobs: SOP instance UID → the instance's name in ``incoming``; boxes on others are left out.
    """
    judged = verdicts(review, items)
    said = [decisions.stored(item.decision) for item in items if item.decision]
    findings: list[Finding] = []
    for finding in review.findings:
        given = [one.findings[finding.id] for one in said if finding.id in one.findings]
        change = given[0] if given and all(one == given[0] for one in given) else None
        if change and change.verdict is Verdict.CHANGED and (change.label or change.boxes):
            judged[finding.id] = True
            findings += _changed(finding, change, blobs)
        else:
            findings.append(finding)
    for number, one in enumerate(said):
        for added in one.additions:
            name = f"{number}:{added.id}"
            judged[name] = True
            slices = _slices(added.boxes, 1.0, blobs)
            findings.append(Finding(name, added.label, 1.0, 1.0, "", slices))
    return dataclasses.replace(review, findings=tuple(findings)), judged


def _changed(
    finding: Finding, change: FindingDecision, blobs: Mapping[str, str]
) -> Iterator[Finding]:
    """The finding as a reader changed it, and what it leaves behind, which nobody judged."""
    label = change.label or finding.label
    if not change.boxes:
        yield dataclasses.replace(finding, label=label)
        return
    slices = _slices(change.boxes, finding.score, blobs)
    yield dataclasses.replace(finding, label=label, slices=slices)
    covered = {(one.sop_instance_uid, one.frame) for one in slices}
    left = tuple(one for one in finding.slices if (one.sop_instance_uid, one.frame) not in covered)
    yield dataclasses.replace(finding, id=f"{finding.id}:left", slices=left)


def _slices(
    boxes: Iterable[DrawnBox], score: float, blobs: Mapping[str, str]
) -> tuple[FindingSlice, ...]:
    return tuple(
        FindingSlice(one.sop_instance_uid, one.frame, blobs[one.sop_instance_uid], score, one.box)
        for one in boxes
        if one.sop_instance_uid in blobs
    )


def gather(
    storage: Storage, item_ids: Iterable[str], classes: Collection[str] | None = None
) -> tuple[list[Source], Drawn]:
    """The objects that judged findings and added boxes lie on, and their boxes by (SOP instance
    UID, frame).

    A slice whose findings were all rejected has no boxes.

    Args:
        classes: findings of others are left out; ``None``: of none.
    """
    by_review: dict[tuple[str, int], list[Item]] = defaultdict(list)
    for item_id in item_ids:
        item = worklist.get(storage, item_id)
        item = dataclasses.replace(item, decision=corrections.standing_decision(storage, item))
        by_review[item.study, item.generation].append(item)
    newest = dict(sorted(by_review))
    sources: dict[str, Source] = {}
    drawn: Drawn = {}
    for study, generation in newest.items():
        blobs = {one.instance: one.blob for one in holdings.originals(storage, study)}
        review, judged = redrawn(
            inventory.read_review(storage, study, generation),
            by_review[study, generation],
            blobs,
        )
        if classes is not None:
            wanted = tuple(finding for finding in review.findings if finding.label in classes)
            review = dataclasses.replace(review, findings=wanted)
        boxes = dataset_planning.reviewed(review, judged)
        drawn |= boxes
        for finding in review.findings:
            for one in finding.slices:
                if (one.sop_instance_uid, one.frame) in boxes:
                    # The size bound was kept when the object arrived.
                    name = source_name(f"{INCOMING}/{one.blob}")
                    sources[one.blob] = Source(name, INCOMING, one.blob, 0)
    return [sources[blob] for blob in sorted(sources)], drawn
