"""The sweep: what a lost event or a crash left behind is found and started."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from slicewatch import inventory, unfinished
from slicewatch import settings as app_settings
from slicewatch.storage import INCOMING, Storage
from tests import studies
from tests.doors import Engine, body_of, function_of, request
from tests.intake.senders import (
    a_review,
    a_study,
    drop,
    related,
    stow,
)


def test_the_sweep_starts_each_unfinished_study_that_nothing_works_on(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    lost, running, ended = (studies.new_uid("sweep", seed, n) for n in range(3))
    for study in (lost, running, ended):
        unfinished.open_study(storage, study)
    from triggers.admission import start_review

    for study in (running, ended):
        start_review(engine.client, app_settings.current(), study)
    engine.end(ended)
    call("sweep", None)
    assert engine.runtime_status(lost) in ("PENDING", "RUNNING")
    assert engine.runtime_status(ended) in ("PENDING", "RUNNING")
    assert engine.events(running) == []


def test_the_sweep_tells_a_waiting_orchestration_only_of_what_its_review_lacks(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed, 2)
    call("stow_store", stow(related(*files.values())))
    engine.publish(study)
    content = inventory.digest(inventory.content_of(inventory.received(storage, study)), ())
    inventory.write_review(storage, a_review(study, content))
    call("sweep", None)
    assert engine.events(study) == []
    late = studies.to_bytes(studies.ct_image(seed=seed, number=9))
    storage.write(INCOMING, f"{study}/1/9.dcm", late, metadata={"sha256": "9"})
    call("sweep", None)
    assert engine.events(study)[-1] == "late"


def test_a_study_that_fails_again_and_again_is_tried_at_growing_intervals(
    call: Any, engine: Engine, storage: Storage, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, files = a_study(seed, 1)
    call("stow_store", stow(related(*files.values())))
    engine.fail(study)
    told = body_of(call("study_status", request("GET", "x", study=study)))
    assert (told["status"], told["failure"]) == ("failed", None), "no sweep has seen it"

    call("sweep", None)
    call("sweep", None)
    assert engine.runtime_status(study) == "FAILED", "its pause is not over"
    told = body_of(call("study_status", request("GET", "x", study=study)))["failure"]
    pauses = [_pause(told)]
    assert told["attempts"] == 1, "one failure is counted once"
    from triggers import health

    assert body_of(function_of(health)(request("GET", "x")))["failed_studies"] >= 1

    with monkeypatch.context() as later:
        later.setattr(unfinished.Failure, "due", lambda self, _: self.last)
        call("sweep", None)
    assert engine.runtime_status(study) in ("PENDING", "RUNNING"), "it is not forgotten"
    engine.fail(study)
    call("sweep", None)
    told = body_of(call("study_status", request("GET", "x", study=study)))["failure"]
    assert told["attempts"] == 2
    pauses.append(_pause(told))
    assert pauses == [60, 120]


def _pause(failure: dict[str, Any]) -> float:
    last, following = (datetime.fromisoformat(failure[key]) for key in ("last", "next_attempt"))
    assert last.tzinfo is not None
    return (following - last).total_seconds()


def test_a_study_that_went_well_after_a_failure_begins_to_count_anew(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    published, settled = (studies.new_uid("went-well", seed, n) for n in range(2))
    now = datetime.now(UTC)
    for study in (published, settled):
        unfinished.note_failure(storage, study, None, now)
    unfinished.open_study(storage, published)
    from triggers.admission import start_review

    start_review(engine.client, app_settings.current(), published)
    engine.publish(published)
    call("sweep", None)
    assert unfinished.failure_of(storage, published) is None
    assert unfinished.failure_of(storage, settled) is None


def test_what_arrives_of_a_failed_study_starts_it_at_once(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed, 2)
    first, second = files.values()
    call("stow_store", stow(related(first)))
    engine.fail(study)
    call("sweep", None)
    call("stow_store", stow(related(second)))
    assert engine.runtime_status(study) in ("PENDING", "RUNNING")


def test_the_sweep_admits_what_was_left_in_the_dropbox(
    call: Any, storage: Storage, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from triggers import sweep

    study, files = a_study(seed, 1)
    drop(storage, next(iter(files.values())))
    call("sweep", None)
    assert not inventory.received(storage, study), "its own event comes first"
    monkeypatch.setattr(sweep, "_DROP_IS_STALE", timedelta(seconds=-1))
    call("sweep", None)
    assert len(inventory.received(storage, study)) == 1
