"""The build report: JSON for programs, the same as Markdown for people, and plots if matplotlib is installed."""

from __future__ import annotations

import io
import json
from typing import Any

from ..markdown import table


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


def score_rows(fidelity: dict[str, Any], converted: str) -> list[str]:
    """A Markdown table of the scores of float32 and of the `converted` networks."""
    header = ["output", "score", "float32", converted, "change", "95 % interval", "limit"]
    rows = [
        [
            s["output"], s["score"], f"{s['reference']:.4f}", f"{s['converted']:.4f}", f"{s['change']:+.4f}",
            f"{s['low']:+.4f} to {s['high']:+.4f}", "" if s["limit"] is None else f"{s['limit']:g}",
        ]
        for s in fidelity["scores"]
    ]  # fmt: skip
    return table(header, rows)


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
    lines += [f"- left out: {what}" for what in engine.get("left_out", ())]
    if "fusion" in engine:
        why = f" (no cubin timed: {engine['no_cubin']})" if "no_cubin" in engine else ""
        lines.append(f"- the fusion is run by the {engine['fusion']}{why}")
    rows = [
        [row["network"], f"{row['cosine_mean']:.6f}", f"{row['cosine_min']:.6f}", f"{row['relative_error']:.2e}"]
        for row in fidelity["networks"]
    ]
    lines += ["", "## Against float32", ""]
    lines += table(["network", "cosine mean", "cosine worst", "relative error"], rows)
    lines += ["", *score_rows(fidelity, "converted")]
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
