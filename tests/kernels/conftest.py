"""Fixtures of the kernels' tests. Without a GPU the kernels run in Triton's interpreter (`tests/conftest.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _poison_new_tensors() -> Iterator[None]:
    """Uninitialised memory is NaN: an output that no kernel wrote cannot pass for a result."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `kernels_compile.py` made: `reports` {case: report}, `ptx` {case: text}, `bundle` a folder with cubins.

    In a child process, because Triton cannot leave its interpreter.
    """
    out = tmp_path_factory.mktemp("cubins")
    script = Path(__file__).with_name("kernels_compile.py")
    done = subprocess.run([sys.executable, str(script), str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    cases = json.loads((out / "reports.json").read_text())
    return {
        "reports": cases,
        "ptx": {case: (out / f"{case}.ptx").read_text() for case in cases},
        "params": json.loads((out / "params.json").read_text()),
        "bundle": out / "demo.jmt",
    }
