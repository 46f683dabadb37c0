"""Windows of a recorded run, cut by the live pipeline itself, with the same cache, gate and clips as in the run."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..clips.plan import plan_clips
from ..clips.window_set import Clips, WindowSet
from ..engine.backends.base import TwoCalls
from ..engine.bundle import Bundle
from ..errors import DataError
from ..live.pipeline import Pipeline
from ..observer import Observer, RunInfo
from ..recording.reader import Recording
from ..recording.replay import replay
from ..result import Result
from ..tasks import Task

POOL_BYTES = 4 << 30  # limit of the candidates that windows are chosen from
F32 = NDArray[np.float32]


def recorded_windows(bundle: Bundle, folder: Path, least: int, most: int) -> WindowSet:
    """Between `least` and `most` windows, spread evenly over a recording made with `--record-raw`.

    Fewer where the run has fewer, and fewer than `most` where they would fill 4 GiB. Windows with nothing usable are
    omitted, and there are no labels. Raises DataError where raw samples are missing or no window is left.
    """
    task = bundle.task
    recording = Recording(folder)
    why_not = recording.replay_blocker
    if why_not:
        raise DataError(
            f"{folder} cannot be used: {why_not}; record a run with --record-raw {','.join(task.names)} from its start"
        )
    most = max(least, min(most, POOL_BYTES // window_bytes(task)))
    cut = _Cut(task, {int(i) for i in evenly(len(recording.results()), most)})
    replay(recording, bundle, cut, Pipeline, observers=[cut])
    if not cut.windows:
        raise DataError(
            f"no window of {folder} has usable {' or '.join(task.names)}; record a longer run with all sensors present"
        )
    return WindowSet(cut.clips(), np.stack([present for _, present in cut.windows]), origin=f"recording {folder}")


def window_bytes(task: Task) -> int:
    """Bytes of one window's clips, if it shares none with another window."""
    return sum(4 * math.prod(m.shape) * (task.steps if m.stride else 1) for m in task.modalities)


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers 0 to count - 1, as far apart as possible."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


class _Cut(TwoCalls, Observer):
    """An engine that computes nothing: a clip's feature is its number, so the fusion's input tells which clips make up
    a window, and at which steps. Keeps the windows at the positions `pool`.
    """

    name = "cut"

    def __init__(self, task: Task, pool: Collection[int]) -> None:
        self.precision = dict.fromkeys((*task.names, "fusion"), "fp32")
        self.windows: list[tuple[dict[str, list[int]], NDArray[np.bool_]]] = []  # numbers of clips, -1 for absent
        self._task, self._pool = task, pool
        self._clips: dict[str, dict[int, F32]] = {name: {} for name in task.names}
        self._room: dict[str, int] = {}
        self._count = self._position = 0
        self._kept: dict[str, dict[int, F32]] = {name: {} for name in task.names}  # that a window in `windows` holds
        self._latest: tuple[dict[str, list[int]], NDArray[np.bool_]] | None = None

    def on_start(self, info: RunInfo) -> None:
        for name, plan in plan_clips(self._task, info.hop).items():
            hops = math.ceil((plan.steps - 1) * plan.m.stride / info.hop) + 1
            self._room[name] = (hops + 1) * plan.new  # clips that some later window may still use

    def backbones(self, clips: Mapping[str, F32]) -> dict[str, F32]:
        features = {}
        for name, batch in clips.items():
            numbers = np.arange(self._count, self._count + len(batch))
            self._count += len(batch)
            kept = self._clips[name]
            kept.update(zip(numbers.tolist(), batch))
            for old in list(kept)[: max(len(kept) - self._room[name], 0)]:
                del kept[old]
            features[name] = np.repeat(numbers[:, None].astype(np.float32), self._task.dim, 1)  # exact to 2^24
        return features

    def fusion(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        held: dict[str, list[int]] = {}
        for j, m in enumerate(self._task.modalities):
            steps = range(self._task.steps) if m.stride else [self._task.steps - 1]
            numbers = features[m.name][0, :, 0].astype(np.int64).tolist()
            held[m.name] = [numbers[s] if present[0, s, j] else -1 for s in steps]
        self._latest = (held, present[0].copy())
        shape = (len(present), 1)
        zeros = {o: np.zeros((*shape, 2) if o == "pain" else shape, np.float32) for o in self._task.outputs}
        return {"attention": np.zeros((*shape, present.shape[2]), np.float32), **zeros}

    def on_result(self, result: Result) -> None:
        if self._position in self._pool and self._latest is not None:
            held, _ = self._latest
            for name, numbers in held.items():
                self._kept[name] |= {number: self._clips[name][number] for number in numbers if number >= 0}
            self.windows.append(self._latest)
        self._position += 1
        self._latest = None

    def clips(self) -> dict[str, Clips]:
        """The clips of `windows`, in their order."""
        found = {}
        for m in self._task.modalities:
            kept = self._kept[m.name]
            place = {number: row for row, number in enumerate(kept)} | {-1: -1}
            rows = np.array([[place[number] for number in held[m.name]] for held, _ in self.windows])
            found[m.name] = Clips([*kept.values()], rows, m.shape)
        return found

    def close(self) -> None:
        self._clips.clear()
