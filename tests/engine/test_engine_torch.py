"""The torch backends: rebuilt modules against onnxruntime, what they refuse, torch-tensorrt's view of each network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_bundles import flat_task, random_weights
from engine_contract import check_step
from engine_networks import NAMES

from jmt_edge.cli.live import demo_bundle
from jmt_edge.compiler.build import choose_builder
from jmt_edge.engine.backends import BACKENDS, open_engine, unavailable
from jmt_edge.engine.bundle import Bundle, load_bundle, write_bundle
from jmt_edge.errors import BackendError
from jmt_edge.models import from_bundle
from jmt_edge.models.backbones import build_backbone
from jmt_edge.models.from_bundle import backbone_options, fusion_options
from jmt_edge.models.fusion import JMT
from jmt_edge.models.joint import build_fusion
from jmt_edge.tasks import Modality, get_task

no_gpu = pytest.mark.skipif(unavailable("torch-triton") is None, reason="this machine has a GPU")


def _agree(bundle: Bundle, name: str) -> None:
    """Same names, shapes, types and numbers as onnxruntime, at batch 1 and 2, with absent modalities."""
    task = bundle.task
    engine, reference = open_engine(bundle, name), open_engine(bundle, "onnxruntime")
    rng = np.random.default_rng(0)
    for count in (1, 2):
        clips = {m.name: rng.standard_normal((count, *m.shape), dtype=np.float32) for m in task.modalities}
        features = {n: rng.standard_normal((count, task.steps, task.dim), dtype=np.float32) for n in task.names}
        present = rng.random((count, task.steps, len(task.names))) < 0.6
        pairs = [(engine.backbones(clips), reference.backbones(clips))]
        pairs.append((engine.fusion(features, present), reference.fusion(features, present)))
        for found, expected in pairs:
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                assert found[key].dtype == np.float32
                empty = key == "attention" and not bundle.networks["fusion"]["attention"]
                assert empty or (value.std() > 0 if count > 1 else value.any())
                np.testing.assert_allclose(found[key], value, atol=1e-4 * np.abs(value).max())
    check_step(engine, task, 1e-5)
    assert engine.name == name
    engine.close()


def test_the_rebuilt_modules_give_the_graphs_numbers(trimodal: Bundle) -> None:
    _agree(trimodal, "torch")
    assert set(open_engine(trimodal, "torch").precision.values()) == {"fp32"}


@pytest.mark.slow
@pytest.mark.skipif(unavailable("torch-compile") is not None, reason=str(unavailable("torch-compile")))
def test_compiled_modules_give_the_graphs_numbers(tmp_path: Path) -> None:
    """The smallest fusion: compiling 300 operators of another would take a minute and show the same."""
    _agree(random_weights(replace(flat_task(), fusion="concat"), tmp_path / "small.jmt"), "torch-compile")


BACKBONES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("r2plus1d_18", (3, 8, 16, 16), {"feature": "mean"}),
    ("r3d_18", (3, 8, 16, 16), {"feature": "fc"}),
    ("i3d", (3, 8, 32, 32), {"resize": None}),
    ("resnet18_audio", (1, 64, 32), {}),
    ("eda_cnn1d", (1, 256), {"relu": False}),
    ("eda_cnn1d_centred", (1, 256), {}),
    ("eda_pooled", (1, 256), {}),
    ("face_actions", (11, 10), {}),
    ("r2plus1d_18+r3d_18", (3, 8, 16, 16), {"combine": "tr", "r3d_18": {"feature": "fc"}}),
]


@pytest.mark.parametrize(("name", "shape", "options"), BACKBONES)
def test_recorded_options_rebuild_a_backbone(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    built = build_backbone(name, shape, 4, 8, **options).eval()
    written = json.loads(json.dumps(backbone_options(built)))
    task = replace(get_task("pain", "demo"), modalities=(Modality("face", name, 4, shape, span=1.0),), dim=8)
    again = from_bundle._build(task, "face", written).eval()
    again.load_state_dict(built.state_dict())
    clip = torch.randn(2, *shape)
    with torch.no_grad():
        assert torch.equal(built(clip), again(clip))
    assert backbone_options(again) == backbone_options(built)


@pytest.mark.parametrize(
    ("kind", "changes", "arguments"),
    [
        ("jmt", {"heads": 4}, {}),
        ("jmt", {"head": "concat", "attention": "sigmoid"}, {}),
        ("jmt_no_joint", {}, {}),
        ("vanilla", {}, {}),
        ("concat", {}, {"audio_gru": True}),
        ("jca", {}, {}),
        ("rjca", {}, {"recursions": 2}),
        ("rjcma", {}, {"audio_gru": True}),
    ],
)
def test_recorded_options_rebuild_a_fusion(kind: str, changes: dict[str, Any], arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    preset = replace(get_task("affect", "demo"), dim=16, steps=4)
    built = build_fusion(replace(preset, **changes), kind, **arguments).eval()
    if isinstance(built, JMT) and built.head == "concat":
        built.joint_abs = True  # only an imported checkpoint sets it
    written = json.loads(json.dumps(fusion_options(built)))
    again = from_bundle._build(preset, "fusion", written).eval()  # the options win over the task
    again.load_state_dict(built.state_dict())
    features = {m: torch.randn(2, 4, 16) for m in preset.names}
    with torch.no_grad():
        one, two = built(features), again(features)
    assert all(torch.equal(one[o], two[o]) for o in preset.outputs)
    assert fusion_options(again) == fusion_options(built)


def _changed(bundle: Bundle, path: Path, network: str, **entry: Any) -> Bundle:
    networks = {**bundle.networks, network: {**bundle.networks[network], **entry}}
    manifest = {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema")} | {"networks": networks}
    return write_bundle(path, manifest, bundle.files)


def test_weights_of_another_architecture_are_refused(trimodal: Bundle, tmp_path: Path) -> None:
    """Mean instead of maximum: every name and shape fits, the numbers do not."""
    other = _changed(trimodal, tmp_path / "mean.jmt", "face", options={"feature": "mean"})
    with pytest.raises(BackendError, match="gives other results in torch than in its ONNX graph"):
        open_engine(other, "torch")
    other = _changed(trimodal, tmp_path / "swap.jmt", "face", weights="voice.safetensors")
    with pytest.raises(BackendError, match="fit no module of this version") as error:
        open_engine(other, "torch")
    assert "\n" not in str(error.value)


def test_a_demo_bundle_says_what_is_missing() -> None:
    with pytest.raises(BackendError, match="has no training weights of 'face'"):
        open_engine(load_bundle(demo_bundle("pain")), "torch")


def test_looking_for_backends_imports_no_torch() -> None:
    code = (
        "import sys, jmt_edge.live; from jmt_edge.engine.backends import BACKENDS, unavailable; "
        "[unavailable(n) for n in BACKENDS if n != 'openvino']; "
        "print([m for m in ('torch', 'triton', 'torch_tensorrt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if unavailable("torch-triton") is not None:  # with a GPU, TensorRT's own wheel may bring torch
        assert done.stdout.strip() == "[]"
    assert {"torch", "torch-compile", "torch-triton", "torch-tensorrt"} <= set(BACKENDS)


@no_gpu
@pytest.mark.parametrize("name", ["torch-triton", "torch-tensorrt"])
def test_what_needs_a_gpu_says_so(trimodal: Bundle, name: str) -> None:
    with pytest.raises(BackendError, match=f"backend '{name}' cannot run here: .*driver"):
        open_engine(trimodal, name)


@no_gpu
def test_builders_that_need_a_gpu_say_so() -> None:
    with pytest.raises(BackendError, match=r"--builder torch-tensorrt has no device to build on: .*driver"):
        choose_builder("torch-tensorrt", "current")
    with pytest.raises(BackendError, match="torch-tensorrt builds on the device itself, not for sm_86"):
        choose_builder("torch-tensorrt", "sm_86")


def test_torch_compile_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "needs a C++ compiler" in str(unavailable("torch-compile"))


@pytest.fixture(scope="module")
def dry_run() -> dict[str, Any]:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    script = Path(__file__).with_name("dry_run.py")
    done = subprocess.run([sys.executable, str(script), *NAMES], capture_output=True, text=True, timeout=280)
    if "No module named 'torch_tensorrt'" in done.stderr:
        pytest.skip("torch-tensorrt is not installed")
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_torch_tensorrt_takes_the_whole_network(dry_run: dict[str, Any], name: str) -> None:
    """A dry run: every operator has a converter, all of them go into one engine, none stays in PyTorch."""
    found = dry_run[name]
    assert found["operators"] > 5
    assert found["supported"] == found["operators"] == found["inside"]
    assert found["engines"] == 1 and not found["in_torch"]


def test_torch_tensorrt_builds_engine_bytes(dry_run: dict[str, Any], tmp_path: Path) -> None:
    """The demo fusion's 0.7 MB of weights are in it; loading it needs a driver."""
    assert dry_run["engine"] > 176_882 * 4
