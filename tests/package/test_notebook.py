"""The notebook of `examples/`, run from its first cell to its last in an empty folder."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "train_and_run.ipynb"


@pytest.fixture(scope="module")
def runner() -> Any:
    spec = importlib.util.spec_from_file_location("run_notebook", ROOT / "scripts" / "run_notebook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(outputs: list[dict[str, Any]]) -> str:
    return "".join("".join(output.get("text", "")) for output in outputs)


def test_a_cell_that_fails_is_an_error(runner: Any, tmp_path: Path) -> None:
    def cells(*sources: str) -> dict[str, Any]:
        return {"cells": [{"cell_type": "code", "source": [source]} for source in sources]}

    first, second = runner.run(cells("x = 2\n!echo from \\\n  the shell", "print(x + 1)"), tmp_path)
    assert (text(first), text(second)) == ("from the shell\n", "3\n")
    with pytest.raises(ZeroDivisionError):
        runner.run(cells("1 / 0"), tmp_path)
    with pytest.raises(RuntimeError, match="ended with 3"):
        runner.run(cells("!exit 3"), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_trains_exports_and_runs_live(
    runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setenv("JMT_EDGE_CACHE", str(tmp_path / "cache"))
    notebook = json.loads(NOTEBOOK.read_text())
    cohort, figure, trained, made, live = runner.run(notebook, tmp_path)
    assert "4 subjects" in text(cohort)
    assert "image/png" in figure[0]["data"]
    assert re.search(r"^holdout +\d+ +[01]\.\d{3}", text(trained), re.M) and "bundle: run/biovid-jmt.jmt" in text(
        trained
    )
    assert text(made).startswith("pain from face and eda\ntrained on 24 recordings of 4 people: BL1, PA4")
    lines = text(live).splitlines()
    spoken = [float(line.split()[0]) for line in lines if re.search(r"pain +[01]\.\d\d", line)]
    silent = [line for line in lines if "—" in line]
    assert min(spoken) == 3.5 and silent and all("warming up" in line for line in silent)
    stored = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [len(outputs) for outputs in stored] == [1, 1, 1, 1, 1]  # what a reader sees who does not run it
    assert [line.split()[0] for line in text(stored[-1]).splitlines()] == [line.split()[0] for line in lines]
