"""The worklist's doors refuse what could not be shown again, and change nothing then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch import worklist
from slicewatch.records import Lane
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from slicewatch.worklist import Item
from tests.doors import body_of, function_of, request
from triggers import worklist as listing
from triggers import worklist_claim, worklist_decision


@pytest.fixture
def item(settings: Settings, storage: Storage, seed: int, monkeypatch: pytest.MonkeyPatch) -> Item:
    monkeypatch.setattr(app_settings, "current", lambda: settings)
    monkeypatch.setattr(app_storage, "current", lambda: storage)
    return worklist.add(
        storage,
        Item(f"study-{seed:032x}-1-clinical", f"1.2.{seed}", 1, Lane.CLINICAL, 50, "", (), "2026"),
    )


def call(door: Any, item: str, body: dict[str, Any], *rest: Any) -> Any:
    asked = request("POST", "worklist", json.dumps(body).encode(), item=item)
    return function_of(door)(asked, *rest)


@pytest.mark.parametrize("reader", ["\ud800x", "a\x00b", "", " ", 5, None, "x" * 129])
def test_a_reader_that_is_no_plain_text_is_refused_and_claims_nothing(
    storage: Storage, item: Item, reader: object
) -> None:
    assert call(worklist_claim, item.id, {"reader": reader}).status_code == 400
    assert worklist.get(storage, item.id).state == "open"


def test_a_comment_that_is_no_plain_text_is_refused_and_decides_nothing(
    storage: Storage, item: Item
) -> None:
    worklist.claim(storage, item.id, "ada")
    body = {"reader": "ada", "verdict": "confirmed", "comment": "\ud800"}
    assert call(worklist_decision, item.id, body, None).status_code == 400
    assert worklist.get(storage, item.id).state == "claimed"


def test_text_of_any_script_comes_back_as_it_was_sent(storage: Storage, item: Item) -> None:
    answer = call(worklist_claim, item.id, {"reader": "Zoë 山田"})
    assert body_of(answer)["holder"] == "Zoë 山田"
    listed = body_of(function_of(listing)(request("GET", "worklist")))["items"]
    assert "Zoë 山田" in [one.get("holder") for one in listed]


@pytest.mark.parametrize("name", ["a'b/c-clinical", "study-1-1-clinical", "", "x" * 500])
def test_a_name_that_can_be_no_item_is_unknown_at_once(item: Item, name: str) -> None:
    assert call(worklist_claim, name, {"reader": "ada"}).status_code == 404
