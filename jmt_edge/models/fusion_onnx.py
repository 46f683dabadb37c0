"""The folded fusion as an ONNX graph, built node by node from a plan (opset 20, float32, dynamic B and S).

Only the last step is a result, so only the encoders, whose outputs are the keys and values, run over all steps; what
follows has one row per window. The encoders' linear layers take rows (B S, d), which runtimes turn into one product
with bias. Batching the three sources' matrices into one product was three times slower in onnxruntime, which packs
constant matrices ahead of time only individually.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .folding import LOGITS, FoldedPlan

OPSET, IR_VERSION = 20, 9


def fusion_graph(plan: FoldedPlan) -> onnx.ModelProto:
    """Inputs: each modality (B, S, d) and `present` (B, S, M), float32; outputs, of the last step: `attention`
    (B, 1, M) and the plan's, `pain` (B, 1, 2), `valence` and `arousal` (B, 1).

    `attention` is all zero where the plan has none (head `concat`).
    """
    g = _Graph(plan)
    n, d = len(plan.sources), plan.dim
    there = g.add("Greater", "present", g.constant(0.5))
    sources = []
    for i, name in enumerate(plan.modalities):
        column = g.gather(there, [i], axis=2)  # (B, S, 1)
        sources.append(g.add("Where", column, name, g.constant(plan.matrices["tokens"][i])))
    both = g.reshape(g.add("Concat", *sources, axis=-1), [-1, len(sources) * d])
    rows = [g.reshape(x, [-1, d]) for x in sources]
    rows.append(g.linear(g.add("Abs", both) if plan.joint_abs else both, "joint.w", "joint.b"))
    sequence = g.add("Shape", plan.modalities[0])  # B, S, d
    apart = g.add("Concat", g.add("Shape", "present", end=1), g.constant([1], np.int64),
                  g.add("Shape", plan.modalities[0], start=1), axis=0)  # fmt: skip
    encoded = [g.add("Reshape", g.encoder(x, sequence, "encoder.", s), apart) for s, x in enumerate(rows)]

    # every source's last step against every source's steps: n x n small products cost less than selecting the pairs
    y = g.add("Concat", *encoded, axis=1)  # (B, keys n, S, d)
    last = [g.gather(x, [-1], axis=2) for x in encoded]  # (B, 1, 1, d)
    queries = g.add("Concat", *(g.linear(x, "cross.a", "cross.c", q) for q, x in enumerate(last)), axis=2)
    scores = g.add("MatMul", queries, g.add("Transpose", y, perm=[0, 1, 3, 2]))  # (B, keys n, queries n, S)
    mixed = g.reshape(g.add("MatMul", g.add("Softmax", scores, axis=-1), y), [0, n * n, d])
    if plan.head == "concat":
        blocks = g.gather(mixed, [k * n + q for q, k in plan.blocks], axis=1)
        fused = g.reshape(blocks, [0, 1, len(plan.blocks) * d])
        g.add("Mul", g.gather("present", [-1], axis=1), g.constant(0.0), out="attention")
    else:
        fused = _mix_blocks(g, mixed, g.gather(there, [-1], axis=1))
    hidden = g.add("Relu", g.linear(fused, "head.w1", "head.b1"))
    logits = g.linear(hidden, "head.w2", "head.b2")  # (B, 1, logits)
    for name, where in plan.output_slices.items():
        index = list(range(where.start, where.stop)) if LOGITS[name] > 1 else where.start
        g.gather(logits, index, axis=2, out=name)
    return g.model()


def _mix_blocks(g: _Graph, mixed: str, there: str) -> str:
    """Attended keys (B, n n, d), by key, then query -> the kept block (B, 1, d); writes `attention`.

    The blocks stay grouped by query source, because these share a matrix: the self-attention over blocks has no
    positions, so only the index of the kept block and the meaning of each weight follow the order.
    """
    plan = g.plan
    n, d = len(plan.sources), plan.dim
    groups = [g.gather(mixed, [k * n + q for k in keys], axis=1) for q, keys, _ in plan.groups()]
    tokens = g.add("Concat", *(g.linear(x, "cross.o", "cross.o_bias", q) for q, x in enumerate(groups)), axis=1)
    order = [i for _, _, where in plan.groups() for i in where]
    shape = g.constant([-1, len(order), d], np.int64)
    z = g.add("Reshape", g.encoder(g.reshape(tokens, [-1, d]), shape, "final."), shape)  # (B, blocks, d)
    kept = g.gather(z, [order.index(len(order) - 1)], axis=1)
    scores = g.add("MatMul", g.linear(kept, "last.a", "last.c"), g.add("Transpose", z, perm=[0, 2, 1]))
    weights = g.add("Softmax", scores, axis=-1)  # (B, 1, blocks)
    g.attention(weights, there, order)
    return g.add("MatMul", weights, z)


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

    def gather(self, x: str, index: list[int] | int, axis: int, out: str | None = None) -> str:
        return self.add("Gather", x, self.constant(index, np.int64), axis=axis, out=out)

    def reshape(self, x: str, shape: list[int]) -> str:
        return self.add("Reshape", x, self.constant(shape, np.int64))

    def linear(self, x: str, w: str, b: str, row: int | None = None) -> str:
        return self.add("Add", self.add("MatMul", x, self.weight(w, row)), self.weight(b, row))

    def norm(self, x: str, prefix: str, row: int | None) -> str:
        gain, shift = self.weight(f"{prefix}.g", row), self.weight(f"{prefix}.b", row)
        return self.add("LayerNormalization", x, gain, shift, axis=-1, epsilon=self.plan.eps)

    def encoder(self, x: str, shape: str, prefix: str, row: int | None = None) -> str:
        """(batch T, d) -> (batch T, d); `shape` names the tensor [batch, T, d]."""
        query = self.add("Reshape", self.linear(x, f"{prefix}a", f"{prefix}c", row), shape)
        keys = self.add("Reshape", x, shape)
        weights = self.add("Softmax", self.add("MatMul", query, self.add("Transpose", keys, perm=[0, 2, 1])), axis=-1)
        mixed = self.reshape(self.add("MatMul", weights, keys), [-1, self.plan.dim])
        attended = self.linear(mixed, f"{prefix}o", f"{prefix}o_bias", row)
        x1 = self.norm(self.add("Add", x, attended), f"{prefix}norm1", row)
        hidden = self.add("Relu", self.linear(x1, f"{prefix}w1", f"{prefix}b1", row))
        return self.norm(
            self.add("Add", x1, self.linear(hidden, f"{prefix}w2", f"{prefix}b2", row)), f"{prefix}norm2", row
        )

    def attention(self, weights: str, there: str, order: list[int]) -> None:
        """Weights over the grouped blocks (B, 1, blocks), presence (B, 1, M) -> output `attention` (B, 1, M)."""
        m = len(self.plan.modalities)
        share = self.add("MatMul", weights, self.constant(self.plan.share[order]))  # (B, 1, M + 1)
        by_modality, joint = self.gather(share, list(range(m)), axis=2), self.gather(share, [m], axis=2)
        here = self.add("Cast", there, to=TensorProto.FLOAT)
        last = self.constant([-1], np.int64)
        count = self.add("Max", self.add("ReduceSum", here, last, keepdims=1), self.constant(1.0))
        split = self.add("Mul", here, self.add("Add", by_modality, self.add("Div", joint, count)))
        total = self.add("Max", self.add("ReduceSum", split, last, keepdims=1), self.constant(1e-12))
        self.add("Div", split, total, out="attention")

    def model(self) -> onnx.ModelProto:
        m, d = len(self.plan.modalities), self.plan.dim
        inputs = [_value(name, "B", "S", d) for name in self.plan.modalities] + [_value("present", "B", "S", m)]
        outputs = [_value("attention", "B", 1, m)]
        for name in self.plan.outputs:
            outputs.append(_value(name, "B", 1, LOGITS[name]) if LOGITS[name] > 1 else _value(name, "B", 1))
        graph = helper.make_graph(self.nodes, "fusion", inputs, outputs, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="jmt-edge")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model


def _value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
