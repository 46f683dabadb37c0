"""The fused fusion in a bundle, as the `cubin` backend reads it; `compiler.cubins` writes it.

    cubins.json                 sizes, precision, tolerance; per target the kernel's name, launch and parameters
    cubins/<sm>/fusion.cubin    machine code
    cubins/fusion.safetensors   packed weights, the tables of each target, one input with its float64 answer

Reading needs neither torch nor Triton. The manifest holds every file's sha256, so code that was altered is
refused when the bundle is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from .bundle import Bundle

SCHEMA = 3  # 1 gave the outputs of every step, 2 had one table for any number of programs
INDEX = "cubins.json"
TENSORS = "cubins/fusion.safetensors"


@dataclass(frozen=True)
class CubinPackage:
    """One target's kernel with all it runs on; arrays are NumPy, bfloat16 as its bits in uint16."""

    sm: str
    cubin: bytes
    kernel: str
    threads: int
    shared: int
    params: tuple[tuple[str, int, int], ...]  # name, offset, size in bytes
    dtype: str
    batch: int
    steps: int
    dim: int
    modalities: tuple[str, ...]
    outputs: tuple[tuple[str, int], ...]
    work_size: int
    weights: NDArray[Any]
    scales: NDArray[np.float32]  # biases, norms, tokens, scales
    table: NDArray[np.int32]  # of all phases' work; who does it, `work_plan.make_plan` says
    phases: NDArray[np.int32]
    features: NDArray[np.float32]  # (M, B, S, d): the start-up check's input
    present: NDArray[np.float32]  # (B, S, M)
    expected: NDArray[np.float32]  # (B, 1, outputs): its last step's answer in float64
    tolerance: float  # relative L2 error that the check allows

    @property
    def activation(self) -> str:
        return "float16" if self.dtype == "int8" else self.dtype


def read_cubins(bundle: Bundle, sm: str) -> CubinPackage:
    """The package for one compute capability.

    Raises BackendError where the bundle has no cubins, none for `sm`, or some for another task than its own.
    """
    from safetensors import SafetensorError

    remedy = f"run `jmt-edge build {bundle.path} --cubin {sm}`"
    if INDEX not in bundle.manifest["files"]:
        raise BackendError(f"bundle {bundle.path} has no cubins; {remedy}")
    index = _json_table(bundle.read(INDEX))
    if index.get("schema") != SCHEMA:
        raise BackendError(f"the cubins of {bundle.path} have schema {index.get('schema')!r}, not {SCHEMA}; {remedy}")
    try:
        if sm not in index["targets"]:
            has = ", ".join(index["targets"])
            raise BackendError(f"bundle {bundle.path} has cubins for {has}, this GPU is {sm}; {remedy}")
        task = bundle.task
        if (tuple(index["modalities"]), index["steps"], index["dim"]) != (task.names, task.steps, task.dim):
            raise BackendError(f"the cubins of {bundle.path} were built for another task than its own; {remedy}")
        return _package(bundle, index, sm)
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise BackendError(f"the cubins of {bundle.path} are malformed ({reason}); {remedy}") from None


def _json_table(data: bytes) -> dict[str, Any]:
    """A JSON table, empty where it is anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _package(bundle: Bundle, index: dict[str, Any], sm: str) -> CubinPackage:
    from safetensors.numpy import load

    entry, tensors = index["targets"][sm], load(bundle.read(TENSORS))
    return CubinPackage(
        sm=sm,
        cubin=bundle.read(entry["cubin"]),
        kernel=entry["kernel"],
        threads=entry["threads"],
        shared=entry["shared"],
        params=tuple((name, offset, size) for name, offset, size in entry["params"]),
        dtype=index["dtype"],
        batch=index["batch"],
        steps=index["steps"],
        dim=index["dim"],
        modalities=tuple(index["modalities"]),
        outputs=tuple((name, count) for name, count in index["outputs"]),
        work_size=entry["work_size"],
        weights=tensors[f"weights.{entry['weights']}"],
        scales=tensors[f"params.{entry['weights']}"],
        table=tensors[f"{sm}.table"],
        phases=tensors[f"{sm}.phases"],
        features=tensors["check.features"],
        present=tensors["check.present"],
        expected=tensors["check.expected"],
        tolerance=index["tolerance"],
    )
