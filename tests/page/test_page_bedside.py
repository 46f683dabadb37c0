"""One session on the page, from its start to the report: what a person did and saw is in the recording."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from page_fixture import CUT_OFF, Stage, wait_for
from test_page_browser import plug_board, text, wait_text

from jmt_edge.recording.reader import Recording
from jmt_edge.recording.report import write_report
from jmt_edge.tasks import SHORTEST_REST

PAIN, LOST = '.alarm[data-id="pain"]', '.alarm[data-id="sensor-eda"]'


REST = 120.0  # s, which the page asks for


@pytest.mark.realtime
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds", [SHORTEST_REST, pytest.param(REST, marks=pytest.mark.nightly)])
def test_a_whole_session(tmp_path: Path, browser: Any, visit: Callable[..., Any], seconds: float) -> None:
    link = tmp_path / "board"
    board = plug_board(link)
    stage = Stage(tmp_path, session=True, demo_alarms=True, sources={"eda": f"bitalino:{link}?channel=3"})
    try:
        page = visit(stage.url, expect=CUT_OFF)
        # the start: whose session, each sensor, the rest: two minutes in real time, or made short here
        if seconds != REST:
            page.route("**/api/v1/rest", lambda route: route.continue_(post_data=json.dumps({"seconds": seconds})))
        page.wait_for_selector("#session:not([hidden])")
        page.fill("#session-code", "P07")
        page.press("#session-code", "Enter")
        for device in ("Camera (1 of 3)", "Microphone (2 of 3)", "EDA electrodes (3 of 3)"):
            wait_text(page, "#session-title", f"s === '{device}'")
            page.click("#session-next")
        page.click("#session-rest")
        wait_text(page, "#session-left", "/^[0-2]:[0-5][0-9]$/.test(s)")
        begun = time.monotonic()
        page.set_default_timeout(1000 * (seconds + 60))
        wait_text(page, "#session-left", "s === 'done'")
        page.set_default_timeout(40_000)
        assert time.monotonic() - begun > seconds - 15, "the rest was cut short"
        page.click("#session-next")
        wait_text(page, "#session-summary", "s.includes('P07') && s.includes('measured:')")
        assert page.locator("#rec").is_hidden() and not (stage.recording / "manifest.json").exists()
        page.click("#session-next")
        page.wait_for_selector("#rec:not([hidden])")

        # steady
        wait_text(page, "#pain", "s === '20%'")
        assert page.locator("#banner-list .alarm[data-kind=physiological]").count() == 0

        # an alarm, acknowledged, and labelled among the events when it is over
        page.keyboard.press("l")
        for name, value in (("limit", 60), ("hysteresis", 10), ("delay", 1)):
            page.fill(f"#{name}", str(value))
        page.click("#settings-form button[type=submit]")
        wait_text(page, "#pain-limit", "s === 'alarm from 60% for 1 s'")
        stage.engine.pain = 0.9
        page.wait_for_selector(f"{PAIN}[data-state=active]")
        page.keyboard.press("a")
        page.wait_for_selector(f"{PAIN}[data-state=acknowledged]")
        stage.engine.pain = 0.2
        page.wait_for_selector(PAIN, state="detached")
        page.keyboard.press("v")
        page.click("#events-list .event[data-kind=physiological] button")
        page.wait_for_selector("#event-outputs canvas")
        page.click("#event-labels [data-label=true]")
        wait_text(page, "#events-list .event[data-kind=physiological] .said", "s === 'labelled true'")
        page.keyboard.press("Escape")

        # a rating mistyped and undone, then the right one
        page.keyboard.press("3")
        wait_text(page, "#rating-now .words", "s.startsWith('3 noted in ')")
        page.keyboard.press("u")
        wait_text(page, "#action-note", "s === '3 undone'")
        page.keyboard.press("8")
        wait_text(page, "#marks", "s.includes('rating 8')")

        # a sensor is lost: no value of it, with the reason
        board.kill()
        board.wait()
        page.wait_for_selector(LOST)
        wait_text(page, "#eda", "s === '—'")
        wait_text(page, "#eda-reason", f"s.includes({json.dumps(str(link))})")
        wait_text(page, "#pain-from", "s.includes('without EDA')")

        # the end
        stage.controls.stop()
        wait_for(lambda: Recording(stage.recording).complete)
        page.wait_for_selector("#veil:not([hidden])")
        assert "No connection" not in text(page, "#veil-title") and "trying again" not in text(page, "#veil-text")
    finally:
        stage.close()
        board.kill()
        board.wait()

    recording = Recording(stage.recording)
    assert recording.recorded_subject == "P07"
    assert any("rest" in line and line["rest"] for line in recording.results())
    assert [m.rating for m in recording.marks() if m.rating is not None] == [8]
    (event,) = (e for e in recording.alarms().events if e.alarm == "pain")
    assert (event.label, event.limit, round(event.peak or 0, 2)) == ("true", 0.6, 0.9) and event.acknowledged
    assert any(e.alarm == "sensor-eda" for e in recording.alarms().events)

    shown = browser.new_page()
    shown.goto(write_report(recording, tmp_path / "report.html").as_uri())
    said, rows = shown.inner_text("body"), shown.locator("tr").all_inner_texts()
    shown.close()
    for part in ("P07", "Pain", "90%", "60%", "Labels: 1 true", "Events", "Ratings and notes", "EDA", "Latency"):
        assert part in said, part
    assert any("\t8\t" in row for row in rows), rows
