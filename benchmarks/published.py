"""The published fusion, literally by its equations (arXiv 2403.10488 v2): the baseline, with nothing folded or shared.

`torch.nn.MultiheadAttention` with one head, sequence first as in the released code; weights are copied from our module,
so that both compute the same function and only speed is compared. The papers have two modalities; three follow the same
equations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jmt_edge.models.fusion import JMT


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
    """The modalities' features, each (S, B, dim) -> fused (S, B, dim).

    `blocks`: (query source, key/value source) of each cross-attention, sources numbered as the modalities, the joint
    one last; at M = 2 the papers' six: v <- p, p <- v, j <- v, v <- j, j <- p, p <- j.
    """

    def __init__(self, dim: int, modalities: int, blocks: list[tuple[int, int]]) -> None:
        super().__init__()
        self.blocks = blocks
        self.joint = nn.Linear(modalities * dim, dim)
        self.encoders = nn.ModuleList(EncoderLayer(dim) for _ in range(modalities + 1))
        self.cross = nn.ModuleList(nn.MultiheadAttention(dim, 1) for _ in range(modalities + 1))
        self.final_encoder = EncoderLayer(dim)
        self.final_attention = nn.MultiheadAttention(dim, 1)

    def forward(self, *features: Tensor) -> Tensor:
        joint = self.joint(torch.cat(features, -1))
        x = [encode(source) for encode, source in zip(self.encoders, (*features, joint))]
        stacked = torch.stack([self.cross[q](x[q], x[k], x[k])[0] for q, k in self.blocks])
        flat = self.final_encoder(stacked.flatten(1, 2))  # (blocks, S B, dim): a sequence for every step of a sample
        return self.final_attention(flat, flat, flat)[0][-1].unflatten(0, joint.shape[:2])


class Published(nn.Module):
    """The published fusion with its heads: each modality (B, S, dim) -> the outputs of every step, (B, S, ...).

    It cannot compute the last step alone.
    """

    def __init__(self, fusion: PublishedJMT, heads: nn.Module) -> None:
        super().__init__()
        self.fusion, self.heads = fusion, heads

    def forward(self, *features: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = self.heads(self.fusion(*(x.transpose(0, 1) for x in features)).transpose(0, 1))
        return out


def like(ours: JMT) -> Published:
    """The published module with our weights."""
    index = {name: i for i, name in enumerate(ours.sources)}
    theirs = PublishedJMT(ours.dim, len(ours.modalities), [(index[q], index[k]) for q, k in ours.blocks])
    theirs.joint.load_state_dict(ours.joint.state_dict())
    for i, name in enumerate(ours.sources):
        theirs.encoders[i].load_state_dict(ours.encoders[name].state_dict())
        theirs.cross[i].load_state_dict(ours.cross[name].state_dict())
    theirs.final_encoder.load_state_dict(ours.block_encoder.state_dict())
    theirs.final_attention.load_state_dict(ours.block_attention.state_dict())
    return Published(theirs, ours.heads).eval()
