"""A random JMT fusion: its unfolded oracle (torch.nn.MultiheadAttention) and the kernels' flat weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jmt_edge.kernels.weights import Encoder, FusionWeights, block_order, multi_head, stack_readouts
from torch import Tensor, nn


class Layer(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(d, heads, batch_first=True)
        self.w1, self.w2 = nn.Linear(d, d), nn.Linear(d, d)
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: Tensor) -> Tensor:
        x = self.n1(x + self.mha(x, x, x)[0])
        return self.n2(x + self.w2(self.w1(x).relu()))

    def flat(self) -> Encoder:
        return Encoder(
            flat(self.mha), norm(self.n1), array(self.w1.weight), array(self.w1.bias),
            array(self.w2.weight), array(self.w2.bias), norm(self.n2),
        )  # fmt: skip


class Oracle(nn.Module):
    """The fusion as models.md states it, by hand: nothing folded, nothing shared with the kernels."""

    def __init__(self, m: int, d: int, heads: int = 1, head: str = "self_attention", seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.m, self.head, self.heads = m, head, heads
        self.tokens = nn.Parameter(torch.randn(m, d))
        self.joint = nn.Linear(m * d, d)
        self.encoders = nn.ModuleList(Layer(d, heads) for _ in range(m + 1))
        self.cross = nn.ModuleList(nn.MultiheadAttention(d, heads, batch_first=True) for _ in range(m + 1))
        blocks = (m + 1) * m
        self.final, self.last = Layer(d, heads), nn.MultiheadAttention(d, heads, batch_first=True)
        self.fc = nn.Linear(blocks * d, 2 * d)  # concat head
        width = d if head == "self_attention" else 2 * d
        # two outputs with a hidden layer, one plain classifier of two logits
        self.first = nn.ModuleList(nn.Linear(width, 24) for _ in range(2))
        self.second = nn.ModuleList(nn.Linear(24, 1) for _ in range(2))
        self.pain = nn.Linear(width, 2)
        for p in self.parameters():
            if p.dim() == 1:
                nn.init.normal_(p, std=0.1)
        for layer in (*self.encoders, self.final):
            nn.init.normal_(layer.n1.weight, 1, 0.1)
            nn.init.normal_(layer.n2.weight, 1, 0.1)
        for attention in (*self.cross, self.last, *(e.mha for e in self.encoders), self.final.mha):
            # sharp enough a softmax that a wrong key shows
            nn.init.normal_(attention.in_proj_weight, std=1.5 / d**0.5)
        self.eval()

    @torch.no_grad()
    def forward(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """features (M, B, S, d), present (B, S, M) -> logits (B, S, 4), attention (B, S, M)."""
        x = [torch.where(present[..., i, None] != 0, features[i], self.tokens[i]) for i in range(self.m)]
        x.append(self.joint(torch.cat(x, -1)))
        y = [encoder(t) for encoder, t in zip(self.encoders, x)]
        z = [self.cross[a](y[a], y[b], y[b])[0] for a, b in block_order(self.m)]
        attention = torch.zeros_like(present)
        if self.head == "concat":
            out = self.fc(torch.cat(z, -1))
        else:
            batch, steps = z[0].shape[:2]
            tokens = torch.stack(z, 2).flatten(0, 1)  # (B·S, L, d)
            tokens = self.final(tokens)
            out, weights = self.last(tokens[:, -1:], tokens, tokens)
            out, weights = out[:, 0].unflatten(0, (batch, steps)), weights[:, 0].unflatten(0, (batch, steps))
            for l, (_, b) in enumerate(block_order(self.m)):
                here = present if b == self.m else torch.nn.functional.one_hot(torch.tensor(b), self.m) * present
                count = present.sum(-1, keepdim=True).clamp(min=1) if b == self.m else 1
                attention = attention + weights[..., l, None] * here / count
            attention = attention / attention.sum(-1, keepdim=True).clamp(min=1e-30)
        parts = [second(first(out).relu()) for first, second in zip(self.first, self.second)]
        return torch.cat([*parts, self.pain(out)], -1), attention

    def flat(self) -> FusionWeights:
        readouts: list[Any] = [
            (name, array(f.weight), array(f.bias), array(s.weight), array(s.bias))
            for name, f, s in zip(("valence", "arousal"), self.first, self.second)
        ]
        readouts.append(("pain", array(self.pain.weight), array(self.pain.bias), np.eye(2), np.zeros(2)))
        hidden, hidden_bias, readout, bias, outputs = stack_readouts(readouts)
        if self.head == "concat":
            hidden, hidden_bias = hidden @ array(self.fc.weight), hidden @ array(self.fc.bias) + hidden_bias
        attend = self.head == "self_attention"
        return FusionWeights(
            ("face", "voice", "eda", "four")[: self.m], self.heads, "self_attention" if attend else "concat",
            array(self.tokens), array(self.joint.weight), array(self.joint.bias),
            tuple(e.flat() for e in self.encoders), tuple(flat(a) for a in self.cross),
            self.final.flat() if attend else None, flat(self.last) if attend else None,
            hidden, hidden_bias, np.arange(len(hidden)) < 48, readout, bias, outputs,
        )  # fmt: skip


def array(t: Tensor) -> np.ndarray:
    return t.detach().double().cpu().numpy()


def norm(n: nn.LayerNorm) -> np.ndarray:
    return np.stack([array(n.weight), array(n.bias)])


def flat(a: nn.MultiheadAttention) -> Any:
    return multi_head(
        array(a.in_proj_weight), array(a.in_proj_bias), array(a.out_proj.weight), array(a.out_proj.bias), a.num_heads
    )


def inputs(m: int, batch: int, steps: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Fresh random features (M, B, S, d) and a mask (B, S, M) with some modalities absent."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(m, batch, steps, d, generator=g)
    present = (torch.rand(batch, steps, m, generator=g) > 0.3).float()
    return features, present
