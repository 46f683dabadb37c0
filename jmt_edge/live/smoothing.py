"""Causal smoothing of the outputs: the value at time t depends on nothing later than t.

The papers smooth with centred means (20 frames for valence, 50 for arousal), which is impossible live.
"""

from __future__ import annotations

from collections import deque


class TrailingMean:
    """Mean of the outputs of the last `seconds`; with 0, outputs are unchanged.

    Results without outputs are left out of the mean and stay without outputs. Nothing older than `seconds` counts, so
    nothing survives a gap of that length.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._past: deque[tuple[float, dict[str, float]]] = deque()

    def __call__(self, t: float, outputs: dict[str, float]) -> dict[str, float]:
        """The smoothed outputs at time `t` (s), which never decreases."""
        if not self.seconds:
            return outputs
        self._past.append((t, outputs))
        while self._past[0][0] <= t - self.seconds:
            self._past.popleft()
        return {name: sum(past[name] for _, past in self._past) / len(self._past) for name in outputs}
