"""The worklist's doors: the way of an item through its readers, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import azure.functions as func
import pytest

from slicewatch import custody, feedback, inventory, worklist
from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.records import (
    Coverage,
    Finding,
    FindingSlice,
    IntegrityIssue,
    Lane,
    LaneFlag,
    Review,
    StudyStatus,
)
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from slicewatch.worklist import Item
from tests import studies
from tests.dicomweb_doors import store
from tests.doors import body_of, function_of, request
from tests.identities import principal


class Queue:
    """One study with an item in each lane, and the doors as somebody knocks at them."""

    def __init__(self, storage: Storage, settings: Settings, seed: int) -> None:
        self.storage, self.settings = storage, settings
        self.study = studies.new_uid("study", seed)
        store(storage, settings, *studies.study_bytes(2, seed=seed).values())
        objects = [blob.name for blob in inventory.received(storage, self.study)]
        self.instance = objects[0].rsplit("/", 1)[-1].removesuffix(".dcm")
        self.blob = objects[0]
        self.publish(1)
        self.events: list[dict[str, Any]] = []
        self.started: list[str] = []
        self.engine = SimpleNamespace(
            raise_orchestration_event=lambda *_, data: self.events.append(data),
            schedule_new_orchestration=lambda name, **_: self.started.append(name),
        )

    def publish(self, generation: int) -> None:
        piece = FindingSlice(self.instance, 1, self.blob, 0.9, (1, 2, 9, 9))
        self.review = Review(
            study_instance_uid=self.study,
            generation=generation,
            status=StudyStatus.FLAGGED,
            lanes=(
                LaneFlag(Lane.CLINICAL, 50, ("mass",), "a mass"),
                LaneFlag(Lane.FORENSIC, 80, ("tampered",), "two patients"),
            ),
            coverage=Coverage(2, 2, 2),
            findings=(
                Finding("f1", "mass", 0.9, 0.9, "1.2", (piece,), rules=("mass", "tampered")),
            ),
            integrity=(IntegrityIssue("patients", "error", "two patients"),),
            models=(),
            policy_name="default",
            policy_sha256="",
            content_digest="",
        )
        inventory.write_review(self.storage, self.review)
        name, readers = inventory.instance_id(self.study), self.settings.forensic_readers
        self.clinical, self.forensic = (
            worklist.add(self.storage, one)
            for one in worklist.items_of(
                self.review,
                name,
                datetime.now(UTC),
                forensic_readers=readers,
            )
        )

    def ask(
        self,
        door: str,
        item: Item | None = None,
        user: str = "ada",
        *roles: str,
        headers: dict[str, str] | None = None,
        query: dict[str, str] | None = None,
        **body: Any,
    ) -> func.HttpResponse:
        """Knock; without roles named, with those of a reviewer of both lanes."""
        held = roles or ("clinical-reviewer", "forensic-reviewer")
        module = importlib.import_module(f"triggers.{door}")
        asked = func.HttpRequest(
            "POST",
            "https://slicewatch.example/api/worklist",
            headers=principal(user, *held) | (headers or {}),
            params=query or {},
            route_params={"item": item.id} if item else {},
            body=json.dumps(body).encode() if body else b"",
        )
        function = function_of(module)
        more = {"client": self.engine} if "client" in inspect.signature(function).parameters else {}
        answer: func.HttpResponse = function(asked, **more)
        return answer

    def decide(self, item: Item, user: str = "ada", **body: Any) -> dict[str, Any]:
        assert self.ask("worklist_claim", item, user).status_code == 200
        answer = self.ask("worklist_decision", item, user, **body)
        assert answer.status_code == 200, answer.get_body()
        return dict(body_of(answer))

    def told(self) -> list[tuple[str, str]]:
        log = custody.of(self.storage, self.settings)
        entries = [json.loads(line)["body"] for line in log.lines(self.study)]
        names = ((one["event"], one["actor"]) for one in entries)
        return [(event, who.get("reader") or who.get("principal", "")) for event, who in names]

    def box(self, *edges: float) -> dict[str, Any]:
        return {"sop_instance_uid": self.instance, "frame": 1, "box": list(edges)}


def error_of(answer: func.HttpResponse) -> tuple[int, str]:
    error = body_of(answer)["error"]
    assert all(error[key] for key in ("code", "message", "remedy"))
    return answer.status_code, error["code"]


@pytest.fixture
def make(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Queue]:
    def making(settings: Settings, seed: int) -> Queue:
        monkeypatch.setattr(app_settings, "current", lambda: settings)
        monkeypatch.setattr(app_storage, "current", lambda: storage)
        return Queue(storage, settings, seed)

    return making


@pytest.fixture
def queue(make: Callable[..., Queue], settings: Settings, seed: int) -> Queue:
    return make(settings, seed)


@pytest.fixture
def two_readers(make: Callable[..., Queue], settings: Settings, seed: int) -> Queue:
    return make(dataclasses.replace(settings, forensic_readers=2), seed)


# --- the way of an item -------------------------------------------------------------------------


def test_a_reader_claims_opens_and_decides_and_all_of_it_is_logged(queue: Queue) -> None:
    item = queue.clinical
    claimed = body_of(queue.ask("worklist_claim", item))
    assert (claimed["state"], claimed["holder"], claimed["mine"]) == ("claimed", "ada", True)
    opened = body_of(queue.ask("worklist_item", item))
    assert opened.keys() == {"item", "review", "readings", "corrections", "superseded_by"}
    assert [one["id"] for one in opened["review"]["findings"]] == ["f1"]
    body: dict[str, Any] = {
        "findings": {
            "f1": {"verdict": "changed", "label": "cyst", "boxes": [queue.box(1, 2, 8, 8)]}
        },
        "additions": [{"label": "mass", "boxes": [queue.box(20, 20, 30, 30)]}],
        "comment": "<script>alert(1)</script>",
    }
    answer = queue.ask("worklist_decision", item, **body)
    decided = body_of(answer)
    assert (answer.status_code, decided["state"]) == (200, "decided"), decided
    assert decided["decision"]["verdict"] == "changed"
    assert decided["decision"]["comment"] == body["comment"], "text stays text"
    assert (decided["due"], decided["readings"], decided["mine"]) == (None, 1, False)
    assert queue.events == [{"item": item.id}]
    assert queue.told() == [("claimed", "ada"), ("viewed", "ada"), ("decided", "ada")]
    again = queue.ask("worklist_decision", item, **body)
    assert again.status_code == 200, "the answer may have been lost"
    assert len(queue.told()) == 3


def test_the_reader_is_who_is_signed_in_and_nobody_acts_for_others(queue: Queue) -> None:
    refused = queue.ask("worklist_claim", queue.clinical, reader="ben")
    assert error_of(refused) == (400, "another-reader")
    assert worklist.get(queue.storage, queue.clinical.id).state == "open"
    assert queue.ask("worklist_claim", queue.clinical, reader="ada").status_code == 200


def test_what_another_holds_is_answered_with_the_item_and_its_holder(queue: Queue) -> None:
    queue.ask("worklist_claim", queue.clinical, "ben")
    bodies: dict[str, dict[str, Any]] = {
        "worklist_claim": {},
        "worklist_release": {},
        "worklist_decision": {"verdict": "confirmed"},
    }
    for door, body in bodies.items():
        refused = queue.ask(door, queue.clinical, **body)
        assert error_of(refused) == (409, "item-claimed")
        assert body_of(refused)["item"]["holder"] == "ben"
        assert not body_of(refused)["item"]["mine"]


def test_a_decided_or_superseded_item_takes_no_decision(queue: Queue) -> None:
    queue.decide(queue.clinical, verdict="confirmed")
    other = queue.ask("worklist_decision", queue.clinical, "ben", verdict="rejected")
    assert error_of(other) == (409, "item-decided")
    queue.ask("worklist_claim", queue.forensic)
    worklist.supersede(queue.storage, queue.forensic.id)
    late = queue.ask("worklist_decision", queue.forensic, verdict="rejected")
    assert error_of(late) == (409, "item-superseded")
    assert [one["item"] for one in queue.events] == [queue.clinical.id]


def test_an_item_says_which_one_took_over(queue: Queue) -> None:
    old = queue.clinical
    queue.publish(2)
    worklist.supersede(queue.storage, old.id)
    assert body_of(queue.ask("worklist_item", old))["superseded_by"] == queue.clinical.id
    assert body_of(queue.ask("worklist_item", queue.clinical))["superseded_by"] is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"verdict": "perhaps"}, (400, "bad-decision")),
        ({"findings": {"f2": "confirmed"}}, (400, "unknown-finding")),
        ({"verdict": "confirmed", "comment": "x" * 4001}, (400, "comment-too-long")),
        ({"verdict": "confirmed", "comment": "\ud800"}, (400, "bad-decision")),
        ({"additions": [{"label": "x", "boxes": [(0, 0, 1, 9999)]}]}, (400, "box-outside")),
        (
            {"additions": [{"label": "x", "boxes": [(0, 0, 1, 1)] * 3000}]},
            (413, "decision-too-large"),
        ),
    ],
)
def test_a_decision_that_cannot_be_taken_changes_nothing(
    queue: Queue, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    queue.ask("worklist_claim", queue.clinical)
    for one in body.get("additions", ()):
        one["boxes"] = [
            queue.box(*edges) if isinstance(edges, tuple) else edges for edges in one["boxes"]
        ]
    assert error_of(queue.ask("worklist_decision", queue.clinical, **body)) == expected
    assert worklist.get(queue.storage, queue.clinical.id).state == "claimed"
    assert queue.events == []


def test_a_body_that_is_no_object_is_refused(queue: Queue) -> None:
    from triggers import worklist_decision

    for body, status in ((b"[]", 400), (b"{", 400), (b"[" * 100_000, 400), (b" " * (2 << 20), 413)):
        asked = request("POST", "worklist", body, headers=principal("ada"), item=queue.clinical.id)
        assert function_of(worklist_decision)(asked, queue.engine).status_code == status


@pytest.mark.parametrize("name", ["a'b/c-clinical", "study-1-1-clinical", "", "x" * 500])
def test_a_name_that_can_be_no_item_is_unknown_at_once(queue: Queue, name: str) -> None:
    item = Item(name, "", 1, Lane.CLINICAL, 0, "", (), "")
    for door in ("worklist_claim", "worklist_item"):
        assert error_of(queue.ask(door, item)) == (404, "unknown-item")


# --- two readers --------------------------------------------------------------------------------


def test_the_second_reader_is_not_told_what_the_first_said(two_readers: Queue) -> None:
    queue, item = two_readers, two_readers.forensic
    first = queue.decide(item, "ada", verdict="confirmed", comment="a first opinion")
    assert (first["state"], first["stage"], first["readings"]) == ("open", "second", 1)
    assert queue.events == [], "the study goes on waiting"
    for door in ("worklist_item", "worklist_claim", "worklist"):
        text = queue.ask(door, item, "ben").get_body()
        assert b"a first opinion" not in text
    assert error_of(queue.ask("worklist_claim", item, "ada")) == (409, "item-claimed")
    queue.ask("worklist_release", item, "ben")
    assert error_of(queue.ask("worklist_claim", item, "ada")) == (409, "already-read")
    second = queue.decide(item, "ben", verdict="confirmed")
    assert (second["state"], second["readings"]) == ("decided", 2)
    assert queue.events == [{"item": item.id}]
    readings = body_of(queue.ask("worklist_item", item))["readings"]
    assert [(one["stage"], one["reader"]) for one in readings] == [
        ("first", "ada"),
        ("second", "ben"),
    ]
    events = [one for one in queue.told() if one[0] in ("read", "decided")]
    assert events == [("read", "ada"), ("read", "ben"), ("decided", "ben")]


def test_where_readers_differ_an_adjudicator_sees_both_and_decides(two_readers: Queue) -> None:
    queue, item = two_readers, two_readers.forensic
    queue.decide(item, "ada", verdict="confirmed")
    found = queue.decide(item, "ben", verdict="rejected")
    assert (found["state"], found["stage"], queue.events) == ("open", "adjudication", [])
    opened = body_of(queue.ask("worklist_item", item, "eva"))
    assert [one["decision"]["verdict"] for one in opened["readings"]] == ["confirmed", "rejected"]
    found = queue.decide(item, "eva", verdict="rejected")
    assert (found["state"], found["decision"]["verdict"]) == ("decided", "rejected")
    assert queue.events == [{"item": item.id}]


def test_the_clinical_lane_has_one_reader(two_readers: Queue) -> None:
    assert two_readers.decide(two_readers.clinical, verdict="confirmed")["state"] == "decided"


# --- corrections --------------------------------------------------------------------------------


def test_a_correction_stands_beside_the_decision_and_counts(queue: Queue) -> None:
    item = queue.clinical
    early = queue.ask("worklist_correction", item, verdict="rejected", reason="a vessel")
    assert error_of(early) == (409, "item-open")
    queue.decide(item, findings={"f1": "confirmed"})
    unsaid = queue.ask("worklist_correction", item, "ben", verdict="rejected")
    assert error_of(unsaid) == (400, "bad-decision")
    answer = queue.ask(
        "worklist_correction", item, "ben", findings={"f1": "rejected"}, reason="a vessel"
    )
    assert (answer.status_code, body_of(answer)["correction"]["number"]) == (200, 1)
    assert queue.started == ["report_study"], "other systems are told, too"
    opened = body_of(queue.ask("worklist_item", item))
    assert opened["item"]["decision"]["verdict"] == "confirmed"
    assert [one["reason"] for one in opened["corrections"]] == ["a vessel"]
    assert queue.told()[-2:] == [("corrected", "ben"), ("viewed", "ada")]
    _, drawn = feedback.gather(queue.storage, [item.id])
    assert drawn == {(queue.instance, 1): []}, "what trains is what was said last"


# --- the list -----------------------------------------------------------------------------------


def listed(queue: Queue, *who: str, **query: str) -> dict[str, dict[str, Any]]:
    answer = queue.ask("worklist", None, *who, query={"limit": "10000", **query})
    assert answer.status_code == 200, answer.get_body()
    body = body_of(answer)
    assert body["total"] == len(body["items"])
    return {one["id"]: one for one in body["items"] if one["study"] == queue.study}


def test_the_list_says_how_each_item_stands(queue: Queue) -> None:
    queue.ask("worklist_claim", queue.clinical)
    found = listed(queue)[queue.clinical.id]
    assert found["sla_s"] == queue.settings.clinical_sla_s
    assert found["due"] > found["created"]
    assert (found["overdue"], found["raised"], found["mine"]) == (False, False, True)
    assert (found["stage"], found["readings"], found["readers_needed"]) == ("first", 0, 1)
    assert not found.keys() & {"lock", "decision"}
    assert not listed(queue, "ben")[queue.clinical.id]["mine"]


def test_a_list_that_did_not_change_is_not_sent_again(queue: Queue) -> None:
    first = queue.ask("worklist")
    headers = {"If-None-Match": first.headers["ETag"]}
    again = queue.ask("worklist", headers=headers)
    assert (again.status_code, again.get_body()) == (304, b"")
    queue.ask("worklist_claim", queue.clinical)
    changed = queue.ask("worklist", headers=headers)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_a_list_may_be_cut_and_says_how_many_there_are(queue: Queue) -> None:
    body = body_of(queue.ask("worklist", query={"limit": "1"}))
    assert len(body["items"]) == 1
    assert body["total"] >= 2
    for limit in ("0", "10001", "x", "-1", "١"):
        assert error_of(queue.ask("worklist", query={"limit": limit})) == (400, "bad-query")
    assert error_of(queue.ask("worklist", query={"lane": "x"})) == (400, "bad-query")
    assert error_of(queue.ask("worklist", query={"state": "open,x"})) == (400, "bad-query")


# --- the forensic lane --------------------------------------------------------------------------


def test_nothing_of_the_forensic_lane_shows_to_those_without_its_role(queue: Queue) -> None:
    for role in ("reader", "clinical-reviewer"):
        assert listed(queue, "eve", role).keys() == {queue.clinical.id}
        assert listed(queue, "eve", role, lane="forensic") == {}
        text = queue.ask("worklist_item", queue.clinical, "eve", role).get_body().decode()
        for word in ("forensic", "tampered", "two patients"):
            assert word not in text
    for role in ("forensic-reviewer", "administrator"):
        assert listed(queue, "ivy", role).keys() == {queue.clinical.id, queue.forensic.id}
        assert (
            "two patients"
            in queue.ask("worklist_item", queue.clinical, "ivy", role).get_body().decode()
        )


def test_a_reader_may_look_and_not_claim(queue: Queue) -> None:
    assert queue.ask("worklist_item", queue.clinical, "eve", "reader").status_code == 200
    refused = queue.ask("worklist_claim", queue.clinical, "eve", "reader")
    assert error_of(refused) == (403, "role-missing")
    other = queue.ask("worklist_claim", queue.clinical, "eve", "forensic-reviewer")
    assert error_of(other) == (403, "role-missing")
