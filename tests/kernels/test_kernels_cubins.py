"""Cubins: the resource gate, PTX, packing, and the launcher over a stand-in for CUDA that runs the table."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from jmt_edge.cli.live import demo_bundle
from jmt_edge.compiler.cubins import compile_cubins
from jmt_edge.engine import cuda
from jmt_edge.engine.backends import cubin, open_engine
from jmt_edge.engine.bundle import load_bundle, write_bundle
from jmt_edge.engine.cubins import CubinPackage, read_cubins
from jmt_edge.engine.work_plan import make_plan
from jmt_edge.errors import BackendError, BundleError, ConfigError
from jmt_edge.kernels.layout import weights_of
from jmt_edge.kernels.reference import run_table
from jmt_edge.kernels.schedule import Schedule, Tiles, build_schedule
from jmt_edge.models.folding import FoldedPlan

SHARED = {"sm_87": 163 * 1024, "sm_90": 227 * 1024, "sm_110": 227 * 1024}


def test_no_spills_and_shared_memory_within_every_target(compiled: dict[str, Any]) -> None:
    assert {case.split("-")[0] for case in compiled["reports"]} == set(SHARED)
    for case, report in compiled["reports"].items():
        assert report["spills"] == 0, case
        assert report["stack"] == 0, case
        assert 0 < report["shared"] <= report["shared_limit"] == SHARED[case.split("-")[0]], case
        assert report["registers"] * report["warps"] * 32 <= 65_536, case
        assert report["blocks_per_sm"] >= 1, case


def test_ptx_has_wide_loads_tensor_cores_and_a_grid_barrier(compiled: dict[str, Any]) -> None:
    cases = {case: ptx for case, ptx in compiled["ptx"].items() if ptx}  # Triton's
    assert len(cases) >= 3
    for case, ptx in cases.items():
        assert "ld.global.v4.b32" in ptx, case  # weights, 16 bytes a thread
        assert "ld.global.cg.v4.b32" in ptx, case  # activations, past L1: other programs wrote them
        assert not re.search(r"\b(ld|st)\.local", ptx), case
        assert ("mma.sync" in ptx) == ("float32" not in case), case
        assert compiled["reports"][case]["wide_loads"] > 10, case
        assert not re.search(r"\batom\b", ptx), case  # counters are raised without waiting for their values
        assert ptx.count("red.release.gpu.global.add.u32") == 2, case  # at the start, and after a phase's last item
        assert ptx.count("ld.acquire.gpu.global") == 2 and ptx.count("trap;") >= 2, case  # bounded
        assert not re.search(r"\b(atom|red)[\w.]*\.f(16|32|64)", ptx), case  # no float atomics: deterministic


def test_parameters_are_laid_out_as_the_launcher_marshals_them(compiled: dict[str, Any]) -> None:
    for case, params in compiled["params"].items():
        offset = 0
        for name, at, size in params:
            offset = -(-offset // size) * size
            assert (at, size) == (offset, 4 if name in ("n_rows", "launch", "pitch") else 8), (case, name)
            offset += size
        last = [name for name, _, _ in params][-2:]
        triton = bool(compiled["ptx"][case])
        assert last == (["p_global_scratch", "p_profile_scratch"] if triton else ["launch", "pitch"])


def test_the_native_kernel_serves_one_head_in_16_bit_weights_and_fewer(compiled: dict[str, Any]) -> None:
    """One head of 512 in float16 and INT8, with tensor cores and 16-byte loads; the rest is Triton's."""
    native = {case for case, ptx in compiled["ptx"].items() if not ptx}
    assert native == {"sm_87-float16", "sm_90-float16", "sm_110-float16", "sm_87-int8"}
    for case in native:
        report = compiled["reports"][case]
        assert report["tensor_core"] >= 100 and report["wide_loads"] > 60, case
        assert report["warps"] == 8 and report["registers"] <= 255, case


def test_arguments_hold_each_value_at_its_place(compiled: dict[str, Any]) -> None:
    params = [tuple(p) for p in compiled["params"]["sm_90-bfloat16-s64-m3"]]
    values = {name: 1000 + i for i, (name, _, _) in enumerate(params) if not name.endswith("_scratch")}
    arguments = cubin.Arguments(params, values)
    assert read_arguments(arguments.address, params) == {
        name: values.get(name, 0) for name, _, _ in params
    }  # fmt: skip
    with pytest.raises(BackendError, match="p_new"):
        cubin.Arguments([*params, ("p_new", 112, 8)], values)


def read_arguments(address: int, params: list[Any]) -> dict[str, int]:
    """As the driver does: an array of addresses, one per parameter."""
    pointers = (ctypes.c_void_p * len(params)).from_address(address)
    kinds = {4: ctypes.c_int32, 8: ctypes.c_uint64}
    return {name: kinds[size].from_address(p).value for (name, _, size), p in zip(params, pointers)}


def test_a_bundle_gives_back_what_was_compiled(compiled: dict[str, Any]) -> None:
    bundle = load_bundle(compiled["bundle"])
    schedule = schedule_of(compiled, "sm_87")
    package = read_cubins(bundle, "sm_87")
    np.testing.assert_array_equal(package.weights, schedule.weights)
    np.testing.assert_array_equal(package.table, schedule.table)
    np.testing.assert_array_equal(package.phases, schedule.phases)
    assert package.cubin[:4] == b"\x7fELF"
    assert (package.steps, package.batch, package.dim) == (3, 1, 64)
    assert package.work_size == schedule.work_size
    exact, _ = run_table(schedule, package.features.astype(np.float64), package.present > 0.5)
    assert not cubin.verdict(exact.astype(np.float32), package.expected, package.tolerance)
    np.testing.assert_array_equal(read_cubins(bundle, "sm_90").weights, package.weights)
    assert bundle.manifest["cubins"]["targets"] == ["sm_87", "sm_90"]


def schedule_of(compiled: dict[str, Any], sm: str) -> Schedule:
    with safe_open(compiled["bundle"] / "fusion_folded.safetensors", "numpy") as file:
        plan = FoldedPlan.from_safetensors_dict(
            {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
            file.metadata(),
        )
    tiles = json.loads((compiled["bundle"] / "cubins.json").read_text())["targets"][sm]["tiles"]
    return build_schedule(weights_of(plan), 1, 3, "float16", Tiles(**tiles), last=True)


def test_wrong_device_and_altered_files_are_refused(compiled: dict[str, Any], tmp_path: Path) -> None:
    bundle = load_bundle(compiled["bundle"])
    with pytest.raises(BackendError, match=r"has cubins for sm_87, sm_90, this GPU is sm_86; run .*--cubin sm_86"):
        read_cubins(bundle, "sm_86")
    with pytest.raises(BackendError, match="no cubins"):
        read_cubins(load_bundle(compiled["bundle"].with_name("bare.jmt")), "sm_87")
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest["files"]}
    index = {**json.loads(files["cubins.json"]), "schema": 1}  # kernels that give every step
    manifest = {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema")}
    old = write_bundle(tmp_path / "old.jmt", manifest, {**files, "cubins.json": json.dumps(index).encode()})
    with pytest.raises(BackendError, match=r"have schema 1, not 3; run .*--cubin sm_87"):
        read_cubins(old, "sm_87")
    for name in ("cubins/sm_87/fusion.cubin", "cubins/fusion.safetensors", "cubins.json"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(compiled["bundle"], copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises(BundleError, match="altered"):
            load_bundle(copy)


def test_targets_and_interpreter_are_refused_in_one_sentence(compiled: dict[str, Any]) -> None:
    with safe_open(compiled["bundle"] / "fusion_folded.safetensors", "numpy") as file:
        plan = FoldedPlan.from_safetensors_dict({n: file.get_tensor(n) for n in file.keys()}, file.metadata())  # noqa: SIM118
    with pytest.raises(ConfigError, match="sm_70"):
        compile_cubins(plan, ["sm_70"], 3)
    with pytest.raises(ConfigError, match="no cubin target"):
        compile_cubins(plan, [], 3)


def test_launcher_imports_neither_torch_nor_triton() -> None:
    code = "import sys, jmt_edge.engine.backends.cubin; print([m for m in ('torch', 'triton') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_available_says_why_not() -> None:
    reason = cubin.available()
    assert reason is None or "NVIDIA" in reason or "cuda" in reason.lower()


# ---------------------------------------------------------------- the launcher over a stand-in for CUDA


class StandIn:
    """CUDA's runtime and driver calls that the launcher makes, over host memory; a launch runs the table in NumPy."""

    def __init__(self, package: CubinPackage, schedule: Schedule, cooperative: bool = True) -> None:
        self.package, self.schedule, self.cooperative = package, schedule, cooperative
        self.memory: dict[int, Any] = {}
        self.recording: list[Any] | None = None
        self.launches: list[tuple[str, tuple[int, ...], int, dict[str, int]]] = []
        self.replays = 0
        self.scale = 1.0  # what is wrong with this GPU's logits

    # runtime
    cudaStreamNonBlocking = 1
    cudaStreamCaptureMode = type("Mode", (), {"cudaStreamCaptureModeThreadLocal": "thread-local"})
    cudaMemcpyKind = type("Kind", (), {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        block = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address: int) -> tuple[int]:
        del self.memory[int(address)]
        return (0,)

    cudaFreeHost = cudaFree

    def cudaMemcpy(self, to: int, source: int, size: int, kind: int) -> tuple[int]:
        ctypes.memmove(to, source, size)
        return (0,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        return self._do(lambda: ctypes.memmove(to, source, size))

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        return 0, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        assert self.recording is None, "a capture must not synchronise"
        return (0,)

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: str) -> tuple[int]:
        assert mode == "thread-local"
        self.recording = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, list[Any]]:
        graph, self.recording = self.recording or [], None
        return 0, graph

    def cudaGraphInstantiate(self, graph: list[Any], flags: int) -> tuple[int, list[Any]]:
        return 0, list(graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[int]:
        return (0,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph: list[Any], stream: int) -> tuple[int]:
        self.replays += 1
        for work in graph:
            work()
        return (0,)

    def _do(self, work: Any) -> tuple[int]:
        if self.recording is None:
            work()
        else:
            self.recording.append(work)
        return (0,)

    # driver
    CUfunction_attribute = type("F", (), {"CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": 8})
    CUdevice_attribute = type("D", (), {"CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH": 95})

    def cuModuleLoadData(self, image: bytes) -> tuple[int, str]:
        assert image == self.package.cubin
        return 0, "module"

    def cuModuleGetFunction(self, module: str, name: bytes) -> tuple[int, str]:
        assert name == b"fusion_kernel"
        return 0, "function"

    def cuFuncSetAttribute(self, function: str, attribute: int, value: int) -> tuple[int]:
        assert (attribute, value) == (8, self.package.shared)
        return (0,)

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, function: str, threads: int, shared: int) -> tuple[int, int]:
        return 0, 1

    def cuCtxGetDevice(self) -> tuple[int, int]:
        return 0, 0

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> tuple[int, int]:
        return 0, int(self.cooperative)

    def cuModuleUnload(self, module: str) -> tuple[int]:
        return (0,)

    def cuLaunchCooperativeKernel(self, function: str, *config: int) -> tuple[int]:
        return self._launch("cooperative", config)

    def cuLaunchKernel(self, function: str, *config: int) -> tuple[int]:
        return self._launch("plain", config[:-1])

    def _launch(self, kind: str, config: tuple[int, ...]) -> tuple[int]:
        *grid, shared, _, address = config
        values = read_arguments(address, list(self.package.params))
        self.launches.append((kind, tuple(grid), shared, values))
        return self._do(lambda: self._run(values))

    def _run(self, values: dict[str, int]) -> None:
        p = self.package
        launches = 1 if self.cooperative else len(p.phases)
        if values["launch"] + 1 < launches:
            return
        plan = make_plan(p.table, p.phases, cubin.phase_ranges(len(p.phases), self.cooperative), 8)
        shape = (len(p.modalities), p.batch, p.steps, p.dim)

        def view(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            return np.frombuffer((ctypes.c_char * size).from_address(values[name]), dtype).reshape(shape)

        np.testing.assert_array_equal(view("p_weights", p.weights.shape, np.float16), p.weights)
        np.testing.assert_array_equal(view("p_plan", plan.rows.shape, np.int32), plan.rows)
        np.testing.assert_array_equal(view("p_index", plan.index.shape, np.int32), plan.index)
        features = view("p_features", shape, np.float16)
        present = view("p_present", (p.batch, p.steps, shape[0]), np.float32)
        logits, attention = run_table(self.schedule, features, present > 0.5)
        view("p_logits", logits.shape, np.float32)[...] = logits * self.scale
        view("p_attention", attention.shape, np.float32)[...] = attention


@pytest.fixture
def stand_in(compiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> StandIn:
    package = read_cubins(load_bundle(compiled["bundle"]), "sm_87")
    fake = StandIn(package, schedule_of(compiled, "sm_87"))
    monkeypatch.setattr(cuda, "runtime", lambda: fake)
    monkeypatch.setattr(cubin, "runtime", lambda: fake)
    monkeypatch.setattr(cubin, "_driver", lambda: fake)
    return fake


def test_one_replay_of_one_cooperative_launch_per_window(stand_in: StandIn) -> None:
    fusion = cubin.FusedFusion(stand_in.package, sms=8)
    assert [(kind, grid, shared) for kind, grid, shared, _ in stand_in.launches] == [
        ("cooperative", (8, 1, 1, stand_in.package.threads, 1, 1), stand_in.package.shared)
    ] * 2  # fmt: skip
    assert stand_in.launches[1][3]["launch"] == 0
    before = stand_in.replays
    rng = np.random.default_rng(1)
    features = {name: rng.standard_normal((3, 3, 64)).astype(np.float32) for name in stand_in.package.modalities}
    present = rng.random((3, 3, 2)) > 0.3
    out = fusion(features, present)
    assert stand_in.replays == before + 3
    assert len(stand_in.launches) == 2  # only the first run and the capture
    for b in range(3):
        stacked = np.stack([features[name][b : b + 1] for name in features]).astype(np.float16)
        want, share = run_table(stand_in.schedule, stacked, present[b : b + 1])
        np.testing.assert_allclose(out["pain"][b], want[0], rtol=1e-5)
        np.testing.assert_allclose(out["attention"][b], share[0], rtol=1e-5)
    fusion.close()
    assert not stand_in.memory  # everything allocated was freed


def test_without_cooperative_launch_each_phase_is_a_launch(stand_in: StandIn) -> None:
    stand_in.cooperative = False
    cubin.FusedFusion(stand_in.package, sms=8).close()
    count = len(stand_in.package.phases)
    assert [kind for kind, *_ in stand_in.launches] == ["plain"] * 2 * count
    assert [v["launch"] for *_, v in stand_in.launches[:count]] == list(range(count))


def test_wrong_numbers_at_start_up_are_refused(stand_in: StandIn) -> None:
    for scale, reason in ((1.1, "relative error 1.00e-01"), (np.nan, "not finite")):
        stand_in.scale = scale
        with pytest.raises(BackendError, match=reason):
            cubin.FusedFusion(stand_in.package, sms=8)


def test_engine_takes_backbones_from_another_engine(stand_in: StandIn) -> None:
    class Backbones:
        name, precision, closed = "other", {"face": "fp32", "eda": "fp32", "fusion": "fp32"}, False

        def backbones(self, clips: Any) -> Any:
            return {"face": clips["face"] * 2}

        def close(self) -> None:
            self.closed = True

    other: Any = Backbones()
    engine = cubin.CubinEngine(other, cubin.FusedFusion(stand_in.package, sms=8))
    assert engine.name == "cubin"
    assert engine.precision == {"face": "fp32", "eda": "fp32", "fusion": "fp16"}
    assert engine.backbones({"face": np.ones(1, np.float32)})["face"] == 2
    names = stand_in.package.modalities
    out = engine.fusion({n: np.zeros((1, 3, 64), np.float32) for n in names}, np.ones((1, 3, 2), bool))
    assert out["pain"].shape == out["attention"].shape == (1, 1, 2)
    engine.close()
    assert other.closed


def test_real_driver_calls_take_these_arguments() -> None:
    """Without a driver each call must fail for want of libcuda, not for its arguments' types."""
    driver = pytest.importorskip("cuda.bindings.driver")
    if cubin.available() is None:
        pytest.skip("there is a driver here")
    array = (ctypes.c_void_p * 15)()
    address, function = ctypes.addressof(array), driver.CUfunction(0)
    shared = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    calls = [
        lambda: driver.cuModuleLoadData(b"\x7fELF"),
        lambda: driver.cuModuleGetFunction(driver.CUmodule(0), b"fusion_kernel"),
        lambda: driver.cuFuncSetAttribute(function, shared, 49152),
        lambda: driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, 256, 49152),
        lambda: driver.cuCtxGetDevice(),
        lambda: driver.cuDeviceGetAttribute(
            driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, driver.CUdevice(0)
        ),
        lambda: driver.cuLaunchCooperativeKernel(function, 8, 1, 1, 256, 1, 1, 49152, 0, address),
        lambda: driver.cuLaunchKernel(function, 8, 1, 1, 256, 1, 1, 49152, 0, address, 0),
        lambda: driver.cuModuleUnload(driver.CUmodule(0)),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"(?i)cuda"):
            call()


def test_encode_rounds_to_nearest() -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(2).standard_normal(1000).astype(np.float32)
    got = (cubin.encode(x, "bfloat16").astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(got, torch.from_numpy(x).bfloat16().float().numpy())
    assert cubin.encode(x, "float16").dtype == np.float16


def test_index_is_plain_json(compiled: dict[str, Any]) -> None:
    index = json.loads((compiled["bundle"] / "cubins.json").read_text())
    assert index["targets"]["sm_87"]["resources"]["spills"] == 0
    assert 0 < index["eager_error"] < 0.05


def jmt_edge(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-m", "jmt_edge", *arguments], capture_output=True, text=True, env=environment
    )


def test_build_puts_cubins_of_the_demo_weights_into_a_new_bundle(
    tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]
) -> None:
    demo, out = str(demo_bundle("pain")), tmp_path / "orin.jmt"
    options = ["--precision", "fp32", "--builder", "onnxruntime", "--windows", "2", "--out", str(out)]
    code, _, said = command_line("build", demo, *options, "--cubin", "sm_87,orin")
    assert code == 2 and "orin" in said
    assert not out.exists()
    done = jmt_edge("build", demo, *options, "--cubin", "sm_87")
    assert done.returncode == 0, done.stderr
    bundle = load_bundle(out)
    package = read_cubins(bundle, "sm_87")
    index = json.loads((out / "cubins.json").read_text())
    assert index["targets"]["sm_87"]["resources"]["spills"] == 0
    # the launcher's table, run in NumPy, gives what onnxruntime gives for the same bundle
    with safe_open(out / "fusion_folded.safetensors", "numpy") as file:
        plan = FoldedPlan.from_safetensors_dict({n: file.get_tensor(n) for n in file.keys()}, file.metadata())  # noqa: SIM118
    tiles = Tiles(**index["targets"]["sm_87"]["tiles"])
    schedule = build_schedule(weights_of(plan), 1, 1, "float16", tiles, last=True)
    np.testing.assert_array_equal(package.weights, schedule.weights)
    features = dict(zip(bundle.task.names, package.features))
    engine = open_engine(bundle, "onnxruntime", 1)
    raw = engine.fusion(features, package.present > 0.5)
    engine.close()
    assert not cubin.verdict(raw["pain"], package.expected, package.tolerance)
