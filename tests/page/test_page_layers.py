"""Alarms while a dialog or a sheet is open: in sight on every screen, and acknowledged by mouse, touch and key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe import findings
from bedside import Bedside, has, settle
from page_fixture import CUT_OFF, Http, recorded

PROBE = (Path(__file__).parent / "layers.js").read_text()
SIZES = ((1920, 1080), (1366, 768), (1024, 600), (390, 844))
# how a person comes to each by keyboard alone: what has the focus when Enter or a key is pressed; what is then seen
WAYS: dict[str, list[tuple[str, str, str]]] = {
    "help": [("#help", "Enter", "#help-dialog[open]")],
    "log": [("#help", "Enter", "#help-dialog[open]"), ("#audit", "Enter", "#audit-list li")],
    "limit": [("#settings", "Enter", "#settings-dialog[open]")],
    "recordings": [("#recordings", "Enter", "#recordings-dialog[open] .recording")],
    "recording": [
        ("#recordings", "Enter", "#recordings-dialog[open] .recording"),
        (".recording[data-id=night-3]", "Enter", "#viewer:not([hidden])"),
    ],
    "events": [("#events", "Enter", "#events-sheet:not([hidden]) .event")],
    "event": [
        ("#events", "Enter", "#events-sheet:not([hidden]) .event"),
        (".event > button", "Enter", "#event canvas"),
    ],
    "rating": [("#settings", "c", "#pad:not([hidden])")],
    "help over events": [("#events", "Enter", "#events-sheet:not([hidden])"), ("#help", "Enter", "#help-dialog[open]")],
}  # fmt: skip
DIALOGS = ("help", "log", "limit", "recordings", "recording", "help over events")
FOCUS = "() => document.activeElement.id || document.activeElement.tagName"
WHERE = """() => { const now = document.activeElement;
  return now.closest("#banner") ? "bar" : now.closest("dialog[open]") ? "dialog" : now.tagName; }"""
Visit = Callable[..., Any]


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bedside]:
    recorded(tmp_path, "night-3", "trimodal", marks={10.0: "turned to the left side"})
    bed = Bedside(tmp_path, "trimodal")
    yield bed
    bed.close()


def opened(bed: Bedside, visit: Visit, name: str, **options: Any) -> Any:
    """A page in a steady run with this dialog or sheet open."""
    page = visit(bed.url, reduced_motion="reduce", expect=CUT_OFF, **options)
    http = Http(bed.page).json
    http("POST", "/api/v1/alarms/settings", {"delay": 0})
    if name.startswith("event"):
        bed.show("latched", page, http)
    bed.show("steady", page, http)
    for focus, key, ready in WAYS[name]:
        page.focus(focus)
        page.keyboard.press(key)
        page.wait_for_selector(ready)
    settle(page)
    return page


def alarm(bed: Bedside, page: Any) -> None:
    """A pain alarm is raised that nobody has acknowledged."""
    bed.pain = 0.2
    page.wait_for_function("() => !document.querySelector('.alarm[data-id=pain]:not([data-state=latched])')")
    Http(bed.page).json("POST", "/api/v1/alarms/acknowledge", {})
    page.wait_for_selector(".alarm[data-id=pain]", state="detached")
    bed.pain = 0.95
    page.wait_for_selector(".alarm[data-id=pain][data-state=active]")
    page.wait_for_selector("#ack:not([hidden])", state="attached")


@pytest.mark.parametrize("name", WAYS)
def test_alarms_stay_in_sight_over_what_is_open(bed: Bedside, visit: Visit, name: str) -> None:
    """One alarm, then three, which on a phone take much of its screen."""
    page = opened(bed, visit, name)
    problems: dict[str, list[str]] = {}
    for lost in (set(), {"voice", "eda"}):
        bed._lost = lost
        alarm(bed, page)
        for one in lost:
            page.wait_for_selector(f".alarm[data-id=sensor-{one}]")
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            settle(page)
            if found := page.evaluate(PROBE):
                problems[f"{len(lost) + 1} at {width}x{height}"] = found
            if width in (1366, 390) and (found := findings(page)):
                problems[f"axe, {len(lost) + 1} at {width}x{height}"] = found
    assert problems == {}


@pytest.mark.parametrize("name", WAYS)
def test_alarms_are_acknowledged_while_something_is_open(bed: Bedside, visit: Visit, name: str) -> None:
    page = opened(bed, visit, name, has_touch=True)
    layer = page.locator("dialog[open], .sheet:not([hidden])").last
    for act, width, height in (
        (lambda: page.keyboard.press("a"), 1920, 1080), (lambda: page.click("#ack"), 1024, 600),
        (lambda: page.tap("#ack"), 390, 844),
    ):  # fmt: skip
        page.set_viewport_size({"width": width, "height": height})
        alarm(bed, page)
        act()
        page.wait_for_selector(".alarm[data-id=pain][data-state=acknowledged]")
        assert layer.is_visible()


@pytest.mark.parametrize("name", WAYS)
def test_the_focus_returns_where_it_was(bed: Bedside, visit: Visit, name: str) -> None:
    page = opened(bed, visit, name)
    alarm(bed, page)
    ways = [way for way in WAYS[name] if not way[0].startswith(".")]  # a list's rows open within
    for focus, _, _ in reversed(ways):
        open_ones = page.locator("dialog[open], .sheet:not([hidden])").count()
        page.keyboard.press("Escape")
        page.wait_for_function(
            f"() => document.querySelectorAll('dialog[open], .sheet:not([hidden])').length === {open_ones - 1}"
        )
        page.wait_for_function(f"() => document.activeElement === document.querySelector('{focus}')")
    assert page.evaluate("() => document.querySelectorAll('[inert], .covered').length") == 0


@pytest.mark.parametrize("name", DIALOGS)
def test_tab_goes_round_the_bar_and_the_dialog(bed: Bedside, visit: Visit, name: str) -> None:
    page = opened(bed, visit, name)
    alarm(bed, page)
    for key in ("Tab", "Shift+Tab"):
        seen: list[tuple[str, str]] = []
        for _ in range(30):
            page.keyboard.press(key)
            seen.append((page.evaluate(WHERE), page.evaluate(FOCUS)))
        assert {where for where, _ in seen} == {"bar", "dialog"}, seen
        assert sum(what == "ack" for _, what in seen) >= 2, seen  # all the way round
    page.focus("#ack")
    page.keyboard.press("Enter")
    page.wait_for_selector(".alarm[data-id=pain][data-state=acknowledged]")
    page.wait_for_function(f"() => ({WHERE})() === 'dialog'")  # the button is gone, the focus is not
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement !== document.body")


def test_the_bar_is_in_sight_while_a_token_is_asked_for(tmp_path: Path, visit: Visit) -> None:
    bed = Bedside(tmp_path, "pain", token="bedside-token-1234")
    try:
        page = visit(bed.url, reduced_motion="reduce", expect=CUT_OFF)
        page.wait_for_selector("#token-dialog[open]")
        assert page.evaluate(FOCUS) == "token"
        problems = {}
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            settle(page)
            if found := page.evaluate(PROBE):
                problems[f"{width}x{height}"] = found
        assert problems == {}
        assert page.inner_text("#banner-list") == "No connection"
        page.keyboard.press("Escape")  # there is nothing to go back to
        assert page.locator("#token-dialog").is_visible()
        page.fill("#token", "bedside-token-1234")
        page.press("#token", "Enter")
        page.wait_for_function(has("#clock", "s !== '—'"))
        assert page.evaluate("() => document.querySelectorAll('[inert], .covered').length") == 0
    finally:
        bed.close()
