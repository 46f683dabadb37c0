"""What `--precision auto` keeps: the choice by itself, its timings, and that the backends follow it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmt_edge.clips.window_set import random_windows
from jmt_edge.compiler.choice import choose, fastest, time_in_turns
from jmt_edge.compiler.fidelity import outputs_of, run_networks
from jmt_edge.compiler.plan_maker import stored_timing_cache
from jmt_edge.engine import backends
from jmt_edge.engine.backends import AUTO, auto_order, choose_engine, open_engine
from jmt_edge.engine.bundle import Bundle
from jmt_edge.engine.device import Device
from jmt_edge.engine.session import random_feeds
from jmt_edge.engine.tensorrt_api import Library
from jmt_edge.errors import BackendError


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ({"fp16": 1.0}, "fp16"),
        ({"fp16": 1.0, "int8": 1.0}, "fp16"),  # a tie keeps the wider one
        ({"fp16": 1.0, "int8": 0.96}, "fp16"),  # within the scatter
        ({"fp16": 1.0, "int8": 0.94}, "int8"),
        ({"fp16": 1.0, "int8": 0.8, "cubin": 0.5}, "cubin"),
        ({"fp16": 1.0, "int8": 0.8, "cubin": 0.77}, "int8"),  # no 5 % below the best plan
        ({"fp16": 1.0, "int8": 0.96, "cubin": 0.94}, "cubin"),  # INT8 was no way, so FP16 is what it is compared with
        ({"fp16": 1.0, "cubin": 0.97}, "fp16"),
        ({"fp32": 0.0}, "fp32"),
    ],
)
def test_a_way_is_left_only_for_one_that_is_faster(times: dict[str, float], kept: str) -> None:
    assert fastest(times) == kept


TIMES = {"face": {"fp16": 4.0, "int8": 2.0}, "eda": {"fp16": 1.0, "int8": 1.5}, "fusion": {"fp16": 0.3, "cubin": 0.1}}


@pytest.mark.parametrize(
    ("unfaithful", "face", "fusion", "asked"),
    [
        ((), "int8", "cubin", 1),
        (("cubin",), "int8", "fp16", 2),
        (("int8",), "fp16", "cubin", 3),
        (("int8", "cubin"), "fp16", "fp16", 3),
    ],
)
def test_what_breaks_the_scores_is_left_out(unfaithful: tuple[str, ...], face: str, fusion: str, asked: int) -> None:
    questions: list[Mapping[str, str]] = []

    def holds(choice: Mapping[str, str]) -> bool:
        questions.append(choice)
        return not set(unfaithful) & set(choice.values())

    assert choose(TIMES, holds) == {"face": face, "eda": "fp16", "fusion": fusion}
    assert len(questions) == asked and all(q not in questions[:i] for i, q in enumerate(questions))


def test_without_int8_and_cubin_nothing_is_asked() -> None:
    def never(choice: Mapping[str, str]) -> bool:
        raise AssertionError(choice)

    assert choose({"face": {"fp16": 1.0}, "fusion": {"fp16": 1.0}}, never) == {"face": "fp16", "fusion": "fp16"}


def test_timings_are_medians_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the test's own clock: `slow` takes 3 ms and now and then 100, `quick` 2; who runs when is written down."""
    now, order = 0.0, ""

    def run(name: str) -> None:
        nonlocal now, order
        order += name[0]
        now += 0.002 if name == "quick" else 0.1 if order.count("s") % 5 == 0 else 0.003

    monkeypatch.setattr("jmt_edge.compiler.choice.time.perf_counter", lambda: now)
    found = time_in_turns({name: lambda name=name: run(name) for name in ("slow", "quick")}, runs=11, warm=2)
    assert found == pytest.approx({"slow": 3.0, "quick": 2.0})
    assert order == "ssqq" + "sq" * 11


def test_random_feeds_fit_every_network(flat: Bundle) -> None:
    task = flat.task
    engine = open_engine(flat, "onnxruntime")
    for m in task.modalities:
        assert engine.backbones({m.name: random_feeds(task, m.name)["clip"]})[m.name].shape == (1, task.dim)
    feeds = random_feeds(task, "fusion")
    assert engine.fusion(feeds, feeds.pop("present") > 0)["pain"].std() > 0


def test_a_fusion_that_is_no_graph_is_compared_by_its_outputs(flat: Bundle) -> None:
    """The engine's own fusion gives the graph's numbers; one that is off shows."""
    task, windows = flat.task, random_windows(flat.task, 3)
    models = {name: flat.graph(entry["onnx"]) for name, entry in flat.networks.items()}
    features, exact = run_networks(task, models, windows)
    engine = open_engine(flat, "onnxruntime")
    same = outputs_of(task, engine.fusion, features, windows)
    np.testing.assert_allclose(same["pain"], exact["pain"], rtol=1e-5)
    off = outputs_of(task, lambda f, p: {"pain": engine.fusion(f, p)["pain"] + 1}, features, windows)
    np.testing.assert_allclose(off["pain"], exact["pain"] + 1, rtol=1e-5)


def _with_engines(bundle: Bundle, **engines: Any) -> Bundle:
    named = {key.replace("_sm", "-sm").replace("tensorrt_rtx", "tensorrt-rtx"): entry for key, entry in engines.items()}
    return Bundle(bundle.path, {**bundle.manifest, "engines": named}, bundle.task, bundle.id)


def test_auto_follows_what_was_timed_on_this_gpu(flat: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "current_device", lambda: Device("a GPU", "sm_87", 8, 8 << 30, "12.6"))
    assert auto_order(flat) == (AUTO, "")
    assert auto_order(_with_engines(flat, tensorrt_sm_87={"fusion": "cubin"})) == (AUTO, "")
    assert auto_order(_with_engines(flat, tensorrt_sm_110={"fusion": "plan"})) == (AUTO, ""), "timed on another GPU"
    timed = _with_engines(flat, tensorrt_rtx_sm_87={"fusion": "plan"})
    order, why = auto_order(timed)
    assert order == ("tensorrt-rtx", "cubin", "tensorrt", "onnxruntime") and set(order) == set(AUTO)
    assert why == "cubin: no faster than the plan when `build` timed both on sm_87"
    monkeypatch.setattr(backends, "no_gpu_driver", lambda: None)
    monkeypatch.setattr(backends, "unavailable", lambda name: None if name == "onnxruntime" else "not in this test")
    _, said = choose_engine(timed, threads=1)
    assert said.startswith(f"auto; {why}; tensorrt-rtx: not in this test; cubin: not in this test; tensorrt:")


@pytest.mark.parametrize("version", ["10.3.0", "10.13.0"])
def test_a_timing_cache_is_used_where_it_was_made(flat: Bundle, tmp_path: Path, version: str) -> None:
    library, file = Library("tensorrt", None, version), "plans/tensorrt-sm_87/timing.cache"
    (tmp_path / "plans/tensorrt-sm_87").mkdir(parents=True)
    (tmp_path / file).write_bytes(b"learnt")
    entry = {"library_version": "10.3.0", "device": "Orin", "sms": 8}
    manifest = {
        **flat.manifest,
        "files": {file: hashlib.sha256(b"learnt").hexdigest()},
        "engines": {"tensorrt-sm_87": entry},
    }
    bundle = Bundle(tmp_path, manifest, flat.task, "b")
    same = version == "10.3.0"
    nano, agx = (Device("Orin", "sm_87", sms, 8 << 30, "12.6", True) for sms in (8, 16))
    assert stored_timing_cache(bundle, library, "sm_87", nano) == (b"learnt" if same else b"")
    assert stored_timing_cache(bundle, library, "sm_87", agx) == b"", "CUDA calls both Orin"
    assert stored_timing_cache(bundle, library, "sm_87", None) == b""
    assert stored_timing_cache(bundle, library, "sm_110", nano) == b""
    assert stored_timing_cache(flat, library, "sm_87", nano) == b""


def test_auto_for_a_device_that_is_not_here_is_refused(flat: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from jmt_edge.compiler.build import build

    with pytest.raises(BackendError, match="plans for sm_86 cannot run here; give --precision fp16 or int8"):
        build(
            flat, tmp_path / "x.jmt", precision="auto", builder="tensorrt-rtx", why="", target="sm_86",
            windows=random_windows(flat.task, 1),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def calibrated(flat: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from jmt_edge.calibration.run import quantise_bundle

    out = tmp_path_factory.mktemp("auto") / "flat.jmt"
    return quantise_bundle(flat, out, random_windows(flat.task, 4), method="minmax").bundle


@pytest.mark.parametrize(
    ("int8", "cubin", "wrong", "runs", "precision"),
    [(0.5, 0.2, False, "cubin", "fp16"), (0.5, 0.2, True, "plan", "int8"), (2.0, None, False, "plan", "fp16")],
)
def test_what_was_chosen_is_what_is_built(
    calibrated: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    int8: float, cubin: float | None, wrong: bool, runs: str, precision: str,
) -> None:  # fmt: skip
    """Real plans; the GPU's clock and its kernel are the test's, so nothing of a device is shown here."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from contextlib import nullcontext

    from jmt_edge.compiler import build as module
    from jmt_edge.compiler import plan_maker
    from jmt_edge.compiler.plan_cache import PlanCache

    real = plan_maker.build_plan
    times = {"fp16": 1.0, "int8": int8, "cubin": cubin}
    monkeypatch.setattr(plan_maker, "current_device", lambda: Device("a GPU", "sm_86", 28, 8 << 30, "13.0"))
    monkeypatch.setattr(plan_maker, "build_plan", lambda *a, **k: real(*a, **{**k, "target": "sm_86"}))
    engine = open_engine(calibrated, "onnxruntime")

    class Kernel:
        def __call__(self, features: Any, present: Any) -> dict[str, Any]:
            return {"pain": engine.fusion(features, present)["pain"][..., :: -1 if wrong else 1]}

        def close(self) -> None: ...

    kernel = (None, "no cubins here") if cubin is None else (Kernel(), "")
    monkeypatch.setattr(module, "open_kernel", lambda bundle, sm, sms: kernel)

    def runners(bundle: Bundle, library: Any, made: Any, fused: Any) -> Any:
        ways = {name: {p: p for p in made if name in made[p]} for name in bundle.networks}
        ways["fusion"] |= {"cubin": "cubin"} if fused else {}
        return nullcontext(ways)

    monkeypatch.setattr(module, "device_runners", runners)
    monkeypatch.setattr(module, "time_in_turns", lambda ways, runs, warm: {way: times[way] for way in ways})
    windows = random_windows(calibrated.task, 6)
    models = {name: calibrated.graph(entry["onnx"]) for name, entry in calibrated.networks.items()}
    said = run_networks(calibrated.task, models, windows)[1]["pain"].argmax(1)
    labelled = replace(windows, noise=False, targets={"pain": said.astype(float)})
    done = module.build(
        calibrated, tmp_path / "out.jmt", precision="auto", builder="tensorrt-rtx", why="", target="current",
        windows=labelled, cache=PlanCache(tmp_path / "cache"),
    )  # fmt: skip
    entry = done.bundle.manifest["engines"]["tensorrt-rtx-sm_86"]
    backbone = "int8" if int8 < 0.95 else "fp16"
    assert entry["fusion"] == runs
    assert {name: e["precision"] for name, e in entry["networks"].items()} == {
        "eda": backbone, "voice": backbone, "fusion": precision,
    }  # fmt: skip
    rows = entry["timings"]["tensorrt-rtx"]
    assert rows["fusion"]["chosen"] == ("cubin" if runs == "cubin" else precision) and rows["eda"]["ms"]["fp16"] == 1.0
    assert ("no_cubin" in entry) == (cubin is None)
    assert f"the fusion is run by the {runs}" in done.bundle.read(entry["report"].replace(".json", ".md")).decode()
