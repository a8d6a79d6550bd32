"""The emulator and a host that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.azurite import Azurite
from tests.local_host.running_host import RunningHost, running_host


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    with Azurite() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def host(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """One host with two workers that the tests share which harm nobody."""
    folder = tmp_path_factory.mktemp("host")
    with running_host(
        folder,
        AzureWebJobsStorage=azurite.connection_string,
        Second=azurite.connection_string,
        FUNCTIONS_WORKER_PROCESS_COUNT="2",
        PYTHON_THREADPOOL_THREAD_COUNT="4",
    ) as running:
        yield running
