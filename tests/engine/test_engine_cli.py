"""`jmt-edge build` and `calibrate`, and loading what they wrote: each mistake is one sentence, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from rich.console import Console

from jmt_edge.cli._progress import step_bar
from jmt_edge.clips.window_set import random_windows
from jmt_edge.compiler.build import build, choose_builder
from jmt_edge.compiler.plan_cache import PlanCache
from jmt_edge.engine.backends import tensorrt as backend
from jmt_edge.engine.bundle import Bundle, cpu_graph, write_bundle
from jmt_edge.engine.device import Device, current_device
from jmt_edge.engine.tensorrt_api import Library, open_library
from jmt_edge.errors import BackendError

rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed")
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """The command line inside this process, with a plan cache of its own."""
    from jmt_edge.cli import main

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        words = [str(a) for a in args]
        monkeypatch.setattr(sys, "argv", ["jmt-edge", *words])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, captured.out, captured.err)

    return run


def _refused(done: subprocess.CompletedProcess[str], out: Path, *parts: str) -> None:
    """Exit 2, one sentence that holds `parts`, nothing at `out`."""
    assert done.returncode == 2, done.stdout + done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("jmt-edge: ") and "Traceback" not in done.stderr
    assert all(part in sentence for part in parts), sentence
    assert not out.exists() and not list(out.parent.glob(f".{out.name}*"))


def _with(bundle: Bundle, path: Path, files: dict[str, bytes], **manifest: Any) -> Bundle:
    kept = {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema")} | manifest
    return write_bundle(path, kept, {**bundle.files, **files})


def _graph(node: onnx.NodeProto, domain: str = "") -> bytes:
    """(N, 1, 2816) -> (N, 32), ending in a node that some engine does not know."""
    mean = helper.make_node("ReduceMean", ["clip"], ["mean"], keepdims=1)
    value = onnx.numpy_helper.from_array(np.ones((1, 32), np.float32), "ones")
    product = helper.make_node("MatMul", ["flat", "ones"], ["features"])
    graph = helper.make_graph(
        [mean, node, helper.make_node("Reshape", ["odd", "shape"], ["flat"]), product],
        "g",
        [helper.make_tensor_value_info("clip", 1, ["N", 1, 2816])],
        [helper.make_tensor_value_info("features", 1, ["N", 32])],
        [value, onnx.numpy_helper.from_array(np.array([-1, 1]), "shape")],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def test_each_step_of_a_long_command_has_its_own_bar() -> None:
    screen = Console(file=StringIO(), force_terminal=True, width=80)
    with step_bar(screen) as on_step:
        for what, fraction in (("face: ranges", 0.0), ("face: ranges", 0.9), ("eda: ranges", 0.1)):
            on_step(what, fraction)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "face: ranges" not in shown.splitlines()[-2] and "eda: ranges" in shown and "0:00:00" in shown


@rtx
def test_corrupt_and_unsupported_graphs(flat: Bundle, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.jmt"
    build_for = ("--builder", "tensorrt-rtx", "--target", "sm_86", "--precision", "fp32", "--windows", "1")
    cut = flat.read("eda.onnx")[:-1000]
    bundle = _with(flat, tmp_path / "cut.jmt", {"eda.onnx": cut})
    _refused(cli("build", bundle.path, "--out", out, *build_for), out, "eda.onnx is not a readable ONNX graph")
    unknown = helper.make_node("NoSuchOperator", ["mean"], ["odd"], domain="nowhere")
    bundle = _with(flat, tmp_path / "unknown.jmt", {"eda.onnx": _graph(unknown, "nowhere")})
    _refused(cli("build", bundle.path, "--out", out, *build_for), out, "NoSuchOperator")
    # onnxruntime knows it, TensorRT does not
    determinant = helper.make_node("Det", ["mean"], ["odd"])
    bundle = _with(flat, tmp_path / "det.jmt", {"eda.onnx": _graph(determinant)})
    _refused(
        cli("build", bundle.path, "--out", out, *build_for), out, "no support for the operator Det", "tensorrt-rtx"
    )


@rtx
def test_flags_that_cannot_work(flat: Bundle, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.jmt"
    common = ("build", flat.path, "--out", out, "--windows", "1")
    to_rtx = ("--builder", "tensorrt-rtx", "--precision", "fp16")
    _refused(cli(*common, *to_rtx, "--target", "sm_87"), out, "cannot compile for sm_87", "sm_86")
    _refused(cli(*common, "--builder", "tensorrt-rtx", "--target", "sm_86", "--precision", "int8"), out, "calibrate")
    _refused(cli(*common, *to_rtx, "--target", "sm_86", "--batch", "4,1"), out, "--batch '4,1' is not MIN,OPT,MAX")
    _refused(cli(*common, "--cubin", "sm_87,sm_1"), out, "sm_1", "sm_87")
    _refused(cli(*common, "--cubin", " , "), out, "--cubin")
    _refused(cli(*common, "--data", tmp_path / "nothing"), out, "nothing")
    out.mkdir()
    assert "exists; choose another --out" in cli(*common, *to_rtx, "--target", "sm_86").stderr
    assert not list(out.iterdir())


def test_builders_without_a_device_say_so_before_any_work(flat: Bundle, cli: Cli, tmp_path: Path) -> None:
    try:
        current_device()
    except BackendError:
        out = tmp_path / "out.jmt"
        for builder in ("tensorrt", "tensorrt-rtx", "torch-tensorrt"):
            done = cli("build", flat.path, "--out", out, "--precision", "fp32", "--builder", builder)
            _refused(done, out, f"--builder {builder} has no device to build on")
    else:
        pytest.skip("this machine has a GPU")


@rtx
def test_running_out_of_memory_is_one_sentence(flat: Bundle, tmp_path: Path) -> None:
    """A process that may take a few MB more than it has: the builder's allocations fail for real."""
    script = tmp_path / "little.py"
    script.write_text(
        "import resource, sys\n"
        "from jmt_edge.compiler.plan import build_plan\n"
        "from jmt_edge.engine.tensorrt_api import open_library\n"
        "from jmt_edge.errors import BackendError\n"
        "from engine_graphs import residual_network\n"
        "from jmt_edge.compiler.fp16 import static_shapes\n"
        "rtx = open_library('tensorrt-rtx')\n"
        "def graph(channels): return static_shapes(residual_network(channels=channels), {'N': 1}).SerializeToString()\n"
        "small, large = graph(16), graph(128)\n"
        "build_plan(rtx, small, target='sm_86')\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)\n"
        "limit = int(status['VmSize'].split()[0]) * 1024 + (10 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n"
        "    build_plan(rtx, large, target='sm_86')\n"
        "except BackendError as error:\n"
        "    print(error)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "did not build the engine" in done.stdout and "free memory" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def planned(flat: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`flat` with FP16 plans of TensorRT-RTX for sm_86."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    folder = tmp_path_factory.mktemp("planned")
    name, why = choose_builder("tensorrt-rtx", "sm_86")
    windows = random_windows(flat.task, 2)
    built = build(
        flat, folder / "planned.jmt", precision="fp16", builder=name, why=why, target="sm_86", windows=windows,
        cache=PlanCache(folder / "cache"),
    )  # fmt: skip
    return built.bundle


def _on(monkeypatch: pytest.MonkeyPatch, sm: str) -> None:
    monkeypatch.setattr(backend, "current_device", lambda: Device("a GPU", sm, 28, 8 << 30, "13.0"))


def test_plans_are_found_for_their_device_and_library_only(planned: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    library = open_library("tensorrt-rtx")
    _on(monkeypatch, "sm_86")
    plans = backend.read_plans(planned, library)
    assert {name: precision for name, (_, precision) in plans.items()} == dict.fromkeys(
        ("eda", "voice", "fusion"), "fp16"
    )
    assert all(plan == planned.read(f"plans/tensorrt-rtx-sm_86/{n}.plan") for n, (plan, _) in plans.items())
    newer = Library("tensorrt-rtx", library.module, "99.1.0")
    with pytest.raises(BackendError, match=r"built by tensorrt-rtx 1\..*, this is 99\.1\.0; run `jmt-edge build"):
        backend.read_plans(planned, newer)
    with pytest.raises(BackendError, match=r"has no tensorrt plan for sm_86 \(it has: tensorrt-rtx-sm_86\)"):
        backend.read_plans(planned, Library("tensorrt", None, "10.3.0"))
    monkeypatch.setattr(backend, "l4t_release", lambda: "36.4.3")
    entry = {**planned.manifest["engines"]["tensorrt-rtx-sm_86"], "l4t": "39.2.0"}
    moved = Bundle(
        planned.path, {**planned.manifest, "engines": {"tensorrt-rtx-sm_86": entry}}, planned.task, planned.id
    )
    with pytest.raises(BackendError, match=r"built on L4T 39\.2\.0, this is 36\.4\.3"):
        backend.read_plans(moved, library)
    _on(monkeypatch, "sm_120")
    with pytest.raises(BackendError, match=r"no tensorrt-rtx plan for sm_120 \(it has: tensorrt-rtx-sm_86\)"):
        backend.read_plans(planned, library)


def test_an_altered_plan_is_never_read(planned: Bundle, cli: Cli, tmp_path: Path) -> None:
    bundle = _with(planned, tmp_path / "altered.jmt", {})
    plan = bundle.path / "plans/tensorrt-rtx-sm_86/eda.plan"
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)
    out = tmp_path / "out.jmt"
    _refused(cli("build", bundle.path, "--out", out), out, "eda.plan was altered")
    _refused(cli("calibrate", bundle.path, "--out", out), out, "eda.plan was altered")
    _refused(cli("bench", bundle.path), out, "eda.plan was altered")


def test_a_report_is_beside_the_plans(planned: Bundle) -> None:
    entry = planned.manifest["engines"]["tensorrt-rtx-sm_86"]
    report = json.loads(planned.read(entry["report"]))
    assert report["fidelity"]["holds"] and report["engine"]["target"] == "sm_86"
    layers = json.loads(planned.read("plans/tensorrt-rtx-sm_86/eda.layers.json"))
    assert len(layers) == report["engine"]["networks"]["eda"]["layers"]["layers"] > 3
    assert "convolutions fp16" in planned.read(entry["report"].replace(".json", ".md")).decode()


def test_the_second_build_comes_from_the_cache(flat: Bundle, planned: Bundle, tmp_path: Path) -> None:
    windows = random_windows(flat.task, 1)

    def again(out: str, folder: str) -> dict[str, Any]:
        done = build(
            flat, tmp_path / out, precision="fp16", builder="tensorrt-rtx", why="", target="sm_86", windows=windows,
            cache=PlanCache(tmp_path / folder),
        )  # fmt: skip
        networks: dict[str, Any] = done.report["engine"]["networks"]
        return networks

    assert not any(entry["cached"] for entry in again("one.jmt", "cache").values())
    assert all(entry["cached"] for entry in again("two.jmt", "cache").values())
    for name in ("eda", "voice", "fusion"):
        plan = f"plans/tensorrt-rtx-sm_86/{name}.plan"
        assert (tmp_path / "one.jmt" / plan).read_bytes() == (tmp_path / "two.jmt" / plan).read_bytes()


@pytest.fixture(scope="module")
def calibrated(flat: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from jmt_edge.calibration.run import quantise_bundle

    out = tmp_path_factory.mktemp("calibrated") / "flat.jmt"
    return quantise_bundle(flat, out, random_windows(flat.task, 4), method="minmax").bundle


@pytest.mark.parametrize(("onnxruntime", "openvino"), [(2.0, 3.0), (4.9, 2.0), (2.0, 8.0), (8.0, 8.0)])
def test_auto_keeps_float32_where_int8_is_not_faster(
    calibrated: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxruntime: float, openvino: float
) -> None:
    """The clock is the test's: what each runtime is given must follow it, and the report must show it."""
    from jmt_edge.compiler import build as module

    measured = {"onnxruntime": onnxruntime, "openvino": openvino}
    monkeypatch.setattr(
        module, "cpu_runtimes", lambda: {name: lambda model, name=name: lambda feeds: name for name in measured}
    )
    monkeypatch.setattr(module, "time_in_turns", lambda runs: {"fp32": 5.0, "int8": measured[runs["int8"]()]})
    built = build(
        calibrated, tmp_path / "auto.jmt", precision="auto", builder="onnxruntime", why="", target="current",
        windows=random_windows(calibrated.task, 2),
    )  # fmt: skip
    quantised = set(calibrated.manifest["int8"]["networks"])
    assert quantised == {"eda", "voice", "fusion"}
    engine = built.report["engine"]
    report = built.bundle.read(engine["report"].replace(".json", ".md")).decode()
    for runtime, took in measured.items():
        chosen = "int8" if took < 4.75 else "fp32"
        row = {"ms": {"fp32": 5.0, "int8": took}, "chosen": chosen}
        assert engine["timings"][runtime] == dict.fromkeys(quantised, row)
        assert f"eda in {runtime}: fp32 5.00 ms, int8 {took:.2f} ms; {chosen} chosen" in report
        for name in ("eda", "voice", "fusion"):
            file, precision = cpu_graph(built.bundle, name, runtime)
            assert precision == chosen
            assert file == (f"int8/{name}.onnx" if precision == "int8" else f"{name}.onnx")
    # a later choice replaces both
    plain = build(
        built.bundle, tmp_path / "plain.jmt", precision="fp32", builder="onnxruntime", why="", target="current",
        windows=random_windows(calibrated.task, 1),
    ).bundle  # fmt: skip
    assert {cpu_graph(plain, "eda", runtime)[1] for runtime in measured} == {"fp32"}
