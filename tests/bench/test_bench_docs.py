"""The tables of docs and notes say what the committed JSON says, and the files stay small."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The generator, which is no part of the package."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    from benchmarks import tables

    return tables


WITH_PICTURES = [ROOT / "docs/reference/performance.md", ROOT / "benchmarks/NOTES.md"]
PAGES = [
    WITH_PICTURES[0], ROOT / "docs/explanation/evaluation.md", ROOT / "docs/reference/mqtt.md", WITH_PICTURES[1],
]  # fmt: skip


def test_every_number_of_the_pages_comes_from_the_committed_json(tables: Any) -> None:
    assert list(tables.PAGES) == PAGES
    for page in PAGES:
        assert tables.render(page.read_text(), page.parent) == page.read_text(), page


def test_an_altered_page_is_noticed(tables: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every block, in its committed state, is restored after somebody changed a line of it by hand."""
    names = []
    for page in PAGES:
        text = page.read_text()
        for name in re.findall(r"<!-- begin (\S+) -->", text):
            names.append(name)
            start = f"<!-- begin {name} -->\n"
            wrong = text.replace(start, start + "| invented | 0.001 |\n")
            assert wrong != text and tables.render(wrong, page.parent) == text, name
    assert sorted(names) == sorted(tables.TABLES)
    (tmp_path / "page.md").write_text(wrong)
    monkeypatch.setattr(tables, "PAGES", (tmp_path / "page.md",))
    monkeypatch.setattr(sys, "argv", ["tables", "--check"])
    with pytest.raises(SystemExit) as exit:
        tables.main()
    assert "differs from" in str(exit.value)


def test_tables_are_made_from_reports(
    tables: Any, report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that has its files shows their numbers and no others."""
    for task in ("pain", "affect", "trimodal"):
        (tmp_path / f"bench-{task}.json").write_text(json.dumps(report | {"other_cores_busy": 0.0}))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    text = "\n".join(tables.block("bench", tmp_path))
    assert "Not measured yet" in tables.block("suite", tmp_path)[0]
    for name, row in report["stages"].items():
        assert text.count(f"| {name} | {row['p50']:.2f} | {row['p90']:.2f} |") == 3


def test_results_are_trimmed() -> None:
    large = {p.name: p.stat().st_size for p in (ROOT / "benchmarks/results").glob("*") if p.stat().st_size > 300_000}
    assert not large


@pytest.mark.parametrize("page", WITH_PICTURES, ids=lambda page: page.name)
def test_pictures_of_the_pages_exist(page: Path) -> None:
    names = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    assert names
    for name in names:
        assert (page.parent / name).resolve().read_bytes().startswith(b"\x89PNG"), name
