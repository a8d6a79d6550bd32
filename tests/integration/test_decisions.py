"""Readers work through the worklist: claim, decide, escalate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from slicewatch.records import Lane
from slicewatch.worklist import Item
from tests import studies
from tests.integration.running_app import RunningApp


@pytest.fixture
def study(app: RunningApp, seed: int) -> str:
    """A flagged study of the clinical lane."""
    uid = studies.new_uid("study", seed)
    app.send(uid, studies.study_bytes(5, seed=seed, lesion=(2, 3, 4)))
    app.await_status(uid, "flagged")
    return uid


@pytest.fixture
def item(app: RunningApp, study: str) -> Item:
    (found,) = app.worklist(study)
    return found


def test_a_decision_makes_the_study_reviewed(app: RunningApp, study: str, item: Item) -> None:
    claimed = app.act(item.id, "claim", reader="reader-1")
    assert claimed.status_code == 200
    assert (claimed.json()["state"], claimed.json()["holder"]) == ("claimed", "reader-1")
    assert app.act(item.id, "claim", reader="reader-1").status_code == 200
    assert app.status(study)["status"] == "in_review"

    second = app.act(item.id, "claim", reader="reader-2")
    assert second.status_code == 409
    assert second.json()["item"]["holder"] == "reader-1"
    stolen = app.act(item.id, "decision", reader="reader-2", verdict="rejected")
    assert stolen.status_code == 409

    finding = app.status(study)["review"]["findings"][0]["id"]
    decided = app.act(
        item.id,
        "decision",
        reader="reader-1",
        verdict="confirmed",
        findings={finding: "confirmed"},
        comment="seen",
    )
    assert decided.status_code == 200, decided.text
    app.await_status(study, "reviewed")
    app.await_end(study)
    (after,) = app.worklist(study)
    assert after.state == "decided"
    assert after.decision == {
        "verdict": "confirmed",
        "findings": {finding: {"verdict": "confirmed", "comment": "", "boxes": []}},
        "additions": [],
        "comment": "seen",
    }
    again = app.act(item.id, "decision", reader="reader-1", verdict="rejected")
    assert again.status_code == 409, "a decision is final"
    waiting = app.http.get("/api/worklist").json()["items"]
    assert item.id not in [one["id"] for one in waiting]
    app.purge(study)
    assert app.status(study)["status"] == "reviewed", "also when its orchestration is forgotten"


def test_of_many_simultaneous_claims_exactly_one_wins(app: RunningApp, item: Item) -> None:
    readers = [f"reader-{n}" for n in range(50)]
    with ThreadPoolExecutor(len(readers)) as pool:
        answers = list(pool.map(lambda one: app.act(item.id, "claim", reader=one), readers))
    winners = [
        reader for reader, answer in zip(readers, answers, strict=True) if answer.status_code == 200
    ]
    assert len(winners) == 1
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {409}
    assert {answer.json()["item"]["holder"] for answer in refused} == set(winners)
    released = app.act(item.id, "release", reader=winners[0])
    assert released.json()["state"] == "open"
    assert app.status(item.study)["status"] == "flagged"
    assert app.act(item.id, "claim", reader="another").status_code == 200


def test_an_item_that_nobody_decides_rises_and_its_lane_is_told(app: RunningApp, seed: int) -> None:
    study = studies.new_uid("study", seed)
    objects = studies.study_bytes(4, seed=seed)
    changed = studies.to_bytes(studies.ct_image(seed=seed, number=2, SeriesDescription="other"))
    assert app.store([*objects.values(), changed]).status_code == 202
    app.close(study, list(objects))
    app.await_status(study, "flagged")
    (item,) = app.worklist(study)
    assert item.lane is Lane.FORENSIC
    (risen,) = app.wait(
        lambda: app.worklist(study), lambda found: found[0].level == 2, "the item never escalated"
    )
    assert (risen.priority, risen.urgency) == (item.priority, min(100, item.priority + 20))
    messages = app.wait(
        lambda: app.messages(item.id), lambda told: len(told) == 3, "the lane was not told"
    )
    assert [one["level"] for one in messages] == [0, 1, 2]
    assert [one["priority"] for one in messages] == [
        min(100, item.priority + 10 * level) for level in (0, 1, 2)
    ]
    assert app.status(study)["status"] == "flagged"

    for reader in ("reader-1", "reader-2"):
        app.decide(item.id, reader=reader, verdict="rejected")
    app.await_status(study, "reviewed")
    app.await_end(study)
    told = app.messages(item.id)
    assert len(told) == 4, "a decided item escalates no further"
    assert told[-1]["stage"] == "second"


def test_a_study_of_two_lanes_is_reviewed_when_both_have_decided(
    app: RunningApp, seed: int
) -> None:
    study = studies.new_uid("study", seed)
    objects = studies.study_bytes(5, seed=seed, lesion=(2, 3))
    changed = studies.to_bytes(studies.ct_image(seed=seed, number=5, SeriesDescription="other"))
    assert app.store([*objects.values(), changed]).status_code == 202
    app.close(study, list(objects))
    app.await_status(study, "flagged")
    clinical, forensic = app.worklist(study)
    assert (clinical.lane, forensic.lane) == (Lane.CLINICAL, Lane.FORENSIC)
    app.decide(clinical.id)
    assert app.status(study)["status"] == "in_review"
    app.decide(forensic.id, reader="reader-2")
    (_, waiting) = app.worklist(study)
    assert (waiting.state, waiting.stage) == ("open", "second"), "one of two has read it"
    assert app.status(study)["status"] == "in_review"
    app.decide(forensic.id, reader="reader-3", verdict="rejected")
    assert app.instance(study)["runtimeStatus"] == "Running", "they differ: it waits for a third"
    app.decide(forensic.id, reader="reader-4", verdict="rejected")
    app.await_status(study, "reviewed")
    app.await_end(study)


def test_an_unknown_item_and_a_malformed_decision_are_told(app: RunningApp, item: Item) -> None:
    assert app.act("study-0-1-clinical", "claim", reader="reader-1").status_code == 404
    assert app.act(item.id, "claim", reader="reader-1").status_code == 200
    unknown = app.act(item.id, "decision", reader="reader-1", verdict="perhaps")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "bad-decision")
    (still,) = [one for one in app.worklist(item.study) if one.id == item.id]
    assert still.state == "claimed"
