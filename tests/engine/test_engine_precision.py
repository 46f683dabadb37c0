"""FP16 conversion: types, order, accuracy against the flash-attention rule, and what stays in FP32."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from engine_graphs import clips, residual_network
from engine_networks import graph_and_feeds
from onnx import TensorProto, helper, numpy_helper

from jmt_edge.compiler.fp16 import FP32_OPS, static_shapes, to_fp16


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"clip": x})[0])


def test_statistics_and_softmax_stay_wide_and_the_rest_is_half() -> None:
    done = to_fp16(residual_network())
    types = {
        v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(done.model).graph.value_info
    }
    for node in done.model.graph.node:
        if node.op_type in FP32_OPS:
            assert node.name in done.kept
            assert types.get(node.output[0], TensorProto.FLOAT) == TensorProto.FLOAT
        elif node.op_type == "Conv":
            assert types[node.output[0]] == TensorProto.FLOAT16
    assert set(done.kept) == {"norm", "softmax"}


def test_interface_stays_float32_and_order_stays_topological() -> None:
    model = to_fp16(residual_network()).model
    assert all(v.type.tensor_type.elem_type == TensorProto.FLOAT for v in (*model.graph.input, *model.graph.output))
    known = {v.name for v in model.graph.input} | {i.name for i in model.graph.initializer}
    for node in model.graph.node:
        assert set(filter(None, node.input)) <= known, f"{node.name} reads what is not there yet"
        known |= set(node.output)


def test_error_is_that_of_half_precision() -> None:
    """At most twice the error of rounding the input and every weight once, in exact arithmetic."""
    model, x = residual_network(), clips(4)
    exact = _run(model, x)
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    for init in rounded.graph.initializer:
        value = numpy_helper.to_array(init).astype(np.float16).astype(np.float32)
        init.CopyFrom(numpy_helper.from_array(value, init.name))
    floor = np.abs(_run(rounded, x.astype(np.float16).astype(np.float32)) - exact).max()
    assert np.abs(_run(to_fp16(model).model, x) - exact).max() <= 2 * floor + 1e-3 * np.abs(exact).max()


def test_a_weight_that_half_cannot_hold_keeps_its_node_wide() -> None:
    model = residual_network()
    weight = next(i for i in model.graph.initializer if i.name == "block.conv1.weight")
    value = numpy_helper.to_array(weight).copy()
    value.flat[0] = 1e6
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    assert set(to_fp16(model).kept) == {"block.conv1", "norm", "softmax"}


def test_a_zero_vector_is_normalised_to_zero() -> None:
    """x / max(|x|, 1e-12): FP16 has no 1e-12, and 0 / 0 would be no number."""
    nodes = [
        helper.make_node("Mul", ["clip", "two"], ["x"], name="mul"),
        helper.make_node("ReduceL2", ["x", "last"], ["norm"], name="norm", keepdims=1),
        helper.make_node("Clip", ["norm", "tiny"], ["safe"], name="clamp"),
        helper.make_node("Expand", ["safe", "shape"], ["wide"], name="expand"),
        helper.make_node("Div", ["x", "wide"], ["y"], name="divide"),
        helper.make_node("Add", ["y", "two"], ["features"], name="add"),
    ]
    initial = {
        "two": np.float32(2), "last": np.array([1]), "tiny": np.float32(1e-12), "shape": np.array([2, 4]),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("clip", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in initial.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    done = to_fp16(model)
    assert set(done.kept) == {"norm", "clamp", "expand", "divide"}
    x = np.array([[0, 0, 0, 0], [3, 0, 4, 0]], np.float32)
    np.testing.assert_allclose(_run(done.model, x), [[2, 2, 2, 2], [2.6, 2, 2.8, 2]], rtol=1e-3)


def test_light_arithmetic_between_wide_nodes_stays_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of modalities from the last softmax: a handful of numbers, for which FP16 would only cost casts."""
    model, feeds = graph_and_feeds("jmt_2")
    done = to_fp16(model)
    weights = {init.name: int(np.prod(init.dims)) for init in model.graph.initializer}
    heavy = {n.name for n in model.graph.node if n.op_type == "MatMul" and weights.get(n.input[1], 999) > 64}
    assert len(heavy) > 20 and not (heavy | {n.name for n in model.graph.node if n.op_type == "Relu"}) & set(done.kept)
    # backwards from the shares, every node that computes with numbers, down to the softmax
    makers = {name: node for node in model.graph.node for name in node.output}
    share, rest = set(), ["attention"]
    while rest:
        node = makers[rest.pop()]
        share.add(node.name)
        if node.op_type not in ("Softmax", "Cast"):
            rest += [name for name in node.input if name in makers]
    assert len(share) > 8 and share <= set(done.kept)
    monkeypatch.setattr("jmt_edge.compiler.fp16._between", lambda *graph: set())
    narrow = to_fp16(model)
    casts = [sum(node.op_type == "Cast" for node in m.model.graph.node) for m in (done, narrow)]
    assert casts[0] < casts[1]
    exact, wide, half = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            ["attention"], feeds
        )[0]
        for m in (model, done.model, narrow.model)
    )
    assert np.abs(wide - exact).max() <= np.abs(half - exact).max()


@pytest.mark.parametrize("batch", [1, 4])
def test_static_shapes_fix_the_first_axis(batch: int) -> None:
    model = static_shapes(residual_network(), {"N": batch})
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == batch
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_value == batch
    assert np.array_equal(_run(model, clips(batch)), _run(residual_network(), clips(batch)))
