"""Attention, the encoder layer and the output heads that every fusion shares.

Parameter names follow `torch.nn.MultiheadAttention`, so weights of the published code load key for key.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from .folding import LOGITS

ATTENTION_KINDS = ("standard", "key_based", "sigmoid")


class Attention(nn.Module):
    """Multi-head attention over (B, T, dim), batch first, with the parameters of `nn.MultiheadAttention`.

    The JMT papers print a formula that their released code does not compute:

    - `standard`: `softmax(Q K^T / sqrt(d_k)) V`, what the released code computes; the default.
    - `key_based`: `softmax(K Q^T / d_k) V`, eq. 2 of arXiv 2403.10488v2 as printed. Row `i` of the weights
      belongs to key `i` and is normalised over the queries; the product with V needs as many queries as keys.
    - `sigmoid`: `sigmoid(K Q^T) V`, version 1 as printed: rows do not sum to one, and there is no scale.
    """

    def __init__(self, dim: int, heads: int = 1, kind: str = "standard") -> None:
        super().__init__()
        if kind not in ATTENTION_KINDS:
            raise ConfigError(f"unknown attention '{kind}': choose one of {', '.join(ATTENTION_KINDS)}")
        if heads < 1 or dim % heads:
            raise ConfigError(f"{heads} attention heads do not divide {dim} features; choose a divisor of {dim}")
        self.dim, self.heads, self.kind = dim, heads, kind
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, source: Tensor, last: bool = False) -> tuple[Tensor, Tensor]:
        """(B, Tq, dim), (B, Tk, dim) -> attended (B, Tq, dim) and the weights, mean over heads, (B, Tq, Tk).

        `last`: only the last row of both, attending to everything.
        """
        wq, wk, wv = self.in_proj_weight.chunk(3)
        bq, bk, bv = self.in_proj_bias.chunk(3)
        of_query = self.kind == "standard"  # the result has the query's rows, else the key's
        q = self._split(F.linear(query[:, -1:] if last and of_query else query, wq, bq))
        k = self._split(F.linear(source[:, -1:] if last and not of_query else source, wk, bk))
        v = self._split(F.linear(source, wv, bv))
        d_k = self.dim // self.heads
        if self.kind == "standard":
            weights = (q @ k.transpose(-2, -1) / math.sqrt(d_k)).softmax(-1)
        elif self.kind == "key_based":
            weights = (k @ q.transpose(-2, -1) / d_k).softmax(-1)
        else:
            weights = torch.sigmoid(k @ q.transpose(-2, -1))
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        return self.out_proj(mixed), weights.mean(1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, self.dim // self.heads).transpose(1, 2)  # (B, heads, T, d_k)


class EncoderLayer(nn.Module):
    """Post-norm transformer layer without dropout: (B, T, dim) -> (B, T, dim); hidden width `dim`, as in the papers,
    or `hidden`."""

    def __init__(self, dim: int, heads: int = 1, hidden: int = 0) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        hidden = hidden or dim
        self.feed_forward = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.layer_norm1 = nn.LayerNorm(dim)
        self.layer_norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm1(x + self.attention(x, x)[0])
        return self.layer_norm2(x + self.feed_forward(x))


class OutputHeads(nn.ModuleDict):
    """One head per output on (B, S, width): `pain` -> logits (B, S, 2); `valence`, `arousal` -> (B, S).

    A head is `Linear(width, hidden) - ReLU - Dropout - Linear(hidden, n)` as in the papers; those named in
    `linear` are one `Linear(width, n)`.
    """

    def __init__(
        self, width: int, outputs: Sequence[str], hidden: int, dropout: float = 0.5, linear: Iterable[str] = ()
    ) -> None:
        unknown = [name for name in outputs if name not in LOGITS]
        if unknown or not outputs:
            raise ConfigError(f"unknown outputs {unknown or '[]'}: choose among {', '.join(LOGITS)}")
        plain = set(linear)
        super().__init__(
            {
                name: nn.Linear(width, LOGITS[name])
                if name in plain
                else nn.Sequential(
                    nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, LOGITS[name])
                )
                for name in outputs
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = {name: head(x) for name, head in self.items()}
        return {name: y if LOGITS[name] > 1 else y.squeeze(-1) for name, y in logits.items()}


class MissingTokens(nn.Module):
    """Learnt tokens that replace the features of absent modalities, one per modality: (M, dim)."""

    def __init__(self, names: Sequence[str], dims: Sequence[int]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.tokens = nn.ParameterDict({n: nn.Parameter(torch.randn(d) * 0.02) for n, d in zip(names, dims)})

    def forward(self, features: dict[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """Replace each row whose `present` (B, S, M) is 0. The row's own values, NaN included, have no effect."""
        return {
            name: torch.where(present[..., i : i + 1] > 0.5, features[name], self.tokens[name])
            for i, name in enumerate(self.names)
        }
