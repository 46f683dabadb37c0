"""Without a GPU the kernels run in Triton's interpreter, which Triton chooses when it is first imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

_ours = "TRITON_INTERPRET" not in os.environ and not torch.cuda.is_available()
if _ours:
    os.environ["TRITON_INTERPRET"] = "1"
import triton.experimental.gluon  # noqa: E402, F401 - Triton imports it later otherwise, and it asks again

import jmt_edge.kernels.fusion  # noqa: E402, F401

if _ours:
    del os.environ["TRITON_INTERPRET"]  # child processes, such as those that compile, are not concerned
    from triton.runtime.interpreter import interpreter_builder

    # each integer operation in int64 again, to look for overflow: a quarter of the time; offsets here stay small
    interpreter_builder.options = replace(interpreter_builder.options, sanitize_overflow=False)


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
