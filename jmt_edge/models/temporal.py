"""Networks over the steps of a window: (B, S, d_in) -> (B, S, d_out). Both are causal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class TemporalConvNet(nn.Module):
    """Temporal convolutional network (Bai et al. 2018), plain convolutions: level i dilates by 2**i."""

    def __init__(self, width_in: int, widths: Sequence[int], kernel: int = 5, dropout: float = 0.1) -> None:
        super().__init__()
        widths = (width_in, *widths)
        self.network = nn.Sequential(
            *(_Level(a, b, kernel, 2**i, dropout) for i, (a, b) in enumerate(pairwise(widths)))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.transpose(1, 2)).transpose(1, 2)


class _Level(nn.Module):
    def __init__(self, width_in: int, width: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.pad = (kernel - 1) * dilation
        self.conv1 = nn.Conv1d(width_in, width, kernel, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, kernel, dilation=dilation)
        self.dropout = nn.Dropout(dropout)
        self.downsample = nn.Conv1d(width_in, width, 1) if width_in != width else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(F.relu(self.conv1(F.pad(x, (self.pad, 0)))))
        y = self.dropout(F.relu(self.conv2(F.pad(y, (self.pad, 0)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class StepGru(nn.Module):
    """A GRU over the steps (the JMT paper's optional layer after the audio backbone): (B, S, d) -> (B, S, d)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]
