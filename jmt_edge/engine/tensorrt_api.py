"""Access to TensorRT (10.3 to 11.x) and TensorRT-RTX: the installed library, its capabilities, its callbacks.

The two libraries share their Python API. Where versions differ, `CAPABILITIES` gives the first version with a
capability, and `Library.require` refuses with that reason; no other module compares versions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import BackendError

LibraryName = Literal["tensorrt", "tensorrt-rtx", "torch-tensorrt"]
OLDEST: dict[str, tuple[int, int]] = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 3)}

# capability -> library -> (first version, the message if it is absent); a library not listed never has it
CAPABILITIES: dict[str, dict[str, tuple[tuple[int, int], str]]] = {
    "explicit_qdq": {
        "tensorrt": ((10, 3), "INT8 needs explicit Q/DQ in a strongly typed network (TensorRT 10.3 or newer)"),
        "tensorrt-rtx": ((1, 7), "INT8 convolutions compile without a GPU from TensorRT-RTX 1.7 on"),
    },
    # TensorRT builds for the device it runs on; only RTX compiles for another
    "cross_device": {
        "tensorrt-rtx": (
            (1, 3),
            "building for another device needs TensorRT-RTX; TensorRT builds on the device itself",
        ),
    },
    "timing_cache": {"tensorrt": ((10, 3), "a timing cache needs TensorRT 10.3 or newer")},
}

RTX_TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")


@dataclass(frozen=True)
class Library:
    """An importable TensorRT: `module` is `tensorrt` or `tensorrt_rtx` (also where torch-tensorrt builds with it)."""

    name: LibraryName
    module: Any
    version: str

    @property
    def release(self) -> tuple[int, int]:
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    def can(self, capability: str) -> bool:
        gate = CAPABILITIES[capability].get(self.name)
        return gate is not None and self.release >= gate[0]

    def require(self, capability: str) -> None:
        """Raises BackendError with the table's reason where this version lacks `capability`."""
        if not self.can(capability):
            gates = CAPABILITIES[capability]
            _, reason = gates.get(self.name) or next(iter(gates.values()))
            raise BackendError(f"{reason}; this is {self.name} {self.version}")


def open_library(name: LibraryName) -> Library:
    """Import TensorRT or TensorRT-RTX. Raises BackendError where it is missing, broken or too old."""
    extra = "tensorrt" if name == "tensorrt" else "tensorrt-rtx"
    try:
        module = importlib.import_module(name.replace("-", "_"))
        version = str(module.__version__)
    except ImportError as error:
        remedy = f"run `pip install 'jmt-edge[{extra}]'`"
        if name == "tensorrt":
            remedy += ", or on a Jetson make the virtual environment with --system-site-packages"
        raise BackendError(f"{name} cannot be imported ({error}); {remedy}") from None
    except (OSError, AttributeError, RuntimeError) as error:
        raise BackendError(f"{name} is installed but does not load ({error}); reinstall it") from None
    library = Library(name, module, version)
    if library.release < OLDEST[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        raise BackendError(f"{name} {version} is too old; install {oldest} or newer")
    return library


@dataclass
class Messages:
    """The library's messages during a build: errors for the user's sentence, the layer list for the report."""

    errors: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)


def make_logger(library: Library, messages: Messages) -> Any:
    """An `ILogger` that keeps errors and the verbose layer list (`Name: ..., LayerType: ...`).

    An engine can be inspected only where a driver can load it; the builder's list needs no driver.
    """
    trt: Any = library.module

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                messages.errors.append(msg)
            elif "LayerType:" in msg:
                messages.layers.extend(line for line in msg.splitlines() if line.startswith("Name: "))

    return Logger()


def make_progress(library: Library, on_progress: Callable[[float], bool]) -> Any:
    """An `IProgressMonitor`: calls `on_progress(fraction)`; a false return value stops the build.

    TensorRT nests phases; each phase fills the step of its parent in which it runs.
    """
    trt: Any = library.module

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, tuple[str | None, int, int]] = {}  # name -> parent, steps, step reached
            self.seen = 0.0

        def fraction(self, name: str) -> tuple[float, float]:
            """(done, share of one step) of a phase, as fractions of the whole build."""
            parent, steps, step = self.phases[name]
            start, width = (0.0, 1.0) if parent not in self.phases else self.fraction(parent)
            return start + width * step / max(steps, 1), width / max(steps, 1)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = (parent_phase, num_steps, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                parent, steps, _ = self.phases[phase_name]
                self.phases[phase_name] = (parent, steps, step + 1)
                self.seen = max(self.seen, min(1.0, self.fraction(phase_name)[0]))
            return on_progress(self.seen)

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

    return Monitor()
