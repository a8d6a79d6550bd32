"""The app with the review page, and readers who use it in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from demo.stack import ROOT
from tests.integration.running_app import RunningApp, running_app
from tests.tiny_model import write_tiny_model
from tests.web.reader import Reader

CHROMIUM = Path("/usr/bin/chromium")
ARTEFACTS = ROOT / "runs" / "review-page"

type OpenReader = Callable[..., Reader]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def page_is_built() -> None:
    """Tests in a browser need one, and the page: `make page` builds it, as `make test` does."""
    if not (ROOT / "web" / "dist" / "index.html").exists():
        pytest.skip("the review page is not built: make page")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: install the package chromium")


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, page_is_built: None) -> Iterator[RunningApp]:
    models = write_tiny_model(tmp_path_factory.mktemp("models")).parent
    yield from running_app(tmp_path_factory.mktemp("app"), models)


@pytest.fixture(scope="session")
def browser(page_is_built: None) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_reader(browser: Browser, request: pytest.FixtureRequest) -> Iterator[OpenReader]:
    """Opens the page for a reader; afterwards nobody's browser may have complained.

    Each reader's last screen is kept under ``runs/review-page/``.
    """
    readers: list[Reader] = []

    def opened(app: RunningApp, name: str = "Dr. Ada", **options: object) -> Reader:
        readers.append(Reader(browser, app.stack.url, name, **options))  # type: ignore[arg-type]
        return readers[-1]

    yield opened
    test = request.node.name.removeprefix("test_")
    for number, reader in enumerate(readers, 1):
        reader.screenshot(ARTEFACTS / f"{test}-{number}.png")
        reader.close()
    assert [line for reader in readers for line in reader.complaints] == []
