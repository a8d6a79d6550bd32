"""The worklist: one winner a claim, nothing lost, nothing overwritten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from slicewatch import worklist
from slicewatch.records import Lane
from slicewatch.storage import Storage
from slicewatch.worklist import Item, ItemConflict, NoSuchItem, Reader

ADA, BEN, EVA = Reader("ada", "Ada"), Reader("ben", "Ben"), Reader("eva", "Eva")
DECISION: dict[str, Any] = {"verdict": "confirmed", "findings": {}, "comment": "as seen"}


@pytest.fixture
def item(storage: Storage, seed: int) -> Item:
    return worklist.add(storage, make(seed))


def make(seed: int, **changes: Any) -> Item:
    lane = changes.pop("lane", Lane.CLINICAL)
    values: dict[str, Any] = {
        "id": f"study-{seed}-1-{lane}",
        "study": f"1.2.{seed}",
        "generation": 1,
        "lane": lane,
        "priority": 50,
        "summary": "a mass",
        "rules": ("finding",),
        "created": datetime.now(UTC).isoformat(),
    }
    return Item(**(values | changes))


def test_an_item_comes_back_as_it_was_added(storage: Storage, item: Item) -> None:
    assert worklist.get(storage, item.id) == item


def test_adding_an_item_again_leaves_it_as_it_is(storage: Storage, item: Item) -> None:
    claimed = worklist.claim(storage, item.id, ADA)
    assert worklist.add(storage, item) == claimed


def test_of_fifty_claims_at_once_one_wins_and_the_others_learn_who_did(
    storage: Storage, item: Item
) -> None:
    def claim(n: int) -> Item:
        try:
            return worklist.claim(storage, item.id, Reader(f"reader {n}", ""))
        except ItemConflict as conflict:
            return conflict.item

    with ThreadPoolExecutor(50) as pool:
        seen = list(pool.map(claim, range(50)))
    winners = [n for n, one in enumerate(seen) if one.holder == f"reader {n}"]
    assert len(winners) == 1
    assert {one.holder for one in seen} == {f"reader {winners[0]}"}


def test_a_claimed_item_can_be_released_by_its_holder_only(storage: Storage, item: Item) -> None:
    worklist.claim(storage, item.id, ADA)
    with pytest.raises(ItemConflict, match="claimed by Ada"):
        worklist.release(storage, item.id, BEN)
    assert worklist.release(storage, item.id, ADA).state == "open"


def test_a_decision_needs_the_claim(storage: Storage, item: Item) -> None:
    with pytest.raises(ItemConflict, match="claim it before"):
        worklist.decide(storage, item.id, ADA, DECISION)


def test_a_decision_is_final(storage: Storage, item: Item) -> None:
    worklist.claim(storage, item.id, ADA)
    decided = worklist.decide(storage, item.id, ADA, DECISION)
    assert decided.state == "decided"
    assert worklist.decide(storage, item.id, ADA, DECISION) == decided
    with pytest.raises(ItemConflict, match="decided"):
        worklist.decide(storage, item.id, ADA, {**DECISION, "verdict": "rejected"})
    assert worklist.supersede(storage, item.id) == decided
    assert worklist.escalate(storage, item.id, 2) == decided


def test_a_superseded_item_takes_no_claim(storage: Storage, item: Item) -> None:
    worklist.supersede(storage, item.id)
    with pytest.raises(ItemConflict, match="superseded"):
        worklist.claim(storage, item.id, ADA)


def test_escalation_raises_and_never_lowers(storage: Storage, item: Item) -> None:
    assert worklist.escalate(storage, item.id, 2).urgency == 70
    assert worklist.escalate(storage, item.id, 1).level == 2
    assert make(1, priority=95, level=3).urgency == 100


def test_an_unknown_item_is_named_so(storage: Storage) -> None:
    for name in ("study-x-1-clinical", "study-x-1-unknown", "", "../worklist"):
        with pytest.raises(NoSuchItem):
            worklist.get(storage, name)


def test_the_most_urgent_comes_first_then_the_oldest(storage: Storage, seed: int) -> None:
    late = worklist.add(storage, make(seed, created="2026-01-02T00:00:00+00:00"))
    early = worklist.add(
        storage, make(seed, id=f"study-{seed}-2-clinical", created="2026-01-01T00:00:00+00:00")
    )
    urgent = worklist.add(storage, make(seed, id=f"study-{seed}-3-clinical", priority=90))
    mine = {late.id, early.id, urgent.id}
    listed = [one.id for one in worklist.listing(storage) if one.id in mine]
    assert listed == [urgent.id, early.id, late.id]


def test_the_list_can_be_had_by_lane_and_state(storage: Storage, seed: int) -> None:
    forensic = worklist.add(storage, make(seed, lane=Lane.FORENSIC))
    assert forensic in worklist.listing(storage, lane=Lane.FORENSIC)
    assert forensic not in worklist.listing(storage, lane=Lane.CLINICAL)
    assert forensic not in worklist.listing(storage, states=("decided",))


def test_a_lane_is_told_of_an_item_once_a_level(
    storage: Storage, item: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(storage, "enqueue", lambda queue, text: told.append(queue))
    worklist.notify(storage, item)
    worklist.notify(storage, worklist.get(storage, item.id))
    worklist.notify(storage, worklist.escalate(storage, item.id, 1))
    worklist.notify(storage, worklist.get(storage, item.id))
    assert told == ["review-clinical", "review-clinical"]
