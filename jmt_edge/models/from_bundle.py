"""A bundle's networks as the torch modules they were exported from. Needs torch.

The manifest's task gives the architectures, each network's `options` its constructor's other arguments, and safetensors
the weights. A module is used only if its output equals the ONNX graph's on one random input, because weights that fit a
module by name and shape can still belong to another architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from ..engine.backends.base import last_step
from ..engine.bundle import Bundle
from ..engine.session import random_feeds, session
from ..errors import BackendError, ConfigError, short
from ..tasks import Task
from .backbones import EdaCnn, I3dTcn, VideoResNet, build_backbone
from .fusion import JMT, Concat, Fusion, Unimodal, Vanilla
from .intra_modal import IntraModalBackbone
from .jca import JointCrossAttention
from .joint import build_fusion
from .temporal import StepGru

F32 = NDArray[np.float32]
TOLERANCE = 1e-3  # relative L2 error between two float32 implementations; another architecture has about 1


class PositionalFusion(nn.Module):
    """A fusion with positional inputs and outputs: (present, *features) -> (attention, *outputs) of the last step.

    Shapes as in `backends.base.Engine.fusion`. `attention` is zero if the fusion does not define it.
    """

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion

    def forward(self, present: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        out = self.fusion(dict(zip(self.fusion.modalities, features)), present, True, last=True)
        return (out.get("attention", present[:, -1:] * 0), *(out[name] for name in self.fusion.outputs))


def backbone_options(backbone: nn.Module) -> dict[str, Any]:
    """What `build_backbone` needs in addition to the task's fields to build this backbone again."""
    if isinstance(backbone, VideoResNet):
        return {"feature": backbone.feature}
    if isinstance(backbone, EdaCnn):
        return {"relu": backbone.relu}
    if isinstance(backbone, I3dTcn):
        return {"resize": backbone.resize}
    if isinstance(backbone, IntraModalBackbone):
        return {"combine": backbone.combine.kind, "parts": [backbone_options(part) for part in backbone.parts]}
    return {}


def fusion_options(fusion: Fusion) -> dict[str, Any]:
    """What `build_fusion` needs in addition to the task's fields to build this fusion again."""
    options: dict[str, Any] = {"fusion": _kind(fusion)}
    if isinstance(fusion, JMT):
        options |= {"head": fusion.head, "attention": fusion.attention_kind, "heads": fusion.attention_heads}
        options |= {"joint_abs": fusion.joint_abs}
    if isinstance(fusion, JointCrossAttention):
        options |= {"recursions": fusion.recursions}
    voice = dict(fusion.temporal.items()).get("voice")
    first = voice[0] if isinstance(voice, nn.Sequential) else voice
    return options | ({"audio_gru": True} if isinstance(first, StepGru) else {})


def _kind(fusion: Fusion) -> str:
    if isinstance(fusion, JMT):
        return "jmt" if fusion.has_joint else "jmt_no_joint"
    if isinstance(fusion, JointCrossAttention):
        return "rjcma" if fusion.temporal else "jca"
    return {Vanilla: "vanilla", Concat: "concat", Unimodal: "unimodal"}[type(fusion)]


def load_modules(bundle: Bundle) -> dict[str, nn.Module]:
    """Every network in evaluation mode: backbones (N, *shape) -> (N, d), `fusion` as a `PositionalFusion`.

    Raises BackendError where the bundle has no training weights, or they do not reproduce its graphs.
    """
    modules: dict[str, nn.Module] = {}
    with torch.random.fork_rng(devices=[]):
        for name in (*bundle.task.names, "fusion"):
            entry = bundle.networks.get(name, {})
            if "weights" not in entry:
                raise BackendError(
                    f"bundle {bundle.path} has no training weights of '{name}' (demo bundles omit them); use --backend "
                    "onnxruntime, or train a bundle that includes them"
                )
            data = bundle.read(entry["weights"])
            try:
                state = safetensors.torch.load(data)
                module = _build(bundle.task, name, entry.get("options", {}))
                module.load_state_dict(state)
            except (ConfigError, SafetensorError, RuntimeError, TypeError, ValueError, AttributeError) as error:
                raise BackendError(
                    f"the weights of '{name}' of {bundle.path} fit no module of this version ({short(error)}); export "
                    "it again"
                ) from None
            modules[name] = (PositionalFusion(module) if isinstance(module, Fusion) else module).eval()
    for name, module in modules.items():
        check_against_graph(bundle, name, module)
    return modules


def _build(task: Task, name: str, options: Mapping[str, Any]) -> nn.Module:
    rest = dict(options)
    if name != "fusion":
        m = task.modality(name)
        parts = rest.pop("parts", None)
        if parts is not None:
            rest |= dict(zip(m.backbone.split("+"), parts))
        return build_backbone(m.backbone, m.shape, m.width, task.dim, l2_normalise=task.l2_normalise, **rest)
    joint_abs = rest.pop("joint_abs", False)
    changes = {key: rest.pop(key) for key in ("head", "attention", "heads") if key in rest}
    fusion = build_fusion(Task.from_dict(task.to_dict() | changes), **rest)
    if isinstance(fusion, JMT):
        fusion.joint_abs = joint_abs
    return fusion


def example_inputs(task: Task, network: str) -> tuple[F32, ...]:
    """`random_feeds` in the order of the module's arguments: a clip, or `present` and the features."""
    feeds = random_feeds(task, network)
    return tuple(feeds[name] for name in input_names(task, network))


def input_names(task: Task, network: str) -> tuple[str, ...]:
    """The ONNX graph's names of the module's arguments."""
    return ("clip",) if network != "fusion" else ("present", *task.names)


def output_names(task: Task, network: str) -> tuple[str, ...]:
    """The ONNX graph's names of the module's results."""
    return ("features",) if network != "fusion" else ("attention", *task.outputs)


def check_against_graph(bundle: Bundle, name: str, module: Any, tolerance: float = TOLERANCE) -> None:
    """Compare one call of `module` (tensors on its own device) with the ONNX graph.

    Raises BackendError where the relative L2 error of all outputs together exceeds `tolerance`.
    """
    inputs = example_inputs(bundle.task, name)
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = module(*(torch.from_numpy(x).to(_device(module)) for x in inputs))
    found = found if isinstance(found, tuple) else (found,)
    graph = session(bundle.exported_graph(name))
    feeds = dict(zip(input_names(bundle.task, name), inputs))
    expected = dict(zip(output_names(bundle.task, name), graph.run(list(output_names(bundle.task, name)), feeds)))
    if name == "fusion":
        expected = last_step(expected)
    both = [np.concatenate([np.asarray(x, np.float64).ravel() for x in side]) for side in (
        [t.float().cpu().numpy() for t in found], expected.values(),
    )]  # fmt: skip
    error = float(np.linalg.norm(both[0] - both[1]) / max(float(np.linalg.norm(both[1])), 1e-30))
    if not error <= tolerance:
        raise BackendError(
            f"'{name}' of {bundle.path} gives other results in torch than in its ONNX graph (relative error "
            f"{error:.1e}); use --backend onnxruntime, or export it again"
        )


def _device(module: Any) -> torch.device:
    first = next(iter(module.parameters()), None) if isinstance(module, nn.Module) else None
    return first.device if first is not None else torch.device("cpu")
