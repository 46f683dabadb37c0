"""What is timed: each stage of one hop, and four reference workloads that are independent of our code."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..capture.simulated import open_simulated
from ..clips.face import tracked
from ..engine.backends.base import Engine
from ..media.video import video_frames
from ..opencv import cv2
from ..preprocessing.eda import normalise_eda, resample_eda
from ..preprocessing.voice import voice_clip
from ..tasks import AUDIO_RATE, Task

PERCENTILES = (50, 90, 95, 99)
QUICK = 5  # the percentile of its calls that represents a process: calls delayed by other programs lie above it
LONG = 1e-3  # seconds; longer calls are delayed so often that the delay is measured
POOL = 3  # inputs generated beforehand; each call takes one at random
Work = Callable[[], object]


class Delay:
    """Seconds that the calling thread was ready to run but had to wait for a processor: `with Delay() as delay`.

    The second number of schedstat (kernel, Documentation/scheduler/sched-stats.rst); 0 where there is none.
    """

    def __enter__(self) -> Delay:
        try:
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        except OSError:
            self._file = -1
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    def seconds(self) -> float:
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9 if self._file >= 0 else 0.0


@dataclass
class Stage:
    """Milliseconds of one stage, by round; one call produces `items` results (the batch).

    net: the same calls without the time spent waiting for a processor; cpu: seconds of the whole process, and of the
    calling thread.
    """

    work: Work
    items: int = 1
    rounds: list[list[float]] = field(default_factory=list)
    net: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def measure(self, seconds: float) -> None:
        """One round: calls for about `seconds`, at least three."""
        times: list[float] = []
        process, thread = time.process_time(), time.thread_time()
        until, look = time.perf_counter() + seconds, True
        with Delay() as delay:
            while len(times) < 3 or time.perf_counter() < until:
                start = time.perf_counter()
                before = delay.seconds() if look else 0.0
                began = time.perf_counter()
                self.work()
                spent = time.perf_counter() - began
                times.append(spent * 1e3)
                if look:  # read within the measured time, so that waiting is always less than all of it
                    waited = delay.seconds() - before
                    self.net.append((time.perf_counter() - start - waited) * 1e3)
                else:
                    self.net.append(spent * 1e3)
                look = spent > LONG
        self.rounds.append(times)
        self.cpu[0] += time.process_time() - process
        self.cpu[1] += time.thread_time() - thread

    def cores(self) -> float:
        """Cores used by the stage: 1 if the calling thread does everything, whatever else is running."""
        return max(1.0, self.cpu[0] / self.cpu[1]) if self.cpu[1] else 1.0

    def quick(self) -> float:
        """The time by which processes are compared (ms): the `QUICK` percentile of the calls, without waiting."""
        return quick(self.net)


def percentiles(calls: Sequence[float]) -> dict[str, float]:
    """`p50` and so on, and `max`, of milliseconds."""
    return {**{f"p{p}": float(np.percentile(calls, p)) for p in PERCENTILES}, "max": float(np.max(calls))}


def quick(calls: Sequence[float]) -> float:
    return float(np.percentile(calls, QUICK))


def make_stages(task: Task, engine: Engine, batch: int, rng: np.random.Generator) -> dict[str, Stage]:
    """Every stage of one hop, in the order of the data; each call takes a random input.

    `networks` is all of a hop's inference: each backbone on one new clip, then the fusion; at batch 1 by `Engine.step`,
    as in the live loop.
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


ALL_CORES = "all cores"  # the reference for stages that compute on several


def make_references(threads: int) -> dict[str, Stage]:
    """What a stage may depend on, separately: the interpreter with small arrays, arithmetic in the cache, memory, and
    arithmetic on `threads` cores at once, as in an engine.
    """
    rng = np.random.default_rng(0)
    small = rng.standard_normal(256)
    big, target = np.linspace(-3, 3, 1_000_000, dtype=np.float32), np.empty(1_000_000, np.float32)
    # 64x64 products: too small for a BLAS to start its own threads
    left, right = rng.standard_normal((48, 64, 64), dtype=np.float32), rng.standard_normal((64, 64), dtype=np.float32)
    results = [np.empty_like(left) for _ in range(threads)]
    pool = ThreadPoolExecutor(max(threads - 1, 1), thread_name_prefix="reference")

    def interpreter() -> object:
        counts: dict[int, float] = {}
        for i in range(1500):
            counts[i % 97] = counts.get(i % 97, 0.0) + 0.5 * i
        for _ in range(10):
            counts[0] += float(np.interp(small, small, np.sort(small)).std())
        return counts

    def arithmetic(i: int = 0) -> object:
        return np.matmul(left, right, out=results[i])

    def again(i: int) -> object:
        """Long enough that the time to wake a thread does not matter; otherwise one of them might do all the work."""
        return [arithmetic(i) for _ in range(20)][-1]

    def everywhere() -> list[object]:
        """The caller takes its share, as in an engine: one thread more than cores would have to wait."""
        others = [pool.submit(again, i) for i in range(1, threads)]
        return [again(0), *(other.result() for other in others)]

    return {
        "interpreter": Stage(interpreter),
        "arithmetic": Stage(arithmetic),
        "memory": Stage(lambda: np.tanh(big, out=target)),
        ALL_CORES: Stage(everywhere),
    }


@cache
def simulated_frames(count: int = 32) -> list[NDArray[np.uint8]]:
    """Frames (480, 640, 3) of the simulated camera, cached because drawing them is slow."""
    source = open_simulated("face", "sim:seed=900001&fps=25&size=640x480")
    source.open(0.0)
    images = list(source.read(count / 25.0).values)[:count]
    source.close()
    return images


def _decoder() -> Work:
    """Decodes the next frame of an MJPG video, the format of a USB camera."""
    folder = tempfile.mkdtemp(prefix="jmt-edge-bench-")
    path = str(Path(folder) / "clip.avi")
    frames = simulated_frames()
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    stream = (frame for _ in count() for _, frame in video_frames(Path(path)))

    def work() -> object:
        return next(stream)

    weakref.finalize(work, shutil.rmtree, folder, True)
    return work


def _face(task: Task, rng: np.random.Generator) -> Work:
    """Finds (or tracks) the face in a frame, crops it, and judges it as often as a live run does."""
    frames, find = simulated_frames(), tracked(task.modality("face").side)
    state = {"t": 0.0}

    def work() -> object:
        frame = frames[rng.integers(len(frames))]
        state["t"] += 0.04
        return find(frame, state["t"]).crop

    return work
