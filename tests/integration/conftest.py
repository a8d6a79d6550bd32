"""One app for all tests that do not harm it; studies have UIDs of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.running_app import RunningApp, running_app
from tests.tiny_model import write_tiny_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model."""
    return write_tiny_model(tmp_path_factory.mktemp("models")).parent


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[RunningApp]:
    """The app that the tests share. Forensic items escalate soon and need two readers, clinical
    ones do neither.
    """
    yield from running_app(
        tmp_path_factory.mktemp("app"),
        models,
        {
            "SLICEWATCH_FORENSIC_SLA_SECONDS": "2",
            "SLICEWATCH_FORENSIC_READERS": "2",
            "SLICEWATCH_MAX_ESCALATION": "2",
            "SLICEWATCH_MAX_REQUEST_BYTES": str(8 << 20),
            "SLICEWATCH_MAX_FRAME_PIXELS": str(512 * 512),
        },
    )
