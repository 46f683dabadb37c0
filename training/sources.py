"""A data set's trial as a source of samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..capture.base import LazyFrames
from ..capture.files import EdaFile, SoundFile, VideoFile
from ..capture.simulated import open_simulated
from ..clips.cut import Samples
from ..clips.face import Find, cropped
from ..media.chunk import Chunk
from ..media.eda_files import Asked
from ..media.video import read_image
from ..tasks import Modality
from .data import Trial
from .open_data import silver_eda

_FILES: dict[str, Callable[[Path], Samples]] = {
    "face": VideoFile,
    "voice": SoundFile,
    "eda": partial(EdaFile, asked=Asked(column="gsr"), strict=True),
}


def open_trial(trial: Trial, m: Modality) -> tuple[Samples, Find | None]:
    """The unopened source of a modality, and how its faces are found; None: by detection (`FaceCutter`).

    Files are read as in a live run. Raises DataError where a file cannot be read.
    """
    path = trial.files[m.name]
    if trial.kind == "sim":
        return open_simulated(m.name, str(path), lazy=True), None
    if trial.kind == "affwild2" and m.name == "face":
        return _labelled_frames(path, trial.labels.times), cropped(m.side)
    if trial.kind.startswith("painmonit"):
        return _painmonit_row(trial), None
    if trial.kind == "silver":
        return _Held(*silver_eda(trial)), None
    return _FILES[m.name](path), None


class _Held:
    """Samples in memory, as a source."""

    def __init__(self, times: NDArray[np.float64], values: Any) -> None:
        self._times, self._values, self._at = times, values, 0

    def open(self, origin: float) -> None:
        """Nothing to open."""

    def read(self, until: float) -> Chunk:
        part = slice(self._at, max(self._at, int(np.searchsorted(self._times, until, side="right"))))
        self._at = part.stop
        return Chunk(self._times[part], self._values[part])

    def close(self) -> None:
        """Nothing to close."""


def _labelled_frames(folder: Path, times: NDArray[np.float64]) -> Samples:
    """Affwild2's cropped faces at the times of their labels; None where a crop is missing."""

    def image(number: int) -> NDArray[np.uint8] | None:
        file = folder / f"{number:05d}.jpg"
        return read_image(file) if file.is_file() else None

    return _Held(times, LazyFrames(image, range(1, len(times) + 1)))


def _painmonit_row(trial: Trial) -> Samples:
    """One window of X.npy: its last sample is at its end, and its first is repeated at its beginning."""
    x = np.load(trial.files["eda"], mmap_mode="r")
    column = int(trial.kind.split(":")[1])
    row = x[int(trial.id)].reshape(x.shape[1], x.shape[2])
    values = np.asarray(row[:, column] if row.shape[1] == 6 else row[column], np.float32)
    times = np.linspace(0.0, trial.duration, values.size + 1)
    return _Held(times, np.concatenate([values[:1], values]))
