"""The build report: JSON for programs, the same as Markdown for people, and plots if matplotlib is installed."""

from __future__ import annotations

import io
import json
from typing import Any


def build_report(report: dict[str, Any]) -> dict[str, bytes]:
    """File name -> content: `build.json`, `build.md`, and one `<output>.png` per output if matplotlib is installed."""
    outputs = report["fidelity"].pop("outputs", {})
    files = {f"{name}.png": _scatter(name, *pair) for name, pair in outputs.items()}
    plots = {name: content for name, content in files.items() if content}
    files = {"build.json": json.dumps(report, indent=1).encode(), "build.md": _markdown(report, list(plots)).encode()}
    return files | plots


def layer_sentence(network: str, entry: dict[str, Any], note: str) -> str:
    """For example `face: 24 of 37 convolutions int8, 13 fp16; 60 layers, 35.9 MB`; for a fusion, also whether TensorRT
    has fused its attention.
    """
    layers = entry.get("layers", {})
    parts: list[str] = []
    for kind in ("convolutions", "products"):
        counts = layers.get(kind, {})
        if counts and not (kind == "products" and parts):
            narrow = max(counts, key=lambda p: (p == "int8", counts[p]))
            noun = "convolutions" if kind == "convolutions" else "matrix products"
            parts.append(f"{counts[narrow]} of {sum(counts.values())} {noun} {narrow}")
            parts += [f"{count} {precision}" for precision, count in counts.items() if precision != narrow]
    text = ", ".join(parts) or f"computes in {entry['precision']}"
    if "bytes" in entry:
        count = layers.get("layers")
        text += f"; {'' if count is None else f'{count} layers, '}{entry['bytes'] / 1e6:.1f} MB"
    if network == "fusion" and "fused_attention" in layers:
        fused = layers["fused_attention"]
        text += f"; attention {f'fused in {fused} layers' if fused else 'not fused'} by TensorRT"
    return f"{network}: {text}" + (f" ({note})" if note else "")


def timing_lines(timings: dict[str, Any]) -> list[str]:
    """What `auto` timed, one Markdown item per network and runtime."""
    lines = []
    for runtime, of in timings.items():
        for name, row in of.items():
            times = ", ".join(f"{way} {ms:.2f} ms" for way, ms in row["ms"].items())
            lines.append(f"- {name} in {runtime}: {times}; {row['chosen']} chosen")
    return lines


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
    lines += timing_lines(engine.get("timings", {}))
    if "fusion" in engine:
        why = f" (no cubin timed: {engine['no_cubin']})" if "no_cubin" in engine else ""
        lines.append(f"- the fusion is run by the {engine['fusion']}{why}")
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
        from matplotlib.figure import Figure
    except ImportError:
        return b""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(exact, other, s=8)
    low, high = min([*exact, *other]), max([*exact, *other])
    axes.plot([low, high], [low, high], linewidth=0.8, color="grey")
    axes.set(xlabel=f"{name}, float32", ylabel=f"{name}, converted", title="one point per window")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
