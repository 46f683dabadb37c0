"""EDA samples in, clips out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..media.chunk import Chunk
from ..preprocessing.eda import resample_eda
from ..preprocessing.quality import EdaQuality, Verdict
from .plan import ClipPlan

# s of signal kept beyond a clip's reach: for windows that wait behind a slow engine, for the resampler's filter and
# for the bridging of a gap
SETTLE = 4.0


class EdaCutter:
    """EDA in µS at any rate in, clips at the network's rate out: (1, samples) float32 in µS."""

    def __init__(self, plan: ClipPlan) -> None:
        self._plan = plan
        self._times: NDArray[np.float64] = np.empty(0)
        self._values: NDArray[np.float32] = np.empty(0, np.float32)
        self._quality = EdaQuality()
        self.start: float | None = None
        self.last = -np.inf
        # a fault reaches MARGIN forward, and is seen against the quarter of a second before it; a frozen value is one
        # that has not changed for FROZEN
        before = max(EdaQuality.MARGIN + EdaQuality.STALE, EdaQuality.FROZEN)
        self.history = plan.reach + before + 2 * EdaQuality.BIN

    def push(self, chunk: Chunk) -> None:
        if not len(chunk):
            return
        if self.start is None:
            self.start = float(chunk.times[0])
        values = np.asarray(chunk.values, np.float32)
        self._quality.update(chunk.times, values)
        self.last = float(chunk.times[-1])
        times = np.concatenate([self._times, chunk.times])
        kept = times >= self.last - self._plan.reach - SETTLE  # sample by sample: chunks may be of any size
        self._times, self._values = times[kept], np.concatenate([self._values, values])[kept]

    def advance(self, window: int) -> None:
        """Nothing waits for a window."""

    def begin(self, end: float) -> None:
        """A clip waits for nothing."""

    def clip(self, end: float) -> tuple[NDArray[np.float32], float]:
        """The clip that ends at `end`: ((1, samples) µS, fraction that is real data)."""
        return resample_eda(self._times, self._values, end, self._plan.m)

    def verdict(self, end: float) -> Verdict:
        return self._quality.verdict(end, self._plan.m.span)
