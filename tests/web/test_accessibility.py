"""What axe-core finds on the page's main states: nothing, by WCAG 2.2 A and AA.

Contrast is among its rules. What lies over images (boxes, corner texts) has no known background:
axe tells that as undecided, and it is no finding.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from demo.stack import ROOT
from slicewatch.worklist import Item
from tests import studies
from tests.integration.running_app import RunningApp
from tests.web.conftest import OpenReader
from tests.web.reader import Reader

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture
def item(app: RunningApp, seed: int) -> Item:
    uid = studies.new_uid("study", seed)
    app.send(uid, studies.study_bytes(12, seed=seed, lesion=(3, 4, 5, 6)))
    app.await_status(uid, "flagged")
    return next(one for one in app.worklist(uid) if one.lane == "clinical")


def findings(reader: Reader) -> list[str]:
    """Rule, summary and the elements of each violation."""
    # As the debugger evaluates it: the page's own policy takes no script of another's.
    reader.page.evaluate(AXE.read_text("utf-8") + ";0")
    told: dict[str, Any] = reader.page.evaluate(
        "tags => axe.run({runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})", WCAG
    )
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in told["violations"]
        for node in one["nodes"]
    ]


def test_the_main_states_have_no_accessibility_violations(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    reader = open_reader(app)
    found: dict[str, list[str]] = {}

    expect(reader.card(item.id)).to_be_visible(timeout=15_000)
    found["queue"] = findings(reader)
    reader.open(item.id)
    found["open"] = findings(reader)
    reader.press("t")
    expect(reader.button("Release")).to_be_visible()
    reader.press("c", "d", "Enter", "Enter")
    expect(reader.page.locator("li.finding.added")).to_have_count(1)
    found["claimed"] = findings(reader)
    reader.press("?")
    expect(reader.page.get_by_role("dialog")).to_be_visible()
    found["help"] = findings(reader)
    reader.press("Escape", "s")
    expect(reader.page.get_by_role("dialog")).to_contain_text("Sign off as")
    found["dialog"] = findings(reader)
    reader.press("Enter")
    expect(reader.decision).to_contain_text("changed by")
    found["decided"] = findings(reader)
    reader.press("k")
    expect(reader.page.get_by_label("Why it is corrected")).to_be_visible()
    found["correcting"] = findings(reader)

    assert {state: told for state, told in found.items() if told} == {}


def test_the_check_finds_what_is_wrong(
    app: RunningApp, item: Item, open_reader: OpenReader
) -> None:
    reader = open_reader(app)
    expect(reader.card(item.id)).to_be_visible(timeout=15_000)
    reader.page.evaluate(
        "() => document.querySelector('.device').style.setProperty('color', '#222')"
    )
    assert any(one.startswith("color-contrast") for one in findings(reader))
