"""Every task in every state on every screen, measured in headless Chromium: nothing is cut, covered or too small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bedside import SIZES, STATES, TASKS, Bedside, prepare, settle
from page_fixture import Http

# the smallest size of a text in px; the first selector that matches counts
MINIMUMS = (
    ("#pain", 72), ("#pain small", 24), ("#eda", 30), (".pair dd", 25),
    (".banner-list > div:first-child > .text", 18), ("*", 14),
)  # fmt: skip
SCROLLS = {(390, 844)}


class Beds:
    """A run for each task, made when it is first needed; states that a run cannot return from get one of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._beds: dict[tuple[str, str], Bedside] = {}

    def get(self, task: str, state: str) -> Bedside:
        kind = state if state in ("start", "no recorder", "replay", "ended") else ""
        if (task, kind) not in self._beds:
            folder = self._folder / f"{task}-{len(self._beds)}"
            folder.mkdir()
            self._beds[task, kind] = Bedside(
                folder, task, record=state != "no recorder", replay="night-3" if state == "replay" else ""
            )
        return self._beds[task, kind]

    def close(self) -> None:
        for bed in self._beds.values():
            bed.close()


@pytest.fixture(scope="module")
def beds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beds]:
    beds = Beds(tmp_path_factory.mktemp("beds"))
    yield beds
    beds.close()


# the layout is the same in both schemes; the light one is measured where most of its colours are
CASES = [(task, state, "dark") for task in TASKS for state in STATES if (task, state) != ("affect", "latched")]
CASES += [("trimodal", state, "light") for state in ("alarm", "sensor lost", "replay")]


@pytest.mark.parametrize(("task", "state", "scheme"), CASES)
def test_everything_fits(beds: Beds, visit: Callable[..., Any], task: str, state: str, scheme: str) -> None:
    bed = beds.get(task, state)
    page = visit("about:blank", color_scheme=scheme, reduced_motion="reduce", expect=("WebSocket connection",))
    probe = prepare(page)
    page.goto(bed.url)
    bed.show(state, page, Http(bed.page).json)
    problems: dict[str, list[str]] = {}
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        settle(page)
        whole = (width, height) not in SCROLLS
        found = page.evaluate(probe, {"minimums": MINIMUMS, "whole": whole})
        if found:
            problems[f"{width}x{height}"] = found
    assert problems == {}
