"""Engines built by torch-tensorrt from the trained modules, for comparison with ONNX; run like every other plan.

Uses the bundle's engines if `jmt-edge build --builder torch-tensorrt` made some; otherwise they are built here once and
kept in the plan cache.
"""

from __future__ import annotations

from ...compiler.torch_tensorrt import installed, open_torch_tensorrt
from ..bundle import Bundle
from ..device import current_device, no_device
from .tensorrt import TensorRtEngine, read_plans


def available() -> str | None:
    """Checks the driver first: importing torch-tensorrt without a GPU fails after seconds."""
    return no_device() or installed()


def load(bundle: Bundle, threads: int | None = None) -> TensorRtEngine:
    """Raises BackendError where torch-tensorrt cannot build a network as one engine."""
    library = open_torch_tensorrt()
    if f"{library.name}-{current_device().sm}" in bundle.manifest.get("engines", {}):
        return TensorRtEngine(bundle, library, read_plans(bundle, library))
    from ...compiler.build import build_from_modules

    return TensorRtEngine(bundle, library, build_from_modules(bundle, library))
