"""Events on the page and through its interface: listed, looked at, acknowledged, labelled into the recording."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_fixture import Http, Stage, recorded, wait_for
from test_page_browser import text, wait_text

from jmt_edge.live import Controls, RunInfo
from jmt_edge.live.page import start_page
from jmt_edge.live.page.audit import verify
from jmt_edge.live.page.past import AROUND, LONGEST, Past
from jmt_edge.live.page.recordings import Recordings
from jmt_edge.live.pipeline import Pipeline
from jmt_edge.observer import Observer
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.replay import replay

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.realtime


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def pain_event(http: Http) -> dict[str, Any] | None:
    events = http.json("GET", "/api/v1/events")[1]["events"]
    return next((event for event in events if event["alarm"] == "pain"), None)


def label(http: Http, event: str, label: str) -> tuple[int, Any]:
    return http.json("POST", "/api/v1/events/label", {"event": event, "label": label})


def test_a_run_with_an_event(stage: Stage) -> None:
    """Alarm, acknowledgement, label: the recording, its view and the audit log have all of it."""
    http = stage.client
    wait_for(lambda: http.json("POST", "/api/v1/alarms/settings", {"limit": 0.6, "delay": 0})[0] == 200)
    stage.engine.pain = 0.9
    event = wait_for(lambda: pain_event(http))
    assert event["end"] is None and event["limit"] == 0.6 and event["peak"] == pytest.approx(0.9, abs=1e-3)
    http.json("POST", "/api/v1/alarms/acknowledge", {"id": "pain"})
    stage.engine.pain = 0.1
    wait_for(lambda: (found := pain_event(http)) and found["end"] is not None)
    assert label(http, event["id"], "perhaps")[0] == 400
    assert label(http, "pain-0", "true")[0] == 404
    assert label(http, event["id"], "false") == (202, {"event": event["id"], "label": "false"})
    http.json("POST", "/api/v1/recording", {"on": False})
    wait_for(lambda: not stage.controls.is_recording)
    status, answer = label(http, event["id"], "true")
    assert status == 409 and "nothing is being recorded" in answer["error"]
    stage.close()
    log = Recording(stage.recording).alarms()
    (kept,) = (one for one in log.events if one.alarm == "pain")
    assert kept.id == event["id"] and kept.label == "false" and kept.by == "127.0.0.1"
    assert kept.start <= kept.signalled <= kept.acknowledged and kept.end is not None and kept.limit == 0.6
    assert log.settings[-1][1]["limit"] == 0.6
    viewed = Recordings(stage.runs).view("first")["events"]
    assert [one["label"] for one in viewed if one["alarm"] == "pain"] == ["false"]
    audit = stage.runs / "page-audit.jsonl"
    actions = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(a["event"], a["label"]) for a in actions if a["action"] == "label"] == [(event["id"], "false")]
    assert list(verify(audit)) == []


def test_a_replay_takes_no_labels(tmp_path: Path) -> None:
    bundle, folder = recorded(tmp_path)
    controls = Controls()
    page = start_page("127.0.0.1:0", controls, recordings=tmp_path / "runs")
    answers = []

    class Asks(Observer):
        def on_start(self, info: RunInfo) -> None:
            answers.append(label(Http(page), "pain-1", "true"))

    replay(Recording(folder), bundle, None, Pipeline, observers=[page, Asks()], controls=controls)
    ((status, answer),) = answers
    assert status == 409 and "not live" in answer["error"] and "takes no labels" in answer["error"]


def signals(http: Http, event: str) -> tuple[int, Any]:
    return http.json("GET", f"/api/v1/events/{event}/signals")


def test_the_signals_around_an_event_are_those_of_the_recording(stage: Stage) -> None:
    """Outputs, attention and EDA are what was recorded, from 30 s before to 30 s after, as far as that is past."""
    http = stage.client
    wait_for(lambda: http.json("POST", "/api/v1/alarms/settings", {"limit": 0.6, "delay": 0})[0] == 200)
    wait_for(lambda: stage.page.model.with_outputs > 6)
    stage.engine.pain = 0.9
    event = wait_for(lambda: pain_event(http))
    stage.engine.pain = 0.1
    wait_for(lambda: (found := pain_event(http)) and found["end"] is not None)
    wait_for(lambda: stage.page.model.stream > event["start"] + 3)
    assert signals(http, "pain-0")[0] == 404 and signals(http, "x" * 500)[0] == 404
    assert http("GET", "/api/v1/events/..%2F..%2Fetc%2Fpasswd/signals")[0] == 404
    status, shown = signals(http, event["id"])
    assert status == 200 and shown["event"]["id"] == event["id"] and shown["recording"] is None
    assert shown["from"] == max(0.0, round(event["start"] - AROUND, 3)) and shown["to"] > event["start"] + 2
    stage.close()
    recording = Recording(stage.recording)
    known = {round(r["t"], 3): r for r in recording.results()}
    assert len(shown["t"]) > 3 and max(v for v in shown["outputs"]["pain"] if v is not None) > 0.85
    for i, t in enumerate(shown["t"]):
        line = known[t]
        for name in stage.task.outputs:
            value = line["outputs"][name] if line["outputs"] else None
            assert shown["outputs"][name][i] == pytest.approx(value, abs=1e-4)
        for name in stage.task.names:
            assert shown["attention"][name][i] == pytest.approx(line["attention"][name], abs=1e-4)
    times, values = recording.eda()
    for t, value in list(zip(shown["eda"]["t"], shown["eda"]["v"], strict=True))[2:-2]:
        inside = values[(times >= t - 0.126) & (times < t + 0.126)]
        assert inside.min() - 0.01 <= value <= inside.max() + 0.01
    assert shown["eda"]["unit"] == "µS"
    first = next(t for t, value in zip(shown["t"], shown["outputs"]["pain"], strict=True) if value is not None)
    expected = first - shown["from"] > 1.0
    assert any(start == shown["from"] for start, _ in shown["gaps"]["results"]) == expected, "hatched before the first"


def test_what_is_held_has_gaps_where_nothing_came_and_stays_small() -> None:
    past = Past(("pain",), ("face", "eda"), most=400)
    for i in range(1, 1001):
        if not 940 <= i < 960:
            past.add(i / 2, None if 900 <= i < 920 else {"pain": 0.25}, {"face": 0.75, "eda": None})
    past.eda.add(np.arange(0, 500, 1 / 8), np.where(np.arange(0, 500, 1 / 8) < 460, 3.0, np.nan))
    shown = past.around(420.0, 500.0, 0.5)
    assert shown["gaps"]["results"] == [[449.5, 460.0], [469.5, 480.0]]
    assert shown["gaps"]["eda"] == [[pytest.approx(459.9, abs=0.3), 500.0]]
    at = shown["t"].index(455.0)
    assert shown["outputs"]["pain"][at] is None and shown["attention"] == {
        "face": [0.75] * len(shown["t"]),
        "eda": [None] * len(shown["t"]),
    }
    forgotten = past.around(0.0, 200.0, 0.5)
    assert forgotten["t"] == [] and forgotten["gaps"]["results"] == [[0.0, 200.0]]
    assert past.span(100.0, 110.0, 500.0) == (70.0, 140.0) and past.span(10.0, None, 15.0) == (0.0, 15.0)
    assert past.span(100.0, None, 9000.0) == (70.0, 100.0 + LONGEST)


Visit = Callable[..., Any]


def test_the_list_the_signals_and_the_labels_on_the_page(tmp_path: Path, visit: Visit) -> None:
    """An alarm that goes on, ends, is acknowledged and labelled; the picture is blurred; alarms stay in sight."""
    stage = Stage(tmp_path, raw=("face",))
    try:
        http = stage.client
        wait_for(lambda: http.json("POST", "/api/v1/alarms/settings", {"limit": 0.6, "delay": 0})[0] == 200)
        page = visit(stage.url)
        wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
        page.click("#events")
        wait_text(page, "#events-list", "s !== ''")  # none, or on a busy machine that windows are late
        assert page.locator(".event[data-id^=pain]").count() == 0
        stage.engine.pain = 0.9
        page.wait_for_selector(".event[data-id^=pain]")
        wait_text(page, ".event[data-id^=pain] .when", "/^[0-9:]{8} to now$/.test(s)")
        assert text(page, ".event[data-id^=pain] .what") == "Pain probability ≥ 60%"
        wait_text(page, ".event[data-id^=pain] .facts", "s === 'peak 90%, threshold 60%, not acknowledged'")
        banner, sheet = (page.locator(one).bounding_box() for one in ("#banner", "#events-sheet"))
        assert banner is not None and sheet is not None and banner["y"] + banner["height"] <= sheet["y"]
        page.keyboard.press("a")  # the page's keys work meanwhile
        wait_text(page, ".event[data-id^=pain] .facts", "/acknowledged [0-9:]{8} by 127.0.0.1$/.test(s)")
        stage.engine.pain = 0.1
        wait_text(page, ".event[data-id^=pain] .when", "/^([0-9:]{8} to|at) [0-9:]{8}$/.test(s)")  # at: within a second

        pictures: list[str] = []
        page.on("request", lambda request: pictures.append(request.url) if "/frame?" in request.url else None)
        page.click(".event[data-id^=pain] button")
        page.wait_for_selector("#event-outputs canvas")
        page.wait_for_selector("#event-eda canvas")
        page.wait_for_selector("#event-attention canvas")
        page.wait_for_selector("#event-frame:not([hidden])")
        page.wait_for_function("() => document.getElementById('event-frame').naturalWidth > 0")
        assert pictures and all(url.endswith("face=blur") for url in pictures)
        before = text(page, "#event-time .words")
        page.evaluate(
            "() => { const n = document.getElementById('event-scrub'); n.value = n.min;"
            " n.dispatchEvent(new Event('input')); }"
        )
        wait_text(page, "#event-time .words", f"s !== {json.dumps(before)}")
        page.click("#event-labels [data-label=false]")
        page.wait_for_selector("#event-labels [data-label=false][aria-pressed=true]")
        wait_text(page, ".event[data-id^=pain] .said", "s === 'labelled false'")
        page.click("#event-labels [data-label=true]")
        wait_text(page, ".event[data-id^=pain] .said", "s === 'labelled true'")
        page.keyboard.press("r")
        wait_text(page, "#event-reason", "s === 'recording is off, so a label would be lost'")
        assert page.is_disabled("#event-labels [data-label=unsure]")
        page.keyboard.press("Escape")
        page.wait_for_selector("#events-sheet", state="hidden")
        page.keyboard.press("v")
        wait_text(page, ".event[data-id^=pain] .said", "s === 'labelled true'")
    finally:
        stage.close()
    (kept,) = (one for one in Recording(stage.recording).alarms().events if one.alarm == "pain")
    assert kept.label == "true" and kept.by == "127.0.0.1"
