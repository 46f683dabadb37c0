"""The small networks that find faces and judge signals, each opened once, on one CPU thread beside the loop."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import onnxruntime

from ..errors import DataError


@lru_cache(maxsize=8)
def open_network(file: Path) -> onnxruntime.InferenceSession:
    """A session that holds weights and no state. Raises DataError where the file is missing from the installation."""
    if not file.is_file():
        raise DataError(f"the weights of a network are missing at {file}; reinstall jmt-edge")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
