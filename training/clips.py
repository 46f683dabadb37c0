"""The clip cache: every distinct clip of a data set, cut once, by the same code and as present as in a live run.

One folder per modality, named by a hash of the modality's geometry, the preprocessing code and the files
(path, size, time of change): anything that could change a clip gives another folder, so a stale clip cannot be
read. Clips are stored as they are cut: faces as uint8 crops, EDA in µS; a kill loses at most the recordings in work.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import capture, media, preprocessing
from .. import clips as rules
from ..clips.cut import cut_clips
from ..clips.cutter import network_input, signal_format
from ..clips.plan import HOP, plan_clips, time_key
from ..errors import DataError, SourceError
from ..tasks import Modality, Task
from . import sources
from .data import Problems, Recording, Windows
from .sources import open_recording

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]


def default_cache() -> Path:
    """`$JMT_EDGE_CACHE`, else `jmt-edge` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("JMT_EDGE_CACHE") or Path(base) / "jmt-edge")


@dataclass
class ClipStore:
    """The clips of one modality. `data` (N, *signal), `present` (N,): the clip may be used (`clips.presence`)."""

    modality: Modality
    key: str
    data: NDArray[Any]
    present: NDArray[np.bool_]

    def load(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, *shape) float32 as the backbone takes it."""
        return network_input(self.data[index], self.modality)


def clip_key(windows: Windows, m: Modality) -> str:
    """Hash of all that a modality's clips depend on."""
    files: dict[str, tuple[int, int]] = {}
    jobs: dict[int, list[float]] = {}
    for number, end in windows.clips[m.name]:
        jobs.setdefault(number, []).append(end)
    lines = []
    for number, ends in jobs.items():
        recording = windows.recordings[number]
        path = recording.files[m.name]
        if str(path) not in files:
            files[str(path)] = _stamp(path)
        lines.append([recording.id, recording.kind, str(path), files[str(path)], ends])
    plan = plan_clips(windows.task, HOP)[m.name]
    geometry = {k: v for k, v in asdict(plan.m).items() if k not in ("backbone", "width")} | {"new": plan.new}
    if m.name == "eda":
        geometry.update(mean=(), std=())  # stored in µS
    text = json.dumps([geometry, _code(), lines], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _stamp(path: Path) -> tuple[int, int]:
    if str(path).startswith("sim:"):
        return 0, 0
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); restore it or drop the recording") from None
    # a folder of frames: its time of change moves when a frame comes or goes
    return (0 if path.is_dir() else stat.st_size), stat.st_mtime_ns


def _code() -> str:
    """Hash of the sources that make a clip: a changed rule is another cache."""
    digest = hashlib.sha256()
    for package in (capture, rules, media, preprocessing):
        for file in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            digest.update(file.read_bytes())
    for file in (Path(__file__), Path(str(sources.__file__))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def build_clips(
    windows: Windows,
    cache: Path,
    problems: Problems,
    *,
    workers: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, ClipStore]:
    """All clips of `windows`, from the cache or computed into it. Bad recordings: see `Problems`."""
    return {
        m.name: _build_modality(windows, m, cache, problems, workers, progress)
        for m in windows.task.modalities
        if windows.clips[m.name]
    }


def _build_modality(
    windows: Windows, m: Modality, cache: Path, problems: Problems, workers: int, progress: Progress
) -> ClipStore:
    clips = windows.clips[m.name]
    key = clip_key(windows, m)
    folder = cache / "clips" / f"{m.name}-{key}"
    shape, dtype = signal_format(m)
    data = _memmap(folder / "clips.npy", (len(clips), *shape), dtype)
    present = _memmap(folder / "present.npy", (len(clips),), np.uint8)  # 0 absent, 1 present
    done = _memmap(folder / "done.npy", (len(windows.recordings),), np.uint8)  # 0 to do, 1 done
    failed: dict[str, str] = _read_json(folder / "failed.json")

    jobs: dict[int, list[int]] = {}
    for row, (number, _) in enumerate(clips):
        jobs.setdefault(number, []).append(row)
    for number in jobs:
        if done[number] and windows.recordings[number].id in failed:
            _bad(failed[windows.recordings[number].id], problems)
    todo = [n for n in jobs if not done[n]]
    finished = len(jobs) - len(todo)
    progress(m.name, finished, len(jobs))
    items = ((n, (windows.recordings[n], windows.task, m.name, [clips[row][1] for row in jobs[n]])) for n in todo)
    for number, (arrays, usable, error) in _map(_compute, items, workers):
        rows = np.array(jobs[number])
        if error:
            _bad(error, problems)
            failed[windows.recordings[number].id] = error
            (folder / "failed.json").write_text(json.dumps(failed, indent=1))
        else:
            data[rows] = arrays
            present[rows] = usable
        done[number] = 1
        finished += 1
        progress(m.name, finished, len(jobs))
    for number, places in jobs.items():
        recording = windows.recordings[number]
        if recording.id not in failed and not present[places].any():
            problems.missing(f"usable {m.name} clip of a recording", recording.files[m.name])
    for array in (data, present, done):
        array.flush()
    return ClipStore(m, key, data, np.asarray(present) == 1)


def _bad(error: str, problems: Problems) -> None:
    def fail() -> None:
        raise DataError(error)

    problems.guard(fail)


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
            f"the clip cache needs {need / 1e9:.1f} GB and {path.parent} has {free / 1e9:.1f} GB; give another --cache"
        )
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _read_json(path: Path) -> dict[str, str]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _map(work: Callable[[Any], Any], items: Iterator[tuple[int, Any]], workers: int) -> Iterator[tuple[int, Any]]:
    """`work` over numbered items, in any order, never more than a few waiting; in this process for one worker."""
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

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the parent
    cv2.setNumThreads(1)


# ---- one recording, in a worker ------------------------------------------------------------------------------


def _compute(job: tuple[Recording, Task, str, list[float]]) -> tuple[Any, Any, str]:
    """(clips as stored, present, "") or (None, None, the sentence of what is wrong)."""
    recording, task, name, ends = job
    m = task.modality(name)
    rows = {time_key(end): row for row, end in enumerate(ends)}
    shape, dtype = signal_format(m)
    clips = np.zeros((len(ends), *shape), dtype)
    present = np.zeros(len(ends), np.uint8)
    try:
        source, find = open_recording(recording, m)
        for key, clip in cut_clips(source, task, name, ends, find=find):
            if clip.signal is not None:
                clips[rows[key]] = clip.signal
            present[rows[key]] = clip.ok
    except (DataError, SourceError) as error:
        return None, None, str(error)
    return clips, present, ""
