"""Representative windows from a data set, saved windows, a recording, or simulated people.

They are chosen to cover subjects, classes and signal levels: a pool is drawn evenly over subjects and classes, and the
windows farthest apart in level are kept. The first N windows of a recording would be nearly the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..capture.base import Source
from ..capture.simulated import open_simulated, simulated_truth, window_label
from ..clips.cut import cut_clips
from ..clips.cutter import network_input
from ..clips.plan import HOP, plan_clips, time_key
from ..clips.presence import Presence, held, of_newest_person
from ..clips.window_set import Clips, WindowSet, random_windows
from ..engine.bundle import Bundle
from ..errors import DataError
from ..recording.reader import RecordedSource, Recording
from ..tasks import Task

POOL, POOL_BYTES = 4, 4 << 30  # candidates per window that is kept, and their limit
_SIMULATED = 2_000_000  # not in training cohorts (seeds from 1 000 000) nor in live runs


def load_windows(bundle: Bundle, data: Path | None, count: int, *, seed: int = 0) -> WindowSet:
    """`count` windows for `bundle` from `data` (a data set, a recording, or saved windows, `.npz`), else simulated.

    Networks with random weights get random noise, because no data is meaningful to them. Raises DataError where the
    data has no usable window.
    """
    task = bundle.task
    if data is None:
        if bundle.manifest["provenance"].get("weights") == "random":
            return random_windows(task, count, seed)
        return simulated_windows(task, count, seed)
    if data.suffix == ".npz":
        windows = WindowSet.load(data)
        windows.check(task)
        return windows.take(spread(windows, count, seed))
    if (data / "timeline.jsonl").is_file():
        pool = recorded_windows(task, data, count, POOL * count)
        return pool.take(spread(pool, count, seed))
    return dataset_windows(bundle, data, count, seed)


def dataset_windows(bundle: Bundle, root: Path, count: int, seed: int = 0) -> WindowSet:
    """Windows of a data set in one of the layouts that training reads, which fits the bundle's training data."""
    from ..training.clips import build_clips, default_cache
    from ..training.data import cut_windows
    from ..training.evaluation import classes_of
    from ..training.matching import facts_of_bundle, require_same
    from ..training.readers import open_cohort
    from ..training.sets import presence, shown_rows

    task = bundle.task
    cohort = open_cohort(root, classes=classes_of(bundle.path))
    remedy = "give data like those that the bundle was trained on"
    require_same(str(bundle.path), task, facts_of_bundle(bundle.manifest), cohort, remedy)
    every = cut_windows(cohort, task)
    complete = np.flatnonzero(np.all([every.rows[m.name][:, -1] >= 0 for m in task.modalities], axis=0))
    if not complete.size:
        raise DataError(f"{root} has no window with all of {', '.join(task.names)}; give data with all of them")
    labels = {o: y[complete, -1].astype(np.float64) for o, y in every.labels.items()}
    strata = _strata(every.subject[complete], labels)
    candidates = max(count, min(POOL * count, POOL_BYTES // window_bytes(task)))
    pool = complete[_deal(strata, min(candidates, len(complete)), seed)]
    small = every.take(pool).with_used_clips()
    stores = build_clips(small, default_cache(), cohort.problems)
    clips: dict[str, Clips] = {}
    present = np.zeros((len(small), task.steps, len(task.modalities)), bool)
    for j, m in enumerate(task.modalities):
        rows = shown_rows(small, stores, m.name)
        store = stores[m.name]
        there = presence(small, stores, m.name)
        present[:, :, j] = there
        last = slice(-1, None) if m.stride == 0 else slice(None)
        used = np.unique(rows[:, last][there[:, last]])
        loaded = [store.load(used[i : i + 1])[0] for i in range(len(used))]  # one by one: each can be let go alone
        clips[m.name] = Clips(loaded, np.where(there, np.searchsorted(used, rows), -1)[:, last], m.shape)
    targets = {o: y[:, -1].astype(np.float64) for o, y in small.labels.items()}
    windows = _not_empty(WindowSet(clips, present, targets, small.subject, f"{cohort.layout} at {root}"))
    windows.check(task)
    return windows.take(spread(windows, count, seed))


def recorded_windows(task: Task, folder: Path, least: int, most: int) -> WindowSet:
    """Between `least` and `most` windows, spread evenly over a recording made with `--record-raw`.

    Fewer where the run has fewer, and fewer than `most` where they would fill 4 GiB. Windows with nothing usable are
    omitted, and there are no labels. Raises DataError where raw samples are missing or no window is left.
    """
    recording = Recording(folder)
    why_not = recording.replay_blocker
    if why_not:
        raise DataError(
            f"{folder} cannot be used: {why_not}; record a run with --record-raw {','.join(task.names)} from its start"
        )
    results = recording.results()
    ends = [results[i]["t"] for i in evenly(len(results), max(least, min(most, POOL_BYTES // window_bytes(task))))]
    names = [name for name in task.names if name in recording.connected]
    if "eda" in names and recording.eda_unit != "µS":
        names.remove("eda")
    sources = {name: RecordedSource(name, folder) for name in names}
    windows = _not_empty(WindowSet(*clips_of(task, sources, ends, recording.manifest["hop"])))
    if not len(windows):
        raise DataError(
            f"no window of {folder} has usable {' or '.join(task.names)}; record a longer run with all sensors present"
        )
    return replace(windows, origin=f"recording {folder}")


def window_bytes(task: Task) -> int:
    """Bytes of one window's clips, if it shares none with another window."""
    return sum(4 * math.prod(m.shape) * (task.steps if m.stride else 1) for m in task.modalities)


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers 0 to count - 1, as far apart as possible."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


def simulated_people(seed: int, count: int) -> list[int]:
    """Seeds of `count` simulated persons who are in no training cohort."""
    return [_SIMULATED + 1000 * seed + k for k in range(count)]


def simulated_windows(task: Task, count: int, seed: int = 0, people: int = 8) -> WindowSet:
    """Windows of `people` simulated persons who are in no training cohort, half in pain and half at rest."""
    per = -(-POOL * count // people)
    parts: list[WindowSet] = []
    for k, person in enumerate(simulated_people(seed, people)):
        sources = {m.name: open_simulated(m.name, f"sim:seed={person}", lazy=True) for m in task.modalities}
        ends = _simulated_ends(task, person, -(-per // 2) if per > 2 else per, seed + k)
        clips, present = clips_of(task, sources, ends)
        targets = {o: np.array([simulated_truth(person, t)[o] for t in ends]) for o in task.outputs if o != "pain"}
        if "pain" in task.outputs:
            verdicts = [window_label(person, t) for t in ends]
            targets["pain"] = np.array([np.nan if v is None else float(v) for v in verdicts])
        parts.append(WindowSet(clips, present, targets, np.array([str(person)] * len(ends))))
    pool = WindowSet(
        {m.name: Clips.joined([p.clips[m.name] for p in parts]) for m in task.modalities},
        np.concatenate([p.present for p in parts]),
        {o: np.concatenate([p.targets[o] for p in parts]) for o in task.outputs},
        np.concatenate([p.subjects for p in parts]),
        f"{people} simulated persons, seed {seed}",
    )
    pool = _not_empty(pool)
    return pool.take(spread(pool, count, seed))


def _not_empty(windows: WindowSet) -> WindowSet:
    """The windows with at least one usable clip."""
    return windows.take(np.flatnonzero(windows.present.any((1, 2))))


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
    task: Task, sources: Mapping[str, Source], ends: Sequence[float], hop: float = HOP
) -> tuple[dict[str, Clips], NDArray[np.bool_]]:
    """Clips (N, S or 1, *shape) and presence (N, S, M) of the windows at `ends` of a live run with windows every `hop`
    seconds; a modality without a source is absent.

    As in a live run, a modality whose newest clip is unusable is absent in the whole window, and a pause shows the clip
    before it. Clips that several windows share are computed once.
    """
    clips: dict[str, Clips] = {}
    present = np.zeros((len(ends), task.steps, len(task.modalities)), bool)
    for j, (name, plan) in enumerate(plan_clips(task, hop).items()):
        steps = [[time_key(end) for end in plan.ends(t)] for t in ends]
        rows: dict[int, int] = {}
        tracks: dict[int, int] = {}
        pauses: set[int] = set()
        stored: list[NDArray[np.float32]] = []
        wanted = [end for t in ends for end in plan.ends(t)]
        for key, clip in cut_clips(sources[name], task, name, wanted, hop=hop) if name in sources else ():
            if clip.ok and clip.signal is not None:
                rows[key], tracks[key] = len(stored), clip.quality.track
                stored.append(network_input(clip.signal, plan.m))
            elif clip.presence is Presence.PAUSE:
                pauses.add(key)
        shape = len(ends), len(plan.ends(0.0))
        table = np.array([[rows.get(key, -1) for key in window] for window in steps], np.int64).reshape(shape)
        table = held(table, np.array([[key in pauses for key in window] for window in steps], bool).reshape(shape))
        table[table[:, -1] < 0] = -1
        who = np.array([[tracks.get(key, 0) for key in window] for window in steps]).reshape(shape)
        table[~of_newest_person(table >= 0, who)] = -1
        clips[name] = Clips(stored, table, plan.m.shape)
        present[:, :, j] = table >= 0
    return clips, present


def _strata(subjects: NDArray[np.str_], labels: Mapping[str, NDArray[np.float64]]) -> NDArray[np.str_]:
    """One name per window: subject, and third of each label's range (the class, for pain)."""
    parts = [np.asarray(subjects, object)]
    for y in labels.values():
        known = np.sort(y[~np.isnan(y)])
        cuts = np.quantile(known, [1 / 3, 2 / 3]) if known.size else [0.0, 0.0]
        parts.append(np.where(np.isnan(y), "?", np.digitize(y, cuts).astype(str)))
    return np.array(["|".join(map(str, row)) for row in zip(*parts)])


def _deal(strata: NDArray[np.str_], count: int, seed: int) -> NDArray[np.int64]:
    """`count` indices, one from each stratum in turn, in random order within a stratum."""
    rng = np.random.default_rng(seed)
    hands = [list(rng.permutation(np.flatnonzero(strata == name))) for name in np.unique(strata)]
    picked: list[int] = []
    while len(picked) < count:
        for hand in hands:
            if hand and len(picked) < count:
                picked.append(int(hand.pop()))
    return np.sort(np.array(picked, np.int64))


def spread(windows: WindowSet, count: int, seed: int = 0) -> NDArray[np.int64]:
    """At most `count` indices: from each subject and class in turn, the window whose level is farthest from others."""
    count, levels = min(count, len(windows)), _levels(windows)
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


def _levels(windows: WindowSet) -> NDArray[np.float64]:
    """(N, 2 M) mean and spread of each modality's clips, standardised: loudness, brightness, skin conductance."""
    levels = np.concatenate([clips.levels() for clips in windows.clips.values()], 1)
    return np.asarray((levels - levels.mean(0)) / np.maximum(levels.std(0), 1e-9), np.float64)
