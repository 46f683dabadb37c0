"""Plots of an evaluation, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from ..tasks import Task
from . import metrics
from .scores import Predictions, Scores

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {"face": "#1b6ca8", "voice": "#c46210", "eda": "#2e7d32", "second": "#7b1fa2", "text": "#555555"}


def all_plots(out: Path, p: Predictions, table: dict[str, Scores], task: Task) -> None:
    """confusion, roc, reliability (pain), ccc scatter (affect), subjects, over_time, attention, robustness."""
    if "pain" in p.labels:
        confusion(out / "confusion.png", p)
        roc(out / "roc.png", p)
        reliability(out / "reliability.png", p)
    for o in ("valence", "arousal"):
        if o in p.labels:
            scatter(out / f"ccc_{o}.png", p, o)
    subjects(out / "subjects.png", table["clean"])
    over_time(out / "over_time.png", p)
    if p.attention.size:
        attention(out / "attention.png", p)
    robustness(out / "robustness.png", table, task)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def confusion(path: Path, p: Predictions) -> None:
    table = metrics.confusion(p.probability() >= 0.5, p.labels["pain"][:, -1])
    figure, ax = plt.subplots(figsize=(3.6, 3.4))
    ax.imshow(table, cmap="Blues")
    for (i, j), n in np.ndenumerate(table):
        ax.text(j, i, str(n), ha="center", va="center", color="white" if n > table.max() / 2 else "black")
    ax.set(xticks=[0, 1], yticks=[0, 1], xlabel="decision", ylabel="label", title="windows")
    ax.set_xticklabels(["no pain", "pain"])
    ax.set_yticklabels(["no pain", "pain"])
    _save(figure, path)


def roc(path: Path, p: Predictions) -> None:
    y = p.labels["pain"][:, -1]
    fpr, tpr = metrics.roc_curve(p.probability(), y)
    figure, ax = plt.subplots(figsize=(4, 3.8))
    ax.plot(fpr, tpr, label=f"AUC {metrics.auc(p.probability(), y):.3f}")
    ax.plot([0, 1], [0, 1], ":", color="grey")
    ax.set(xlabel="false positive rate", ylabel="true positive rate")
    ax.legend(loc="lower right")
    _save(figure, path)


def reliability(path: Path, p: Predictions) -> None:
    y = p.labels["pain"][:, -1]
    mean, right, count = metrics.reliability(p.probability(), y, 10)
    some = count > 0
    figure, ax = plt.subplots(figsize=(4, 3.8))
    ax.bar(mean[some], right[some], width=0.04, color="#1b6ca8", label="accuracy")
    ax.plot([0.5, 1], [0.5, 1], ":", color="grey")
    ax.set(xlabel="confidence of the decision", ylabel="accuracy", xlim=(0.5, 1.02), ylim=(0, 1.02))
    ax.set_title(f"ECE {metrics.ece(p.probability(), y):.3f}, T = {p.temperature:.2f}")
    _save(figure, path)


def scatter(path: Path, p: Predictions, output: str) -> None:
    x, y = p.labels[output][:, -1], p.outputs[output][:, -1]
    figure, ax = plt.subplots(figsize=(4, 3.8))
    ax.plot([-1, 1], [-1, 1], ":", color="grey")
    ax.scatter(x, y, s=6, alpha=0.4)
    ax.set(xlabel=f"label ({output})", ylabel="prediction", xlim=(-1, 1), ylim=(-1, 1))
    ax.set_title(f"CCC {metrics.ccc(y, x):.3f}")
    _save(figure, path)


def subjects(path: Path, s: Scores) -> None:
    shown = [m for m in ("accuracy", "ccc_valence", "ccc_arousal") if m in s.subjects]
    figure, axes = plt.subplots(len(shown), 1, figsize=(7, 2.2 * len(shown)), squeeze=False)
    for ax, m in zip(axes[:, 0], shown):
        values = s.subjects[m]
        ax.bar(range(len(values)), list(values.values()), color="#1b6ca8")
        mean, sd = s.mean_sd(m)
        ax.axhline(mean, color="black", lw=0.8)
        ax.set(ylabel=m, title=f"mean {mean:.3f}, SD {sd:.3f}")
        ax.set_xticks(range(len(values)))
        ax.set_xticklabels(list(values), rotation=90, fontsize=6)
    _save(figure, path)


def _longest(p: Predictions) -> Any:
    """Windows in time order of the recording (or, for trials, the person) with most of them."""
    names, counts = np.unique(p.recording, return_counts=True)
    if counts.max() > 1:
        at = np.flatnonzero(p.recording == names[counts.argmax()])
        return at[np.argsort(p.end[at])], "s"
    names, counts = np.unique(p.subject, return_counts=True)
    at = np.flatnonzero(p.subject == names[counts.argmax()])
    return at, "trial"


def over_time(path: Path, p: Predictions) -> None:
    at, unit = _longest(p)
    t = p.end[at] if unit == "s" else np.arange(len(at))
    figure, axes = plt.subplots(len(p.labels), 1, figsize=(8, 2.0 * len(p.labels)), squeeze=False, sharex=True)
    for ax, o in zip(axes[:, 0], p.labels):
        y = p.probability()[at] if o == "pain" else p.outputs[o][at, -1]
        ax.plot(t, p.labels[o][at, -1], color="black", lw=1, label="label")
        ax.plot(t, y, color="#c62828", lw=1, label="prediction")
        ax.set_ylabel(o)
        ax.set_ylim((-0.05, 1.05) if o == "pain" else (-1.05, 1.05))
    axes[0, 0].legend(loc="upper right", fontsize=7)
    axes[0, 0].set_title(f"{p.subject[at[0]]} {p.recording[at[0]] if unit == 's' else ''}")
    axes[-1, 0].set_xlabel(unit)
    _save(figure, path)


def attention(path: Path, p: Predictions) -> None:
    """Weight of each modality over time, as figure 4 of the JMT paper, with the label beneath."""
    at, unit = _longest(p)
    t = p.end[at] if unit == "s" else np.arange(len(at))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4), sharex=True, height_ratios=[2, 1])
    for i, m in enumerate(p.names):
        top.plot(t, p.attention[at, -1, i], label=m, color=COLOURS.get(m))
    top.set(ylabel="attention weight", ylim=(0, 1))
    top.legend(loc="upper right", fontsize=7)
    for o, y in p.labels.items():
        bottom.plot(t, y[at, -1], lw=1, label=o)
    bottom.legend(loc="upper right", fontsize=7)
    bottom.set(ylabel="label", xlabel=unit)
    _save(figure, path)


def robustness(path: Path, table: dict[str, Scores], task: Task) -> None:
    """The main score against the noise on each modality; a cross where the modality is missing."""
    metric = "accuracy" if "pain" in task.outputs else "ccc_mean"
    levels = sorted({float(k.split()[1]) for k in table if k.startswith("noise")})
    if not levels:
        return
    figure, ax = plt.subplots(figsize=(5, 3.4))
    for m in task.names:
        y = [table["clean"].pooled[metric], *(table[f"noise {level:g} on {m}"].pooled[metric] for level in levels)]
        ax.plot([0, *levels], y, "o-", label=f"noise on {m}", color=COLOURS.get(m))
        if f"without {m}" in table:
            ax.plot(levels[-1] * 1.15, table[f"without {m}"].pooled[metric], "x", ms=9, color=COLOURS.get(m))
    ax.set(xlabel="SD of the noise / SD of the features (cross: modality missing)", ylabel=metric)
    ax.legend(fontsize=7)
    _save(figure, path)
