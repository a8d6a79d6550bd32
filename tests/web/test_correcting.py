"""A signed decision on the page: what was added is drawn, a correction is an entry beside it."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from slicewatch import corrections
from slicewatch.worklist import Item
from tests import studies
from tests.integration.running_app import RunningApp
from tests.web.conftest import OpenReader
from tests.web.reader import Reader


@pytest.fixture
def item(app: RunningApp, seed: int) -> Item:
    uid = studies.new_uid("study", seed)
    app.send(uid, studies.study_bytes(12, seed=seed, lesion=(3, 4, 5, 6)))
    app.await_status(uid, "flagged")
    return next(one for one in app.worklist(uid) if one.lane == "clinical")


def decide(reader: Reader, item: Item) -> None:
    """Accept the finding, add one on the same slice, and sign, with the keys."""
    reader.open(item.id)
    reader.press("t")
    expect(reader.button("Release")).to_be_visible()
    reader.press("n", "a", "d", "Enter", "Enter")
    expect(reader.page.locator("g.mark.added")).to_have_count(1)
    reader.sign()
    expect(reader.decision).to_contain_text("changed by Dr. Ada")


def test_what_a_reader_added_is_drawn_for_whoever_opens_the_decided_study(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    ada, grace = open_reader(app), open_reader(app, "Dr. Grace")
    decide(ada, item)
    grace.button("Decided").click()
    grace.open(item.id)
    for reader in (ada, grace):
        expect(reader.page.locator("g.mark.added")).to_have_count(1)
        expect(reader.page.locator("g.mark.confirmed")).to_have_count(1)
        expect(reader.page.locator("rect.run.added")).to_have_count(1)
        expect(reader.page.locator("li.finding.added")).to_have_count(1)
        expect(reader.page.locator("li.finding.added input")).to_have_count(0)
    grace.press("Home")
    expect(grace.page.locator("g.mark")).to_have_count(0)
    grace.page.locator("li.finding.added button.name").click()
    expect(grace.page.locator("g.mark.added.current")).to_have_count(1)


def test_a_signed_decision_is_corrected_with_the_keyboard_and_stays(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    ada, grace = open_reader(app), open_reader(app, "Dr. Grace")
    decide(ada, item)
    grace.button("Decided").click()
    grace.open(item.id)
    grace.press("r")
    expect(grace.notice).to_contain_text("K corrects it")
    grace.press("k")
    expect(grace.page.locator("#reason")).to_be_focused()
    grace.press("Escape", "s")
    expect(grace.notice).to_contain_text("the correction has no reason")
    grace.press("k")
    expect(grace.page.locator("#reason")).to_be_focused()
    grace.page.keyboard.type("an artefact: <b>beam</b> hardening")
    grace.press("Escape", "r", "s")
    expect(grace.page.get_by_role("dialog")).to_contain_text("Sign the correction as changed?")
    grace.press("Enter")
    expect(grace.decision).to_contain_text("Dr. Grace, correction")
    expect(grace.decision).to_contain_text("an artefact: <b>beam</b> hardening")
    expect(grace.decision).to_contain_text("changed by Dr. Ada")
    expect(grace.page.locator("g.mark.rejected")).to_have_count(1)

    (made,) = corrections.of_item(app.storage, item.id)
    assert made.name == "Dr. Grace"
    assert made.reason == "an artefact: <b>beam</b> hardening"
    assert [one["verdict"] for one in made.decision["findings"].values()] == ["rejected"]
    (stored,) = (one for one in app.worklist(item.study) if one.id == item.id)
    assert stored.decision is not None
    assert [one["verdict"] for one in stored.decision["findings"].values()] == ["confirmed"]
    assert made.decision["additions"] == stored.decision["additions"]


def test_a_correction_that_is_discarded_leaves_what_was_signed(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    reader = open_reader(app)
    decide(reader, item)
    reader.button("Correct").click()
    reader.finding(0).get_by_role("button", name="Reject").click()
    expect(reader.page.locator("g.mark.rejected")).to_have_count(1)
    reader.button("Discard").click()
    expect(reader.page.locator("g.mark.confirmed")).to_have_count(1)
    assert corrections.of_item(app.storage, item.id) == []
