"""Fewer distinct scales in a quantised graph, so that layers share kernels, without loss.

A compiler builds an activation's scale into the kernel that rounds to it. TensorRT-RTX stores that kernel's source,
some 130 KB, for each shape *and scale*, and compiles each on the device.

Between layers with constant weights the scale of an activation can be chosen: ReLU, max pooling and reshaping commute
with a positive factor, so the layer before can be multiplied by c and the layers after divided by it (Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, equation 5; here one factor per
tensor). The quantised weights keep their integers; only their scales change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

RANGE = 127 * 2.0**-5  # a power of two as scale: exact in FP16
FARTHEST = 64.0  # a larger factor could move the weights' scales out of FP16's normal range
_MOVES = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"})
_PARTS = frozenset({"Gather", "Slice", "Split"})
_HOMOGENEOUS = _MOVES | {"Relu", "MaxPool"}
_LINEAR = frozenset({"Conv", "Gemm", "MatMul"})


def equalise(model: onnx.ModelProto, amax: Mapping[str, float]) -> tuple[onnx.ModelProto, dict[str, float]]:
    """A float32 model with the same outputs up to rounding, and the magnitudes of its activations.

    Every tensor of `amax` (name -> magnitude that maps to 127) whose scale can be chosen gets the magnitude `RANGE`, if
    within a factor of `FARTHEST` of it; views and parts of a tensor get the widest range among them.
    """
    graph = _Graph(model)
    widest: dict[str, float] = {}
    for tensor, magnitude in amax.items():
        whole = graph.whole(tensor)
        widest[whole] = max(widest.get(whole, 0.0), magnitude)
    ranges = {tensor: widest[graph.whole(tensor)] for tensor in amax}
    factors: dict[str, float] = {}  # of each constant
    for tensor, magnitude in ranges.items():
        before, after = graph.constants_before(tensor), graph.constants_after(tensor)
        if before and after and RANGE / FARTHEST <= magnitude <= RANGE * FARTHEST:
            ranges[tensor] = RANGE
            for name, factor in (*((n, RANGE / magnitude) for n in before), *((n, magnitude / RANGE) for n in after)):
                factors[name] = factors.get(name, 1.0) * factor
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for init in out.graph.initializer:
        if init.name in factors:
            value = numpy_helper.to_array(init) * np.float32(factors[init.name])
            init.CopyFrom(numpy_helper.from_array(value, init.name))
    return out, ranges


class _Graph:
    """The producer and the readers of each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._maker = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._constants = {init.name for init in model.graph.initializer}
        self._answers = {value.name for value in model.graph.output}

    def whole(self, tensor: str) -> str:
        """The tensor of which `tensor` is a view or a part."""
        while tensor in self._maker and self._maker[tensor].op_type in _MOVES | _PARTS:
            tensor = self._maker[tensor].input[0]
        return tensor

    def constants_before(self, tensor: str) -> list[str]:
        """The weights and biases that `tensor` is proportional to; none where it is not proportional to constants."""
        found: list[str] = []
        name = tensor
        while name in self._maker:
            node = self._maker[name]
            if name != tensor and (name in self._answers or len(self._readers[name]) > 1):
                return []
            own = [i for i in node.input if i in self._constants]
            if node.op_type in _LINEAR:
                return self._unshared([*found, *own]) if own[:1] == [node.input[1]] else []
            if node.op_type == "Add" and len(own) == 1:
                found += own
                (name,) = (i for i in node.input if i not in self._constants)
            elif node.op_type in _HOMOGENEOUS:
                name = node.input[0]
            else:
                return []
        return []

    def constants_after(self, tensor: str) -> list[str]:
        """The weights of the linear layers that read `tensor`; none where anything else reads it."""
        readers = self._readers.get(tensor, [])
        linear = all(n.op_type in _LINEAR and n.input[0] == tensor and n.input[1] in self._constants for n in readers)
        return self._unshared([n.input[1] for n in readers]) if linear and tensor not in self._answers else []

    def _unshared(self, constants: Collection[str]) -> list[str]:
        """`constants`, or none where another node reads one of them."""
        alone = all(len(self._readers[name]) == 1 for name in constants)
        return [*constants] if alone and len(set(constants)) == len(constants) else []
