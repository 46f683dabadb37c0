"""The build report: the same content as JSON for programs, Markdown for people, and plots where matplotlib is."""

from __future__ import annotations

import io
import json
from typing import Any


def build_report(report: dict[str, Any]) -> dict[str, bytes]:
    """File name -> content: `build.json`, `build.md`, and one `<output>.png` per output if matplotlib is there."""
    outputs = report["fidelity"].pop("outputs", {})
    files = {f"{name}.png": _scatter(name, *pair) for name, pair in outputs.items()}
    plots = {name: content for name, content in files.items() if content}
    files = {"build.json": json.dumps(report, indent=1).encode(), "build.md": _markdown(report, list(plots)).encode()}
    return files | plots


def layer_sentence(network: str, entry: dict[str, Any], note: str) -> str:
    """For example `face: 19 of 20 convolutions int8, 1 fp16; 51 layers, 35.9 MB`."""
    convolutions = entry.get("layers", {}).get("convolutions", {})
    total = sum(convolutions.values())
    parts = []
    if total:
        narrow = max(convolutions, key=lambda p: convolutions[p])
        parts.append(f"{convolutions[narrow]} of {total} convolutions {narrow}")
        parts += [f"{count} {precision}" for precision, count in convolutions.items() if precision != narrow]
    text = ", ".join(parts) or f"computes in {entry['precision']}"
    if "bytes" in entry:
        layers = entry["layers"].get("layers")
        text += f"; {'' if layers is None else f'{layers} layers, '}{entry['bytes'] / 1e6:.1f} MB"
    return f"{network}: {text}" + (f" ({note})" if note else "")


def _markdown(report: dict[str, Any], plots: list[str]) -> str:
    engine, fidelity = report["engine"], report["fidelity"]
    lines = [
        f"# Build report: {report['bundle']}",
        "",
        "Research prototype; not for clinical use.",
        "",
        f"- builder: {engine['builder']} {engine.get('library_version', '')} ({engine['why']})",
        f"- target: {engine.get('target', '')} {engine.get('device', '')}, precision {engine['precision']}",
        f"- compared with float32 on {fidelity['windows']} windows: {fidelity['origin']}",
        f"- limits {'hold' if fidelity['holds'] else 'DO NOT HOLD'}",
        "",
        "## Networks",
        "",
    ]
    for name, entry in engine["networks"].items():
        lines.append(f"- {layer_sentence(name, entry, report['networks'][name]['note'])}")
    for name, timing in engine.get("timings", {}).items():
        for runtime, row in timing.items():
            lines.append(
                f"- {name} in {runtime}: float32 {row['fp32_ms']:.2f} ms, INT8 {row['int8_ms']:.2f} ms; "
                f"{row['chosen']} chosen"
            )
    lines += [
        "",
        "## Against float32",
        "",
        "| network | cosine mean | cosine worst | relative error |",
        "|---|---|---|---|",
    ]
    for row in fidelity["networks"]:
        lines.append(
            f"| {row['network']} | {row['cosine_mean']:.6f} | {row['cosine_min']:.6f} | {row['relative_error']:.2e} |"
        )
    lines += [
        "",
        "| output | score | float32 | converted | change | 95 % interval | limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in fidelity["scores"]:
        limit = "" if row["limit"] is None else f"{row['limit']:g}"
        lines.append(
            f"| {row['output']} | {row['score']} | {row['reference']:.4f} | {row['converted']:.4f} | "
            f"{row['change']:+.4f} | {row['low']:+.4f} to {row['high']:+.4f} | {limit} |"
        )
    lines += ["", *(f"![{name}]({name})" for name in plots)]
    if not plots:
        lines.append("No plots: matplotlib is not installed (`pip install 'jmt-edge[train]'`).")
    return "\n".join(lines) + "\n"


def _scatter(name: str, exact: list[float], other: list[float]) -> bytes:
    try:
        import matplotlib
    except ImportError:
        return b""
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(exact, other, s=8)
    low, high = min([*exact, *other]), max([*exact, *other])
    axes.plot([low, high], [low, high], linewidth=0.8, color="grey")
    axes.set(xlabel=f"{name}, float32", ylabel=f"{name}, converted", title="one point a window")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
