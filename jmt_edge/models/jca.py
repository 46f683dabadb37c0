"""Joint cross attention: JCA (Praveen et al., CVPRW 2022), recursive RJCA and RJCMA (arXiv 2403.13659)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .fusion import Fusion
from .layers import OutputHeads


class JointCrossAttention(Fusion):
    """Joint cross attention of M = 2 or 3 modalities over K = `steps` steps, applied `recursions` (l) times.

    With X_m (d_m x K): J = FC([X_1; ...; X_M]), C_m = tanh(X_m^T W_jm J / sqrt(d)), H_m = ReLU(X_m W_cm C_m),
    X_m <- H_m W_hm + X_m; W_cm and W_hm are K x K and d = sum of d_m. Each recursion computes J again from the attended
    features with the same weights. Then the features are concatenated and go to the heads (an MLP). JCA is l = 1, RJCMA
    l = 3 with a TCN per modality (`temporal`).
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dims: int | Sequence[int],
        outputs: Sequence[str],
        *,
        steps: int,
        recursions: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(modalities, dims, outputs, **options)
        if len(self.modalities) not in (2, 3):
            raise ConfigError(f"joint cross attention takes 2 or 3 modalities, not {len(self.modalities)}")
        if recursions < 1:
            raise ConfigError(f"joint cross attention needs 1 recursion or more, not {recursions}")
        total = sum(self.dims)
        self.steps, self.recursions, self.scale = steps, recursions, 1 / math.sqrt(total)
        self.joint = nn.Linear(total, total)
        self.w_joint = nn.ParameterDict({m: _xavier(d, total) for m, d in zip(self.modalities, self.dims)})
        self.w_c = nn.ParameterDict({m: _xavier(steps, steps) for m in self.modalities})
        self.w_h = nn.ParameterDict({m: _xavier(steps, steps) for m in self.modalities})
        self.heads = OutputHeads(total, outputs, max(total // 4, 1), self.dropout)

    def mix(self, features: dict[str, Tensor], present: Tensor) -> tuple[Tensor, None]:
        x = {m: features[m].transpose(1, 2) for m in self.modalities}  # (B, d_m, K)
        for _ in range(self.recursions):
            joint = self.joint(torch.cat(list(x.values()), 1).transpose(1, 2)).transpose(1, 2)  # (B, d, K)
            x = {m: self._attend(m, x[m], joint) for m in self.modalities}
        return torch.cat(list(x.values()), 1).transpose(1, 2), None

    def _attend(self, m: str, x: Tensor, joint: Tensor) -> Tensor:
        correlation = torch.tanh(x.transpose(1, 2) @ self.w_joint[m] @ joint * self.scale)  # (B, K, K)
        return torch.relu(x @ self.w_c[m] @ correlation) @ self.w_h[m] + x


def _xavier(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, columns)))
