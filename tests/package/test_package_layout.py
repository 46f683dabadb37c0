"""What the package promises before any model runs: layout, imports, presets, bundles, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jmt_edge.engine.bundle import load_bundle, write_bundle
from jmt_edge.errors import BundleError, ConfigError
from jmt_edge.plain_files import checksum
from jmt_edge.tasks import TASK_NAMES, Task, get_task, split_steps

ROOT = Path(__file__).resolve().parents[2]
RUN_TIME = [
    "jmt_edge.tasks",
    "jmt_edge.preprocessing",
    "jmt_edge.capture",
    "jmt_edge.live",
    "jmt_edge.live.loop",
    "jmt_edge.engine.bundle",
    "jmt_edge.engine.backends",
    "jmt_edge.engine.backends.onnxruntime",
    "jmt_edge.cli.live",
    "jmt_edge.cli.doctor",
]


def _python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, cwd="/", check=False
    )


@pytest.mark.parametrize("module", RUN_TIME)
def test_run_time_path_loads_no_torch(module: str) -> None:
    done = _python(
        f"import sys, {module}; print(sorted({{'torch', 'triton', 'lightning', 'onnx'}} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_package_folder_is_installed() -> None:
    """A folder that setuptools does not list works in the checkout and is missing from the wheel."""
    text = (ROOT / "pyproject.toml").read_text()
    found = {"jmt_edge." + f for f in ("kernels", "calibration", "training")}
    for folder in ("jmt_edge", "kernels", "calibration", "training"):
        for init in (ROOT / folder).rglob("__init__.py"):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            found.add(name if folder == "jmt_edge" else f"jmt_edge.{name}")
    missing = [name for name in sorted(found) if f'"{name}",' not in text]
    assert not missing, f"add to [tool.setuptools] packages: {missing}"


def test_checkout_on_pythonpath_needs_no_installation() -> None:
    """-S leaves site-packages out, so only the checkout can serve the import."""
    code = "import jmt_edge.training, jmt_edge.calibration, jmt_edge.kernels as k; print(k.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, cwd="/"
    )
    assert done.stdout.strip() == str(ROOT / "kernels" / "__init__.py"), done.stderr


@pytest.mark.parametrize("name", ["jmt_edge", "tests", "benchmarks", "examples", "docs", "scripts"])
def test_nothing_else_of_a_checkout_is_part_of_the_package(name: str) -> None:
    """A checkout on `__path__` would give second copies of every module: `jmt_edge.jmt_edge.tasks`."""
    code = f"import jmt_edge.{name}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, cwd="/"
    )
    assert done.returncode == 1 and f"No module named 'jmt_edge.{name}'" in done.stderr


def test_help_lists_every_command_without_heavy_imports() -> None:
    code = (
        "import sys; sys.argv = ['jmt-edge', '--help']\n"
        "from jmt_edge.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "print(sorted({'numpy', 'cv2', 'torch', 'onnxruntime', 'scipy', 'rich'} & set(sys.modules)))"
    )
    done = _python(code)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    for command in ("live", "replay", "doctor", "bench", "build", "calibrate", "train", "evaluate", "synth", "import"):
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize("name", TASK_NAMES)
@pytest.mark.parametrize("variant", ["full", "demo"])
def test_task_survives_json(name: str, variant: str) -> None:
    task = get_task(name, variant)  # type: ignore[arg-type]
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert all(m.end <= 0 and max(m.clip_ends(task.steps)) <= 0 for m in task.modalities)


def test_pain_window_follows_the_papers() -> None:
    face, eda = get_task("pain").modalities
    assert (face.span, face.end, eda.span, eda.shape) == (3.0, -0.5, 5.5, (1, 2816))
    four = split_steps(get_task("pain"), 4)
    assert four.window == pytest.approx(5.5)
    assert four.modality("eda").shape == (1, 704)
    with pytest.raises(ConfigError, match="do not divide"):
        split_steps(get_task("pain"), 5)


def test_unknown_task_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="unknown task 'sleep': choose one of pain, affect, trimodal"):
        get_task("sleep")


@given(st.dictionaries(st.sampled_from(["name", "steps", "modalities", "dim", "x"]), st.none() | st.integers()))
def test_malformed_task_never_leaks_a_traceback(data: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Task.from_dict(data)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    manifest = {"name": "x", "task": get_task("pain").to_dict(), "networks": {}}
    return write_bundle(tmp_path / "x.jmt", manifest, {"a.onnx": b"graph", "w/b.safetensors": b"weights"}).path


def test_bundle_round_trip(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.task == get_task("pain")
    assert loaded.read("w/b.safetensors") == b"weights"
    assert loaded.id.startswith("x@") and len(loaded.id) == 10
    with pytest.raises(BundleError, match="lists no file"):
        loaded.read("manifest.json")


@given(data=st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("b") / "x.jmt"
    write_bundle(path, {"name": "x", "task": get_task("pain").to_dict(), "networks": {}}, {"a.onnx": b"graph"})
    raw = bytearray((path / "a.onnx").read_bytes())
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    (path / "a.onnx").write_bytes(raw)
    with pytest.raises(BundleError, match="was altered"):
        load_bundle(path)


def seal(bundle: Path, manifest: bytes) -> None:
    (bundle / "manifest.json").write_bytes(manifest)
    (bundle / "manifest.sha256").write_bytes(checksum(manifest, "manifest.json"))


def test_bundle_refusals_name_the_remedy(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(tmp_path / "none.jmt")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        load_bundle(tmp_path)
    with pytest.raises(BundleError, match="exists; choose another"):
        write_bundle(bundle, {}, {})
    manifest = json.loads((bundle / "manifest.json").read_text())
    for change, message in (
        ({"schema": 99}, "bundle schema 99"),
        ({"files": {"../../etc/passwd": "0" * 64}}, "outside the bundle"),
        ({"files": {**manifest["files"], "gone": "0" * 64}}, "lacks its file 'gone'"),
        ({"files": []}, "not a table"),
        ({"task": {}}, "malformed"),
    ):
        seal(bundle, json.dumps({**manifest, **change}).encode())
        with pytest.raises(BundleError, match=message):
            load_bundle(bundle)
    seal(bundle, b"{")
    with pytest.raises(BundleError, match="not readable JSON"):
        load_bundle(bundle)


def test_a_failed_write_leaves_nothing(bundle: Path) -> None:
    before = sorted(p.name for p in bundle.parent.iterdir())
    with pytest.raises(FileNotFoundError):
        write_bundle(bundle, {"name": "x"}, {"a": Path("/nonexistent")}, overwrite=True)
    assert sorted(p.name for p in bundle.parent.iterdir()) == before
    assert load_bundle(bundle).name == "x"


def test_tasks_are_values() -> None:
    assert replace(get_task("pain"), steps=1) == get_task("pain")
