"""Events: what a run's alarms did, as the screens have it and as the recording keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from live_fixture import hand_bundle

from jmt_edge.controls import Controls
from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import ConfigError
from jmt_edge.live.alarms import Alarm, Alarms, AlarmSettings, Event, Priority
from jmt_edge.live.events import EventLog
from jmt_edge.observer import RunInfo
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.tasks import get_task

START = 1000.0  # of stream time, on the monotonic clock


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return hand_bundle(get_task("pain", "demo"), tmp_path_factory.mktemp("bundle") / "pain-hand.jmt")


class Bed:
    """Alarms with a recorder, on a clock that the test sets."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self.controls = Controls()
        self.recorder = Recorder(folder, bundle)
        self.controls.recording = self.recorder
        info = RunInfo(bundle, "hand", {}, 0.5, True, 0.0, {"face": "sim:", "eda": "sim:"}, origin=START)
        self.recorder.on_start(info)
        self.alarms = Alarms()
        self.log = EventLog(self.alarms, SimpleNamespace(info=info), self.controls)
        self.alarms.add(Alarm("pain", "physiological", Priority.HIGH, delay=3.0))
        self.alarms.add(Alarm("sensor-eda", "technical", Priority.MEDIUM))
        self.log.note_settings()

    def pain(self, t: float, value: float | None, limit: float = 0.7) -> None:
        event = Event.UNKNOWN if value is None else Event.ON if value >= limit else Event.OFF
        self.alarms.alarms["pain"].feed(event, START + t, "Pain probability ≥ 70%", value=value)

    def sensor(self, t: float, lost: bool) -> None:
        self.alarms.alarms["sensor-eda"].feed(Event.ON if lost else Event.OFF, START + t, "EDA sensor lost")

    def recorded(self) -> Any:
        self.recorder.close()
        return Recording(self.recorder.folder).alarms()


@pytest.fixture
def bed(tmp_path: Path, bundle: Bundle) -> Bed:
    return Bed(tmp_path / "run", bundle)


def test_an_event_from_onset_to_acknowledgement(bed: Bed) -> None:
    for t, value in ((10, 0.8), (12, 0.95), (13, 0.9), (20, 0.75), (21, 0.2)):
        bed.pain(t, value)
    bed.alarms.acknowledge(START + 30, "pain", "10.0.0.7")
    log = bed.recorded()
    (event,) = log.events
    assert log.judged and log.settings[0][1]["limit"] == 0.7 and log.off == ""
    assert (event.alarm, event.kind, event.priority) == ("pain", "physiological", "high")
    assert (event.start, event.signalled, event.end) == (10, 13, 20)
    assert (event.peak, event.limit) == (0.95, 0.7)
    assert (event.acknowledged, event.by, event.label) == (30, "10.0.0.7", "")


def test_what_ends_within_the_delay_is_no_event(bed: Bed) -> None:
    bed.pain(10, 0.8)
    bed.pain(12, 0.1)
    log = bed.recorded()
    assert log.judged and log.events == ()


def test_each_return_of_a_latched_alarm_is_an_event_of_its_own(bed: Bed) -> None:
    """The bar on the screen shows both as one; each has its own peak, and one acknowledgement is for both."""
    for t, value in ((0, 0.95), (3, 0.9), (5, 0.1), (60, 0.75), (61, 0.1)):
        bed.pain(t, value)
    bed.alarms.acknowledge(START + 70)
    first, second = bed.recorded().events
    assert (first.start, first.end, first.peak) == (0, 3, 0.95)
    assert (second.start, second.end, second.peak) == (60, 60, 0.75)
    assert first.acknowledged == second.acknowledged == 70


def test_acknowledged_while_it_lasts(bed: Bed) -> None:
    bed.sensor(1, True)
    bed.alarms.acknowledge(START + 4, by="terminal")
    bed.sensor(9, True)
    bed.sensor(10, False)
    bed.sensor(20, True)
    bed.sensor(21, False)
    first, second = bed.recorded().events
    assert (first.start, first.acknowledged, first.by, first.end) == (1, 4, "terminal", 9)
    assert first.limit is None and first.peak is None
    assert (second.start, second.end, second.acknowledged) == (20, 20, None)


def test_an_event_that_is_on_at_the_end_has_no_end_and_no_peak(bed: Bed) -> None:
    bed.pain(0, 0.8)
    bed.pain(3, 0.9)
    assert bed.log.values()[0]["peak"] == 0.9  # so far
    (event,) = bed.recorded().events
    assert event.start == 0 and event.end is None and event.peak is None


def test_the_limit_of_an_event_is_the_lower_one(bed: Bed) -> None:
    bed.pain(0, 0.8)
    bed.pain(3, 0.8)
    for limit in (0.5, 0.9):
        bed.alarms.settings = AlarmSettings(limit=limit)
        bed.log.note_settings()
    assert bed.log.values()[0]["limit"] == 0.5
    bed.pain(5, 0.1)
    log = bed.recorded()
    assert log.events[0].limit == 0.5 and log.settings[-1][1]["limit"] == 0.9


def test_labels(bed: Bed) -> None:
    bed.sensor(1, True)
    bed.sensor(2, False)
    (id,) = (event["id"] for event in bed.log.values())
    with pytest.raises(ConfigError, match="no event 'pain-1'"):
        bed.log.label("pain-1", "true", "x")
    bed.log.label(id, "unsure", "x")
    bed.log.label(id, "false", "y")
    assert bed.log.values()[0]["label"] == "false"
    (event,) = bed.recorded().events
    assert event.label == "false" and event.end == 1
    with pytest.raises(ConfigError, match="nothing is being recorded"):
        bed.log.label(id, "true", "x")
    assert bed.log.values()[0]["label"] == "false"


def test_a_recording_begun_meanwhile_knows_the_settings_and_what_is_on(bed: Bed) -> None:
    bed.pain(0, 0.8)
    bed.pain(3, 0.9)
    bed.sensor(1, True)
    bed.sensor(2, False)
    ended = next(event["id"] for event in bed.log.values() if event["alarm"] == "sensor-eda")
    bed.recorder.stop()
    bed.alarms.acknowledge(START + 5, "pain", "x")
    bed.recorder.start()
    bed.log.label(ended, "true", "x")
    bed.pain(9, 0.1)
    log = bed.recorded()
    assert bed.recorder.folder.name == "run-2" and log.judged
    assert [(e.alarm, e.end, e.acknowledged, e.label) for e in log.events] == [
        ("pain", 3, 5, ""), ("sensor-eda", 1, None, "true")
    ]  # fmt: skip


def test_an_event_that_outlasts_a_thousand_others_has_its_end(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jmt_edge.live.events.MOST", 3)
    bed.sensor(0, True)
    for t in range(10, 100, 10):
        bed.pain(t, 0.8)
        bed.pain(t + 4, 0.8)
        bed.pain(t + 5, 0.1)
    assert [event["alarm"] for event in bed.log.values()] == ["sensor-eda", "pain", "pain"]
    assert len(bed.log._unseen["pain"]) == 3
    bed.sensor(200, True)
    bed.sensor(201, False)
    lost = next(event for event in bed.recorded().events if event.alarm == "sensor-eda")
    assert (lost.start, lost.end) == (0, 200)


def test_a_killed_recording_has_the_event_that_was_on(bed: Bed, tmp_path: Path) -> None:
    """Nothing is closed: what the thread has flushed is there."""
    bed.pain(0, 0.8)
    bed.pain(3, 0.9)
    path = bed.recorder.folder / "alarms.jsonl"
    for _ in range(200):
        if path.read_bytes().count(b"\n") == 2:
            break
        bed.controls.wait(0.05)
    (event,) = Recording(bed.recorder.folder).alarms().events
    assert event.start == 0 and event.end is None
    bed.recorder.close()


def test_what_the_file_holds(bed: Bed) -> None:
    bed.sensor(1, True)
    bed.recorder.close()
    settings, event = map(json.loads, (bed.recorder.folder / "alarms.jsonl").read_text().splitlines())
    assert settings.pop("t") > 0
    assert settings == {"settings": {"limit": 0.7, "hysteresis": 0.1, "delay": 3.0, "enabled": True}, "off": ""}
    assert event.pop("event").startswith("sensor-eda-")
    assert event == {
        "alarm": "sensor-eda", "kind": "technical", "priority": "medium", "text": "EDA sensor lost", "start": 1.0,
        "signalled": 1.0, "limit": None, "end": None, "peak": None, "acknowledged": None, "by": "",
    }  # fmt: skip
