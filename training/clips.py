"""The clip cache: every distinct clip of a data set, preprocessed once, by the same code that live uses.

One folder per modality, named by a hash of the modality's geometry, the preprocessing code and the files
(path, size, time of change): anything that could change a clip gives another folder, so a stale clip cannot be
read. Faces are stored as uint8 crops (normalisation is undone exactly), sound and EDA as float32; a kill loses
at most the recordings in work.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import media, preprocessing
from ..capture import simulated
from ..capture.files import EdaFile
from ..errors import DataError, SourceError
from ..media.sound import sound_blocks
from ..media.video import read_image, video_frames
from ..preprocessing.eda import normalise_eda
from ..tasks import Modality
from . import streams
from .data import Problems, Recording, Windows

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]
MIN_EDA = 0.5  # share of an EDA clip that must hold valid samples


def default_cache() -> Path:
    """`$JMT_EDGE_CACHE`, else `jmt-edge` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("JMT_EDGE_CACHE") or Path(base) / "jmt-edge")


@dataclass
class ClipStore:
    """The clips of one modality. `data` (N, *stored shape), `present` (N,): the clip holds usable signal."""

    modality: Modality
    key: str
    data: NDArray[Any]
    present: NDArray[np.bool_]

    def load(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, *shape) float32 as the backbone takes it."""
        return restore(self.data[index], self.modality)


def compress(clip: NDArray[np.float32], m: Modality) -> NDArray[Any]:
    """A clip as it is stored: a face's normalisation undone and rounded to the pixels it came from."""
    if m.name != "face":
        return clip.astype(np.float32)
    mean, std = _moments(m)
    return np.clip(np.rint((clip * std + mean) * 255), 0, 255).astype(np.uint8)


def restore(stored: NDArray[Any], m: Modality) -> NDArray[np.float32]:
    """Inverse of `compress`, also for a batch; EDA gets the fixed normalisation that its modality carries."""
    if m.name == "eda":
        return normalise_eda(np.asarray(stored, np.float32), m)
    if m.name != "face":
        return np.asarray(stored, np.float32)
    mean, std = _moments(m)
    scaled = np.asarray(stored, np.float32)
    scaled *= np.float32(1 / 255)
    scaled -= mean
    scaled /= std
    return scaled


def _moments(m: Modality) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    shape = (len(m.mean), 1, 1, 1)
    return np.array(m.mean, np.float32).reshape(shape), np.array(m.std, np.float32).reshape(shape)


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
    geometry = {k: v for k, v in asdict(m).items() if k not in ("backbone", "width", "stride", "end")}
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
    """Hash of the preprocessing and decoding sources: a changed rule is another cache."""
    digest = hashlib.sha256()
    sources = [Path(str(m.__file__)) for m in (streams,)] + [Path(__file__)]
    for package in (media, preprocessing, simulated):
        sources += sorted(Path(str(package.__file__)).parent.glob("*.py"))
    for file in sources:
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
    shape = (len(clips), *m.shape)
    dtype = np.uint8 if m.name == "face" else np.float32
    data = _memmap(folder / "clips.npy", shape, dtype)
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
    items = ((n, (windows.recordings[n], m, [clips[row][1] for row in jobs[n]])) for n in todo)
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


def _compute(job: tuple[Recording, Modality, list[float]]) -> tuple[Any, Any, str]:
    """(clips as stored, present, "") or (None, None, the sentence of what is wrong)."""
    recording, m, ends = job
    try:
        clips, present = {"face": _face, "voice": _voice, "eda": _eda}[m.name](recording, m, ends)
    except (DataError, SourceError) as error:
        return None, None, str(error)
    return np.stack([compress(c, m) for c in clips]), np.array(present, np.uint8), ""


def _face(recording: Recording, m: Modality, ends: Sequence[float]) -> tuple[list[NDArray[np.float32]], list[bool]]:
    from ..clips.frames import face_clip, frame_times

    wanted = np.unique(np.concatenate([frame_times(m, end, start=0.0) for end in ends]))
    crops = sorted(_crops(recording, m, wanted[wanted >= -1e-6]), key=lambda item: item[0])
    times = np.array([t for t, _ in crops])
    clips, present = [], []
    for end in ends:
        first, last = np.searchsorted(times, [end - m.span - 1.0, end + 1e-6])
        clip, valid = face_clip(crops[first:last], end, m, start=0.0)
        clips.append(clip)
        present.append(bool(np.any(valid)))
    return clips, present


def _crops(
    recording: Recording, m: Modality, wanted: NDArray[np.float64]
) -> Iterator[tuple[float, NDArray[np.uint8] | None]]:
    """(time, crop or None) of the frames at or just before each wanted time."""
    path, size = recording.files["face"], m.shape[-1]
    if recording.kind == "affwild2":
        import cv2

        times = recording.labels.times
        for i in sorted(set(np.maximum(np.searchsorted(times, wanted + 1e-3, side="right") - 1, 0).tolist())):
            file = path / f"{i + 1:05d}.jpg"
            if not file.is_file():
                yield float(times[i]), None
                continue
            image = cv2.cvtColor(read_image(file), cv2.COLOR_BGR2RGB)
            if image.shape[:2] != (size, size):
                image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            yield float(times[i]), np.asarray(image, np.uint8)
        return
    from ..preprocessing.face import FaceDetector, FaceTracker, align_crop

    tracker = FaceTracker(FaceDetector())
    if recording.kind == "sim":
        images = streams.frames(recording, wanted)
    else:
        images = nearest_frames(video_frames(path), wanted)
    for t, image in images:
        face = tracker.update(image, t)
        yield t, None if face is None else align_crop(image, face, size)


def nearest_frames(
    frames: Iterator[tuple[float, NDArray[np.uint8]]], wanted: NDArray[np.float64]
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """The frames that `face_clip` may pick for each wanted time, each once: the last one at or before it (the first
    frame for times before all) and the next one where that is nearer.
    """
    todo = list(np.sort(wanted))
    held: tuple[float, NDArray[np.uint8]] | None = None
    given = False
    for frame in frames:
        nearer = False
        while held is not None and todo and todo[0] < frame[0] - 1e-3:
            if not given:
                yield held
                given = True
            moment = todo.pop(0)
            nearer |= frame[0] - moment < moment - held[0]
        held, given = frame, nearer
        if nearer:
            yield frame
    if held is not None and todo and not given:
        yield held


def _voice(recording: Recording, m: Modality, ends: Sequence[float]) -> tuple[list[NDArray[np.float32]], list[bool]]:
    from ..preprocessing.voice import voice_clip
    from ..tasks import AUDIO_RATE

    if recording.kind == "sim":
        return [voice_clip(streams.sound(recording, end - m.span, end), m) for end in ends], [True] * len(ends)
    blocks = list(sound_blocks(recording.files["voice"]))
    times = np.concatenate([t + np.arange(len(x)) / AUDIO_RATE for t, x in blocks])
    samples = np.concatenate([x for _, x in blocks])
    clips, present = [], []
    for end in ends:
        first, last = np.searchsorted(times, np.array([max(end - m.span, 0.0), end]) - 0.5 / AUDIO_RATE)
        present.append(last - first >= 0.5 * m.span * AUDIO_RATE)
        clips.append(voice_clip(samples[first:last], m))
    return clips, present


def _eda(recording: Recording, m: Modality, ends: Sequence[float]) -> tuple[list[NDArray[np.float32]], list[bool]]:
    if recording.kind.startswith("painmonit"):
        return [_painmonit_clip(recording, m)] * len(ends), [True] * len(ends)
    from ..preprocessing.eda import resample_eda

    if recording.kind == "sim":
        skin, rate = streams.skin(recording), 128.0
        pairs = []
        for end in ends:
            first = max(int((end - m.span - 1.0) * rate), 0)
            samples = skin.samples(first, int(end * rate) + 1 - first, rate)
            pairs.append(resample_eda((first + np.arange(len(samples))) / rate, samples.astype(np.float32), end, m))
        return [clip for clip, _ in pairs], [float(share) >= MIN_EDA for _, share in pairs]
    source = EdaFile(recording.files["eda"], column="gsr", strict=True)
    source.open(0.0)
    chunk = source.read(np.inf)
    pairs = [resample_eda(chunk.times, chunk.values, end, m) for end in ends]
    return [clip for clip, _ in pairs], [float(share) >= MIN_EDA for _, share in pairs]


def _painmonit_clip(recording: Recording, m: Modality) -> NDArray[np.float32]:
    """One window of X.npy, brought to the modality's number of samples."""
    from scipy.signal import resample_poly

    x = np.load(recording.files["eda"], mmap_mode="r")
    column = int(recording.kind.split(":")[1])
    row = x[int(recording.id)].reshape(x.shape[1], x.shape[2])
    values = np.asarray(row[:, column] if row.shape[1] == 6 else row[column], np.float64)
    if values.size != m.shape[-1]:
        values = resample_poly(values, m.shape[-1], values.size, padtype="line")
    return values[None].astype(np.float32)
