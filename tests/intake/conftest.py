"""The doors on a real engine and storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from slicewatch import settings as app_settings
from slicewatch import storage as app_storage
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from tests.doors import Engine, function_of, running_engine


@pytest.fixture(scope="package")
def engine() -> Iterator[Engine]:
    yield from running_engine()


@pytest.fixture(autouse=True)
def app(
    settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The app's settings and storage are the tests'."""
    monkeypatch.setattr(app_settings, "current", lambda: settings)
    monkeypatch.setattr(app_storage, "current", lambda: storage)
    return monkeypatch


@pytest.fixture
def call(engine: Engine) -> Any:
    """Calls a door by its name: ``call("stow_store", request)``."""

    def calling(name: str, argument: Any) -> Any:
        module = __import__(f"triggers.{name}", fromlist=[name])
        return function_of(module)(argument, engine.client)

    return calling
