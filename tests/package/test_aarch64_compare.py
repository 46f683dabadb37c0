"""What `scripts/aarch64-check.sh` calls equal: the same verdicts, and numbers within 2 % of their range."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def compare() -> Any:
    spec = importlib.util.spec_from_file_location("aarch64_compare", ROOT / "scripts" / "aarch64_compare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compare


def windows() -> list[dict[str, Any]]:
    usable, not_usable = {"face": {"ok": True}, "eda": {"ok": True}}, {"face": {"ok": False}, "eda": {"ok": False}}
    return [
        {"t": 0.5, "outputs": None, "quality": not_usable},
        {"t": 1.0, "outputs": {"pain": 0.5, "valence": -0.2}, "quality": usable},
    ]


def test_equal_runs_and_small_differences_pass(compare: Any) -> None:
    other = copy.deepcopy(windows())
    other[1]["outputs"] = {"pain": 0.515, "valence": -0.23}
    found = compare(other, windows())
    assert found["faults"] == [] and found["numbers"] == 2
    assert found["largest_difference"] == pytest.approx({"pain": 0.015, "valence": 0.015})


@pytest.mark.parametrize(("change", "says"), [
    (lambda w: w[1]["outputs"].update(pain=0.53), "pain differs by 3.0%"),
    (lambda w: w[1]["outputs"].update(valence=-0.26), "valence differs by 3.0%"),
    (lambda w: w[1]["quality"]["eda"].update(ok=False), "window at 1.0 s"),
    (lambda w: w[1].update(outputs=None), "window at 1.0 s"),
    (lambda w: w.pop(), "1 windows under QEMU, 2 here"),
])  # fmt: skip
def test_everything_else_is_a_fault(compare: Any, change: Any, says: str) -> None:
    other = copy.deepcopy(windows())
    change(other)
    assert any(says in fault for fault in compare(other, windows())["faults"])


def test_a_run_without_a_number_proves_nothing(compare: Any) -> None:
    assert compare(windows()[:1], windows()[:1])["faults"] == ["no window has a number"]


def test_the_script_is_bash_and_names_what_it_needs() -> None:
    script = ROOT / "scripts" / "aarch64-check.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    done = subprocess.run([str(script), "--what"], capture_output=True, text=True)
    assert done.returncode == 2 and "qemu-user-static" in done.stderr
