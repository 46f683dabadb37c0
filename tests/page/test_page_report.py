"""The session report in a browser: nothing overflows, nothing is asked of the network, and it prints on A4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_fixture import recorded

from jmt_edge.recording.reader import Recording
from jmt_edge.recording.report import write_report

LONG = "a-note-without-a-space-" * 8


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    _, recording = recorded(folder, task_name="trimodal", marks={10: LONG, 50: "<b>bold</b>"})
    return write_report(Recording(recording), folder / "report.html")


@pytest.mark.parametrize("width", [1280, 390])
def test_on_a_screen(browser: Any, written: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.goto(written.as_uri())
    assert asked == [written.as_uri()] and problems == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    apart = """() => [...document.querySelectorAll("svg")].every((svg) => {
      const own = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text")].every((text) => {
        const box = text.getBoundingClientRect();
        return box.left >= own.left && box.right <= own.right && box.bottom <= own.bottom;
      });
    })"""
    assert page.evaluate(apart) and page.locator("svg").count() == 3
    assert page.locator("td", has_text="<b>bold</b>").count() == 1 and page.locator("b").count() == 0
    page.close()


def test_on_paper(browser: Any, written: Path, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(written.as_uri())
    data = page.pdf(format="A4", print_background=True)
    pages = data.count(b"/Type /Page\n") or data.count(b"/Type /Page")
    assert data.startswith(b"%PDF") and 1 <= pages <= 6
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 960})  # A4 less its margins, in px
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    page.close()
