"""A roofline model of the ONNX graphs: the cost of each layer, and the predicted time on another device.

Time of a layer = max(FLOPs / (peak x efficiency), bytes / (bandwidth x efficiency)) + launch. Element-wise layers count
with the layer they follow, since every engine fuses them. A prediction is labelled as such wherever it is shown;
`validate` adds what this machine measures.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx

from ..compiler.fp16 import shapes, static_shapes
from ..engine.bundle import Bundle
from ..errors import ConfigError

_HEAVY = ("Conv", "Gemm", "MatMul", "ConvTranspose")
_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Hardware:
    """Dense peak FLOP/s (or int8 op/s) by precision, memory bandwidth in bytes/s, and the share reached of both.

    `source`: where the figures come from. `launch` is the time between two kernels inside a CUDA graph, or an
    operator's overhead on a CPU, in seconds.
    """

    name: str
    peak: Mapping[str, float]
    bandwidth: float
    launch: float
    source: str
    compute_efficiency: float = 0.35
    memory_efficiency: float = 0.75


# Dense rates follow from multiprocessors (SM) and clock: an SM has 128 CUDA cores with 2 FLOP per clock in fp32, and
# tensor cores with the INT8 operations per clock below; fp16 has half of those. NVIDIA advertises twice as much (2:4
# sparse weights), for Orin NX and AGX Orin including the DLAs, which our engines do not use: tests/bench compares both.
_CUDA_CORES = 128
_AMPERE, _BLACKWELL = 4096, 16384  # INT8 operations per SM and clock, dense


def _jetson(name: str, sms: int, ghz: float, int8: int, bandwidth: float, source: str) -> Hardware:
    """A GPU of `sms` multiprocessors at `ghz`, with `int8` operations per SM and clock, and `bandwidth` in GB/s."""
    clock = sms * ghz * 1e9
    peak = {"fp32": 2 * _CUDA_CORES * clock, "fp16": int8 / 2 * clock, "int8": int8 * clock}
    return Hardware(name, peak, bandwidth * 1e9, 1.5e-6, f"{source}; dense rates of the GPU alone")


DEVICES = {
    "orin-nano": _jetson(
        "Jetson Orin Nano 8GB Super", 8, 1.020, _AMPERE, 102,
        "NVIDIA, Jetson Orin Nano Super Developer Kit data sheet: 1024 cores, 1.02 GHz, 67 sparse TOPS, 102 GB/s",
    ),
    # Without Super mode 918 MHz and 100 sparse TOPS, 40 of them the DLAs'. 1173 MHz is also what `jetson_clocks` sets
    # on such a module.
    "orin-nx": _jetson(
        "Jetson Orin NX 16GB Super", 8, 1.173, _AMPERE, 102.4,
        "NVIDIA, Jetson Orin NX Series data sheet and JetPack 6.2 announcement: 1024 cores, 1.173 GHz in MAXN_SUPER, "
        "157 sparse TOPS of which 80 are the DLAs', 102.4 GB/s",
    ),
    "agx-orin": _jetson(
        "Jetson AGX Orin 64GB", 16, 1.301, _AMPERE, 204.8,
        "NVIDIA, Jetson AGX Orin technical brief: 2048 cores, 1.3 GHz, 5.3 TFLOPS, 170 sparse TOPS of the GPU, "
        "204.8 GB/s",
    ),
    # 2070 sparse FP4 TFLOPS are 65536 per clock and SM; dense FP8 is a quarter of that, and INT8 is assumed as fast as
    # FP8. The CUDA driver reports 20 SMs on the developer kit (forums.developer.nvidia.com, topic 356355).
    "thor": _jetson(
        "Jetson AGX Thor", 20, 1.575, _BLACKWELL, 273,
        "NVIDIA, Jetson Thor data sheet: 2560 cores, 1.57 GHz, 2070 sparse FP4 TFLOPS, 273 GB/s",
    ),
    # a large copy was measured at 4.3 TB/s, hence the memory efficiency
    "h200": Hardware(
        "H200 SXM", {"fp32": 67e12, "fp16": 989e12, "int8": 1979e12}, 4.8e12, 1.3e-6,
        "NVIDIA, H200 data sheet: 67 TFLOPS FP32, 1979 sparse FP16, 3958 sparse INT8, 4.8 TB/s; dense rates", 0.35, 0.9,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class LayerCost:
    """One heavy layer with the element-wise ones after it. Intensity is FLOPs per byte; times in seconds."""

    network: str
    name: str
    op: str
    flops: float
    bytes: float
    intensity: float
    bound: str
    seconds: float


def graph_costs(name: str, model: onnx.ModelProto, precision: str, sizes: Mapping[str, int]) -> list[LayerCost]:
    """FLOPs and bytes of every convolution and matrix product of a graph at the given `N`, `B`, `S`.

    Bytes: weights, input and output once each at the precision's width. Times are 0; `predict` fills them in.
    """
    graph = onnx.shape_inference.infer_shapes(static_shapes(model, sizes), data_prop=True).graph
    sizes_of = shapes(graph) | {i.name: tuple(i.dims) for i in graph.initializer}
    width = _BYTES[precision]
    rows = []
    for node in graph.node:
        if node.op_type not in _HEAVY:
            continue
        first, second, out = (sizes_of.get(n, ()) for n in (node.input[0], node.input[1], node.output[0]))
        if not out or not second or 0 in out:
            continue
        if node.op_type == "Conv":
            per_output = float(np.prod(second[1:]))
        else:
            per_output = float(first[-1]) if first else float(second[0])
        flops = 2 * per_output * float(np.prod(out))
        moved = width * float(sum(np.prod(s, dtype=np.float64) for s in (first, second, out)))
        rows.append(LayerCost(name, node.name or node.output[0], node.op_type, flops, moved, flops / moved, "", 0.0))
    return rows


def bundle_costs(bundle: Bundle, precision: Mapping[str, str]) -> list[LayerCost]:
    """All layers of one hop at batch 1: each backbone once, and the fusion."""
    rows: list[LayerCost] = []
    for name in bundle.networks:
        model = onnx.load_from_string(bundle.exported_graph(name))
        sizes = {"N": 1, "B": 1, "S": bundle.task.steps}
        rows += graph_costs(name, model, precision.get(name, "fp32"), sizes)
    return rows


def predict(costs: list[LayerCost], hardware: Hardware, precision: Mapping[str, str]) -> list[LayerCost]:
    """The same layers with their bound and predicted time on `hardware`."""
    rows = []
    for cost in costs:
        peak = hardware.peak[precision.get(cost.network, "fp32")] * hardware.compute_efficiency
        compute, memory = cost.flops / peak, cost.bytes / (hardware.bandwidth * hardware.memory_efficiency)
        bound = "compute" if compute > memory else "memory"
        rows.append(replace(cost, bound=bound, seconds=max(compute, memory) + hardware.launch))
    return rows


def device(name: str) -> Hardware:
    """A device of the table. Raises ConfigError for an unknown name."""
    if name not in DEVICES:
        raise ConfigError(f"no figures for device '{name}'; choose one of {', '.join(DEVICES)}")
    return DEVICES[name]


def this_machine(threads: int | None = None) -> Hardware:
    """This CPU as onnxruntime uses it with `threads`: a large float32 product, a copy of 128 MB, and a chain of tiny
    products for the overhead per operator. Efficiencies are then 1 by definition."""
    rng = np.random.default_rng(0)
    size, links = 1024, 200
    product = _session([((size, size), (size, size))], threads)
    chain = _session([((1, 8), (8, 8))] * links, threads)
    a, x = rng.standard_normal((size, size), dtype=np.float32), np.ones((1, 8), np.float32)
    big = rng.standard_normal(32_000_000, dtype=np.float32)
    target = np.empty_like(big)
    peak = 2 * size**3 / _best(lambda: product.run(None, {"x": a}))
    bandwidth = 2 * big.nbytes / _best(lambda: np.copyto(target, big))
    launch = _best(lambda: chain.run(None, {"x": x})) / links
    return Hardware(
        "this CPU", {"fp32": peak, "fp16": peak, "int8": 2 * peak}, bandwidth, launch,
        f"measured here: {size}x{size} float32 product, 128 MB copy, chain of {links} tiny products", 1.0, 1.0,
    )  # fmt: skip


def _session(products: list[tuple[tuple[int, int], tuple[int, int]]], threads: int | None) -> Any:
    """An onnxruntime session that multiplies `x` by one constant after the other."""
    from onnx import TensorProto, helper, numpy_helper

    from ..engine.backends.onnxruntime import cpu_threads
    from ..engine.session import session

    nodes, constants, last = [], [], "x"
    for i, (_, shape) in enumerate(products):
        constants.append(numpy_helper.from_array(np.full(shape, 1 / shape[0], np.float32), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"y{i}"]))
        last = f"y{i}"
    shape = products[0][0]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last)]
    graph = helper.make_graph(nodes, "products", [ends[0]], [ends[1]], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return session(model.SerializeToString(), threads or cpu_threads())


def _best(work: Callable[[], object], runs: int = 7) -> float:
    """Seconds of the quickest of `runs` calls after a first one."""
    work()
    return min(timeit.repeat(work, number=1, repeat=runs))


def validate(report: dict[str, Any], bundle: Bundle, threads: int | None = None) -> None:
    """Add the measurements to a prediction for this machine (median, batch 1, onnxruntime), and their ratio."""
    from ..engine.backends import open_engine
    from .stages import make_stages

    engine = open_engine(bundle, "onnxruntime", threads)
    stages = make_stages(bundle.task, engine, 1, np.random.default_rng(0))
    rows = {f"backbone {m}": report["networks"][m] for m in bundle.task.names}
    for key, row in {**rows, "fusion": report["networks"]["fusion"], "networks": report}.items():
        stages[key].measure(0.3)
        stages[key].rounds.clear()
        stages[key].measure(1.0)
        row["measured_ms"] = float(np.median(stages[key].rounds[0]))
        row["predicted_to_measured"] = row.get("ms", row.get("total_ms")) / row["measured_ms"]
    engine.close()


def prediction(bundle: Bundle, hardware: Hardware, precision: Mapping[str, str], hop: float) -> dict[str, Any]:
    """The whole prediction for one hop, as JSON."""
    layers = predict(bundle_costs(bundle, precision), hardware, precision)
    networks = {
        name: {
            "ms": 1e3 * sum(x.seconds for x in layers if x.network == name),
            "gflop": sum(x.flops for x in layers if x.network == name) / 1e9,
            "mb": sum(x.bytes for x in layers if x.network == name) / 1e6,
        }
        for name in bundle.networks
    }
    total = sum(n["ms"] for n in networks.values())
    return {
        "label": "prediction by roofline, not a measurement",
        "device": hardware.name,
        "figures": {k: v for k, v in asdict(hardware).items() if k != "name"},
        "precision": dict(precision),
        "bundle": bundle.id,
        "networks": networks,
        "total_ms": total,
        "gflop": sum(n["gflop"] for n in networks.values()),
        "mb": sum(n["mb"] for n in networks.values()),
        "hop_ms": hop * 1e3,
        "share_of_hop": total / (hop * 1e3),
        "layers": [asdict(layer) for layer in layers],
    }


def plot(report: dict[str, Any]) -> bytes:
    """PNG: attainable rate against intensity with every layer, and time by network. Needs matplotlib."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    figures, layers = report["figures"], report["layers"]
    peak = max(figures["peak"][p] for p in set(report["precision"].values())) * figures["compute_efficiency"]
    bandwidth = figures["bandwidth"] * figures["memory_efficiency"]
    x = np.geomspace(0.1, 1e4, 200)
    left.loglog(x, np.minimum(peak, bandwidth * x) / 1e12, color="grey")
    for name in report["networks"]:
        mine = [layer for layer in layers if layer["network"] == name]
        left.loglog(
            [m["intensity"] for m in mine], [m["flops"] / m["seconds"] / 1e12 for m in mine], "o", ms=4, label=name
        )
    left.set(xlabel="FLOPs per byte", ylabel="TFLOP/s, predicted", title=report["device"])
    left.legend()
    right.bar(list(report["networks"]), [n["ms"] for n in report["networks"].values()])
    right.set(ylabel="ms, predicted", title=f"{report['total_ms']:.2f} ms of a {report['hop_ms']:.0f} ms hop")
    figure.suptitle("Prediction by roofline, not a measurement")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
