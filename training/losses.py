"""Masked losses: steps whose label is NaN contribute neither value nor gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


def ccc(prediction: Tensor, label: Tensor) -> Tensor:
    """Concordance of all labelled values, population moments: 2 cov / (var + var + (mean - mean)^2).

    The released loss divides by the batch size and swaps standard deviations; this is the correct formula.
    Shapes: any, equal. Needs at least one label.
    """
    keep = ~torch.isnan(label)
    x, y = prediction[keep].float(), label[keep].float()
    dx, dy = x - x.mean(), y - y.mean()
    spread = dx.square().mean() + dy.square().mean() + (x.mean() - y.mean()).square()
    return 2 * (dx * dy).mean() / spread.clamp_min(1e-8)


def ccc_loss(prediction: Tensor, label: Tensor) -> Tensor:
    """1 - CCC; 0 with a zero gradient for a batch with fewer than two labels."""
    if int((~torch.isnan(label)).sum()) < 2:
        return prediction.sum() * 0.0
    return 1 - ccc(prediction, label)


def pain_loss(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of (..., C) logits against (...) class numbers, mean over the labelled ones."""
    keep = ~torch.isnan(label)
    if not bool(keep.any()):
        return logits.sum() * 0.0
    return F.cross_entropy(logits[keep].float(), label[keep].long(), weight=weight)


def task_loss(outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor], weight: Tensor | None = None) -> Tensor:
    """Pain cross-entropy plus the mean of 1 - CCC over the affect outputs that `labels` names.

    outputs: `pain` (B, S, C) logits, others (B, S); labels: (B, S), NaN where unlabelled. weight: of the classes.
    """
    affect = [ccc_loss(outputs[name], label) for name, label in labels.items() if name != "pain"]
    total = torch.stack(affect).mean() if affect else torch.zeros((), device=next(iter(outputs.values())).device)
    return total + pain_loss(outputs["pain"], labels["pain"], weight) if "pain" in labels else total
