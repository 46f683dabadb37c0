"""Converts checkpoints of the papers' released code into our modules: the same weights under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import DataError
from ..tasks import Task
from .folding import JOINT, LOGITS
from .fusion import JMT
from .pretrained import LoadReport

# their module -> ours, for the two modalities (visual, physiological or audio)
_ENCODERS = {"visual_encoder": 0, "physiological_encoder": 1, "joint_representation_encoder": 2}
_CROSS = {"cross_attention_v": 0, "cross_attention_p": 1, "cross_attention_pv": 2}
_LAYER = (
    "attention.in_proj_weight", "attention.in_proj_bias", "attention.out_proj.weight", "attention.out_proj.bias",
    "feed_forward.0.weight", "feed_forward.0.bias", "feed_forward.2.weight", "feed_forward.2.bias",
    "layer_norm1.weight", "layer_norm1.bias", "layer_norm2.weight", "layer_norm2.bias",
)  # fmt: skip
_MHA = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
_LINEAR = ("weight", "bias")
_ANCHOR = "joint_representation_encoder.layers.0.attention.in_proj_weight"
_REGRESSORS = {"valence": "vregressor", "arousal": "aregressor"}
# the pain code's classifier behind out_layer1 / out_layerAll1, and a plain one behind the self-attention head
_CONCAT = (("out_layerAll1", "out_layerAll2"), ("out_layer1", "out_layer2"))
_CLASSIFIERS = ("classifier", "fc", "pregressor")


def import_released(
    state: Mapping[str, Tensor],
    task: Task,
    *,
    source: str,
    head: Literal["self_attention", "concat"] | None = None,
    attention_heads: int = 1,
    joint_abs: bool | None = None,
) -> tuple[JMT, LoadReport]:
    """The fusion of a released JMT checkpoint, with its output heads, in evaluation mode.

    Names may have any prefix; `final_encoder.*` (41 M unused parameters) is ignored. `head` None takes what the file
    holds. The number of attention heads is not in a checkpoint. `joint_abs` None is True for the pain task's `concat`
    head, whose code feeds |[v; p]| to the joint layer. The released code has no missing-modality tokens: ours are zero,
    and untrained.

    The pain code runs its encoders over the batch axis (B x 1 x 512, sequence first); at batch 1 it equals this module.
    Raises DataError, in one sentence, where the checkpoint is of another model.
    """
    if len(task.modalities) != 2:
        raise DataError(f"released checkpoints have two modalities, task '{task.name}' has {len(task.modalities)}")
    anchors = [key for key in state if key.endswith(_ANCHOR)]
    if len(anchors) != 1:
        raise DataError(
            f"{source} is not a joint transformer of the released code: {len(anchors)} keys end in '{_ANCHOR}', "
            "not one; give the checkpoint of the fusion"
        )
    prefix = anchors[0][: -len(_ANCHOR)]
    width = state[anchors[0]].shape[-1]
    if width != task.dim:
        raise DataError(
            f"{source} has {width} features, task '{task.name}' ({task.variant}) has {task.dim}; use the full one"
        )
    head = head or ("self_attention" if f"{prefix}final_self_attention.in_proj_weight" in state else "concat")
    if joint_abs is None:
        joint_abs = head == "concat" and "pain" in task.outputs
    fusion = JMT(
        task.names, task.dim, task.outputs, head=head, heads=attention_heads, attention=task.attention,
        joint_abs=joint_abs,
    )  # fmt: skip
    pairs = {ours: prefix + theirs for theirs, ours in _names(fusion, prefix, state).items()}
    for output in task.outputs:
        pairs.update(_head_keys(fusion, output, prefix, state, source))
    return fusion.eval(), _assign(fusion, pairs, state, source)


def _names(fusion: JMT, prefix: str, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Their parameter (without prefix) -> ours, all but the output heads."""
    sources = (*fusion.modalities, JOINT)
    names = {f"{theirs}.layers.0.{p}": f"encoders.{sources[i]}.{p}" for theirs, i in _ENCODERS.items() for p in _LAYER}
    names |= {f"{theirs}.{p}": f"cross.{sources[i]}.{p}" for theirs, i in _CROSS.items() for p in _MHA}
    names |= {f"out_layer_pv.{p}": f"joint.{p}" for p in _LINEAR}
    if fusion.head == "self_attention":
        names |= {f"final_visual_encoder.layers.0.{p}": f"block_encoder.{p}" for p in _LAYER}
        names |= {f"final_self_attention.{p}": f"block_attention.{p}" for p in _MHA}
    else:
        layer = _concat_layers(prefix, state)[0]
        names |= {f"{layer}.{p}": f"concat.{p}" for p in _LINEAR}
    return names


def _concat_layers(prefix: str, state: Mapping[str, Tensor]) -> tuple[str, str]:
    return next((pair for pair in _CONCAT if f"{prefix}{pair[0]}.weight" in state), _CONCAT[-1])


def _head_keys(fusion: JMT, output: str, prefix: str, state: Mapping[str, Tensor], source: str) -> dict[str, str]:
    """Our parameter of this output's head -> their key. The head takes the checkpoint's form and hidden width."""
    regressor = _REGRESSORS.get(output)
    if regressor is not None:
        key = _find(state, f"{regressor}.0.weight")
        if key is None:
            raise DataError(
                f"{source} has no '{regressor}' for {output}; give the affect checkpoint with its regressors"
            )
        return _two_layers(fusion, output, key, state)
    candidates = [f"{prefix}{_concat_layers(prefix, state)[1]}"] if fusion.head == "concat" else []
    candidates += [key[: -len(".weight")] for name in _CLASSIFIERS if (key := _find(state, f"{name}.weight"))]
    for layer in candidates:
        weight = state.get(f"{layer}.weight")
        if weight is not None and tuple(weight.shape) == (LOGITS[output], _head_width(fusion)):
            fusion.heads[output] = nn.Linear(_head_width(fusion), LOGITS[output])
            return {f"heads.{output}.{p}": f"{layer}.{p}" for p in _LINEAR}
    for name in _CLASSIFIERS:
        key = _find(state, f"{name}.0.weight")
        if key is not None and state[key].shape[-1] == _head_width(fusion):
            return _two_layers(fusion, output, key, state)
    raise DataError(
        f"{source} has no {output} classifier of {_head_width(fusion)} inputs and {LOGITS[output]} logits; "
        "give the checkpoint with its classifier"
    )


def _head_width(fusion: JMT) -> int:
    return fusion.dim if fusion.head == "self_attention" else 2 * fusion.dim


def _two_layers(fusion: JMT, output: str, key: str, state: Mapping[str, Tensor]) -> dict[str, str]:
    """`_head_keys` of a head with a hidden layer, whose first weight is at `key`."""
    hidden, stem = state[key].shape[0], key.removesuffix("0.weight")
    fusion.heads[output] = nn.Sequential(
        nn.Linear(_head_width(fusion), hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, LOGITS[output])
    )
    return {f"heads.{output}.{i}.{p}": f"{stem}{i}.{p}" for i in (0, 3) for p in _LINEAR}


def _find(state: Mapping[str, Tensor], suffix: str) -> str | None:
    """The one key that is `suffix` or ends in `.suffix`."""
    keys = [key for key in state if key == suffix or key.endswith(f".{suffix}")]
    return keys[0] if len(keys) == 1 else None


def _assign(fusion: JMT, pairs: Mapping[str, str], state: Mapping[str, Tensor], source: str) -> LoadReport:
    own: dict[str, Any] = dict(fusion.state_dict())
    for name, key in pairs.items():
        if key not in state:
            raise DataError(
                f"{source} lacks '{key}', so it is not a whole joint transformer; give the fusion's checkpoint"
            )
        if state[key].shape != own[name].shape:
            raise DataError(
                f"{source}: '{key}' has shape {tuple(state[key].shape)}, the published model has "
                f"{tuple(own[name].shape)}; it was trained with other settings, which cannot be imported"
            )
        own[name] = state[key].to(torch.float32)
    missing = [name for name in own if name not in pairs]
    for name in missing:
        own[name] = torch.zeros_like(own[name])
    fusion.load_state_dict(own)
    used = {key: name for name, key in pairs.items()}
    ignored = {
        key: "unused by the published forward pass" if "final_encoder." in key else "not part of this model"
        for key in state
        if key not in used
    }
    return LoadReport(source, tuple(used.items()), tuple(ignored.items()), tuple(missing))
