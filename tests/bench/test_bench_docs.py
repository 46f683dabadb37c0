"""docs/performance.md says what the committed JSON says, and the files stay small."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def test_every_number_of_the_page_comes_from_the_committed_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.tables", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_altered_page_is_noticed(tmp_path: Path) -> None:
    """Every block, in its committed state, is put back after somebody changed a line of it by hand."""
    code = (
        "import benchmarks.tables as t, re\n"
        "page = t.PAGE.read_text()\n"
        "names = re.findall(r'<!-- begin (\\S+) -->', page)\n"
        "assert sorted(names) == sorted(t.TABLES), names\n"
        "for name in names:\n"
        "    start = f'<!-- begin {name} -->\\n'\n"
        "    wrong = page.replace(start, start + '| invented | 0.001 |\\n')\n"
        "    assert wrong != page and t.render(wrong) == page, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tables_are_made_from_reports(report: dict[str, Any], tmp_path: Path) -> None:
    """A block that has its files shows their numbers and no others."""
    for task in ("pain", "affect", "trimodal"):
        (tmp_path / f"bench-{task}.json").write_text(json.dumps(report | {"other_cores_busy": 0.0}))
    code = (
        "import pathlib, sys, benchmarks.tables as t\n"
        "t.RESULTS = pathlib.Path(sys.argv[1])\n"
        "print('\\n'.join(t.block('bench')))\n"
        "assert 'Not measured yet' in t.block('suite')[0]\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, row in report["stages"].items():
        assert done.stdout.count(f"| {name} | {row['p50']:.2f} | {row['p90']:.2f} |") == 3


def test_results_are_trimmed() -> None:
    large = {p.name: p.stat().st_size for p in (ROOT / "benchmarks/results").glob("*") if p.stat().st_size > 300_000}
    assert not large


def test_pictures_of_the_page_exist() -> None:
    page = ROOT / "docs/performance.md"
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / name).resolve().read_bytes().startswith(b"\x89PNG"), name
