"""The page in a real browser, its server real too, and behind that a stand-in for the container."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from page.browser import ARGUMENTS, find_chromium
from page.fake_endpoint import FakeEndpoint
from page_server import PageServer
from support import free_port

# Of one step of a test: nothing here takes a second.
STEP_LIMIT_MS = 10_000


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        where = f"at CHROMIUM={os.environ['CHROMIUM']}" if os.environ.get("CHROMIUM") else "on PATH"
        pytest.exit(f"no Chromium {where}: install one (Debian: apt-get install chromium) or set CHROMIUM to its path", 1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def page_url(endpoint: FakeEndpoint) -> Iterator[str]:
    with PageServer(endpoint.port, free_port()) as server:
        yield server.url


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(STEP_LIMIT_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, page_url: str) -> Iterator[Page]:
    """The page, opened. Whatever a test does with it, it asks no other host, and nothing is wrong on its console."""
    page = context.new_page()
    hosts: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: hosts.append(request.url) if not request.url.startswith((page_url, "blob:")) else None)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(page_url)
    yield page
    assert hosts == []
    # What the browser itself says of an answer that is an error, which some tests want.
    assert [line for line in said if not line.startswith("Failed to load resource")] == []
