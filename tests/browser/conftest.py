"""One site and one browser for all of these tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.site import Site
from tests.needed import program

#: No sandbox, because CI is root; and nothing that a browser asks of its maker.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from pipeline.broker import start_broker

    home: Path = tmp_path_factory.mktemp("site")
    with start_broker(home, 0, tied_to_us=True) as broker:
        made = Site(broker.address, home)
        try:
            made.prepare()
            yield made
        finally:
            made.close()
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Ends with its file: while Playwright is there, no other test of this process can run an event loop."""
    path = program("chromium", "chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of its own, on a desk; what it says on its console and whom it asks is kept in `said` and `asked`."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, timezone_id="Asia/Jakarta")
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    opened.said = []
    opened.asked = []
    opened.on("console", lambda message: opened.said.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: opened.said.append(f"error: {error}"))
    opened.on("request", lambda request: opened.asked.append(request.url))
    yield opened
    context.close()
