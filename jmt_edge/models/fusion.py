"""Fusions of clip features: the Joint Multimodal Transformer and the baselines it is compared with.

Each fusion maps `features` {modality: (B, S, d)} and `present` (B, S, M), 1 where a modality's step is present, to
{output: logits}. Samples of a batch are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .folding import JOINT, block_order, modality_share
from .layers import Attention, EncoderLayer, MissingTokens, OutputHeads


class Fusion(nn.Module):
    """Base of all fusions: missing tokens, per-modality temporal networks, then `mix`, then the heads.

    `temporal` maps a modality to a network over its steps, (B, S, d) -> (B, S, d) (a GRU, a TCN); `dropout` is that of
    the heads. Sub-classes pass both on as `options`.
    """

    heads: OutputHeads

    def __init__(
        self,
        modalities: Sequence[str],
        dims: int | Sequence[int],
        outputs: Sequence[str],
        *,
        dropout: float = 0.5,
        temporal: Mapping[str, nn.Module] | None = None,
        input_dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.modalities, self.outputs, self.dropout = tuple(modalities), tuple(outputs), dropout
        self.dims = (dims,) * len(self.modalities) if isinstance(dims, int) else tuple(dims)
        self.missing = MissingTokens(self.modalities, input_dims or self.dims)
        self.temporal = nn.ModuleDict(dict(temporal or {}))

    def forward(
        self,
        features: dict[str, Tensor],
        present: Tensor | None = None,
        return_attention: bool = False,
        last: bool = False,
    ) -> dict[str, Tensor]:
        """Outputs per step; with `return_attention` also `attention` (B, S, M) where the fusion has one.

        `last`: only the last step, its axis kept with length 1, which is all that a live window needs.
        """
        if present is None:
            x = features[self.modalities[0]]
            present = x.new_ones(x.shape[0], x.shape[1], len(self.modalities))
        filled = self.missing(features, present)
        for name, network in self.temporal.items():
            filled[name] = network(filled[name])
        mixed, attention = self.mix_last(filled, present) if last else self.mix(filled, present)
        out = self.heads(mixed)
        if return_attention and attention is not None:
            out["attention"] = attention
        return out

    def mix(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor | None]:
        """Fused features (B, S, width) and, where defined, the weight of each modality (B, S, M)."""
        raise AssertionError("each fusion defines mix")

    def mix_last(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor | None]:
        """`mix` for the last step: (B, 1, width), (B, 1, M). A fusion that need not compute the others overrides it."""
        mixed, attention = self.mix(features, present)
        return mixed[:, -1:], None if attention is None else attention[:, -1:]


class JMT(Fusion):
    """Joint Multimodal Transformer for M >= 2 modalities (arXiv 2403.10488, v2 figure 2; v1 = head `concat`).

    A joint source `W_J [x_1; ...; x_M] + b` is added to the modalities; each source is encoded; each source queries
    every other one (one set of attention weights per query source); the blocks, in `block_order`, are mixed per step
    by an encoder layer and a self-attention of which the last position is kept (head `self_attention`), or
    concatenated (head `concat`).

    `attention` chooses the formula of the cross-attentions (see `layers.Attention`: the papers' formulas and their
    code differ); encoders and the last self-attention are always standard. `heads` is 1 in the papers.
    `joint=False` is an ablation without the joint source; `hidden`, the width between the two layers of the encoders'
    feed-forward parts (0: `dim`), makes up for its parameters (`matched_hidden`). `joint_abs` is for imported pain
    checkpoints only: their code feeds |[x_1; x_2]| to W_J, an L2 norm over an axis of length one.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        outputs: Sequence[str],
        *,
        head: Literal["self_attention", "concat"] = "self_attention",
        attention: str = "standard",
        heads: int = 1,
        joint: bool = True,
        joint_abs: bool = False,
        hidden: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(modalities, dim, outputs, **options)
        if len(self.modalities) < 2:
            raise ConfigError("the joint transformer needs two modalities or more; use a unimodal model for one")
        if head not in ("self_attention", "concat"):
            raise ConfigError(f"unknown head '{head}': choose self_attention or concat")
        if joint_abs and not joint:
            raise ConfigError("joint_abs has no meaning without the joint source; leave one of the two out")
        self.dim, self.head, self.attention_kind, self.attention_heads = dim, head, attention, heads
        self.has_joint, self.joint_abs = joint, joint_abs
        self.sources = (*self.modalities, JOINT) if joint else self.modalities
        self.blocks = block_order(self.modalities, joint)
        if joint:
            self.joint = nn.Linear(len(self.modalities) * dim, dim)
        self.encoders = nn.ModuleDict({s: EncoderLayer(dim, heads, hidden) for s in self.sources})
        self.cross = nn.ModuleDict({s: Attention(dim, heads, attention) for s in self.sources})
        if head == "self_attention":
            self.block_encoder = EncoderLayer(dim, heads, hidden)
            self.block_attention = Attention(dim, heads)
            self.heads = OutputHeads(dim, outputs, max(dim // 4, 1), self.dropout)
        else:
            self.concat = nn.Linear(len(self.blocks) * dim, 2 * dim)
            self.heads = OutputHeads(2 * dim, outputs, max(dim // 4, 1), self.dropout, linear=("pain",))

    def mix(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._mix(features, present, last=False)

    def mix_last(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._mix(features, present[:, -1:], last=True)

    def _mix(self, features: dict[str, Tensor], present: Tensor, last: bool) -> tuple[Tensor, Tensor | None]:
        """`present` of the steps that are results. The encoders see all: their rows are the keys and values."""
        sources = dict(features)
        if self.has_joint:
            both = torch.cat([features[m] for m in self.modalities], -1)
            sources[JOINT] = self.joint(both.abs() if self.joint_abs else both)
        encoded = {s: self.encoders[s](sources[s]) for s in self.sources}
        blocks = [self.cross[q](encoded[q], encoded[k], last)[0] for q, k in self.blocks]
        if self.head == "concat":
            return self.concat(torch.cat(blocks, -1)), None
        stacked = torch.stack(blocks, 2)  # (B, S, blocks, dim)
        per_step = self.block_encoder(stacked.flatten(0, 1))
        kept, weights = self.block_attention(per_step[:, -1:], per_step)
        steps = stacked.shape[:2]
        return kept.squeeze(1).unflatten(0, steps), self._modality_weights(
            weights.squeeze(1).unflatten(0, steps), present
        )

    def _modality_weights(self, weights: Tensor, present: Tensor) -> Tensor:
        """Weights over blocks (B, S, blocks) -> over modalities (B, S, M); see `modality_share`."""
        share = weights @ weights.new_tensor(modality_share(self.modalities, self.blocks))
        by_modality, joint = share[..., :-1], share[..., -1:]
        there = (present > 0.5).to(weights.dtype)
        split = there * (by_modality + joint / there.sum(-1, keepdim=True).clamp(min=1))
        return split / split.sum(-1, keepdim=True).clamp(min=1e-12)


def matched_hidden(modalities: int, dim: int, head: str = "self_attention") -> int:
    """The `hidden` with which a JMT without joint source has as many parameters as one with it, to 0.2 %.

    The source has its Linear (M d to d), an encoder and a cross-attention; without the block encoder of the head
    `self_attention` it also widens the concatenation of the blocks.
    """
    names = tuple(str(i) for i in range(modalities))
    joint, apart = (JMT(names, dim, ("pain",), head=head, joint=joint) for joint in (True, False))  # type: ignore[arg-type]
    lacking = sum(p.numel() for p in joint.parameters()) - sum(p.numel() for p in apart.parameters())
    encoders = modalities + (head == "self_attention")
    return dim + round(lacking / (encoders * (2 * dim + 1)))


class Vanilla(Fusion):
    """Multimodal transformer without the joint source: encoders, pairwise cross-attentions, concat, Linear to d."""

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        outputs: Sequence[str],
        *,
        attention: str = "standard",
        heads: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(modalities, dim, outputs, **options)
        if len(self.modalities) < 2:
            raise ConfigError("the vanilla transformer needs two modalities or more; use a unimodal model for one")
        self.blocks = block_order(self.modalities, joint=False)
        self.encoders = nn.ModuleDict({m: EncoderLayer(dim, heads) for m in self.modalities})
        self.cross = nn.ModuleDict({m: Attention(dim, heads, attention) for m in self.modalities})
        self.concat = nn.Linear(len(self.blocks) * dim, dim)
        self.heads = OutputHeads(dim, outputs, max(dim // 4, 1), self.dropout)

    def mix(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, None]:
        encoded = {m: self.encoders[m](features[m]) for m in self.modalities}
        return self.concat(torch.cat([self.cross[q](encoded[q], encoded[k])[0] for q, k in self.blocks], -1)), None


class Concat(Fusion):
    """Feature concatenation: Linear(M d, d), then the heads."""

    def __init__(self, modalities: Sequence[str], dim: int, outputs: Sequence[str], **options: Any) -> None:
        super().__init__(modalities, dim, outputs, **options)
        self.concat = nn.Linear(len(self.modalities) * dim, dim)
        self.heads = OutputHeads(dim, outputs, max(dim // 4, 1), self.dropout)

    def mix(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, None]:
        return self.concat(torch.cat([features[m] for m in self.modalities], -1)), None


class Unimodal(Fusion):
    """One modality: its features go straight to the heads (the papers' pretraining model)."""

    def __init__(self, modalities: Sequence[str], dim: int, outputs: Sequence[str], **options: Any) -> None:
        super().__init__(modalities, dim, outputs, **options)
        if len(self.modalities) != 1:
            raise ConfigError(f"a unimodal model takes one modality, not {', '.join(self.modalities)}")
        # the papers' EDA network ends in one linear layer; the face and voice networks in two
        linear = outputs if self.modalities == ("eda",) else ()
        self.heads = OutputHeads(dim, outputs, max(dim // 4, 1), self.dropout, linear)

    def mix(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, None]:
        return features[self.modalities[0]], None
