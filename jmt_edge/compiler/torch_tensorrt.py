"""One TensorRT engine from a torch module, by torch-tensorrt's converters instead of the ONNX parser.

The whole exported program becomes one engine or the build fails: `convert_exported_program_to_serialized_trt_engine`
does not partition, so no operator is left in PyTorch, and its engine bytes need no pickle, unlike torch-tensorrt's
engine cache. Engines have the ONNX graphs' tensor names and are run by the same class as every other plan.
"""

from __future__ import annotations

import inspect
import logging
from importlib import import_module
from typing import Any

from ..engine.tensorrt_api import Library
from ..errors import BackendError, short
from ..machine import versions
from ..tasks import Task


def open_torch_tensorrt() -> Library:
    """torch-tensorrt and the TensorRT it uses. Raises BackendError where it is missing or too old."""
    try:
        torch_tensorrt = import_module("torch_tensorrt")
        features = import_module("torch_tensorrt._features").ENABLED_FEATURES
        trt = import_module("tensorrt_rtx" if getattr(features, "tensorrt_rtx", False) else "tensorrt")
    except ImportError as error:
        raise BackendError(
            f"torch-tensorrt cannot be imported ({error}); run `pip install 'jmt-edge[torch-tensorrt]'`"
        ) from None
    except Exception as error:  # its import queries the CUDA device
        raise BackendError(
            f"torch-tensorrt is installed but does not load ({error}); it needs a GPU and its own torch"
        ) from None
    version = f"{torch_tensorrt.__version__} on {trt.__name__.replace('_', '-')} {trt.__version__}"
    convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
    if "output_binding_names" not in inspect.signature(convert).parameters:
        raise BackendError(f"torch-tensorrt {version} cannot name an engine's tensors; install 2.14 or newer")
    return Library("torch-tensorrt", trt, version)


def installed() -> str | None:
    """None where a torch-tensorrt distribution is installed, else the reason; imports nothing of it."""
    if versions("torch-tensorrt", "torch-tensorrt-rtx"):
        return None
    return "torch-tensorrt is not installed (pip install 'jmt-edge[torch-tensorrt]')"


def export_program(module: Any, task: Task, network: str) -> tuple[Any, tuple[Any, ...]]:
    """The module's exported program at batch 1 and the inputs it was exported with, on the GPU if there is one."""
    import torch

    from ..models.from_bundle import example_inputs

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = tuple(torch.from_numpy(x).to(device) for x in example_inputs(task, network))
    with torch.no_grad():
        return torch.export.export(module.to(device), inputs), inputs


def compile_engine(module: Any, task: Task, network: str) -> bytes:
    """A serialised float32 engine of `module` for this machine's GPU, batch 1.

    Raises BackendError, with torch-tensorrt's reason, for an operator without a converter or a failed build.
    """
    import torch
    import torch_tensorrt

    from ..models.from_bundle import input_names, output_names

    outputs = output_names(task, network)
    logger = logging.getLogger("torch_tensorrt")  # it logs a traceback of each error that it raises
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        program, inputs = export_program(module, task, network)
        with torch.no_grad():
            data = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                arg_inputs=list(inputs),
                require_full_compilation=True,
                min_block_size=1,
                disable_tf32=True,
                arg_input_binding_names=input_names(task, network),
                output_binding_names=outputs if len(outputs) > 1 else outputs[0],
            )
    except Exception as error:  # its errors share no base class
        raise BackendError(
            f"torch-tensorrt does not build '{network}' ({short(error, 300)}); use --builder tensorrt or tensorrt-rtx"
        ) from None
    finally:
        logger.setLevel(level)
    return bytes(data)
