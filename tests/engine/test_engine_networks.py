"""TensorRT-RTX builds every network of the product, in every precision, for two GPUs that are not here."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from engine_networks import NAMES, graph_and_feeds
from onnx import TensorProto, helper

from jmt_edge.calibration.quantise import find_layers, quantise, tensors_of
from jmt_edge.calibration.ranges import collect
from jmt_edge.compiler.fp16 import static_shapes, to_fp16
from jmt_edge.compiler.plan import build_plan
from jmt_edge.engine.tensorrt_api import Library, open_library

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def rtx() -> Library:
    return open_library("tensorrt-rtx")


@pytest.fixture(scope="module", params=NAMES)
def network(request: pytest.FixtureRequest) -> tuple[dict[str, onnx.ModelProto], dict[str, int]]:
    """(precision -> static graph, how many convolutions, quantised convolutions and products it has).

    INT8 quantises what the product quantises; of joint cross attention, whose layers all stay FP16 by rule, every one.
    """
    name: str = request.param
    graph, feeds = graph_and_feeds(name)
    steps = feeds["present"].shape[1] if "present" in feeds else 1
    graph = static_shapes(graph, {"N": 1, "B": 1, "S": steps})
    found = find_layers(graph)
    layers = [layer for layer in found if not layer.why_not] or found
    ranges = collect(graph, tensors_of(layers), [feeds])
    small = quantise(graph, layers, {tensor: seen.amax("minmax") for tensor, seen in ranges.items()})
    graphs = {"fp32": graph, "fp16": to_fp16(graph).model, "int8": to_fp16(small).model}
    counts = {
        "convolutions": sum(node.op_type == "Conv" for node in graph.graph.node),
        "int8 convolutions": sum(layer.op == "Conv" for layer in layers),
        "int8 products": sum(layer.op != "Conv" for layer in layers),
    }
    return graphs, counts


@pytest.mark.parametrize("target", ["sm_86", "sm_120"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_network_builds(rtx: Library, network: Any, precision: str, target: str) -> None:
    """The builder's own list of layers: each convolution in the precision it was given, and none in another."""
    graphs, counts = network
    plan = build_plan(rtx, graphs[precision].SerializeToString(), target=target)
    summary = plan.summary()
    all_, small = counts["convolutions"], counts["int8 convolutions"] if precision == "int8" else 0
    wide = "fp32" if precision == "fp32" else "fp16"
    expected = {wide: all_ - small, "int8": small}
    assert summary["convolutions"] == {k: n for k, n in expected.items() if n}
    by_precision = summary["by_precision"]
    if precision == "fp32":
        assert not {"int8", "fp16"} & set(by_precision) and by_precision["fp32"] > 3
    elif precision == "fp16":
        assert "int8" not in by_precision and by_precision["fp16"] > by_precision.get("fp32", 0)
    else:  # TensorRT may merge matrix products that share an input
        assert by_precision["int8"] >= 0.8 * (small + counts["int8 products"]) > 0
        if not all_:
            assert summary["products"]["int8"] >= 0.8 * counts["int8 products"]
    assert len(plan.data) > 10_000


@pytest.mark.parametrize(("width", "fused"), [(64, 1), (512, 0)])
def test_attention_of_the_papers_width_is_not_fused(rtx: Library, width: int, fused: int) -> None:
    """TensorRT has kernels for whole attention with up to 256 features a head; the report must tell the two apart."""
    shape = [1, 4, 16, width]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name in ("q", "k", "v", "y")}
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "attention", [values["q"], values["k"], values["v"]], [values["y"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    plan = build_plan(rtx, model.SerializeToString(), target="sm_86")
    assert plan.summary()["fused_attention"] == fused
