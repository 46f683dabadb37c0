"""The folded fusion as an ONNX graph, built node by node from a plan (opset 20, float32, dynamic B and S).

The blocks stay grouped by query source, one matrix product for all keys of a query: the self-attention over
blocks has no positions, so only the index of the kept block and the meaning of each weight follow the order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..kernels.folding import LOGITS, FoldedPlan

OPSET, IR_VERSION = 20, 9


def fusion_graph(plan: FoldedPlan) -> onnx.ModelProto:
    """Inputs: each modality (B, S, d) and `present` (B, S, M), float32; outputs: `attention` and the plan's outputs.

    `attention` is (B, S, M), all zero where the plan has none (head `concat`).
    """
    g = _Graph(plan)
    there = g.add("Greater", "present", g.constant(0.5))
    sources = []
    for i, name in enumerate(plan.modalities):
        column = g.add("Gather", there, g.constant([i], np.int64), axis=2)  # (B, S, 1)
        sources.append(g.add("Where", column, name, g.constant(plan.matrices["tokens"][i])))
    both = g.add("Concat", *sources, axis=-1)
    sources.append(g.linear(g.add("Abs", both) if plan.joint_abs else both, "joint.w", "joint.b"))
    encoded = [g.encoder(x, "encoder.", s) for s, x in enumerate(sources)]
    transposed = [g.add("Transpose", x, perm=[0, 2, 1]) for x in encoded]
    attended = {q: _cross(g, encoded, transposed, q, keys) for q, keys, _ in plan.groups()}
    order = [i for _, _, where in plan.groups() for i in where]
    if plan.head == "concat":
        mixed = g.add("Concat", *attended.values(), axis=2)
        mixed = g.add("Reshape", mixed, g.constant([0, 0, len(order) * plan.dim], np.int64))
        w1 = plan.matrices["head.w1"].reshape(len(order), plan.dim, -1)[order].reshape(len(order) * plan.dim, -1)
        hidden = g.add("Add", g.add("MatMul", mixed, g.constant(w1)), g.weight("head.b1"))
        g.add("Mul", "present", g.constant(0.0), out="attention")
    else:
        blocks = g.add("Concat", *(g.linear(x, "cross.o", "cross.o_bias", q) for q, x in attended.items()), axis=2)
        tokens = g.add("Reshape", blocks, g.constant([-1, len(order), plan.dim], np.int64))  # (B S, blocks, d)
        z = g.encoder(tokens, "final.")
        kept = g.add("Gather", z, g.constant([order.index(len(order) - 1)], np.int64), axis=1)
        scores = g.add("MatMul", g.linear(kept, "last.a", "last.c"), g.add("Transpose", z, perm=[0, 2, 1]))
        weights = g.add("Softmax", scores, axis=-1)  # (B S, 1, blocks)
        mixed = g.add("MatMul", weights, z)
        g.attention(weights, there, order)
        hidden = g.linear(mixed, "head.w1", "head.b1")  # (B S, 1, H)
    logits = g.linear(g.add("Relu", hidden), "head.w2", "head.b2")
    steps = g.add("Shape", "present", end=2)
    logits = g.add("Reshape", logits, g.add("Concat", steps, g.constant([-1], np.int64), axis=0))
    for name, where in plan.output_slices.items():
        index = list(range(where.start, where.stop)) if LOGITS[name] > 1 else where.start
        g.add("Gather", logits, g.constant(index, np.int64), axis=2, out=name)
    return g.model()


def _cross(g: _Graph, encoded: list[str], transposed: list[str], q: int, keys: tuple[int, ...]) -> str:
    """One query source against all its key sources: attended keys (B, S, keys, d)."""
    one = g.constant([1], np.int64)
    query = g.add("Unsqueeze", g.linear(encoded[q], "cross.a", "cross.c", q), one)  # (B, 1, S, d)
    k = g.add("Concat", *(g.add("Unsqueeze", transposed[s], one) for s in keys), axis=1)  # (B, keys, d, S)
    v = g.add("Concat", *(g.add("Unsqueeze", encoded[s], one) for s in keys), axis=1)  # (B, keys, S, d)
    mixed = g.add("MatMul", g.add("Softmax", g.add("MatMul", query, k), axis=-1), v)
    return g.add("Transpose", mixed, perm=[0, 2, 1, 3])


class _Graph:
    """Nodes and constants under construction; every method returns the name of its result."""

    def __init__(self, plan: FoldedPlan) -> None:
        self.plan = plan
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32, name: str | None = None) -> str:
        name = name or f"c_{len(self.constants)}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(value, dtype, order="C"), name)
        return name

    def weight(self, name: str, row: int | None = None) -> str:
        matrix = self.plan.matrices[name]
        if row is None:
            return self.constant(matrix, name=name)
        return self.constant(matrix[row], name=f"{name}.{self.plan.sources[row]}")

    def linear(self, x: str, w: str, b: str, row: int | None = None) -> str:
        return self.add("Add", self.add("MatMul", x, self.weight(w, row)), self.weight(b, row))

    def norm(self, x: str, prefix: str, row: int | None) -> str:
        gain, shift = self.weight(f"{prefix}.g", row), self.weight(f"{prefix}.b", row)
        return self.add("LayerNormalization", x, gain, shift, axis=-1, epsilon=self.plan.eps)

    def encoder(self, x: str, prefix: str, row: int | None = None) -> str:
        """(batch, T, d) -> (batch, T, d)."""
        query = self.linear(x, f"{prefix}a", f"{prefix}c", row)
        weights = self.add("Softmax", self.add("MatMul", query, self.add("Transpose", x, perm=[0, 2, 1])), axis=-1)
        attended = self.linear(self.add("MatMul", weights, x), f"{prefix}o", f"{prefix}o_bias", row)
        x1 = self.norm(self.add("Add", x, attended), f"{prefix}norm1", row)
        hidden = self.add("Relu", self.linear(x1, f"{prefix}w1", f"{prefix}b1", row))
        return self.norm(
            self.add("Add", x1, self.linear(hidden, f"{prefix}w2", f"{prefix}b2", row)), f"{prefix}norm2", row
        )

    def attention(self, weights: str, there: str, order: list[int]) -> None:
        """Weights over the grouped blocks (B S, 1, blocks) -> output `attention` (B, S, M)."""
        m = len(self.plan.modalities)
        share = self.add("MatMul", weights, self.constant(self.plan.share[order]))  # (B S, 1, M + 1)
        target = self.add("Concat", self.add("Shape", "present", end=2), self.constant([-1], np.int64), axis=0)
        share = self.add("Reshape", share, target)  # (B, S, M + 1)
        by_modality = self.add("Gather", share, self.constant(list(range(m)), np.int64), axis=2)
        joint = self.add("Gather", share, self.constant([m], np.int64), axis=2)
        here = self.add("Cast", there, to=TensorProto.FLOAT)
        last = self.constant([-1], np.int64)
        count = self.add("Max", self.add("ReduceSum", here, last, keepdims=1), self.constant(1.0))
        split = self.add("Mul", here, self.add("Add", by_modality, self.add("Div", joint, count)))
        total = self.add("Max", self.add("ReduceSum", split, last, keepdims=1), self.constant(1e-12))
        self.add("Div", split, total, out="attention")

    def model(self) -> onnx.ModelProto:
        m, d = len(self.plan.modalities), self.plan.dim
        inputs = [_value(name, d) for name in self.plan.modalities] + [_value("present", m)]
        outputs = [_value("attention", m)]
        outputs += [_value(name, LOGITS[name] if LOGITS[name] > 1 else None) for name in self.plan.outputs]
        graph = helper.make_graph(self.nodes, "fusion", inputs, outputs, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="jmt-edge")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model


def _value(name: str, last: int | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "S"] if last is None else ["B", "S", last])
