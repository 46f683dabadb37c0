"""A roofline over the ONNX graphs: what each layer costs, and what a device that is not here would take.

Time of a layer = max(FLOPs / (peak x efficiency), bytes / (bandwidth x efficiency)) + launch. Element-wise
layers count with the layer they follow, as every engine fuses them. It is a prediction, and is labelled so
wherever it is shown; `measured_here` gives its ratio to a measurement on the machine at hand.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx

from ..engine.bundle import Bundle
from ..engine.precision import static_shapes
from ..errors import ConfigError

_HEAVY = ("Conv", "Gemm", "MatMul", "ConvTranspose")
_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Hardware:
    """Dense peak FLOP/s (or int8 op/s) by precision, memory bandwidth in bytes/s, and what of both is reached.

    `source` says where the figures are from. `launch` is the time between two kernels inside a CUDA graph, or an
    operator's overhead on a CPU, in seconds.
    """

    name: str
    peak: Mapping[str, float]
    bandwidth: float
    launch: float
    source: str
    compute_efficiency: float = 0.35
    memory_efficiency: float = 0.75


_SHEET = "vendor's data sheet, dense rates (half of the sparse ones)"


def _jetson(name: str, fp32: float, fp16: float, int8: float, bandwidth: float) -> Hardware:
    """Tera-operations per second and GB/s as data sheets print them."""
    return Hardware(
        name, {"fp32": fp32 * 1e12, "fp16": fp16 * 1e12, "int8": int8 * 1e12}, bandwidth * 1e9, 1.5e-6, _SHEET
    )


DEVICES = {
    "orin-nano": _jetson("Jetson Orin Nano 8GB Super", 2.1, 16.7, 33, 102),
    "orin-nx": _jetson("Jetson Orin NX 16GB", 1.9, 15, 30, 102),
    "agx-orin": _jetson("Jetson AGX Orin 64GB", 5.3, 42, 85, 204.8),
    "thor": _jetson("Jetson AGX Thor", 8, 258, 517, 273),
    "h200": Hardware(
        "H200",
        {"fp32": 67e12, "fp16": 790e12, "int8": 1580e12},
        4.3e12,
        1.3e-6,
        "measured copy bandwidth and half-precision rate; the rest data sheet",
    ),
}


@dataclass(frozen=True)
class LayerCost:
    """One heavy layer with the element-wise ones behind it. Intensity is FLOPs per byte; times in seconds."""

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
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*graph.input, *graph.value_info, *graph.output)
    } | {i.name: tuple(i.dims) for i in graph.initializer}
    width = _BYTES[precision]
    rows = []
    for node in graph.node:
        if node.op_type not in _HEAVY:
            continue
        first, second, out = (shapes.get(n, ()) for n in (node.input[0], node.input[1], node.output[0]))
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
    for name, entry in bundle.networks.items():
        model = onnx.load(str(bundle.file(entry["onnx"])))
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
    """A device of the table. Raises ConfigError for another name."""
    if name not in DEVICES:
        raise ConfigError(f"no figures for '{name}': choose one of {', '.join(DEVICES)}")
    return DEVICES[name]


def this_machine(threads: int | None = None) -> Hardware:
    """The CPU at hand by measurement: a large float32 product and a copy. Efficiencies are then 1 by definition.

    NumPy's product runs on the threads its library was started with (OMP_NUM_THREADS).
    """
    rng = np.random.default_rng(0)
    a = rng.standard_normal((1024, 1024), dtype=np.float32)
    b = rng.standard_normal(16_000_000, dtype=np.float32)

    def best(work: Any, runs: int = 7) -> float:
        work()
        times = []
        for _ in range(runs):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return min(times)

    peak = 2 * 1024**3 / best(lambda: a @ a)
    bandwidth = 2 * b.nbytes / best(lambda: b.copy())
    return Hardware(
        "this CPU", {"fp32": peak, "fp16": peak, "int8": 2 * peak}, bandwidth, 5e-6,
        "measured here: 1024x1024 float32 product and a 64 MB copy", 1.0, 1.0,
    )  # fmt: skip


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
        "hop_ms": hop * 1e3,
        "share_of_hop": total / (hop * 1e3),
        "layers": [asdict(layer) for layer in layers],
    }


def plot(report: dict[str, Any]) -> bytes:
    """PNG: attainable rate against intensity with every layer, and time by network. Needs matplotlib."""
    import io

    import matplotlib

    matplotlib.use("Agg")
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
