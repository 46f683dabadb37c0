"""A plan runs on the kind of device that it was built on, which is compared when it is loaded."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import onnx
import pytest

from jmt_edge.compiler import plan_maker
from jmt_edge.compiler.fp16 import static_shapes
from jmt_edge.compiler.plan import build_plan
from jmt_edge.compiler.plan_cache import PlanCache
from jmt_edge.engine.backends import tensorrt as backend
from jmt_edge.engine.bundle import Bundle
from jmt_edge.engine.device import Device, board_model
from jmt_edge.engine.tensorrt_api import Library, LibraryName, open_library
from jmt_edge.errors import BackendError

# names and multiprocessors as CUDA gives them: NVIDIA's data sheets of the modules, 128 cores a multiprocessor
AGX_64 = Device("Orin", "sm_87", 16, 64 << 30, "12.6", True)
AGX_32 = Device("Orin", "sm_87", 14, 32 << 30, "12.6", True)
NX = Device("Orin", "sm_87", 8, 16 << 30, "12.6", True)
NANO_8 = Device("Orin", "sm_87", 8, 8 << 30, "12.6", True)
NANO_4 = Device("Orin", "sm_87", 4, 4 << 30, "12.6", True)
BOARDS = {
    AGX_64: "NVIDIA Jetson AGX Orin Developer Kit", AGX_32: "NVIDIA Jetson AGX Orin", NX: "NVIDIA Jetson Orin NX",
    NANO_8: "NVIDIA Jetson Orin Nano Developer Kit", NANO_4: "NVIDIA Jetson Orin Nano",
}  # fmt: skip


def _rtx() -> Library:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    return open_library("tensorrt-rtx")


def _built_on(flat: Bundle, device: Device, library: LibraryName = "tensorrt", **changes: Any) -> Bundle:
    entry = {
        "library_version": "10.3.0", "device": device.name, "sms": device.sms, "board": BOARDS.get(device, ""),
        "cuda": device.cuda, "l4t": "36.4.3", "networks": {},
    } | changes  # fmt: skip
    manifest = {**flat.manifest, "engines": {f"{library}-{device.sm}": entry}}
    return Bundle(flat.path, manifest, flat.task, flat.id)


def _load(bundle: Bundle, here: Device, monkeypatch: pytest.MonkeyPatch, library: LibraryName = "tensorrt") -> None:
    monkeypatch.setattr(backend, "current_device", lambda: here)
    monkeypatch.setattr(backend, "board_model", lambda: BOARDS.get(here, ""))
    monkeypatch.setattr(backend, "l4t_release", lambda: "36.4.3")
    backend.find_plans(bundle, Library(library, None, "10.3.0"))


@pytest.mark.parametrize("here", [AGX_64, AGX_32, NX, NANO_8, NANO_4])
@pytest.mark.parametrize("there", [AGX_64, AGX_32, NX, NANO_8, NANO_4])
def test_orins_are_told_apart(
    flat: Bundle, there: Device, here: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All have sm_87 and the name Orin; refused where the GPU differs, warned where only the board does."""
    bundle = _built_on(flat, there)
    if there.sms != here.sms:
        with pytest.raises(
            BackendError, match=rf"Orin with {there.sms} multi.*, this is Orin with {here.sms} "
        ) as error:
            _load(bundle, here, monkeypatch)
        assert "another kind of device" in str(error.value) and "jmt-edge build" in str(error.value)
        return
    with caplog.at_level(logging.WARNING):
        _load(bundle, here, monkeypatch)
    assert bool(caplog.records) == (there is not here)
    assert all("they may be slower than they could be" in r.getMessage() for r in caplog.records)


def test_desktop_gpus_of_one_compute_capability_are_told_apart(flat: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    ti, small = (
        Device(f"NVIDIA GeForce RTX {n}", "sm_86", sms, 8 << 30, "13.0") for n, sms in (("3080", 68), ("3050", 20))
    )
    with pytest.raises(BackendError, match="RTX 3080 with 68 multiprocessors"):
        _load(_built_on(flat, ti), small, monkeypatch)
    _load(_built_on(flat, ti, "tensorrt-rtx"), small, monkeypatch, "tensorrt-rtx")  # built for sm_86, compiled there
    with pytest.raises(BackendError, match="RTX 3080"):  # a bundle of the first edition does not say how many
        _load(_built_on(flat, ti, sms=0), small, monkeypatch)
    _load(_built_on(flat, ti, sms=0), ti, monkeypatch)


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [("12.6", "12.6", True), ("12.2", "12.6", True), ("12.6", "12.2", False), ("12.6", "13.0", False),
     ("13.0", "12.9", False), ("", "12.6", True), ("12.9", "12.10", True)],
)  # fmt: skip
def test_the_driver_has_to_be_of_the_same_cuda_major_and_not_older(
    flat: Bundle, built: str, here: str, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _built_on(flat, NX, cuda=built)
    device = Device("Orin", "sm_87", 8, 16 << 30, here, True)
    if runs:
        _load(bundle, device, monkeypatch)
    else:
        with pytest.raises(BackendError, match=rf"built on CUDA {built}, this driver has {here}"):
            _load(bundle, device, monkeypatch)


def test_the_builder_leaves_a_jetson_three_quarters_of_its_memory(
    flat: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit reaches the library's own configuration, and is part of what a cached plan depends on."""
    library = _rtx()
    real, seen = plan_maker.build_plan, []

    def build_plan(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["workspace"])
        return real(*args, **{**kwargs, "target": "sm_86"})

    monkeypatch.setattr(plan_maker, "build_plan", build_plan)
    for device, limit in ((NANO_8, 2 << 30), (Device("a card", "sm_86", 28, 8 << 30, "13.0"), 0)):
        assert plan_maker.workspace_limit(device) == limit
        monkeypatch.setattr(plan_maker, "current_device", lambda device=device: device)
        maker = plan_maker.PlanMaker(flat, library, "current", None, PlanCache(tmp_path), lambda what, fraction: None)
        network = plan_maker.Network("eda", flat.exported_graph("eda"), "fp32")
        made = maker.make(network)
        assert seen[-1] == limit
        assert json.loads(made.key.settings)["workspace"] == limit
        _, entry = maker.entry({"eda": network})
        assert (entry["sms"], entry["workspace"]) == (device.sms, limit)
    assert plan_maker.workspace_limit(None) == 0


def test_the_limit_is_set_in_the_builder(flat: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    library = _rtx()
    kinds, asked = library.module.MemoryPoolType, []
    monkeypatch.setattr(
        library.module.IBuilderConfig, "set_memory_pool_limit", lambda self, kind, size: asked.append((kind, size))
    )
    graph = static_shapes(onnx.load_from_string(flat.exported_graph("eda")), {"N": 1}).SerializeToString()
    build_plan(library, graph, target="sm_86", workspace=1 << 28)
    build_plan(library, graph, target="sm_86")
    assert asked == [(kinds.WORKSPACE, 1 << 28)]


def test_a_board_is_named_by_its_device_tree(tmp_path: Path) -> None:
    assert board_model(tmp_path) == ""
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert board_model(tmp_path) == "NVIDIA Jetson Orin Nano Developer Kit"
