"""The worklist: one winner a claim, nothing lost, nothing overwritten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from slicewatch import corrections, worklist
from slicewatch.decision import MAX_STORED
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
    with pytest.raises(ItemConflict, match=r"the item is decided$"):
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


# --- two readers --------------------------------------------------------------------------------


@pytest.fixture
def two(storage: Storage, seed: int) -> Item:
    """An item that needs two readers."""
    return worklist.add(storage, make(seed, lane=Lane.FORENSIC, readers_needed=2))


def read(storage: Storage, item: Item, reader: Reader, verdict: str = "confirmed") -> Item:
    worklist.claim(storage, item.id, reader)
    return worklist.decide(storage, item.id, reader, {**DECISION, "verdict": verdict})


def test_one_reading_of_two_decides_nothing_and_another_reader_is_waited_for(
    storage: Storage, two: Item
) -> None:
    found = read(storage, two, ADA)
    assert (found.state, found.stage, found.holder, found.decision) == (
        "open",
        "second",
        None,
        None,
    )
    with pytest.raises(ItemConflict) as refused:
        worklist.claim(storage, two.id, ADA)
    assert refused.value.code == "already-read"
    assert worklist.decide(storage, two.id, ADA, DECISION) == found, "told again it changes nothing"


def test_two_readers_who_agree_decide_it(storage: Storage, two: Item) -> None:
    read(storage, two, ADA)
    found = read(storage, two, BEN)
    assert (found.state, found.read) == ("decided", 2)
    assert [one.reader for one in found.readings] == ["ada", "ben"]


def test_two_readers_who_differ_need_a_third_who_decides(storage: Storage, two: Item) -> None:
    read(storage, two, ADA)
    found = read(storage, two, BEN, "rejected")
    assert (found.state, found.stage) == ("open", "adjudication")
    for reader in (ADA, BEN):
        with pytest.raises(ItemConflict, match="another reader"):
            worklist.claim(storage, two.id, reader)
    found = read(storage, two, EVA, "rejected")
    assert found.state == "decided"
    assert (found.decision or {})["verdict"] == "rejected"
    assert worklist.get(storage, two.id) == found


def test_a_newer_review_takes_over_between_the_readings(storage: Storage, two: Item) -> None:
    read(storage, two, ADA)
    assert worklist.supersede(storage, two.id).state == "superseded"
    for reader in (ADA, BEN):
        with pytest.raises(ItemConflict):
            worklist.decide(storage, two.id, reader, DECISION)


def test_the_lane_is_told_of_each_reading_that_is_wanted(
    storage: Storage, two: Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(storage, "enqueue", lambda queue, text: told.append(text))
    worklist.notify(storage, two)
    worklist.notify(storage, read(storage, two, ADA))
    worklist.notify(storage, worklist.get(storage, two.id))
    assert len(told) == 2
    assert '"stage": "second"' in told[1]


def test_the_longest_decisions_of_three_readers_fit_into_the_table(
    storage: Storage, two: Item
) -> None:
    def long(reader: str, verdict: str) -> dict[str, Any]:
        return {"verdict": verdict, "findings": {}, "comment": reader * (MAX_STORED - 100)}

    for reader, verdict in ((ADA, "confirmed"), (BEN, "rejected"), (EVA, "rejected")):
        worklist.claim(storage, two.id, reader)
        worklist.decide(storage, two.id, reader, long(reader.user[0], verdict))
    found = worklist.get(storage, two.id)
    assert found.decision == long("e", "rejected")
    assert [one.decision["comment"][0] for one in found.readings] == ["a", "b", "e"]


# --- corrections --------------------------------------------------------------------------------


def test_a_correction_is_a_new_entry_and_the_decision_stays(storage: Storage, item: Item) -> None:
    read(storage, item, ADA)
    wrong = {**DECISION, "verdict": "rejected"}
    for reader, reason in ((BEN, "a vessel"), (BEN, "a vessel"), (ADA, "a mass after all")):
        corrections.correct(storage, item.id, reader, wrong, reason)
    found = corrections.of_item(storage, item.id)
    assert [(one.number, one.reader, one.reason) for one in found] == [
        (1, "ben", "a vessel"),
        (2, "ada", "a mass after all"),
    ]
    decided = worklist.get(storage, item.id)
    assert decided.decision == DECISION
    assert corrections.standing_decision(storage, decided) == wrong


def test_corrections_at_once_all_stay(storage: Storage, item: Item) -> None:
    read(storage, item, ADA)

    def correct(n: int) -> int:
        reader = Reader(f"reader {n}", "")
        return corrections.correct(storage, item.id, reader, DECISION, f"reason {n}")[1].number

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(correct, range(8)))
    assert sorted(numbers) == list(range(1, 9))
    assert len(corrections.of_item(storage, item.id)) == 8


def test_what_is_not_decided_is_not_corrected(storage: Storage, item: Item) -> None:
    with pytest.raises(ItemConflict, match="only a decision"):
        corrections.correct(storage, item.id, ADA, DECISION, "why")
    assert corrections.standing_decision(storage, item) is None
