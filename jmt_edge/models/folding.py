"""Folding: a trained JMT as a flat plan of fewer matrices, equal in exact arithmetic.

With one attention head the projections merge (row vectors throughout: `x @ A`):

    scores = (x Wq^T + bq)(y Wk^T + bk)^T / sqrt(d)  ->  (x A + c) y^T     A = Wq^T Wk / sqrt(d), c = bq Wk / sqrt(d)
    (P (y Wv^T + bv)) Wo^T + bo                      ->  (P y) O + o       O = Wv^T Wo^T, o = Wo bv + bo

The first holds because terms that are constant over the keys cancel in the softmax, the second because the rows of P
sum to 1. Linear layers with nothing between them merge too: the last attention's O is merged into the heads. Folding is
computed in float64.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import block_diag

from ..errors import ConfigError

if TYPE_CHECKING:  # a saved plan is read without torch
    from .fusion import JMT, Fusion

Array = npt.NDArray[Any]
LOGITS = {"pain": 2, "valence": 1, "arousal": 1}
JOINT = "joint"


def block_order(modalities: Sequence[str], joint: bool = True) -> tuple[tuple[str, str], ...]:
    """The cross-attentions (query source, key/value source) in stacking order.

    Pairs of modalities first, `a<-b, b<-a`, then `joint<-m, m<-joint` for each modality. For two modalities
    this is the papers' order v<-p, p<-v, j<-v, v<-j, j<-p, p<-j.
    """
    order = []
    for i, a in enumerate(modalities):
        for b in modalities[i + 1 :]:
            order += [(a, b), (b, a)]
    if joint:
        for m in modalities:
            order += [(JOINT, m), (m, JOINT)]
    return tuple(order)


def modality_share(modalities: Sequence[str], blocks: Sequence[tuple[str, str]]) -> list[list[float]]:
    """(blocks, M + 1): 1 where a block's key/value source is that modality; the last column is the joint source.

    The share of the joint source is split evenly over the present modalities; absent ones get 0 and the rest
    are scaled to sum to 1.
    """
    columns = (*modalities, JOINT)
    return [[float(source == column) for column in columns] for _, source in blocks]


@dataclass(frozen=True)
class FoldedPlan:
    """A folded fusion. Sources are the M modalities, then the joint one (index M); N = M + 1; d = `dim`.

    `matrices` (float64), all for row vectors:

    | name | shape | use |
    |---|---|---|
    | `tokens` | (M, d) | replaces a modality's features where `present` is 0 |
    | `joint.w`, `joint.b` | (M d, d), (d) | joint source = [x_0; ...; x_M-1] w + b (|x| if `joint_abs`) |
    | `encoder.a`, `.c` | (N, d, d), (N, d) | self-attention of source s: scores = (x a[s] + c[s]) x^T |
    | `encoder.o`, `.o_bias` | (N, d, d), (N, d) | attended = (softmax(scores) x) o[s] + o_bias[s] |
    | `encoder.norm1.g`, `.b` | (N, d) | x1 = LayerNorm(x + attended) |
    | `encoder.w1`, `.b1`, `.w2`, `.b2` | (N, d, d), (N, d), ... | feed-forward relu(x1 w1 + b1) w2 + b2 |
    | `encoder.norm2.g`, `.b` | (N, d) | y = LayerNorm(x1 + feed-forward) |
    | `cross.a`, `.c`, `.o`, `.o_bias` | like encoder | query source q: (y_q a[q] + c[q]) y_k^T, for each k != q |
    | `final.*` | like encoder, no N axis | head `self_attention`: encoder layer over the blocks of one step |
    | `last.a`, `last.c` | (d, d), (d) | its last block queries all blocks; mixed = softmax((z_last a + c) z^T) z |
    | `head.w1`, `head.b1` | (K, H), (H) | hidden = relu(mixed w1 + b1); K = d, or blocks * d for head `concat` |
    | `head.w2`, `head.b2` | (H, L), (L) | the logits of all outputs side by side, `output_slices` |

    Head `concat` has no `final.*` and `last.*`: `mixed` is the attended keys (before `o`, which is folded into
    `head.w1`) of all blocks, concatenated in the order of `blocks`, and `cross.o`, `cross.o_bias` are absent.
    A linear output appears in `head.w1` as the columns +z, -z, because relu(z) - relu(-z) = z exactly.
    """

    modalities: tuple[str, ...]
    outputs: tuple[str, ...]
    head: str
    dim: int
    matrices: dict[str, Array] = field(repr=False)
    joint_abs: bool = False
    eps: float = 1e-5

    @property
    def sources(self) -> tuple[str, ...]:
        return (*self.modalities, JOINT)

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Cross-attentions as (query source, key source) indices, in stacking order; the last one is kept."""
        index = {name: i for i, name in enumerate(self.sources)}
        return tuple((index[q], index[k]) for q, k in block_order(self.modalities))

    def groups(self) -> tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...]:
        """The blocks grouped by query source: (query, its key sources, their positions in `blocks`)."""
        return tuple(
            (q, tuple(k for p, k in self.blocks if p == q), tuple(i for i, b in enumerate(self.blocks) if b[0] == q))
            for q in range(len(self.sources))
        )

    @property
    def output_slices(self) -> dict[str, slice]:
        """Where each output's logits lie in the last axis of `head.w2`."""
        slices, start = {}, 0
        for name in self.outputs:
            slices[name] = slice(start, start + LOGITS[name])
            start += LOGITS[name]
        return slices

    @property
    def share(self) -> Array:
        """(blocks, M + 1): see `models.fusion.modality_share`."""
        return np.array(modality_share(self.modalities, block_order(self.modalities)))

    def structure(self) -> dict[str, Any]:
        """Everything but the matrices."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "matrices"}

    def to_safetensors_dict(self, dtype: npt.DTypeLike = np.float32) -> tuple[dict[str, Array], dict[str, str]]:
        """The matrices in `dtype` and the metadata, as `safetensors.numpy.save` takes them."""
        tensors = {name: np.ascontiguousarray(m.astype(dtype)) for name, m in self.matrices.items()}
        return tensors, {"plan": json.dumps(self.structure())}  # one entry, since their order in a file is not fixed

    @classmethod
    def from_safetensors(cls, data: bytes) -> FoldedPlan:
        """The plan in the content of a safetensors file. Raises ConfigError for a file of another kind."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(data)
            # `load` ignores the metadata: 8 bytes of length, then the header as JSON
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return cls.from_safetensors_dict(tensors, header.get("__metadata__", {}))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"these weights are not a folded fusion ({error}); export the bundle again") from None

    @classmethod
    def from_safetensors_dict(cls, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> FoldedPlan:
        """Inverse of `to_safetensors_dict`. Raises ConfigError for a file of another kind."""
        if "plan" not in metadata:
            raise ConfigError("these weights are not a folded fusion; give fusion_folded.safetensors of a bundle")
        s = json.loads(metadata["plan"])
        matrices = {name: np.asarray(m, np.float64) for name, m in tensors.items()}
        s |= {"modalities": tuple(s["modalities"]), "outputs": tuple(s["outputs"])}
        return cls(matrices=matrices, **s)


def fold(fusion: Fusion) -> FoldedPlan:
    """Fold a trained JMT (any M and S, both heads). The module is only read.

    Raises ConfigError, naming the reason, for a fusion that has no exact folded form.
    """
    from .fusion import JMT

    if not isinstance(fusion, JMT):
        raise ConfigError(f"a {type(fusion).__name__} fusion does not fold; only the joint transformer does")
    reason = _obstacle(fusion)
    if reason:
        raise ConfigError(f"this fusion does not fold: {reason}; use its unfolded graph")
    d, matrices = fusion.dim, {}
    matrices["tokens"] = np.stack([f64(fusion.missing.tokens[m]) for m in fusion.modalities])
    matrices["joint.w"], matrices["joint.b"] = _linear(fusion.joint)
    encoders = [_encoder(fusion.encoders[s]) for s in fusion.sources]
    matrices.update({f"encoder.{k}": np.stack([e[k] for e in encoders]) for k in encoders[0]})
    cross = [_attention(fusion.cross[s]) for s in fusion.sources]
    matrices.update({f"cross.{k}": np.stack([c[k] for c in cross]) for k in cross[0]})
    w1, b1, matrices["head.w2"], matrices["head.b2"] = head_layers(fusion)
    if fusion.head == "self_attention":
        matrices.update({f"final.{k}": v for k, v in _encoder(fusion.block_encoder).items()})
        last = _attention(fusion.block_attention)
        matrices["last.a"], matrices["last.c"] = last["a"], last["c"]
        matrices["head.w1"], matrices["head.b1"] = last["o"] @ w1, last["o_bias"] @ w1 + b1
    else:
        concat_w, concat_b = _linear(fusion.concat)
        w1, b1 = concat_w @ w1, concat_b @ w1 + b1  # (blocks d, H)
        query = [fusion.sources.index(q) for q, _ in fusion.blocks]
        rows = w1.reshape(len(query), d, -1)
        matrices["head.w1"] = np.concatenate([matrices["cross.o"][q] @ r for q, r in zip(query, rows)])
        matrices["head.b1"] = b1 + sum(matrices["cross.o_bias"][q] @ r for q, r in zip(query, rows))
        del matrices["cross.o"], matrices["cross.o_bias"]
    first: Any = fusion.encoders[JOINT]
    eps = float(first.layer_norm1.eps)
    return FoldedPlan(fusion.modalities, fusion.outputs, fusion.head, d, matrices, fusion.joint_abs, eps)


def _obstacle(fusion: JMT) -> str:
    if fusion.attention_heads != 1:
        return f"it has {fusion.attention_heads} attention heads, and projections merge only for a single head"
    if fusion.attention_kind != "standard":
        return f"its attention is {fusion.attention_kind}, whose weights are not normalised over the keys"
    if not fusion.has_joint:
        return "it has no joint source"
    if fusion.temporal:
        return f"a temporal network precedes it ({', '.join(fusion.temporal)})"
    return ""


def f64(tensor: Any) -> Array:
    """A module's tensor as a float64 array."""
    return tensor.detach().cpu().double().numpy()


def _linear(layer: Any) -> tuple[Array, Array]:
    return f64(layer.weight).T, f64(layer.bias)


def _attention(layer: Any) -> dict[str, Array]:
    wq, wk, wv = np.split(f64(layer.in_proj_weight), 3)
    bq, _, bv = np.split(f64(layer.in_proj_bias), 3)
    wo, bo = f64(layer.out_proj.weight), f64(layer.out_proj.bias)
    scale = 1 / math.sqrt(layer.dim)
    return {"a": wq.T @ wk * scale, "c": bq @ wk * scale, "o": wv.T @ wo.T, "o_bias": wo @ bv + bo}


def _encoder(layer: Any) -> dict[str, Array]:
    w1, b1 = _linear(layer.feed_forward[0])
    w2, b2 = _linear(layer.feed_forward[2])
    norms = {
        f"norm{i}.{k}": f64(t)
        for i, norm in ((1, layer.layer_norm1), (2, layer.layer_norm2))
        for k, t in (("g", norm.weight), ("b", norm.bias))
    }
    return {**_attention(layer.attention), **norms, "w1": w1, "b1": b1, "w2": w2, "b2": b2}


def head_layers(fusion: JMT) -> tuple[Array, Array, Array, Array]:
    """All output heads as one hidden layer and one output layer: w1, b1, w2 (block-diagonal), b2."""
    first, second = [], []
    for name in fusion.outputs:
        head: Any = fusion.heads[name]
        if hasattr(head, "weight"):  # one linear layer: z = relu(z) - relu(-z)
            w, b = _linear(head)
            eye = np.eye(LOGITS[name])
            first.append((np.concatenate([w, -w], 1), np.concatenate([b, -b])))
            second.append((np.concatenate([eye, -eye]), np.zeros(LOGITS[name])))
        else:
            first.append(_linear(head[0]))
            second.append(_linear(head[3]))
    return (
        np.concatenate([w for w, _ in first], 1),
        np.concatenate([b for _, b in first]),
        block_diag(*(w for w, _ in second)),
        np.concatenate([b for _, b in second]),
    )
