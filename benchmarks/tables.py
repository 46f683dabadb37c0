"""Makes the tables of the pages in PAGES from the committed JSON.

`python -m benchmarks.tables [--check]`: text between `<!-- begin NAME -->` and `<!-- end NAME -->` is generated.
`--check` writes nothing and exits 1 if a page differs from what `benchmarks/results/*.json` gives.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.__main__ import group_tables, groups, stamp_line
from benchmarks.common import RESULTS, ROOT
from jmt_edge.tasks import TASK_NAMES

PAGES = (
    ROOT / "docs" / "reference" / "performance.md", ROOT / "docs" / "explanation" / "evaluation.md",
    ROOT / "docs" / "reference" / "mqtt.md", ROOT / "benchmarks" / "NOTES.md",
)  # fmt: skip


def read(name: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return report


def render(text: str, folder: Path) -> str:
    """The page in `folder` with every table updated. Raises KeyError for a marker without a table."""

    def made(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- begin {name} -->\n" + "\n".join(block(name, folder)).strip("\n") + f"\n<!-- end {name} -->"

    return re.sub(r"<!-- begin (\S+) -->\n.*?<!-- end \1 -->", made, text, flags=re.S)


def bench() -> list[str]:
    """Every stage of the three demo bundles."""
    lines = []
    for task in TASK_NAMES:
        report = read(f"bench-{task}")
        command = f"jmt-edge bench --task {task} --duration {report['duration']:g} --json bench-{task}.json"
        live, others = report["end_to_end"], report["other_cores_busy"]
        lines += [
            "", f"**{report['bundle']}**, {report['backend']}, batch {report['batch']}, {report['threads']} threads. "
            + stamp_line({**report, "command": command}), "",
            "| stage | p50 ms | p90 | p95 | p99 | max | per second |", "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for name, row in {**report["stages"], "end to end": live}.items():
            values = " | ".join(f"{row[key]:.2f}" for key in ("p50", "p90", "p95", "p99", "max"))
            rate = f"{row['per_second']:.0f}" if "per_second" in row else ""
            lines.append(f"| {name} | {values} | {rate} |")
        first = report["first_result_s"]
        lines += [
            "", f"{live['real_time_factor']:.1f} x real time; {report['streams']} streams at a hop of "
            f"{report['hop']:g} s by computing time alone; {report['cpu_cores_busy']:.2f} cores busy; peak RSS "
            f"{report['peak_rss_mb']:.0f} MB; first result {first:.1f} s after process start; "
            f"other programs kept {others:.2f} cores busy. "
            f"Flagged: {'; '.join(report['noise']['noisy']) or 'nothing'}.",
        ]  # fmt: skip
    return lines


def suite() -> list[str]:
    """Every group of `make bench`."""
    report = read("suite")
    skipped = sorted(report["skipped"].items())
    return [
        stamp_line(report), f"The whole suite took {report['seconds']:.0f} s.", *group_tables(report),
        *(["", "Skipped there:", "", *(f"- `{name}`: {reason}" for name, reason in skipped)] if skipped else []),
    ]  # fmt: skip


# what: group, slower side, faster side, what the project promises
RATIOS = {
    "fusion, S = 16: published module in eager PyTorch, which computes all steps, over the default": (
        "fusion", "published_eager", "product[onnxruntime]", "at least 4"),
    "fusion: published module over OpenVINO": ("fusion", "published_eager", "product[openvino]", ""),
    "fusion: published module over ours in eager PyTorch": ("fusion", "published_eager", "ours_eager[all_steps]", ""),
    "fusion: published module compiled over the default": ("fusion", "published_compiled", "product[onnxruntime]", ""),
    "live, demo width: naive loop over clip cache": (
        "live: networks of one hop, affect, S = 16, demo", "naive_loop[demo]", "clip_cache[demo]", ""),
    "live, full width: naive loop over clip cache": (
        "live: networks of one hop, affect, S = 16, full", "naive_loop[full]", "clip_cache[full]", ""),
    "training: epoch that runs the backbones over one on cached features": (
        "training: one epoch", "recomputed", "cached", "at least 50"),
    "mel spectrogram: librosa over ours": ("preprocessing: mel", "librosa", "ours", ""),
    "mel spectrogram: torch.stft over ours": ("preprocessing: mel", "torch_stft", "ours", ""),
    "face in 640x480: MTCNN in PyTorch over ours on the whole frame": (
        "preprocessing: face", "mtcnn_in_pytorch", "whole_frame", ""),
}  # fmt: skip


def ratios() -> list[str]:
    """The comparisons that matter; both sides from one run."""
    found = groups(read("suite")["benchmarks"])
    lines = ["| comparison | times | promised |", "|---|---|---|"]
    for what, (group, slow, fast, promise) in RATIOS.items():
        rows = {row["name"]: row for row in next(rows for name, rows in found.items() if name.startswith(group))}
        if slow not in rows or fast not in rows:
            lines.append(f"| {what} | not measured | {promise} |")
            continue
        lines.append(f"| {what} | {rows[slow]['stats']['median'] / rows[fast]['stats']['median']:.1f} | {promise} |")
        if "clips" in rows[slow]["extra_info"]:
            clips = rows[slow]["extra_info"]["clips"] / rows[fast]["extra_info"]["clips"]
            lines.append(f"| the same, clips through the backbones | {clips:.1f} | at least 8 |")
    return lines


def regression() -> list[str]:
    """False alarms of `bench --compare`, and slower stages found."""
    rows, stamps = [], []
    for name, what in (
        ("no-false-regression", "as it was"),
        ("no-false-regression-busy", "with another program on half a core"),
    ):
        if not (RESULTS / f"{name}.json").is_file():
            continue
        report = read(name)
        found = [stage for stage in report["slowed_by_25_percent"] if stage not in report["missed"]]
        busy = [share for t in report["tries"] for share in t["others_busy"] if share is not None]
        rows.append(
            f"| {what} | {len(report['tries'])} | {report['false_alarms']} | {', '.join(found) or '-'} | "
            f"{', '.join(report['missed']) or '-'} | {sum(busy) / len(busy):.2f} | `{report['command']}` |"
        )
        stamps.append(stamp_line(report))
    return [
        *dict.fromkeys(stamps), "",
        "| second run | tries | false alarms at 10 % | a quarter slower: found | missed | cores busy with others | "
        "command |",
        "|---|---|---|---|---|---|---|", *rows,
    ]  # fmt: skip


def predictions() -> list[str]:
    """PREDICTED milliseconds of one hop's networks, full size."""
    report = read("predictions")
    lines = [
        "**Predictions by roofline, not measurements.** " + stamp_line(report), "",
        "| device | task | predicted ms, fp16 | share of a 500 ms hop | predicted ms, int8 backbones | GFLOP |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    by = {(r["target"], r["task"], r["precision"]["face"]): r for r in report["rows"]}
    for target, task in dict.fromkeys((r["target"], r["task"]) for r in report["rows"]):
        half, eight = by[target, task, "fp16"], by[target, task, "int8"]
        lines.append(
            f"| {half['device']} | {task} | {half['total_ms']:.2f} | {100 * half['share_of_hop']:.1f} % | "
            f"{eight['total_ms']:.2f} | {half['gflop']:.1f} |"
        )
    return lines


def here() -> list[str]:
    """The same prediction for the machine, with its measurement."""
    report = read("here")
    lines = ["| task | network | predicted ms | measured ms | predicted / measured |", "|---|---|---|---|---|"]
    for task, found in report["here"].items():
        for name, row in {**found["networks"], "one hop": found}.items():
            ms = row.get("ms", row.get("total_ms"))
            ratio = row["predicted_to_measured"]
            lines.append(f"| {task} | {name} | {ms:.2f} | {row['measured_ms']:.2f} | {ratio:.2f} |")
    figures = next(iter(report["here"].values()))["figures"]
    return [
        stamp_line(report),
        f"Figures measured for it: {figures['peak']['fp32'] / 1e9:.0f} GFLOP/s, {figures['bandwidth'] / 1e9:.1f} GB/s, "
        f"{figures['launch'] * 1e6:.1f} µs an operator (fp32, onnxruntime, all cores).", "", *lines,
    ]  # fmt: skip


def cost() -> list[str]:
    """Latency and memory against S, B, M and resolution."""
    report = read("cost")["sweeps"]
    lines = [stamp_line(report)]
    for name, points in report["points"].items():
        keys = [key for key in ("M", "B", "S", "size") if key in points[0]]
        lines += ["", f"**{name}**", "", f"| {' | '.join(keys)} | median ms | IQR | memory added, MB |",
                  "|" + "---|" * (len(keys) + 3)]  # fmt: skip
        for p in points:
            lines.append(
                f"| {' | '.join(str(p[key]) for key in keys)} | {p['ms']:.2f} | {p['iqr_ms']:.2f} | {p['mb']:.0f} |"
            )
    return lines


def length() -> list[str]:
    """The long run."""
    report = read("cost")["length"]
    first, last = report["minutes"][0], report["minutes"][-1]
    return [
        stamp_line(report),
        f"{report['hours']:g} h of signal of {report['bundle']} (camera `{report['camera']}`, hop {report['hop']:g} s) "
        f"in {report['seconds']:.0f} s: {report['results']} results, {report['with_outputs']} with numbers. "
        f"Median of the last third over that of the second third: latency {report['flat']['p50']:.3f}, resident memory "
        f"{report['flat']['rss_mb']:.3f} (minute 1: {first['rss_mb']:.0f} MB; minute {last['minute']}: "
        f"{last['rss_mb']:.0f} MB).",
    ]  # fmt: skip


class Table(NamedTuple):
    """One block of a page: its data, the command that makes them, and the picture below it (caption, file)."""

    make: Callable[[], list[str]]
    files: tuple[str, ...]
    command: str
    picture: tuple[str, str] | None = None


def published_defects() -> list[str]:
    """What each defect of the published evaluation is worth."""
    report = read("published-defects")
    lines = [
        f"JMT (`{report['recipe']['name']}`), {report['windows']} windows of {report['people']} simulated people, "
        f"{report['folds']} folds, mean of {report['seeds']} seeds of the fusion. {stamp_line(report)} It took "
        f"{report['seconds'] / 60:.0f} minutes. {report.get('note', '')}".rstrip(), "",
        "| evaluation | accuracy | 95 % by person | above sound | 95 % by person |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for row in report["rows"]:
        low, high = row["interval95"]
        least, most = row["difference_interval95"]
        gain = f"{row['difference']:+.3f} | {least:+.3f} to {most:+.3f}" if row["row"] != "sound" else "| "
        lines.append(f"| {row['row']} | {row['accuracy']:.3f} | {low:.3f} to {high:.3f} | {gain} |")
    return lines


def beds() -> list[str]:
    """Many beds, a broker that is killed, a station."""
    report = read("2026-11-27-beds")
    sent, heard, delay = report["sent"], report["heard"], report["delay_ms_of_those_in_time"]
    cpu, memory, page = report["cpu_share_of_one_core"], report["memory_mb"], report["page_ms"]
    away = " and ".join(f"{seconds:g} s" for seconds in report["broker_away_s"])
    delays = ", ".join(f"{delay[name]:.0f}" for name in ("p50", "p95", "p99", "max"))
    rows = [
        ("beds; minutes; hop", f"{report['beds']}; {report['minutes']:g}; {report['hop_s']:g} s"),
        ("broker away", away),
        ("priority of all processes (nice)", f"{report['niceness']}, on a machine that others kept busy"),
        ("results sent; arrived", f"{sent['results']}; {heard['results']}"),
        ("alarm changes sent; arrived", f"{sent['edges']}; {heard['edges']}"),
        ("missing; passed on twice", f"{heard['missing'] + heard['gone'] + heard['holes']}; {heard['twice']}"),
        ("marked late", f"{heard['late']}"),
        ("repeats that the station dropped", f"{heard['repeats_dropped']}"),
        ("delay of the others, ms: p50, p95, p99, most", delays),
        ("processor, share of one core: station, broker, all beds",
         ", ".join(f"{cpu[name]:.2f}" for name in ("station", "broker", "beds"))),
        ("memory, MB: station, a process of 25 beds", f"{memory['station']:.0f}, {memory['25 beds']:.0f}"),
        ("the page's data, ms: p50, most", f"{page['p50']:.0f}, {page['max']:.0f}"),
    ]  # fmt: skip
    return [stamp_line(report), "", "| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)]


TABLES = {
    "beds": Table(beds, ("2026-11-27-beds",), "python -m benchmarks.beds --json FILE"),
    "published-defects": Table(published_defects, ("published-defects",), "python -m benchmarks.published_defects"),
    "bench": Table(bench, tuple(f"bench-{task}" for task in TASK_NAMES), "python -m benchmarks.reports bench"),
    "suite": Table(
        suite, ("suite",), "python -m benchmarks --keep",
        ("Times the fastest of each group", "benchmarks/results/suite.png"),
    ),
    "ratios": Table(ratios, ("suite",), "python -m benchmarks --keep"),
    "regression": Table(
        regression, ("no-false-regression",),
        "python -m benchmarks.no_false_regression --json benchmarks/results/no-false-regression.json",
    ),
    "predictions": Table(
        predictions, ("predictions",), "python -m benchmarks.reports predictions",
        ("Roofline of the affect networks on an Orin Nano, predicted", "docs/images/performance-roofline.png"),
    ),
    "here": Table(here, ("here",), "python -m benchmarks.reports here"),
    "cost": Table(
        cost, ("cost",), "python -m benchmarks.cost",
        ("Latency and memory against S, B, M and resolution", "docs/images/performance-cost.png"),
    ),
    "length": Table(
        length, ("cost",), "python -m benchmarks.cost",
        ("Latency and memory over an hour of signal", "docs/images/performance-run-length.png"),
    ),
}  # fmt: skip


def block(name: str, folder: Path) -> list[str]:
    """The table and its picture, linked from a page in `folder`; or a note that it was not measured yet."""
    table = TABLES[name]
    if not all((RESULTS / f"{file}.json").is_file() for file in table.files):
        return [f"Not measured yet: `{table.command}`, then `python -m benchmarks.tables`."]
    lines = table.make()
    if table.picture:
        caption, file = table.picture
        lines += ["", f"![{caption}]({os.path.relpath(ROOT / file, folder)})"]
    return lines


def main() -> None:
    for page in PAGES:
        text = page.read_text()
        made = render(text, page.parent)
        if "--check" not in sys.argv:
            page.write_text(made)
        elif made != text:
            sys.exit(f"{page} differs from {RESULTS}; run `python -m benchmarks.tables`")


if __name__ == "__main__":
    main()
