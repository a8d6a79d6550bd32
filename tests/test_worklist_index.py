"""The list in memory is never older than the request for it, whoever changed an item."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from slicewatch import worklist, worklist_index
from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from slicewatch.worklist import Item, Reader
from slicewatch.worklist_index import Index
from tests.test_worklist import make

ADA = Reader("ada", "Ada")


@pytest.fixture
def index(storage: Storage) -> Index:
    """An index as another process has it: nothing here tells it of a change."""
    return Index(storage)


def mine(index: Index, seed: int) -> dict[str, Item]:
    return {one.id: one for one in index.waiting() if one.study == f"1.2.{seed}"}


def test_what_others_change_is_in_the_next_list(storage: Storage, index: Index, seed: int) -> None:
    assert mine(index, seed) == {}
    item = worklist.add(storage, make(seed))
    assert mine(index, seed) == {item.id: item}
    claimed = worklist.claim(storage, item.id, ADA)
    assert mine(index, seed) == {item.id: claimed}
    risen = worklist.escalate(storage, item.id, 2)
    assert mine(index, seed) == {item.id: risen}
    worklist.decide(storage, item.id, ADA, {"verdict": "confirmed", "findings": {}})
    assert mine(index, seed) == {}


def test_the_list_stays_sorted_while_items_come_rise_and_go(
    storage: Storage, index: Index, seed: int
) -> None:
    added = [
        worklist.add(storage, make(seed, id=f"study-{seed}-{n}-clinical", priority=n * 7 % 10))
        for n in range(12)
    ]
    index.waiting()
    for number, item in enumerate(added):
        if number % 3 == 0:
            worklist.escalate(storage, item.id, 1)
        elif number % 3 == 1:
            worklist.supersede(storage, item.id)
        keys = [(-one.urgency, one.created, one.id) for one in index.waiting()]
        assert keys == sorted(keys)
    assert len(mine(index, seed)) == 8


def test_one_question_to_storage_answers_all_who_ask_meanwhile(
    storage: Storage, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    entities = storage.entities

    def counting(*args: Any, **more: Any) -> Iterator[dict[str, Any]]:
        asked.append(args)
        return entities(*args, **more)

    monkeypatch.setattr(storage, "entities", counting)
    with ThreadPoolExecutor(24) as pool:
        list(pool.map(lambda _: index.waiting(), range(24)))
    assert len(asked) < 12


def test_a_list_leaves_out_what_readers_wrote(storage: Storage, index: Index, seed: int) -> None:
    item = worklist.add(storage, make(seed, lane=Lane.FORENSIC, readers_needed=2))
    worklist.claim(storage, item.id, ADA)
    worklist.decide(storage, item.id, ADA, {"verdict": "confirmed", "comment": "secret opinion"})
    (found,) = mine(index, seed).values()
    assert (found.stage, found.read, found.readings) == ("second", 1, ())
    assert "secret" not in json.dumps(found.to_json())


def test_lanes_and_states_can_be_asked_for(storage: Storage, settings: Settings, seed: int) -> None:
    clinical = worklist.add(storage, make(seed))
    forensic = worklist.add(storage, make(seed, lane=Lane.FORENSIC))
    worklist.supersede(storage, forensic.id)

    def listed(lanes: set[Lane], *states: str) -> set[str]:
        found = worklist_index.in_order(
            storage, settings, datetime.now(UTC), lanes=lanes, states=states
        )
        return {one.id for one in found if one.study == clinical.study}

    assert listed(set(Lane), "open") == {clinical.id}
    assert listed({Lane.FORENSIC}, "open") == set()
    assert listed(set(Lane), "claimed") == set()
    assert listed(set(Lane), "open", "superseded") == {clinical.id, forensic.id}
    assert listed({Lane.CLINICAL}, "superseded") == set()
