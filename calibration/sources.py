"""Where representative windows come from: a data set, saved windows, a recording, or the simulated person.

Chosen to cover subjects, classes and signal levels: a pool is dealt out subject by subject and class by class,
then the windows farthest apart in level are kept. The first N of a recording are all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..capture.base import Source
from ..capture.simulated import open_simulated, simulated_truth, window_label
from ..clips.frames import face_clip, frame_times
from ..clips.window_set import Clips, Windows, random_windows
from ..engine.bundle import Bundle
from ..errors import DataError
from ..preprocessing.eda import normalise_eda, resample_eda
from ..preprocessing.face import FaceDetector, FaceTracker, align_crop
from ..preprocessing.voice import voice_clip
from ..tasks import AUDIO_RATE, Modality, Task
from ..training.data import Windows as TrainingWindows
from .recorded import POOL_BYTES, recorded_windows, window_bytes

POOL = 4  # candidates for each window that is kept
_SIMULATED = 2_000_000  # nobody whom a simulated cohort trains on (those begin at 1 000 000) or a live run shows


def load_windows(bundle: Bundle, data: Path | None, count: int, *, seed: int = 0) -> Windows:
    """`count` windows for `bundle`: from `data` (a data set's or a recording's folder, or saved windows, `.npz`), else
    simulated.

    Networks with random weights get random noise: no data means anything to them. Raises DataError where the
    data gives no window.
    """
    task = bundle.task
    if data is None:
        if bundle.manifest["provenance"].get("weights") == "random":
            return random_windows(task, count, seed)
        return simulated_windows(task, count, seed)
    if data.suffix == ".npz":
        windows = Windows.load(data)
        windows.check(task)
        return windows.take(spread(windows, min(count, len(windows)), seed))
    if (data / "timeline.jsonl").is_file():
        pool = recorded_windows(bundle, data, count, POOL * count)
        return pool.take(spread(pool, min(count, len(pool)), seed))
    return dataset_windows(task, data, count, seed)


def dataset_windows(task: Task, root: Path, count: int, seed: int = 0) -> Windows:
    """Windows of a data set in one of the layouts that training reads."""
    from ..training.clips import build_clips, default_cache
    from ..training.data import cut_windows
    from ..training.readers import open_cohort

    cohort = open_cohort(root)
    every = cut_windows(cohort, task)
    complete = np.flatnonzero(np.all([every.rows[m.name][:, -1] >= 0 for m in task.modalities], axis=0))
    if not complete.size:
        raise DataError(f"{root} has no window with all of {', '.join(task.names)}; give data that has them")
    labels = {o: y[complete, -1].astype(np.float64) for o, y in every.labels.items()}
    strata = _strata(every.subject[complete], labels)
    candidates = max(count, min(POOL * count, POOL_BYTES // window_bytes(task)))
    pool = complete[_deal(strata, min(candidates, len(complete)), seed)]
    chosen = every.take(pool)
    small = _only_used(chosen)
    stores = build_clips(small, default_cache(), cohort.problems)
    clips: dict[str, Clips] = {}
    present = np.zeros((len(small), task.steps, len(task.modalities)), bool)
    for j, m in enumerate(task.modalities):
        rows = small.rows[m.name]
        store = stores[m.name]
        there = (rows >= 0) & store.present[np.maximum(rows, 0)]
        present[:, :, j] = there
        last = slice(-1, None) if m.stride == 0 else slice(None)
        used = np.unique(rows[:, last][there[:, last]])
        loaded = [store.load(used[i : i + 1])[0] for i in range(len(used))]  # one by one: each can be let go alone
        clips[m.name] = Clips(loaded, np.where(there, np.searchsorted(used, rows), -1)[:, last], m.shape)
    targets = {o: y[:, -1].astype(np.float64) for o, y in small.labels.items()}
    windows = Windows(clips, present, targets, small.subject, f"{cohort.layout} at {root}")
    windows.check(task)
    return windows.take(spread(windows, min(count, len(windows)), seed))


def _only_used(windows: TrainingWindows) -> TrainingWindows:
    """The same windows without the clips that none of them refers to, so that nothing else is computed."""
    clips, rows = {}, {}
    for name, table in windows.rows.items():
        used = np.unique(table[table >= 0])
        clips[name] = [windows.clips[name][i] for i in used]
        rows[name] = np.where(table >= 0, np.searchsorted(used, table), -1)
    return replace(windows, clips=clips, rows=rows)


def simulated_people(seed: int, count: int) -> list[int]:
    """Seeds of `count` simulated persons whom no cohort trains on."""
    return [_SIMULATED + 1000 * seed + k for k in range(count)]


def simulated_windows(task: Task, count: int, seed: int = 0, people: int = 8) -> Windows:
    """Windows of `people` simulated persons who are in no training cohort, pain and rest alike."""
    per = -(-POOL * count // people)
    parts: list[Windows] = []
    for k, person in enumerate(simulated_people(seed, people)):
        sources = {m.name: open_simulated(m.name, f"sim:seed={person}") for m in task.modalities}
        ends = _simulated_ends(task, person, -(-per // 2) if per > 2 else per, seed + k)
        clips, present = clips_of(task, sources, ends)
        targets = {o: np.array([simulated_truth(person, t)[o] for t in ends]) for o in task.outputs if o != "pain"}
        if "pain" in task.outputs:
            verdicts = [window_label(person, t) for t in ends]
            targets["pain"] = np.array([np.nan if v is None else float(v) for v in verdicts])
        parts.append(Windows(clips, present, targets, np.array([str(person)] * len(ends))))
    pool = Windows(
        {m.name: Clips.joined([p.clips[m.name] for p in parts]) for m in task.modalities},
        np.concatenate([p.present for p in parts]),
        {o: np.concatenate([p.targets[o] for p in parts]) for o in task.outputs},
        np.concatenate([p.subjects for p in parts]),
        f"{people} simulated persons, seed {seed}",
    )
    return pool.take(spread(pool, min(count, len(pool)), seed))


def _simulated_ends(task: Task, person: int, count: int, seed: int) -> list[float]:
    """Window ends within the first minute, alternately of pain and of rest where the task has pain."""
    rng = np.random.default_rng(seed)
    grid = np.arange(np.ceil(task.window) + 1, task.window + 46, 0.5)
    if "pain" not in task.outputs:
        return sorted(float(t) for t in rng.choice(grid, min(count, grid.size), replace=False))
    verdict = np.array([-1 if (v := window_label(person, float(t))) is None else v for t in grid])
    picked: list[float] = []
    for label in (0, 1):
        at = grid[verdict == label]
        picked += [float(t) for t in rng.choice(at, min(-(-count // 2), at.size), replace=False)]
    return sorted(picked)


def clips_of(
    task: Task, sources: Mapping[str, Source], ends: Sequence[float]
) -> tuple[dict[str, Clips], NDArray[np.bool_]]:
    """Clips (N, S or 1, *shape) and presence (N, S, M) of windows that end at `ends`, read from `sources`.

    A source is read hop by hop and forgotten behind the oldest window, so an hour of it needs little memory. A clip
    that several windows hold is made once.
    """
    steps = {m.name: 1 if m.stride == 0 else task.steps for m in task.modalities}
    clips: dict[str, Clips] = {}
    present = np.zeros((len(ends), task.steps, len(task.modalities)), bool)
    for j, m in enumerate(task.modalities):
        source = sources[m.name]
        source.open(0.0)
        try:
            reader: _Reader = _READERS[m.name](m, source)
            made: dict[float, tuple[int, bool]] = {}
            stored: list[NDArray[np.float32]] = []
            rows = np.zeros((len(ends), steps[m.name]), np.int64)
            for i, end in enumerate(ends):
                reader.advance(end, [end + offset for offset in m.clip_ends(steps[m.name])])
                for s, offset in enumerate(m.clip_ends(steps[m.name])):
                    at = round(end + offset, 6)
                    if at not in made:
                        clip, ok = reader.clip(end + offset)
                        made[at] = len(stored), ok
                        stored.append(clip)
                    rows[i, s], ok = made[at]
                    present[i, s if steps[m.name] > 1 else slice(None), j] = ok
            clips[m.name] = Clips(stored, rows, m.shape)
        finally:
            source.close()
    return clips, present


class _Reader(Protocol):
    def advance(self, end: float, clip_ends: Sequence[float]) -> None: ...

    def clip(self, end: float) -> tuple[NDArray[np.float32], bool]: ...


class _Faces:
    def __init__(self, m: Modality, source: Source) -> None:
        self.m, self.source = m, source
        self.tracker = FaceTracker(FaceDetector())
        self.crops: list[tuple[float, NDArray[np.uint8] | None]] = []
        self.now = 0.0

    def advance(self, end: float, clip_ends: Sequence[float]) -> None:
        wanted = np.unique(np.concatenate([frame_times(self.m, e) for e in clip_ends]))
        first = float(wanted.min()) - 0.2
        while self.now < end:
            self.now = min(self.now + 1.0, end)
            chunk = self.source.read(self.now)
            # the frame at or just before each wanted time, as live picks them
            index = np.searchsorted(chunk.times, wanted + 1e-6, side="right") - 1
            for i in sorted({int(k) for k in index if 0 <= k < len(chunk)}):
                image = chunk.values[i]
                face = self.tracker.update(image, float(chunk.times[i]))
                crop = None if face is None else align_crop(image, face, self.m.shape[-1])
                self.crops.append((float(chunk.times[i]), crop))
        self.crops = [crop for crop in self.crops if crop[0] >= first]

    def clip(self, end: float) -> tuple[NDArray[np.float32], bool]:
        clip, valid = face_clip([c for c in self.crops if c[0] <= end + 1e-6], end, self.m)
        return clip, bool(valid.any())


class _Voice:
    def __init__(self, m: Modality, source: Source) -> None:
        self.m, self.source = m, source
        self.samples = np.empty(0, np.float32)
        self.start = 0

    def advance(self, end: float, clip_ends: Sequence[float]) -> None:
        self.samples = np.concatenate([self.samples, self.source.read(end).values])
        first = max(int((min(clip_ends) - self.m.span - 1) * AUDIO_RATE), self.start)
        self.samples, self.start = self.samples[first - self.start :], first

    def clip(self, end: float) -> tuple[NDArray[np.float32], bool]:
        last = round(end * AUDIO_RATE) - self.start
        part = self.samples[max(last - round(self.m.span * AUDIO_RATE), 0) : max(last, 0)]
        return voice_clip(part, self.m), part.size > 0


class _Eda:
    def __init__(self, m: Modality, source: Source) -> None:
        self.m, self.source = m, source
        self.times, self.values = np.empty(0), np.empty(0, np.float32)

    def advance(self, end: float, clip_ends: Sequence[float]) -> None:
        chunk = self.source.read(end)
        self.times = np.concatenate([self.times, chunk.times])
        self.values = np.concatenate([self.values, chunk.values])
        keep = self.times >= min(clip_ends) - self.m.span - 2
        self.times, self.values = self.times[keep], self.values[keep]

    def clip(self, end: float) -> tuple[NDArray[np.float32], bool]:
        clip, share = resample_eda(self.times, self.values, end, self.m)
        return normalise_eda(clip, self.m), share >= 0.5


_READERS: dict[str, Callable[[Modality, Source], _Reader]] = {"face": _Faces, "voice": _Voice, "eda": _Eda}


def _strata(subjects: NDArray[np.str_], labels: Mapping[str, NDArray[np.float64]]) -> NDArray[np.str_]:
    """One name per window: who, and which third of each label's range (a class where the label is pain)."""
    parts = [np.asarray(subjects, object)]
    for y in labels.values():
        known = np.sort(y[~np.isnan(y)])
        cuts = np.quantile(known, [1 / 3, 2 / 3]) if known.size else [0.0, 0.0]
        parts.append(np.where(np.isnan(y), "?", np.digitize(y, cuts).astype(str)))
    return np.array(["|".join(map(str, row)) for row in zip(*parts)])


def _deal(strata: NDArray[np.str_], count: int, seed: int) -> NDArray[np.int64]:
    """`count` indices dealt out over the strata in turn, each stratum in random order."""
    rng = np.random.default_rng(seed)
    hands = [list(rng.permutation(np.flatnonzero(strata == name))) for name in np.unique(strata)]
    picked: list[int] = []
    while len(picked) < count:
        for hand in hands:
            if hand and len(picked) < count:
                picked.append(int(hand.pop()))
    return np.sort(np.array(picked, np.int64))


def spread(windows: Windows, count: int, seed: int = 0) -> NDArray[np.int64]:
    """`count` indices: each subject and class in turn, always the window whose level is farthest from those taken."""
    levels = _levels(windows)
    subjects = windows.subjects if len(windows.subjects) == len(windows) else np.array([""] * len(windows))
    strata = _strata(subjects, windows.targets)
    groups = [
        list(np.flatnonzero(strata == name)) for name in np.random.default_rng(seed).permutation(np.unique(strata))
    ]
    distance = np.linalg.norm(levels - levels.mean(0), axis=1)
    picked: list[int] = []
    while len(picked) < count:
        for group in groups:
            if not group or len(picked) >= count:
                continue
            best = max(group, key=lambda i: distance[i])
            group.remove(best)
            gap = np.linalg.norm(levels - levels[best], axis=1)
            distance = gap if not picked else np.minimum(distance, gap)
            picked.append(int(best))
    return np.array(picked, np.int64)


def _levels(windows: Windows) -> NDArray[np.float64]:
    """(N, 2 M) mean and spread of each modality's clips, standardised: how loud, bright or sweaty a window is."""
    levels = np.concatenate([clips.levels() for clips in windows.clips.values()], 1)
    return np.asarray((levels - levels.mean(0)) / np.maximum(levels.std(0), 1e-9), np.float64)
