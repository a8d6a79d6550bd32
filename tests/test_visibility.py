"""What of a study is told to those who do not see the forensic lane: not that there is one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from slicewatch import inventory, unfinished, worklist
from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.identity import Identity, Role
from slicewatch.records import (
    Coverage,
    Finding,
    FoldedFindings,
    IntegrityIssue,
    Lane,
    LaneFlag,
    Review,
    StudyStatus,
)
from slicewatch.settings import Settings
from slicewatch.storage import INCOMING, Storage
from slicewatch.visibility import shown
from tests import studies
from tests.doors import body_of, function_of, request
from tests.identities import principal
from triggers import study_status

CLINICAL = LaneFlag(Lane.CLINICAL, 40, ("mass",), "a mass")
FORENSIC = LaneFlag(Lane.FORENSIC, 90, ("tampered",), "pasted tissue")
READER = Identity("r", "r", frozenset({Role.READER}))
SEEING = Identity("f", "f", frozenset({Role.FORENSIC_REVIEWER}))


def review(*lanes: LaneFlag, study: str = "1.2", **changes: Any) -> Review:
    values: dict[str, Any] = {
        "study_instance_uid": study,
        "generation": 1,
        "status": StudyStatus.FLAGGED,
        "lanes": lanes,
        "coverage": Coverage(3, 3, 3),
        "findings": (Finding("f1", "mass", 0.9, 0.9, "1.2", (), rules=("mass", "tampered")),),
        "integrity": (IntegrityIssue("copy-move", "error", "pasted tissue"),),
        "models": (),
        "policy_name": "default",
        "policy_sha256": "",
        "content_digest": "",
        "folded_findings": (FoldedFindings("1.2", "mass", "m", 4, 9, 0.5, flagged=4),),
    }
    return Review(**(values | changes))


def test_who_sees_the_lane_is_shown_the_review_as_it_is() -> None:
    made = review(CLINICAL, FORENSIC)
    assert shown(made, SEEING) == made


def test_who_does_not_is_shown_the_clinical_part_alone() -> None:
    found = shown(review(CLINICAL, FORENSIC), READER)
    assert (found.lanes, found.integrity, found.priority) == ((CLINICAL,), (), 40)
    assert found.findings[0].rules == ("mass",)
    assert found.status is StudyStatus.FLAGGED


@pytest.mark.parametrize(
    ("coverage", "status"),
    [
        (Coverage(3, 3, 3), StudyStatus.NOT_FLAGGED),
        (Coverage(3, 3, 2), StudyStatus.INCOMPLETE),
        (Coverage(3, 3, 0), StudyStatus.NOT_SCREENED),
    ],
)
def test_a_study_of_the_forensic_lane_alone_is_shown_as_its_coverage_has_it(
    coverage: Coverage, status: StudyStatus
) -> None:
    found = shown(review(FORENSIC, coverage=coverage), READER)
    assert (found.status, found.lanes, found.priority) == (status, (), 0)
    assert found.folded_findings[0].flagged == 0


@pytest.mark.parametrize("at", [StudyStatus.FLAGGED, StudyStatus.REVIEWED])
@pytest.mark.parametrize("lanes", [(FORENSIC,), (CLINICAL, FORENSIC)])
def test_the_status_tells_the_same_whatever_the_forensic_lane_does(
    storage: Storage,
    settings: Settings,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    lanes: tuple[LaneFlag, ...],
    at: StudyStatus,
) -> None:
    monkeypatch.setattr(app_settings, "current", lambda: settings)
    monkeypatch.setattr(app_storage, "current", lambda: storage)
    study = studies.new_uid("study", seed)
    made = review(*lanes, study=study, content_digest=inventory.digest([], []))
    inventory.write_review(storage, made)
    if at is StudyStatus.FLAGGED:  # an item that waits keeps the study among the unfinished ones
        unfinished.open_study(storage, study)
    now = datetime.now(UTC)
    items = [
        worklist.add(storage, one)
        for one in worklist.items_of(made, inventory.instance_id(study), now)
    ]
    reader = worklist.Reader("f", "f")
    for item in items:
        if item.lane is Lane.FORENSIC or at is StudyStatus.REVIEWED:
            worklist.claim(storage, item.id, reader)
    progress = {
        "status": at,
        "published": True,
        "generation": 1,
        "lanes": [flag.lane for flag in lanes],
        "priority": 90,
    }
    engine = SimpleNamespace(get_orchestration_state=lambda name: running(progress))

    def told(role: str) -> dict[str, Any]:
        asked = request("GET", "studies", headers=principal("x", role), study=study)
        return dict(body_of(function_of(study_status)(asked, engine)))

    found = told("reader")
    text = json.dumps(found)
    assert found["orchestration"] is None
    assert not [word for word in ("forensic", "tampered", "pasted") if word in text]
    if len(lanes) == 1:
        assert found["status"] == found["review"]["status"] == "not_flagged"
        assert found["progress"]["status"] == "not_flagged"
        assert found["progress"]["priority"] == found["review"]["priority"] == 0
    else:
        assert found["status"] in ("flagged", "in_review", "reviewed")
        assert found["progress"]["priority"] == 40
    seen = told("forensic-reviewer")
    assert "pasted tissue" in json.dumps(seen)
    assert seen["orchestration"]["runtime_status"] == "running"


def test_what_came_after_a_review_of_the_forensic_lane_alone_is_receiving(
    storage: Storage, settings: Settings, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_settings, "current", lambda: settings)
    monkeypatch.setattr(app_storage, "current", lambda: storage)
    study = studies.new_uid("study", seed)
    digest = inventory.digest([], [])
    inventory.write_review(storage, review(FORENSIC, study=study, content_digest=digest))
    storage.write(INCOMING, f"{study}/1/2.dcm", b"later")
    unfinished.open_study(storage, study)
    engine = SimpleNamespace(get_orchestration_state=lambda name: None)
    asked = request("GET", "studies", headers=principal("x", "reader"), study=study)
    assert body_of(function_of(study_status)(asked, engine))["status"] == "receiving"


def running(progress: dict[str, Any]) -> SimpleNamespace:
    """An orchestration that waits, as the durable client tells of it."""
    now = datetime.now(UTC)
    return SimpleNamespace(
        instance_id="study-x",
        runtime_status=SimpleNamespace(name="RUNNING"),
        created_at=now,
        last_updated_at=now,
        get_custom_status=lambda kind: dict(progress),
    )
