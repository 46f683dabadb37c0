"""The furniture of the repository says what the package says: workflows, hooks, citation, the table of rooms."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import jmt_edge

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def _yaml(path: Path) -> Any:
    return pytest.importorskip("yaml", reason="PyYAML is not installed").safe_load(path.read_text())


@pytest.mark.skipif(not WORKFLOWS, reason="an sdist has no workflows")
def test_workflows_may_read_and_run_nothing_that_can_change_under_its_name() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "nightly.yml", "release.yml"]
    for path in WORKFLOWS:
        workflow = _yaml(path)
        assert workflow["permissions"] == {"contents": "read"} and "concurrency" in workflow
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"] <= 90
            assert job.get("permissions", {}) == ({"id-token": "write"} if name == "publish" else {})
            for step in job["steps"]:
                assert "uses" not in step or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])


@pytest.mark.skipif(not WORKFLOWS, reason="an sdist has no workflows")
def test_the_matrix_is_what_the_metadata_promises() -> None:
    job = _yaml(WORKFLOWS[0])["jobs"]["test"]
    matrix = job["strategy"]["matrix"]
    versions = [c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if "Python :: 3." in c]
    assert matrix["python"] == versions
    assert {runner.endswith("-arm") for runner in matrix["runner"]} == {True, False}
    whole = [cell for cell in matrix["include"] if cell.get("everything")]
    assert len(whole) == 1 and whole[0]["runner"] in matrix["runner"] and whole[0]["python"] in versions
    (parts,) = [step["run"] for step in job["steps"] if "pytest" in step.get("run", "")]
    folders = re.findall(r"tests/\w+", parts)
    assert folders and all((ROOT / folder).is_dir() for folder in folders)


def test_hooks_use_the_locked_ruff() -> None:
    (locked,) = re.findall(r'^name = "ruff"\nversion = "(.+)"', (ROOT / "uv.lock").read_text(), re.M)
    hooks = {repo["repo"]: repo for repo in _yaml(ROOT / ".pre-commit-config.yaml")["repos"]}
    assert hooks["https://github.com/astral-sh/ruff-pre-commit"]["rev"] == f"v{locked}"
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for hook in hooks["local"]["hooks"]:
        assert hook["entry"].removeprefix("make ") in targets


def test_the_citation_is_of_this_version() -> None:
    citation = _yaml(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert str(citation["version"]) == jmt_edge.__version__ == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["repository-code"] == PROJECT["project"]["urls"]["Repository"]
    assert citation["authors"] == PROJECT["project"]["authors"]


def test_contributing_shows_the_rooms_in_the_contracts_order() -> None:
    (layers,) = [c["layers"] for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    order = [room for row in layers for room in re.split(r" [|:] ", row)]
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `") or "then" in line]
    assert [room for row in rows for room in re.findall(r"`(\w+)`", row)] == order
    for folder in re.findall(r"`([\w/.]+/)`", table):
        assert (ROOT / folder).is_dir(), folder
