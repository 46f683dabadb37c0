"""The merged plan's kernel in CUDA C++ (`fusion.cu`): compiled by NVRTC, without a GPU or a CUDA toolkit.

It computes what `fusion.fusion_kernel` computes from the same plan, for one head of 512 and the head
`self_attention`, in float16 and INT8. Triton spends about 8700 instructions a warp on a window, most of them to move
operands between layouts; here a thread loads its tensor-core operands itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..errors import BackendError
from .schedule import Schedule

SOURCE = Path(__file__).with_name("fusion.cu")
THREADS = 256
PARAMETERS = (
    "p_features", "p_work", "p_weights", "p_params", "p_present", "p_logits", "p_attention", "p_plan", "p_index",
    "p_barrier", "n_rows", "launch", "pitch",
)  # fmt: skip
_MERGED = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7  # INPUT, PLAIN, LAYER, CROSS, LAST


def obstacle(schedule: Schedule) -> str:
    """Why this kernel does not serve a schedule; empty where it does."""
    c = schedule.constants
    if schedule.dtype not in ("float16", "int8"):
        return f"{schedule.dtype} activations"
    if int(c["OPS"]) & 0xFF != _MERGED:
        return "phases that are not merged"
    if c["D"] != 512 or schedule.tiles.project != 16 or int(c["M"]) > 4 or int(c["HP"]) > 512:
        return "another width than 512"
    if schedule.logits > 8:
        return "more than eight output neurons"
    return ""


def macros(schedule: Schedule) -> dict[str, str]:
    c = schedule.constants
    found = {
        "M": str(c["M"]), "KT": str(int(c["SP"]) // 16), "EPSILON": f"{float(c['EPS'])!r}f",
        "SHARED": str(shared_bytes(schedule)),
    }  # fmt: skip
    return found | ({"W8": "1"} if schedule.dtype == "int8" else {})


def shared_bytes(schedule: Schedule) -> int:
    """Of one block: `struct Shared`, which the compiler checks against this."""
    m, kt = int(schedule.constants["M"]), int(schedule.constants["SP"]) // 16
    parts = 8 * max(kt, 4) * 16 * 16 * 4 + 2 * 32 * 4 + 8 * 16 * 2 * 4 + 4 * 16 * 16 * 4
    attention = 16 * (16 * kt + 8) * 2 + 16 * 4 + 8 * 16 * kt * 66 * 2
    return parts + attention + 11 * m * 16 * kt * 4 + m * 512 * 2 + (16 * m if kt == 1 else 1) * 512 * 2 + 512 * 4


def load(cubin: bytes, shared: int) -> int:
    """The kernel's CUfunction as an integer, in the current CUDA context; it stays loaded."""
    from cuda.bindings import driver

    call = partial(_value, "the CUDA driver refused the fusion's cubin")
    function = call(driver.cuModuleGetFunction(call(driver.cuModuleLoadData(cubin)), b"fusion_kernel"))
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    call(driver.cuFuncSetAttribute(function, attribute, shared))
    return int(function)


def _value(problem: str, result: tuple[Any, ...]) -> Any:
    """What a call of CUDA's returned. Raises BackendError, `problem` with CUDA's name for it, where it failed."""
    status, *values = result
    if int(status) != 0:
        raise BackendError(f"{problem} ({getattr(status, 'name', status)}); report it")
    return values[0] if values else None


def launch(function: int, shared: int, programs: int, together: bool, stream: int, values: Sequence[int]) -> None:
    """One launch; `values` in the order of PARAMETERS, addresses first."""
    from cuda.bindings import driver

    kinds = [ctypes.c_uint64 if name.startswith("p_") else ctypes.c_int32 for name in PARAMETERS]
    held = [kind(value) for kind, value in zip(kinds, values)]
    array = (ctypes.c_void_p * len(held))(*(ctypes.addressof(v) for v in held))
    where = (driver.CUfunction(function), programs, 1, 1, THREADS, 1, 1, shared, stream, ctypes.addressof(array))
    (status,) = driver.cuLaunchCooperativeKernel(*where) if together else driver.cuLaunchKernel(*where, 0)
    if int(status) != 0:
        raise BackendError(f"the fusion kernel was not launched ({status.name}); see the driver's log")


def compile_native(schedule: Schedule, sm: str, stress: bool = False) -> bytes:
    """A cubin for `sm` (`sm_90`); with `stress` one whose blocks dawdle at random.

    Raises BackendError where NVRTC is missing or refuses the source.
    """
    defined = macros(schedule) | ({"STRESS": "1"} if stress else {})
    return _compile(sm, tuple(f"-D{name}={value}" for name, value in sorted(defined.items())))


@cache
def _compile(sm: str, defined: tuple[str, ...]) -> bytes:
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise BackendError(f"cuda-bindings is missing ({error}); run `pip install 'jmt-edge[cubin]'`") from None

    call = partial(_value, "NVRTC failed")
    try:
        program = call(nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), b"fusion.cu", 0, [], []))
    except RuntimeError as error:  # the library itself is missing
        raise BackendError(f"NVRTC is missing ({error}); run `pip install 'jmt-edge[cubin]'`") from None
    options = [f"--gpu-architecture={sm}", "-std=c++17", *defined]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if int(status) != 0:
        log = b" " * call(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise BackendError(f"NVRTC cannot compile the fusion for {sm} ({' '.join(log.decode().split())[:300]})")
    cubin = b" " * call(nvrtc.nvrtcGetCUBINSize(program))
    call(nvrtc.nvrtcGetCUBIN(program, cubin))
    nvrtc.nvrtcDestroyProgram(program)
    return cubin
