"""What `auto` takes on a CPU: the faster of two engines that agree, timed once and remembered."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmt_edge.engine import backends, cpu_choice
from jmt_edge.engine.backends import choose_engine
from jmt_edge.engine.bundle import Bundle
from jmt_edge.engine.cpu_choice import Comparison, choose_cpu, compare, largest_difference, size_of
from jmt_edge.errors import BackendError

FP32 = {"face": "fp32", "fusion": "fp32"}
INT8 = {**FP32, "face": "int8"}
FASTER = Comparison({"onnxruntime": 0.1, "openvino": 0.03}, {"onnxruntime": FP32, "openvino": FP32}, 1e-6)


@pytest.mark.parametrize(
    ("change", "taken", "said"),
    [
        ({}, "openvino", "a hop takes 30.0 ms with OpenVINO, 100.0 with onnxruntime"),
        (
            {"seconds": {"onnxruntime": 0.1, "openvino": 0.085}},
            "onnxruntime",
            "openvino gains less than 20%: a hop takes 85.0 ms",
        ),
        ({"difference": 0.02}, "onnxruntime", "openvino: its outputs differ by 0.02"),
        ({"difference": float("nan")}, "onnxruntime", "openvino: its outputs differ by nan"),
        # INT8 in one of them: `build` compared its scores
        (
            {"difference": 0.02, "precision": {"onnxruntime": FP32, "openvino": {**FP32, "face": "int8"}}},
            "openvino",
            "",
        ),
    ],
)
def test_the_faster_one_is_taken_where_both_agree(change: dict[str, Any], taken: str, said: str) -> None:
    name, why = replace(FASTER, **change).choice()
    assert name == taken and why.startswith(said)


def test_an_output_that_is_not_a_number_is_a_difference() -> None:
    ours = {"attention": np.zeros((1, 1, 2), np.float32), "pain": np.array([[[0.5, 1.0]]], np.float32)}
    theirs = {**ours, "pain": np.array([[[0.5, np.nan]]], np.float32)}
    assert largest_difference(ours, ours) == 0
    for a, b in ((ours, theirs), (theirs, ours), (theirs, theirs)):
        assert np.isnan(largest_difference(a, b))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cpu_choice, "LARGE", 0)
    monkeypatch.setattr(cpu_choice, "find_spec", lambda name: object())
    monkeypatch.setattr(cpu_choice, "version", lambda name: "1.0")
    return tmp_path / "jmt-edge" / "cpu"


def test_it_is_timed_once_and_again_for_anything_that_matters(
    flat: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def compared(bundle: Bundle, threads: int) -> Comparison:
        asked.append(threads)
        return FASTER

    monkeypatch.setattr(cpu_choice, "_compared", compared)
    caplog.set_level("INFO")
    assert choose_cpu(flat, 1) == choose_cpu(flat, 1) == FASTER.choice()
    assert caplog.text.count("are timed, once for this bundle on this processor") == 1
    assert asked == [1] and len(list(cache.iterdir())) == 1
    choose_cpu(flat, 2)
    monkeypatch.setattr(cpu_choice, "version", lambda name: "1.1")
    choose_cpu(flat, 2)
    choose_cpu(replace(flat, sha256="0" * 64), 2)
    assert asked == [1, 2, 2, 2]
    for damage in ('{"key": 1}', "[", json.dumps({**json.loads(next(cache.iterdir()).read_text()), "found": {}})):
        for file in cache.iterdir():
            file.write_text(damage)
        asked.clear()
        assert choose_cpu(flat, 2) == FASTER.choice() and asked == [2]


def test_a_cache_that_cannot_be_written_costs_time_only(
    flat: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu_choice, "_compared", lambda bundle, threads: FASTER)
    cache.parent.write_text("a file where the folder would be")
    assert choose_cpu(flat, 1) == FASTER.choice()
    assert "the choice of a CPU engine failed and continues" in caplog.text


def test_small_bundles_and_an_absent_openvino_are_not_timed(
    flat: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_choice, "_compared", lambda bundle, threads: pytest.fail("it was timed"))
    monkeypatch.setattr(cpu_choice, "LARGE", size_of(flat) + 1)
    assert choose_cpu(flat, 1) == ("onnxruntime", "")
    monkeypatch.setattr(cpu_choice, "LARGE", 0)
    monkeypatch.setattr(cpu_choice, "find_spec", lambda name: None)
    assert choose_cpu(flat, 1) == ("onnxruntime", "")


def test_a_comparison_that_fails_is_said_and_not_waited_for_again(
    flat: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_choice.sys, "executable", "/bin/false")
    for _ in range(2):
        assert choose_cpu(flat, 1) == ("onnxruntime", "openvino: not compared (no reason given)")
        monkeypatch.setattr(cpu_choice.sys, "executable", "/nonexistent")  # asked again, it would say otherwise
    assert choose_cpu(flat, 2)[1].startswith("openvino: not compared within")


def test_both_engines_are_compared_in_a_process_of_their_own(flat: Bundle, cache: Path) -> None:
    pytest.importorskip("openvino")
    here = compare(flat, 1)
    assert set(here.seconds) == {"onnxruntime", "openvino"} and all(0 < s < 60 for s in here.seconds.values())
    assert here.difference < cpu_choice.TOLERANCE
    there = cpu_choice._compared(flat, 1)
    assert isinstance(there, Comparison) and there.precision == here.precision
    assert there.difference == pytest.approx(here.difference, abs=1e-5)


def test_auto_says_what_it_took_and_falls_back(flat: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(backends, "no_gpu_driver", lambda: "no NVIDIA driver here")
    monkeypatch.setattr(cpu_choice, "_compared", lambda bundle, threads: FASTER)
    engine, why = choose_engine(flat, threads=1)
    assert engine.name == "openvino"
    assert why == (
        "auto; cubin, tensorrt, tensorrt-rtx: no NVIDIA driver here; a hop takes 30.0 ms with OpenVINO, 100.0 with "
        "onnxruntime"
    )
    engine.close()

    def refuse(bundle: Bundle, threads: int | None) -> None:
        raise BackendError("OpenVINO refuses 'face' (a bad graph); use another")

    monkeypatch.setattr("jmt_edge.engine.backends.openvino.load", refuse)
    engine, why = choose_engine(flat, threads=1)
    assert engine.name == "onnxruntime" and why.endswith("openvino: OpenVINO refuses 'face'")
    engine.close()
    assert json.loads(next(cache.iterdir()).read_text())["found"] == asdict(FASTER)
