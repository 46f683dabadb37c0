"""Inference backends by name. Each is a module here, imported only on request.

A backend module has two functions:

    available() -> str | None                   None, or why this machine cannot run it (a clause without a full stop)
    load(bundle, threads) -> Engine             raises BackendError
"""

from __future__ import annotations

import ctypes
import importlib
import re
from types import ModuleType

from ...errors import BackendError, ConfigError
from ..bundle import Bundle
from ..cpu_choice import choose_cpu
from ..device import current_device
from .base import Engine

__all__ = ["AUTO", "BACKENDS", "Engine", "choose_engine", "open_engine", "unavailable"]

# name on the command line -> module of this package
BACKENDS = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt_rtx",
    "cubin": "cubin",
    "torch": "torch",
    "torch-compile": "torch_compile",
    "torch-triton": "torch_triton",
    "torch-tensorrt": "torch_tensorrt",
}
# what `auto` tries, in this order: engines that `jmt-edge build` put into the bundle for this device, then the base
# install's, or OpenVINO in its place (`cpu_choice`). The others are for development and comparison, and must be named.
AUTO = ("cubin", "tensorrt", "tensorrt-rtx", "onnxruntime")
_NEED_GPU = ("cubin", "tensorrt", "tensorrt-rtx")


def _module(name: str) -> ModuleType:
    """The backend's module. Raises ModuleNotFoundError where a library it needs at import is not installed."""
    return importlib.import_module(f".{BACKENDS[name]}", __name__)


def unavailable(name: str) -> str | None:
    """None where this machine can run the backend, else why not. Raises ConfigError for an unknown name."""
    if name not in BACKENDS:
        raise ConfigError(f"unknown backend '{name}': choose auto, {', '.join(BACKENDS)}")
    try:
        reason: str | None = _module(name).available()
    except ModuleNotFoundError as error:
        own = (error.name or "").startswith(__name__)
        return "this version does not include it" if own else f"{error.name} is not installed"
    except (ImportError, OSError) as error:  # a library that is installed but broken
        return str(error).splitlines()[0]
    return reason


def require_backend(name: str) -> None:
    """Raises ConfigError for an unknown name, BackendError where this machine cannot run the backend; `auto` can."""
    if name != "auto" and (reason := unavailable(name)) is not None:
        raise BackendError(f"backend '{name}' cannot run here: {reason}; use --backend auto or another")


def no_gpu_driver() -> str | None:
    """None where an NVIDIA driver is installed, else the reason; imports nothing."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver here"
    return None


def choose_engine(bundle: Bundle, name: str = "auto", threads: int | None = None) -> tuple[Engine, str]:
    """Load the bundle's networks: (engine, a clause that says why this backend).

    threads: CPU threads, None for all cores this process may use. `auto` takes the first backend of `AUTO` that runs
    here and has what it needs in the bundle. A backend requested by name is used or refused, never replaced: raises
    BackendError with the reason, ConfigError for an unknown name.
    """
    if name != "auto":
        require_backend(name)
        return _module(name).load(bundle, threads), "as requested"
    passed: list[str] = []
    order: tuple[str, ...] = AUTO
    driver = no_gpu_driver()
    if driver is not None:  # their libraries take seconds and 100 MB to import
        passed.append(f"{', '.join(_NEED_GPU)}: {driver}")
    else:
        order, slower = auto_order(bundle)
        passed += [slower] if slower else []
    for candidate in order:
        if driver is not None and candidate in _NEED_GPU:
            continue
        names = [candidate]
        if candidate == "onnxruntime":
            fastest, why = choose_cpu(bundle, threads)
            names = list(dict.fromkeys([fastest, candidate]))
            passed += [why] if why else []
        for one in names:
            found = _load(one, bundle, threads)
            if not isinstance(found, str):
                return found, f"auto; {'; '.join(passed)}" if passed else "auto"
            passed.append(f"{one}: {re.split('[;(]', found)[0].strip()}")
    raise BackendError(f"no backend can run {bundle.path} ({'; '.join(passed)}); reinstall onnxruntime")


def _load(name: str, bundle: Bundle, threads: int | None) -> Engine | str:
    """The engine, or why there is none."""
    if reason := unavailable(name):
        return reason
    try:
        engine: Engine = _module(name).load(bundle, threads)
    except BackendError as error:
        return str(error)
    return engine


def auto_order(bundle: Bundle) -> tuple[tuple[str, ...], str]:
    """What `auto` tries on this machine's GPU: plans first, and a clause that says so, where `build --precision auto`
    timed the fusion on such a GPU and found the cubin no faster.
    """
    try:
        sm = current_device().sm
    except BackendError:
        return AUTO, ""
    engines = bundle.manifest.get("engines", {})
    for library in ("tensorrt", "tensorrt-rtx"):
        if engines.get(f"{library}-{sm}", {}).get("fusion") == "plan":
            rest = tuple(name for name in AUTO if name not in (library, "onnxruntime"))
            return (library, *rest, "onnxruntime"), f"cubin: no faster than the plan when `build` timed both on {sm}"
    return AUTO, ""


def open_engine(bundle: Bundle, name: str = "auto", threads: int | None = None) -> Engine:
    """`choose_engine` without the explanation."""
    return choose_engine(bundle, name, threads)[0]
