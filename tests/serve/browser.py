"""A real Chromium and measurements in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

HERE = Path(__file__).parent
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
CONTRAST = (HERE / "contrast.js").read_text()
OUTSIDE = (HERE / "outside.js").read_text()
FAULTS = (HERE / "faults.js").read_text()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    expect.set_options(timeout=20_000)  # the first price loads a teacher
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS.split())
        yield browser
        browser.close()


class Visit:
    """A page of a server; requests to other hosts and errors fail the test.

    Args:
        browser: Chromium.
        url: of the server.
        theme: light or dark.
        width: of the window in pixels.
    """

    def __init__(self, browser: Browser, url: str, theme: Any = "light", width: int = 1280, **options: Any) -> None:
        self.url, self.foreign, self.faults = url, list[str](), list[str]()
        self.away = False  # whether failed requests are expected
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme, **options)
        self.context.route("**/*", self._route)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._on_console)
        self.page.goto(url)
        expect(self.page.locator(".chip").first).to_be_visible()

    def _route(self, route: Route) -> None:
        if urlsplit(route.request.url).netloc == urlsplit(self.url).netloc:
            route.continue_()
        else:
            self.foreign.append(route.request.url)
            route.abort()

    def _on_console(self, message: ConsoleMessage) -> None:
        refused = "the server responded with a status of" in message.text  # Chromium logs this for every 4xx
        if message.type in ("error", "warning") and not (refused or self.away):
            self.faults.append(message.text)

    def drop(self, *paths: Path) -> None:
        """Drop files on the page with the drag and drop of the browser."""
        box = self.page.locator("#drop").bounding_box()
        assert box is not None
        session = self.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        target = {"x": box["x"] + 50, "y": box["y"] + 30, "data": data}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, **target})
        session.detach()

    def settled(self) -> None:
        """Wait until no image is being classified."""
        expect(self.page.locator("[aria-busy=true]")).to_have_count(0)

    def says(self, text: str) -> None:
        """Wait until this text is announced."""
        expect(self.page.locator("#live")).to_contain_text(text)

    def close(self) -> None:
        self.context.close()
        assert self.foreign == [], "requests to another host"
        assert self.faults == [], "errors in the console"
