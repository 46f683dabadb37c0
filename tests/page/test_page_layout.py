"""Every task in every state on every screen, measured in headless Chromium: nothing is cut, covered or too small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe import findings
from bedside import NUMBERS, SIZES, STATES, TASKS, Bedside, has, prepare, settle
from page_fixture import CUT_OFF, Http, recorded
from watched import Watched

from jmt_edge.live import Controls
from jmt_edge.live.actions import LABEL
from jmt_edge.live.page import start_page
from jmt_edge.preprocessing.actions import INDEX

# the smallest size of a text in px; the first selector that matches counts
MINIMUMS = (
    ("#pain", 72), ("#pain small", 24), ("#eda", 30), (".pair dd", 25),
    (".banner-list > div:first-child > .text", 18), ("*", 14),
)  # fmt: skip
SCROLLS = {(390, 844)}


class Screens:
    """One run and one page at a time, which the states of a task share, as a page shows a whole night; what cannot be
    reached from the state before gets a run of its own. locale: the browser's."""

    def __init__(self, browser: Any, folder: Path, locale: str = "en-GB") -> None:
        self._browser, self._folder, self._locale = browser, folder, locale
        self._kind = ("", False)
        self._bed: Bedside | None = None
        self._watched: Watched | None = None
        self._made = 0

    def bed(self, task: str, state: str) -> Bedside:
        kind = (task, state == "replay")
        if self._bed is None or kind != self._kind or self._bed.over or (state == "start" and self._bed.warm):
            self.close()
            self._made += 1
            folder = self._folder / str(self._made)
            folder.mkdir()
            self._kind, self._bed = kind, Bedside(folder, task, replay="night-3" if state == "replay" else "")
        return self._bed

    @contextmanager
    def show(self, task: str, state: str) -> Iterator[Any]:
        """The page in `state`. One that a test left in an unknown state, because it failed, is not used again."""
        bed = self.bed(task, state)
        if self._watched is None:
            context = self._browser.new_context(color_scheme="dark", reduced_motion="reduce", locale=self._locale)
            self._watched = Watched(context.new_page())
            self._watched.expected = CUT_OFF
            prepare(self._watched.page)
            self._watched.page.goto(bed.url)
        try:
            bed.show(state, self._watched.page, Http(bed.page).json)
            yield self._watched.page
        except BaseException:
            self.close()
            raise
        assert self._watched.problems == []

    def close(self) -> None:
        if self._watched is not None:
            self._watched.page.context.close()
        if self._bed is not None:
            self._bed.close()
        self._watched = self._bed = None


@pytest.fixture(scope="module")
def screens(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screens]:
    screens = Screens(browser, tmp_path_factory.mktemp("beds"))
    yield screens
    screens.close()


ENDS = ((1280, 800), (390, 844))
PROBE = (Path(__file__).parent / "geometry.js").read_text()


def at_its_place(page: Any, size: tuple[int, int]) -> list[str]:
    return page.evaluate(PROBE, {"minimums": MINIMUMS, "whole": size not in SCROLLS})  # type: ignore[no-any-return]


def in_order(page: Any, size: tuple[int, int]) -> list[str]:
    """At its place and, on a desktop and on a phone, with names, roles and contrast by axe's rules."""
    return at_its_place(page, size) + (findings(page) if size in ENDS else [])


def everywhere(
    page: Any, sizes: Iterable[tuple[int, int]] = SIZES, check: Callable[..., list[str]] = at_its_place
) -> dict[str, list[str]]:
    """What is wrong on each screen: {size: sentences}."""
    problems: dict[str, list[str]] = {}
    for width, height in sizes:
        page.set_viewport_size({"width": width, "height": height})
        settle(page)
        if found := check(page, (width, height)):
            problems[f"{width}x{height}"] = found
    return problems


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("task", TASKS)
def test_everything_fits(screens: Screens, task: str, state: str) -> None:
    with screens.show(task, state) as page:
        page.emulate_media(color_scheme="dark")
        assert everywhere(page, check=in_order) == {}
        if state in ("hang", "ended"):
            assert page.evaluate(NUMBERS) == []
        page.emulate_media(color_scheme="light")  # of the same layout
        assert everywhere(page, ENDS, in_order) == {}


# ---- past recordings

LONG = "ward-3-bed-12_2026-11-26T21-14-03_trimodal_night_before_surgery"
DIALOG = (Path(__file__).parent / "dialog.js").read_text()


def shot(problems: dict[str, list[str]], page: Any, what: str) -> None:
    for width, height in ((390, 844), (1024, 600), (1280, 800)):
        page.set_viewport_size({"width": width, "height": height})
        settle(page)
        if found := page.evaluate(DIALOG):
            problems[f"{what} {width}x{height}"] = found


def test_recordings_fit_and_say_what_they_hold(tmp_path: Path, visit: Callable[..., Any]) -> None:
    """In µS, without a unit, with damaged lines, without results, and one that cannot be opened."""
    recorded(
        tmp_path, LONG, "trimodal", marks={10.0: "turned to the left side, cuff inflated and let go", 12.0: "x" * 60}
    )
    recorded(tmp_path, "counts", unit="a.u.", scale=170)
    _, damaged = recorded(tmp_path, "damaged")
    lines = (damaged / "eda.csv").read_text().splitlines()
    (damaged / "eda.csv").write_text("\n".join([*lines[:50], "####", "1,2,3", *lines[52:]]) + "\n")
    _, bare = recorded(tmp_path, "bare")
    (bare / "results.jsonl").write_text("")
    _, cut = recorded(tmp_path, "cut")
    (cut / "manifest.json").write_text((cut / "manifest.json").read_text()[:400])
    server = start_page("127.0.0.1:0", Controls(), recordings=tmp_path / "runs")
    problems: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    try:
        page = visit("about:blank", reduced_motion="reduce", expect=CUT_OFF)
        prepare(page)
        page.goto(server.url)
        page.evaluate("() => document.getElementById('recordings').click()")
        page.wait_for_selector(".recording")
        shot(problems, page, "list")
        assert "Cannot be opened: manifest.json cannot be read" in page.inner_text('[data-id="cut"]')
        for name in (LONG, "counts", "damaged", "bare"):
            page.click(f'.recording[data-id="{name}"]')
            page.wait_for_selector("#viewer:not([hidden])")
            shot(problems, page, name[:10])
            shown[name] = page.inner_text("#viewer")
            axis = page.evaluate("() => document.querySelector('#viewer-eda canvas').written.map((w) => w.words) + ''")
            assert ("a.u." in axis, "µS" in axis) == (name == "counts", name != "counts"), axis
            if name == "counts":  # the control that moves the value is seen with the value
                page.set_viewport_size({"width": 1024, "height": 600})
                settle(page)
                ends = "(ids) => ids.map((id) => document.getElementById(id).getBoundingClientRect().bottom)"
                scrub, dialog = page.evaluate(ends, ["viewer-scrub", "recordings-dialog"])
                assert scrub < dialog
            page.evaluate("() => document.getElementById('viewer-back').click()")
            page.wait_for_selector(".recording")
    finally:
        server.close()
    assert problems == {}
    assert "eda.csv: " in shown["damaged"] and "damaged lines left out" in shown["damaged"]
    assert "damaged" not in shown["counts"] and "unit of the EDA is unknown" in shown["counts"]
    assert "this recording has no results" in shown["bare"]


@pytest.mark.parametrize(
    "words",
    [
        "rest: 9:59 left",
        "from rest: face 1.3 SD, voice -12.00 dB (0.5 SD), EDA +1.30 µS (2.1 SD)",
        "ward-3-bed-12_P07-2026-11-27.abc: no rest measured, not recorded",
        "P07: from rest: face 1.3 SD, voice -12.00 dB (0.5 SD), EDA +1.30 µS (2.1 SD)",
    ],
)
def test_what_is_said_of_a_rest_fits(screens: Screens, words: str) -> None:
    """Below the note that there is no recorder, the longest this card can hold."""

    def said(page: Any, size: tuple[int, int]) -> list[str]:
        # in place of what the run says, which changes it several times a second
        page.evaluate(
            "words => { const line = document.getElementById('rest-state').cloneNode(); line.hidden = false;"
            " line.textContent = words; document.getElementById('rest-state').replaceWith(line); }",
            words,
        )
        return at_its_place(page, size)

    with screens.show("trimodal", "no recorder") as page:
        assert everywhere(page, check=said) == {}


STRENGTHS = {"AU04": 0.0, "AU06": 2.5, "AU07": 2.5, "AU09": 4.8, "AU10": 4.8, "AU12": 0.1, "AU25": 3.3, "AU26": 1.2}
REFUSED = "rest refused: usable in 37% of the rest: half of the face covered in 5 of 9 frames"


@pytest.mark.parametrize("reason", ["", REFUSED])
@pytest.mark.parametrize("task", TASKS)
def test_what_is_said_of_facial_actions_fits(screens: Screens, task: str, reason: str) -> None:
    bed = screens.bed(task, "steady")
    bed.actions = {
        "label": LABEL, "t": 1.0, "reason": reason, "pose": None, "measures": None,
        "strengths": None if reason else STRENGTHS, INDEX: None if reason else 12.5,
    }  # fmt: skip

    def said(page: Any, size: tuple[int, int]) -> list[str]:
        assert page.is_visible("#actions-index")
        return at_its_place(page, size)

    try:
        with screens.show(task, "steady") as page:
            first = "facial actions" if reason else "PSPI-like index"
            page.wait_for_function(has("#actions-index", f"s.startsWith('{first} (geometric, uncalibrated): ')"))
            title = page.evaluate("() => document.getElementById('face-actions').title")
            assert title.startswith(reason or "AU 6+7: 2.5")
            assert everywhere(page, check=said) == {}
    finally:
        bed.actions = None


# ---- ratings and events


def view(name: str, bed: Bedside, page: Any) -> None:
    """Bring the page, in a steady run, to a view of its own."""
    http = Http(bed.page).json
    if name == "rating waits":
        page.keyboard.press("7")
        page.wait_for_selector("#rating-undo")
    elif name == "note meanwhile":
        page.keyboard.press("7")
        page.keyboard.press("m")
        page.wait_for_selector("#tools", state="hidden")
    elif name == "not stored":
        page.route("**/api/v1/markers", lambda route: route.abort())
        page.keyboard.press("7")
        page.wait_for_function(has("#rating-now .words", "s === '7 not sent: no answer, trying again'"))
    elif name == "rating asked":
        bed.page.model.ratings.every = 1
        page.wait_for_function(has("#rating-now .words", "/^(Rate the pain|Schmerz angeben)/.test(s)"))
    elif name == "pad":
        page.keyboard.press("c")
        page.wait_for_selector("#pad-withdraw")
    elif name == "recording off":
        assert bed.controls.recording is not None
        bed.controls.recording.stop()
        page.wait_for_selector("#rec", state="hidden")
        page.keyboard.press("7")
        page.wait_for_selector("#pad-record")
    else:
        http("POST", "/api/v1/alarms/settings", {"delay": 0})
        bed.pain, bed._lost = 0.95, {bed.task.names[-1]}
        page.wait_for_selector(f".alarm[data-id=sensor-{bed.task.names[-1]}]")
        page.keyboard.press("v")
        page.wait_for_selector(".event button")
        if name == "event":
            page.click(".event >> nth=0")
            page.wait_for_selector("#event canvas")


VIEWS = ("rating waits", "note meanwhile", "not stored", "rating asked", "pad", "recording off", "events", "event")
VIEW_CASES = [("trimodal", one, "dark") for one in VIEWS] + [("affect", "event", "light"), ("pain", "pad", "light")]


@pytest.mark.parametrize(("task", "name", "scheme"), VIEW_CASES)
def test_ratings_and_events_fit(tmp_path: Path, visit: Callable[..., Any], task: str, name: str, scheme: str) -> None:
    """On every screen; what is pressed for a rating has 56 px in both directions, its border's row included."""
    bed = Bedside(tmp_path, task)
    page = visit("about:blank", color_scheme=scheme, reduced_motion="reduce", expect=(*CUT_OFF, "ERR_FAILED"))
    prepare(page)
    page.goto(bed.url)
    small = """(selector) => [...document.querySelectorAll(selector)].filter((n) => n.checkVisibility())
      .map((n) => [n, n.getBoundingClientRect()]).filter(([, r]) => r.width > 0 && (r.width < 56 || r.height < 53.9))
      .map(([n, r]) => `${n.id || n.textContent} is too small: ${r.width}x${r.height}`)"""
    pressed = (
        ".rating button, .pad-buttons button, .rate-open, #event-labels button, .now button, #pad-last button, "
        ".event > button"
    )

    def large(page: Any, size: tuple[int, int]) -> list[str]:
        if name in ("rating waits", "note meanwhile"):  # it waits for as long as the screens are measured
            page.evaluate("() => document.activeElement.blur()")
            page.keyboard.press("7")
            if name == "note meanwhile":
                page.keyboard.press("m")
                page.evaluate("() => window.scrollTo(0, 0)")  # a phone scrolls to what is written in
            settle(page)
        elif name == "note meanwhile":
            page.evaluate("() => document.activeElement.blur()")
            page.keyboard.press("7")
            page.keyboard.press("m")
            settle(page)
            page.evaluate("() => scrollTo(0, 0)")  # the banner stays where a phone scrolls to the note
        return in_order(page, size) + page.evaluate(small, pressed)

    try:
        bed.show("steady", page, Http(bed.page).json)
        view(name, bed, page)
        assert everywhere(page, check=large) == {}
    finally:
        bed.close()
