"""What is timed: every stage of one hop by itself, and two reference workloads that are nothing of ours."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..capture.simulated import open_simulated
from ..engine.backends.base import Engine
from ..preprocessing.eda import normalise_eda, resample_eda
from ..preprocessing.face import FaceDetector, FaceTracker, align_crop
from ..preprocessing.voice import voice_clip
from ..tasks import AUDIO_RATE, Task

PERCENTILES = (50, 90, 95, 99)
QUICK = 25  # percentile of a round that stands for it: calls that another program delayed lie above
POOL = 3  # inputs drawn beforehand; each call takes one at random
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
        """Percentiles over all calls, results per second at the median, and one quick value a round to compare by."""
        values = np.concatenate([np.asarray(r) for r in self.rounds])
        return {
            "n": int(values.size),
            **{f"p{p}": float(np.percentile(values, p)) for p in PERCENTILES},
            "max": float(values.max()),
            "per_second": float(self.items * 1e3 / np.median(values)),
            "rounds": quick(self.rounds),
        }


def quick(rounds: list[list[float]]) -> list[float]:
    """The `QUICK` percentile of each round."""
    return [float(np.percentile(r, QUICK)) for r in rounds]


def make_stages(task: Task, engine: Engine, batch: int, rng: np.random.Generator) -> dict[str, Stage]:
    """Every stage of one hop, in the order of the data; inputs are drawn at random for each call.

    `networks` is all of a hop's inference: each backbone on one new clip, then the fusion; at batch 1 as the live loop
    asks for it, `Engine.step`.
    """
    stages: dict[str, Stage] = {}
    if "face" in task.names:
        stages |= {"decode": Stage(_decoder()), "face": Stage(_face(task, rng))}
    if "voice" in task.names:
        sounds = [rng.standard_normal(AUDIO_RATE * 2).astype(np.float32) * 0.1 for _ in range(POOL)]
        voice = task.modality("voice")
        stages["spectrogram"] = Stage(lambda: voice_clip(sounds[rng.integers(POOL)], voice))
    if "eda" in task.names:
        times = np.arange(0, 8, 1 / 128)
        signals = [(2 + np.cumsum(rng.standard_normal(times.size)) * 0.01).astype(np.float32) for _ in range(POOL)]
        eda = task.modality("eda")
        stages["eda"] = Stage(lambda: normalise_eda(resample_eda(times, signals[rng.integers(POOL)], 8.0, eda)[0], eda))
    clips = {
        m.name: [rng.standard_normal((batch, *m.shape), dtype=np.float32) for _ in range(POOL)] for m in task.modalities
    }
    for name, pool in clips.items():
        stages[f"backbone {name}"] = Stage(
            lambda name=name, pool=pool: engine.backbones({name: pool[rng.integers(POOL)]}),  # type: ignore[misc]
            batch,
        )
    present = np.ones((batch, task.steps, len(task.names)), bool)
    shape = (batch, task.steps, task.dim)
    features = [{name: rng.standard_normal(shape, dtype=np.float32) for name in task.names} for _ in range(POOL)]
    stages["fusion"] = Stage(lambda: engine.fusion(features[rng.integers(POOL)], present), batch)

    rows = {m.name: [[*range(task.steps)] if m.stride == 0 else [task.steps - 1]] for m in task.modalities}

    def hop() -> object:
        sequence = features[rng.integers(POOL)]
        new = {name: pool[rng.integers(POOL)] for name, pool in clips.items()}
        if batch == 1:
            return engine.step(new, sequence, present, rows).outputs
        for name, found in engine.backbones(new).items():
            sequence[name][:, rows[name][0]] = found[:, None]
        return engine.fusion(sequence, present)

    stages["networks"] = Stage(hop, batch)
    return stages


def make_references(threads: int) -> dict[str, Stage]:
    """The same arithmetic on one core, and on `threads` cores that wait for each other as an engine's threads do.

    What they gain or lose between two runs is the machine, not the program.
    """
    x = np.linspace(-3, 3, 1_000_000, dtype=np.float32)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reference")

    def part(_: int = 0) -> object:
        return np.tanh(x).copy()

    return {"one core": Stage(part), "all cores": Stage(lambda: list(pool.map(part, range(threads))))}


def simulated_frames(count: int = 32) -> list[NDArray[np.uint8]]:
    """Frames (480, 640, 3) of the simulated camera."""
    source = open_simulated("face", "sim:seed=900001&fps=25&size=640x480")
    source.open(0.0)
    images = list(source.read(count / 25.0).values)[:count]
    source.close()
    return images


def _decoder() -> Work:
    """The next frame of an MJPG video, as a USB camera sends it."""
    folder = tempfile.mkdtemp(prefix="jmt-edge-bench-")
    path = str(Path(folder) / "clip.avi")
    frames = simulated_frames()
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (width, height))
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

    weakref.finalize(work, shutil.rmtree, folder, True)
    return work


def _face(task: Task, rng: np.random.Generator) -> Work:
    """Find (or follow) the face in a frame and cut it out."""
    frames, tracker, size = simulated_frames(), FaceTracker(FaceDetector()), task.modality("face").shape[-1]
    state = {"t": 0.0}

    def work() -> object:
        frame = frames[rng.integers(len(frames))]
        state["t"] += 0.04
        face = tracker.update(frame, state["t"])
        return None if face is None else align_crop(frame, face, size)

    return work
