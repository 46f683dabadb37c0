"""Explicit Q/DQ in an ONNX graph: where they are placed, and their scales.

Placement follows what TensorRT fuses and onnxruntime runs: int8 per-channel symmetric weights, and a per-tensor
symmetric int8 activation before each quantised layer. Where a quantised convolution feeds an Add, the other (residual)
branch is quantised once, so that convolution and addition become one kernel. The stem with one or three channels, small
layers, LayerNorm, softmax and heads stay in FP16. A small convolution whose activation is quantised for another layer
anyway (the 1x1 of a downsampling block) is quantised too; in FP16 it would read that tensor a second time.

A linear layer at batch 1 multiplies a vector or a few rows, so its time is that of reading its weights, which INT8
halves. This outweighs two more kernels if the weights are many (`HEAVY_WEIGHTS`), or if a network consists mostly of
such layers (the fusion: `LINEAR_SHARE` of all its weights).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..compiler.fp16 import shapes

SMALL_SHARE = 0.01  # of the network's multiply-adds and weights; a convolution below both gains nothing
HEAVY_WEIGHTS = 1 << 20
LINEAR_SHARE = 0.01  # of the weights of a network without convolutions
_MIXES = ("Softmax", "LayerNormalization")  # none of these follows in a head


@dataclass(frozen=True)
class QuantisableLayer:
    """A convolution or a linear layer with constant weights; it may be quantised if `why_not` is empty.

    multiply_adds: of one clip, or of one row for a linear layer.
    """

    name: str
    op: str
    activation: str
    weight: str
    residual: str  # the other branch of the Add that follows, or ""
    multiply_adds: int
    why_not: str = ""


def find_layers(model: onnx.ModelProto) -> list[QuantisableLayer]:
    """Every layer with constant weights, in graph order, with the rule that keeps it in FP16 if one does."""
    sizes = shapes(onnx.shape_inference.infer_shapes(model, data_prop=True).graph)
    constants = {init.name: init for init in model.graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found: list[tuple[onnx.NodeProto, int]] = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and len(node.input) > 1 and node.input[1] in constants:
            weight = constants[node.input[1]]
            outer = sizes.get(node.output[0], ())
            positions = int(np.prod(outer[2:], dtype=np.int64)) if node.op_type == "Conv" else 1
            found.append((node, int(np.prod(weight.dims, dtype=np.int64)) * max(positions, 1)))
    total = sum(cost for _, cost in found) or 1
    weights = sum(int(np.prod(constants[node.input[1]].dims, dtype=np.int64)) for node, _ in found)
    linear = _why_not_linear(model.graph, [node for node, _ in found], constants)
    layers = [_layer(node, cost, (total, weights), linear, constants, users) for node, cost in found]
    at_hand = {layer.activation for layer in layers if layer.op == "Conv" and not layer.why_not}
    free = [layer.why_not.startswith("small") and layer.activation in at_hand for layer in layers]
    return [replace(layer, why_not="") if is_free else layer for layer, is_free in zip(layers, free)]


def _why_not_linear(
    graph: onnx.GraphProto, layers: Collection[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> dict[str, str]:
    """Output of each linear layer that stays in FP16 -> the rule."""
    weights = {node.output[0]: int(np.prod(constants[node.input[1]].dims, dtype=np.int64)) for node in layers}
    convolutional = any(node.op_type == "Conv" for node in layers)
    heads = _heads(graph)
    least = LINEAR_SHARE * sum(weights.values())
    why = {}
    for name in (node.output[0] for node in layers if node.op_type != "Conv"):
        if weights[name] >= HEAVY_WEIGHTS:
            continue
        if convolutional or weights[name] < least:
            why[name] = "matrix-vector product with few weights"
        elif name in heads:
            why[name] = "head"
    return why


def _heads(graph: onnx.GraphProto) -> set[str]:
    """Tensors with neither attention nor normalisation between them and an output."""
    maker = {name: node for node in graph.node for name in node.output}
    rest = [value.name for value in graph.output if value.name != "attention"]
    found: set[str] = set()
    while rest:
        name = rest.pop()
        if name in found or name not in maker or maker[name].op_type in _MIXES:
            continue
        found.add(name)
        rest += maker[name].input
    return found


def _layer(
    node: onnx.NodeProto,
    cost: int,
    totals: tuple[int, int],
    linear: Mapping[str, str],
    constants: Mapping[str, onnx.TensorProto],
    users: Mapping[str, list[onnx.NodeProto]],
) -> QuantisableLayer:
    weight = constants[node.input[1]]
    why = linear.get(node.output[0], "")
    if node.op_type == "Conv" and weight.dims[1] <= 3:
        why = "stem: few input channels do better in FP16"
    elif node.op_type == "Conv":
        shares = cost / totals[0], int(np.prod(weight.dims, dtype=np.int64)) / totals[1]
        if max(shares) < SMALL_SHARE:
            why = f"small: {100 * shares[0]:.2f} % of the multiply-adds, {100 * shares[1]:.2f} % of the weights"
    residual = ""
    after = users.get(node.output[0], [])
    if node.op_type == "Conv" and len(after) == 1 and after[0].op_type == "Add":
        other = [name for name in after[0].input if name != node.output[0]]
        residual = other[0] if other and other[0] not in constants else ""
    return QuantisableLayer(
        node.name or node.output[0], node.op_type, node.input[0], node.input[1], residual, cost, why
    )


def tensors_of(layers: Collection[QuantisableLayer]) -> list[str]:
    """The activations whose ranges the layers need, without repeats."""
    names = [layer.activation for layer in layers] + [layer.residual for layer in layers if layer.residual]
    return list(dict.fromkeys(names))


def quantise(
    model: onnx.ModelProto, layers: Collection[QuantisableLayer], amax: Mapping[str, float]
) -> onnx.ModelProto:
    """A copy of `model` with Q/DQ around `layers`. `amax` holds each activation's magnitude that maps to 127.

    An activation that was always zero gets a scale of 1/127, which represents zero exactly.
    """
    chosen = {layer.name: layer for layer in layers}
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    constants = {init.name: init for init in model.graph.initializer}
    produced: dict[str, str] = {}
    new_nodes: list[onnx.NodeProto] = []
    # the residual branch is quantised once per Add: where both inputs come from convolutions, only the first
    residual_of: dict[str, str] = {}
    conv_outputs = {node.output[0] for node in model.graph.node if (node.name or node.output[0]) in chosen}
    for node in model.graph.node:
        if node.op_type == "Add" and any(name in conv_outputs for name in node.input):
            branch = [c.residual for c in chosen.values() if c.residual in node.input]
            if branch:
                residual_of[node.output[0]] = branch[0]

    def activation(name: str) -> str:
        if name not in produced:
            scale = half_scale(np.float32(max(amax[name], 0.0) / 127))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
            graph.initializer.append(numpy_helper.from_array(np.int8(0), f"{name}_zero"))
            q, dq = f"{name}_quantised", f"{name}_dequantised"
            parts = [f"{name}_scale", f"{name}_zero"]
            new_nodes.append(helper.make_node("QuantizeLinear", [name, *parts], [q], name=f"quantise_{name}"))
            new_nodes.append(helper.make_node("DequantizeLinear", [q, *parts], [dq], name=f"dequantise_{name}"))
            produced[name] = dq
        return produced[name]

    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        layer = chosen.get(node.name or node.output[0])
        if layer is not None:
            copy.input[0] = activation(layer.activation)
            copy.input[1] = _weight(graph, new_nodes, node, numpy_helper.to_array(constants[layer.weight]))
        elif node.output[0] in residual_of:
            copy.input[:] = [activation(n) if n == residual_of[node.output[0]] else n for n in node.input]
        new_nodes.append(copy)
    del graph.node[:]
    graph.node.extend(new_nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [init for init in graph.initializer if init.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    onnx.checker.check_model(out)
    return out


def half_scale(scale: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """The next larger scales that FP16 represents exactly, at least 2^-20; 1/127 for 0.

    FP16 graphs would round other scales, and TensorRT refuses a layer with one scale in FP32 and one in FP16.
    """
    wanted = np.where(np.asarray(scale) > 0, np.maximum(scale, 2.0**-20), 1 / 127).astype(np.float32)
    held = wanted.astype(np.float16)
    held = np.where(held.astype(np.float32) < wanted, np.nextafter(held, np.float16(np.inf)), held)
    return held.astype(np.float32)


def _weight(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], node: onnx.NodeProto, value: NDArray[np.float32]
) -> str:
    """Add the int8 weights of a layer, one scale per output channel, and their DequantizeLinear."""
    transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
    axis = 0 if node.op_type == "Conv" or transposed else value.ndim - 1
    others = tuple(i for i in range(value.ndim) if i != axis)
    scale = half_scale(np.abs(value).max(axis=others) / 127)
    shape = [-1 if i == axis else 1 for i in range(value.ndim)]
    quantised = np.clip(np.rint(value / scale.reshape(shape)), -127, 127).astype(np.int8)
    name = f"{node.input[1]}_int8"
    if not any(init.name == name for init in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(quantised, name))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        graph.initializer.append(numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}_zero"))
        parts = [name, f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}_dq"], name=f"dequantise_{name}", axis=axis))
    return f"{name}_dq"
