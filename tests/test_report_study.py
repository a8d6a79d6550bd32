"""What is made and sent of a review holds nothing up, and is made up for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities import report_review, send_report
from slicewatch import storage as storages
from slicewatch.arrival import Intake, Offered
from slicewatch.holdings import held, originals, read
from slicewatch.records import Lane, StudyStatus
from slicewatch.report_messages import ReportRequest
from slicewatch.reporting import making, stored
from slicewatch.settings import Settings
from slicewatch.storage import INCOMING, Storage, StorageUnavailable
from tests import studies
from tests.orchestration import REPORT_STUDY, Engine, Study, engine, plan, replay
from tests.reporting.reviewed import marked, reported

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:highdicom.*")


def flagged(*lanes: Lane, **changes: Any) -> Study:
    values: dict[str, Any] = {"received": 4, "closed": True, "lanes": lanes or (Lane.CLINICAL,)}
    return Study(status=StudyStatus.FLAGGED, **(values | changes))


@contextmanager
def published(study: Study) -> Iterator[tuple[Engine, str]]:
    """The engine with the study's orchestration, once its review is out."""
    with engine(study) as running:
        instance = running.start(plan())
        running.wait(instance, lambda: bool(running.status(instance).get("published")))
        yield running, instance


def reports_of(running: Engine) -> list[str]:
    return sorted(name for name in running.backend._instances if name.startswith("report-"))


# --- the orchestration --------------------------------------------------------------------------


def test_a_published_review_is_reported_and_sent() -> None:
    study = flagged(has_pacs=True)
    with published(study) as (running, instance):
        running.wait(instance, lambda: study.sent == [1])
        (report,) = reports_of(running)
        running.finish(report)
        replay(running.history(report), orchestrator=REPORT_STUDY)
        replay(running.history(instance))
    assert study.reported == [1]


def test_without_a_pacs_nothing_is_sent() -> None:
    study = flagged()
    with published(study) as (running, _):
        (report,) = reports_of(running)
        output = running.finish(report).get_output()
    assert output == {"objects": 2, "unsent": 0}
    assert study.sent == []


def test_a_clinical_decision_is_reported_at_once_and_a_forensic_one_never() -> None:
    study = flagged(Lane.CLINICAL, Lane.FORENSIC, has_pacs=True)
    with published(study) as (running, instance):
        running.wait(instance, lambda: study.sent == [1])
        running.event(instance, "decision", {"item": "item-1-clinical"})
        running.wait(instance, lambda: study.sent == [1, 1])
        assert running.state(instance).runtime_status.name == "RUNNING"
        running.event(instance, "decision", {"item": "item-1-forensic"})
        running.finish(instance)
        assert len(reports_of(running)) == 2
        replay(running.history(instance))
    assert study.sent == [1, 1]


def test_a_decision_whose_event_got_lost_is_reported_when_it_is_noticed() -> None:
    study = flagged()
    with engine(study) as running:
        instance = running.start(plan(sla_s={"clinical": 0.5, "forensic": 60.0}))
        running.wait(instance, lambda: study.reported == [1])
        study.decided.add("item-1-clinical")
        running.finish(instance)
        running.wait(instance, lambda: study.reported == [1, 1])


def test_a_report_that_fails_leaves_the_flag_and_its_decision_as_they_are() -> None:
    def broken(generation: int) -> None:
        raise RuntimeError("no such thing")

    study = flagged(report=broken)
    with published(study) as (running, instance):
        (report,) = reports_of(running)
        assert running.finish(report).runtime_status.name == "FAILED"
        assert running.status(instance)["status"] == "flagged"
        running.event(instance, "decision", {"item": "item-1-clinical"})
        output = running.finish(instance).get_output()
    assert output["status"] == "reviewed"
    assert not study.open


def test_a_pacs_that_is_away_delays_no_decision_and_gets_the_report_when_it_is_back() -> None:
    away = itertools.chain([True, True], itertools.repeat(False))

    def send(generation: int) -> None:
        if next(away):
            raise ConnectionError("the PACS does not answer")

    study = flagged(has_pacs=True, send=send)
    with engine(study) as running:
        instance = running.start(plan(retry=plan().retry.__class__(5, 0.4)))
        running.wait(instance, lambda: bool(running.status(instance).get("published")))
        running.event(instance, "decision", {"item": "item-1-clinical"})
        state = running.finish(instance)
        assert study.sent == []
        running.wait(instance, lambda: len(study.sent) == 2)
    assert state.get_output()["status"] == "reviewed"


# --- the activities -----------------------------------------------------------------------------


@pytest.fixture
def activity(
    storage: Storage, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Calls an activity with the emulator's account."""
    monkeypatch.setattr(storages, "current", lambda: storage)
    monkeypatch.setattr("slicewatch.settings.current", lambda: settings)

    def call(module: Any, study: str) -> dict[str, Any]:
        function = getattr(module, module.__name__.rpartition(".")[2])
        work = function._function.get_user_function()
        answer: dict[str, Any] = work(ReportRequest(study, 1).to_json())
        return answer

    return call


def open_reports(storage: Storage, study: str) -> list[stored.Unfinished]:
    return [one for one in stored.unfinished(storage) if one.study == study]


def test_what_is_made_is_off_the_list_of_the_sweep(
    activity: Callable[..., dict[str, Any]], storage: Storage, settings: Settings, seed: int
) -> None:
    study = reported(storage, settings, studies.ct_series(3, seed=seed), marked([1])).study
    stored.open_report(storage, study, 1)
    assert open_reports(storage, study)
    assert activity(report_review, study) == {"objects": 2, "unsent": 0}
    assert not open_reports(storage, study)
    standing = stored.standing(storage, study, 1)
    assert [one["name"] for one in standing["objects"]] == ["pr-1.dcm", "sr.dcm"]
    assert (standing["fault"], standing["remarks"]) == (None, [])
    assert {one["delivery"] for one in standing["objects"]} == {None}


def test_a_fault_that_stays_is_said_and_not_tried_for_ever(
    activity: Callable[..., dict[str, Any]], storage: Storage, settings: Settings, seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    study = reported(storage, settings, studies.ct_series(3, seed=seed), {}).study
    stored.open_report(storage, study, 1)

    def broken(*_: Any) -> None:
        raise ValueError("Doe^Jane")

    monkeypatch.setattr(making, "make", broken)
    answer = activity(report_review, study)
    assert answer == {"fault": "ValueError", "activity": "report_review"}
    assert stored.standing(storage, study, 1)["fault"] == "ValueError"
    assert not open_reports(storage, study)


def test_a_fault_that_may_pass_stays_on_the_list_of_the_sweep(
    activity: Callable[..., dict[str, Any]], storage: Storage, settings: Settings, seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    study = reported(storage, settings, studies.ct_series(3, seed=seed), {}).study

    def away(*_: Any) -> None:
        raise StorageUnavailable("storage answers 503")

    monkeypatch.setattr(making, "make", away)
    with pytest.raises(StorageUnavailable):
        activity(report_review, study)
    (left,) = open_reports(storage, study)
    assert not left.is_due(datetime.now(UTC))
    assert left.is_due(datetime.now(UTC) + timedelta(minutes=20))


def test_the_sweep_waits_longer_each_time(storage: Storage, seed: int) -> None:
    study = studies.new_uid("study", seed)
    waits = []
    for tries in (0, 1, 6, 20):
        stored.open_report(storage, study, 1, tries=tries)
        stored.touch(storage, study, 1)
        (left,) = open_reports(storage, study)
        waits.append(next(h for h in range(100) if left.is_due(left.touched + timedelta(hours=h))))
    stored.close_report(storage, study, 1)
    assert waits == [1, 1, 17, 17]


def test_sending_without_anything_to_send_ends_well(
    activity: Callable[..., dict[str, Any]], storage: Storage, settings: Settings, seed: int
) -> None:
    study = reported(storage, settings, studies.ct_series(3, seed=seed), {}).study
    assert activity(send_report, study) == {"sent": 0, "refused": 0}


# --- results are no arrivals --------------------------------------------------------------------


def test_a_result_that_comes_back_is_acknowledged_and_opens_nothing(
    storage: Storage, settings: Settings, seed: int
) -> None:
    study = reported(storage, settings, studies.ct_series(3, seed=seed), marked([1]))
    study.make()
    before = [blob.name for blob in storage.listing(INCOMING, f"{study.study}/")]
    intake = Intake(storage, settings, "stow-rs")
    receipts = intake.receive_all(map(Offered, study.files.values()))
    assert [(one.reason, one.duplicate, one.blob) for one in receipts] == [(None, True, "")] * 2
    assert intake.studies == ()
    assert [blob.name for blob in storage.listing(INCOMING, f"{study.study}/")] == before


def test_results_are_held_beside_the_originals_and_are_none(
    storage: Storage, settings: Settings, seed: int
) -> None:
    objects = studies.ct_series(3, seed=seed)
    study = reported(storage, settings, objects, marked([1]))
    study.make()
    every = held(storage, study.study)
    assert len(every) == 5
    assert len(list(originals(storage, study.study))) == 3
    results = [one for one in every if one.result]
    assert {read(storage, one) for one in results} == set(study.files.values())
    for one in results:
        (found,) = held(storage, study.study, one.series, one.instance)
        assert found == one
