"""How unlike the training people's clips a clip is: a density on what describes it.

The rules of signal quality ask whether a picture is sharp; this asks whether the network has seen anything like it. A
clip is described by what can be measured on it without the network: small networks map real faces, voices and EDA into
the midst of the simulated ones that they were trained on (by the networks' features none of the real faces was refused,
none of a wrist-band's windows at 0.1 uS, and 8 % of those of real voices), because training throws away whatever the
labels do not need.

The density is Gaussian: Mahalanobis distance under the covariance of the training people's clips, shrunk by Ledoit and
Wolf (2004, "A well-conditioned estimator for large-dimensional covariance matrices"), since there are few clips for the
dimensions. Its limit comes from other people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tasks import Modality, Task

FILE = "novelty.safetensors"
MIN_CLIPS = 16  # of either side; fewer give no covariance and no limit
_PARTS = ("mean", "whiten", "threshold")
_CELLS = 8  # a picture has 8 x 8, a spectrogram 8 bands
_BEATS = 22  # parts of an EDA clip, of 0.25 s in the presets

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Novelty:
    """The density of one modality. mean (d,), whiten (d, d): inverse root of the covariance; threshold: a distance."""

    mean: F32
    whiten: F32
    threshold: float

    def distance(self, described: F32) -> NDArray[np.float64]:
        """(N, d) -> (N,): Mahalanobis distance; NaN where a number is not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            apart = (described.astype(np.float64) - self.mean) @ self.whiten.astype(np.float64)
            return np.sqrt(np.square(apart).sum(1))

    def score(self, described: F32) -> NDArray[np.float64]:
        """(N, d) -> (N,): `distance` in units of the threshold. Above 1 a clip is novel."""
        return self.distance(described) / self.threshold


def appearance(faces: F32) -> F32:
    """(N, 3, T, H, W) -> (N, 192): brightness, steepness and roughness of the middle frame in 8 x 8 cells, whatever the
    exposure.
    """
    grey = faces[:, :, faces.shape[2] // 2].mean(1)
    grey = (grey - grey.mean((1, 2), keepdims=True)) / (grey.std((1, 2), keepdims=True) + 1e-5)
    inner = grey[:, 1:-1, 1:-1]
    across, down = np.abs(grey[:, 1:-1, 2:] - inner), np.abs(grey[:, 2:, 1:-1] - inner)
    rough = np.abs(4 * inner - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:])
    parts = [_cells(grey), np.log(_cells(across + down) + 0.01), np.log(_cells(rough) + 0.01)]
    return np.concatenate(parts, 1).astype(np.float32)


def spectrum(voices: F32) -> F32:
    """(N, 1, F, T) log-mel -> (N, 32): level, spread, steps in time and roughness over frequency of 8 bands, whatever
    the loudness.
    """
    voices = voices[:, 0] - voices[:, 0].mean((1, 2), keepdims=True)
    steps, rough = np.abs(np.diff(voices)), np.abs(np.diff(voices, 2, axis=1))
    rough = np.pad(rough, ((0, 0), (1, 1), (0, 0)), mode="edge")
    bands = _pooled(voices, 1)
    measures = [bands.std(2), _pooled(steps, 1).mean(2), _pooled(rough, 1).mean(2)]
    return np.concatenate([bands.mean(2), *(np.log(m + 0.01) for m in measures)], 1).astype(np.float32)


def course(eda: F32) -> F32:
    """(N, 1, T) -> (N, 3): level, range and noise (median deviation from a line over 0.25 s).

    Range and noise below 0.1 (10 nS in the presets) are alike: that is what converters differ by. Measures of slopes,
    and of the largest deviation, separate no better and refuse the strong responses of people who were never seen.
    """
    values = eda[:, 0].astype(np.float64)
    beats = min(_BEATS, values.shape[1] // 8)
    length = values.shape[1] // beats
    parts = values[:, : beats * length].reshape(len(values), beats, length)
    ramp = np.arange(length) - (length - 1) / 2
    lines = parts.mean(2, keepdims=True) + (parts @ ramp / np.square(ramp).sum())[:, :, None] * ramp
    noise = np.median((parts - lines).std(2), 1)
    level = np.log(np.abs(values.mean(1)) + 1)
    return np.stack([level, np.log(np.ptp(values, 1) + 0.1), np.log(noise + 0.1)], 1).astype(np.float32)


def movement(measures: F32) -> F32:
    """(N, C, T) measures of a face -> (N, 2 C): the mean of each over the clip, and how much it moves."""
    return np.concatenate([measures.mean(2), np.log(measures.std(2) + 0.1)], 1).astype(np.float32)


def _face(clips: F32) -> F32:
    return movement(clips) if clips.ndim == 3 else appearance(clips)


DESCRIPTIONS: dict[str, Callable[[F32], F32]] = {"face": _face, "voice": spectrum, "eda": course}


def _size(m: Modality) -> int | None:
    """Of the description of a modality's clips; None for a modality without one."""
    return 2 * m.shape[0] if m.measured else {"face": 3 * _CELLS**2, "voice": 4 * _CELLS, "eda": 3}.get(m.name)


def _cells(images: F32) -> F32:
    """(N, H, W) -> (N, 64): means of 8 x 8 cells."""
    return _pooled(_pooled(images, 1), 2).reshape(len(images), -1)


def _pooled(images: F32, axis: int) -> F32:
    """Means of 8 neighbouring parts of `axis`, as equal as its length allows."""
    starts = np.arange(_CELLS) * images.shape[axis] // _CELLS
    sums: Any = np.add.reduceat(images, starts, axis)
    counts = np.diff(np.append(starts, images.shape[axis])).astype(np.float32)
    return np.asarray(sums / counts.reshape((-1, 1) if axis == 1 else (-1,)), np.float32)


def fit(training: F32, held_out: Sequence[F32]) -> Novelty:
    """The density of `training` (N, d), with the limit from the clips of other people, (n, d) each.

    The limit is the prediction limit for 99 % of other people's largest distances, which are taken to be log-normal:
    the clips of one person are alike, so a quantile over the clips of few people would refuse the next one.
    Raises ValueError for fewer than 2 people, where either side has fewer than `MIN_CLIPS` clips, or a number is not
    finite.
    """
    from scipy.special import stdtrit  # not needed to judge a clip

    people = len(held_out)
    if people < 2:
        raise ValueError("a limit needs at least 2 people who were held out")
    for what, side in (("training", training), ("held-out", np.concatenate(held_out))):
        if len(side) < MIN_CLIPS or not np.isfinite(side).all():
            raise ValueError(f"the {what} side has {len(side)} finite clips, fewer than {MIN_CLIPS}")
    x = np.asarray(training, np.float64)
    mean = x.mean(0)
    values, vectors = np.linalg.eigh(shrunk_covariance(x - mean))
    whiten = (vectors / np.sqrt(np.maximum(values, np.finfo(np.float32).tiny))) @ vectors.T
    unscaled = Novelty(mean.astype(np.float32), whiten.astype(np.float32), 1.0)
    logs = np.log([max(unscaled.distance(clips).max(), 1e-12) for clips in held_out])
    threshold = float(np.exp(logs.mean() + stdtrit(people - 1, 0.99) * np.sqrt(1 + 1 / people) * logs.std(ddof=1)))
    return Novelty(unscaled.mean, unscaled.whiten, max(threshold, float(np.finfo(np.float32).tiny)))


def shrunk_covariance(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ledoit and Wolf's estimate of the covariance (d, d) of `x` (N, d), whose mean is 0."""
    n, d = x.shape
    sample = x.T @ x / n
    level = np.trace(sample) / d
    spread = np.square(sample - level * np.eye(d)).sum() / d
    error = (np.square(x).T @ np.square(x) / n - np.square(sample)).sum() / (d * n)
    share = min(error, spread) / spread if spread > 0 else 1.0
    return np.asarray((1 - share) * sample + share * level * np.eye(d))


def save_novelty(densities: Mapping[str, Novelty]) -> bytes:
    """The content of `novelty.safetensors`: `<modality>.mean`, `.whiten` and `.threshold`."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[np.float32]] = {}
    for name, density in densities.items():
        tensors[f"{name}.mean"], tensors[f"{name}.whiten"] = density.mean, density.whiten
        tensors[f"{name}.threshold"] = np.array([density.threshold], np.float32)
    return save(tensors)


def read_novelty(data: bytes, task: Task) -> dict[str, Novelty]:
    """Inverse of `save_novelty`. Raises ValueError for anything else, and where it does not fit the clips of `task`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"it is not a safetensors file ({error})") from None
    found = {}
    sizes = {m.name: _size(m) for m in task.modalities}
    for name in sorted({key.partition(".")[0] for key in tensors}):
        parts = [tensors[key] for part in _PARTS if (key := f"{name}.{part}") in tensors]
        shapes = [part.shape for part in parts]
        size = sizes.get(name)
        if shapes != [(size,), (size, size), (1,)] or not all(np.isfinite(part).all() for part in parts):
            raise ValueError(f"its density of {name!a} has shapes {shapes}, or numbers that are not finite")
        mean, whiten, threshold = (np.asarray(part, np.float32) for part in parts)
        if not threshold[0] > 0:
            raise ValueError(f"its limit of {name!a} is not above 0")
        found[name] = Novelty(mean, whiten, float(threshold[0]))
    return found
