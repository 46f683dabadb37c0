"""Two backbones of one modality combined: the JMT paper's intra-modal fusion, FC and TR."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .backbones import Backbone
from .layers import Attention, EncoderLayer


class IntraModalFusion(nn.Module):
    """Features (..., d_a) and (..., d_b) of the same clips -> (..., dim).

    `fc`: concatenate, then Linear to dim. `tr`: stack the two, an encoder layer, a self-attention, keep the last
    position; features that are not `dim` wide (the papers' 768) go through a Linear first.
    """

    def __init__(self, width_a: int, width_b: int, dim: int, kind: Literal["fc", "tr"] = "fc") -> None:
        super().__init__()
        if kind not in ("fc", "tr"):
            raise ConfigError(f"unknown intra-modal fusion '{kind}': choose fc or tr")
        self.kind = kind
        if kind == "fc":
            self.fc = nn.Linear(width_a + width_b, dim)
        else:
            self.project_a = nn.Identity() if width_a == dim else nn.Linear(width_a, dim)
            self.project_b = nn.Identity() if width_b == dim else nn.Linear(width_b, dim)
            self.encoder = EncoderLayer(dim)
            self.attention = Attention(dim)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if self.kind == "fc":
            return self.fc(torch.cat([a, b], -1))
        pair = torch.stack([self.project_a(a), self.project_b(b)], -2)
        encoded = self.encoder(pair.flatten(0, -3))
        kept, _ = self.attention(encoded[:, -1:], encoded)
        return kept.squeeze(1).reshape(*a.shape[:-1], -1)


class IntraModalBackbone(Backbone):
    """Two backbones on the same clip, `parts` (a, b), and their fusion `combine`: (N, *shape) -> (N, dim)."""

    def __init__(self, a: Backbone, b: Backbone, dim: int, kind: Literal["fc", "tr"] = "fc") -> None:
        super().__init__()
        self.parts = nn.ModuleList([a, b])
        self.combine = IntraModalFusion(dim, dim, dim, kind)

    def features(self, clip: Tensor) -> Tensor:
        return self.combine(*(part(clip) for part in self.parts))
