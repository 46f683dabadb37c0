"""Alarms are judged in every live run, to its last result, and what is known of them reaches the recording."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_fixture import invoke

from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import ConfigError
from jmt_edge.live import Controls, Observer, Quality, Result, RunInfo
from jmt_edge.live.alarms import AlarmSettings
from jmt_edge.live.judge import Watch
from jmt_edge.observer import tell_end
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.summary import Summary

Bundles = Callable[[str], Bundle]


def painful(bundle: Bundle, index: int = 1) -> Result:
    names = bundle.task.names
    quality, share = {name: Quality(True, "", 0.9) for name in names}, dict.fromkeys(names, 0.5)
    return Result(index, index / 2, "pain", {"pain": 0.95}, "", quality, share, {"total": 1.0}, 0, bundle.id)


def pain_run(bundle: Bundle) -> RunInfo:
    return RunInfo(bundle, "hand", {}, 0.5, True, 0.0, {"face": "sim:", "eda": "sim:"}, origin=time.monotonic())


@pytest.mark.parametrize("judged_by", ["watch", "page"])
def test_the_last_result_of_a_run_is_judged_and_recorded(bundles: Bundles, judged_by: str, tmp_path: Path) -> None:
    """It comes in the last 0.2 s, when neither the watch nor the page has looked again."""
    bundle, controls = bundles("pain"), Controls()
    controls.recording = recorder = Recorder(tmp_path / "run", bundle)
    first: Any = Watch(controls)
    judge = first.judge
    if judged_by == "page":
        from jmt_edge.live.page import start_page

        first = start_page("127.0.0.1:0", controls, recordings=tmp_path / "pages")
        judge = first.model.judging
    judge.set(AlarmSettings(delay=0.0))
    observers: list[Observer] = [first, recorder]
    for observer in observers:
        observer.on_start(pain_run(bundle))
    for _ in range(200):
        if judge.alarms.alarms:
            break
        time.sleep(0.02)
    time.sleep(0.3)
    for observer in observers:
        observer.on_result(painful(bundle))
    tell_end(observers, Summary(bundle.id, True, True))
    assert [event.alarm for event in Recording(tmp_path / "run").alarms().events] == ["pain"]


def test_a_recording_is_closed_although_another_observer_fails_at_the_end(bundles: Bundles, tmp_path: Path) -> None:
    class Broken(Observer):
        def on_end(self, summary: Summary) -> None:
            raise KeyboardInterrupt

    recorder = Recorder(tmp_path / "run", bundles("pain"))
    recorder.on_start(pain_run(bundles("pain")))
    with pytest.raises(KeyboardInterrupt):
        tell_end([Broken(), recorder], Summary("b", True, True))
    assert Recording(tmp_path / "run").complete


@pytest.mark.parametrize(
    "args",
    [("--output", "jsonl"), ("--output", "none"), ("--output", "tui"), ("--output", "none", "--page", "127.0.0.1:0")],
)
def test_who_judges_comes_before_who_records(
    args: tuple[str, ...], bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    found: list[str] = []

    def run(bundle: Bundle, engine: Any, sources: Any, options: Any, observers: list[Observer], controls: Any) -> None:
        found.extend(type(observer).__name__ for observer in observers)
        for observer in observers:
            getattr(observer, "close", lambda: None)()
        raise ConfigError("seen")

    monkeypatch.setattr("jmt_edge.live.run", run)
    invoke(capfd, "live", "--bundle", str(bundles("pain").path), "--record", str(tmp_path / "r"), *args)
    judges = "PageObserver" if "--page" in args else "Watch"
    assert found.count(judges) == 1 and found.index(judges) < found.index("Recorder") == len(found) - 1


@pytest.mark.realtime
@pytest.mark.parametrize("output", ["jsonl", "none"])
def test_a_run_without_page_and_terminal_records_its_alarms(
    output: str, bundles: Bundles, tmp_path: Path, capfd: Any
) -> None:
    """No alarm in such a recording means that there was none."""
    args = ["--bundle", str(bundles("pain").path), "--eda", "sim:", "--duration", "3", "--output", output]
    done = invoke(capfd, "live", *args, "--record", str(tmp_path / "r"))
    assert done.returncode == 0
    log = Recording(tmp_path / "r").alarms()
    assert log.judged and log.settings[0][1]["limit"] == 0.7


def test_a_changed_threshold_is_published_again(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A station reads the retained `config`; and after the clock was set, since when alarms are on."""
    from jmt_edge.beds.broker import parse_broker
    from jmt_edge.beds.publisher import Publisher
    from jmt_edge.beds.unit import BedUnit

    kept: dict[str, Any] = {}
    monkeypatch.setattr(Publisher, "keep", lambda self, topic, body: kept.__setitem__(topic, body))
    monkeypatch.setattr(Publisher, "start", lambda self: None)
    watch = Watch(Controls())
    unit = BedUnit(parse_broker("mqtt://127.0.0.1:1", environment={}), "7", watch.judge)
    watch.judge.set(AlarmSettings(limit=0.8, delay=0.0))
    assert kept == {}, "nothing is known of the run yet"
    watch.info = pain_run(bundles("pain"))
    watch.judge.begin(time.monotonic())
    unit.on_start(watch.info)
    assert kept["config"]["limit"] == 0.8
    watch.judge.set(AlarmSettings(limit=0.6, delay=0.0))
    assert kept["config"]["limit"] == 0.6
    watch.judge.take(painful(bundles("pain")), time.monotonic())
    (alarm,) = kept["alarms"]["alarms"]
    watch.info.clock.offset += 3600.0
    unit.on_clock(1.0, 3600.0)
    assert kept["alarms"]["alarms"][0]["from"] == pytest.approx(alarm["from"] + 3600, abs=0.01)
