"""Precomputed features of each frame in place of a modality's signal: tables of OpenFace or py-feat, our own
`jmt-edge actions`, or arrays of anything else. One file a trial, `<trial>.csv` or `<trial>.npy`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clips.cutter import signal_format
from ..errors import DataError, short
from ..media.tables import label_lines, number_rows
from ..tasks import PRECOMPUTED, Modality
from .data import Cohort, Trial

RATE = 10.0  # rows a second in a clip
LEAST = 0.5  # of a clip's rows that must be there
_SUFFIXES = (".csv", ".npy")
# which columns are features, by the first kind that a header has; the others are bookkeeping, landmarks, emotions
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("openface", re.compile(r"AU\d\d_r|pose_R[xyz]|gaze_angle_[xy]")),
    ("py-feat", re.compile(r"AU\d\d|Pitch|Roll|Yaw")),
)
_TIMES = ("timestamp", "time", "t")
_BOOKKEEPING = (*_TIMES, "frame", "face_id", "success", "confidence")


@dataclass(frozen=True)
class Frames:
    """Rows in the order of time. times: (n,) s. values: (n, C) float32, NaN where there is nothing. names: of the C."""

    times: NDArray[np.float64]
    values: NDArray[np.float32]
    names: tuple[str, ...]


def as_precomputed(m: Modality, folder: Path) -> Modality:
    """`m` with clips (C, T) of the features in `folder`, `RATE` rows a second."""
    channels = len(_first_names(str(folder)))
    rows = max(4, round(m.span * RATE))
    moments: dict[str, Any]
    moments = {"mean": (0.0,) * channels, "std": (1.0,) * channels} if m.name == "face" else {"mean": (), "std": ()}
    changes: dict[str, Any] = {"backbone": PRECOMPUTED, "shape": (channels, rows), "top_db": 0.0, "pad": 0, **moments}
    return replace(m, **changes)


@lru_cache(maxsize=32)
def _any_file(folder: str) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"there is no folder {path} with features; give one that holds <trial>.csv or <trial>.npy")
    found = next((f for f in sorted(path.iterdir()) if f.suffix in _SUFFIXES and not f.name.startswith(".")), None)
    if found is None:
        raise DataError(f"{path} holds no features (<trial>.csv or <trial>.npy); give another folder")
    return found


@lru_cache(maxsize=32)
def _first_names(folder: str) -> tuple[str, ...]:
    return read_frames(_any_file(folder), 1.0).names


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def with_features(cohort: Cohort, folders: Mapping[str, str]) -> Cohort:
    """`cohort` whose trials have the files of `folders` (modality -> folder) as their signal of that modality; trials
    without a file lack the modality, and are counted. Raises DataError where no trial has one.
    """
    trials = cohort.trials
    for modality, folder in folders.items():
        found = [_with_file(r, modality, Path(folder), cohort) for r in trials]
        if not any(modality in r.files for r in found):
            example = f"{trials[0].id}.csv" if trials else "<trial>.csv"
            raise DataError(f"{folder} has no features for the trials of {cohort.root} (such as {example})")
        trials = [r for r in found if r.files]
    return replace(cohort, trials=trials) if folders else cohort


def _with_file(trial: Trial, modality: str, folder: Path, cohort: Cohort) -> Trial:
    files = {m: f for m, f in trial.files.items() if m != modality}
    file = next((f for suffix in _SUFFIXES if (f := folder / f"{trial.id}{suffix}").is_file()), None)
    if file is None:
        cohort.problems.missing(f"{modality} features of a trial", folder / f"{trial.id}.csv")
        return replace(trial, files=files)
    return replace(trial, files={**files, modality: file})


def cut_features(trial: Trial, m: Modality, ends: Sequence[float]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """(clips (n, ...) of `signal_format`, present (n,)) that end at `ends` (s).

    At each of a clip's moments the newest row up to then, 0 before the first; a clip is present where `LEAST` of its
    moments have a row that is not old.

    Raises DataError for a file that cannot be read, or has other columns than the first of its folder.
    """
    frames = read_frames(trial.files[m.name], trial.duration)
    channels, rows = m.shape
    first = _first_names(str(trial.files[m.name].parent))
    if len(first) != channels or sorted(frames.names) != sorted(first):
        raise DataError(
            f"{trial.files[m.name]} has {len(frames.names)} features ({_some(frames.names)}), and others {channels} "
            f"({_some(first)}); export all alike"
        )
    frames = replace(frames, values=frames.values[:, [frames.names.index(name) for name in first]])
    there = ~np.isnan(frames.values).any(1)
    times, values = frames.times[there], frames.values[there]
    usual = float(np.median(np.diff(frames.times))) if len(frames.times) > 1 else 0.0
    oldest = max(1.5 * usual, m.span / rows)
    shape, dtype = signal_format(m)
    clips, present = np.zeros((len(ends), *shape), dtype), np.zeros(len(ends), np.uint8)
    for i, end in enumerate(ends if len(times) else ()):
        moments = end - m.span + (np.arange(rows) + 1) * m.span / rows
        newest = np.searchsorted(times, moments + 1e-6, side="right") - 1
        at, known = np.maximum(newest, 0), (newest >= 0) & (times[np.maximum(newest, 0)] > end - m.span - oldest)
        clip = np.where(known[:, None], values[at], np.float32(0))
        clips[i] = clip if m.name == "face" else clip.T
        present[i] = (known & (moments - times[at] <= oldest)).mean() >= LEAST
    return clips, present


def read_frames(path: Path, duration: float) -> Frames:
    """The features in a file. Rows without a time of their own are spread over `duration` (s): those of an array
    evenly, those of a table by their `frame`.

    Of several faces in a frame the first is used. Raises DataError, naming file and row.
    """
    if path.suffix == ".npy":
        return _array(path, duration)
    lines = label_lines(path)
    names = [name.strip() for name in lines[0].split(",")]
    columns = _columns(path, names)
    extra = {key: _first_column(names, wanted) for key, wanted in
             (("time", _TIMES), ("frame", ("frame",)), ("success", ("success",)))}  # fmt: skip
    wanted = [names.index(name) for name in columns]
    marks = [index for index in extra.values() if index is not None]
    rows = []
    for number, values in number_rows(lines, 1, ",", [*wanted, *marks], len(names)):
        if values is None:
            raise DataError(f"{path} row {number}: '{lines[number - 1].strip()[:60]}' is not numbers; export it again")
        rows.append(values)
    if not rows:
        raise DataError(f"{path} holds no row; export it again or remove it")
    table = np.array(rows, np.float64)
    found = dict(zip([key for key, index in extra.items() if index is not None], table[:, len(wanted) :].T))
    features = table[:, : len(wanted)].astype(np.float32)
    if "success" in found:
        features[found["success"] != 1] = np.nan
    index = found.get("frame", np.arange(len(table), dtype=np.float64))
    times = found.get("time", _spread(index, duration))
    if np.isnan(times).any() or (np.diff(times) < 0).any():
        raise DataError(f"{path}: its rows are not in the order of time; export it again")
    first = np.append(True, (np.diff(times) > 0) | (np.diff(index) > 0))
    return Frames(times[first], features[first], columns)


def _array(path: Path, duration: float) -> Frames:
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy's reader of headers raises what it meets
        raise DataError(f"{path} is not a readable array ({short(error)}); export it again") from None
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise DataError(
            f"{path} has shape {values.shape} of {values.dtype}, not (frames, features) of numbers; export it again"
        )
    names = tuple(f"feature {i}" for i in range(values.shape[1]))
    return Frames(_spread(np.arange(len(values), dtype=np.float64), duration), values.astype(np.float32), names)


def _spread(index: NDArray[np.float64], duration: float) -> NDArray[np.float64]:
    """The times of frames of which only the numbers are known: the first at 0, the last a frame before the end."""
    steps = np.diff(index)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    return (index - index[0]) * duration / (index[-1] - index[0] + step)


def _columns(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The names of the features in a header: by its kind, else every column that is not bookkeeping."""
    for _, pattern in _KINDS:
        if any(name.startswith("AU") and pattern.fullmatch(name) for name in names):
            return tuple(name for name in names if pattern.fullmatch(name))
    rest = tuple(name for name in names if name and name.lower() not in _BOOKKEEPING)
    if not rest:
        raise DataError(f"{path} has no column of features ({', '.join(names)[:100]}); export it again")
    return rest


def _first_column(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((i for i, name in enumerate(names) if name.lower() in wanted), None)
