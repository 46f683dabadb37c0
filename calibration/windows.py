"""Windows of a task as the networks take them, with labels where the data has them.

They are what INT8 ranges are measured on and what every converted engine is compared on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..tasks import Task


@dataclass(frozen=True)
class Windows:
    """N windows of a task with S steps and M modalities.

    clips: modality -> (N, S or 1, *shape) float32; 1 where one clip serves all steps.
    present: (N, S, M) bool.
    targets: output -> (N,) float64, NaN where unlabelled; of the last step. Pain is 0 or 1.
    subjects: (N,) str, empty strings where nobody is named.
    origin: what the windows were taken from, for reports.
    noise: nobody's signals, so that scores on them mean nothing and no limit applies.
    """

    clips: dict[str, NDArray[np.float32]]
    present: NDArray[np.bool_]
    targets: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    subjects: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, "U1"))
    origin: str = ""
    noise: bool = False

    def __len__(self) -> int:
        return len(self.present)

    def take(self, index: NDArray[np.int64]) -> Windows:
        """The windows at `index`, in that order."""
        return Windows(
            {name: clips[index] for name, clips in self.clips.items()},
            self.present[index],
            {name: values[index] for name, values in self.targets.items()},
            self.subjects[index] if len(self.subjects) else self.subjects,
            self.origin,
            self.noise,
        )

    def there(self, task: Task, modality: str) -> NDArray[np.bool_]:
        """(N, S or 1) bool: the clips of a modality that are not absent."""
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
                    f"windows of {self.origin or 'the data'} have {m.name} {found}, {task.name} takes {wanted}"
                )
        if not len(self):
            raise DataError(
                f"{self.origin or 'the data'} gives no complete window of {task.window:.1f} s; give longer data"
            )

    def save(self, path: Path) -> None:
        """One `.npz` file."""
        arrays = {f"clip_{k}": v for k, v in self.clips.items()} | {f"target_{k}": v for k, v in self.targets.items()}
        about = {"origin": np.array(self.origin), "noise": np.array(self.noise)}
        np.savez(path, present=self.present, subjects=self.subjects, **about, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Windows:
        """Inverse of `save`. Raises DataError for anything else."""
        try:
            with np.load(path, allow_pickle=False) as data:
                return cls(
                    {k[5:]: data[k] for k in data.files if k.startswith("clip_")},
                    data["present"],
                    {k[7:]: data[k] for k in data.files if k.startswith("target_")},
                    data["subjects"],
                    str(data["origin"]),
                    bool(data["noise"]) if "noise" in data.files else False,
                )
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} holds no saved windows ({error}); run the command that wrote it again") from None


def random_windows(task: Task, count: int, seed: int = 0) -> Windows:
    """Normal noise in every clip: for networks with random weights, where only arithmetic is compared."""
    rng = np.random.default_rng(seed)
    clips = {
        m.name: rng.standard_normal((count, 1 if m.stride == 0 else task.steps, *m.shape), dtype=np.float32)
        for m in task.modalities
    }
    present = np.ones((count, task.steps, len(task.modalities)), bool)
    return Windows(clips, present, origin=f"random noise, seed {seed}", noise=True)
