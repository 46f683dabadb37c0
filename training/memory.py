"""How much memory a training run will take, predicted from the table of windows before any clip is cut.

Activations and gradients are counted exactly, by running each network on PyTorch's meta device, which computes nothing;
what operators allocate internally is not. On a GPU they are not in the machine's memory and are left out. Clips and
features are mapped files, which the kernel drops when memory is short: they belong to the resident set that tools show,
but a run is not refused for them. Measured peaks lie within a factor of 1.5 (`tests/training/test_training_memory.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..clips.baseline import with_baseline
from ..clips.cutter import signal_format
from ..errors import ConfigError
from ..machine import memory_available
from ..models.joint import TEXT, TEXT_DIM
from ..tasks import Modality, Task
from .data import WindowTable
from .features import CHUNK
from .networks import SECOND, FusionStep, fusion_of, pretraining, second_backbone
from .recipes import Recipe, Stage
from .suite_costs import Alive

WORKER = 200_000_000  # bytes of a process that cuts clips: libraries, a decoder, 0.25 s of pictures
PROCESS = 500_000_000  # of another training process: PyTorch and Lightning
STATES = {"sgd": 1, "adam": 2, "adamw": 2}  # tensors of an optimiser per parameter


@dataclass(frozen=True)
class Part:
    """One phase of a run: what it does, the bytes that it needs of its own, and how to make it smaller."""

    what: str
    bytes: int
    remedy: str


@dataclass(frozen=True)
class Prediction:
    """held: bytes of what stays in memory all the time. phases: one after the other. mapped: bytes of mapped files.
    processes: how many train at the same time."""

    held: int
    phases: tuple[Part, ...]
    mapped: int
    processes: int = 1

    @property
    def largest(self) -> Part:
        return max(self.phases, key=lambda part: part.bytes)

    @property
    def needed(self) -> int:
        """Bytes beyond what this process holds now."""
        cutting, *training = self.phases
        peak = self.held + max((part.bytes for part in training), default=0)
        return max(self.held + cutting.bytes, self.processes * peak + (self.processes - 1) * PROCESS)

    def line(self) -> str:
        """For `train --check`."""
        return (
            f"memory      about {self.needed / 1e9:.1f} GB, most of it to {self.largest.what} "
            f"({self.largest.bytes / 1e9:.1f} GB); {self.mapped / 1e9:.1f} GB of clips and features in the cache"
        )


def predict_memory(
    windows: WindowTable,
    recipe: Recipe | None,
    *,
    workers: int = 1,
    processes: int = 1,
    on_gpu: bool = False,
    training: bool = True,
    rests: Sequence[str] = (),
) -> Prediction:
    """The memory of training `recipe` on these windows, or of scoring it; None: of scoring a bundle.

    workers: processes that cut clips. processes: that train at the same time. on_gpu: where the networks run.
    rests: the modalities that a bundle compares with a person's rest.
    """
    task = recipe.resolve() if recipe else windows.task
    tables: list[NDArray[Any]] = [*windows.rows.values(), *windows.labels.values(), windows.trial, windows.end]
    held = 4 * sum(x.nbytes for x in tables) + 300 * sum(len(clips) for clips in windows.clips.values())
    stored = {m.name: len(windows.clips[m.name]) * _clip_bytes(m) for m in task.modalities}
    phases = [_cutting(windows, workers)]
    if recipe is not None and recipe.baseline == "rest":
        rests = with_baseline(task)
    held += sum(2 * stored.get(name, 0) for name in rests)  # with each person's baseline and without
    if recipe is None:
        return Prediction(held, tuple(phases), sum(stored.values()))
    if recipe.calibrated:
        held += 2 * stored.get("eda", 0)  # a copy in units of each person
    networks = {m.name: m for m in task.modalities if windows.clips[m.name]}
    if recipe.second:
        networks[SECOND] = second_backbone(task, recipe)
    features = 0
    for name, m in networks.items():
        stage = recipe.stage(name)
        count = len(windows.clips[m.name])
        features += 4 * recipe.augment.variants * count * task.dim
        if training and stage.epochs:
            phases.append(_backbone(task, name, m, stage, min(stage.batch, count), on_gpu))
        phases.append(_extraction(task, name, m, min(CHUNK, count), on_gpu))
    if training and recipe.fusion != "unimodal":
        phases.append(_fusion(recipe, task, len(windows), on_gpu))
    return Prediction(held, tuple(phases), sum(stored.values()) + features, processes)


def require_memory(predicted: Prediction, available: tuple[int, str] | None = None) -> None:
    """Raises ConfigError where more memory is needed than there is (`machine.memory_available`)."""
    there = available or memory_available()
    if there is None or predicted.needed <= there[0]:
        return
    largest, several = predicted.largest, predicted.processes > 1
    raise ConfigError(
        f"this run needs about {predicted.needed / 1e9:.1f} GB of memory"
        + (f" in {predicted.processes} processes" if several else "")
        + f" ({largest.bytes / 1e9:.1f} GB to {largest.what}), and {there[0] / 1e9:.1f} GB are available {there[1]}; "
        + ("lower --processes" if several else largest.remedy)
        + ", or use a machine with more memory"
    )


def _clip_bytes(m: Modality) -> int:
    shape, dtype = signal_format(m)
    return math.prod(shape) * np.dtype(dtype).itemsize


def _cutting(windows: WindowTable, workers: int) -> Part:
    """The clips of a trial are held by its worker, as an array and on their way to this process, and here."""
    largest = 0
    for m in windows.task.modalities:
        of_trial = Counter(number for number, _ in windows.clips[m.name])
        largest = max(largest, max(of_trial.values(), default=0) * _clip_bytes(m))
    workers = min(workers, len(windows.trials))
    each = 3 * largest + WORKER
    total = each if workers <= 1 else workers * (each + largest)
    return Part(f"cut clips in {workers} process{'es' if workers > 1 else ''}", total, "lower --workers")


def _backbone(task: Task, name: str, m: Modality, stage: Stage, batch: int, on_gpu: bool) -> Part:
    with torch.device("meta"):
        network = pretraining(task, m, stage.dropout)
        clips = torch.empty(batch, *m.shape)
    peak = _states(network, stage)
    if not on_gpu:
        peak += _training_peak(network, {"clips": clips})
    # the batch as stored, varied, and as input
    peak += batch * (2 * _clip_bytes(m) + 2 * 4 * math.prod(m.shape))
    return Part(f"train the {name} backbone on batches of {stage.batch}", peak, f"lower it by --set {name}.batch=N")


def _extraction(task: Task, name: str, m: Modality, count: int, on_gpu: bool) -> Part:
    with torch.device("meta"):
        backbone = pretraining(task, m, 0.0).backbone.eval()
        clips = torch.empty(count, *m.shape)
    peak = count * (2 * _clip_bytes(m) + 2 * 4 * math.prod(m.shape)) + _weights(backbone)
    if not on_gpu:
        with torch.no_grad(), Alive(_known(backbone)) as alive:
            backbone(clips)
        peak += alive.peak
    return Part(f"compute {name} features of {count} clips", peak, f"choose a smaller {name} network")


def _fusion(recipe: Recipe, task: Task, windows: int, on_gpu: bool) -> Part:
    stage = recipe.stage("fusion")
    batch = min(stage.batch, windows)
    with torch.device("meta"):
        fusion = fusion_of(recipe, task, stage.dropout)
        names = dict.fromkeys((*fusion.modalities, *([SECOND] if recipe.second else [])))
        x = {m: torch.empty(batch, task.steps, TEXT_DIM if m == TEXT else task.dim) for m in names}
        present = torch.ones(batch, task.steps, len(fusion.modalities))
    peak = _states(fusion, stage) + 3 * 4 * sum(v.numel() for v in x.values())
    if not on_gpu:
        peak += _training_peak(FusionStep(fusion), {"features": x, "present": present})
    # validation is scored on all windows at once
    peak += 8 * windows * task.steps * (len(task.outputs) + 1)
    return Part(f"train the fusion on batches of {stage.batch}", peak, "lower it by --set fusion.batch=N")


def _weights(network: nn.Module) -> int:
    return sum(t.untyped_storage().nbytes() for t in (*network.parameters(), *network.buffers()))


def _known(network: nn.Module) -> set[int]:
    return {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}


def _states(network: nn.Module, stage: Stage) -> int:
    """Weights, the optimiser's state, and the best and the last weights as read back."""
    return (1 + STATES.get(stage.optimizer, 2) + 2) * _weights(network)


def _training_peak(network: nn.Module, inputs: dict[str, Tensor | dict[str, Tensor]]) -> int:
    """Bytes of activations and gradients of one step, at their peak."""
    with Alive(_known(network)) as alive:
        outputs = network(*inputs.values()) if "clips" in inputs else network(**inputs)
        torch.stack([y.sum() for y in outputs.values()]).sum().backward()  # type: ignore[no-untyped-call]
    return alive.peak
