"""Samples between a source and the clips: times and values together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Chunk:
    """Samples in time order.

    times: (n,) float64, stream time in seconds.
    values: face: list of n images (H, W, 3) uint8 BGR; voice: (n,) float32 mono in [-1, 1] at `rate`;
        eda: (n,) float32 in µS, NaN where the sensor gave no valid number.
    rate: nominal samples per second, 0 where unknown.
    lost: samples known to be lost since the previous chunk.
    """

    times: NDArray[np.float64]
    values: Any
    rate: float = 0.0
    lost: int = 0

    def __len__(self) -> int:
        return len(self.times)


def empty_chunk(modality: str, rate: float = 0.0, lost: int = 0) -> Chunk:
    """A chunk without samples."""
    values: Any = [] if modality == "face" else np.empty(0, np.float32)
    return Chunk(np.empty(0), values, rate, lost)
