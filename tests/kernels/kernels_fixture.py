"""A JMT with random parameters that let mistakes show, and fresh inputs for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jmt_edge.models.fusion import JMT

MODALITIES = ("face", "voice", "eda")


def random_jmt(
    m: int = 2, d: int = 64, heads: int = 1, head: str = "self_attention", seed: int = 0, joint_abs: bool = False
) -> JMT:
    """A JMT in float64 with non-trivial biases and norms, and attention sharp enough that a wrong key shows."""
    torch.manual_seed(seed)
    outputs = ("pain", "valence", "arousal")
    fusion = JMT(MODALITIES[:m], d, outputs, head=head, heads=heads, joint_abs=joint_abs)  # type: ignore[arg-type]
    for name, p in fusion.named_parameters():
        if "layer_norm" in name and name.endswith("weight"):
            nn.init.normal_(p, 1, 0.1)
        elif p.dim() == 1:
            nn.init.normal_(p, std=1.0 if "tokens" in name else 0.1)
        elif "in_proj_weight" in name:
            nn.init.normal_(p, std=1.5 / d**0.5)
    return fusion.double().eval()


@torch.no_grad()
def oracle(fusion: JMT, features: Tensor, present: Tensor, last: bool = False) -> tuple[Tensor, Tensor | None]:
    """features (M, B, S, d), present (B, S, M) -> logits (B, S, outputs) side by side, attention (B, S, M) or None.

    `last`: the last step of them, computed with all others.
    """
    dtype = next(fusion.parameters()).dtype
    named = {name: x.to(dtype) for name, x in zip(fusion.modalities, features)}
    out = fusion(named, present.to(dtype), return_attention=True)
    logits = [out[name] if out[name].dim() == 3 else out[name][..., None] for name in fusion.outputs]
    side_by_side, attention = torch.cat(logits, -1), out.get("attention")
    if last:
        return side_by_side[:, -1:], None if attention is None else attention[:, -1:]
    return side_by_side, attention


def inputs(m: int, batch: int, steps: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Fresh random features (M, B, S, d) and a mask (B, S, M) with some modalities absent."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(m, batch, steps, d, generator=g)
    present = (torch.rand(batch, steps, m, generator=g) > 0.3).float()
    return features, present
