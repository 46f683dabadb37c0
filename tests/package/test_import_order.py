"""The import contract of pyproject.toml holds, and one forbidden line is enough to break it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from package_fixture import ROOT, Distributions

LAYERS = "A room imports only rooms below it"
APART = "training and live never import each other"
Lint = Callable[[Path], "subprocess.CompletedProcess[str]"]


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """`make lint`'s import check on the package in `folder`."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-logo", "--no-cache", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def package(distributions: Distributions, tmp_path: Path) -> Path:
    """An installed copy that a test may spoil."""
    shutil.copytree(
        distributions.unpacked / "jmt_edge", tmp_path / "jmt_edge", ignore=shutil.ignore_patterns("bundles", "data")
    )
    return tmp_path


def _verdicts(output: str) -> dict[str, str]:
    """Contract -> KEPT or BROKEN, of the summary."""
    return dict(re.findall(r"^(.+) (KEPT|BROKEN)\b", output, re.M))


def test_the_package_keeps_every_contract(package: Path) -> None:
    done = _lint(package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _verdicts(done.stdout) == {LAYERS: "KEPT", APART: "KEPT"}


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("preprocessing/face.py", "from jmt_edge.live import run", {LAYERS, APART}),  # training imports preprocessing
        ("errors.py", "from .tasks import Task", {LAYERS}),
        ("capture/base.py", "from ..clips.plan import ClipPlan", {LAYERS}),
        ("engine/bundle.py", "def later():\n    import jmt_edge.models.fusion", {LAYERS}),
        ("training/data.py", "from ..live.gate import STALE", {APART}),
    ],
)
def test_one_forbidden_line_breaks_it(package: Path, file: str, line: str, broken: set[str]) -> None:
    path = package / "jmt_edge" / file
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    done = _lint(package)
    assert done.returncode == 1, done.stdout + done.stderr
    verdicts = _verdicts(done.stdout)
    assert {name for name, verdict in verdicts.items() if verdict == "BROKEN"} == broken
    module = "jmt_edge." + file.removesuffix(".py").replace("/", ".")
    assert module in done.stdout
