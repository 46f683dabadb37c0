"""The published fusion as its equations stand (arXiv 2403.10488 v2): the yardstick, with nothing folded or shared.

`torch.nn.MultiheadAttention` of one head, sequence first as the released code has it; weights are copied from
our module, so that both compute the same function and the comparison is of speed alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jmt_edge.models.fusion import JMT, JOINT


class EncoderLayer(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, 1)
        self.feed_forward = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm1(x + self.attention(x, x, x)[0])
        return self.layer_norm2(x + self.feed_forward(x))


class PublishedJMT(nn.Module):
    """Face and a second modality, each (S, B, 512) -> fused (S, B, 512)."""

    def __init__(self, dim: int = 512) -> None:
        super().__init__()
        self.joint = nn.Linear(2 * dim, dim)
        self.encoders = nn.ModuleList(EncoderLayer(dim) for _ in range(3))
        self.cross = nn.ModuleList(nn.MultiheadAttention(dim, 1) for _ in range(3))
        self.final_encoder = EncoderLayer(dim)
        self.final_attention = nn.MultiheadAttention(dim, 1)

    def forward(self, v: Tensor, p: Tensor) -> Tensor:
        j = self.joint(torch.cat([v, p], -1))
        v, p, j = (encode(x) for encode, x in zip(self.encoders, (v, p, j)))
        at_v, at_p, at_j = self.cross
        blocks = [
            at_v(v, p, p)[0], at_p(p, v, v)[0], at_j(j, v, v)[0], at_v(v, j, j)[0], at_j(j, p, p)[0], at_p(p, j, j)[0],
        ]  # fmt: skip
        stacked = torch.stack(blocks)  # (6, S, B, dim): a sequence of six for every step of every sample
        flat = self.final_encoder(stacked.flatten(1, 2))
        return self.final_attention(flat, flat, flat)[0][-1].unflatten(0, v.shape[:2])


def like(ours: JMT) -> PublishedJMT:
    """The published module with our weights."""
    theirs = PublishedJMT(ours.dim).eval()
    names = (*ours.modalities, JOINT)
    theirs.joint.load_state_dict(ours.joint.state_dict())
    for i, name in enumerate(names):
        theirs.encoders[i].load_state_dict(ours.encoders[name].state_dict())
        theirs.cross[i].load_state_dict(ours.cross[name].state_dict())
    theirs.final_encoder.load_state_dict(ours.block_encoder.state_dict())
    theirs.final_attention.load_state_dict(ours.block_attention.state_dict())
    return theirs
