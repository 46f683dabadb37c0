"""The clip cache: every distinct clip of a data set, cut once, by the same code and as present as in a live run.

One folder per modality, named by its key (`keys.clip_key`): anything that could change a clip gives another folder, so
stale clips are never read. Clips are stored as they are cut: faces as uint8 crops, EDA in µS. An interrupted run loses
only the trials in progress.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clips.cut import cut_clips
from ..clips.cutter import network_input, signal_format
from ..clips.plan import time_key
from ..clips.presence import Presence
from ..errors import DataError, SourceError
from ..tasks import Modality, Task
from .data import Problems, Trial, WindowTable
from .faults import GREY_NOISE, spoil_face, spoiled
from .frame_features import cut_features
from .keys import clip_content, clip_key, digest
from .sources import open_trial

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """No progress; unlike a lambda, it can be sent to another process."""


def default_cache() -> Path:
    """`$JMT_EDGE_CACHE`, else `jmt-edge` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("JMT_EDGE_CACHE") or Path(base) / "jmt-edge")


@dataclass
class ClipStore:
    """The clips of one modality. `data` (N, *signal), `present` (N,): the clip may be used (`clips.presence`), `track`
    (N,): whose face it is (`Quality.track`), `pause` (N,): it is a pause in speech.

    key: of the files that the clips were read from; content: digest of the clips themselves.
    """

    modality: Modality
    key: str
    data: NDArray[Any]
    present: NDArray[np.bool_]
    track: NDArray[np.int32]
    pause: NDArray[np.bool_]
    content: str

    def load(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, *shape) float32 as the backbone takes it."""
        return network_input(self.data[index], self.modality)


def build_clips(
    windows: WindowTable, cache: Path, problems: Problems, workers: int = 1, progress: Progress = silent
) -> dict[str, ClipStore]:
    """All clips of `windows`, read from the cache or computed. Bad trials: see `Problems`."""
    return {
        m.name: _build_modality(windows, m, cache, problems, workers, progress)
        for m in windows.task.modalities
        if windows.clips[m.name]
    }


def with_faults(
    windows: WindowTable,
    stores: Mapping[str, ClipStore],
    faults: Mapping[str, str],
    cache: Path,
    workers: int = 1,
    progress: Progress = silent,
) -> dict[str, ClipStore]:
    """`stores` of `windows` with a fault (`faults.FAULTS`, `faults.GREY_NOISE`) in some modalities: faces from their
    clean clips, signals and pictures with grey noise cut again."""
    spoilt = {}
    for m in windows.task.modalities:
        if (fault := faults.get(m.name, "")) and m.name == "face" and fault != GREY_NOISE:
            spoilt[m.name] = _spoilt_faces(windows, stores[m.name], fault)
        elif fault:
            problems = Problems(skip=True)  # trials that cannot be read were named when the clean clips were cut
            spoilt[m.name] = _build_modality(windows, m, cache, problems, workers, progress, fault)
    return {**stores, **spoilt}


def _spoilt_faces(windows: WindowTable, store: ClipStore, fault: str) -> ClipStore:
    data, present = np.empty_like(store.data), store.present.copy()
    for row, (number, end) in enumerate(windows.clips["face"]):
        trial = windows.trials[number]
        data[row], usable = spoil_face(store.data[row], store.modality, fault, trial.id, trial.duration, end)
        present[row] &= usable
    return replace(store, data=data, present=present, key=f"{store.key}-{fault}", content=digest(data, present))


def _build_modality(
    windows: WindowTable,
    m: Modality,
    cache: Path,
    problems: Problems,
    workers: int,
    progress: Progress,
    fault: str = "",
) -> ClipStore:
    clips = windows.clips[m.name]
    key = clip_key(windows, m, fault)
    folder = cache / "clips" / f"{m.name}-{key}"
    shape, dtype = signal_format(m)
    data = _memmap(folder / "clips.npy", (len(clips), *shape), dtype)
    present = _memmap(folder / "present.npy", (len(clips),), np.uint8)  # 0 absent, 1 present, 2 a pause
    track = _memmap(folder / "track.npy", (len(clips),), np.int32)
    done = _memmap(folder / "done.npy", (len(windows.trials),), np.uint8)  # 0 to do, 1 done
    failed: dict[str, str] = _read_json(folder / "failed.json")

    jobs: dict[int, list[int]] = {}
    for row, (number, _) in enumerate(clips):
        jobs.setdefault(number, []).append(row)
    for number in jobs:
        if done[number] and windows.trials[number].id in failed:
            problems.refuse(failed[windows.trials[number].id])
    todo = [n for n in jobs if not done[n]]
    finished = len(jobs) - len(todo)
    progress(m.name, finished, len(jobs))
    items = ((n, (windows.trials[n], windows.task, m.name, [clips[row][1] for row in jobs[n]], fault)) for n in todo)
    for number, (arrays, usable, who, error) in _map(_compute, items, workers):
        rows = np.array(jobs[number])
        if error:
            problems.refuse(error)
            failed[windows.trials[number].id] = error
            (folder / "failed.json").write_text(json.dumps(failed, indent=1))
        else:
            data[rows] = arrays
            present[rows] = usable
            track[rows] = who
        done[number] = 1
        finished += 1
        progress(m.name, finished, len(jobs))
    for number, places in jobs.items():
        trial = windows.trials[number]
        if trial.id not in failed and not fault and not (present[places] == 1).any():
            problems.missing(f"usable {m.name} clip of a trial", trial.files[m.name])
    for array in (data, present, track, done):
        array.flush()
    content = clip_content(folder, data, present, track, fresh=bool(todo))
    return ClipStore(m, key, data, np.asarray(present) == 1, np.asarray(track), np.asarray(present) == 2, content)


def _memmap(path: Path, shape: tuple[int, ...], dtype: Any) -> np.memmap:
    if path.is_file():
        array = np.lib.format.open_memmap(path, mode="r+")
        if array.shape == shape and array.dtype == dtype:
            return array
        del array
    path.parent.mkdir(parents=True, exist_ok=True)
    free, need = shutil.disk_usage(path.parent).free, int(np.prod(shape)) * np.dtype(dtype).itemsize
    if need > 0.95 * free:
        raise DataError(
            f"the clip cache needs {need / 1e9:.1f} GB and {path.parent} has {free / 1e9:.1f} GB; use another --cache"
        )
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _read_json(path: Path) -> dict[str, str]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _map(work: Callable[[Any], Any], items: Iterator[tuple[int, Any]], workers: int) -> Iterator[tuple[int, Any]]:
    """`work` on numbered items, in any order and with few waiting; in this process for one worker."""
    if workers <= 1:
        for number, item in items:
            yield number, work(item)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet_worker) as pool:
        waiting: dict[Future[Any], int] = {}
        try:
            for number, item in items:
                waiting[pool.submit(work, item)] = number
                if len(waiting) >= 2 * workers:
                    ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from ((waiting.pop(f), f.result()) for f in ready)
            while waiting:
                ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                yield from ((waiting.pop(f), f.result()) for f in ready)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _quiet_worker() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C


# ---- one trial, in a worker ------------------------------------------------------------------------------


def _compute(job: tuple[Trial, Task, str, list[float], str]) -> tuple[Any, Any, Any, str]:
    """(clips as stored, present, track, "") or (None, None, None, the error)."""
    trial, task, name, ends, fault = job
    m = task.modality(name)
    rows = {time_key(end): row for row, end in enumerate(ends)}
    shape, dtype = signal_format(m)
    clips = np.zeros((len(ends), *shape), dtype)
    present = np.zeros(len(ends), np.uint8)
    track = np.zeros(len(ends), np.int32)
    try:
        if m.precomputed:
            return *cut_features(trial, m, ends), track, ""
        source, find = open_trial(trial, m)
        if fault:
            source = spoiled(source, name, fault, trial.id, trial.duration)
        for key, clip in cut_clips(source, task, name, ends, find=find):
            if clip.signal is not None:
                clips[rows[key]] = clip.signal
            present[rows[key]] = 2 if clip.presence is Presence.PAUSE else clip.ok
            track[rows[key]] = clip.quality.track
    except (DataError, SourceError) as error:
        return None, None, None, str(error)
    return clips, present, track, ""
