"""How unlike the training people's clips a clip is: a density on what describes it.

The rules of signal quality ask whether a picture is sharp; this asks whether the network has seen anything like it.
A voice and EDA are described by their backbone's features. A face is described by its appearance: small networks map
real faces into the midst of the drawn ones that they were trained on (measured: none of the real faces refused by the
pain network's features, all by appearance), because training throws away whatever the labels do not need.

The density is Gaussian: Mahalanobis distance under the covariance of the training people's clips, shrunk by Ledoit and
Wolf (2004, "A well-conditioned estimator for large-dimensional covariance matrices"), since there are few clips for the
dimensions. Its limit comes from other people. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = "novelty.safetensors"
Z = 2.326  # normal quantile of 0.99: the share of a new person's usable clips that is to lie below the limit
MIN_CLIPS = 16  # of either side; fewer give no covariance and no limit
_PARTS = ("mean", "whiten", "threshold")
_CELLS = 8  # each way
_APPEARANCE = 3 * _CELLS**2

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Novelty:
    """The density of one modality. mean (d,), whiten (d, d): inverse root of the covariance; threshold: a distance."""

    mean: F32
    whiten: F32
    threshold: float

    def distance(self, features: F32) -> NDArray[np.float64]:
        """(N, d) -> (N,): Mahalanobis distance; NaN where a feature is not a number."""
        with np.errstate(over="ignore", invalid="ignore"):
            apart = (features.astype(np.float64) - self.mean) @ self.whiten.astype(np.float64)
            return np.sqrt(np.square(apart).sum(1))

    def score(self, features: F32) -> NDArray[np.float64]:
        """(N, d) -> (N,): `distance` in units of the threshold. Above 1 a clip is novel."""
        return self.distance(features) / self.threshold


def describe(name: str, clips: Iterable[F32], features: F32) -> F32:
    """What the density of modality `name` is of: N clips as the network takes them, their features (N, d) -> (N, D)."""
    if name != "face":
        return features
    return appearance(np.stack([clip[:, clip.shape[1] // 2] for clip in clips]))


def appearance(faces: F32) -> F32:
    """Faces (N, C, H, W) -> (N, D): brightness, steepness and roughness in 8 x 8 cells, whatever the exposure."""
    grey = faces.mean(1)
    grey = (grey - grey.mean((1, 2), keepdims=True)) / (grey.std((1, 2), keepdims=True) + 1e-5)
    inner = grey[:, 1:-1, 1:-1]
    across, down = np.abs(grey[:, 1:-1, 2:] - inner), np.abs(grey[:, 2:, 1:-1] - inner)
    rough = np.abs(4 * inner - grey[:, :-2, 1:-1] - grey[:, 2:, 1:-1] - grey[:, 1:-1, :-2] - grey[:, 1:-1, 2:])
    parts = [_cells(grey), np.log(_cells(across + down) + 0.01), np.log(_cells(rough) + 0.01)]
    return np.concatenate(parts, 1).astype(np.float32)


def _cells(images: F32) -> F32:
    """(N, H, W) -> (N, 64): means of 8 x 8 cells, of whatever size the image gives them."""
    for axis in (1, 2):
        size = images.shape[axis]
        starts = np.arange(_CELLS) * size // _CELLS
        counts = np.diff(np.append(starts, size))
        sums: Any = np.add.reduceat(images, starts, axis)
        images = sums / counts.reshape((-1, 1) if axis == 1 else (-1,)).astype(np.float32)
    return images.reshape(len(images), -1)


def fit(training: F32, held_out: F32, people: int) -> Novelty:
    """The density of `training` (N, d), with the limit from `held_out` (N, d), clips of so many other `people`.

    The limit is the prediction limit for 99 % of log distances, with as many degrees of freedom as there are people:
    the clips of one person are alike, so a quantile over the clips of few people would refuse the next one.
    Raises ValueError where either side has fewer than `MIN_CLIPS` clips, or a feature is not finite.
    """
    if people < 2:
        raise ValueError("a limit needs at least 2 people who were held out")
    for what, side in (("training", training), ("held-out", held_out)):
        if len(side) < MIN_CLIPS or not np.isfinite(side).all():
            raise ValueError(f"the {what} side has {len(side)} clips with finite features, fewer than {MIN_CLIPS}")
    x = np.asarray(training, np.float64)
    mean = x.mean(0)
    values, vectors = np.linalg.eigh(shrunk_covariance(x - mean))
    whiten = (vectors / np.sqrt(np.maximum(values, np.finfo(np.float32).tiny))) @ vectors.T
    unscaled = Novelty(mean.astype(np.float32), whiten.astype(np.float32), 1.0)
    logs = np.log(np.maximum(unscaled.distance(held_out), 1e-12))
    threshold = float(np.exp(logs.mean() + _student(people - 1) * np.sqrt(1 + 1 / people) * logs.std()))
    return Novelty(unscaled.mean, unscaled.whiten, max(threshold, float(np.finfo(np.float32).tiny)))


def _student(freedom: int) -> float:
    """The 0.99 quantile of Student's t (Cornish and Fisher's expansion; 1 % off at 8 degrees of freedom)."""
    first, second = (Z**3 + Z) / 4, (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96
    return Z + first / freedom + second / freedom**2


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


def read_novelty(data: bytes, dim: int) -> dict[str, Novelty]:
    """Inverse of `save_novelty`, of a task with features of `dim` numbers. Raises ValueError for anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"it is not a safetensors file ({error})") from None
    found = {}
    for name in sorted({key.partition(".")[0] for key in tensors}):
        parts = [tensors[key] for part in _PARTS if (key := f"{name}.{part}") in tensors]
        shapes = [part.shape for part in parts]
        size = _APPEARANCE if name == "face" else dim
        if shapes != [(size,), (size, size), (1,)] or not all(np.isfinite(part).all() for part in parts):
            raise ValueError(f"its density of {name!a} has shapes {shapes}, or numbers that are not finite")
        mean, whiten, threshold = (np.asarray(part, np.float32) for part in parts)
        if not threshold[0] > 0:
            raise ValueError(f"its limit of {name!a} is not above 0")
        found[name] = Novelty(mean, whiten, float(threshold[0]))
    return found
