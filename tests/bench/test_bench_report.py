"""What a report holds, its percentiles, its doubts about itself, and the command from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmt_edge.bench import measure, process, stages
from jmt_edge.bench.measure import bench
from jmt_edge.bench.process import Job, fresh
from jmt_edge.bench.stages import ALL_CORES, Stage, make_references, make_stages
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.backends.base import TwoCalls
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.errors import BackendError, ConfigError
from jmt_edge.tasks import get_task

STAGES = [
    "decode",
    "face",
    "spectrogram",
    "eda",
    "backbone face",
    "backbone voice",
    "backbone eda",
    "fusion",
    "networks",
]


def test_every_stage_of_every_modality_is_there(report: dict[str, Any]) -> None:
    assert list(report["stages"]) == STAGES
    for row in (*report["stages"].values(), report["end_to_end"]):
        assert 0 < row["p50"] <= row["p90"] <= row["p95"] <= row["p99"] <= row["max"]
    for row in report["stages"].values():
        assert len(row["processes"]) == 2 == report["processes"] and row["n"] >= 2 * 3 * process.ROUNDS
        assert max(row["processes"]) <= row["p90"] and row["cores"] >= 1
    for name, row in report["stages"].items():
        results = 2 if name.startswith("backbone") or name in ("fusion", "networks") else 1  # of one call: the batch
        assert row["per_second"] == pytest.approx(results * 1e3 / row["p50"])
    whole, parts = report["stages"]["networks"]["p50"], ["backbone face", "backbone voice", "backbone eda", "fusion"]
    assert whole > max(report["stages"][part]["p50"] for part in parts) * 0.5


def test_what_else_an_engineer_asks(report: dict[str, Any]) -> None:
    live = report["end_to_end"]
    assert live["real_time_factor"] > 0 and live["n"] >= 12 and live["dropped"] == 0
    assert report["streams"] == int(500 // live["busy_ms_per_hop"])
    assert report["peak_rss_mb"] > 50 and 0 < report["cpu_cores_busy"] < 64
    assert report["threads"] == 1 and report["backend"] == "onnxruntime" and report["seed"] == 0
    assert {"processor", "cores", "governor", "load", "versions", "python"} <= set(report["machine"])
    assert report["gpu_memory_mb"] is None or report["gpu_memory_mb"] > 0
    json.dumps(report, allow_nan=False)


def test_percentiles_are_numpys() -> None:
    """Over the calls of all processes."""
    values = np.random.default_rng(0).exponential(2.0, 600)
    parts = [
        {"rounds": [block.tolist() for block in np.array_split(part, 4)], "items": 4, "cores": cores, "quick": cores}
        for part, cores in zip(np.array_split(values, 3), (1.0, 1.5, 1.1))
    ]
    row = measure._stage(parts)
    for p in (50, 90, 95, 99):
        assert row[f"p{p}"] == np.percentile(values, p)
    assert row["max"] == values.max() and row["per_second"] == pytest.approx(4e3 / np.median(values))
    assert row["n"] == 600 and row["cores"] == 1.1 and row["processes"] == [1.0, 1.5, 1.1]
    stage = Stage(lambda: None, net=values.tolist())
    assert stage.quick() == np.percentile(values, 5)


def test_waiting_for_a_processor_is_not_what_a_process_is_compared_by() -> None:
    """Four threads of 5 ms of arithmetic for one processor: a call takes several times as long as it computes."""
    if not Path("/proc/thread-self/schedstat").is_file():
        pytest.skip("this kernel does not count waiting")
    x, mine = np.ones(200_000), os.sched_getaffinity(0)

    def work() -> None:
        began = time.thread_time()
        while time.thread_time() < began + 0.005:
            np.tanh(x)  # lets other threads have the interpreter

    stop = threading.Event()
    others = [threading.Thread(target=lambda: [np.tanh(x) for _ in iter(stop.is_set, True)]) for _ in range(3)]
    stage = Stage(work)
    os.sched_setaffinity(0, {min(mine)})
    try:
        for thread in others:
            thread.start()
        stage.measure(0.5)
    finally:
        stop.set()
        os.sched_setaffinity(0, mine)
    wall = float(np.median(stage.rounds[0]))
    assert wall > 10 and 4 < stage.quick() < 0.7 * wall  # it computes for 5 ms
    assert min(stage.net) > 0


def test_a_stage_is_called_three_times_at_least() -> None:
    calls = []
    stage = Stage(lambda: calls.append(1))
    stage.measure(0.0)
    assert len(calls) == 3 == len(stage.rounds[0])


class _Spy(TwoCalls):
    """An engine that keeps what it was given."""

    name, precision = "spy", {"face": "fp32"}

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.shapes: set[tuple[int, ...]] = set()

    def backbones(self, clips: dict[str, Any]) -> dict[str, Any]:
        for clip in clips.values():
            self.seen.append(clip.tobytes())
            self.shapes.add(clip.shape)
        return {name: np.zeros((len(clip), 64), np.float32) for name, clip in clips.items()}

    def fusion(self, features: dict[str, Any], present: Any) -> dict[str, Any]:
        self.seen.append(next(iter(features.values())).tobytes())
        return {}

    def close(self) -> None: ...


def test_inputs_change_from_call_to_call_and_repeat_with_the_seed() -> None:
    def run(seed: int) -> _Spy:
        spy = _Spy()
        made = make_stages(get_task("pain", "demo"), spy, 2, np.random.default_rng(seed))  # type: ignore[arg-type]
        for _ in range(8):
            made["backbone eda"].work()
        return spy

    spy = run(0)
    assert spy.shapes == {(2, 1, 2816)} and len(set(spy.seen)) > 1
    assert run(0).seen == spy.seen != run(1).seen


def test_the_references_do_the_same_work_on_one_core_and_on_all() -> None:
    found = make_references(3)
    everywhere = found[ALL_CORES].work()
    assert len(everywhere) == 3  # type: ignore[arg-type]
    np.testing.assert_array_equal(found["arithmetic"].work(), everywhere[2])  # type: ignore[index]


def test_cores_are_counted_by_their_threads() -> None:
    """By processor time, whoever else is on the machine."""
    found = make_references(2)
    for stage in found.values():
        stage.measure(0.05)
    assert found[ALL_CORES].cores() > 1.5
    assert all(stage.cores() < 1.2 for name, stage in found.items() if name != ALL_CORES)


def test_the_simulated_video_does_not_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    work = stages._decoder()
    assert work().shape == (480, 640, 3) and list(tmp_path.iterdir())  # type: ignore[attr-defined]
    for _ in range(40):  # beyond the end of the video
        assert work() is not None
    del work
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spread", "others", "load", "governor", "throttled", "word"),
    [
        (0.0, 0.0, 0.5, "performance", [], ""),
        (0.3, 0.0, 0.5, "performance", [], "varied by 30%"),
        (0.0, 0.8, 0.5, "performance", [], "0.80 of 2 cores"),
        (0.0, None, 3.5, "performance", [], "load average 3.5"),
        (0.0, None, 0.5, "powersave", [], "powersave"),
        (0.0, None, None, "not readable", ["gpu-throttle-alert"], "gpu-throttle-alert"),
    ],
)
def test_doubts(
    spread: float, others: float | None, load: float | None, governor: str, throttled: list[str], word: str
) -> None:
    machine = {"cores": 2, "load": load, "governor": governor}
    reasons = measure._noise({"one core": spread}, others, machine, throttled)
    assert len(reasons) == bool(word) and all(word in reason for reason in reasons)


def test_another_programs_load_is_seen() -> None:
    """A second process that spins: it is counted as others', not as ours."""
    span = process.Span(Path("/"))
    spin = "import time; t = time.time()\nwhile time.time() < t + 1.0: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    mine, others = span.end()
    if others is None:
        pytest.skip("this system has no /proc/stat")
    assert others > 0.3 and mine < 0.5


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"batch": 4096}, {"duration": 0.5}, {"duration": 1e6}, {"processes": 0}]
)
def test_a_setting_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="choose"):
        bench(load_bundle(demo_bundle("pain")), **options)


def test_a_backend_that_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jmt_edge.bench.measure.first_result", lambda *a: None)
    monkeypatch.setattr("jmt_edge.engine.backends.unavailable", lambda name: "no such thing here")
    with pytest.raises(BackendError, match="no such thing here"):
        bench(load_bundle(demo_bundle("pain")), backend="tensorrt")


def test_a_measuring_process_that_fails_is_reported_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\ncat > /dev/null\necho Traceback >&2\necho 'MemoryError: too large' >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(
        BackendError, match=r"measuring process failed with code 3 \(MemoryError: too large\); run the command again$"
    ):
        fresh(Job("x.jmt", "onnxruntime", 1, 1, 0.5, 0.1, 0, 0.0, "/"))


def test_the_command_measures_writes_and_compares(report: dict[str, Any], tmp_path: Path) -> None:
    """In fresh processes, none of which asks for torch, against another real run."""
    old, new, asked = tmp_path / "old.json", tmp_path / "new.json", tmp_path / "asked"
    old.write_text(json.dumps(report))
    (tmp_path / "torch.py").write_text(f"open({str(asked)!r}, 'w')\nraise ImportError('no torch at run time')\n")
    command = [sys.executable, "-m", "jmt_edge", "bench", "--task", "trimodal", "--duration", "2", "--threads", "1"]
    command += ["--batch", "2", "--processes", "1", "--json", str(new), "--compare", str(old), "--fail-over", "100000%"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert not asked.exists()
    assert "backbone eda" in done.stdout and "end to end" in done.stdout
    assert done.stdout.count(" -> ") == len(STAGES) + 1 and "note: board" in done.stdout
    written = json.loads(new.read_text())
    assert list(written["stages"]) == STAGES and written["processes"] == 1 and written["first_result_s"] > 0.2
    if written["energy"] is None:
        assert "no INA3221 rails" in done.stdout


def test_the_reference_engine_gives_numbers() -> None:
    """What is timed as a hop is a hop: its outputs are those of the engine."""
    bundle = load_bundle(demo_bundle("pain"))
    engine = open_engine(bundle, "onnxruntime", 1)
    out = make_stages(bundle.task, engine, 1, np.random.default_rng(0))["networks"].work()
    assert set(out) == {"attention", "pain"} and np.isfinite(out["pain"]).all()  # type: ignore[arg-type,index]
    engine.close()
