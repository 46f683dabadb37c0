"""Events through the page's interface: listed, acknowledged by a client, labelled into the recording."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_fixture import Http, Stage, recorded, wait_for

from jmt_edge.live import Controls, RunInfo
from jmt_edge.live.page import start_page
from jmt_edge.live.page.audit import verify
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
