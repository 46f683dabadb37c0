"""Small bundles of random weights that several engine tests build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from jmt_edge.compiler.export import export_bundle
from jmt_edge.engine.bundle import Bundle
from jmt_edge.models.joint import build_model
from jmt_edge.tasks import Task, get_task


def trimodal_task() -> Task:
    """The trimodal demo with a face of 32 pixels and a few channels: every kind of backbone but the largest."""
    task = get_task("trimodal", "demo")
    modalities = [replace(m, width=4) for m in task.modalities]
    modalities[0] = replace(modalities[0], shape=(3, 8, 32, 32))
    return replace(task, modalities=tuple(modalities), dim=32)


def flat_task() -> Task:
    """Two one-dimensional networks and a fusion: builds in a second."""
    task = get_task("pain", "demo")
    eda = replace(task.modalities[1], backbone="eda_cnn1d", width=8)
    return replace(task, modalities=(eda, replace(eda, name="voice")), dim=32)


def random_weights(task: Task, path: Path, seed: int = 0) -> Bundle:
    """Like `random_bundle`, with biases and missing tokens that are not zero."""
    torch.manual_seed(seed)
    model = build_model(task)
    for name, p in model.fusion.named_parameters():
        if name.endswith("bias") or "tokens" in name:
            torch.nn.init.normal_(p, std=0.3)
    return export_bundle(model, task, path, name=path.stem, provenance={"weights": "random"})
