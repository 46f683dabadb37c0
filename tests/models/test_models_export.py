"""Exported graphs under onnxruntime equal the modules in torch; the bundle says what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from plan_outputs import plan_outputs
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from jmt_edge.cli.live import demo_bundle
from jmt_edge.compiler.export import backbone_graph, export_bundle, random_bundle, unfolded_graph
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.errors import BundleError, ConfigError
from jmt_edge.models import JMT, build_backbone, build_fusion, build_model
from jmt_edge.models.folding import FoldedPlan, fold
from jmt_edge.models.fusion_onnx import fusion_graph
from jmt_edge.tasks import get_task

RELATIVE = 1e-4


def run(graph: onnx.ModelProto | bytes, feed: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    source = graph if isinstance(graph, bytes) else graph.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: v.numpy() for k, v in feed.items()})))


def close(found: np.ndarray, expected: Tensor) -> None:
    assert found.shape == tuple(expected.shape)
    assert np.abs(found - expected.numpy()).max() <= RELATIVE * expected.abs().max().item()


def check_fusion(graph: onnx.ModelProto | bytes, fusion: Any, dim: int, batch: int, steps: int) -> None:
    features = {m: torch.randn(batch, steps, dim) for m in fusion.modalities}
    present = (torch.rand(batch, steps, len(fusion.modalities)) > 0.3).float()
    with torch.no_grad():
        every = fusion(features, present, return_attention=True)
    expected = {name: value[:, -1:] for name, value in every.items()}
    expected.setdefault("attention", torch.zeros(batch, 1, len(fusion.modalities)))
    found = run(graph, {**features, "present": present})
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name == "attention" and not value.any():
            assert not found[name].any()
        else:
            assert every[name].std() > 0
            close(found[name], value)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def randomise(fusion: torch.nn.Module) -> torch.nn.Module:
    for name, p in fusion.named_parameters():
        if name.endswith("bias") or "tokens" in name:
            torch.nn.init.normal_(p, std=0.3)
    return fusion.eval()


@pytest.mark.parametrize("dim", [64, 512])
@pytest.mark.parametrize("head", ["self_attention", "concat"])
@pytest.mark.parametrize("m", [2, 3])
def test_folded_graph_at_any_batch_and_length(m: int, head: str, dim: int) -> None:
    fusion = randomise(JMT(("face", "voice", "eda")[:m], dim, ("pain", "valence", "arousal"), head=head))
    graph = fusion_graph(fold(fusion))
    for batch, steps in ((1, 16), (3, 1)):
        check_fusion(graph, fusion, dim, batch, steps)


@pytest.mark.parametrize("name", ["pain", "affect", "trimodal"])
def test_shipped_graphs_are_the_folds_of_their_own_weights(name: str) -> None:
    """The demo bundles' fusion graph gives the last step of the plan beside it, computed in float64."""
    bundle = load_bundle(demo_bundle(name))
    with safe_open(bundle.path / "fusion_folded.safetensors", "numpy") as file:
        plan = FoldedPlan.from_safetensors_dict({k: file.get_tensor(k) for k in file.keys()}, file.metadata())  # noqa: SIM118
    task, rng = bundle.task, np.random.default_rng(0)
    features = {m: rng.standard_normal((3, task.steps, task.dim), dtype=np.float32) for m in task.names}
    present = (rng.random((3, task.steps, len(task.names))) > 0.3).astype(np.float32)
    feeds = {k: torch.from_numpy(v) for k, v in {**features, "present": present}.items()}
    found, expected = run(bundle.graph("fusion.onnx"), feeds), plan_outputs(plan, features, present)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        last = value[:, -1:]
        assert found[key].shape == last.shape
        assert bundle.networks["fusion"]["outputs"][key] == ["B", *last.shape[1:]]
        np.testing.assert_allclose(found[key], last, atol=1e-5 * np.abs(last).max())


def test_joint_abs_graph() -> None:
    fusion = randomise(JMT(("face", "eda"), 32, ("pain",), head="concat", joint_abs=True))
    check_fusion(fusion_graph(fold(fusion)), fusion, 32, 2, 3)


@pytest.mark.parametrize(
    ("kind", "changes"), [("jmt", {"heads": 8}), ("jmt", {"attention": "sigmoid"}), ("vanilla", {}), ("rjcma", {})]
)
def test_unfolded_graph(kind: str, changes: dict[str, Any]) -> None:
    task = replace(get_task("affect", "demo"), dim=32, steps=6, **changes)
    fusion = randomise(build_fusion(task, kind))
    graph = unfolded_graph(fusion, 32, 6)
    for batch, steps in ((1, 6), (4, 6 if kind == "rjcma" else 9)):
        check_fusion(graph, fusion, 32, batch, steps)


def test_bundle_of_a_small_trimodal_model(tmp_path: Path) -> None:
    """The demo's networks (the face at half the size): every graph, the weights beside them, the manifest."""
    task = get_task("trimodal", "demo")
    face = replace(task.modalities[0], shape=(3, 8, 32, 32))
    task = replace(task, modalities=(face, *task.modalities[1:]))
    model = build_model(task).eval()
    randomise(model.fusion)
    bundle = export_bundle(
        model, task, tmp_path / "x.jmt", name="x", provenance={"seed": 7}, calibration={"temperature": 2.0}
    )
    assert bundle.task == task
    assert bundle.manifest["provenance"]["seed"] == 7
    assert {"torch", "onnx", "jmt-edge"} <= bundle.manifest["provenance"]["versions"].keys()
    assert bundle.manifest["calibration"] == {"temperature": 2.0}
    assert not bundle.demo
    for m in task.modalities:
        for n in (1, 3):
            clip = torch.randn(n, *m.shape)
            with torch.no_grad():
                close(run(bundle.graph(f"{m.name}.onnx"), {"clip": clip})["features"], model.backbones[m.name](clip))
        assert bundle.networks[m.name]["inputs"] == {"clip": ["N", *m.shape]}
        assert bundle.networks[m.name]["outputs"] == {"features": ["N", task.dim]}
    check_fusion(bundle.graph("fusion.onnx"), model.fusion, task.dim, 2, 4)
    assert bundle.networks["fusion"]["inputs"]["present"] == ["B", "S", 3]
    assert bundle.networks["fusion"]["outputs"] == {
        "attention": ["B", 1, 3], "pain": ["B", 1, 2], "valence": ["B", 1], "arousal": ["B", 1],
    }  # fmt: skip
    again = build_model(task)
    for name, module in (*again.backbones.items(), ("fusion", again.fusion)):
        module.load_state_dict(load_file(bundle.path / f"{name}.safetensors"))
    with safe_open(bundle.path / "fusion_folded.safetensors", "numpy") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        plan = FoldedPlan.from_safetensors_dict(tensors, file.metadata())
    np.testing.assert_array_equal(plan.matrices["last.a"], fold(model.fusion).matrices["last.a"].astype(np.float32))
    with pytest.raises(BundleError, match="exists"):
        export_bundle(model, task, tmp_path / "x.jmt", name="x")


def test_same_seed_same_graphs_and_an_honest_manifest(tmp_path: Path) -> None:
    task = get_task("pain", "demo")
    task = replace(
        task, modalities=(replace(task.modalities[1], name="eda"), replace(task.modalities[1], name="voice"))
    )
    task = replace(task, head="concat")
    before = torch.random.get_rng_state()
    one = random_bundle(task, tmp_path / "one.jmt", seed=3)
    two = random_bundle(task, tmp_path / "two.jmt", seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.manifest["files"] == two.manifest["files"]
    assert one.manifest["provenance"]["weights"] == "random"
    assert one.manifest["untrained_networks"] == ["eda", "voice", "fusion"]
    assert one.networks["fusion"]["folded"] is True
    assert one.networks["fusion"]["attention"] is False


def test_a_refused_fold_is_recorded(tmp_path: Path) -> None:
    task = get_task("pain", "demo")
    task = replace(task, modalities=(task.modalities[1], replace(task.modalities[1], name="voice")), heads=8)
    bundle = export_bundle(build_model(task), task, tmp_path / "x.jmt", name="x", demo=True)
    assert "8 attention heads" in bundle.networks["fusion"]["not_folded_because"]
    assert "fusion_folded.safetensors" not in bundle.manifest["files"]
    assert load_bundle(tmp_path / "x.jmt").demo
    assert sorted(bundle.manifest["files"]) == [
        "README.md", "eda.onnx", "fusion.onnx", "fusion.safetensors", "voice.onnx",
    ]  # fmt: skip


def test_text_cannot_be_exported(tmp_path: Path) -> None:
    task = get_task("affect", "demo")
    model = build_model(task, "rjcma", text=True)
    with pytest.raises(ConfigError, match="text features from a file"):
        export_bundle(model, task, tmp_path / "x.jmt", name="x")


def test_pooled_eda_graph() -> None:
    backbone = build_backbone("eda_pooled", (1, 240), 8, 32).eval()
    clip = torch.rand(1, 1, 240) * 50
    with torch.no_grad():
        expected = backbone(clip)
    close(run(backbone_graph(backbone, (1, 240)), {"clip": clip})["features"], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("pain", "face"),
        pytest.param("affect", "face", marks=pytest.mark.nightly),
        pytest.param("affect", "voice", marks=pytest.mark.nightly),
        ("pain", "eda"),
    ],
)
def test_full_size_backbones(name: str, modality: str) -> None:
    task = get_task(name)
    m = task.modality(modality)
    backbone = build_model(task).eval().backbones[modality]
    clip = torch.randn(1, *m.shape)
    with torch.no_grad():
        expected = backbone(clip)
    close(run(backbone_graph(backbone, m.shape), {"clip": clip})["features"], expected)
