"""What the live loop asks of an inference engine, whatever runs the networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


class Engine(Protocol):
    """The networks of one bundle, loaded on one device.

    N = clips, B = windows, S = steps, M = modalities, d = task.dim.
    """

    name: str  # the backend, for example "onnxruntime"
    precision: dict[str, str]  # network -> "fp32", "fp16", "int8", as it really runs

    def backbones(self, clips: Mapping[str, F32]) -> dict[str, F32]:
        """{modality: (N, *m.shape) float32} -> {modality: (N, d) float32}; any subset of the modalities, N >= 1."""
        ...

    def fusion(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        """{every modality: (B, S, d) float32}, (B, S, M) bool -> the outputs of the fusion network.

        `attention` (B, S, M), and `pain` (B, S, 2) logits or `valence`, `arousal` (B, S) by the task's outputs.
        Where `present` is False the features are not used.
        """
        ...

    def close(self) -> None:
        """Free the device; once."""
        ...
