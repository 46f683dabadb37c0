"""The interface of an inference engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Fresh = Mapping[str, Sequence[Sequence[int]]]  # modality -> for each of its clips, the steps that take its features


@dataclass(frozen=True)
class Step:
    """All of a hop's inference: {modality: (N, d)} of the fresh clips, and what `Engine.fusion` returns.

    seconds: of `backbones` and of `fusion`, where they were timed separately; one CUDA graph has no such parts.
    """

    features: dict[str, F32]
    outputs: dict[str, F32]
    seconds: dict[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """The networks of one bundle, loaded on one device.

    N = clips, B = windows, S = steps, M = modalities, d = task.dim.
    """

    name: str  # the backend, for example "onnxruntime"
    precision: dict[str, str]  # network -> "fp32", "fp16", "int8", as it actually runs

    def backbones(self, clips: Mapping[str, F32]) -> dict[str, F32]:
        """{modality: (N, *m.shape) float32} -> {modality: (N, d) float32}; any subset of the modalities, N >= 1."""
        ...

    def fusion(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        """{every modality: (B, S, d) float32}, (B, S, M) bool -> the outputs of the fusion network for the last step.

        `attention` (B, 1, M), and `pain` (B, 1, 2) logits or `valence`, `arousal` (B, 1) by the task's outputs. The
        other steps are what the last one attends to. Where `present` is False the features are not used.
        """
        ...

    def step(
        self, clips: Mapping[str, F32], features: Mapping[str, F32], present: NDArray[np.bool_], fresh: Fresh
    ) -> Step:
        """`backbones` of `clips`, then `fusion` of one window (B = 1) with the fresh features inserted.

        The rows of `features` listed in `fresh` are ignored. Runs as one CUDA graph where the engine supports it.
        """
        ...

    def close(self) -> None:
        """Free the device; once."""
        ...


def last_step(outputs: Mapping[str, F32]) -> dict[str, F32]:
    """The last step of a fusion graph's outputs, axis kept: graphs of earlier versions return every step."""
    return {name: value[:, -1:] for name, value in outputs.items()}


class TwoCalls:
    """`Engine.step` for an engine without a single graph for it: one call after the other."""

    def step(
        self: Engine, clips: Mapping[str, F32], features: Mapping[str, F32], present: NDArray[np.bool_], fresh: Fresh
    ) -> Step:
        seconds: dict[str, float] = {}
        found: dict[str, F32] = {}
        began = time.perf_counter()
        if clips:
            found = self.backbones(clips)
            seconds["backbones"] = time.perf_counter() - began
        whole = merge(features, found, fresh)
        began = time.perf_counter()
        outputs = self.fusion(whole, present)
        seconds["fusion"] = time.perf_counter() - began
        return Step(found, outputs, seconds)


def merge(features: Mapping[str, F32], found: Mapping[str, F32], fresh: Fresh) -> dict[str, F32]:
    """`features` {modality: (1, S, d)} with the fresh features (N, d) at their steps, as a copy where any are."""
    whole = dict(features)
    for name, rows in found.items():
        whole[name] = np.array(features[name], np.float32)
        for row, steps in zip(rows, fresh[name]):
            whole[name][0, list(steps)] = row
    return whole
