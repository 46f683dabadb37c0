"""The networks that a recipe trains: the backbones of its modalities, and the fusion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError
from ..models.backbones import Backbone, build_backbone
from ..models.fusion import Fusion
from ..models.intra_modal import IntraModalFusion
from ..models.joint import build_fusion
from ..models.layers import OutputHeads
from ..tasks import Modality, Task
from .recipes import Recipe

SECOND = "second"  # the second backbone of an intra-modal fusion, beside its modality's name


class IntraModal(Fusion):
    """Two backbones of one modality (JMT paper, intra-modal fusion `fc` or `tr`), then the heads."""

    def __init__(
        self, name: str, dim: int, outputs: tuple[str, ...], kind: Literal["fc", "tr"], dropout: float
    ) -> None:
        super().__init__((name, SECOND), dim, outputs)
        self.combine = IntraModalFusion(dim, dim, dim, kind)
        self.heads = OutputHeads(dim, outputs, max(dim // 4, 1), dropout)

    def mix(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, None]:
        first, second = (features[m] for m in self.modalities)
        return self.combine(first, second), None


class TwoVisual(Fusion):
    """A fusion whose first modality has two backbones, trained apart and combined (`fc` or `tr`) before it.

    The JMT paper's best systems: JMT(R(2+1)D-18 + I3D, ResNet-18). As in the released code, the combination is trained
    with the fusion, and what is scaled to length one (affect) are the combined features, not those of each backbone.
    features has `SECOND` beside the modalities; its presence is the first modality's.
    """

    def __init__(self, fusion: Fusion, dim: int, kind: Literal["fc", "tr"], l2_normalise: bool) -> None:
        nn.Module.__init__(self)  # the missing tokens, of the combined features, are the inner fusion's
        self.modalities, self.outputs, self.dropout = fusion.modalities, fusion.outputs, fusion.dropout
        self.combine = IntraModalFusion(dim, dim, dim, kind)
        self.fusion, self.l2_normalise = fusion, l2_normalise

    def forward(
        self,
        features: dict[str, Tensor],
        present: Tensor | None = None,
        return_attention: bool = False,
        last: bool = False,
    ) -> dict[str, Tensor]:
        first = self.modalities[0]
        both = self.combine(features[first], features[SECOND])
        if self.l2_normalise:
            both = F.normalize(both, dim=-1)
        return self.fusion({**features, first: both}, present, return_attention, last)


class Unimodal(nn.Module):
    """A backbone with its pretraining head on single clips: (N, *shape) -> outputs (N, 1, ...)."""

    def __init__(self, backbone: Backbone, head: Fusion) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        features = self.backbone(clips)[:, None]
        return self.head({self.head.modalities[0]: features}, None)


class FusionStep(nn.Module):
    """A fusion as the trainer calls it; a feature common to all steps may have S = 1."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, features: dict[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        return self.fusion(features, present)


def backbone_of(task: Task, m: Modality) -> Backbone:
    return build_backbone(m.backbone, m.shape, m.width, task.dim, l2_normalise=task.l2_normalise)


def backbone_task(recipe: Recipe, task: Task, m: Modality) -> Task:
    """The task under which the modality's backbone is built: features that are combined are normalised afterwards."""
    combined = recipe.intra and m.name == task.names[0]
    return replace(task, l2_normalise=False) if combined else task


def pretraining(task: Task, m: Modality, dropout: float) -> Unimodal:
    """The modality's backbone with the papers' pretraining head."""
    alone = replace(task, modalities=(m,))
    return Unimodal(backbone_of(task, m), build_fusion(alone, "unimodal", dropout=dropout))


def fusion_of(recipe: Recipe, task: Task, dropout: float) -> Fusion:
    """The network behind the backbones."""
    if recipe.fusion in ("intra_fc", "intra_tr"):
        kind: Literal["fc", "tr"] = "fc" if recipe.fusion == "intra_fc" else "tr"
        return IntraModal(task.names[0], task.dim, task.outputs, kind, dropout)
    fusion = build_fusion(
        task, recipe.fusion, dropout=dropout, audio_gru=recipe.audio_gru, text=bool(recipe.text),
        recursions=recipe.recursions or None,
    )  # fmt: skip
    return TwoVisual(fusion, task.dim, recipe.intra, task.l2_normalise) if recipe.intra else fusion


def second_backbone(task: Task, recipe: Recipe) -> Modality:
    """The first modality's description with its second backbone."""
    return replace(task.modalities[0], backbone=recipe.second)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises DataError where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except FileNotFoundError:
        raise DataError(f"{file} does not exist; the run is incomplete, train it again") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file} is not a readable safetensors file ({error}); restore or retrain it") from None


def load_weights(network: nn.Module, file: Path) -> None:
    """Weights of a safetensors file into `network`. Raises DataError where they belong to another model."""
    weights = read_weights(file)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise DataError(f"{file} belongs to another model ({first}); give the checkpoint of this recipe") from None
