"""A reader at the review page: one browser context, one identity."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Locator, Request, expect

ALL_ROLES = ("reader", "clinical-reviewer", "forensic-reviewer")
LAPTOP = (1280, 800)
_NUMBER = re.compile(r"[1-9][0-9]*")


def principal(name: str, roles: Sequence[str]) -> str:
    """The platform's header, which development mode takes at its word."""
    claims = [{"typ": "name", "val": name}, *({"typ": "roles", "val": role} for role in roles)]
    told = {"auth_typ": "aad", "claims": claims, "name_typ": "name", "role_typ": "roles"}
    return base64.b64encode(json.dumps(told).encode()).decode()


class Reader:
    """What a reader does and sees.

    Args:
        size: of the window, CSS pixels.
        expected: complaints of the browser that the test provokes, by a part of their text.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        name: str,
        *,
        roles: Sequence[str] = ALL_ROLES,
        size: tuple[int, int] = LAPTOP,
        expected: Sequence[str] = (),
    ) -> None:
        self.complaints: list[str] = []
        self._expected = expected
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            extra_http_headers={"X-MS-CLIENT-PRINCIPAL": principal(name, roles)},
        )
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self._complain(f"error: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.goto(f"{url}/api/review")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complain(f"{message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        # What a newer request made needless is aborted by the page itself.
        if request.failure != "net::ERR_ABORTED":
            self._complain(f"{request.failure}: {request.url}")

    def _complain(self, text: str) -> None:
        if not any(part in text for part in self._expected):
            self.complaints.append(text)

    # --- parts of the page

    def card(self, item: str) -> Locator:
        """The item in the queue."""
        return self.page.locator(f'button.card[data-item="{item}"]')

    @property
    def image(self) -> Locator:
        return self.page.locator("#viewport")

    @property
    def decision(self) -> Locator:
        return self.page.get_by_role("complementary", name="Decision")

    @property
    def notice(self) -> Locator:
        return self.page.locator(".notice")

    def finding(self, number: int) -> Locator:
        """A finding in the list, from 0."""
        return self.page.locator("li.finding").nth(number)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=False)

    # --- what a reader does

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def sign(self) -> None:
        """Sign off with the keys, and answer the question that comes."""
        self.press("s")
        expect(self.page.get_by_role("dialog")).to_contain_text("Sign off as")
        self.press("Enter")

    def open(self, item: str) -> None:
        """Open the item with the mouse and wait for the whole series."""
        self.card(item).click()
        self.await_series()

    def await_series(self) -> None:
        expect(self.page.get_by_role("slider")).to_be_visible(timeout=20_000)
        expect(self.image).to_have_attribute("data-slice", _NUMBER, timeout=20_000)

    @property
    def slice(self) -> int:
        """The slice that is shown, from 1."""
        return int(self.image.get_attribute("data-slice") or 0)

    @property
    def window(self) -> tuple[int, int]:
        """Centre and width that the viewer tells."""
        text = self.page.locator(".sw span").first.inner_text().replace("−", "-")
        _, centre, _, width = text.split()
        return int(centre), int(width)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag over the image, from and to parts of its width and height."""
        box = self.image.bounding_box()
        assert box is not None

        def at(point: tuple[float, float]) -> tuple[float, float]:
            return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]

        self.page.mouse.move(*at(start))
        self.page.mouse.down()
        self.page.mouse.move(*at(end), steps=6)
        self.page.mouse.up()

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)

    def close(self) -> None:
        # A draft that was not signed asks before the page is left; a context does not.
        self.context.close()
