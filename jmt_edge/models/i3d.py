"""Inception I3D (Carreira and Zisserman 2017), the RGB stream up to its last map, with the usual key names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_Cells = tuple[int, int, int]  # time, height, width

# output channels of the branches: 1x1x1; 1x1x1 -> 3x3x3; 1x1x1 -> 3x3x3; pool -> 1x1x1
_MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def _same(x: Tensor, kernel: _Cells, stride: _Cells) -> Tensor:
    """Zero padding like TensorFlow's SAME: the output has ceil(size / stride) cells; an odd cell is at the end."""
    pads: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride)):
        total = max(k - s if size % s == 0 else k - size % s, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads) if any(pads) else x


class Unit3D(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, width_in: int, width: int, kernel: _Cells = (1, 1, 1), stride: _Cells = (1, 1, 1)) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(width_in, width, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(width, eps=0.001, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(_same(x, self.kernel, self.stride))))


class MaxPool3d(nn.Module):
    def __init__(self, kernel: _Cells, stride: _Cells) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Inception(nn.Module):
    def __init__(self, width_in: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pool = widths
        self.b0 = Unit3D(width_in, one)
        self.b1a, self.b1b = Unit3D(width_in, reduce3), Unit3D(reduce3, three, (3, 3, 3))
        self.b2a, self.b2b = Unit3D(width_in, reduce5), Unit3D(reduce5, five, (3, 3, 3))
        self.b3a, self.b3b = MaxPool3d((3, 3, 3), (1, 1, 1)), Unit3D(width_in, pool)
        self.channels = one + three + five + pool

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class InceptionI3d(nn.Module):
    """(N, 3, T, H, W) -> (N, channels, T/8, H/32, W/32); `channels` is 1024 at the published `width` 64."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(channels * width // 64, 1)

        stages: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": Unit3D(3, scaled(64), (7, 7, 7), (2, 2, 2)),
            "MaxPool3d_2a_3x3": MaxPool3d((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": Unit3D(scaled(64), scaled(64)),
            "Conv3d_2c_3x3": Unit3D(scaled(64), scaled(192), (3, 3, 3)),
            "MaxPool3d_3a_3x3": MaxPool3d((1, 3, 3), (1, 2, 2)),
        }
        channels = scaled(192)
        for name, widths in _MIXED.items():
            if name == "Mixed_4b":
                stages["MaxPool3d_4a_3x3"] = MaxPool3d((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                stages["MaxPool3d_5a_2x2"] = MaxPool3d((2, 2, 2), (2, 2, 2))
            block = Inception(channels, tuple(scaled(w) for w in widths))
            stages[name], channels = block, block.channels
        self.stages, self.channels = tuple(stages), channels
        for name, stage in stages.items():
            self.add_module(name, stage)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.stages:
            x = getattr(self, name)(x)
        return x
