"""`python -m benchmarks [pytest arguments]`: run every group, then write a Markdown table and a plot.

The JSON, the table and the plot land under `.benchmarks/`; ratios are against the fastest of each group, so they
come from one run on one machine.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from jmt_edge.bench.machine import describe

OUT = Path(".benchmarks")


def main() -> int:
    OUT.mkdir(exist_ok=True)
    stamp = datetime.now(timezone.utc).strftime("%Y-%m-%d-%H%M%S")
    report = OUT / f"{stamp}.json"
    arguments = sys.argv[1:] or [str(Path(__file__).parent)]
    options = [
        "-q",
        "-rs",
        "-p",
        "no:xdist",
        "--benchmark-enable",
        "--benchmark-only",
        "--benchmark-max-time=1.0",
        "--benchmark-min-rounds=5",
        "--benchmark-disable-gc",
        f"--benchmark-json={report}",
    ]
    code = int(pytest.main([*arguments, *options]))
    if not report.is_file() or not report.stat().st_size:
        return code
    rows = json.loads(report.read_text())["benchmarks"]
    table = OUT / f"{stamp}.md"
    table.write_text(markdown(rows, describe(), stamp))
    plot(rows, OUT / f"{stamp}.png")
    print(table.read_text())
    print(f"wrote {report}, {table} and {table.with_suffix('.png')}")
    return code


def groups(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by group, the fastest median first."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["group"] or "other"].append(row)
    return {name: sorted(found[name], key=lambda r: r["stats"]["median"]) for name in sorted(found)}


def markdown(rows: list[dict[str, Any]], machine: dict[str, Any], stamp: str) -> str:
    """One table per group: median, interquartile range, rounds, and the ratio to the fastest."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"# Benchmarks of {stamp}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, governor {machine['governor']}, load {machine['load']}; "
        f"Python {machine['python']}; {versions}. Command: `make bench`.",
    ]
    for name, members in groups(rows).items():
        fastest = members[0]["stats"]["median"]
        lines += [
            "",
            f"## {name}",
            "",
            "| contender | median ms | IQR ms | rounds | times the fastest |",
            "|---|---|---|---|---|",
        ]
        for row in members:
            s = row["stats"]
            lines.append(
                f"| {row['name'].removeprefix('test_')} | {1e3 * s['median']:.3f} | {1e3 * s['iqr']:.3f} | "
                f"{s['rounds']} | {s['median'] / fastest:.2f} |"
            )
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Bars of the ratio to the fastest, one panel a group."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    found = groups(rows)
    heights = [len(members) for members in found.values()]
    figure = Figure(figsize=(9, 0.9 * len(found) + 0.35 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(found), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, members) in zip(panels, found.items()):
        base = members[0]["stats"]["median"]
        labels = [row["name"].removeprefix("test_") for row in members]
        bars = axes.barh(labels, [row["stats"]["median"] / base for row in members])
        axes.bar_label(bars, [f"{1e3 * row['stats']['median']:.2f} ms" for row in members], padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.set_title(name, fontsize=9, loc="left")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    sys.exit(main())
