"""What tests share: one storage emulator a session, and UIDs of their own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import hypothesis
import pytest

from slicewatch import settings as app_settings
from slicewatch.settings import Settings
from slicewatch.storage import Storage
from tests.azurite import Azurite
from tests.identities import DEVELOPER

# A busy machine is no defect: pytest-timeout ends what hangs.
hypothesis.settings.register_profile("slicewatch", deadline=None)
hypothesis.settings.load_profile("slicewatch")

_seeds = itertools.count(10_000)


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    with Azurite() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def settings(azurite: Azurite) -> Settings:
    """The app settings with the emulator's account, and a development identity of every role."""
    return app_settings.load(
        {
            "AzureWebJobsStorage": azurite.connection_string,
            "SLICEWATCH_DEVELOPMENT_IDENTITY": DEVELOPER,
        }
    )


@pytest.fixture(scope="session")
def storage(settings: Settings) -> Storage:
    """The emulator's account; its containers are shared, so studies need UIDs of their own."""
    return Storage(settings)


@pytest.fixture
def seed() -> int:
    """A seed of `tests.studies` that no other test has: it gives UIDs of its own."""
    return next(_seeds)
