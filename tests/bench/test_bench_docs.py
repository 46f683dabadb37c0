"""docs/performance.md says what the committed JSON says, and the files stay small."""

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


def test_every_number_of_the_page_comes_from_the_committed_json(tables: Any) -> None:
    page = tables.PAGE.read_text()
    assert tables.PAGE == ROOT / "docs/performance.md" and tables.render(page) == page


def test_an_altered_page_is_noticed(tables: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every block, in its committed state, is put back after somebody changed a line of it by hand."""
    page = tables.PAGE.read_text()
    names = re.findall(r"<!-- begin (\S+) -->", page)
    assert sorted(names) == sorted(tables.TABLES)
    for name in names:
        start = f"<!-- begin {name} -->\n"
        wrong = page.replace(start, start + "| invented | 0.001 |\n")
        assert wrong != page and tables.render(wrong) == page, name
    (tmp_path / "page.md").write_text(wrong)
    monkeypatch.setattr(tables, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(sys, "argv", ["tables", "--check"])
    with pytest.raises(SystemExit) as exit:
        tables.main()
    assert "does not say" in str(exit.value)


def test_tables_are_made_from_reports(
    tables: Any, report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that has its files shows their numbers and no others."""
    for task in ("pain", "affect", "trimodal"):
        (tmp_path / f"bench-{task}.json").write_text(json.dumps(report | {"other_cores_busy": 0.0}))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    text = "\n".join(tables.block("bench"))
    assert "Not measured yet" in tables.block("suite")[0]
    for name, row in report["stages"].items():
        assert text.count(f"| {name} | {row['p50']:.2f} | {row['p90']:.2f} |") == 3


def test_results_are_trimmed() -> None:
    large = {p.name: p.stat().st_size for p in (ROOT / "benchmarks/results").glob("*") if p.stat().st_size > 300_000}
    assert not large


def test_pictures_of_the_page_exist() -> None:
    page = ROOT / "docs/performance.md"
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / name).resolve().read_bytes().startswith(b"\x89PNG"), name
