"""onnxruntime on a CPU, opened the same way everywhere."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..errors import BackendError, short
from ..tasks import Task


def session(model: bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime CPU session. Raises BackendError with onnxruntime's reason for a graph it refuses."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as the engine runs them
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise BackendError(
            f"onnxruntime refuses the ONNX graph ({short(error, 300)}); export the bundle again"
        ) from None


def random_feeds(task: Task, network: str) -> dict[str, NDArray[np.float32]]:
    """One random input at batch 1, as the network's ONNX graph takes it."""
    rng = np.random.default_rng(0)
    if network != "fusion":
        return {"clip": rng.standard_normal((1, *task.modality(network).shape), dtype=np.float32)}
    feeds = {name: rng.standard_normal((1, task.steps, task.dim), dtype=np.float32) for name in task.names}
    return feeds | {"present": np.ones((1, task.steps, len(task.names)), np.float32)}
