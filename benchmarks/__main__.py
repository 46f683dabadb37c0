"""`python -m benchmarks [--keep] [pytest arguments]`: run every group, then write a Markdown table and a plot.

The JSON, the table and the plot are written to `.benchmarks/`; ratios are relative to the fastest of each group, from
one run on one machine. `--keep` also writes them, without single timings, to `benchmarks/results/suite.*`.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import RESULTS, stamp, write

OUT = Path(".benchmarks")
_STATS = ("median", "iqr", "min", "max", "rounds")


class _Skips:
    """What was skipped, and why."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            name = report.nodeid.split("::", 1)[1].removeprefix("test_")
            self.reasons[name] = str(report.longrepr[2]).removeprefix("Skipped: ")


def main() -> int:
    OUT.mkdir(exist_ok=True)
    arguments = sys.argv[1:]
    keep = "--keep" in arguments
    arguments = [a for a in arguments if a != "--keep"] or [str(Path(__file__).parent)]
    stamped, skips, began = stamp("make bench"), _Skips(), time.monotonic()
    name = stamped["date"][:19].replace("T", "-").replace(":", "")
    report = OUT / f"{name}.json"
    options = [
        "-q",
        "--dist=no",  # pytest-benchmark measures nothing under xdist
        "--timeout=0",
        "--benchmark-enable",
        "--benchmark-max-time=1.0",
        "--benchmark-min-rounds=5",
        "--benchmark-disable-gc",
        f"--benchmark-json={report}",
    ]
    code = int(pytest.main([*arguments, *options], plugins=[skips]))
    if not report.is_file() or not report.stat().st_size:
        return code
    suite = {
        **stamped,
        "seconds": round(time.monotonic() - began, 1),
        "skipped": skips.reasons,
        "benchmarks": [_short(row) for row in json.loads(report.read_text())["benchmarks"]],
    }
    for base in (OUT / name, *([RESULTS / "suite"] if keep else [])):
        base.parent.mkdir(exist_ok=True)
        base.with_suffix(".md").write_text(markdown(suite))
        plot(suite["benchmarks"], base.with_suffix(".png"))
    if keep:
        write(RESULTS / "suite.json", suite)
    print((OUT / name).with_suffix(".md").read_text())
    print(f"wrote {report}, .md and .png")
    return code


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "group": row["group"] or "other",
        "name": row["name"].removeprefix("test_"),
        "stats": {key: row["stats"][key] for key in _STATS},
        "extra_info": row["extra_info"],
    }


def groups(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by group, the fastest median first."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["group"]].append(row)
    return {name: sorted(found[name], key=lambda r: r["stats"]["median"]) for name in sorted(found)}


def stamp_line(report: dict[str, Any]) -> str:
    """When, where and how a report was made."""
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{report['date'][:10]}; {machine['processor']}, {machine['cores']} cores, governor {machine['governor']}, "
        f"load {machine['load']} before the run; Python {machine['python']}, {versions}; `{report['command']}`."
    )


def group_tables(suite: dict[str, Any]) -> list[str]:
    """One table per group: median, interquartile range, rounds, and the ratio to the fastest."""
    lines = []
    for name, members in groups(suite["benchmarks"]).items():
        fastest = members[0]["stats"]["median"]
        lines += ["", f"**{name}**", "", "| contender | median ms | IQR ms | rounds | times the fastest |",
                  "|---|---|---|---|---|"]  # fmt: skip
        for row in members:
            s = row["stats"]
            lines.append(
                f"| {row['name']} | {1e3 * s['median']:.3f} | {1e3 * s['iqr']:.3f} | {s['rounds']} | "
                f"{s['median'] / fastest:.2f} |"
            )
    return lines


def markdown(suite: dict[str, Any]) -> str:
    lines = [f"# Benchmarks of {suite['date'][:10]}", "", stamp_line(suite), f"It took {suite['seconds']:.0f} s."]
    lines += group_tables(suite)
    if suite["skipped"]:
        lines += ["", "Skipped:", "", *(f"- {name}: {reason}" for name, reason in suite["skipped"].items())]
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars of the ratio to the fastest, one panel per group."""
    from matplotlib.figure import Figure

    found = groups(rows)
    heights = [len(members) for members in found.values()]
    figure = Figure(figsize=(9, 0.9 * len(found) + 0.35 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(found), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, members) in zip(panels, found.items()):
        base = members[0]["stats"]["median"]
        bars = axes.barh([row["name"] for row in members], [row["stats"]["median"] / base for row in members])
        axes.bar_label(bars, [f"{1e3 * row['stats']['median']:.2f} ms" for row in members], padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.set_title(name, fontsize=9, loc="left")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    sys.exit(main())
