"""From one ONNX graph to one TensorRT plan: parsing, strongly typed build, and the list of resulting layers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..engine.tensorrt_api import RTX_TARGETS, Library, Messages, make_logger, make_progress
from ..errors import BackendError


@dataclass(frozen=True)
class PlanLayer:
    """One layer of the built engine. `precision` is the type it computes on: of its inputs, the narrowest."""

    name: str
    kind: str
    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def convolution(self) -> bool:
        return self.kind.lower() in ("correlation", "convolution", "caskconvolution", "cublasconvolution")

    @property
    def product(self) -> bool:
        """A matrix product, alone or fused with what follows it."""
        return "gemm" in self.kind.lower() or self.kind.lower() == "matrixmultiply" or "_Fc" in self.name

    @property
    def attention(self) -> bool:
        """Scores, softmax and values in one kernel."""
        return re.search(r"f?mha|attention", f"{self.kind} {self.name}", re.I) is not None


@dataclass(frozen=True)
class Plan:
    """A serialised engine, its layers and the timing cache (empty for TensorRT-RTX)."""

    data: bytes
    layers: tuple[PlanLayer, ...]
    timing_cache: bytes

    def summary(self) -> dict[str, Any]:
        """Counts by kind and precision for the report; `wait` and `signal` between streams do not count as layers."""
        return {
            "layers": sum(layer.precision != "unknown" for layer in self.layers),
            "by_precision": dict(Counter(layer.precision for layer in self.layers)),
            "convolutions": dict(Counter(layer.precision for layer in self.layers if layer.convolution)),
            "products": dict(Counter(layer.precision for layer in self.layers if layer.product)),
            "fused_attention": sum(layer.attention for layer in self.layers),
            "detail": [asdict(layer) for layer in self.layers],
        }


_NARROW = ("Int4", "FP8", "Int8", "BFloat16", "Half", "Float", "Int32", "Int64", "Bool")
_NAMES = {"Int8": "int8", "Half": "fp16", "Float": "fp32", "BFloat16": "bf16", "FP8": "fp8", "Int4": "int4"}


def build_plan(
    library: Library,
    onnx_model: bytes,
    *,
    target: str | None = None,
    batch: tuple[int, int, int] | None = None,
    workspace: int = 0,
    timing_cache: bytes = b"",
    on_progress: Callable[[float], bool] = lambda fraction: True,
) -> Plan:
    """Build a plan from a serialised ONNX model whose types are explicit.

    `target` is `sm_NN` to compile for another device (TensorRT-RTX), None for this machine's; `batch` is (min, opt,
    max) of the first axis if it is dynamic; `workspace` limits the scratch memory of a layer, in bytes (0: all memory).

    Raises BackendError, including the library's reason, for a graph that does not parse, an unsupported operator, too
    little memory, an impossible target, or a build that was stopped.
    """
    messages = Messages()
    # The library calls these until its last object is gone, so they must outlive `_build`'s locals
    logger = make_logger(library, messages)
    progress = make_progress(library, on_progress)
    data, cache = _build(library, onnx_model, target, batch, workspace, timing_cache, messages, (logger, progress))
    return Plan(data, tuple(parse_layer(line) for line in messages.layers), cache)


def _build(
    library: Library,
    onnx_model: bytes,
    target: str | None,
    batch: tuple[int, int, int] | None,
    workspace: int,
    timing_cache: bytes,
    messages: Messages,
    callbacks: tuple[Any, Any],
) -> tuple[bytes, bytes]:
    trt = library.module
    logger, progress = callbacks
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:
        raise _failure(library, "cannot start its builder", messages, str(error)) from None
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # since 11 every network is
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    config = builder.create_builder_config()
    config.progress_monitor = progress
    cache = None
    try:
        if not parser.parse(onnx_model):
            detail = "; ".join(_parse_errors(parser, onnx_model))
            raise _failure(library, "cannot parse the ONNX graph", messages, detail)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        _set_target(library, config, target)
        if workspace:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
        if batch is not None:
            config.add_optimization_profile(_batch_profile(builder, network, batch))
        if library.can("timing_cache"):
            cache = config.create_timing_cache(timing_cache)
            config.set_timing_cache(cache, False)
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise _failure(library, "did not build the engine", messages, "")
        return bytes(serialized), bytes(cache.serialize()) if cache is not None else b""
    finally:
        # children before the builder: Python would free them in the order of their creation
        del cache, config, parser, network, builder


def _parse_errors(parser: Any, onnx_model: bytes) -> list[str]:
    """Why parsing failed: the unsupported operators, or else the parser's first two messages."""
    import onnx

    try:
        nodes = onnx.load_from_string(onnx_model).graph.node
        unknown = sorted({node.op_type for node in nodes if not parser.supports_operator(node.op_type)})
        if unknown:
            return [f"no support for the operator {', '.join(unknown)}"]
    except Exception:  # the bytes are not ONNX at all, which the parser's message says
        pass
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return [f"{error.node_name() or 'graph'}: {error.desc().strip()}" for error in errors[:2]]


def require_target(library: Library, target: str) -> None:
    """Raises BackendError where the library cannot compile for `target` (`sm_NN`)."""
    library.require("cross_device")
    if target not in RTX_TARGETS:
        raise BackendError(
            f"{library.name} {library.version} cannot compile for {target}, only for {', '.join(RTX_TARGETS)}; "
            "build on the device itself with --builder tensorrt --target current"
        )


def _set_target(library: Library, config: Any, target: str | None) -> None:
    if target is None:
        return
    require_target(library, target)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(library.module.ComputeCapability, target.replace("sm_", "SM")), 0)


def _batch_profile(builder: Any, network: Any, batch: tuple[int, int, int]) -> Any:
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, *((n, *rest) for n in batch))
    return profile


def _failure(library: Library, what: str, messages: Messages, detail: str) -> BackendError:
    said = detail or next(iter(messages.errors), "no reason given")
    said = re.sub(r"\s+", " ", said).strip().rstrip(".")
    remedy = (
        "free memory or build smaller batches"
        if re.search(r"memory|alloc", said, re.I)
        else ("export the bundle again, or choose another --precision or --builder")
    )
    return BackendError(f"{library.name} {library.version} {what} ({said[:300]}); {remedy}")


def parse_layer(line: str) -> PlanLayer:
    """One line of the builder's verbose layer list (`Name: a, LayerType: b, Inputs: [...], Outputs: [...]`)."""
    name = re.match(r"Name: (.*?), LayerType: (\w+)", line)
    inputs = _datatypes(line, "Inputs")
    outputs = _datatypes(line, "Outputs")
    types = [t for t in _NARROW if t in inputs] or [t for t in _NARROW if t in outputs] or ["unknown"]
    return PlanLayer(
        name.group(1) if name else line[:80],
        name.group(2) if name else "unknown",
        _NAMES.get(types[0], types[0].lower()),
        tuple(inputs),
        tuple(outputs),
    )


def _datatypes(line: str, section: str) -> Sequence[str]:
    found = re.search(section + r": \[(.*?)\](?:, (?:Constants|Outputs|TacticName|Constants|StreamId)|$)", line)
    return re.findall(r"Datatype: (\w+)", found.group(1)) if found else []
