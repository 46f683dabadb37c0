"""The pages in German, whose sentences are longer: nothing is cut or covered, and nothing is left in English."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe import findings
from bedside import Bedside, has, prepare
from german import GERMAN, left_english
from page_fixture import CUT_OFF, Http, recorded
from test_page_layout import Screens, everywhere, in_order, shot, view

SIZES = ((1366, 768), (1024, 600), (390, 844))
STATES = ("start", "steady", "alarm", "latched", "sensor lost", "nothing usable", "no recorder", "hang", "trend")
SESSION = ("session person", "session signal", "session fault", "session rest", "session begin")


@pytest.fixture(scope="module")
def screens(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screens]:
    screens = Screens(browser, tmp_path_factory.mktemp("beds"), GERMAN)
    yield screens
    screens.close()


CASES = [("trimodal", state) for state in (*STATES, *SESSION, "ended", "replay")]
CASES += [(task, state) for task in ("pain", "affect") for state in ("steady", "alarm", "sensor lost")]


@pytest.mark.parametrize(("task", "state"), CASES)
def test_everything_fits_in_german(screens: Screens, task: str, state: str) -> None:
    with screens.show(task, state) as page:
        assert everywhere(page, SIZES, in_order) == {}
        assert left_english(page) == []


@pytest.mark.parametrize("name", ["rating waits", "rating asked", "pad", "recording off", "events", "event"])
def test_ratings_and_events_fit_in_german(tmp_path: Path, visit: Callable[..., Any], name: str) -> None:
    bed = Bedside(tmp_path, "trimodal")
    page = visit("about:blank", locale=GERMAN, reduced_motion="reduce", expect=CUT_OFF)
    prepare(page)
    page.goto(bed.url)
    try:
        bed.show("steady", page, Http(bed.page).json)
        view(name, bed, page)
        assert everywhere(page, SIZES, in_order) == {}
        assert left_english(page) == []
    finally:
        bed.close()


def test_dialogs_fit_in_german(tmp_path: Path, visit: Callable[..., Any]) -> None:
    recorded(tmp_path, "night-3", "trimodal", marks={10.0: "turned to the left side"})
    bed = Bedside(tmp_path, "trimodal")
    problems: dict[str, list[str]] = {}
    try:
        page = visit("about:blank", locale=GERMAN, reduced_motion="reduce", expect=CUT_OFF)
        prepare(page)
        page.goto(bed.url)
        bed.show("steady", page, Http(bed.page).json)
        for opener, ready in (
            ("help", "#keys dt"), ("settings", "#limit"), ("audit", "#audit-list li"), ("recordings", ".recording"),
        ):  # fmt: skip
            page.evaluate("(id) => document.getElementById(id).click()", opener)
            page.wait_for_selector(f"dialog[open] {ready}")
            shot(problems, page, opener)
            problems.setdefault("axe", []).extend(findings(page))
            if opener == "recordings":
                page.click('.recording[data-id="night-3"]')
                page.wait_for_selector("#viewer:not([hidden])")
                shot(problems, page, "viewer")
                assert "Anteil 33" in page.inner_text("#viewer-quality")
            assert left_english(page) == []
            page.keyboard.press("Escape")
    finally:
        bed.close()
    assert problems == {"axe": []}


def test_the_language_is_chosen_and_kept(tmp_path: Path, visit: Callable[..., Any]) -> None:
    """By the address, in the page's help, and by the browser; a page whose catalogue does not come speaks English."""
    bed = Bedside(tmp_path, "pain")

    def speaks(page: Any, code: str) -> None:
        page.wait_for_selector(f"html[lang={code}]")
        page.wait_for_function(has("#clock", "s !== '—'"))
        words = {"de": "nicht für den klinischen Einsatz", "en": "not for clinical use"}[code]
        assert (page.inner_text("#clinical"), page.input_value("#language")) == (words, code)

    try:
        page = visit(bed.url, expect=CUT_OFF)
        speaks(page, "en")
        page.goto(f"{bed.url}?lang=de")
        speaks(page, "de")
        page.goto(bed.url)
        speaks(page, "de")
        page.click("#help")
        page.select_option("#language", "en")
        speaks(page, "en")
        page.reload()
        speaks(page, "en")
        english = visit("about:blank", locale=GERMAN, expect=(*CUT_OFF, "ERR_FAILED"))
        english.route("**/languages/*.json", lambda route: route.abort())
        english.goto(bed.url)
        speaks(english, "en")
    finally:
        bed.close()
