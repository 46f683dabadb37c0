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
        """{every modality: (B, S, d) float32}, (B, S, M) bool -> the outputs of the fusion network for the last step.

        `attention` (B, 1, M), and `pain` (B, 1, 2) logits or `valence`, `arousal` (B, 1) by the task's outputs. The
        other steps are what the last one attends to. Where `present` is False the features are not used.
        """
        ...

    def close(self) -> None:
        """Free the device; once."""
        ...


def last_step(outputs: Mapping[str, F32]) -> dict[str, F32]:
    """What a fusion graph gave -> the last step's part, axis kept: graphs of earlier versions give every step."""
    return {name: value[:, -1:] for name, value in outputs.items()}
