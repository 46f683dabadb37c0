"""Measure one bundle on one backend: every stage in turn, round after round, so that drift hits all alike.

A fixed NumPy workload runs in every round. What it gains or loses between two runs is the machine, not the
program, and `compare` divides it out.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..capture import open_source
from ..capture.simulated import open_simulated
from ..engine.backends import choose_engine
from ..engine.backends.base import Engine
from ..engine.bundle import Bundle
from ..errors import ConfigError
from ..live import Options, run
from ..live.observer import Observer
from ..live.result import Result
from ..preprocessing.eda import normalise_eda, resample_eda
from ..preprocessing.face import FaceDetector, FaceTracker, align_crop
from ..preprocessing.voice import voice_clip
from ..tasks import AUDIO_RATE, Task
from .machine import PowerMeter, describe

SCHEMA = 1
ROUNDS = 6
PERCENTILES = (50, 90, 95, 99)
NOISY = 0.10  # relative spread of the rounds' medians of the reference workload
Work = Callable[[], object]


@dataclass
class Stage:
    """Milliseconds of one stage, by round; `items` results come out of one call (the batch)."""

    work: Work
    items: int = 1
    rounds: list[list[float]] = field(default_factory=list)

    def measure(self, seconds: float) -> None:
        """One round: calls for about `seconds`, three at least."""
        times: list[float] = []
        until = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < until:
            began = time.perf_counter()
            self.work()
            times.append((time.perf_counter() - began) * 1e3)
        self.rounds.append(times)

    def summary(self) -> dict[str, Any]:
        values = np.concatenate([np.asarray(r) for r in self.rounds])
        return {
            "n": int(values.size),
            **{f"p{p}": float(np.percentile(values, p)) for p in PERCENTILES},
            "max": float(values.max()),
            "per_second": float(self.items * 1e3 / np.median(values)),
            "round_medians": [float(np.median(r)) for r in self.rounds],
        }


def bench(
    bundle: Bundle,
    *,
    backend: str = "auto",
    batch: int = 1,
    duration: float = 30.0,
    hop: float = 0.5,
    threads: int | None = None,
    seed: int = 0,
    on_step: Callable[[str, float], None] = lambda what, fraction: None,
) -> dict[str, Any]:
    """The report, as `--json` writes it. `duration` (s) is shared out over stages, live loop and rounds.

    Raises BackendError where the backend cannot run here, ConfigError for a batch or duration out of range.
    """
    if not 1 <= batch <= 1024:
        raise ConfigError(f"a batch of {batch} is out of range; choose 1 to 1024")
    if not 2 <= duration <= 3600:
        raise ConfigError(f"a duration of {duration:g} s is out of range; choose 2 to 3600 s")
    on_step("first result of a fresh process", 0.0)
    first = first_result(bundle, backend, threads)
    engine, why = choose_engine(bundle, backend, threads)
    stages = make_stages(bundle.task, engine, batch, np.random.default_rng(seed))
    for stage in stages.values():
        for _ in range(3):
            stage.work()
    share = 0.6 * duration / ROUNDS / len(stages)
    cpu, began = _cpu_seconds(), time.perf_counter()
    with PowerMeter() as meter:
        for number in range(ROUNDS):
            for name, stage in stages.items():
                on_step(name, (number + 0.5) / ROUNDS)
                stage.measure(share)
    busy = (_cpu_seconds() - cpu) / (time.perf_counter() - began)
    on_step("live loop", 0.0)
    precision, name = dict(engine.precision), engine.name
    live = live_loop(bundle, engine, hop, 0.4 * duration)
    power = meter.result()
    reference = stages.pop("reference")
    spread = _spread([float(np.median(r)) for r in reference.rounds])
    machine = describe()
    per_hop = live["busy_ms_per_hop"]
    inferences = sum(len(r) for r in stages["fusion"].rounds)
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "bundle": bundle.id,
        "task": bundle.task.name,
        "variant": bundle.task.variant,
        "backend": name,
        "why": why,
        "precision": precision,
        "batch": batch,
        "hop": hop,
        "threads": threads or machine["cores"],
        "seed": seed,
        "stages": {key: stage.summary() for key, stage in stages.items()},
        "reference": reference.summary(),
        "end_to_end": live,
        "streams": int(hop * 1e3 // per_hop) if per_hop else 0,
        "cpu_cores_busy": busy,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "gpu_memory_mb": _gpu_memory(),
        "first_result_s": first,
        "power": power.to_dict() | {"joules_per_fusion": power.joules_per(inferences)} if power.watts else None,
        "noise": {"reference_spread": spread, "noisy": _noise(spread, machine)},
    }


def make_stages(task: Task, engine: Engine, batch: int, rng: np.random.Generator) -> dict[str, Stage]:
    """Every stage of one hop, with inputs drawn anew for each call (from a small pool made beforehand)."""
    stages: dict[str, Stage] = {"reference": Stage(_reference(rng))}
    if "face" in task.names:
        stages |= {"decode": Stage(_decoder()), "face": Stage(_face(task, rng))}
    if "voice" in task.names:
        sounds = [rng.standard_normal(AUDIO_RATE * 2).astype(np.float32) * 0.1 for _ in range(4)]
        voice = task.modality("voice")
        stages["spectrogram"] = Stage(lambda: voice_clip(sounds[rng.integers(4)], voice))
    if "eda" in task.names:
        times = np.arange(0, 8, 1 / 128)
        signals = [(2 + np.cumsum(rng.standard_normal(times.size)) * 0.01).astype(np.float32) for _ in range(4)]
        eda = task.modality("eda")
        stages["eda"] = Stage(lambda: normalise_eda(resample_eda(times, signals[rng.integers(4)], 8.0, eda)[0], eda))
    for m in task.modalities:
        pool = [rng.standard_normal((batch, *m.shape), dtype=np.float32) for _ in range(3)]
        stages[f"backbone {m.name}"] = Stage(
            lambda name=m.name, pool=pool: engine.backbones({name: pool[rng.integers(3)]}),  # type: ignore[misc]
            batch,
        )
    present = np.ones((batch, task.steps, len(task.names)), bool)
    shape = (batch, task.steps, task.dim)
    features = [{name: rng.standard_normal(shape, dtype=np.float32) for name in task.names} for _ in range(3)]
    stages["fusion"] = Stage(lambda: engine.fusion(features[rng.integers(3)], present), batch)
    return stages


def _reference(rng: np.random.Generator) -> Work:
    """A matrix product and a copy: about what the machine does all day, and nothing of ours."""
    a, b = rng.standard_normal((256, 256), dtype=np.float32), rng.standard_normal((2_000_000,), dtype=np.float32)
    return lambda: (a @ a, b.copy())


def _frames(count: int = 32) -> list[NDArray[np.uint8]]:
    source = open_simulated("face", "sim:seed=900001&fps=25&size=640x480")
    source.open(0.0)
    images = list(source.read(count / 25.0).values)[:count]
    source.close()
    return images


def _decoder() -> Work:
    """The next frame of an MJPG video, as a USB camera sends it."""
    folder = tempfile.mkdtemp(prefix="jmt-edge-bench-")
    path = str(Path(folder) / "clip.avi")
    frames = _frames()
    height, width = frames[0].shape[:2]
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(path, fourcc, 25.0, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    state = {"capture": cv2.VideoCapture(path)}

    def work() -> object:
        ok, frame = state["capture"].read()
        if not ok:
            state["capture"] = cv2.VideoCapture(path)
            ok, frame = state["capture"].read()
        return frame

    return work


def _face(task: Task, rng: np.random.Generator) -> Work:
    frames, tracker, size = _frames(), FaceTracker(FaceDetector()), task.modality("face").shape[-1]
    state = {"t": 0.0}

    def work() -> object:
        frame = frames[rng.integers(len(frames))]
        state["t"] += 0.04
        face = tracker.update(frame, state["t"])
        return None if face is None else align_crop(frame, face, size)

    return work


class _Collect(Observer):
    def __init__(self) -> None:
        self.totals: list[float] = []
        self.usable = 0

    def on_result(self, result: Result) -> None:
        if result.outputs is not None and result.latency_ms.get("total") is not None:
            self.totals.append(float(result.latency_ms["total"] or 0.0))
            self.usable += 1


def live_loop(bundle: Bundle, engine: Engine, hop: float, seconds: float) -> dict[str, Any]:
    """Window end to result over simulated sensors at full speed; at least twelve results. Closes the engine."""
    seen = _Collect()
    sources = {m: s for m in bundle.task.names if (s := open_source(m, "sim:seed=900001")) is not None}
    signal = max(bundle.task.window + 12 * hop, seconds)
    summary = run(bundle, engine, sources, Options(hop, False, signal), [seen])
    totals = np.array(seen.totals or [np.nan])
    return {
        "n": len(seen.totals),
        **{f"p{p}": float(np.percentile(totals, p)) for p in PERCENTILES},
        "max": float(totals.max()),
        "real_time_factor": summary.real_time_factor,
        "busy_ms_per_hop": float(np.mean(totals)),
        "dropped": summary.dropped,
        "from": "window end to result, computing time, simulated sensors",
    }


def first_result(bundle: Bundle, backend: str, threads: int | None) -> float | None:
    """Seconds from process start to the first result with a number, simulated sensors at full speed."""
    command = [
        sys.executable, "-m", "jmt_edge", "live", "--bundle", str(bundle.path), "--speed", "max", "--output", "jsonl",
        "--backend", backend, "--duration", str(bundle.task.window + 2),
    ]  # fmt: skip
    if threads:
        command += ["--threads", str(threads)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"outputs": {' in line:
                spent = time.perf_counter() - began
                process.terminate()
                return spent
    return None


def _spread(medians: list[float]) -> float:
    """Median absolute deviation over median."""
    values = np.asarray(medians)
    middle = float(np.median(values))
    return float(np.median(np.abs(values - middle)) / middle) if middle else 0.0


def _noise(spread: float, machine: dict[str, Any]) -> list[str]:
    reasons = []
    if spread > NOISY:
        reasons.append(f"the reference workload varied by {spread:.0%} between rounds")
    if machine["load"] is not None and machine["load"] > machine["cores"] + 0.5:
        reasons.append(f"load average {machine['load']:.1f} on {machine['cores']} cores")
    if machine["governor"] not in ("performance", "not readable"):
        reasons.append(f"CPU governor is '{machine['governor']}'; set it to performance")
    return reasons


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _gpu_memory() -> float | None:
    """MB in use on the GPU, by the whole machine; None without one."""
    try:
        from cuda.bindings import runtime

        status, free, total = runtime.cudaMemGetInfo()
    except (ImportError, RuntimeError):
        return None
    return (total - free) / 1e6 if int(status) == 0 else None
