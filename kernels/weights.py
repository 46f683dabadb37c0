"""What the fusion kernels compute from: one flat set of float64 matrices, folded or (multi-head) not.

All matrices are (out, in), applied as `x @ w.T`. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..models.folding import JOINT, block_order

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Attention:
    """`softmax(q k^T) v`, then `out`, then `bias`.

    One head, folded: q = query x + query_bias (the 1/sqrt(d) inside), k = x itself, v = value x, no `out`; before
    a concat head `value` too is folded away. Several heads: all four matrices, `value`'s bias inside `bias`.
    """

    query: Array  # (d, d)
    query_bias: Array  # (d,)
    bias: Array  # (d,)
    value: Array | None = None  # (d, d)
    key: Array | None = None  # (d, d); a key bias cancels in the softmax
    out: Array | None = None  # (d, d)

    @property
    def elements(self) -> int:
        return sum(int(m.size) for m in (self.query, self.key, self.value, self.out) if m is not None)


@dataclass(frozen=True)
class Encoder:
    """`x1 = LN1(x + attention(x))`, `y = LN2(x1 + w2 relu(w1 x1 + b1) + b2)`; a norm is (2, d): gain, shift."""

    attention: Attention
    norm1: Array
    w1: Array
    b1: Array
    w2: Array
    b2: Array
    norm2: Array


@dataclass(frozen=True)
class FusionWeights:
    """A Joint Multimodal Transformer's fusion: M modalities, N = M + 1 sources (the joint last), L = N·M blocks."""

    modalities: tuple[str, ...]
    heads: int
    head: Literal["self_attention", "concat"]
    tokens: Array  # (M, d): stands for the features of an absent modality
    joint: Array  # (d, M·d)
    joint_bias: Array  # (d,)
    encoders: tuple[Encoder, ...]  # N
    cross: tuple[Attention, ...]  # N, by query source
    final: Encoder | None  # head self_attention
    last: Attention | None  # head self_attention
    hidden: Array  # (H, d) on the last attention's output, (H, L·d) on the blocks for head concat; then a ReLU
    hidden_bias: Array  # (H,)
    readout: Array  # (outputs, H): block-diagonal where each output has its own hidden units
    readout_bias: Array  # (outputs,)
    outputs: tuple[tuple[str, int], ...]  # name and number of logits, in the readout's order
    joint_abs: bool = False  # the joint reads |features|
    eps: float = 1e-5  # of every LayerNorm

    @property
    def dim(self) -> int:
        return int(self.tokens.shape[1])

    @property
    def sources(self) -> int:
        return len(self.modalities) + 1

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """(query source, key/value source) of each cross-attention, in stacking order; the joint is source M."""
        place = {name: i for i, name in enumerate((*self.modalities, JOINT))}
        return [(place[q], place[kv]) for q, kv in block_order(self.modalities)]

    @property
    def matrix_elements(self) -> int:
        """Elements of all matrices that a full inference must read: the weight-bandwidth floor."""
        total = self.joint.size + self.hidden.size
        for e in (*self.encoders, *([self.final] if self.final is not None else [])):
            total += e.attention.elements + e.w1.size + e.w2.size
        return total + sum(a.elements for a in (*self.cross, *([self.last] if self.last is not None else [])))
