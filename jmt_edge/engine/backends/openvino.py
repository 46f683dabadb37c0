"""OpenVINO: optional on x86 and ARM CPUs, several times faster than onnxruntime for 3-D convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, short
from ...trace import span
from ..bundle import Bundle, cpu_graph
from .base import F32, TwoCalls, last_step
from .onnxruntime import cpu_threads


def available() -> str | None:
    import openvino

    return None if "CPU" in openvino.Core().available_devices else "OpenVINO finds no CPU device"


def load(bundle: Bundle, threads: int | None = None) -> OpenVinoEngine:
    """Compile every network. Raises BackendError where OpenVINO refuses a graph."""
    return OpenVinoEngine(bundle, threads or cpu_threads())


def compile_graph(graph: bytes, threads: int) -> Any:
    """An ONNX model compiled for this CPU. Raises RuntimeError when OpenVINO refuses it."""
    import openvino

    # FP32 inference is requested because OpenVINO would use bfloat16 on some CPUs
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    return core.compile_model(core.read_model(graph), "CPU", config)


class OpenVinoEngine(TwoCalls):
    """See `Engine`."""

    name = "openvino"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._task = bundle.task
        self._networks: dict[str, Any] = {}
        self.precision: dict[str, str] = {}
        for name in (*bundle.task.names, "fusion"):
            file, self.precision[name] = cpu_graph(bundle, name, "openvino")
            try:
                self._networks[name] = compile_graph(bundle.graph(file), threads)
            except RuntimeError as error:
                raise BackendError(
                    f"OpenVINO refuses '{name}' of {bundle.path} ({short(error)}); use --backend onnxruntime"
                ) from None

    def backbones(self, clips: Mapping[str, F32]) -> dict[str, F32]:
        return {name: self._run(name, {"clip": clip})["features"] for name, clip in clips.items()}

    def fusion(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        found = self._run("fusion", {**features, "present": present.astype(np.float32)})
        return last_step({name: found[name] for name in ("attention", *self._task.outputs) if name in found})

    def close(self) -> None:
        self._networks.clear()

    def _run(self, name: str, feeds: Mapping[str, F32]) -> dict[str, F32]:
        with span("network", of=name):
            result = self._networks[name](dict(feeds))
        return {port.any_name: np.array(value, np.float32) for port, value in result.items()}
