"""OpenCV as machines have it: either logging interface, missing, or built against another NumPy."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What the product reads of a `cv2` where no image is decoded, in the two forms there are.
COMMON = """
levels = []
def setNumThreads(count): pass
def getBuildInformation():
    return "Video I/O:\\n    GStreamer:                   NO\\n"
"""
BEFORE_4_13 = COMMON + "def setLogLevel(level):\n    levels.append(level)\nclass utils: pass\n"
SINCE_4_13 = COMMON + (
    "class utils:\n"
    "    class logging:\n"
    "        LOG_LEVEL_SILENT = 0\n"
    "        setLogLevel = staticmethod(levels.append)\n"
)
NEITHER = COMMON
# NumPy's own words, first on stderr and then as an exception, about a module built against NumPy 1
OTHER_NUMPY = """
import sys
sys.stderr.write("A module that was compiled using NumPy 1.x cannot be run in NumPy 2\\nTraceback (last)\\n")
sys.OpenCV_LOADER = True
raise ImportError("numpy.core.multiarray failed to import")
"""


def run(folder: Path, module: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Python with `module` as the text of its `cv2`."""
    folder.mkdir(exist_ok=True)
    (folder / "cv2.py").write_text(module)
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, env=env, cwd=folder, check=False)


@pytest.mark.parametrize(
    ("module", "levels"), [(BEFORE_4_13, "[0]"), (SINCE_4_13, "[0]"), (NEITHER, "[]")], ids=["4.12", "4.13", "neither"]
)
def test_either_logging_interface_is_silenced(tmp_path: Path, module: str, levels: str) -> None:
    code = "from jmt_edge.capture.camera import has_gstreamer; import cv2; print(has_gstreamer(), cv2.levels)"
    done = run(tmp_path, module, "-c", code)
    assert done.stdout.strip() == f"False {levels}", done.stderr


def test_this_opencv_is_silent_and_uses_one_thread() -> None:
    from jmt_edge.opencv import cv2

    assert cv2.getNumThreads() == 1

    asked = getattr(cv2, "getLogLevel", None) or cv2.utils.logging.getLogLevel
    assert asked() == 0


def test_an_opencv_that_does_not_load_is_a_finding(tmp_path: Path) -> None:
    done = run(tmp_path, OTHER_NUMPY, "-m", "jmt_edge", "doctor")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "✗ cv2: OpenCV does not load with NumPy" in done.stdout
    assert "(numpy.core.multiarray failed to import)" in done.stdout
    assert "demo" in done.stdout  # the sections after it are there


@pytest.mark.parametrize("args", [(), ("--camera", "clip.mp4"), ("--eda", "sim:")], ids=["sim", "file", "eda"])
def test_live_says_so_in_one_sentence(tmp_path: Path, args: tuple[str, ...]) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    done = run(tmp_path, OTHER_NUMPY, "-m", "jmt_edge", "live", "--output", "none", "--duration", "1", *args)
    assert done.returncode == 2
    assert done.stderr.startswith("jmt-edge: OpenCV does not load with NumPy")
    assert done.stderr.count("\n") == 1


def test_a_missing_opencv_is_one_sentence(tmp_path: Path) -> None:
    """As on a Jetson in a venv that does not see the system's packages."""
    missing = "raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')"
    done = run(tmp_path, missing, "-m", "jmt_edge", "live", "--output", "none", "--duration", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("jmt-edge: OpenCV is not installed; run `pip install opencv-python-headless`")
    assert done.stderr.count("\n") == 1


def test_sound_and_eda_files_need_no_opencv(tmp_path: Path) -> None:
    code = "import jmt_edge.capture.files, jmt_edge.capture.microphone, jmt_edge.capture.eda"
    done = run(tmp_path, OTHER_NUMPY, "-c", code)
    assert done.returncode == 0, done.stderr


def test_every_module_takes_opencv_from_one_place() -> None:
    found = []
    for folder in ("jmt_edge", "kernels", "calibration", "training"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                if any(name.split(".")[0] == "cv2" for name in names):
                    found.append(str(file.relative_to(ROOT)))
    assert found == ["jmt_edge/opencv.py"]
