"""Group `backbones`: one clip, full size, one thread: PyTorch eager and compiled, onnxruntime, OpenVINO,
FP32 and INT8; TensorRT where there is a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from jmt_edge.calibration.quantise import find_layers, quantise, tensors_of  # noqa: E402
from jmt_edge.calibration.ranges import collect  # noqa: E402
from jmt_edge.compiler.fidelity import session  # noqa: E402
from jmt_edge.engine.backends import open_engine, unavailable  # noqa: E402
from jmt_edge.errors import BackendError  # noqa: E402

CASES = {"r3d_18": ("pain", "face"), "eda_cnn1d": ("pain", "eda"), "r2plus1d_18": ("affect", "face"),
         "resnet18_audio": ("affect", "voice")}  # fmt: skip


@pytest.fixture(params=CASES, scope="module")
def case(request, make_bundle) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    task, name = CASES[request.param]
    bundle = make_bundle(task, "full")
    m = bundle.task.modality(name)
    rng = np.random.default_rng(0)
    return {
        "backbone": request.param,
        "bundle": bundle,
        "model": onnx.load_from_string(bundle.exported_graph(name)),
        "modality": m,
        "clip": rng.standard_normal((1, *m.shape), dtype=np.float32),
    }


def _int8(case: dict[str, Any]) -> onnx.ModelProto:
    model = case["model"]
    layers = [layer for layer in find_layers(model) if not layer.why_not]
    seen = collect(model, tensors_of(layers), [{"clip": case["clip"]}])
    return quantise(model, layers, {name: s.amax("mse") for name, s in seen.items()})


def _time(benchmark: Any, case: dict[str, Any], run: Callable[[], Any], tolerance: float, rounds: int = 10) -> None:
    """Times `run` if its features are the graph's."""
    benchmark.group = f"backbones: {case['backbone']}, one clip, one thread"
    expected = session(case["model"].SerializeToString(), 1).run(["features"], {"clip": case["clip"]})[0]
    assert np.linalg.norm(np.asarray(run()) - expected) <= tolerance * np.linalg.norm(expected)
    benchmark.pedantic(run, rounds=rounds, warmup_rounds=2)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnxruntime(benchmark, case, precision: str) -> None:  # type: ignore[no-untyped-def]
    run = session((case["model"] if precision == "fp32" else _int8(case)).SerializeToString(), 1)
    feeds = {"clip": case["clip"]}
    _time(benchmark, case, lambda: run.run(["features"], feeds)[0], 1e-4 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_openvino(benchmark, case, precision: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    model = case["model"] if precision == "fp32" else _int8(case)
    onnx.save(model, tmp_path / "m.onnx")
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    run = openvino.Core().compile_model(str(tmp_path / "m.onnx"), "CPU", config)
    _time(benchmark, case, lambda: run({"clip": case["clip"]})[0], 1e-3 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("how", ["eager", "compiled"])
def test_pytorch(benchmark, case, how: str) -> None:  # type: ignore[no-untyped-def]
    if how == "compiled" and not shutil.which("g++"):
        pytest.skip("torch.compile on a CPU needs g++")
    from jmt_edge.models import build_model
    from jmt_edge.tasks import get_task

    task, name = CASES[case["backbone"]]
    torch.manual_seed(0)  # the weights of the random bundle
    torch.set_num_threads(1)
    module = build_model(get_task(task)).eval().backbones[name]
    run = module if how == "eager" else torch.compile(module)
    clip = torch.from_numpy(case["clip"])
    with torch.inference_mode():
        _time(benchmark, case, lambda: run(clip), 1e-3, rounds=6)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt(benchmark, case, backend: str) -> None:  # type: ignore[no-untyped-def]
    """The engines that `jmt-edge build` put into a bundle, on the GPU they were built for."""
    reason = unavailable(backend)
    if reason:
        pytest.skip(f"{backend}: {reason}")
    try:
        engine = open_engine(case["bundle"], backend)
    except BackendError as error:
        pytest.skip(str(error))
    clips = {CASES[case["backbone"]][1]: case["clip"]}
    _time(benchmark, case, lambda: next(iter(engine.backbones(clips).values())), 0.02, rounds=20)
