"""The fused fusion as one cooperative kernel in a CUDA graph, from a cubin in the bundle: no torch, no Triton.

The backbones run in another engine of the same bundle (TensorRT plans where they are, onnxruntime otherwise);
this backend replaces the fusion only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..bundle import Bundle
from ..cubins import CubinPackage, read_cubins
from ..cuda import Buffer, Graph, Stream, check, runtime
from ..device import current_device, no_device
from ..work_plan import make_plan
from .base import F32, Engine, TwoCalls


def available() -> str | None:
    return no_device()


def load(bundle: Bundle, threads: int | None = None) -> CubinEngine:
    """Raises BackendError where the bundle has no cubin for this GPU or the kernel gives wrong numbers here."""
    device = current_device()
    fusion = FusedFusion(read_cubins(bundle, device.sm), device.sms)
    return CubinEngine(_backbone_engine(bundle, threads), fusion)


def _backbone_engine(bundle: Bundle, threads: int | None) -> Engine:
    """A TensorRT that runs and for which the bundle has plans for this device, else onnxruntime."""
    from . import open_engine, unavailable

    for library in ("tensorrt", "tensorrt-rtx"):
        if unavailable(library) is None:
            with suppress(BackendError):
                return open_engine(bundle, library, threads)
    return open_engine(bundle, "onnxruntime", threads)


class CubinEngine(TwoCalls):
    """See `Engine`: another engine's backbones, this module's fusion.

    Two graphs: the plans give float32, the kernel takes half precision, and the host converts between them.
    """

    def __init__(self, backbones: Engine, fusion: FusedFusion) -> None:
        self.name = "cubin"
        self._backbones, self._fusion = backbones, fusion
        self.precision = {**backbones.precision, "fusion": fusion.precision}

    def backbones(self, clips: Mapping[str, F32]) -> dict[str, F32]:
        return self._backbones.backbones(clips)

    def fusion(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        return self._fusion(features, present)

    def close(self) -> None:
        self._fusion.close()
        self._backbones.close()


class FusedFusion:
    """The kernel of one package, loaded on this device, with its buffers and its graph."""

    def __init__(self, package: CubinPackage, sms: int) -> None:
        self._package = package
        self.precision = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}.get(package.dtype, package.dtype)
        self._stream = Stream()  # first: makes the device's primary context current
        self._module, self._function, cooperative = _load_kernel(package, sms)
        rows, m = package.batch * package.steps, len(package.modalities)
        half = np.dtype(np.uint16) if package.activation == "bfloat16" else np.dtype(package.activation)
        self._features = Buffer((m, package.batch, package.steps, package.dim), half)
        self._present = Buffer((package.batch, package.steps, m), np.float32)
        self._logits = Buffer((package.batch, 1, sum(n for _, n in package.outputs)), np.float32)
        self._attention = Buffer((package.batch, 1, m), np.float32)
        plan = make_plan(package.table, package.phases, phase_ranges(len(package.phases), cooperative), sms)
        self._constant = [_upload(a) for a in (package.weights, package.scales, plan.rows, plan.index)]
        self._scratch = [_upload(np.zeros(package.work_size, half)), _upload(np.zeros(plan.counters, np.int32))]
        weights, scales, rows_of_plan, index = self._constant
        work, barrier = self._scratch
        addresses = {
            "p_features": int(self._features.device), "p_work": work, "p_weights": weights, "p_params": scales,
            "p_present": int(self._present.device), "p_logits": int(self._logits.device),
            "p_attention": int(self._attention.device), "p_plan": rows_of_plan, "p_index": index, "p_barrier": barrier,
        }  # fmt: skip
        self._launches = [
            (Arguments(package.params, addresses | {"n_rows": rows, "launch": i, "pitch": plan.pitch}), together)
            for i, together in enumerate(plan.cooperative)
        ]
        self._programs = sms
        self._enqueue()  # once outside a capture: a launch that fails is named here
        self._stream.synchronize()
        self._graph = Graph(self._stream, self._enqueue)
        self._check()

    def __call__(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        """{modality: (B, S, d)}, (B, S, M) -> the last step's outputs; one replay per `package.batch` windows."""
        package = self._package
        parts: list[tuple[F32, F32]] = []
        for start in range(0, len(present), package.batch):
            part = slice(start, start + package.batch)
            for i, name in enumerate(package.modalities):
                rows = features[name][part]
                self._features.host[i, : len(rows)] = encode(rows, package.activation)
            here = present[part]
            self._present.host[: len(here)] = here
            parts.append(self._replay(len(here)))
        logits, attention = (np.concatenate(side) for side in zip(*parts))
        return split_outputs(package, logits, attention)

    def close(self) -> None:
        self._graph.close()
        for buffer in (self._features, self._present, self._logits, self._attention):
            buffer.close()
        for address in (*self._constant, *self._scratch):
            runtime().cudaFree(address)
        _driver().cuModuleUnload(self._module)
        self._stream.close()

    def _replay(self, count: int) -> tuple[F32, F32]:
        self._graph.replay()
        self._stream.synchronize()
        return self._logits.host[:count].copy(), self._attention.host[:count].copy()

    def _enqueue(self) -> None:
        self._features.upload(self._stream)
        self._present.upload(self._stream)
        driver = _driver()
        grid, block, stream = (self._programs, 1, 1), (self._package.threads, 1, 1), int(self._stream.handle)
        for arguments, together in self._launches:
            if together:
                launch = driver.cuLaunchCooperativeKernel
                check(launch(self._function, *grid, *block, self._package.shared, stream, arguments.address))
            else:
                launch = driver.cuLaunchKernel
                check(launch(self._function, *grid, *block, self._package.shared, stream, arguments.address, 0))
        self._logits.download(self._stream)
        self._attention.download(self._stream)

    def _check(self) -> None:
        """Compare one replay with the answer computed in float64 when the cubin was built."""
        package = self._package
        self._features.host[...] = encode(package.features, package.activation)
        self._present.host[...] = package.present
        logits, _ = self._replay(package.batch)
        problem = verdict(logits, package.expected, package.tolerance)
        if problem:
            raise BackendError(
                f"the fused fusion gives wrong numbers on this GPU ({problem}); use --backend onnxruntime and report it"
            )


class Arguments:
    """A kernel's parameters as the driver takes them: an array of addresses of values, kept alive here."""

    def __init__(self, params: Sequence[tuple[str, int, int]], values: Mapping[str, int]) -> None:
        """`params` (name, offset, size) in order; a pointer that `values` lacks (Triton's unused scratch) is null."""
        self._values: list[Any] = []
        for name, _, size in params:
            if name not in values and not name.endswith("_scratch"):
                raise BackendError(
                    f"the cubin has a parameter '{name}' that this version does not know; build it again"
                )
            self._values.append((ctypes.c_uint64 if size == 8 else ctypes.c_int32)(values.get(name, 0)))
        self._array = (ctypes.c_void_p * len(params))(*(ctypes.addressof(v) for v in self._values))
        self.address = ctypes.addressof(self._array)


def phase_ranges(phases: int, cooperative: bool) -> list[tuple[int, int]]:
    """Phase ranges, one per launch: all in one where every block can be resident at once, else one each."""
    return [(0, phases)] if cooperative else [(i, i + 1) for i in range(phases)]


def encode(values: F32, activation: str) -> NDArray[Any]:
    """float32 -> the kernel's activation type; bfloat16 as its bits, to nearest even."""
    if activation == "bfloat16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return values.astype(activation)


def split_outputs(package: CubinPackage, logits: F32, attention: F32) -> dict[str, F32]:
    """(B, 1, all logits) -> `attention` (zero where the head defines none) and {output: (B, 1) or (B, 1, logits)}."""
    results: dict[str, F32] = {"attention": attention}
    start = 0
    for name, count in package.outputs:
        part = logits[..., start : start + count]
        results[name] = part if count > 1 else part[..., 0]
        start += count
    return results


def verdict(got: F32, expected: F32, tolerance: float) -> str:
    """Empty where `got` is within the relative L2 error `tolerance`, else what is wrong."""
    if not np.isfinite(got).all():
        return "values that are not finite"
    error = float(np.linalg.norm(got.astype(np.float64) - expected) / np.linalg.norm(expected))
    return "" if error <= tolerance else f"relative error {error:.2e}, allowed {tolerance:.2e}"


def _driver() -> Any:
    from cuda.bindings import driver

    return driver


def _load_kernel(package: CubinPackage, sms: int) -> tuple[Any, Any, bool]:
    """Module, function, and whether a cooperative launch of one block per multiprocessor is possible."""
    driver = _driver()
    module = check(driver.cuModuleLoadData(package.cubin))
    function = check(driver.cuModuleGetFunction(module, package.kernel.encode()))
    shared = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    check(driver.cuFuncSetAttribute(function, shared, package.shared))
    resident = check(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, package.threads, package.shared))
    if int(resident) < 1:
        raise BackendError(f"the fused fusion does not fit a multiprocessor of this {package.sm}; build it again here")
    device = check(driver.cuCtxGetDevice())
    attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH
    return module, function, bool(check(driver.cuDeviceGetAttribute(attribute, device)))


def _upload(array: NDArray[Any]) -> int:
    """Copy to new device memory; -> its address."""
    cudart = runtime()
    data = np.ascontiguousarray(array)
    address = int(check(cudart.cudaMalloc(max(data.nbytes, 16))))
    check(cudart.cudaMemcpy(address, data.ctypes.data, data.nbytes, cudart.cudaMemcpyKind.cudaMemcpyHostToDevice))
    return address
