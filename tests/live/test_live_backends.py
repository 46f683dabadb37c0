"""The registry of backends, and onnxruntime against the same networks in NumPy."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_contract import check_step
from live_fixture import FakeEngine, hand_bundle

from jmt_edge.engine import backends
from jmt_edge.engine.backends import AUTO, BACKENDS, choose_engine, open_engine, unavailable
from jmt_edge.engine.bundle import Bundle, load_bundle, write_bundle
from jmt_edge.errors import BackendError, BundleError, ConfigError, UserError
from jmt_edge.tasks import get_task

Bundles = Callable[[str], Bundle]


def included() -> list[str]:
    return [n for n, module in BACKENDS.items() if importlib.util.find_spec(f"jmt_edge.engine.backends.{module}")]


@pytest.mark.parametrize("name", list(BACKENDS))
def test_a_backend_runs_or_says_in_a_clause_why_not(name: str) -> None:
    reason = unavailable(name)
    assert reason is None or (reason and "\n" not in reason and not reason.endswith("."))


@pytest.mark.parametrize("name", included())
def test_every_available_backend_agrees_with_the_reference(name: str, bundles: Bundles) -> None:
    """One contract for all: names, shapes, types, and the hand-made networks' values."""
    reason = unavailable(name)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    for task_name in ("pain", "affect", "trimodal"):
        bundle = bundles(task_name)
        task = bundle.task
        try:
            engine = open_engine(bundle, name, threads=1)
        except BackendError as error:
            pytest.skip(str(error))  # it needs what `build` or `train` adds to a bundle
        reference = FakeEngine(task)
        rng = np.random.default_rng(3)
        clips = {m.name: rng.normal(1, 1, (2, *m.shape)).astype(np.float32) for m in task.modalities}
        features, expected = engine.backbones(clips), reference.backbones(clips)
        only = engine.backbones({task.names[0]: clips[task.names[0]][:1]})
        assert set(features) == set(task.names) and set(only) == {task.names[0]}
        np.testing.assert_allclose(only[task.names[0]], features[task.names[0]][:1], atol=1e-5)
        steps = {n: rng.normal(0, 1, (1, task.steps, task.dim)).astype(np.float32) for n in task.names}
        present = rng.random((1, task.steps, len(task.names))) < 0.7
        present[0, -1, 0] = True
        outputs, wanted = engine.fusion(steps, present), reference.fusion(steps, present)
        for got, want in ((features, expected), (outputs, wanted)):
            for key in got:
                sign = -1 if key == "arousal" else 1
                assert got[key].dtype == np.float32 and got[key].shape == want[key].shape
                np.testing.assert_allclose(got[key], sign * want[key], atol=2e-2 if name != "onnxruntime" else 1e-4)
        check_step(engine, task, 1e-5)
        assert set(engine.precision) == {*task.names, "fusion"} and engine.name.startswith(name)
        engine.close()


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="auto, onnxruntime"):
        unavailable("tpu")


def _module(name: str, reason: str | None, load: object) -> types.ModuleType:
    module = types.ModuleType(name)
    module.available = lambda: reason  # type: ignore[attr-defined]
    module.load = load  # type: ignore[attr-defined]
    return module


def test_a_named_backend_is_never_replaced(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"cubin": _module("cubin", "there is no GPU", None)}
    monkeypatch.setattr(backends, "_module", modules.__getitem__)
    with pytest.raises(BackendError, match="'cubin' cannot run here: there is no GPU"):
        open_engine(bundles("pain"), "cubin")


def test_auto_takes_the_first_that_runs_and_says_why(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles("pain")

    def refuse(bundle: Bundle, threads: int | None) -> FakeEngine:
        raise BackendError("the bundle has no plan for this device; build it")

    modules = {
        "cubin": _module("cubin", "there is no GPU", None),
        "tensorrt": _module("tensorrt", None, refuse),
        "tensorrt-rtx": _module("tensorrt_rtx", None, lambda bundle, threads: FakeEngine(bundle.task)),
    }
    monkeypatch.setattr(backends, "_module", modules.__getitem__)
    monkeypatch.setattr(backends, "no_gpu_driver", lambda: None)
    engine, why = choose_engine(bundle)
    assert isinstance(engine, FakeEngine)
    assert why == "auto; cubin: there is no GPU; tensorrt: the bundle has no plan for this device"
    modules["tensorrt-rtx"] = modules["onnxruntime"] = _module("x", None, refuse)
    with pytest.raises(BackendError, match="no backend can run"):
        choose_engine(bundle)


def test_without_a_driver_auto_imports_no_gpu_library(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = backends._module
    monkeypatch.setattr(backends, "no_gpu_driver", lambda: "no NVIDIA driver here")
    monkeypatch.setattr(backends, "_module", lambda name: asked.append(name) or real(name))
    _, why = choose_engine(bundles("pain"), threads=1)
    assert set(asked) == {"onnxruntime"} and why == "auto; cubin, tensorrt, tensorrt-rtx: no NVIDIA driver here"


def test_auto_ends_with_what_the_base_install_has(bundles: Bundles) -> None:
    assert AUTO[-1] == "onnxruntime" and set(AUTO) <= set(BACKENDS)
    assert open_engine(bundles("pain")).name in BACKENDS


def test_a_backend_that_is_not_there_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "gone", "gone")
    assert unavailable("gone") == "this version does not include it"
    package = "jmt_edge.engine.backends"
    monkeypatch.setitem(sys.modules, f"{package}.openvino", None)
    assert unavailable("openvino") is not None

    def no_library(name: str) -> types.ModuleType:
        raise ModuleNotFoundError("No module named 'nv'", name="nv")

    monkeypatch.setattr(backends, "_module", no_library)
    assert unavailable("openvino") == "nv is not installed"


def test_graphs_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    task = get_task("pain", "demo")
    good = hand_bundle(task, tmp_path / "good.jmt")
    files = {name: (good.path / name).read_bytes() for name in good.manifest["files"]}

    def broken(label: str, **changes: bytes) -> Bundle:
        manifest = {k: v for k, v in good.manifest.items() if k != "files"}
        return write_bundle(
            tmp_path / f"{label}.jmt", manifest, {**files, **{f"{k}.onnx": v for k, v in changes.items()}}
        )

    node = onnx.helper.make_node("NoSuchOperator", ["clip"], ["features"])
    unknown = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [])).SerializeToString()
    for bundle, what in (
        (broken("noise", face=b"not a graph"), r"face\.onnx is not a readable ONNX graph"),
        (broken("unknown", face=unknown), "cannot load 'face'"),
        (broken("swapped", face=files["eda.onnx"]), "takes clips of"),
        (broken("fusion", eda=files["fusion.onnx"]), "maps"),
    ):
        with pytest.raises(UserError, match=what) as error:
            open_engine(load_bundle(bundle.path), "onnxruntime")
        assert "\n" not in str(error.value)
    manifest = {k: v for k, v in good.manifest.items() if k != "files"}
    for networks, what in (
        ({"face": {"onnx": "face.onnx"}, "fusion": {"onnx": "fusion.onnx"}, "eda": {}}, "no ONNX graph of 'eda'"),
        ({"face": {"onnx": "face.onnx"}}, "no network 'eda'"),
    ):
        bundle = write_bundle(tmp_path / "x.jmt", {**manifest, "networks": networks}, dict(files), overwrite=True)
        with pytest.raises(BundleError, match=what):
            open_engine(bundle, "onnxruntime")
