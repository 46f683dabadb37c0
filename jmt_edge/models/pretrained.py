"""Pretrained weights: torchvision's, or a user's checkpoint file. Only tensors are read."""

from __future__ import annotations

import os
import pickle
import socket
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ConfigError, DataError, first_line
from .backbones import AudioResNet, Backbone, EdaCnn, I3dTcn, VideoResNet

_NESTED = ("state_dict", "model_state_dict", "model", "net")


@dataclass(frozen=True)
class LoadReport:
    """How a checkpoint's keys were matched with the network's parameters.

    `used`: (key in the file, parameter); `ignored`: (key, why); `missing`: parameters that keep their
    initial values.
    """

    source: str
    used: tuple[tuple[str, str], ...]
    ignored: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as text, every key named."""
        out = [f"{self.source}: {len(self.used)} keys used, {len(self.ignored)} ignored, {len(self.missing)} missing"]
        out += [f"  used     {key}" + (f" -> {name}" if key != name else "") for key, name in self.used]
        out += [f"  ignored  {key} ({why})" for key, why in self.ignored]
        out += [f"  missing  {name} (keeps its initial value)" for name in self.missing]
        return out


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or PyTorch file, by key. A state dict one level down is found too.

    PyTorch files are pickles: they are read with `weights_only=True`, so that no code in them runs.
    Raises DataError for a file that is missing, damaged, or holds more than tensors and plain values.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"no checkpoint at {file}; give a .pt, .pth or .safetensors file")
    try:
        content: Any
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"{file} is not a plain state dict (damaged, or it pickles code); save `model.state_dict()` and give that"
        ) from None
    except Exception as error:  # of a damaged file, torch's unpickler raises whatever it meets
        raise DataError(
            f"{file} cannot be read as a checkpoint ({first_line(error).rstrip('. ')}); copy or save it again"
        ) from None
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise DataError(f"{file} holds a {type(content).__name__}, not a state dict; save `model.state_dict()`")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise DataError(f"{file} holds no tensors; save `model.state_dict()` and give that file")
    return tensors


def load_pretrained(backbone: Backbone, weights: str | os.PathLike[str] = "torchvision") -> LoadReport:
    """Load weights into `backbone`: torchvision's own (`torchvision`, downloaded once) or a file's.

    Kinetics-400 for r2plus1d_18 and r3d_18, ImageNet for resnet18_audio (conv1 = mean over the RGB kernels).
    In a file, prefixes before the network's names (`module.`, `backbone.`) do not matter. Layers that a
    classifier file does not have (`fc` of another size, the TCN behind I3D) keep their initial values.
    Raises ConfigError where torchvision has no such network, DataError where the download fails or the file
    belongs to another network.
    """
    if weights == "torchvision":
        return _load(backbone, _torchvision(backbone), "torchvision")
    return _load(backbone, read_checkpoint(weights), str(weights))


def _load(backbone: Backbone, state: Mapping[str, Tensor], source: str) -> LoadReport:
    own = dict(backbone.state_dict())
    names = list(own)
    optional = tuple(n for n in names if n.startswith(("fc.", "tcn.")) or n.endswith("num_batches_tracked"))
    if isinstance(backbone, EdaCnn):
        pairs, optional = _pair_eda(own, state), ()
    else:
        pairs = _pair(names, state)
        if isinstance(backbone, I3dTcn) and not pairs:  # the published files hold I3D alone
            pairs = {f"i3d.{n}": key for n, key in _pair([n[4:] for n in names if n.startswith("i3d.")], state).items()}
    used, ignored = {}, {}
    for name, key in pairs.items():
        value = state[key]
        if isinstance(backbone, AudioResNet) and name == "conv1.weight" and value.dim() == 4 and value.shape[1] == 3:
            value = value.mean(1, keepdim=True)
        if value.shape == own[name].shape:
            used[key], own[name] = name, value.to(own[name].dtype)
        else:
            ignored[key] = f"shape {tuple(value.shape)}, the network's is {tuple(own[name].shape)}"
    missing = [n for n in names if n not in used.values()]
    wrong = [n for n in missing if n not in optional]
    if wrong:
        raise DataError(
            f"{source} does not fit this {type(backbone).__name__}: {len(wrong)} of {len(names)} parameters have no "
            f"weights of their shape in it (first: {wrong[0]}); give a checkpoint of the same network and width"
        )
    ignored.update({key: "not in this network" for key in state if key not in used and key not in ignored})
    backbone.load_state_dict(own)
    return LoadReport(source, tuple(used.items()), tuple(ignored.items()), tuple(missing))


def _pair(names: list[str], state: Mapping[str, Tensor]) -> dict[str, str]:
    """Parameter -> key, where all keys share the one prefix that covers most parameters."""
    anchor = names[0]
    prefixes = {key[: -len(anchor)] for key in state if f".{key}".endswith(f".{anchor}")}
    best: dict[str, str] = {}
    for prefix in sorted(prefixes, key=len):
        pairs = {n: prefix + n for n in names if prefix + n in state}
        if len(pairs) > len(best):
            best = pairs
    return best


def _pair_eda(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, str]:
    """By name, else by shape: the six tensors of the EDA network all differ in shape."""
    named = _pair(list(own), state)
    if len(named) == len(own):
        return named
    pairs = {}
    for name, tensor in own.items():
        keys = [key for key, value in state.items() if value.shape == tensor.shape]
        if len(keys) == 1:
            pairs[name] = keys[0]
    return pairs


def _torchvision(backbone: Backbone) -> Mapping[str, Tensor]:
    from torchvision.models import ResNet18_Weights
    from torchvision.models.video import R2Plus1D_18_Weights, R3D_18_Weights

    if isinstance(backbone, VideoResNet):
        entry: Any = (R2Plus1D_18_Weights if backbone.kind == "r2plus1d" else R3D_18_Weights).KINETICS400_V1
    elif isinstance(backbone, AudioResNet):
        entry = ResNet18_Weights.IMAGENET1K_V1
    else:
        raise ConfigError(f"torchvision has no weights for {type(backbone).__name__}; give a file with --weights FILE")
    if backbone.width != 64:
        raise ConfigError(f"torchvision's weights have width 64, this network {backbone.width}; use the full variant")
    try:
        with _timeout(30):
            return entry.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise DataError(
            f"{entry.url} could not be downloaded ({first_line(error).rstrip('. ')}); "
            "fetch it on a machine with internet access and pass --weights FILE"
        ) from None


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """A dead network must not hang the program: the downloader takes no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
