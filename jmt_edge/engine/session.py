"""onnxruntime on a CPU, as every room opens it."""

from __future__ import annotations

import onnxruntime

from ..errors import BackendError


def session(model: bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime CPU session. Raises BackendError with onnxruntime's reason for a graph it refuses."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as the engine runs them
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own C++ module
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"onnxruntime refuses the ONNX graph ({reason}); export the bundle again") from None
