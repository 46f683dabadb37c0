"""The hazard log names tests that exist, for every hazard, and says everything that it should."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOG = ROOT / "docs" / "safety" / "hazards.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PARTS = ("Sequence", "Harm", "What stops it", "Tests", "Residual")


def hazards() -> dict[str, str]:
    parts = re.split(r"^### (H\d+) .+$", LOG.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def collected(file: str) -> set[str]:
    """The functions of a module that pytest collects, and so are not skipped for good."""
    path = ROOT / file
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not any(ast.unparse(decorator).endswith("mark.skip") for decorator in node.decorator_list)
    }


def test_the_numbers_are_in_order() -> None:
    assert list(hazards()) == [f"H{i}" for i in range(1, len(hazards()) + 1)] and len(hazards()) >= 18


@pytest.mark.parametrize("hazard", hazards())
def test_a_hazard_is_complete_and_its_tests_exist(hazard: str) -> None:
    text = hazards()[hazard]
    assert re.findall(r"^- \*\*(.+?)\*\*", text, re.M) == list(PARTS)
    named = NAMED.findall(text)
    assert named, f"{hazard} names no test"
    missing = [f"{file}::{name}" for file, name in named if name not in collected(file)]
    assert not missing


def test_a_test_that_does_not_exist_is_noticed() -> None:
    assert "test_nowhere" not in collected("tests/package/test_hazards.py")
    assert collected("tests/nowhere.py") == set()
    assert len(NAMED.findall(LOG.read_text())) > 50
