"""Close and status: a sender says what it sent, and learns where the study stands."""

from __future__ import annotations

from typing import Any

import pytest

from slicewatch import closings, inventory
from slicewatch.storage import INCOMING, Storage
from tests import studies
from tests.doors import Engine, body_of, request
from tests.intake.senders import (
    a_review,
    a_study,
    close,
    error_of,
    related,
    stow,
)


def test_a_close_is_noted_and_told_to_the_orchestration(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    response = call("study_close", close(study))
    assert response.status_code == 202
    assert body_of(response) == {"study": study, "closed": True, "received": 3, "missing": 0}
    assert closings.expected_instances(storage, study) == ()
    assert engine.events(study) == ["close"]


def test_a_close_with_a_list_tells_what_is_missing(call: Any, storage: Storage, seed: int) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    response = call("study_close", close(study, {"instances": [*files, "1.2.3"]}))
    assert body_of(response)["missing"] == 1
    assert set(closings.expected_instances(storage, study) or ()) == {*files, "1.2.3"}


def test_a_close_says_what_was_screened_at_the_edge_and_that_is_expected_too(
    call: Any, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    said = {"outcome": "screened", "whereabouts": "held", "instances": ["1.2.3"], "model": "m@1"}
    response = call("study_close", close(study, {"screened_at_edge": [said]}))
    assert body_of(response)["missing"] == 1
    [stored] = closings.screened_at_edge(storage, study)
    assert (stored.model, stored.instances) == ("m@1", ("1.2.3",))


def test_a_close_after_publication_has_the_review_made_again(
    call: Any, engine: Engine, seed: int
) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    engine.publish(study)
    call("study_close", close(study, {"instances": [*files, "1.2.3"]}))
    assert engine.events(study) == ["late", "close"]
    engine.end(study)
    call("study_close", close(study))
    assert engine.runtime_status(study) in ("PENDING", "RUNNING")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 100_000,
        b"\xff",
        b'["1.2"]',
        b'{"instance": ["1.2"]}',
        b'{"instances": "1.2"}',
        b'{"instances": ["1.2", 3]}',
        b'{"instances": ["1.2/../3"]}',
        b'{"instances": [], "screened_at_edge": {}}',
        b'{"screened_at_edge": [{"outcome": "flagged", "whereabouts": "held", "instances": []}]}',
    ],
)
def test_a_bad_body_of_a_close_is_told(call: Any, seed: int, body: bytes) -> None:
    study = studies.new_uid("study", seed)
    response = call("study_close", request("POST", "x", body, study=study))
    assert response.status_code == 400
    assert error_of(response)["code"] == "bad-body"


@pytest.mark.parametrize("door", ["study_close", "study_status"])
def test_an_unknown_study_is_told(call: Any, seed: int, door: str) -> None:
    response = call(door, request("POST", "x", study=studies.new_uid("study", seed)))
    assert response.status_code == 404
    assert error_of(response)["code"] == "unknown-study"


def test_the_status_is_the_orchestrations_with_the_latest_review(
    call: Any, engine: Engine, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    call("stow_store", stow(related(*files.values())))
    engine.publish(study)
    inventory.write_review(storage, a_review(study))
    said = body_of(call("study_status", request("GET", "x", study=study)))
    assert said["study"] == study
    assert said["status"] == "flagged"
    assert said["progress"]["published"]
    assert said["orchestration"]["instance_id"] == inventory.instance_id(study)
    assert said["orchestration"]["runtime_status"] == "running"
    assert said["review"]["generation"] == 2
    assert said["review"]["coverage"]["screened"] == 3
    assert said["review"]["disclaimer"].startswith("not a medical device")


def test_a_study_without_orchestration_has_the_status_of_its_review(
    call: Any, storage: Storage, seed: int
) -> None:
    study, files = a_study(seed)
    storage.write(INCOMING, f"{study}/1/2.dcm", next(iter(files.values())))
    said = body_of(call("study_status", request("GET", "x", study=study)))
    assert (said["status"], said["review"], said["orchestration"]) == ("receiving", None, None)
    inventory.write_review(storage, a_review(study))
    said = body_of(call("study_status", request("GET", "x", study=study)))
    assert said["status"] == "not_flagged"
