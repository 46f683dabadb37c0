"""The part of CUDA that a run-time without torch needs: buffers, streams, captured graphs.

Over NVIDIA's `cuda-bindings` (12.6 and newer). Every call is checked; a failure is a BackendError.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError


def runtime() -> Any:
    """The CUDA runtime API module. Raises BackendError where cuda-bindings or the driver is missing."""
    try:
        from cuda.bindings import runtime as cudart
    except ImportError as error:
        raise BackendError(f"cuda-bindings is missing ({error}); run `pip install 'jmt-edge[gpu]'`") from None
    return cudart


def check(result: tuple[Any, ...]) -> Any:
    """The value of a runtime call. Raises BackendError with CUDA's name for the failure."""
    status, *values = result
    if int(status) != 0:
        raise BackendError(
            f"CUDA call failed ({getattr(status, 'name', status)}); see the driver's log (dmesg, nvidia-smi)"
        )
    return values[0] if len(values) == 1 else tuple(values)


class Stream:
    """A non-blocking CUDA stream."""

    def __init__(self) -> None:
        cudart = runtime()
        self.handle = check(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))

    def synchronize(self) -> None:
        check(runtime().cudaStreamSynchronize(self.handle))

    def close(self) -> None:
        runtime().cudaStreamDestroy(self.handle)


class Buffer:
    """Device memory with a page-locked host mirror; `host` is a NumPy view of the mirror."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        cudart = runtime()
        self.size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.device = check(cudart.cudaMalloc(self.size))
        self._pinned = check(cudart.cudaMallocHost(self.size))
        raw = (ctypes.c_char * self.size).from_address(int(self._pinned))
        self.host: NDArray[Any] = np.frombuffer(raw, dtype=dtype).reshape(shape)

    def upload(self, stream: Stream) -> None:
        self._copy("HostToDevice", self._pinned, self.device, stream)

    def download(self, stream: Stream) -> None:
        self._copy("DeviceToHost", self.device, self._pinned, stream)

    def copy_into(self, other: Buffer, offset: int, stream: Stream) -> None:
        """Device to device: all of this buffer into `other`, `offset` bytes after its start."""
        self._copy("DeviceToDevice", self.device, int(other.device) + offset, stream)

    def _copy(self, way: str, source: Any, target: Any, stream: Stream) -> None:
        cudart = runtime()
        kind = getattr(cudart.cudaMemcpyKind, f"cudaMemcpy{way}")
        check(cudart.cudaMemcpyAsync(int(target), int(source), self.size, kind, stream.handle))

    def close(self) -> None:
        cudart = runtime()
        cudart.cudaFree(self.device)
        cudart.cudaFreeHost(int(self._pinned))


class Graph:
    """Work captured once from a stream and replayed.

    Captured in thread-local mode, because global capture fails if another thread (a camera's decoder) uses CUDA
    meanwhile; with the garbage collector off, because a finalizer that frees device memory would break the capture.
    """

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        cudart = runtime()
        self.stream = stream
        enabled = gc.isenabled()
        gc.disable()
        try:
            mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            check(cudart.cudaStreamBeginCapture(stream.handle, mode))
            try:
                work()
            finally:
                captured = cudart.cudaStreamEndCapture(stream.handle)
            graph = check(captured)
        finally:
            if enabled:
                gc.enable()
        self._exec = check(cudart.cudaGraphInstantiate(graph, 0))
        check(cudart.cudaGraphDestroy(graph))

    def replay(self) -> None:
        check(runtime().cudaGraphLaunch(self._exec, self.stream.handle))

    def close(self) -> None:
        runtime().cudaGraphExecDestroy(self._exec)


def fork(main: Stream, branch: Stream) -> None:
    """`branch` waits for what `main` has queued, which extends a capture to a second stream."""
    cudart = runtime()
    event = check(cudart.cudaEventCreateWithFlags(cudart.cudaEventDisableTiming))
    check(cudart.cudaEventRecord(event, main.handle))
    check(cudart.cudaStreamWaitEvent(branch.handle, event, 0))
    check(cudart.cudaEventDestroy(event))


def join(main: Stream, branch: Stream) -> None:
    """`main` waits for what `branch` has queued."""
    fork(branch, main)
