"""What the page shows when things do not go as planned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from slicewatch.worklist import Item
from tests import studies
from tests.integration.running_app import RunningApp, running_app
from tests.tiny_model import write_tiny_model
from tests.web.conftest import OpenReader
from tests.web.reader import Reader

HTML = '<img src=x onerror="document.title=1"><b>bold</b>'
CONFLICT = "the server responded with a status of 409"
LOST = ("ERR_INTERNET_DISCONNECTED", "ERR_FAILED")


@pytest.fixture
def item(app: RunningApp, seed: int) -> Item:
    uid = studies.new_uid("study", seed)
    app.send(uid, studies.study_bytes(8, seed=seed, lesion=(3, 4, 5)))
    app.await_status(uid, "flagged")
    return next(one for one in app.worklist(uid) if one.lane == "clinical")


def test_of_two_browsers_that_race_for_a_claim_one_wins_and_the_other_is_told(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    ada = open_reader(app, "Dr. Ada", expected=[CONFLICT, "ERR_FAILED"])
    grace = open_reader(app, "Dr. Grace", expected=[CONFLICT, "ERR_FAILED"])
    for reader in (ada, grace):
        reader.open(item.id)
        # Both see it open, and go on seeing it so: no news of the other's claim comes in between.
        reader.page.route("**/api/worklist?*", lambda route: route.abort())
    for reader in (ada, grace):
        reader.page.evaluate(
            "() => setTimeout(() => document.body.dispatchEvent("
            "new KeyboardEvent('keydown', {key: 't', bubbles: true})), 0)"
        )
    for reader in (ada, grace):
        reader.page.wait_for_function(
            "() => [...document.querySelectorAll('.decision button')]"
            ".every(one => !one.textContent.startsWith('Claim'))"
        )
    held = [reader for reader in (ada, grace) if reader.button("Release").count()]
    assert len(held) == 1
    (loser,) = (reader for reader in (ada, grace) if reader is not held[0])
    winner = "Dr. Ada" if held[0] is ada else "Dr. Grace"
    expect(loser.decision).to_contain_text(f"Held by {winner}")
    assert loser.button("Sign off").count() == 0


def test_a_study_that_is_superseded_while_open_says_so_and_leads_to_the_newer_review(
    app: RunningApp, item: Item, seed: int, open_reader: OpenReader
) -> None:
    reader = open_reader(app)
    reader.open(item.id)
    reader.press("t")
    expect(reader.button("Release")).to_be_visible()
    reader.press("m")
    reader.page.keyboard.type("kept for the newer review")
    reader.press("Escape")

    more = studies.study_bytes(12, seed=seed, lesion=(3, 4, 5))
    app.send(item.study, dict(list(more.items())[8:]))
    banner = reader.page.get_by_role("alert").filter(has_text="A newer review replaced this one")
    expect(banner).to_be_visible(timeout=30_000)
    reader.press("s")
    expect(reader.notice).to_contain_text("superseded")

    banner.get_by_role("button", name="Open the newer review").click()
    reader.await_series()
    expect(reader.page.get_by_role("slider")).to_have_attribute("aria-valuemax", "12")
    reader.press("t")
    expect(reader.page.locator("#comment")).to_have_value("kept for the newer review")


def test_what_is_typed_on_into_a_comment_that_a_newer_review_took_away_does_nothing(
    app: RunningApp, item: Item, seed: int, open_reader: OpenReader
) -> None:
    reader = open_reader(app)
    reader.open(item.id)
    reader.press("t")
    expect(reader.button("Release")).to_be_visible()
    reader.press("m")
    more = studies.study_bytes(12, seed=seed, lesion=(3, 4, 5))
    app.send(item.study, dict(list(more.items())[8:]))
    banner = reader.page.get_by_role("alert").filter(has_text="A newer review replaced this one")
    typed = 0
    while not banner.is_visible():
        reader.page.keyboard.type("w")
        typed += 1
        assert typed < 300, "no newer review came"
        reader.page.wait_for_timeout(100)
    reader.page.keyboard.type("xtar")  # next study, claim, accept, reject
    expect(banner).to_be_visible()
    reader.page.wait_for_timeout(500)
    assert [one.state for one in app.worklist(item.study)] == ["superseded", "open"]


def test_html_in_any_text_is_shown_as_text(
    app: RunningApp, seed: int, open_reader: OpenReader
) -> None:
    series = studies.ct_series(
        6, seed=seed, lesion=(2, 3, 4), SeriesDescription=HTML[:64], StudyDescription=HTML[:64]
    )
    for one in series:
        one.PatientName = "<b>Evil</b>^<i>Twin</i>"
    uid = studies.new_uid("study", seed)
    app.send(uid, {one.SOPInstanceUID: studies.to_bytes(one) for one in series})
    app.await_status(uid, "flagged")
    item = next(one for one in app.worklist(uid) if one.lane == "clinical")

    reader = open_reader(app, name="<b>Ada</b>")
    reader.open(item.id)
    expect(reader.page.locator(".corners .nw strong")).to_have_text("<b>Evil</b> <i>Twin</i>")
    expect(reader.page.locator(".who")).to_have_text("<b>Ada</b>")
    reader.press("t")
    reader.finding(0).get_by_role("button", name="Accept").click()
    reader.page.locator("#comment").fill(HTML)
    reader.press("Escape")
    reader.sign()
    expect(reader.decision.locator(".said")).to_have_text(HTML)
    assert reader.page.locator("#page img, #page b, #page i").count() == 0
    assert reader.page.title() == "Slicewatch review"


def test_a_lost_connection_is_told_and_nothing_is_lost(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    reader = open_reader(app, expected=LOST)
    reader.open(item.id)
    reader.press("t")
    expect(reader.button("Release")).to_be_visible()
    reader.finding(0).get_by_role("button", name="Accept").click()
    reader.context.set_offline(True)
    expect(reader.page.get_by_text("connection lost")).to_be_visible(timeout=15_000)
    reader.sign()
    expect(reader.notice).to_contain_text("The connection is lost")
    reader.context.set_offline(False)
    expect(reader.page.get_by_text("connection lost")).to_have_count(0, timeout=15_000)
    reader.sign()
    expect(reader.decision).to_contain_text("confirmed by")


def test_who_may_only_look_is_told_which_role_deciding_takes(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    reader = open_reader(app, "Student", roles=["reader"])
    reader.open(item.id)
    expect(reader.decision).to_contain_text("takes the role clinical-reviewer")
    assert reader.button("Claim").count() == 0


def test_who_has_no_role_is_told_so(app: RunningApp, open_reader: OpenReader) -> None:
    reader = open_reader(app, "Visitor", roles=[], expected=["status of 403"])
    expect(reader.page.get_by_role("heading", name="closed to you")).to_be_visible()
    expect(reader.page.get_by_text("role reader")).to_be_visible()


def test_a_study_that_cannot_be_opened_says_why_and_can_be_tried_again(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    reader = open_reader(app, expected=["status of 503"])
    answer = '{"error":{"code":"x","message":"storage does not answer","remedy":"wait"}}'

    def fail(route: Route) -> None:
        route.fulfill(status=503, content_type="application/json", body=answer)

    reader.page.route(f"**/api/worklist/{item.id}", fail)
    reader.card(item.id).click()
    expect(reader.page.get_by_role("heading", name="storage does not answer")).to_be_visible()
    reader.page.unroute(f"**/api/worklist/{item.id}")
    reader.button("Try again").click()
    reader.await_series()


def test_what_was_not_screened_is_shown_with_its_reason(
    app: RunningApp, seed: int, open_reader: OpenReader
) -> None:
    screened = studies.ct_series(6, seed=seed, lesion=(2, 3, 4))
    uncovered = [studies.cr_image(seed=seed)]
    objects = {one.SOPInstanceUID: studies.to_bytes(one) for one in (*screened, *uncovered)}
    uid = studies.new_uid("study", seed)
    for one in list(objects.values()):
        assert app.store([one]).status_code == 200
    missing = studies.new_uid("never", seed)
    assert app.close(uid, [*objects, missing]).status_code == 202
    app.await_status(uid, "flagged")
    item = next(one for one in app.worklist(uid) if one.lane == "clinical")
    reader = open_reader(app)
    reader.open(item.id)
    coverage = reader.decision.get_by_role("region", name="Coverage")
    expect(coverage).to_contain_text("Not all was screened")
    expect(coverage).to_contain_text("no model covers this series")
    expect(coverage).to_contain_text("1 missing")
    expect(reader.decision).to_contain_text("No flag is not normal")


def test_development_mode_shows_its_banner(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    reader = open_reader(app)
    expect(reader.page.get_by_role("note")).to_contain_text("Development mode")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, page_is_built: None) -> Iterator[RunningApp]:
    models = write_tiny_model(tmp_path_factory.mktemp("models")).parent
    yield from running_app(tmp_path_factory.mktemp("empty"), models)


def test_an_empty_queue_does_not_say_that_all_is_well(
    empty: RunningApp, open_reader: OpenReader
) -> None:
    reader: Reader = open_reader(empty)
    expect(reader.page.get_by_text("Nothing waits for a reader.")).to_be_visible()
    expect(reader.page.get_by_text("no flag is not normal").first).to_be_visible()
