"""From a trained fusion to the kernels' flat weights: a folded plan, or a multi-head module as it stands."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ConfigError
from ..models.folding import LOGITS, FoldedPlan, f64, fold, head_layers
from ..models.fusion import JMT, Fusion
from .weights import Array, Attention, Encoder, FusionWeights


def weights_of(fusion: FoldedPlan | Fusion) -> FusionWeights:
    """A plan's matrices, or a module's: folded where it has one head, multi-head otherwise.

    Raises ConfigError, naming the reason, for a fusion that the kernels do not compute.
    """
    if isinstance(fusion, FoldedPlan):
        return _from_plan(fusion)
    if isinstance(fusion, JMT) and fusion.attention_heads > 1:
        return _from_module(fusion)
    return _from_plan(fold(fusion))


def _from_plan(plan: FoldedPlan) -> FusionWeights:
    """Transpose a plan's row-vector matrices to (out, in)."""
    w = plan.matrices
    attend = plan.head == "self_attention"

    def attention(prefix: str, index: Any) -> Attention:
        value = w.get(f"{prefix}.o")
        bias = np.zeros(plan.dim) if value is None else w[f"{prefix}.o_bias"][index]
        return Attention(
            w[f"{prefix}.a"][index].T, w[f"{prefix}.c"][index], bias, None if value is None else value[index].T
        )

    def encoder(prefix: str, index: Any) -> Encoder:
        def part(name: str) -> Array:
            return w[f"{prefix}.{name}"][index]

        norms = [np.stack([part(f"norm{i}.g"), part(f"norm{i}.b")]) for i in (1, 2)]
        feed_forward = (part("w1").T, part("b1"), part("w2").T, part("b2"))
        return Encoder(attention(prefix, index), norms[0], *feed_forward, norms[1])

    sources = range(len(plan.sources))
    return FusionWeights(
        plan.modalities, 1, "self_attention" if attend else "concat",
        w["tokens"], w["joint.w"].T, w["joint.b"],
        tuple(encoder("encoder", s) for s in sources), tuple(attention("cross", s) for s in sources),
        encoder("final", ...) if attend else None, attention("last", ...) if attend else None,
        w["head.w1"].T, w["head.b1"], w["head.w2"].T, w["head.b2"],
        tuple((name, LOGITS[name]) for name in plan.outputs), plan.joint_abs, plan.eps,
    )  # fmt: skip


def _from_module(fusion: JMT) -> FusionWeights:
    if fusion.attention_kind != "standard":
        raise ConfigError(
            f"the fusion kernels compute standard attention, not {fusion.attention_kind}; use onnxruntime"
        )
    if not fusion.has_joint or fusion.temporal:
        raise ConfigError("the fusion kernels need a joint source and no temporal network; use onnxruntime")
    attend = fusion.head == "self_attention"
    hidden, hidden_bias, readout, readout_bias = (x.T for x in head_layers(fusion))
    if not attend:
        hidden_bias = hidden @ f64(fusion.concat.bias) + hidden_bias
        hidden = hidden @ f64(fusion.concat.weight)
    encoders: list[Any] = [fusion.encoders[s] for s in fusion.sources]
    return FusionWeights(
        fusion.modalities, fusion.attention_heads, "self_attention" if attend else "concat",
        np.stack([f64(fusion.missing.tokens[m]) for m in fusion.modalities]),
        f64(fusion.joint.weight), f64(fusion.joint.bias),
        tuple(_encoder(e) for e in encoders), tuple(_attention(fusion.cross[s]) for s in fusion.sources),
        _encoder(fusion.block_encoder) if attend else None, _attention(fusion.block_attention) if attend else None,
        hidden, hidden_bias, readout, readout_bias, tuple((name, LOGITS[name]) for name in fusion.outputs),
        fusion.joint_abs, encoders[0].layer_norm1.eps,
    )  # fmt: skip


def _attention(layer: Any) -> Attention:
    """The scale moves into the query, the value's bias past the softmax, whose rows sum to 1; the key's cancels."""
    wq, wk, wv = np.split(f64(layer.in_proj_weight), 3)
    bq, _, bv = np.split(f64(layer.in_proj_bias), 3)
    out, scale = f64(layer.out_proj.weight), 1 / np.sqrt(layer.dim // layer.heads)
    return Attention(wq * scale, bq * scale, out @ bv + f64(layer.out_proj.bias), wv, wk, out)


def _encoder(layer: Any) -> Encoder:
    w1, w2 = layer.feed_forward[0], layer.feed_forward[2]
    norm1, norm2 = (np.stack([f64(n.weight), f64(n.bias)]) for n in (layer.layer_norm1, layer.layer_norm2))
    feed_forward = (f64(w1.weight), f64(w1.bias), f64(w2.weight), f64(w2.bias))
    return Encoder(_attention(layer.attention), norm1, *feed_forward, norm2)
