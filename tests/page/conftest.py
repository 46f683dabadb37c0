"""Fixtures of the page's tests: a browser, and a run that the tests of a module share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_fixture import Stage
from watched import Watched

from jmt_edge.faults import FAULTS

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip


@pytest.fixture(autouse=True)
def faults() -> Iterator[dict[str, int]]:
    """A fault costs one item and is counted, and a browser connects again, so a test that passes could hide one. A test
    that causes some puts their number here, by name."""
    before, expected = FAULTS.counts(), dict[str, int]()
    yield expected
    assert {name: fault.count for name, fault in FAULTS.since(before).items()} == expected, FAULTS.since(before)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine (apt install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a URL in a fresh context. At the end every page must have stayed clean."""
    opened: list[tuple[Any, Watched]] = []

    def open_page(
        url: str, *, expect: tuple[str, ...] = (), width: int = 1440, height: int = 900, **options: Any
    ) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        watched = Watched(context.new_page())
        watched.expected = expect
        opened.append((context, watched))
        watched.page.goto(url)
        return watched.page

    yield open_page
    for context, _ in opened:
        context.close()
    for _, watched in opened:
        assert watched.problems == []


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A run that records, with all three modalities."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.close()


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Pages whose runs are the test."""
    from test_page_server import Hand

    made: list[Hand] = []

    def make(**options: Any) -> Hand:
        made.append(Hand(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.page.close()
