"""The wall time of a run's seconds where the system's clock is set during the run, as on a board that boots without."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_fixture import FakeEngine, ListSource

from jmt_edge import wall_clock
from jmt_edge.beds.ward import Ward
from jmt_edge.engine.bundle import Bundle
from jmt_edge.live import Controls, Observer, Options, Result, RunInfo, run
from jmt_edge.live.judge import Watch
from jmt_edge.live.page.feed import Feed
from jmt_edge.live.page.model import Model
from jmt_edge.recording.fhir import export_fhir
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.recording.report import report
from jmt_edge.wall_clock import STEP, WallClock, in_words

Bundles = Callable[[str], Bundle]
SET = 5000.0  # s by which the clock is set forward


class Clock:
    """The system's clock, wrong by `ahead` s."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(wall_clock, "time", SimpleNamespace(monotonic=time.monotonic, time=clock.time))
    return clock


def test_a_step_is_told_once_and_small_ones_add_up(clock: Clock) -> None:
    wall = WallClock()
    assert abs(wall.at(time.monotonic()) - time.time()) < 0.05 and wall.reread() == 0.0
    clock.ahead = -SET
    assert wall.reread() == pytest.approx(-SET, abs=0.05) and wall.reread() == 0.0
    assert abs(wall.at(time.monotonic()) - (time.time() - SET)) < 0.05
    told = 0.0
    for _ in range(10):
        clock.ahead += 0.4 * STEP
        told += wall.reread()
    assert told == pytest.approx(4 * STEP, abs=STEP)


@pytest.mark.parametrize(
    ("step", "said"),
    [(5000.0, "set forward by 1:23:20"), (-2.5, "set back by 2.5 s"), (59.97, "set forward by 60.0 s"),
     (-3.2e8, "set back by 88888:53:20")],
)  # fmt: skip
def test_a_step_in_words(step: float, said: str) -> None:
    assert in_words(step) == said


class Setter(Observer):
    """Sets the clock at the third result."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.told = clock, list[tuple[float, float]]()
        self.info: Any = None

    def on_start(self, info: RunInfo) -> None:
        self.info = info

    def on_result(self, result: Result) -> None:
        if result.index == 3:
            self.clock.ahead = SET

    def on_clock(self, t: float, step: float) -> None:
        self.told.append((t, step))


@pytest.mark.realtime
def test_a_recording_says_that_the_clock_was_set(bundles: Bundles, clock: Clock, tmp_path: Path) -> None:
    """The seconds of the run stay what they are, and all of them have the time of the clock that was set."""
    times = np.arange(0, 3, 1 / 32)
    bundle, setter, recorder = bundles("pain"), Setter(clock), Recorder(tmp_path / "run", bundles("pain"))
    sources = {"eda": ListSource("eda", times, (5 + np.sin(times)).astype(np.float32), 32.0)}
    before = time.time()
    run(bundle, FakeEngine(bundle.task), sources, Options(0.25, duration=2.0), [setter, recorder], Controls())
    [(t, step)] = setter.told
    assert 0.6 < t < 2.5 and step == pytest.approx(SET, abs=0.1)
    recording = Recording(tmp_path / "run")
    assert not list(recording.seal.faults()) and recording.complete
    assert recording.origin is not None and before - 0.001 < recording.origin.timestamp() - SET < time.time()
    [kept] = recording.manifest["clock"]
    assert kept["t"] == pytest.approx(t, abs=1e-3) and kept["step"] == pytest.approx(step, abs=1e-3)
    assert [mark.text for mark in recording.marks()] == ["the clock was set forward by 1:23:20"]
    assert [line["t"] for line in recording.results()] == sorted(line["t"] for line in recording.results())
    assert "set forward by 1:23:20" in report(recording)
    (path,) = export_fhir(recording, tmp_path / "run.json")
    entries = [entry["resource"] for entry in json.loads(path.read_text())["entry"]]
    seen = [datetime.fromisoformat(one["effectiveDateTime"]) for one in entries if "effectiveDateTime" in one]
    assert seen and all(before - 0.001 < at.timestamp() - SET < time.time() + 1 for at in seen)


def run_info(bundle: Bundle, **more: Any) -> RunInfo:
    return RunInfo(bundle, "hand", {}, 0.5, True, 0.0, {"face": "sim:", "eda": "sim:"}, **more)


def a_result(bundle: Bundle, index: int, pain: float) -> Result:
    from jmt_edge.live import Quality

    names = bundle.task.names
    quality = {name: Quality(True, "", 0.9) for name in names}
    return Result(
        index, index / 2, "pain", {"pain": pain}, "", quality, dict.fromkeys(names, 0.5), {"total": 1.0}, 0, bundle.id
    )


def test_an_alarm_is_since_the_time_of_the_clock_that_was_set(bundles: Bundles, clock: Clock) -> None:
    bundle, watch = bundles("pain"), Watch(Controls())
    now = time.monotonic()
    watch.info = run_info(bundle, origin=now)
    watch.judge.begin(now)
    for i in range(10):
        watch.judge.take(a_result(bundle, i + 1, 0.9), now + i / 2)
    shown = lambda: next(a["from"] for a in watch.judge.snapshot(now + 5)["alarms"] if a["id"] == "pain")  # noqa: E731
    assert abs(shown() - time.time()) < 1
    clock.ahead = SET
    watch.info.clock.reread()
    assert abs(shown() - SET - time.time()) < 1


def test_the_trend_moves_as_a_whole(bundles: Bundles, clock: Clock) -> None:
    """No gap, and nothing left out: an hour back, the results would be older than those before them."""
    bundle, feed = bundles("pain"), Feed()
    model = Model(feed, Controls())
    now = time.monotonic()
    feed.on_start(run_info(bundle, origin=now - 600))
    for index in range(1, 1201):
        feed.on_result(a_result(bundle, index, 0.25 if index <= 600 else 0.75))
        if index == 600:
            model.update(now)
            clock.ahead = -3600.0
            feed.info.clock.reread()  # type: ignore[union-attr]
    model.update(now)
    shown = model.trend_values(3600.0, now)
    assert shown["gaps"] == [] and abs(shown["to"] - (time.time() - 3600)) < 1
    assert len(shown["rows"]) == pytest.approx(150, abs=2)
    assert [row[2] for row in shown["rows"]] == sorted(row[2] for row in shown["rows"])
    assert {row[2] for row in shown["rows"]} >= {0.25, 0.75}
    assert model.zero == pytest.approx(shown["to"] - 600, abs=0.01)


def test_a_station_has_the_time_of_the_clock_that_was_set(clock: Clock) -> None:
    ward = Ward("ward")
    clock.ahead = SET
    ward.judge(time.monotonic())
    assert abs(ward.snapshot(time.monotonic())["at"] - SET - time.time()) < 1
