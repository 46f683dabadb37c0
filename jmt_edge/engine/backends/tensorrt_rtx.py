"""TensorRT-RTX plans: the same engine class over the other library (RTX GPUs, not Jetson)."""

from __future__ import annotations

from ..bundle import Bundle
from ..tensorrt_api import open_library
from .tensorrt import TensorRtEngine, library_available, read_plans


def available() -> str | None:
    return library_available("tensorrt-rtx")


def load(bundle: Bundle, threads: int | None = None) -> TensorRtEngine:
    library = open_library("tensorrt-rtx")
    return TensorRtEngine(bundle, library, read_plans(bundle, library))
