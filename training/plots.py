"""Plots of an evaluation, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..tasks import Task
from .scores import Predictions, Scores

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

LABELS = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "ccc_mean": "mean CCC",
    "ccc_valence": "CCC of valence", "ccc_arousal": "CCC of arousal",
}  # fmt: skip
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


def save(figure: Any, path: Path) -> None:
    """Write the figure and close it."""
    figure.savefig(path, dpi=110)
    plt.close(figure)


def confusion(path: Path, p: Predictions) -> None:
    table = metrics.confusion(p.probability() >= 0.5, p.labels["pain"][:, -1])
    figure, ax = plt.subplots(figsize=(3.6, 3.4), layout="tight")
    ax.imshow(table, cmap="Blues", vmin=0)
    for (i, j), n in np.ndenumerate(table):
        ax.text(j, i, str(n), ha="center", va="center", color="white" if n > table.max() / 2 else "black")
    ax.set(xticks=[0, 1], yticks=[0, 1], xlabel="decision", ylabel="label", title="windows")
    ax.set_xticklabels(["no pain", "pain"])
    ax.set_yticklabels(["no pain", "pain"])
    save(figure, path)


def roc(path: Path, p: Predictions) -> None:
    y = p.labels["pain"][:, -1]
    fpr, tpr = metrics.roc_curve(p.probability(), y)
    figure, ax = plt.subplots(figsize=(4, 3.8), layout="tight")
    ax.plot(fpr, tpr, label=f"AUC {metrics.auc(p.probability(), y):.3f}")
    ax.plot([0, 1], [0, 1], ":", color="grey")
    ax.set(xlabel="false positive rate", ylabel="true positive rate")
    ax.legend(loc="lower right")
    save(figure, path)


def reliability(path: Path, p: Predictions) -> None:
    """Accuracy against confidence in ten bins, the area of a point by its windows; below the diagonal the network is
    overconfident.
    """
    y = p.labels["pain"][:, -1]
    mean, right, count = metrics.reliability(p.probability(), y, 10)
    some = count > 0
    figure, ax = plt.subplots(figsize=(4.4, 4), layout="tight")
    ax.plot([0.5, 1], [0.5, 1], ":", color="grey")
    ax.plot(mean[some], right[some], color="#1b6ca8", lw=0.8)
    ax.scatter(mean[some], right[some], s=10 + 200 * count[some] / count.max(), color="#1b6ca8", alpha=0.8)
    for x, v, n in zip(mean[some], right[some], count[some]):
        ax.annotate(str(n), (x, v), textcoords="offset points", xytext=(0, 9), ha="center", fontsize=7)
    low = min(0.45, float(right[some].min()) - 0.08)
    ax.set(xlabel="confidence of the decision", ylabel="share that is right", xlim=(0.48, 1.02), ylim=(low, 1.06))
    scaled = "" if p.temperature == 1 else f", T = {p.temperature:.2f}"  # folds are joined at their own temperatures
    ax.set_title(f"ECE {metrics.ece(p.probability(), y):.3f}{scaled}, windows at the points", fontsize=9)
    save(figure, path)


def scatter(path: Path, p: Predictions, output: str) -> None:
    x, y = p.labels[output][:, -1], p.outputs[output][:, -1]
    figure, ax = plt.subplots(figsize=(4, 3.8), layout="tight")
    ax.plot([-1, 1], [-1, 1], ":", color="grey")
    ax.scatter(x, y, s=8, alpha=0.4, lw=0, color="#1b6ca8")
    ax.set(xlabel=f"label ({output})", ylabel="prediction", xlim=(-1, 1), ylim=(-1, 1))
    ax.set_title(f"{output}: CCC {metrics.ccc(y, x):.3f} (windows, not smoothed)", fontsize=10)
    save(figure, path)


def subjects(path: Path, s: Scores) -> None:
    """One bar per person, worst first, and the mean over people."""
    shown = [m for m in ("accuracy", "ccc_valence", "ccc_arousal") if s.subjects.get(m)]
    if not shown:
        return
    most = max(len(s.subjects[m]) for m in shown)
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(max(4.0, 0.22 * most + 1.5), 2.5 * len(shown)), squeeze=False, layout="constrained"
    )
    for ax, m in zip(axes[:, 0], shown):
        values = dict(sorted(s.subjects[m].items(), key=lambda item: item[1]))
        ax.bar(range(len(values)), list(values.values()), width=0.7, color="#1b6ca8")
        mean, sd = s.mean_sd(m)
        ax.axhline(mean, color="black", lw=0.8)
        ax.axhline(0.5 if m == "accuracy" else 0.0, color="grey", lw=0.8, ls=":")
        ax.set_title(f"{LABELS[m]}: mean {mean:.3f}, SD {sd:.3f}", fontsize=10)
        ax.set_ylim((0, 1.02) if m == "accuracy" else (min(-0.1, min(values.values()) - 0.05), 1.02))
        ax.set_xlim(-0.8, max(len(values), 5) - 0.2)
        ax.set_xticks(range(len(values)), list(values), rotation=90, fontsize=6)
    save(figure, path)


def _longest(p: Predictions) -> tuple[NDArray[np.int64], str]:
    """Windows in time order of the trial with most of them, or of the person with most trials of one window."""
    names, counts = np.unique(p.trial, return_counts=True)
    if counts.max() > 1:
        at = np.flatnonzero(p.trial == names[counts.argmax()])
        return at[np.argsort(p.end[at])], "time (s)"
    names, counts = np.unique(p.subject, return_counts=True)
    at = np.flatnonzero(p.subject == names[counts.argmax()])
    return at, "trial, in the order of the data"


def _who(p: Predictions, at: NDArray[np.int64]) -> str:
    """The trial, or the person whose trials follow one another."""
    same = len(set(p.trial[at].tolist())) == 1
    return str(p.trial[at[0]] if same else f"{p.subject[at[0]]}, {len(at)} trials")


def over_time(path: Path, p: Predictions) -> None:
    """Label and prediction of each output over the longest trial, or over one person's trials."""
    figure, axes = plt.subplots(
        len(p.labels), 1, figsize=(8, 1.9 * len(p.labels) + 0.6), squeeze=False, sharex=True, layout="constrained"
    )
    _follow(figure, p, axes[:, 0], 4)
    save(figure, path)


def attention(path: Path, p: Predictions) -> None:
    """Weight of each modality over time, as in figure 4 of the JMT paper, above label and prediction.

    The weights of the present modalities sum to 1 (`JMT._modality_weights`).
    """
    at, axis = _longest(p)
    trials = axis.startswith("trial")
    figure, axes = plt.subplots(
        1 + len(p.labels), 1, figsize=(8, 2.4 + 1.3 * len(p.labels)), sharex=True, layout="constrained",
        height_ratios=[1.8, *[1.0] * len(p.labels)],
    )  # fmt: skip
    t = np.arange(len(at)) if trials else p.end[at]
    for i, m in enumerate(p.names):
        axes[0].plot(t, p.attention[at, -1, i], "o-" if trials else "-", ms=3, lw=1.2, label=m, color=COLOURS.get(m))
    axes[0].set(ylabel="attention weight", ylim=(-0.02, 1.02))
    _follow(figure, p, axes[1:], 3, axes[0])
    save(figure, path)


def _follow(figure: Any, p: Predictions, axes: Any, size: float, top: Any = None) -> None:
    """Label and prediction of one output on each of `axes`; title and legend, with that of `top`, on the figure."""
    at, axis = _longest(p)
    trials = axis.startswith("trial")
    t = np.arange(len(at)) if trials else p.end[at]
    for ax, o in zip(axes, p.labels):
        y = p.probability()[at] if o == "pain" else p.outputs[o][at, -1]
        ax.plot(t, p.labels[o][at, -1], color="black", lw=1, label="label", drawstyle="steps-mid" if trials else None)
        ax.plot(t, y, "o" if trials else "-", ms=size, color="#c62828", lw=1, label="prediction")
        ax.set(ylabel="pain probability" if o == "pain" else o, ylim=(-0.05, 1.05) if o == "pain" else (-1.05, 1.05))
    axes[-1].set_xlabel(axis)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [h for ax in (top, axes[0]) if ax is not None for h in ax.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=8, frameon=False)
    (axes[0] if top is None else top).set_title(_who(p, at), fontsize=10, loc="left")


def robustness(path: Path, table: dict[str, Scores], task: Task) -> None:
    """The main scores against the noise on each modality, and at the right without it."""
    levels = sorted({float(k.split()[1]) for k in table if k.startswith("noise")})
    shown = [m for m in ("balanced_accuracy", "ccc_mean") if m in table["clean"].pooled]
    if not levels or not shown:
        return
    figure, axes = plt.subplots(1, len(shown), figsize=(4.6 * len(shown), 3.4), squeeze=False, layout="constrained")
    for ax, metric in zip(axes[0], shown):
        for m in task.names:
            y = [table["clean"].pooled[metric], *(table[f"noise {v:g} on {m}"].pooled[metric] for v in levels)]
            ax.plot(range(len(y)), y, "o-", ms=4, label=m, color=COLOURS.get(m))
            if f"without {m}" in table:
                value = table[f"without {m}"].pooled[metric]
                ax.plot(len(y), value, "X", ms=8, color=COLOURS.get(m))
        ticks = ["0", *(f"{v:g}" for v in levels)]
        if any(k.startswith("without") for k in table):
            ticks.append("missing")
            ax.axvline(len(levels) + 0.5, color="grey", lw=0.6)
        ax.set_xticks(range(len(ticks)), ticks)
        ax.set(xlabel="noise on one modality (SD of its features)", ylabel=LABELS[metric])
        ax.grid(axis="y", alpha=0.3)
        ax.legend(fontsize=8)
    save(figure, path)
