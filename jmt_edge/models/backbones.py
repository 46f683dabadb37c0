"""Backbones: one clip of one modality to one feature vector of `dim` (512 in the papers).

`width` is the number of channels of the first stage (64, or 32 for EDA, in the papers); all later stages scale with it.
At the papers' widths the parameter names and shapes are torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock as BasicBlock2d
from torchvision.models.video.resnet import BasicBlock as BasicBlock3d
from torchvision.models.video.resnet import Conv2Plus1D, Conv3DSimple

from ..errors import ConfigError
from .i3d import InceptionI3d
from .temporal import TemporalConvNet

Pooling = Literal["max", "mean", "fc"]


class Backbone(nn.Module):
    """(N, *shape) -> (N, dim). `l2_normalise` scales each feature vector to length one at the end."""

    l2_normalise: bool = False

    def features(self, clip: Tensor) -> Tensor:
        raise AssertionError("each backbone defines features")

    def forward(self, clip: Tensor) -> Tensor:
        x = self.features(clip)
        return F.normalize(x, dim=-1) if self.l2_normalise else x


class VideoResNet(Backbone):
    """R(2+1)D-18 or R3D-18 (Tran et al. 2018), torchvision's blocks: (N, 3, T, H, W) -> (N, dim).

    `feature` reduces the last map (8 width, T', H', W'): its maximum, its mean, or a linear layer over the whole
    map (`fc`, which fixes `shape`). R3D's features are `Linear(8 width, dim)` of the mean, as in the papers.
    """

    def __init__(
        self, kind: Literal["r2plus1d", "r3d"], shape: Sequence[int], width: int, dim: int, feature: Pooling
    ) -> None:
        super().__init__()
        if feature not in ("max", "mean", "fc"):
            raise ConfigError(f"unknown feature '{feature}': choose max, mean or fc")
        self.kind, self.width, self.feature = kind, width, feature
        if kind == "r2plus1d":
            middle = max(round(45 * width / 64), 1)
            self.stem = nn.Sequential(
                nn.Conv3d(3, middle, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
                nn.BatchNorm3d(middle),
                nn.ReLU(inplace=True),
                nn.Conv3d(middle, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
                nn.BatchNorm3d(width),
                nn.ReLU(inplace=True),
            )
        else:
            self.stem = nn.Sequential(
                nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
                nn.BatchNorm3d(width),
                nn.ReLU(inplace=True),
            )
        conv = Conv2Plus1D if kind == "r2plus1d" else Conv3DSimple
        self.layer1 = _stage3d(conv, width, width, 1)
        self.layer2 = _stage3d(conv, width, 2 * width, 2)
        self.layer3 = _stage3d(conv, 2 * width, 4 * width, 2)
        self.layer4 = _stage3d(conv, 4 * width, 8 * width, 2)
        last = 8 * width
        if feature == "fc":
            cells = 1
            for size, halvings in zip(shape[1:], (3, 4, 4)):
                cells *= -(-size // 2**halvings)
            self.fc = nn.Linear(last * cells, dim)
        elif kind == "r3d" or last != dim:
            self.fc = nn.Linear(last, dim)
        _kaiming(self)

    def features(self, clip: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(clip)))))
        if self.feature == "fc":
            return self.fc(x.flatten(1))
        x = x.amax((2, 3, 4)) if self.feature == "max" else x.mean((2, 3, 4))
        return self.fc(x) if hasattr(self, "fc") else x


def _stage3d(conv: Callable[..., nn.Module], width_in: int, width: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or width_in != width:
        shortcut = nn.Sequential(nn.Conv3d(width_in, width, 1, stride, bias=False), nn.BatchNorm3d(width))
    return nn.Sequential(BasicBlock3d(width_in, width, conv, stride, shortcut), BasicBlock3d(width, width, conv))


class AudioResNet(Backbone):
    """ResNet-18 on a log-mel spectrogram: (N, 1, mels, frames) -> (N, dim), average-pooled."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.width = width
        self.conv1 = nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage2d(width, width, 1)
        self.layer2 = _stage2d(width, 2 * width, 2)
        self.layer3 = _stage2d(2 * width, 4 * width, 2)
        self.layer4 = _stage2d(4 * width, 8 * width, 2)
        if 8 * width != dim:
            self.fc = nn.Linear(8 * width, dim)
        _kaiming(self)

    def features(self, clip: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(clip))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))
        return self.fc(x) if hasattr(self, "fc") else x


def _stage2d(width_in: int, width: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or width_in != width:
        shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    return nn.Sequential(BasicBlock2d(width_in, width, stride, shortcut), BasicBlock2d(width, width))


class EdaCnn(Backbone):
    """The papers' 1-D network for skin conductance: (N, 1, samples) -> (N, dim).

    Conv(32, k5, s2) ReLU MaxPool2, Conv(64, k5) ReLU MaxPool2, FC to dim, ReLU: 2816 samples give 22336 values
    before the FC. The released code has no ReLU after it (`relu=False`).
    `centre` subtracts each clip's mean first: levels of 2 to 15 µS between people otherwise drown responses of
    0.1 µS. It is not in the papers, so it is a backbone of its own name, `eda_cnn1d_centred`.
    """

    def __init__(self, samples: int, width: int, dim: int, relu: bool = True, centre: bool = False) -> None:
        super().__init__()
        length = ((samples - 5) // 2 + 1) // 2
        length = (length - 4) // 2
        if length < 1:
            raise ConfigError(f"{samples} EDA samples are too few for the network; use at least 28")
        self.conv1 = nn.Conv1d(1, width, 5, stride=2)
        self.conv2 = nn.Conv1d(width, 2 * width, 5)
        self.fc = nn.Linear(2 * width * length, dim)
        self.relu, self.centre = relu, centre

    def features(self, clip: Tensor) -> Tensor:
        x = clip - clip.mean(-1, keepdim=True) if self.centre else clip
        x = F.max_pool1d(F.relu(self.conv1(x)), 2)
        x = F.max_pool1d(F.relu(self.conv2(x)), 2)
        x = self.fc(x.flatten(1))
        return F.relu(x) if self.relu else x


class EdaPooled(Backbone):
    """Skin conductance, independent of where in the clip a response occurs: (N, 1, samples) -> (N, dim). Our own.

    The clip, a fixed multiple of µS without an offset, is averaged down to about 120 values: conductance varies at a
    few Hz at most, and a kernel then spans a response at any rate. These become four channels: the deviation from the
    clip's mean and the slope over 1/30 of the clip, of the conductance (responses in µS) and of its logarithm
    (responses relative to the person's level, which differs by factors between people). Each is compressed,
    sign(v) log(1 + |v|), because responses differ as much. Three convolutions follow; the features are a linear layer
    of their mean and maximum over time.
    """

    def __init__(self, samples: int, width: int, dim: int) -> None:
        super().__init__()
        if samples < 60:
            raise ConfigError(f"{samples} EDA samples are too few for the network; use at least 60")
        self.step = max(samples // 120, 1)
        self.lag = max(samples // self.step // 30, 1)
        self.conv1 = nn.Conv1d(4, width, 7, stride=2, padding=3)
        self.conv2 = nn.Conv1d(width, 2 * width, 5, padding=2)
        self.conv3 = nn.Conv1d(2 * width, 2 * width, 5, padding=2)
        self.fc = nn.Linear(4 * width, dim)

    def features(self, clip: Tensor) -> Tensor:
        level = F.avg_pool1d(clip, self.step)
        relative = 50 * level.clamp_min(0.05).log()  # a response of 2 % is 1, like one of 0.1 µS if that is the unit
        x = torch.cat([*self._channels(level), *self._channels(relative)], 1)
        x = F.max_pool1d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.conv3(x))
        return F.relu(self.fc(torch.cat([x.mean(-1), x.amax(-1)], 1)))

    def _channels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        slope = F.pad(x[..., self.lag :] - x[..., : -self.lag], (self.lag // 2, self.lag - self.lag // 2))
        return _compress(x - x.mean(-1, keepdim=True)), _compress(slope)


def _compress(x: Tensor) -> Tensor:
    return x.sign() * torch.log1p(x.abs())


class FaceActions(Backbone):
    """Measures of a face over time (`preprocessing.actions`): (N, C, T) -> (N, dim). Our own.

    A face's appearance is gone before the network sees anything. Each measure comes twice: as it is, and without the
    clip's mean, because people differ at rest by more than an action changes. Two convolutions over time follow; the
    features are a linear layer of their mean and maximum.
    """

    def __init__(self, shape: Sequence[int], width: int, dim: int) -> None:
        super().__init__()
        if len(shape) != 2:
            raise ConfigError(f"face_actions takes measures of a face, (C, T), not clips of {tuple(shape)}")
        self.conv1 = nn.Conv1d(2 * shape[0], 4 * width, 3, padding=1)
        self.conv2 = nn.Conv1d(4 * width, 4 * width, 3, padding=1)
        self.fc = nn.Linear(8 * width, dim)

    def features(self, clip: Tensor) -> Tensor:
        x = torch.cat([clip, clip - clip.mean(-1, keepdim=True)], 1)
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc(torch.cat([x.mean(-1), x.amax(-1)], 1))


class I3dTcn(Backbone):
    """Inception I3D pooled over space, a TCN of four levels over time, the maximum over time.

    (N, 3, T, H, W) -> (N, dim). Clips of another size are resized to `resize` pixels (None: used as they are).
    """

    def __init__(self, width: int, dim: int, resize: int | None = 224) -> None:
        super().__init__()
        self.i3d = InceptionI3d(width)
        self.tcn = TemporalConvNet(self.i3d.channels, (dim,) * 4, kernel=5, dropout=0.1)
        self.resize = resize
        _kaiming(self)

    def features(self, clip: Tensor) -> Tensor:
        if self.resize is not None and clip.shape[-1] != self.resize:
            frames = clip.transpose(1, 2).flatten(0, 1)
            frames = F.interpolate(frames, (self.resize, self.resize), mode="bilinear", align_corners=False)
            clip = frames.view(-1, clip.shape[2], *frames.shape[1:]).transpose(1, 2)
        over_time = self.i3d(clip).mean((3, 4))  # (N, channels, T')
        return self.tcn(over_time.transpose(1, 2)).amax(1)


def _kaiming(module: nn.Module) -> None:
    for m in module.modules():
        if isinstance(m, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


# name -> (shape, width, dim, **options) -> backbone
BACKBONES: dict[str, Callable[..., Backbone]] = {
    "r2plus1d_18": lambda shape, width, dim, feature="max": VideoResNet("r2plus1d", shape, width, dim, feature),
    "r3d_18": lambda shape, width, dim, feature="mean": VideoResNet("r3d", shape, width, dim, feature),
    "i3d": lambda shape, width, dim, resize=224: I3dTcn(width, dim, resize),
    "resnet18_audio": lambda shape, width, dim: AudioResNet(width, dim),
    "eda_cnn1d": lambda shape, width, dim, relu=True: EdaCnn(shape[-1], width, dim, relu),
    "eda_cnn1d_centred": lambda shape, width, dim, relu=True: EdaCnn(shape[-1], width, dim, relu, centre=True),
    "eda_pooled": lambda shape, width, dim: EdaPooled(shape[-1], width, dim),
    "face_actions": lambda shape, width, dim: FaceActions(shape, width, dim),
}


def build_backbone(
    name: str, shape: Sequence[int], width: int, dim: int, *, l2_normalise: bool = False, **options: Any
) -> Backbone:
    """The backbone `name` for clips of `shape` (without the batch axis).

    Options: `feature` max | mean | fc (r2plus1d_18, r3d_18), `resize` (i3d), `relu` (eda_cnn1d). `a+b` joins two
    backbones of one modality (`r2plus1d_18+i3d`): its options are `combine` fc | tr and, by name, a table of
    options for each part. Raises ConfigError for an unknown name or option.
    """
    if "+" in name:
        return _intra_modal(name, shape, width, dim, l2_normalise, options)
    if name not in BACKBONES:
        raise ConfigError(f"unknown backbone '{name}': choose one of {', '.join(BACKBONES)}")
    try:
        backbone = BACKBONES[name](tuple(shape), width, dim, **options)
    except TypeError:
        raise ConfigError(f"backbone '{name}' does not take the options {', '.join(options)}; leave them out") from None
    backbone.l2_normalise = l2_normalise
    return backbone


def _intra_modal(
    name: str, shape: Sequence[int], width: int, dim: int, l2_normalise: bool, options: dict[str, Any]
) -> Backbone:
    from .intra_modal import IntraModalBackbone  # it builds on this module

    names = name.split("+")
    unknown = set(options) - {"combine", *names}
    if len(names) != 2 or unknown:
        wrong = f"does not take {', '.join(sorted(unknown))}" if unknown else f"names {len(names)} backbones"
        raise ConfigError(f"backbone '{name}' {wrong}; join two as a+b, with the options combine, a and b")
    first, second = (build_backbone(part, shape, width, dim, **options.get(part, {})) for part in names)
    backbone = IntraModalBackbone(first, second, dim, options.get("combine", "fc"))
    backbone.l2_normalise = l2_normalise
    return backbone
