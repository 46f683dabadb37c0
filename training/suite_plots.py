"""Plots of the ablation suite, drawn without a display."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from .evaluation import NOISE_LEVELS
from .plots import COLOURS, LABELS, save
from .scores import Scores
from .suite_findings import Findings

mpl.use("Agg")
from matplotlib import pyplot as plt

MARKERS = "osD^vP*X<>ph"
# of the fusions: none is taken for the colour of a modality alone
FUSED = ("#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#000000", "#7f7f7f", "#f2a900")
TITLES = {"eda": "EDA"}


def all_plots(out: Path, found: Findings, metric: str, names: dict[str, str]) -> None:
    """systems_, noise_ and, with several shares of the subjects, data_<metric>.png. names: of the systems, as shown."""
    styles = _styles(found, metric, names)
    _systems(out / f"systems_{metric}.png", found, metric, names)
    _noise(out / f"noise_{metric}.png", found, metric, styles)
    if len(found.results) > 1:
        _data(out / f"data_{metric}.png", found, metric, styles)


def _styles(found: Findings, metric: str, names: dict[str, str]) -> dict[str, dict[str, Any]]:
    """One colour and marker a system, the same in all plots; single modalities are dashed in their own colour."""
    colours = itertools.cycle(FUSED)
    styles: dict[str, dict[str, Any]] = {}
    for number, s in enumerate(found.order(metric)):
        alone = found.systems[s].fusion == "unimodal"
        styles[s] = {
            "color": COLOURS.get(s, "grey") if alone else next(colours),
            "linestyle": "--" if alone else "-", "marker": MARKERS[number % len(MARKERS)], "ms": 4, "lw": 1.2,
            "label": names[s],
        }  # fmt: skip
    return styles


def _systems(path: Path, found: Findings, metric: str, names: dict[str, str]) -> None:
    """Points with intervals: bars from zero would hide what differs."""
    order = found.order(metric)[::-1]
    figure, ax = plt.subplots(figsize=(6.4, 0.36 * len(order) + 1.1), layout="constrained")
    for y, s in enumerate(order):
        clean = found.full[s]["clean"]
        colour = COLOURS.get(s, "#1b6ca8") if found.systems[s].fusion == "unimodal" else "#333333"
        ax.plot(found.interval[metric][s], [y, y], color=colour, lw=1.5)
        ax.plot(clean.pooled[metric], y, "o", color=colour, ms=6)
    if metric == "balanced_accuracy":
        ax.axvline(0.5, color="grey", lw=0.8, ls=":")
    ax.set_yticks(range(len(order)), [names[s] for s in order])
    ax.set_xlabel(f"{LABELS[metric]}, 95 % by subject")
    ax.grid(axis="x", alpha=0.3)
    save(figure, path)


def _noise(path: Path, found: Findings, metric: str, styles: dict[str, dict[str, Any]]) -> None:
    """One panel a modality: noise from 0 up, and at the right the modality missing."""
    full, order = found.full, found.order(metric)
    modalities = sorted({c.split(" on ")[1] for s in order for c in full[s] if c.startswith("noise")})
    if not modalities:
        return
    figure, axes = plt.subplots(
        1, len(modalities), figsize=(4.0 * len(modalities), 3.4), squeeze=False, sharey=True, layout="constrained"
    )
    levels = (0.0, *NOISE_LEVELS)
    missing = len(levels) + 0.2
    for ax, m in zip(axes[0], modalities):
        for number, s in enumerate(order):
            if f"noise {levels[1]:g} on {m}" not in full[s]:
                continue
            shown = [full[s]["clean" if not v else f"noise {v:g} on {m}"] for v in levels]
            shift = 0.3 * (number / max(1, len(order) - 1) - 0.5)
            _with_intervals(ax, [x + shift for x in range(len(levels))], shown, metric, styles[s])
            if f"without {m}" in full[s]:
                style = {**styles[s], "linestyle": "none", "ms": 6, "label": None}
                x = missing + 0.9 * (number / max(1, len(order) - 1) - 0.5)  # side by side: equal scores would hide
                _with_intervals(ax, [x], [full[s][f"without {m}"]], metric, style)
        ax.axvline(len(levels) - 0.5, color="grey", lw=0.6)
        ax.set_xticks([*range(len(levels)), missing], [*(f"{v:g}" for v in levels), "missing"])
        ax.set(title=TITLES.get(m, m), xlabel="noise (SD of the features)")
        ax.grid(axis="y", alpha=0.3)
    axes[0][0].set_ylabel(LABELS[metric])
    handles = {h.get_label(): h for ax in axes[0] for h in ax.get_lines() if not str(h.get_label()).startswith("_")}
    figure.legend(list(handles.values()), list(handles), loc="outside right upper", fontsize=8, frameon=False)
    save(figure, path)


def _with_intervals(ax: Any, x: Sequence[float], scores: Sequence[Scores], metric: str, style: dict[str, Any]) -> None:
    """A line of scores, each with its 95 % interval by subject."""
    for at, s in zip(x, scores):
        if metric in s.interval:
            ax.vlines(at, *s.interval[metric], color=style["color"], lw=0.7, alpha=0.7)
    ax.plot(x, [s.pooled[metric] for s in scores], **style)


def _data(path: Path, found: Findings, metric: str, styles: dict[str, dict[str, Any]]) -> None:
    shares = sorted(found.results, key=float)
    figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for number, s in enumerate(found.order(metric)):
        shift = 1.6 * (number / max(1, len(styles) - 1) - 0.5)  # %
        clean = [found.results[f][s]["clean"] for f in shares]
        _with_intervals(ax, [100 * float(f) + shift for f in shares], clean, metric, styles[s])
    ax.set_xticks([100 * float(f) for f in shares])
    ax.set(xlabel="share of the training subjects (%)", ylabel=LABELS[metric])
    ax.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    save(figure, path)
