"""Every architecture of the product with random weights: full structure, fewer pixels and channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx
import torch
from torch import nn

from jmt_edge.compiler.export import backbone_graph, unfolded_graph
from jmt_edge.models.backbones import build_backbone
from jmt_edge.models.folding import fold
from jmt_edge.models.from_bundle import PositionalFusion
from jmt_edge.models.fusion import JMT
from jmt_edge.models.fusion_onnx import fusion_graph
from jmt_edge.models.joint import build_fusion
from jmt_edge.tasks import get_task

DIM = 128
SHAPES = {
    "r2plus1d_18": (3, 8, 32, 32),
    "i3d": (3, 16, 32, 32),
    "r3d_18": (3, 10, 32, 32),
    "resnet18_audio": (1, 64, 107),
    "eda_cnn1d": (1, 2816),
}
WIDTHS = {"r2plus1d_18": 16, "i3d": 8, "r3d_18": 16, "resnet18_audio": 16, "eda_cnn1d": 32}
FUSIONS = ("jmt_2", "jmt_3", "jca", "rjcma")
NAMES = (*SHAPES, *FUSIONS)


def _backbone(name: str) -> nn.Module:
    options = {"resize": 64} if name == "i3d" else {}
    return build_backbone(name, SHAPES[name], WIDTHS[name], DIM, l2_normalise=name == "r2plus1d_18", **options).eval()


def _fusion(name: str) -> Any:
    if name.startswith("jmt"):
        task = get_task("affect" if name == "jmt_2" else "trimodal")
        return JMT(task.names, DIM, task.outputs).eval(), task.steps
    task = replace(get_task("affect"), dim=DIM)
    return build_fusion(task, name).eval(), task.steps


def module_and_inputs(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The module as torch runs it, and one random input."""
    torch.manual_seed(0)
    if name in SHAPES:
        return _backbone(name), (torch.randn(1, *SHAPES[name]),)
    fusion, steps = _fusion(name)
    m = len(fusion.modalities)
    return PositionalFusion(fusion).eval(), (torch.ones(1, steps, m), *(torch.randn(1, steps, DIM) for _ in range(m)))


def graph_and_feeds(name: str) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The ONNX graph as a bundle holds it (the joint transformer folded), and one random input."""
    module, inputs = module_and_inputs(name)
    if name in SHAPES:
        return backbone_graph(module, SHAPES[name]), {"clip": inputs[0].numpy()}
    fusion: Any = module.fusion
    graph = fusion_graph(fold(fusion)) if name.startswith("jmt") else unfolded_graph(fusion, DIM, inputs[0].shape[1])
    return graph, dict(zip(("present", *fusion.modalities), (x.numpy() for x in inputs)))
