"""What ``review_study`` promises, on the real engine over a simulated study."""

from __future__ import annotations

import time
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import pytest

from orchestrators import collection
from slicewatch.records import Lane, StudyStatus
from tests.orchestration import STUDY, Engine, Study, engine, plan, replay


def flagged(**changes: Any) -> Study:
    return Study(
        status=StudyStatus.FLAGGED, lanes=changes.pop("lanes", (Lane.CLINICAL,)), **changes
    )


def published(running: Engine, instance: str) -> bool:
    return bool(running.status(instance).get("published"))


def test_a_closed_study_is_screened_whole_and_finished_without_waiting() -> None:
    study = Study(received=10, closed=True)
    with engine(study) as running:
        instance = running.start(plan(quiet_s=1000, force_s=1000))
        state = running.finish(instance)
        output = state.get_output()
        replay(running.history(instance))
    assert output["status"] == "not_flagged"
    assert output["screened"] == output["received"] == 10
    assert study.results == {0: 4, 1: 4, 2: 2}
    assert not study.open


def test_slices_are_screened_while_others_still_arrive() -> None:
    study = Study(received=4)
    with engine(study) as running:
        instance = running.start(plan())
        running.wait(instance, lambda: len(study.results) == 1)
        assert running.status(instance)["status"] == "receiving"
        with study.lock:
            study.received, study.closed = 8, True
        running.event(instance, "close")
        running.finish(instance)
    assert study.seen_at_screening == [4, 8]


def test_a_quiet_study_is_whole_only_after_a_look_at_what_is_stored() -> None:
    study = Study(received=4)
    with engine(study) as running:
        instance = running.start(plan(quiet_s=0.5, poll_s=0.1, max_poll_s=0.1))
        running.wait(instance, lambda: len(study.listings) >= 2)
        study.unnoted = 2
        state = running.finish(instance)
        replay(running.history(instance))
    assert state.get_output()["received"] == 6
    assert study.generations == [6], "found before the review, not by the next generation"
    assert study.listings.count(True) < len(study.listings)


def test_close_is_noticed_at_once_not_at_the_next_poll() -> None:
    study = Study(received=3)
    with engine(study) as running:
        instance = running.start(plan(poll_s=20, max_poll_s=20, quiet_s=1000, force_s=1000))
        running.wait(instance, lambda: running.status(instance).get("received") == 3)
        study.closed = True
        before = time.monotonic()
        running.event(instance, "close")
        running.finish(instance)
        assert time.monotonic() - before < 10


def test_never_more_batches_in_flight_than_the_plan_allows() -> None:
    study = Study(received=80, closed=True, screen=lambda batch: time.sleep(0.02))
    with engine(study) as running:
        running.finish(running.start(plan(max_in_flight=3)))
    assert study.most_in_flight <= 3
    assert sum(study.results.values()) == 80


def test_a_quiet_study_is_reviewed_though_nobody_closed_it() -> None:
    study = Study(received=3)
    with engine(study) as running:
        state = running.finish(running.start(plan(quiet_s=0.3)))
    assert state.get_output()["screened"] == 3
    assert study.forced == [False]


def test_a_study_closed_with_missing_instances_waits_for_them_through_the_quiet_period() -> None:
    study = Study(received=4, closed=True, missing=1)
    with engine(study) as running:
        instance = running.start(plan(quiet_s=30))
        running.wait(instance, lambda: running.status(instance).get("missing") == 1)
        assert not study.generations
        with study.lock:
            study.received, study.missing = 5, 0
        running.finish(instance)
    assert study.generations == [5]


def test_a_study_that_never_falls_silent_is_reviewed_at_the_deadline() -> None:
    study = Study(received=1)
    with engine(study) as running:
        instance = running.start(plan(quiet_s=2, force_s=1))
        deadline = time.monotonic() + 10
        while not study.generations and time.monotonic() < deadline:
            with study.lock:
                study.received += 1
            time.sleep(0.05)
        running.finish(instance)
    assert study.forced[0] is True


def test_a_transient_fault_is_tried_again() -> None:
    faults = iter([True, True, False])

    def screen(batch: int) -> None:
        if next(faults):
            raise ConnectionError("storage does not answer")

    study = Study(received=4, closed=True, screen=screen)
    with engine(study) as running:
        state = running.finish(running.start(plan()))
    assert state.get_output()["screened"] == 4


def test_a_fault_that_stays_ends_as_failed_and_leaves_the_study_to_the_sweep() -> None:
    def screen(batch: int) -> None:
        raise ConnectionError("storage does not answer")

    study = Study(received=4, closed=True, screen=screen)
    with engine(study) as running:
        instance = running.start(plan())
        state = running.finish(instance)
        replay(running.history(instance))
    assert state.runtime_status.name == "FAILED"
    assert state.get_custom_status()["status"] == "failed"
    assert study.open


def test_a_flagged_study_waits_for_its_decision() -> None:
    study = flagged(received=4, closed=True)
    with engine(study) as running:
        instance = running.start(plan())
        running.wait(instance, lambda: published(running, instance))
        assert running.status(instance)["status"] == "flagged"
        assert study.open
        running.event(instance, "decision", {"item": "item-1-clinical"})
        output = running.finish(instance).get_output()
        replay(running.history(instance))
    assert output["status"] == "reviewed"
    assert not study.open


def test_every_lane_is_waited_for() -> None:
    study = flagged(received=4, closed=True, lanes=(Lane.CLINICAL, Lane.FORENSIC))
    with engine(study) as running:
        instance = running.start(plan())
        running.wait(instance, lambda: published(running, instance))
        running.event(instance, "decision", {"item": "item-1-clinical"})
        time.sleep(0.3)
        assert running.status(instance)["status"] == "flagged"
        running.event(instance, "decision", {"item": "item-1-forensic"})
        assert running.finish(instance).get_output()["status"] == "reviewed"


@pytest.mark.parametrize("data", [None, "text", {"item": "of another study"}, {}])
def test_a_decision_event_that_names_no_waiting_item_ends_nothing(data: Any) -> None:
    study = flagged(received=4, closed=True)
    with engine(study) as running:
        instance = running.start(plan())
        running.wait(instance, lambda: published(running, instance))
        running.event(instance, "decision", data)
        time.sleep(0.3)
        assert running.status(instance)["status"] == "flagged"
        running.event(instance, "decision", {"item": "item-1-clinical"})
        running.finish(instance)


def test_an_undecided_item_escalates_level_by_level_and_stays_at_the_last() -> None:
    study = flagged(received=4, closed=True)
    with engine(study) as running:
        instance = running.start(plan(sla_s={"clinical": 0.4}, max_escalation=2))
        running.wait(instance, lambda: len(study.escalations) == 2)
        time.sleep(1.0)
        running.event(instance, "decision", {"item": "item-1-clinical"})
        running.finish(instance)
        replay(running.history(instance))
    assert study.escalations == [("item-1-clinical", 1), ("item-1-clinical", 2)]


def test_a_decision_whose_event_was_lost_is_seen_when_the_time_runs_out() -> None:
    study = flagged(received=4, closed=True)
    with engine(study) as running:
        instance = running.start(plan(sla_s={"clinical": 1.0}))
        running.wait(instance, lambda: published(running, instance))
        study.decided.add("item-1-clinical")
        assert running.finish(instance).get_output()["status"] == "reviewed"


def test_slices_that_come_after_publication_make_a_new_generation() -> None:
    study = flagged(received=4, closed=True)
    with engine(study) as running:
        instance = running.start(plan())
        running.wait(instance, lambda: published(running, instance))
        study.received = 6
        running.event(instance, "late")
        running.wait(instance, lambda: running.status(instance).get("generation") == 2)
        running.event(instance, "decision", {"item": "item-2-clinical"})
        output = running.finish(instance).get_output()
    assert study.generations == [4, 6]
    assert output["received"] == 6


def test_a_late_event_without_late_slices_changes_nothing() -> None:
    study = flagged(received=4, closed=True)
    with engine(study) as running:
        instance = running.start(plan())
        running.wait(instance, lambda: published(running, instance))
        running.event(instance, "late")
        running.event(instance, "decision", {"item": "item-1-clinical"})
        running.finish(instance)
    assert study.generations == [4]


def test_slices_that_come_while_it_is_assessed_are_not_lost_though_no_event_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = Study(received=4, closed=True)
    assess = study.assess_study

    def slow(context: Any, data: dict[str, Any]) -> dict[str, Any]:
        answer = assess(context, data)
        study.received = max(study.received, 5)
        return answer

    monkeypatch.setattr(study, "assess_study", slow)
    with engine(study) as running:
        running.finish(running.start(plan()))
    assert study.generations == [4, 5]
    assert not study.open


def test_a_study_started_anew_does_not_screen_again_what_was_screened() -> None:
    study = Study(received=8, closed=True, batches={0: 4}, results={0: 4})
    with engine(study) as running:
        output = running.finish(running.start(plan())).get_output()
    assert study.seen_at_screening == [8]
    assert output["screened"] == 8


def test_a_reviewed_study_started_anew_asks_for_no_second_decision() -> None:
    study = flagged(received=4, closed=True, decided={"item-1-clinical"})
    with engine(study) as running:
        output = running.finish(running.start(plan())).get_output()
    assert output["status"] == "reviewed"


def test_a_long_arrival_continues_as_new_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "LOOKS_A_RUN", 5)
    study = Study(received=1)
    with engine(study) as running:
        instance = running.start(plan(poll_s=0.02, max_poll_s=0.03))
        for _ in range(20):
            with study.lock:
                study.received += 1
            time.sleep(0.1)
            assert len(running.history(instance)) < 120
        study.closed = True
        running.event(instance, "close")
        output = running.finish(instance).get_output()
    assert output["screened"] == 21


def test_the_history_of_2000_slices_stays_under_half_an_event_a_slice() -> None:
    study = flagged(batch_size=32, received=2000, closed=True)
    with engine(study) as running:
        instance = running.start(plan(max_in_flight=8))
        running.wait(instance, lambda: published(running, instance), timeout_s=60)
        running.event(instance, "decision", {"item": "item-1-clinical"})
        running.finish(instance)
        history = running.history(instance)
        replay(history)
    assert len(history) / 2000 < 0.5
    assert max(_payload_bytes(event) for event in history) < 16 * 1024


def _payload_bytes(event: pb.HistoryEvent) -> int:
    return int(event.ByteSize())


def test_no_durable_message_names_the_patient_or_a_slice() -> None:
    study = flagged(received=4, closed=True)
    with engine(study) as running:
        instance = running.start(plan())
        running.wait(instance, lambda: published(running, instance))
        text = "".join(str(event) for event in running.history(instance))
        assert STUDY in text
        assert ".dcm" not in text
        running.event(instance, "decision", {"item": "item-1-clinical"})
        running.finish(instance)


def test_a_fault_that_another_try_would_not_cure_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = []
    study = Study(received=4, closed=True)

    def broken(context: Any, data: dict[str, Any]) -> dict[str, Any]:
        tries.append(data)
        return {"fault": "ModelError", "activity": "screen_slices"}

    monkeypatch.setattr(study, "screen_slices", broken)
    with engine(study) as running:
        state = running.finish(running.start(plan()))
    assert len(tries) == 1
    assert state.runtime_status.name == "FAILED"
    assert state.get_custom_status()["status"] == "failed"
    assert study.open
