"""One study's whole way: stored, closed, screened, reviewed, on the worklist, on the queue."""

from __future__ import annotations

import json

import pytest

from demo.scanner import find, send
from demo.stack import ROOT
from slicewatch import inventory
from slicewatch.records import DISCLAIMER, Lane, Reason, StudyStatus
from slicewatch.storage import REVIEWS
from slicewatch.triage import load_policy
from tests import studies
from tests.integration.running_app import RunningApp
from tests.tiny_model import LABEL, NAME, VERSION

REAL = ROOT.parent / "shared" / "data" / "soft-tissue" / "STS_001"


def test_a_study_with_a_lesion_is_flagged_and_waits_for_a_reader(
    app: RunningApp, seed: int
) -> None:
    objects = studies.study_bytes(20, seed=seed, lesion=range(6, 11), others=True)
    study = studies.new_uid("study", seed)
    app.send(study, objects)
    review = app.await_review(study)

    assert review.status is StudyStatus.FLAGGED
    assert [finding.label for finding in review.findings] == [LABEL]
    finding = review.findings[0]
    assert [one.instance_number for one in finding.slices] == [6, 7, 8, 9, 10]
    assert finding.extent_mm is not None
    # The lesion is an ellipse of 0.2 × 80 columns by 0.2 × 96 rows of 0.8 mm, on slices 3 mm apart.
    assert finding.extent_mm == pytest.approx((12.8, 15.4, 15.0), abs=4)
    coverage = review.coverage
    assert (coverage.received_objects, coverage.images, coverage.screened) == (22, 20, 20)
    assert {(one.reason, one.count) for one in coverage.not_screened} == {(Reason.NOT_AN_IMAGE, 1)}
    assert len(coverage.not_screened) == 2, "an SR and an RTSTRUCT, of a series each"
    assert coverage.rejected == ()
    assert coverage.missing == ()
    assert [(model.name, model.version, model.slices) for model in review.models] == [
        (NAME, VERSION, 20)
    ]
    policy = load_policy(ROOT / "slicewatch" / "policies" / "default.toml")
    assert (review.policy_name, review.policy_sha256) == (policy.name, policy.sha256)
    assert review.disclaimer == DISCLAIMER
    assert review.timings["receiving_s"] >= 0

    (item,) = app.worklist(study)
    assert (item.lane, item.state, item.generation) == (Lane.CLINICAL, "open", 1)
    assert item.priority == review.priority > 0
    listed = app.http.get("/api/worklist", params={"lane": "clinical"}).json()["items"]
    assert item.id in [one["id"] for one in listed]
    (message,) = app.messages(item.id)
    assert message == {
        "item": item.id,
        "lane": "clinical",
        "priority": item.priority,
        "level": 0,
        "stage": "first",
        "created": item.created,
    }
    status = app.status(study)
    assert status["status"] == "flagged"
    assert status["progress"]["screened"] == 20
    assert status["review"]["findings"][0]["label"] == LABEL


def test_originals_stay_as_they_were_sent(app: RunningApp, seed: int) -> None:
    objects = studies.study_bytes(3, seed=seed, others=True)
    study = studies.new_uid("study", seed)
    app.send(study, objects)
    app.await_review(study)
    stored = app.stored(study)
    assert sorted(stored.values()) == sorted(objects.values())
    assert {inventory.sop_instance_uid(name) for name in stored} == set(objects)


def test_a_clean_study_is_not_flagged_and_its_orchestration_ends(
    app: RunningApp, seed: int
) -> None:
    study = studies.new_uid("study", seed)
    app.send(study, studies.study_bytes(12, seed=seed))
    review = app.await_review(study)
    assert review.status is StudyStatus.NOT_FLAGGED
    assert review.coverage.screened == review.coverage.images == 12
    assert app.worklist(study) == []
    app.await_end(study)


def test_nothing_of_the_patient_is_in_log_state_or_messages(app: RunningApp, seed: int) -> None:
    study = studies.new_uid("study", seed)
    objects = studies.study_bytes(6, seed=seed, lesion=(2, 3, 4))
    app.send(study, objects)
    app.await_review(study)
    (item,) = app.worklist(study)
    secrets = ("Test^Generated", f"GEN-{seed}", "19700101")
    instance = app.instance(study, showHistory="true", showHistoryOutput="true", showInput="true")
    told = json.dumps([instance, app.messages(item.id), item.to_json()])
    assert [one for one in secrets if one in told] == []
    assert [one for one in (*secrets, study, *objects) if one in app.log] == []
    assert study not in json.dumps(app.messages(item.id))


def test_screening_starts_while_slices_still_arrive(app: RunningApp, seed: int) -> None:
    objects = studies.study_bytes(8, seed=seed)
    study = studies.new_uid("study", seed)
    first, rest = list(objects.values())[:4], list(objects.values())[4:]
    assert app.store(first).status_code == 200
    app.wait(
        lambda: app.progress(study),
        lambda progress: progress.get("screened") == 4,
        "what came first was not screened before the rest came",
    )
    assert app.progress(study)["status"] == "receiving"
    assert app.store(rest).status_code == 200
    assert app.close(study, list(objects)).status_code == 202
    assert app.await_review(study).coverage.screened == 8


def test_without_close_the_quiet_period_ends_a_study(app: RunningApp, seed: int) -> None:
    study = studies.new_uid("study", seed)
    assert app.store(studies.study_bytes(4, seed=seed).values()).status_code == 200
    assert app.await_review(study).status is StudyStatus.NOT_FLAGGED


@pytest.mark.skipif(not REAL.is_dir(), reason="the real studies are not here")
def test_a_real_study_is_reviewed_with_everything_accounted_for(app: RunningApp) -> None:
    ((study, objects),) = find(REAL).items()
    assert send(app.http, objects) == []
    review = app.await_review(study, seconds=90)

    assert review.status is StudyStatus.FLAGGED
    assert review.findings
    assert all(finding.extent_mm and finding.centre_mm for finding in review.findings)
    coverage = review.coverage
    structure_sets = [one for one in coverage.not_screened if one.reason is Reason.NOT_AN_IMAGE]
    assert coverage.received_objects == len(objects)
    assert sum(one.count for one in structure_sets) == len(list(REAL.rglob("RS.dcm"))) > 0
    assert coverage.screened == coverage.images == len(objects) - len(structure_sets)
    assert (coverage.rejected, coverage.missing) == ((), ())
    sent = {path.read_bytes() for path in REAL.rglob("*.dcm")}
    assert set(app.stored(study).values()) == sent
    assert app.storage.info(REVIEWS, f"{study}/1/review.json") is not None
    assert {item.state for item in app.worklist(study)} == {"open"}
