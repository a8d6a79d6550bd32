"""The review page in Chromium: time to the first image, and scrolling through 500 slices.

The browser has no GPU here and shares the machine with the app and its storage.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import httpx
from playwright.sync_api import Page, sync_playwright

from demo.scanner import find, send
from demo.stack import Stack
from training.phantom import generate_study

CHROMIUM = Path("/usr/bin/chromium")
SLICES = 500
EDGE = 512
OPENINGS = 3
_TIMEOUT_S = 900.0

# One key press a frame of the display, as fast as it goes, from the first slice to the last; counts
# the slices that were painted (`data-painted`), not the key presses.
_SCROLL = """async last => {
    const viewport = document.getElementById("viewport");
    const before = Number(viewport.dataset.painted), started = performance.now();
    while (viewport.dataset.slice !== last && performance.now() - started < 120000) {
        viewport.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown", bubbles: true}));
        await new Promise(requestAnimationFrame);
    }
    return [Number(viewport.dataset.painted) - before, (performance.now() - started) / 1000];
}"""


def measure() -> dict[str, float]:
    """Seconds from opening a study to its first image (median, the page loaded, nothing of the
    study at hand), and slices painted a second: with all images at hand, and while they load.
    """
    with tempfile.TemporaryDirectory(prefix="slicewatch-review-") as folder:
        files = Path(folder, "study")
        generate_study(files, seed=7, lesions=True, slices=SLICES, rows=EDGE, columns=EDGE)
        with Stack(log=Path(folder, "host.log")) as stack:
            _store(stack.url, files)
            return _in_browser(stack.url)


def _store(url: str, files: Path) -> None:
    """Send the study in and wait for its item on the worklist."""
    deadline = time.monotonic() + _TIMEOUT_S
    with httpx.Client(base_url=url, timeout=300) as client:
        for objects in find(files).values():
            if send(client, objects):
                raise RuntimeError("objects of the generated study were refused")
        while not client.get("/api/worklist").raise_for_status().json()["items"]:
            if time.monotonic() > deadline:
                raise RuntimeError("the generated study never came up on the worklist")
            time.sleep(0.5)


def _in_browser(url: str) -> dict[str, float]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        first_images = []
        for _ in range(OPENINGS):
            page = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
            page.goto(f"{url}/api/review")
            first_images.append(_open(page))
            if len(first_images) < OPENINGS:
                page.context.close()
        page.wait_for_selector("[role=slider]", timeout=_TIMEOUT_S * 1000)
        loading = _scroll(page)
        page.wait_for_function(
            "wanted => Number(document.getElementById('viewport').dataset.loaded) === wanted",
            arg=SLICES,
            timeout=_TIMEOUT_S * 1000,
        )
        at_hand = _scroll(page)
        chromium.close()
    return {
        "first_image_s": round(median(first_images), 3),
        "scroll_slices_per_s": round(at_hand, 1),
        "scroll_while_loading_slices_per_s": round(loading, 1),
    }


def _open(page: Page) -> float:
    """Open the study; the seconds from the click to the painted image, by the browser's clock."""
    page.locator("button.card[data-item]").first.click()
    page.wait_for_selector("#viewport[data-slice]", timeout=60_000)
    milliseconds: float = page.evaluate(
        "() => performance.getEntriesByName('slicewatch:image')[0].startTime"
        " - performance.getEntriesByName('slicewatch:open')[0].startTime"
    )
    return milliseconds / 1000


def _scroll(page: Page) -> float:
    page.keyboard.press("Home")
    page.wait_for_selector("#viewport[data-slice='1']", timeout=60_000)
    painted, seconds = page.evaluate(_SCROLL, str(SLICES))
    return float(painted / seconds)
