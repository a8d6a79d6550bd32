"""Publish a review: worklist items, notifications, and the end of what it supersedes."""

from __future__ import annotations

from datetime import UTC, datetime

from slicewatch import inventory, worklist
from slicewatch.messages import Assessment, Published, WaitingItem
from slicewatch.settings import Settings
from slicewatch.storage import Storage


def publish(storage: Storage, settings: Settings, assessment: Assessment) -> Published:
    """Put the review's items on the worklist, tell their lanes, supersede earlier generations.

    Doing it again changes nothing: items are added once, a lane is told once a level.
    """
    study = assessment.study
    review = inventory.read_review(storage, study, assessment.generation)
    wanted = worklist.items_of(
        review,
        inventory.instance_id(study),
        datetime.now(UTC),
        forensic_readers=settings.forensic_readers,
    )
    items = [worklist.add(storage, item) for item in wanted]
    for item in items:
        worklist.notify(storage, item)
    # The new items are up before the old ones go: at no time is a flagged study in no list.
    for earlier in worklist.of_study(storage, study):
        if earlier.generation < review.generation:
            worklist.supersede(storage, earlier.id)
    waiting = tuple(
        WaitingItem(item.id, item.lane, item.created)
        for item in items
        if item.state in worklist.WAITING
    )
    decided = sum(item.state == "decided" for item in items)
    return Published(waiting, decided)
