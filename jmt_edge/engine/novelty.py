"""How unlike the training people's clips a clip is: a density on its backbone's features.

The rules of signal quality ask whether a picture is sharp; this asks whether the network has seen anything like it.
The density is Gaussian: Mahalanobis distance under the covariance of the training people's features, shrunk by Ledoit
and Wolf (2004, "A well-conditioned estimator for large-dimensional covariance matrices"), since features lie near a
subspace of few dimensions and clips are few. Its limit comes from other people. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FILE = "novelty.safetensors"
PASS = 0.99  # share of the usable clips of people held out that lies below the limit
MIN_CLIPS = 16  # of either side; fewer give no covariance and no limit
_PARTS = ("mean", "whiten", "threshold")

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


def fit(training: F32, held_out: F32) -> Novelty:
    """The density of `training` (N, d), with a limit that `PASS` of `held_out` (N, d), other people's clips, keep.

    Raises ValueError where either side has fewer than `MIN_CLIPS` clips, or a feature is not finite.
    """
    for what, side in (("training", training), ("held-out", held_out)):
        if len(side) < MIN_CLIPS or not np.isfinite(side).all():
            raise ValueError(f"the {what} side has {len(side)} clips with finite features, fewer than {MIN_CLIPS}")
    x = np.asarray(training, np.float64)
    mean = x.mean(0)
    values, vectors = np.linalg.eigh(shrunk_covariance(x - mean))
    whiten = (vectors / np.sqrt(np.maximum(values, np.finfo(np.float32).tiny))) @ vectors.T
    unscaled = Novelty(mean.astype(np.float32), whiten.astype(np.float32), 1.0)
    threshold = float(np.quantile(unscaled.distance(held_out), PASS, method="higher"))
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


def read_novelty(data: bytes, dim: int) -> dict[str, Novelty]:
    """Inverse of `save_novelty`, for features of `dim` numbers. Raises ValueError for anything else."""
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
        if shapes != [(dim,), (dim, dim), (1,)] or not all(np.isfinite(part).all() for part in parts):
            raise ValueError(f"its density of {name!a} has shapes {shapes}, or numbers that are not finite")
        mean, whiten, threshold = (np.asarray(part, np.float32) for part in parts)
        if not threshold[0] > 0:
            raise ValueError(f"its limit of {name!a} is not above 0")
        found[name] = Novelty(mean, whiten, float(threshold[0]))
    return found
