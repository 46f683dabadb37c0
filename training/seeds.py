"""Many seeds of one fusion trained side by side: their weights are stacked, and each step moves all of them.

The features are the same and the networks small, so a step of ten seeds costs little more than a step of one. Each seed
has its own initial weights, order of examples, masks and dropout, and stops by its own validation loss: the outcome is
that of `trainer.fit`, except for the random numbers of dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ..errors import ConfigError
from ..models.fusion import Fusion
from .losses import task_loss
from .recipes import Stage
from .sets import Batch, EpochSampler, FeatureSet, hash_seed
from .trainer import State, by_epoch, optimizer_of


def fit_seeds(
    fusions: Sequence[Fusion], train: FeatureSet, validation: FeatureSet, stage: Stage, seeds: Sequence[int]
) -> list[State]:
    """The weights with the least validation loss of each of `fusions`, of one architecture and a seed each.

    Raises ConfigError for a schedule that the seeds cannot share.
    """
    if stage.schedule not in ("constant", "cosine"):
        raise ConfigError(f"--seeds trains fusions with schedule constant or cosine, not {stage.schedule}")
    parameters, buffers = stack_module_state(list(fusions))  # type: ignore[arg-type]
    forward = _together(fusions[0])
    optimizer = optimizer_of([*parameters.values()], stage)
    schedule = by_epoch(optimizer, stage)
    samplers = [EpochSampler(len(train), stage.batch, seed, shard=False) for seed in seeds]
    everything = np.arange(len(validation))
    held = _stacked([validation[everything, 0]] * len(seeds))
    best, waited = [float("inf")] * len(seeds), [0] * len(seeds)
    states: list[State] = [{k: v[i].detach().clone() for k, v in parameters.items()} for i in range(len(seeds))]
    for epoch in range(stage.epochs):
        torch.manual_seed(hash_seed(seeds[0], epoch, 0))
        for sampler in samplers:
            sampler.set_epoch(epoch)
        fusions[0].train()
        for draws in zip(*samplers):
            inputs, labels = _stacked([train[draw] for draw in draws])
            outputs = forward(parameters, buffers, inputs)
            loss = torch.stack([_loss(outputs, labels, i) for i in range(len(seeds))]).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
        fusions[0].eval()
        with torch.no_grad():
            outputs = forward(parameters, buffers, held[0])
        for i in range(len(seeds)):
            if waited[i] >= stage.patience:
                continue
            loss_now = float(_loss(outputs, held[1], i))
            if not np.isfinite(loss_now):  # diverged: the weights before it stay
                waited[i] = stage.patience
            elif loss_now < best[i]:
                best[i], waited[i] = loss_now, 0
                states[i] = {k: v[i].detach().clone() for k, v in parameters.items()}
            else:
                waited[i] += 1
        if min(waited) >= stage.patience:
            break
    return states


@torch.no_grad()
def last_outputs(fusion: Fusion, states: Sequence[State], data: FeatureSet) -> dict[str, NDArray[np.float32]]:
    """{output: (K, W)} of the last step of every window, by each set of weights; of pain, the logit of class 1."""
    weights = {k: torch.stack([s[k] for s in states]) for k in states[0]}
    buffers = {k: torch.stack([v] * len(states)) for k, v in fusion.named_buffers()}
    forward = _together(fusion.eval())
    parts: dict[str, list[NDArray[np.float32]]] = {}
    for i in range(0, len(data), 256):
        batch = data[np.arange(i, min(i + 256, len(data))), 0]
        for o, y in forward(weights, buffers, _stacked([batch] * len(states))[0]).items():
            last = y[:, :, -1]
            parts.setdefault(o, []).append((last[..., 1] - last[..., 0] if o == "pain" else last).numpy())
    return {o: np.concatenate(p, axis=1) for o, p in parts.items()}


def _together(fusion: Fusion) -> Callable[..., dict[str, Tensor]]:
    """The outputs (K, B, S, ...) of K stacked sets of weights on K batches."""

    def one(parameters: Any, buffers: Any, features: dict[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        return dict(functional_call(fusion, (parameters, buffers), (features, present)))

    if not any(isinstance(m, nn.GRU) for m in fusion.modules()):
        together = vmap(one, randomness="different")
        return lambda p, b, inputs: dict(together(p, b, inputs["features"], inputs["present"]))

    def apart(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: dict[str, Any]) -> dict[str, Tensor]:
        # torch has no batching rule for a GRU
        found = [
            one(
                {k: v[i] for k, v in parameters.items()}, {k: v[i] for k, v in buffers.items()},
                {k: v[i] for k, v in inputs["features"].items()}, inputs["present"][i],
            )
            for i in range(len(inputs["present"]))
        ]  # fmt: skip
        return {o: torch.stack([y[o] for y in found]) for o in found[0]}

    return apart


def _stacked(batches: Sequence[Batch]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    inputs = [i for i, _ in batches]
    labels = [y for _, y in batches]
    features = {m: torch.stack([i["features"][m] for i in inputs]) for m in inputs[0]["features"]}
    stacked = {"features": features, "present": torch.stack([i["present"] for i in inputs])}
    return stacked, {o: torch.stack([y[o] for y in labels]) for o in labels[0]}


def _loss(outputs: dict[str, Tensor], labels: dict[str, Tensor], i: int) -> Tensor:
    return task_loss({o: y[i] for o, y in outputs.items()}, {o: y[i] for o, y in labels.items()})
