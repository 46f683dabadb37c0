"""Small ONNX graphs that hold every kind of node the product's networks have."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def residual_network(seed: int = 0, channels: int = 16, size: int = 16) -> onnx.ModelProto:
    """A 3-channel stem, a residual block of 3-D convolutions, pooling, LayerNorm, softmax and a linear head."""
    rng = np.random.default_rng(seed)
    weights: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, *shape: int, scale: float = 1.0) -> str:
        value = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        weights.append(numpy_helper.from_array(value, name))
        return name

    def conv(name: str, source: str, inner: int, outer: int) -> str:
        fan = inner * 27
        w = constant(f"{name}.weight", outer, inner, 3, 3, 3, scale=(2 / fan) ** 0.5)
        b = constant(f"{name}.bias", outer, scale=0.1)
        nodes.append(helper.make_node("Conv", [source, w, b], [f"{name}.out"], name=name, pads=[1] * 6))
        return f"{name}.out"

    def relu(name: str, source: str) -> str:
        nodes.append(helper.make_node("Relu", [source], [name], name=name))
        return name

    x = relu("stem.relu", conv("stem", "clip", 3, channels))
    y = relu("block.relu1", conv("block.conv1", x, channels, channels))
    y = conv("block.conv2", y, channels, channels)
    nodes.append(helper.make_node("Add", [y, x], ["sum"], name="block.add"))
    x = relu("block.relu2", "sum")
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
    parts = ["flat", constant("norm.weight", channels), constant("norm.bias", channels)]
    nodes.append(helper.make_node("LayerNormalization", parts, ["normed"], name="norm"))
    head = ["normed", constant("head.weight", 8, channels, scale=0.3), constant("head.bias", 8)]
    nodes.append(helper.make_node("Gemm", head, ["logits"], name="head", transB=1))
    nodes.append(helper.make_node("Softmax", ["logits"], ["features"], name="softmax", axis=-1))
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("clip", TensorProto.FLOAT, ["N", 3, 4, size, size])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 8])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def clips(count: int, seed: int = 1, size: int = 16) -> np.ndarray:
    """(count, 3, 4, size, size) float32."""
    return np.random.default_rng(seed).standard_normal((count, 3, 4, size, size), dtype=np.float32)
