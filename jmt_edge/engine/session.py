"""onnxruntime on a CPU, opened the same way everywhere."""

from __future__ import annotations

import onnxruntime

from ..errors import BackendError, short


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
