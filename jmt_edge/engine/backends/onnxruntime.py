"""onnxruntime: the default on a CPU, and on an NVIDIA GPU where its CUDA provider is installed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...errors import BackendError
from ...trace import span
from ..bundle import Bundle, cpu_graph
from .base import F32, TwoCalls, last_step


def available() -> str | None:
    """onnxruntime belongs to the base install, so it is always there."""
    return None


def cpu_threads() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load(bundle: Bundle, threads: int | None = None) -> OnnxRuntimeEngine:
    """Load every network. Raises BackendError where a graph does not load or does not fit the bundle's task."""
    return OnnxRuntimeEngine(bundle, threads or cpu_threads())


class OnnxRuntimeEngine(TwoCalls):
    """See `Engine`. Idle threads sleep, so that capture has the cores between two windows."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._task = bundle.task
        cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        self._providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]
        self._sessions = {name: self._open(bundle, name, threads) for name in (*self._task.names, "fusion")}
        self.precision = {name: cpu_graph(bundle, name)[1] for name in self._sessions}
        self._check(bundle)

    def backbones(self, clips: Mapping[str, F32]) -> dict[str, F32]:
        found = {}
        for name, clip in clips.items():
            with span("network", of=name, clips=len(clip)):
                (found[name],) = self._sessions[name].run(["features"], {"clip": clip})
        return found

    def fusion(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        names = ("attention", *self._task.outputs)
        inputs = {**features, "present": present.astype(np.float32)}
        with span("network", of="fusion", windows=len(present)):
            return last_step(dict(zip(names, self._sessions["fusion"].run(names, inputs))))

    def close(self) -> None:
        self._sessions.clear()

    def _open(self, bundle: Bundle, network: str, threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # or it might guess ORT's own format
        graph = bundle.graph(cpu_graph(bundle, network)[0])
        try:
            session = onnxruntime.InferenceSession(graph, options, providers=self._providers)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise BackendError(
                f"onnxruntime cannot load '{network}' of {bundle.path} ({str(error).splitlines()[0]}); export it again"
            ) from None
        # The session would keep the bytes, a second copy of the weights, to fall back to another device.
        session.disable_fallback()
        session._model_bytes = None
        return session

    def _check(self, bundle: Bundle) -> None:
        """The graphs' inputs and outputs are those of the manifest's task."""
        wanted: dict[str, tuple[set[str], set[str]]] = {m.name: ({"clip"}, {"features"}) for m in self._task.modalities}
        wanted["fusion"] = ({*self._task.names, "present"}, {"attention", *self._task.outputs})
        for network, (inputs, outputs) in wanted.items():
            session = self._sessions[network]
            has_in, has_out = {i.name for i in session.get_inputs()}, {o.name for o in session.get_outputs()}
            if has_in != inputs or not outputs <= has_out:
                raise BackendError(
                    f"'{network}' of {bundle.path} maps {sorted(has_in)} to {sorted(has_out)}, but its task needs "
                    f"{sorted(inputs)} to {sorted(outputs)}; export it again"
                )
        for m in self._task.modalities:
            shape = self._sessions[m.name].get_inputs()[0].shape
            if tuple(shape[1:]) != m.shape:
                raise BackendError(
                    f"'{m.name}' of {bundle.path} takes clips of {tuple(shape[1:])}, but its task has {m.shape}; "
                    "export it again"
                )
