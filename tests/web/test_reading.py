"""A reader's whole job, with the keyboard alone and with the mouse, on generated and real studies.

From opening a study to the next one: scroll, window, accept, reject, draw, sign.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from demo.scanner import find, send
from demo.stack import ROOT
from slicewatch import inventory
from slicewatch.worklist import Item
from tests import studies
from tests.integration.running_app import RunningApp, running_app
from tests.web.conftest import ARTEFACTS, OpenReader
from tests.web.reader import Reader

REAL = ROOT.parent / "shared" / "data" / "soft-tissue" / "STS_001"
TWO_LESIONS = (*range(3, 7), *range(14, 18))
SLICES = 24


@pytest.fixture
def item(app: RunningApp, seed: int) -> Item:
    """A study with two findings, slices 3 to 6 and 14 to 17 of 24."""
    return flagged(app, seed)


def flagged(app: RunningApp, seed: int) -> Item:
    uid = studies.new_uid("study", seed)
    app.send(uid, studies.study_bytes(SLICES, seed=seed, lesion=TWO_LESIONS))
    app.await_status(uid, "flagged")
    return next(one for one in app.worklist(uid) if one.lane == "clinical")


def decision_of(app: RunningApp, item: Item) -> dict[str, Any]:
    """The stored decision."""
    (found,) = (one for one in app.worklist(item.study) if one.id == item.id)
    assert found.state == "decided"
    assert found.decision is not None
    stored: dict[str, Any] = json.loads(json.dumps(found.decision))
    return stored


def check_decision(app: RunningApp, item: Item, columns: int, rows: int) -> None:
    """One finding accepted, one rejected, and a box drawn inside its frame."""
    decision = decision_of(app, item)
    verdicts = sorted(one["verdict"] for one in decision["findings"].values())
    assert verdicts == ["confirmed", "rejected"]
    assert decision["verdict"] == "changed"
    (added,) = decision["additions"]
    (drawn,) = added["boxes"]
    left, top, right, bottom = drawn["box"]
    assert 0 <= left < right <= columns
    assert 0 <= top < bottom <= rows
    assert drawn["frame"] == 1
    assert drawn["sop_instance_uid"] in {
        one.rpartition("/")[2].removesuffix(".dcm") for one in app.stored(item.study)
    }


def check_key_slice(app: RunningApp, item: Item, decision: dict[str, Any]) -> None:
    """The box was drawn on the key slice of the rejected finding, which was on the screen."""
    (rejected,) = (key for key, one in decision["findings"].items() if one["verdict"] == "rejected")
    found = next(
        one
        for one in inventory.read_review(app.storage, item.study, item.generation).findings
        if one.id == rejected
    )
    key = max(found.slices, key=lambda one: one.score)
    (drawn,) = decision["additions"][0]["boxes"]
    assert (drawn["sop_instance_uid"], drawn["frame"]) == (key.sop_instance_uid, key.frame)


def test_the_whole_job_with_the_keyboard_alone(
    app: RunningApp, item: Item, seed: int, open_reader: OpenReader
) -> None:
    following = flagged(app, seed + 50_000)
    reader = open_reader(app)
    expect(reader.card(item.id)).to_be_visible(timeout=15_000)
    reader.press("q")
    for _ in range(40):
        focused = reader.page.evaluate("document.activeElement.dataset.item")
        if focused == item.id:
            break
        reader.press("ArrowDown")
    assert focused == item.id
    reader.press("Enter")
    reader.await_series()
    work_by_keyboard(reader)
    check_decision(app, item, 80, 96)
    reader.press("x")
    expect(reader.card(item.id)).to_have_count(0)
    expect(reader.page.locator('button.card[aria-current="true"]')).to_have_count(1)
    assert following.id


def work_by_keyboard(reader: Reader) -> None:
    """From an open study to the signature, on a study with at least two findings to decide.

    All are accepted but the last, which is rejected.
    """
    first = reader.slice
    reader.press("Home")
    expect(reader.image).to_have_attribute("data-slice", "1")
    reader.press("ArrowDown", "ArrowDown")
    expect(reader.image).to_have_attribute("data-slice", "3")
    reader.press("PageDown")
    expect(reader.image).to_have_attribute("data-slice", "13")

    before = reader.window
    reader.press("]", "]", ",")
    expect(reader.page.locator(".sw span").first).not_to_have_text(_told(before))
    reader.press("+", "Shift+ArrowLeft", "f", "0")
    expect(reader.page.locator(".sw span").first).to_have_text(_told(before))

    reader.press("a")
    expect(reader.notice).to_contain_text("Claim the study first")
    reader.press("t")
    expect(reader.button("Release")).to_be_visible()
    reader.press("n", "p")
    last = reader.page.locator("li.finding").count() - 1
    assert last >= 1
    for number in range(last):
        reader.press("a")
        expect(reader.finding(number).get_by_role("button", name="Accept")).to_have_attribute(
            "aria-pressed", "true"
        )
        reader.press("n")
    reader.press("r")
    expect(reader.finding(last).get_by_role("button", name="Reject")).to_have_attribute(
        "aria-pressed", "true"
    )
    # In a real study the last finding may lie in another series.
    expect(reader.page.locator("g.mark.rejected")).to_have_count(1, timeout=20_000)
    reader.press("d", "Enter", "ArrowUp", "ArrowUp", "Shift+ArrowRight", "Enter")
    expect(reader.page.locator("li.finding.added")).to_have_count(1)
    reader.press("m")
    reader.page.keyboard.type("seen with the keys: s, x and ? are text here")
    reader.press("Escape", "s")
    expect(reader.page.get_by_role("dialog")).to_contain_text("Sign off as changed?")
    reader.press("Enter")
    expect(reader.decision).to_contain_text("changed by")
    assert first >= 1


def _told(window: tuple[int, int]) -> str:
    return f"C {window[0]} W {window[1]}".replace("-", "−")


def test_the_whole_job_with_the_mouse(app: RunningApp, item: Item, open_reader: OpenReader) -> None:
    reader = open_reader(app, size=(1920, 1080))
    reader.open(item.id)
    work_by_mouse(reader)
    check_decision(app, item, 80, 96)
    reader.button("Next study").click()
    expect(reader.card(item.id)).to_have_count(0)


def work_by_mouse(reader: Reader) -> None:
    first = reader.slice
    reader.image.hover()
    reader.page.mouse.wheel(0, 120)
    expect(reader.image).to_have_attribute("data-slice", str(first + 1))
    strip = reader.page.get_by_role("slider")
    box = strip.bounding_box()
    assert box is not None
    strip.click(position={"x": box["width"] - 13, "y": 20})
    count = strip.get_attribute("aria-valuemax")
    expect(reader.image).to_have_attribute("data-slice", str(count))

    before = reader.window
    reader.drag((0.5, 0.5), (0.6, 0.4))
    assert reader.window != before
    reader.page.get_by_label("Window preset").select_option("0")
    expect(reader.page.locator(".sw span").first).to_have_text(_told(before))

    reader.button("Claim").click()
    reader.finding(0).locator("button.name").click()
    reader.finding(0).get_by_role("button", name="Accept").click()
    reader.finding(1).locator("button.name").click()
    expect(reader.page.locator("g.mark.current")).to_have_count(1)
    reader.finding(1).get_by_role("button", name="Reject").click()
    expect(reader.page.locator("g.mark.rejected")).to_have_count(1)
    reader.button("Draw a missed finding").click()
    reader.drag((0.35, 0.35), (0.45, 0.5))
    expect(reader.page.locator("g.mark.added")).to_have_count(1)
    reader.button("Boxes").click()
    expect(reader.page.locator("g.mark")).to_have_count(0)
    reader.button("Boxes").click()
    reader.button("Sign off").click()
    reader.page.get_by_role("dialog").get_by_role("button", name="Sign").click()
    expect(reader.decision).to_contain_text("changed by")


def test_findings_that_are_passed_quickly_are_shown_each_on_its_own_slice(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    reader = open_reader(app)
    reader.open(item.id)
    reader.press("n")
    expect(reader.page.locator("g.mark.current")).to_have_count(1)
    # Two keys before the next frame is painted: the slice of the first is never drawn.
    type_both = """keys => keys.forEach(key => document.body.dispatchEvent(
        new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true})))"""
    before = reader.slice
    for keys in ("np", "pn", "np"):
        reader.page.evaluate(type_both, list(keys))
        reader.page.wait_for_timeout(300)
        expect(reader.page.locator("g.mark.current")).to_have_count(1)
        assert reader.slice == before


def test_a_changed_finding_keeps_its_label_and_boxes(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    reader = open_reader(app)
    reader.open(item.id)
    reader.button("Claim").click()
    expect(reader.button("Release")).to_be_visible()
    reader.finding(0).locator("button.name").click()
    reader.press("c")
    reader.finding(0).get_by_label("Label").fill("calcification")
    reader.press("Escape", "e", "ArrowLeft", "Enter")
    expect(reader.page.locator("g.mark.changed text")).to_contain_text("calcification")
    reader.finding(1).get_by_role("button", name="Accept").click()
    reader.sign()
    expect(reader.decision).to_contain_text("changed by")
    changed = [
        one for one in decision_of(app, item)["findings"].values() if one["verdict"] == "changed"
    ]
    assert [one["label"] for one in changed] == ["calcification"]
    assert len(changed[0]["boxes"]) == 4


# --- a real study, read by the models that are shipped ------------------------------------------


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, page_is_built: None) -> Iterator[RunningApp]:
    if not REAL.exists():
        pytest.skip("the real studies are not at hand")
    # The sender closes its study; a busy machine may pause longer than the quiet period of tests.
    unhurried = {"SLICEWATCH_QUIET_SECONDS": "60"}
    yield from running_app(tmp_path_factory.mktemp("shipped"), ROOT / "models", unhurried)


def test_a_real_study_is_read_with_the_keyboard(
    shipped: RunningApp, open_reader: OpenReader
) -> None:
    ((study, objects),) = find(REAL).items()
    assert send(shipped.http, objects) == []
    shipped.await_review(study, seconds=120)
    item = next(one for one in shipped.worklist(study) if one.lane == "clinical")
    reader = open_reader(shipped)
    reader.open(item.id)
    reader.screenshot(ARTEFACTS / "real-1280x800.png")
    large = open_reader(shipped, "Dr. Grace", size=(1920, 1080))
    large.open(item.id)
    large.screenshot(ARTEFACTS / "real-1920x1080.png")
    work_by_keyboard(reader)
    decision = decision_of(shipped, item)
    assert decision["comment"].startswith("seen with the keys")
    check_key_slice(shipped, item, decision)
    expect(large.decision).to_contain_text("changed by", timeout=15_000)


def test_screens_are_kept_as_artefacts(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    for width, height in ((1280, 800), (1920, 1080)):
        reader = open_reader(app, size=(width, height))
        reader.open(item.id)
        picture = ARTEFACTS / f"generated-{width}x{height}.png"
        reader.screenshot(picture)
        assert _fits(reader)
        assert Path(picture).stat().st_size > 10_000


def _fits(reader: Reader) -> bool:
    """Nothing of the page lies outside the window."""
    return bool(
        reader.page.evaluate(
            "() => document.documentElement.scrollWidth <= innerWidth"
            " && [...document.querySelectorAll('button, select')].every(one => {"
            "   const box = one.getBoundingClientRect();"
            "   return box.width === 0 || (box.right <= innerWidth && box.left >= 0); })"
        )
    )
