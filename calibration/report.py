"""The report of a quantisation as JSON and Markdown, with a plot if matplotlib is installed."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from typing import Any

from ..compiler.report import score_rows
from ..markdown import table


def quantisation_report(report: dict[str, Any]) -> dict[str, bytes]:
    """File name -> content: `calibration.json`, `calibration.md`, and `sensitivity.png` if matplotlib is installed."""
    for name in ("fidelity", "fidelity_all_int8"):
        report[name].pop("outputs", None)
    plot = _sensitivity(report["networks"])
    files = {
        "calibration.json": json.dumps(report, indent=1).encode(),
        "calibration.md": _markdown(report, bool(plot)).encode(),
    }
    return files | ({"sensitivity.png": plot} if plot else {})


def kept_sentence(network: dict[str, Any]) -> str:
    """For example `FP16 by rule: 1 stem, 11 small; 2 given back`."""
    counts = Counter(re.split("[:,]", why)[0] for why in network["by_rule"].values())
    parts = [f"FP16 by rule: {', '.join(f'{count} {what}' for what, count in counts.items())}"] if counts else []
    returned = len(network["given_back"])
    return "; ".join([*parts, *([f"{returned} given back"] if returned else [])])


def _markdown(report: dict[str, Any], plot: bool) -> str:
    windows = report["windows"]
    lines = [
        f"# INT8 quantisation: {report['bundle']}",
        "",
        "Research prototype; not for clinical use.",
        "",
        f"Windows: {windows['origin']}; ranges from {windows['ranges']}, scores from the other {windows['scores']}; "
        f"seed {report['seed']}.",
        "",
        "## Scores, everything that may be INT8",
        "",
        *score_rows(report["fidelity_all_int8"], "INT8"),
        "",
        "## Scores as shipped",
        "",
        *score_rows(report["fidelity"], "INT8"),
    ]
    for name, network in report["networks"].items():
        lines += ["", f"## {name}", ""]
        lines.append(f"{len(network['int8'])} layers INT8, {len(network['fp16'])} not; ranges by {network['method']}.")
        methods = [[method, f"{value:.1f}"] for method, value in network["sqnr_by_method"].items()]
        known = {layer: math.inf if value is None else value for layer, value in network["sensitivity"].items()}
        rows = [
            [layer, f"{value:.1f}" if math.isfinite(value) else "no change",
             "FP16" if layer in network["given_back"] else "INT8"]
            for layer, value in sorted(known.items(), key=lambda item: item[1])
        ]  # fmt: skip
        rows += [[layer, "", f"FP16 ({why})"] for layer, why in network["by_rule"].items()]
        lines += ["", *table(["method", "SQNR of the outputs, dB"], methods)]
        lines += ["", *table(["layer alone in INT8", "SQNR, dB", "as shipped"], rows)]
    if plot:
        lines += ["", "![Sensitivity of each layer](sensitivity.png)"]
    return "\n".join(lines) + "\n"


def _sensitivity(networks: dict[str, Any]) -> bytes:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return b""
    figure = Figure(figsize=(8, 3 * len(networks)), layout="constrained")
    for axes, (name, network) in zip(figure.subplots(len(networks), squeeze=False)[:, 0], networks.items()):
        _bars(axes, list(network["sensitivity"].values()))
        axes.set(title=f"{name}: one layer in INT8 at a time", xlabel="layer, in graph order", ylabel="SQNR, dB")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _bars(axes: Any, values: list[float | None]) -> None:
    """A bar a layer; None, equal outputs, is a mark without a bar, because no number of dB says so."""
    known = {i: value for i, value in enumerate(values) if value is not None}
    same = [i for i, value in enumerate(values) if value is None]
    axes.bar(list(known), list(known.values()), color="0.4")
    axes.set_xlim(-0.8, len(values) - 0.2)
    if same:
        top = max(known.values(), default=1.0)
        axes.plot(same, [top] * len(same), "^", color="black", mfc="white", label="no change of the outputs")
        axes.legend(fontsize=8, frameon=False)
