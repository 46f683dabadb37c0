"""The trace of a run: complete, well formed, costing nothing when it is off, and never the reason that a run ends."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jmt_edge import trace
from jmt_edge.cli import cli
from jmt_edge.errors import ConfigError
from jmt_edge.trace import Trace


def events(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def test_spans_nest_and_threads_have_names(tmp_path: Path) -> None:
    kept = Trace()

    def work() -> None:
        with kept.span("inner work"):
            time.sleep(0.01)

    with kept.into(tmp_path / "t.json"):
        with kept.span("outer", t=1.5), kept.span("inner"):
            pass
        thread = threading.Thread(target=work, name="camera")
        thread.start()
        thread.join()
    found = events(tmp_path / "t.json")
    spans = {e["name"]: e for e in found if e["ph"] == "X"}
    outer, inner = spans["outer"], spans["inner"]
    assert outer["args"] == {"t": 1.5}
    assert outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]
    assert spans["inner work"]["dur"] >= 10_000  # us
    names = {e["tid"]: e["args"]["name"] for e in found if e["name"] == "thread_name"}
    assert names[spans["inner work"]["tid"]] == "camera" and names[outer["tid"]] == threading.current_thread().name
    assert all(e["pid"] == 1 for e in found)


def test_off_nothing_is_made_or_kept(tmp_path: Path) -> None:
    kept = Trace()
    assert kept.span("a") is kept.span("b", t=1)
    with kept.into(None), kept.span("a"):
        pass
    assert not kept._spans
    with kept.into(tmp_path / "t.json"):
        assert kept.on
    with kept.span("later"):
        pass
    assert "later" not in (tmp_path / "t.json").read_text() and not kept._spans


def test_an_exception_keeps_its_span_and_a_second_trace_begins_empty(tmp_path: Path) -> None:
    kept = Trace()
    with pytest.raises(KeyError), kept.into(tmp_path / "a.json"), kept.span("fails"):
        raise KeyError
    with kept.into(tmp_path / "b.json"), kept.span("next"):
        pass
    assert [e["name"] for e in events(tmp_path / "a.json") if e["ph"] == "X"] == ["fails"]
    assert [e["name"] for e in events(tmp_path / "b.json") if e["ph"] == "X"] == ["next"]
    assert any(e["name"] == "thread_name" for e in events(tmp_path / "b.json"))


def test_what_a_slow_disk_cannot_take_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOST", 5)
    monkeypatch.setattr(trace, "PERIOD", 60)
    kept = Trace()
    with kept.into(tmp_path / "t.json"):
        for _ in range(9):
            with kept.span("x"):
                pass
    assert events(tmp_path / "t.json")[-1]["name"] == "5 spans were left out"  # four, and the thread's name, were kept


def test_a_full_disk_ends_the_trace_alone(caplog: pytest.LogCaptureFixture) -> None:
    kept = Trace()
    with kept.into(Path("/dev/full")):
        for _ in range(3000):
            with kept.span("x" * 40):
                pass
        end = time.monotonic() + 20
        while kept.on and time.monotonic() < end:
            time.sleep(0.02)
        assert not kept.on
    assert "the trace ends early (No space left on device); the run continues" in caplog.text


def test_a_file_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    run = CliRunner().invoke(cli, ["live", "--duration", "1", "--trace", str(tmp_path / "none" / "t.json")])
    assert isinstance(run.exception, ConfigError)
    assert "cannot be written (No such file or directory); choose another --trace" in str(run.exception)


def test_a_run_is_traced_stage_by_stage(tmp_path: Path) -> None:
    file, record = tmp_path / "t.json", tmp_path / "run"
    run = CliRunner().invoke(
        cli,
        ["live", "--task", "trimodal", "--duration", "4", "--speed", "max", "--output", "none", "--trace", str(file),
         "--record", str(record)],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    spans = [e for e in events(file) if e["ph"] == "X"]
    windows = [e for e in spans if e["name"] == "window"]
    assert [w["args"]["t"] for w in windows] == [0.5 * i for i in range(1, 9)]
    within = {e["name"] for e in spans for w in windows[-1:] if w["ts"] <= e["ts"] < w["ts"] + w["dur"]}
    assert {"read", "push", "face", "search", "cut", "clip", "networks", "network", "on_result"} <= within
    assert {e["args"].get("of") for e in spans if e["name"] == "network"} == {"face", "voice", "eda", "fusion"}
    threads = {e["args"]["name"] for e in events(file) if e["name"] == "thread_name"}
    assert {"MainThread", *(f"source {m} sim:seed=0" for m in ("face", "voice", "eda")), "recorder"} <= threads
