"""Activities raise what another try may cure, and answer what it would not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from activities.faults import only_transient_faults_raise
from orchestrators.answers import FinalFault, answer_of
from slicewatch.messages import Settlement
from slicewatch.model_registry import ModelError
from slicewatch.storage import BlobMissing, Conflict, StorageUnavailable


def failing(error: Exception) -> Any:
    @only_transient_faults_raise
    def activity(request: dict[str, Any]) -> dict[str, Any]:
        raise error

    return activity


@pytest.mark.parametrize("error", [StorageUnavailable("x"), Conflict("x"), ConnectionResetError()])
def test_a_transient_fault_raises(error: Exception) -> None:
    with pytest.raises(type(error)):
        failing(error)({})


@pytest.mark.parametrize("error", [BlobMissing("x"), TypeError("x"), ZeroDivisionError()])
def test_another_fault_is_an_answer_that_ends_the_orchestration(error: Exception) -> None:
    answer = failing(error)({})
    assert answer == {"fault": type(error).__name__, "activity": "activity"}
    with pytest.raises(FinalFault, match=type(error).__name__):
        answer_of(Settlement, answer)


def test_the_log_says_where_and_not_what_the_object_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        failing(ValueError("DOE^JANE"))({})
    assert "activity:" in caplog.text
    assert "DOE" not in caplog.text


def test_a_fault_of_the_apps_own_files_is_logged_whole(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        failing(ModelError(Path("brain.toml"), "sha256", "swapped"))({})
    assert "brain.toml: sha256: swapped" in caplog.text


def test_an_answer_without_fault_is_its_record() -> None:
    assert answer_of(Settlement, {"covered": True}) == Settlement(True)
