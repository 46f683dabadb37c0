"""The whole model of a task: a backbone per modality, a fusion, output heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..tasks import FUSIONS, Task
from .backbones import Backbone, build_backbone
from .fusion import JMT, Concat, Fusion, Unimodal, Vanilla, matched_hidden
from .jca import JointCrossAttention
from .temporal import StepGru, TemporalConvNet

TEXT = "text"
TEXT_DIM = 768
_RECURSIONS = {"jca": 1, "rjca": 3, "rjcma": 3}


class JointModel(nn.Module):
    """`backbones` {modality: Backbone} and `fusion`. M modalities in the order of `task.names`.

    Precomputed modalities (text features) have no backbone: their entry in `clips` is already (B, S, d).
    """

    def __init__(self, task: Task, backbones: Mapping[str, Backbone], fusion: Fusion) -> None:
        super().__init__()
        self.task = task
        self.backbones = nn.ModuleDict(dict(backbones))
        self.fusion = fusion

    def forward(
        self, clips: Mapping[str, Tensor], present: Tensor | None = None, return_attention: bool = False
    ) -> dict[str, Tensor]:
        """clips {modality: (B, S, *shape)}, present (B, S, M) -> {output: logits}, see `Fusion.forward`."""
        return self.fuse(self.encode(clips), present, return_attention)

    def encode(self, clips: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features (B, S, d) of each modality in `clips`; a clip that serves all steps keeps S = 1."""
        return {
            name: self.backbones[name](clip.flatten(0, 1)).unflatten(0, clip.shape[:2])
            if name in self.backbones
            else clip
            for name, clip in clips.items()
        }

    def fuse(
        self, features: Mapping[str, Tensor], present: Tensor | None = None, return_attention: bool = False
    ) -> dict[str, Tensor]:
        """Features (B, S or 1, d) to outputs; a modality missing from `features` counts as absent at all steps."""
        names = self.fusion.modalities
        here = [name for name in names if name in features]
        if not here:
            raise ConfigError(f"no features of any modality; give at least one of {', '.join(names)}")
        some = features[here[0]]
        steps = max(features[name].shape[1] for name in here)
        batch = some.shape[0]
        given = torch.tensor([float(name in features) for name in names], dtype=some.dtype, device=some.device)
        there = given.expand(batch, steps, len(names))
        if present is not None:
            there = there * present.to(there.dtype)
        whole = {
            name: features[name].expand(batch, steps, -1)
            if name in features
            else some.new_zeros(batch, steps, self.fusion.missing.tokens[name].shape[0])
            for name in names
        }
        return self.fusion(whole, there, return_attention)


def build_fusion(
    task: Task,
    fusion: str | None = None,
    *,
    dropout: float = 0.5,
    audio_gru: bool = False,
    text: bool = False,
    recursions: int | None = None,
) -> Fusion:
    """The fusion of `task` (or the one given), for features of `task.dim` per modality.

    `fusion` overrides `task.fusion`: jmt, jmt_no_joint, jmt_no_joint_wide (with as many parameters as jmt), vanilla,
    concat, jca, rjca, rjcma, or unimodal (the only choice for a task of one modality, and its default). `audio_gru`
    puts a GRU over the steps after the voice backbone; `text` adds a modality `text` of precomputed (B, S, 768)
    features to joint cross attention; `recursions` is its l. Raises ConfigError for a combination that does not exist.
    """
    kind = fusion or ("unimodal" if len(task.modalities) == 1 else task.fusion)
    if kind not in FUSIONS:
        raise ConfigError(f"unknown fusion '{kind}': choose one of {', '.join(FUSIONS)}")
    if audio_gru and "voice" not in task.names:
        raise ConfigError(f"task '{task.name}' has no voice, so it cannot have a GRU after the audio backbone")
    if text and kind not in _RECURSIONS:
        raise ConfigError(f"text features are for joint cross attention only (jca, rjca, rjcma), not '{kind}'")
    if recursions is not None and kind not in _RECURSIONS:
        raise ConfigError(f"fusion '{kind}' has no recursions; use jca, rjca or rjcma")
    temporal: dict[str, nn.Module] = {"voice": StepGru(task.dim)} if audio_gru else {}
    common: dict[str, Any] = {"dropout": dropout, "temporal": temporal}
    names, dim, outputs = task.names, task.dim, task.outputs
    if kind in ("jmt", "jmt_no_joint", "jmt_no_joint_wide"):
        hidden = matched_hidden(len(names), dim, task.head) if kind == "jmt_no_joint_wide" else 0
        return JMT(
            names, dim, outputs, head=task.head, attention=task.attention, heads=task.heads,
            joint=kind == "jmt", hidden=hidden, **common,
        )  # fmt: skip
    if kind == "vanilla":
        return Vanilla(names, dim, outputs, attention=task.attention, heads=task.heads, **common)
    if kind == "concat":
        return Concat(names, dim, outputs, **common)
    if kind == "unimodal":
        return Unimodal(names, dim, outputs, **common)
    names = (*names, TEXT) if text else names
    inputs = (*(dim for _ in task.names), TEXT_DIM) if text else (dim,) * len(names)
    if kind == "rjcma":
        tcns = {n: TemporalConvNet(d, (dim,) * 4, kernel=5, dropout=0.1) for n, d in zip(names, inputs)}
        common["temporal"] = {n: nn.Sequential(temporal[n], t) if n in temporal else t for n, t in tcns.items()}
        dims = (dim,) * len(names)
    else:
        dims = inputs
    return JointCrossAttention(
        names, dims, outputs, steps=task.steps, recursions=recursions or _RECURSIONS[kind],
        input_dims=inputs, **common,
    )  # fmt: skip


def build_model(
    task: Task,
    fusion: str | None = None,
    *,
    backbone_options: Mapping[str, Mapping[str, Any]] | None = None,
    **fusion_options: Any,
) -> JointModel:
    """A freshly initialised model of `task`; seed torch before for reproducible weights.

    `fusion` and `fusion_options`: see `build_fusion`. `backbone_options` {modality: options}: see `build_backbone`.
    Raises ConfigError for a combination that does not exist.
    """
    options = dict(backbone_options or {})
    unknown = set(options) - set(task.names)
    if unknown:
        raise ConfigError(
            f"options for {', '.join(sorted(unknown))}, but task '{task.name}' has {', '.join(task.names)}"
        )
    backbones: dict[str, Backbone] = {
        m.name: build_backbone(
            m.backbone, m.shape, m.width, task.dim, l2_normalise=task.l2_normalise, **options.get(m.name, {})
        )
        for m in task.modalities
    }
    return JointModel(task, backbones, build_fusion(task, fusion, **fusion_options))
