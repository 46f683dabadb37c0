"""PyTorch modules: what is trained, exported and imported. Needs torch; the live run-time never imports it."""

from .backbones import BACKBONES, Backbone, build_backbone
from .fusion import JMT, Concat, Fusion, Unimodal, Vanilla
from .intra_modal import IntraModalBackbone, IntraModalFusion
from .jca import JointCrossAttention
from .joint import FUSIONS, JointModel, build_fusion, build_model
from .pretrained import LoadReport, load_pretrained, read_checkpoint

__all__ = [
    "BACKBONES",
    "FUSIONS",
    "JMT",
    "Backbone",
    "Concat",
    "Fusion",
    "IntraModalBackbone",
    "IntraModalFusion",
    "JointCrossAttention",
    "JointModel",
    "LoadReport",
    "Unimodal",
    "Vanilla",
    "build_backbone",
    "build_fusion",
    "build_model",
    "load_pretrained",
    "read_checkpoint",
]
