"""Windows of a task as network input, with labels where the data has them.

INT8 ranges are measured on them, and every converted engine is compared on them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, short
from ..tasks import Modality, Task


@dataclass(frozen=True)
class Clips:
    """(N, S, *shape) float32; each clip is stored once, however many windows share it, and never copied: at full size
    128 windows of 16 steps are 2.4 GB.

    stored: K clips of (*shape). rows: (N, S) indices into `stored`, -1 for a clip of zeros.
    """

    stored: Sequence[NDArray[np.float32]]
    rows: NDArray[np.int64]
    clip_shape: tuple[int, ...]

    @classmethod
    def of(cls, dense: NDArray[np.float32]) -> Clips:
        """From (N, S, *shape), no clip shared."""
        count = dense.shape[0] * dense.shape[1]
        clips = [*dense.reshape(count, *dense.shape[2:])]
        return cls(clips, np.arange(count).reshape(dense.shape[:2]), dense.shape[2:])

    @classmethod
    def joined(cls, parts: Sequence[Clips]) -> Clips:
        """The windows of all parts in order."""
        starts = np.cumsum([0, *(len(part.stored) for part in parts)])
        rows = [np.where(part.rows < 0, -1, part.rows + start) for part, start in zip(parts, starts)]
        return cls([clip for part in parts for clip in part.stored], np.concatenate(rows), parts[0].clip_shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.rows.shape, *self.clip_shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: tuple[int, int]) -> NDArray[np.float32]:
        """The clip of a window at a step."""
        row = self.rows[at]
        return np.zeros(self.clip_shape, np.float32) if row < 0 else self.stored[row]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        dense = np.zeros(self.shape, dtype or np.float32)
        for at in np.argwhere(self.rows >= 0):
            dense[tuple(at)] = self.stored[self.rows[tuple(at)]]
        return dense

    def take(self, index: NDArray[np.int64]) -> Clips:
        """The windows at `index`, without the clips that none of them uses."""
        rows = self.rows[index]
        used = np.unique(rows[rows >= 0])
        return Clips(
            [self.stored[row] for row in used], np.where(rows < 0, -1, np.searchsorted(used, rows)), self.clip_shape
        )

    def distinct(self, there: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Rows of the distinct clips among those that are `there` (N, S)."""
        rows = self.rows[there]
        return np.unique(rows[rows >= 0])

    def levels(self) -> NDArray[np.float64]:
        """(N, 2): mean and standard deviation of each window's numbers."""
        moments = np.zeros((len(self.stored) + 1, 2))  # the last for row -1
        for i, clip in enumerate(self.stored):
            moments[i] = clip.mean(dtype=np.float64), np.square(clip, dtype=np.float64).mean()
        mean, square = moments[self.rows].mean(1).T
        return np.stack([mean, np.sqrt(np.maximum(square - mean**2, 0))], 1)


@dataclass(frozen=True)
class WindowSet:
    """N windows of a task with S steps and M modalities.

    clips: modality -> (N, S or 1, *shape) float32; 1 where all steps share a clip.
    present: (N, S, M) bool.
    targets: output -> (N,) float64, NaN where unlabelled; of the last step. Pain is 0 or 1.
    subjects: (N,) str, empty strings for unnamed subjects.
    origin: where the windows come from, for reports.
    noise: random numbers instead of signals, so scores on them are meaningless and no limit applies.
    geometry: of saved windows, how the clips of each modality were cut and scaled; empty where that is not known.
    """

    clips: dict[str, Clips]
    present: NDArray[np.bool_]
    targets: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    subjects: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, "U1"))
    origin: str = ""
    noise: bool = False
    geometry: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.present)

    def take(self, index: NDArray[np.int64]) -> WindowSet:
        """The windows at `index`, in that order."""
        return WindowSet(
            {name: clips.take(index) for name, clips in self.clips.items()},
            self.present[index],
            {name: values[index] for name, values in self.targets.items()},
            self.subjects[index] if len(self.subjects) else self.subjects,
            self.origin,
            self.noise,
            self.geometry,
        )

    def present_mask(self, task: Task, modality: str) -> NDArray[np.bool_]:
        """(N, S or 1) bool: the clips of a modality that are present."""
        column = self.present[:, :, task.names.index(modality)]
        one_for_all = self.clips[modality].shape[1] != column.shape[1]
        return np.asarray(column.any(1, keepdims=True)) if one_for_all else column

    def check(self, task: Task) -> None:
        """Raises DataError where the windows do not fit `task`."""
        for m in task.modalities:
            steps = 1 if m.stride == 0 else task.steps
            wanted = (len(self), steps, *m.shape)
            found = self.clips[m.name].shape if m.name in self.clips else None
            if found != wanted:
                raise DataError(
                    f"windows of {self.origin or 'the data'} have {m.name} of shape {found}, but {task.name} takes "
                    f"{wanted}; make them with a bundle of the same task"
                )
            # as many samples of another span would be another signal in the same shape
            mine, kept = _geometry(m), self.geometry.get(m.name, {})
            different = next((k for k in mine if k in kept and kept[k] != mine[k]), None)
            if different is not None:
                raise DataError(
                    f"windows of {self.origin or 'the data'} have {m.name} clips with {different} {kept[different]}, "
                    f"but {task.name} takes {mine[different]}; make them with a bundle of the same task"
                )
        if not len(self):
            raise DataError(
                f"{self.origin or 'the data'} has no complete window of {task.window:.1f} s; give longer recordings"
            )

    def save(self, path: Path, task: Task) -> None:
        """One `.npz` file. task: that the windows were cut for."""
        arrays: dict[str, NDArray[Any]] = {f"clip_{k}": _stacked(v) for k, v in self.clips.items()}
        arrays |= {f"rows_{k}": v.rows for k, v in self.clips.items()}
        arrays |= {f"target_{k}": v for k, v in self.targets.items()}
        geometry = json.dumps({m.name: _geometry(m) for m in task.modalities})
        about = {"origin": np.array(self.origin), "noise": np.array(self.noise), "geometry": np.array(geometry)}
        np.savez(path, present=self.present, subjects=self.subjects, **about, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> WindowSet:
        """Inverse of `save`. Raises DataError for anything else."""
        try:
            with np.load(path, allow_pickle=False) as data:
                return cls(
                    {k[5:]: _unstacked(data[k], data[f"rows_{k[5:]}"]) for k in data.files if k.startswith("clip_")},
                    data["present"],
                    {k[7:]: data[k] for k in data.files if k.startswith("target_")},
                    data["subjects"],
                    str(data["origin"]),
                    bool(data["noise"]) if "noise" in data.files else False,
                    _read_geometry(str(data["geometry"])) if "geometry" in data.files else {},
                )
        except Exception as error:  # zipfile, zlib and NumPy's headers raise what they meet
            raise DataError(
                f"{path} has no saved windows ({short(error)}); run the command that wrote it again"
            ) from None


def _geometry(m: Modality) -> dict[str, Any]:
    """How a modality's clips are cut and scaled, as JSON gives it back."""
    return dict(json.loads(json.dumps(m.geometry())))


def _read_geometry(text: str) -> dict[str, dict[str, Any]]:
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise ValueError("its geometry is not a table of modalities")
    return found


def _stacked(clips: Clips) -> NDArray[np.float32]:
    return np.stack([*clips.stored]) if clips.stored else np.zeros((0, *clips.clip_shape), np.float32)


def _unstacked(stored: NDArray[np.float32], rows: NDArray[np.int64]) -> Clips:
    return Clips([*stored], rows, stored.shape[1:])


def random_windows(task: Task, count: int, seed: int = 0) -> WindowSet:
    """Gaussian noise in every clip: for networks with random weights, where only arithmetic is compared."""
    rng = np.random.default_rng(seed)
    clips = {
        m.name: Clips.of(rng.standard_normal((count, 1 if m.stride == 0 else task.steps, *m.shape), dtype=np.float32))
        for m in task.modalities
    }
    present = np.ones((count, task.steps, len(task.modalities)), bool)
    return WindowSet(clips, present, origin=f"random noise, seed {seed}", noise=True)
