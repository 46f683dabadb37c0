"""A picture of what `inspect` found: each file's signal over time, and where it cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, InstallError
from .inspection import Inspection

_BINS = 1500  # across the width: more points than pixels tell nothing
_SIGNAL, _GAP, _BAD = "#1b6ca8", "#999999", ("#d62728", "#ff7f0e", "#9467bd", "#8c564b")
_WIDTH, _HEIGHT, _REFUSED = 10.0, 2.6, 0.8  # inches, of one file


def plot_inspections(found: Sequence[Inspection], path: Path) -> None:
    """Write a PNG, PDF or SVG with a panel a file. Raises InstallError without Matplotlib, ConfigError where `path`
    cannot be written or has another ending."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InstallError("--plot needs Matplotlib; run `pip install 'jmt-edge[formats]'`, or leave it out") from None
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"--plot {path} has no known ending; give a .png, .pdf or .svg")
    heights = [_HEIGHT if one.trace is not None else _REFUSED for one in found]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    panels = figure.subplots(len(found), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for one, axes in zip(found, np.ravel(panels)):
        _panel(axes, one)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}); choose another --plot") from None


def _panel(axes: Any, found: Inspection) -> None:
    name = Path(found.file.partition("?")[0]).name
    if found.error or found.trace is None:
        axes.text(0.5, 0.5, _wrapped(f"{name} is refused: {found.error}"), ha="center", va="center", fontsize=9)
        axes.set_axis_off()
        return
    trace = found.trace
    low, high, edges = _envelope(trace.times, trace.values)
    axes.fill_between(edges, low, high, step="post", color=_SIGNAL, lw=0.8, ec=_SIGNAL)
    axes.set_xlim(0, max(found.seconds, 1e-3))
    for stretch in found.gaps:
        axes.axvspan(stretch.start, stretch.end, color=_GAP, lw=0, label="no data", zorder=3)
    reasons = list(dict.fromkeys(stretch.what for stretch in found.unusable))
    for stretch in found.unusable:
        colour = _BAD[reasons.index(stretch.what) % len(_BAD)]
        axes.axvspan(stretch.start, stretch.end, color=colour, alpha=0.25, lw=0, label=f"not used: {stretch.what}")
    about = [found.what, f"{found.rate:.4g} Hz", f"{found.seconds:.1f} s"]
    if found.unit == "µS":
        about.append(f"{found.usable:.0%} of the windows usable")
    if found.lost or found.altered:
        about.append(f"{found.lost} lost, {found.altered} moved in time")
    axes.set_title(f"{name}: {', '.join(about)}", fontsize=9, loc="left")
    axes.set_xlabel("s", fontsize=8)
    axes.set_ylabel(trace.label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    if trace.from_zero:
        axes.set_ylim(0, 1.1 * float(np.nanmax(trace.values)))
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles))
    if once:
        axes.legend(once.values(), once.keys(), fontsize=7, loc="lower right")


def _envelope(times: Any, values: Any) -> tuple[Any, Any, Any]:
    """(lowest, highest, start) of each of at most `_BINS` even stretches of time; NaN where there is no value."""
    bins = min(_BINS, len(times))
    edges = np.linspace(times[0], times[-1], bins + 1)
    at = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, bins - 1)
    low, high = np.full(bins, np.inf), np.full(bins, -np.inf)
    good = np.isfinite(values)
    np.minimum.at(low, at[good], values[good])
    np.maximum.at(high, at[good], values[good])
    low[np.isinf(low)] = high[np.isinf(high)] = np.nan
    return low, high, edges[:-1]


def _wrapped(text: str, width: int = 110) -> str:
    words, lines = text.split(), [""]
    for word in words:
        lines = [*lines, word] if len(lines[-1]) + len(word) > width else [*lines[:-1], f"{lines[-1]} {word}".strip()]
    return "\n".join(lines)
