"""Ranges of activations: one pass over representative windows, and four methods to choose a range.

Symmetric int8 needs one number per tensor, the magnitude `amax` that maps to 127. Magnitudes are counted in a histogram
that doubles its reach for larger values, so all methods share one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ..engine.session import session

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")
_BINS = 2048
_SAMPLES = 1 << 16
_LEVELS = 128  # magnitudes of symmetric int8: 0..127


@dataclass
class Magnitudes:
    """Histogram of |x| over [0, reach) in `_BINS` equal bins; `largest` is exact."""

    reach: float = 0.0
    largest: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_BINS))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count a tensor's finite magnitudes: every n-th of a large tensor, and always the largest."""
        flat = values.ravel()
        step = max(flat.size // _SAMPLES, 1)
        size = np.abs(flat[::step])
        top = float(max(flat.max(), -flat.min()))  # no copy: most of a large tensor is not sampled
        if not np.isfinite(top):
            size, finite = size[np.isfinite(size)], flat[np.isfinite(flat)]
            if not finite.size:
                return
            top = float(np.abs(finite).max())
        if self.reach == 0.0:
            self.reach = max(top, 1e-12) * (1 + 1e-9)
        while top >= self.reach:  # neighbouring bins merge: counts stay exact
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(_BINS // 2)])
            self.reach *= 2
        self.largest = max(self.largest, top)
        index = np.minimum((size * (_BINS / self.reach)).astype(np.int64), _BINS - 1)
        self.counts += np.bincount(index, minlength=_BINS)

    @property
    def centres(self) -> NDArray[np.float64]:
        return (np.arange(_BINS) + 0.5) * self.reach / _BINS

    def amax(self, method: Method, percentile: float = 99.99) -> float:
        """The magnitude that maps to 127; 0 where all values were zero."""
        if method == "minmax" or not self.counts.any() or self.largest == 0.0:
            return self.largest
        if method == "percentile":
            share = np.cumsum(self.counts) / self.counts.sum()
            index = int(np.searchsorted(share, percentile / 100))
            return min((index + 1) * self.reach / _BINS, self.largest)
        edges = np.arange(_LEVELS, _BINS + 1, 8) * self.reach / _BINS
        edges = np.append(edges[edges < self.largest], self.largest)
        cost = self._divergence if method == "entropy" else self._squared_error
        return float(edges[int(np.argmin([cost(edge) for edge in edges]))])

    def _squared_error(self, amax: float) -> float:
        step = amax / (_LEVELS - 1)
        rounded = np.clip(np.rint(self.centres / step), 0, _LEVELS - 1) * step
        return float(np.sum(self.counts * (self.centres - rounded) ** 2))

    def _divergence(self, amax: float) -> float:
        """KL divergence of the clipped distribution from its 128-level version (Migacz, GTC 2017).

        The first bin is ignored: zeros after a ReLU are exact at any scale and would dominate.
        """
        bins = max(round(amax / self.reach * _BINS), _LEVELS)
        counts = self.counts[:bins].copy()
        counts[0] = 0.0
        reference = counts.copy()
        reference[-1] += self.counts[bins:].sum()
        level = np.minimum(np.arange(bins) * _LEVELS // bins, _LEVELS - 1)
        occupied = counts > 0
        total = np.bincount(level, counts, _LEVELS)
        used = np.maximum(np.bincount(level, occupied, _LEVELS), 1)
        candidate = np.where(occupied, (total / used)[level], 0.0)
        if candidate.sum() == 0:
            return float("inf")
        p, q = reference / reference.sum(), candidate / candidate.sum()
        both = (p > 0) & (q > 0)
        lost = float(p[(p > 0) & (q == 0)].sum())
        return float(np.sum(p[both] * np.log(p[both] / q[both]))) + lost * 30.0


def collect(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Mapping[str, NDArray[np.float32]]]
) -> dict[str, Magnitudes]:
    """Run `model` over `feeds` and count the magnitudes of `tensors` (activations or inputs)."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    inner = [name for name in tensors if name not in inputs]
    present = {value.name for value in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inner if name not in present
    )
    run = session(watched.SerializeToString())
    found = {name: Magnitudes() for name in tensors}
    for feed in feeds:
        for name, value in zip(inner, run.run(inner, dict(feed)) if inner else []):
            found[name].add(np.asarray(value))
        for name in inputs & set(tensors):
            found[name].add(np.asarray(feed[name]))
    return found
