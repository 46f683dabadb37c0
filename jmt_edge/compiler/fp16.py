"""Explicit FP16 conversion of an ONNX graph, for strongly typed networks.

The graph itself states every type, so TensorRT 10.3 to 11, TensorRT-RTX and onnxruntime all compute the same and no
builder flag is needed (TensorRT 11 has none). Nodes that lose accuracy in half precision stay in FP32 between explicit
casts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import BackendError

# Sums over many elements, and exponentials, need more than FP16's 11 bits and maximum of 65504.
FP32_OPS = frozenset({"LayerNormalization", "Softmax", "ReduceL2", "LpNormalization", "ReduceSum", "ReduceMean"})
# Ops that turn such a sum into a norm and divide by it: in FP16 the 1e-12 that keeps it from 0 would itself be 0.
_NORM_OPS = frozenset({"Sqrt", "Clip", "Max", "Add", "Expand", "Div"})
_SUMS = frozenset({"ReduceL2", "LpNormalization", "ReduceSum"})
_FEW = 64  # elements of a constant that counts as small
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Conversion:
    """The converted graph, and the names of the nodes kept in FP32."""

    model: onnx.ModelProto
    kept: tuple[str, ...]


def to_fp16(model: onnx.ModelProto) -> Conversion:
    """Convert a float32 graph to FP16, with inputs and outputs left as they are.

    `FP32_OPS` stay in FP32, as does a node with a constant that FP16 cannot hold (beyond 65504, or a quantisation scale
    that would be rounded by more than 2^-10). Nodes keep their topological order, which TensorRT's parser requires.

    Raises BackendError where the graph has sub-graphs or no inferable types.
    """
    source = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = source.graph
    if any(a.HasField("g") for node in graph.node for a in node.attribute):
        raise BackendError(
            "the ONNX graph has control flow, which FP16 conversion does not cover; use --precision fp32"
        )
    constants = {init.name: init for init in graph.initializer}
    types = _tensor_types(graph)

    kept = {i for i, node in enumerate(graph.node) if node.op_type in FP32_OPS or _overflows(node, constants)}
    kept |= _norms(graph, types)
    kept |= _between(graph, kept, constants, types)
    home: dict[str, int] = {value.name: TensorProto.FLOAT for value in graph.input}
    for i, node in enumerate(graph.node):
        for name in node.output:
            home[name] = TensorProto.FLOAT if i in kept else TensorProto.FLOAT16

    out = onnx.GraphProto(name=graph.name)
    out.input.extend(graph.input)
    out.output.extend(graph.output)
    made: set[tuple[str, int]] = set()

    def constant(name: str, want: int) -> str:
        alias = name if want == TensorProto.FLOAT else f"{name}_fp16"
        if (name, want) not in made:
            made.add((name, want))
            value = numpy_helper.to_array(constants[name])
            out.initializer.append(
                numpy_helper.from_array(value.astype(np.float16 if want == TensorProto.FLOAT16 else np.float32), alias)
            )
        return alias

    def tensor(name: str, want: int) -> str:
        if not name or types.get(name) not in _FLOATS:
            return name
        if name in constants:
            return constant(name, want)
        if home[name] == want:
            return name
        alias = f"{name}_as_{'fp16' if want == TensorProto.FLOAT16 else 'fp32'}"
        if (name, want) not in made:
            made.add((name, want))
            out.node.append(helper.make_node("Cast", [name], [alias], name=f"cast_{alias}", to=want))
        return alias

    for i, node in enumerate(graph.node):
        want = TensorProto.FLOAT if i in kept else TensorProto.FLOAT16
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(tensor(name, want) for name in node.input)
        if want == TensorProto.FLOAT16:
            _halve_attributes(copy)
        out.node.append(copy)
    # graph outputs keep their FP32 names: the producing node writes an alias, a cast writes the name
    for name in (value.name for value in graph.output):
        if types.get(name) in _FLOATS and home.get(name) == TensorProto.FLOAT16:
            alias = f"{name}_half"
            for node in out.node:
                for names in (node.input, node.output):
                    for j, item in enumerate(names):
                        if item == name:
                            names[j] = alias
            out.node.append(helper.make_node("Cast", [alias], [name], name=f"cast_{name}", to=TensorProto.FLOAT))
    used = {name for node in out.node for name in node.input}
    out.initializer.extend(
        init for init in graph.initializer if init.name in used and types.get(init.name) not in _FLOATS
    )

    converted = helper.make_model(out, opset_imports=source.opset_import, ir_version=source.ir_version)
    converted.producer_name = "jmt-edge"
    converted.functions.extend(source.functions)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(converted, strict_mode=True))
    return Conversion(converted, tuple(graph.node[i].name or graph.node[i].op_type for i in sorted(kept)))


def _norms(graph: onnx.GraphProto, types: Mapping[str, int]) -> set[int]:
    """Nodes between a sum of squares and the division by it, the division included."""
    found: set[int] = set()
    within: set[str] = set()
    for i, node in enumerate(graph.node):
        divisor = node.input[1:] if node.op_type == "Div" else node.input
        if node.op_type in _SUMS and types.get(node.output[0]) == TensorProto.FLOAT:
            within |= set(node.output)
        elif node.op_type in _NORM_OPS and within & set(divisor):
            found.add(i)
            within |= set(node.output) if node.op_type != "Div" else set()
    return found


def _between(
    graph: onnx.GraphProto, kept: set[int], constants: Mapping[str, onnx.TensorProto], types: Mapping[str, int]
) -> set[int]:
    """Cheap nodes surrounded by FP32 nodes: FP16 would save nothing and cost two casts."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output}
    readers: dict[str, set[int]] = {value.name: {-1} for value in graph.output}  # -1: outside, never in `found`
    for i, node in enumerate(graph.node):
        for name in node.input:
            readers.setdefault(name, set()).add(i)

    def real(names: Iterable[str]) -> list[str]:
        return [name for name in names if types.get(name) == TensorProto.FLOAT and name not in constants]

    def light(node: onnx.NodeProto) -> bool:
        large = any(np.prod(constants[name].dims) > _FEW for name in node.input if name in constants)
        return bool(real(node.output)) and not large and not (node.op_type == "MatMul" and len(real(node.input)) > 1)

    found = {i for i, node in enumerate(graph.node) if i not in kept and light(node)}
    while True:
        wide = found | kept
        enclosed = {
            i
            for i in found
            if all(maker.get(name, -1) in wide for name in real(graph.node[i].input))
            and all(readers.get(name, set()) <= wide for name in real(graph.node[i].output))
        }
        if enclosed == found:
            return found
        found = enclosed


def _tensor_types(graph: onnx.GraphProto) -> dict[str, int]:
    types = {init.name: init.data_type for init in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    missing = [name for node in graph.node for name in node.output if name and name not in types]
    if missing:
        raise BackendError(f"the ONNX graph gives no type for '{missing[0]}'; export the bundle again")
    return types


def _overflows(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    scales = set(node.input[1:2]) if node.op_type in ("QuantizeLinear", "DequantizeLinear") else set()
    for name in node.input:
        if name in constants and constants[name].data_type == TensorProto.FLOAT:
            value = np.abs(numpy_helper.to_array(constants[name]))
            if value.size and value.max() > np.finfo(np.float16).max:
                return True
            if name in scales and np.any(np.abs(value.astype(np.float16) - value) > value * 2.0**-10):
                return True
    return False


def _halve_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(value, attribute.t.name))


def pad_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose FP16 convolutions with an odd number of input channels get one more, of zeros, with zero weights.

    TensorRT-RTX 1.7 would do so itself, with a plane of zeros as large as the input stored in the plan (200 KB for a
    clip of 8x112x112) and read in each run; an explicit Pad needs neither.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    constants = {init.name: init for init in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "Conv" else None
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if weight is not None and weight.data_type == TensorProto.FLOAT16 and weight.dims[1] % 2 and groups == 1:
            space = [0] * (len(weight.dims) - 2)
            ends, wide, kernel = (f"{node.output[0]}_{what}" for what in ("pads", "padded", "padded_weight"))
            pads = np.array([0, 0, *space, 0, 1, *space])
            value = np.pad(numpy_helper.to_array(weight), [(0, 0), (0, 1), *((0, 0) for _ in space)])
            graph.initializer.extend([numpy_helper.from_array(pads, ends), numpy_helper.from_array(value, kernel)])
            nodes.append(helper.make_node("Pad", [node.input[0], ends], [wide], name=f"pad_{node.name}"))
            node.input[0], node.input[1] = wide, kernel
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [init for init in graph.initializer if init.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return copy


def shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes of a graph's inputs, outputs and inferred tensors, 0 for an axis without a size."""
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def static_shapes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """A copy whose named axes (`N`, `B`, `S`) have the given sizes: live engines have static shapes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in sizes:
                axis.dim_value = sizes[axis.dim_param]
    del copy.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(copy, data_prop=True)
