"""From a trained model to a bundle: ONNX graphs, safetensors, provenance. Needs torch and onnx."""

from __future__ import annotations

import copy
import datetime
import inspect
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor, nn

from .. import __version__
from ..engine.bundle import Bundle, write_bundle
from ..errors import ConfigError
from ..machine import versions
from ..models.folding import fold
from ..models.from_bundle import PositionalFusion, backbone_options, fusion_options
from ..models.fusion import JMT, Fusion
from ..models.fusion_onnx import IR_VERSION, OPSET, fusion_graph
from ..models.joint import JointModel, build_model
from ..tasks import Task
from .card import CARD, model_card

LABELS = {"pain": ["no pain", "pain"]}
RANDOM_WEIGHTS = "random"


def export_bundle(
    model: JointModel,
    task: Task,
    path: str | os.PathLike[str],
    *,
    name: str,
    provenance: Mapping[str, Any] | None = None,
    demo: bool = False,
    calibration: Mapping[str, Any] | None = None,
    baseline: Mapping[str, Any] | None = None,
    untrained: Sequence[str] = (),
    overwrite: bool = False,
) -> Bundle:
    """Write `model` as a bundle and load it back.

    Per network: `<name>.onnx` (float32, dynamic batch) and `<name>.safetensors` (the module's state, before any
    folding; `options` in the manifest are its constructor's). A demo omits the latter, except for a fusion that does
    not fold. The fusion's graph is the folded one where folding is exact, with `fusion_folded.safetensors`, else the
    module itself; the manifest says which and why. Versions and the date are added to `provenance` (data, split, seed,
    recipe, scores); `calibration` holds e.g. {"temperature": T}; `baseline` says how the weights take a person's rest;
    `untrained` lists the networks with untrained weights.
    `README.md` is the model card. Raises BundleError where `path` exists and `overwrite` is false, ConfigError where
    the model has inputs that a bundle cannot provide (text features).
    """
    extra = [m for m in model.fusion.modalities if m not in task.names]
    if extra:
        raise ConfigError(f"the model takes {', '.join(extra)} features from a file; only live inputs can be exported")
    files: dict[str, bytes | Path] = {}
    networks: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for m in task.modalities:
            graph = backbone_graph(model.backbones[m.name], m.shape)
            files[f"{m.name}.onnx"] = _save(graph, Path(folder) / f"{m.name}.onnx")
            networks[m.name] = _entry(m.name, graph, model.backbones[m.name])
            networks[m.name]["options"] = backbone_options(model.backbones[m.name])
        graph, folded, reason = _fusion(model.fusion, task)
        files["fusion.onnx"] = _save(graph, Path(folder) / "fusion.onnx")
        networks["fusion"] = {**_entry("fusion", graph, model.fusion), "folded": folded is not None}
        networks["fusion"]["attention"] = has_attention(model.fusion)
        networks["fusion"]["options"] = fusion_options(model.fusion)
        if folded is None:
            networks["fusion"]["not_folded_because"] = reason
        else:
            files["fusion_folded.safetensors"] = folded
        whole = [] if demo else [*model.backbones.items()]
        for network, module in [*whole, *([("fusion", model.fusion)] if whole or not folded else [])]:
            networks[network]["weights"] = f"{network}.safetensors"
            state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
            files[f"{network}.safetensors"] = safetensors.torch.save(state)
        manifest = {
            "name": name,
            "task": task.to_dict(),
            "demo": demo,
            "networks": networks,
            "labels": {k: LABELS[k] for k in task.outputs if k in LABELS},
            "calibration": dict(calibration or {}),
            "untrained_networks": list(untrained),
            "provenance": {**(provenance or {}), **_versions()},
            **({"baseline": dict(baseline)} if baseline else {}),
        }
        files[CARD] = model_card(manifest)
        return write_bundle(path, manifest, files, overwrite=overwrite)


def random_bundle(task: Task, path: str | os.PathLike[str], seed: int = 0) -> Bundle:
    """A bundle of random weights, for timing and tests; the manifest says so."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(task)
    return export_bundle(
        model, task, path,
        name=f"{task.name}-{task.variant}-random",
        provenance={"weights": RANDOM_WEIGHTS, "note": "random weights, for timing only", "seed": seed},
        untrained=(*task.names, "fusion"),
    )  # fmt: skip


def has_attention(fusion: Fusion) -> bool:
    """Whether the fusion weights its modalities; if not, a bundle's `attention` is all zero."""
    return isinstance(fusion, JMT) and fusion.head == "self_attention"


def backbone_graph(backbone: nn.Module, shape: Sequence[int]) -> onnx.ModelProto:
    """`clip` (N, *shape) -> `features` (N, d), float32, opset 20; batch norm is folded into convolutions."""
    network = copy.deepcopy(backbone).cpu().eval()
    example = torch.zeros(2, *shape)
    return _trace(network, (example,), ["clip"], ["features"], ({0: "N"},))


def unfolded_graph(fusion: Fusion, dim: int, steps: int) -> onnx.ModelProto:
    """The fusion as it is: `present` and each modality -> `attention` and the outputs of the last step, as in
    `fusion_graph`; B is dynamic, S too unless the weights fix it (joint cross attention)."""
    from ..models.jca import JointCrossAttention

    fixed = isinstance(fusion, JointCrossAttention)
    s = steps if fixed else max(steps, 2)
    axes = {0: "B"} if fixed else {0: "B", 1: "S"}
    m = len(fusion.modalities)
    example = (torch.ones(2, s, m), *(torch.zeros(2, s, dim) for _ in range(m)))
    names = ["present", *fusion.modalities]
    network = PositionalFusion(copy.deepcopy(fusion).cpu().eval())
    return _trace(network, example, names, ["attention", *fusion.outputs], (axes, tuple(axes for _ in range(m))))


def _fusion(fusion: Fusion, task: Task) -> tuple[onnx.ModelProto, bytes | None, str]:
    """The graph, the folded matrices as safetensors (None where folding refuses) and the reason."""
    try:
        plan = fold(fusion)
    except ConfigError as error:
        return unfolded_graph(fusion, task.dim, task.steps), None, str(error)
    tensors, metadata = plan.to_safetensors_dict()
    return fusion_graph(plan), safetensors.numpy.save(tensors, metadata), ""


def _trace(
    network: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str], dynamic: Any
) -> onnx.ModelProto:
    shapes = dict(zip(inspect.signature(network.forward).parameters, dynamic))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network, example, input_names=inputs, output_names=outputs, opset_version=OPSET,
            dynamo=True, dynamic_shapes=shapes, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    model.producer_name, model.doc_string = "jmt-edge", ""
    for node in model.graph.node:  # the exporter's stack traces contain paths of this machine
        node.doc_string = ""
        del node.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    onnx.checker.check_model(model)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's logs of progress, traced nodes and deprecations; a failure still raises."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.__trace")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _save(graph: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(graph.SerializeToString())
    return path


def _entry(name: str, graph: onnx.ModelProto, module: nn.Module) -> dict[str, Any]:
    return {
        "onnx": f"{name}.onnx",
        "precision": "fp32",
        "inputs": {v.name: _shape(v) for v in graph.graph.input},
        "outputs": {v.name: _shape(v) for v in graph.graph.output},
        "parameters": sum(p.numel() for p in module.parameters()),
    }


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def _versions() -> dict[str, Any]:
    found = {"jmt-edge": __version__, **versions("torch", "torchvision", "onnx", "numpy")}
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"exported": now.isoformat(timespec="seconds"), "versions": found}
