"""The networks in PyTorch: backbones, fusions, whole models; and folding, which is NumPy only and never loads torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbones import BACKBONES as BACKBONES
    from .backbones import Backbone as Backbone
    from .backbones import build_backbone as build_backbone
    from .fusion import JMT as JMT
    from .fusion import Concat as Concat
    from .fusion import Fusion as Fusion
    from .fusion import Unimodal as Unimodal
    from .fusion import Vanilla as Vanilla
    from .intra_modal import IntraModalBackbone as IntraModalBackbone
    from .intra_modal import IntraModalFusion as IntraModalFusion
    from .jca import JointCrossAttention as JointCrossAttention
    from .joint import JointModel as JointModel
    from .joint import build_fusion as build_fusion
    from .joint import build_model as build_model
    from .pretrained import LoadReport as LoadReport
    from .pretrained import load_pretrained as load_pretrained
    from .pretrained import read_checkpoint as read_checkpoint

_HOME = {
    "backbones": ("BACKBONES", "Backbone", "build_backbone"),
    "fusion": ("JMT", "Concat", "Fusion", "Unimodal", "Vanilla"),
    "intra_modal": ("IntraModalBackbone", "IntraModalFusion"),
    "jca": ("JointCrossAttention",),
    "joint": ("JointModel", "build_fusion", "build_model"),
    "pretrained": ("LoadReport", "load_pretrained", "read_checkpoint"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{_MODULE[name]}", __name__), name)
