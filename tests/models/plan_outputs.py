"""A folded plan run by the kernels' reference, by name: what tests of plans and of their graphs compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from jmt_edge.kernels.layout import weights_of
from jmt_edge.kernels.reference import Reference
from jmt_edge.models.folding import LOGITS, FoldedPlan


def plan_outputs(
    plan: FoldedPlan, features: Mapping[str, Any], present: Any, dtype: torch.dtype = torch.float64
) -> dict[str, np.ndarray]:
    """features {modality: (B, S, d)}, present (B, S, M) -> `attention` (B, S, M), unless the head is `concat`, and each
    output: `pain` is logits (B, S, 2); `valence` and `arousal` are (B, S)."""
    stacked = torch.stack([torch.as_tensor(features[m]) for m in plan.modalities])
    logits, attention = Reference(weights_of(plan), dtype)(stacked, torch.as_tensor(present))
    found = {name: logits[..., where].numpy() for name, where in plan.output_slices.items()}
    found = {name: y if LOGITS[name] > 1 else y[..., 0] for name, y in found.items()}
    return found if plan.head == "concat" else {**found, "attention": attention.numpy()}
