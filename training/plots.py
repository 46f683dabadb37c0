"""Plots of an evaluation, drawn without a display."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..tasks import Task
from .score_table import interval
from .scores import Predictions, Scores

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

LABELS = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "ccc_mean": "mean CCC",
    "ccc_valence": "CCC of valence", "ccc_arousal": "CCC of arousal",
}  # fmt: skip
# of different lightness and line, so that they differ in a grey copy too
COLOURS = {"face": "#0b3c6f", "voice": "#e6a11a", "eda": "#2f9e6e", "second": "#7b1fa2", "text": "#777777"}
LINES = {"face": ("-", "o"), "voice": ("-.", "^"), "eda": ("--", "s"), "second": (":", "v"), "text": (":", "D")}
DRAWS = 500  # of whole subjects, for the intervals in plots
NAMES = ("confusion", "roc", "reliability", "ccc_valence", "ccc_arousal", "subjects", "over_time", "attention",
         "trial_attention", "robustness")  # fmt: skip


def all_plots(out: Path, p: Predictions, table: dict[str, Scores], task: Task) -> None:
    """Those of `NAMES` that the outputs allow: pain has confusion, roc and reliability, affect the scatters."""
    if "pain" in p.labels:
        confusion(out / "confusion.png", p)
        roc(out / "roc.png", p)
        reliability(out / "reliability.png", p)
    for o in ("valence", "arousal"):
        if o in p.labels:
            scatter(out / f"ccc_{o}.png", p, o, table["clean"])
    subjects(out / "subjects.png", table["clean"])
    over_time(out / "over_time.png", p, table["clean"])
    if p.attention.size:
        attention(out / "attention.png", p)
    robustness(out / "robustness.png", table, task)


def style(m: str, *, marks: bool = True) -> dict[str, Any]:
    """Colour, line and marker of a modality."""
    line, marker = LINES.get(m, ("-", "o"))
    return {"color": COLOURS.get(m), "linestyle": line, "marker": marker if marks else "", "ms": 4, "lw": 1.3}


def drawn_by_subject(p: Predictions, value: Callable[[NDArray[np.int64]], Any]) -> NDArray[np.float64]:
    """(draws, ...) `value` (of the windows at an index array) under draws of whole subjects; none with one subject."""
    rows = [np.flatnonzero(p.subject == who) for who in np.unique(p.subject)]
    if len(rows) < 2:
        return np.empty(0)
    draws = metrics.subject_draws(len(rows), DRAWS)
    return np.array([value(np.concatenate([rows[i] for i in draw])) for draw in draws], float)


def limits95(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, ...) the 2.5 and 97.5 % percentiles; NaN where nothing was drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a bin that no draw filled
        return np.asarray(np.nanpercentile(drawn, [2.5, 97.5], axis=0))


def save(figure: Any, path: Path) -> None:
    """Write the figure and close it."""
    figure.savefig(path, dpi=144)
    plt.close(figure)


def confusion(path: Path, p: Predictions) -> None:
    """Counts, and the share of each row with its interval."""
    decision, y = p.probability() >= 0.5, p.labels["pain"][:, -1]
    table = metrics.confusion(decision, y)

    def shares(at: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = metrics.confusion(decision[at], y[at])
        return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))

    share, drawn = shares(np.arange(len(y))), drawn_by_subject(p, shares)
    limits = limits95(drawn) if drawn.size else np.full((2, 2, 2), np.nan)
    figure, ax = plt.subplots(figsize=(4.2, 3.8), layout="tight")
    ax.imshow(table, cmap="Blues", vmin=0)
    for (i, j), n in np.ndenumerate(table):
        known = "" if np.isnan(limits[0, i, j]) else f"\n[{limits[0, i, j]:.0%}, {limits[1, i, j]:.0%}]"
        ax.text(j, i, f"{n}\n{share[i, j]:.0%}{known}", ha="center", va="center", fontsize=9,
                color="white" if n > table.max() / 2 else "black")  # fmt: skip
    ax.set(xticks=[0, 1], yticks=[0, 1], xlabel="decision", ylabel="label", title=f"{len(y)} windows")
    ax.set_xticklabels(["no pain", "pain"])
    ax.set_yticklabels(["no pain", "pain"])
    save(figure, path)


def roc(path: Path, p: Predictions) -> None:
    """The curve with the band of its true positive rates, and the AUC with its interval."""
    probability, y = p.probability(), p.labels["pain"][:, -1]
    grid = np.linspace(0, 1, 101)

    def curve(at: NDArray[np.int64]) -> NDArray[np.float64]:
        fpr, tpr = metrics.roc_curve(probability[at], y[at])
        return np.append(np.interp(grid, fpr, tpr), metrics.auc(probability[at], y[at]))

    figure, ax = plt.subplots(figsize=(4.2, 3.8), layout="tight")
    known, drawn = curve(np.arange(len(y))), drawn_by_subject(p, curve)
    label = f"AUC {known[-1]:.3f}"
    if drawn.size:
        low, high = limits95(drawn)
        ax.fill_between(grid, low[:-1], high[:-1], color="0.8", lw=0)
        label += f" [{low[-1]:.3f}, {high[-1]:.3f}]"
    ax.plot(*metrics.roc_curve(probability, y), color=COLOURS["face"], label=label)
    ax.plot([0, 1], [0, 1], ":", color="grey")
    ax.set(xlabel="false positive rate", ylabel="true positive rate")
    ax.legend(loc="lower right")
    save(figure, path)


def reliability(path: Path, p: Predictions) -> None:
    """Accuracy against confidence in ten bins, the area of a point by its windows; below the diagonal the network is
    overconfident.
    """
    probability, y = p.probability(), p.labels["pain"][:, -1]
    mean, right, count = metrics.reliability(probability, y, 10)

    def rights(at: NDArray[np.int64]) -> NDArray[np.float64]:
        _, share, n = metrics.reliability(probability[at], y[at], 10)
        return np.where(n > 0, share, np.nan)

    some, drawn = count > 0, drawn_by_subject(p, rights)
    figure, ax = plt.subplots(figsize=(4.4, 4), layout="tight")
    ax.plot([0.5, 1], [0.5, 1], ":", color="grey")
    if drawn.size:
        ax.vlines(mean[some], *limits95(drawn)[:, some], color="black", lw=1)
    ax.plot(mean[some], right[some], color=COLOURS["face"], lw=0.8)
    ax.scatter(mean[some], right[some], s=10 + 200 * count[some] / count.max(), color=COLOURS["face"], alpha=0.8)
    for x, v, n in zip(mean[some], right[some], count[some]):
        ax.annotate(str(n), (x, v), textcoords="offset points", xytext=(9, 5), fontsize=7)
    ax.set(xlabel="confidence of the decision", ylabel="share that is right", xlim=(0.48, 1.02), ylim=(-0.03, 1.06))
    scaled = "" if p.temperature == 1 else f", T = {p.temperature:.2f}"  # folds are joined at their own temperatures
    ece = metrics.ece(probability, y)
    drawn = drawn_by_subject(p, lambda at: metrics.ece(probability[at], y[at]))
    limits = f" [{limits95(drawn)[0]:.3f}, {limits95(drawn)[1]:.3f}]" if drawn.size else ""
    ax.set_title(f"ECE {ece:.3f}{limits}{scaled}, windows at the points", fontsize=9)
    save(figure, path)


def scatter(path: Path, p: Predictions, output: str, s: Scores) -> None:
    x, y = p.labels[output][:, -1], p.outputs[output][:, -1]
    figure, ax = plt.subplots(figsize=(4.2, 3.8), layout="tight")
    ax.plot([-1, 1], [-1, 1], ":", color="grey")
    ax.scatter(x, y, s=8, alpha=0.4, lw=0, color=COLOURS["face"])
    ax.set(xlabel=f"label ({output})", ylabel="prediction", xlim=(-1, 1), ylim=(-1, 1))
    ax.set_title(f"{output}: {_with_interval(s, f'ccc_{output}')}, {len(x)} windows", fontsize=10)
    save(figure, path)


def _with_interval(s: Scores, metric: str) -> str:
    """`CCC 0.812 [0.780, 0.843]`, as scored: of videos after causal smoothing."""
    name = "accuracy" if metric == "accuracy" else "CCC"
    return f"{name} {s.pooled[metric]:.3f} {interval(s.interval.get(metric))}".strip()


def subjects(path: Path, s: Scores) -> None:
    """One bar per person, the lowest first, and the mean over people with its interval."""
    shown = [m for m in ("accuracy", "ccc_valence", "ccc_arousal") if s.subjects.get(m)]
    if not shown:
        return
    most = max(len(s.subjects[m]) for m in shown)
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(max(5.0, 0.22 * most + 1.5), 2.5 * len(shown)), squeeze=False, layout="constrained"
    )
    for ax, m in zip(axes[:, 0], shown):
        values = dict(sorted(s.subjects[m].items(), key=lambda item: item[1]))
        found = np.array(list(values.values()))
        ax.bar(range(len(values)), found, width=0.7, color="0.6")
        mean, sd = s.mean_sd(m)
        text = f"{LABELS[m]}: mean {mean:.3f}"
        if len(found) > 1:
            low, high = metrics.interval95([found[d].mean() for d in metrics.subject_draws(len(found), DRAWS)])
            ax.axhspan(low, high, color="black", alpha=0.15, lw=0)
            text += f" [{low:.3f}, {high:.3f}]"
        ax.axhline(mean, color="black", lw=1)
        ax.axhline(0.5 if m == "accuracy" else 0.0, color="grey", lw=0.8, ls=":")
        ax.set_title(f"{text}, SD {sd:.3f}, n = {len(found)}", fontsize=9)
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


def over_time(path: Path, p: Predictions, s: Scores) -> None:
    """Label and prediction of each output over the longest trial, or over one person's trials; the score and its
    interval are of all windows."""
    figure, axes = plt.subplots(
        len(p.labels), 1, figsize=(8, 1.9 * len(p.labels) + 0.6), squeeze=False, sharex=True, layout="constrained"
    )
    _follow(figure, p, axes[:, 0], 4)
    scored = {"pain": "accuracy", "valence": "ccc_valence", "arousal": "ccc_arousal"}
    for ax, o in zip(axes[:, 0], p.labels):
        ax.set_title(f"all windows: {_with_interval(s, scored[o])}", fontsize=8, loc="right")
    save(figure, path)


def attention(path: Path, p: Predictions) -> None:
    """Weight of each modality over time, above label and prediction; at the right its mean over all windows.

    The weights of the present modalities sum to 1 (`JMT._modality_weights`).
    """
    at, axis = _longest(p)
    trials = axis.startswith("trial")
    figure, axes = plt.subplots(
        1 + len(p.labels), 2, figsize=(8, 2.4 + 1.3 * len(p.labels)), sharex="col", layout="constrained",
        height_ratios=[1.8, *[1.0] * len(p.labels)], width_ratios=[10, 1],
    )  # fmt: skip
    t = np.arange(len(at)) if trials else p.end[at]
    last = p.attention[:, -1]
    drawn = drawn_by_subject(p, lambda rows: last[rows].mean(0))
    for i, m in enumerate(p.names):
        axes[0, 0].plot(t, last[at, i], label=m, **style(m, marks=trials))
        axes[0, 1].plot(i, last[:, i].mean(), LINES.get(m, ("", "o"))[1], color=COLOURS.get(m), ms=5)
        if drawn.size:
            axes[0, 1].vlines(i, *limits95(drawn)[:, i], color=COLOURS.get(m), lw=1.5)
    axes[0, 0].set(ylabel="attention weight", ylim=(-0.02, 1.02))
    axes[0, 1].set(ylim=(-0.02, 1.02), xlim=(-0.6, len(p.names) - 0.4), xticks=[], yticks=[])
    axes[0, 1].set_title("mean", fontsize=8)
    for ax in axes[1:, 1]:
        ax.axis("off")
    _follow(figure, p, axes[1:, 0], 3, axes[0, 0])
    save(figure, path)


def _follow(figure: Any, p: Predictions, axes: Any, size: float, top: Any = None) -> None:
    """Label and prediction of one output on each of `axes`; title and legend, with that of `top`, on the figure."""
    at, axis = _longest(p)
    trials = axis.startswith("trial")
    t = np.arange(len(at)) if trials else p.end[at]
    for ax, o in zip(axes, p.labels):
        y = p.probability()[at] if o == "pain" else p.outputs[o][at, -1]
        ax.plot(t, p.labels[o][at, -1], color="black", lw=1, label="label", drawstyle="steps-mid" if trials else None)
        ax.plot(t, y, "o" if trials else "--", ms=size, color="#c62828", mfc="white", lw=1.2, label="prediction")
        ax.set(
            ylabel="probability\nof pain" if o == "pain" else o, ylim=(-0.05, 1.05) if o == "pain" else (-1.05, 1.05)
        )
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
        for k, m in enumerate(task.names):
            conditions = ["clean", *(f"noise {v:g} on {m}" for v in levels)]
            if f"without {m}" in table:
                conditions.append(f"without {m}")
            shift = 0.08 * (k - (len(task.names) - 1) / 2)  # side by side: intervals would hide one another
            for x, c in enumerate(conditions):
                if metric in table[c].interval:
                    ax.vlines(x + shift, *table[c].interval[metric], color=COLOURS.get(m), lw=1)
            y = [table[c].pooled[metric] for c in conditions]
            ax.plot(np.arange(len(levels) + 1) + shift, y[: len(levels) + 1], label=m, **style(m))
            if len(y) > len(levels) + 1:
                ax.plot(len(levels) + 1 + shift, y[-1], LINES[m][1], ms=7, color=COLOURS.get(m))
        ticks = ["0", *(f"{v:g}" for v in levels)]
        if any(k.startswith("without") for k in table):
            ticks.append("missing")
            ax.axvline(len(levels) + 0.5, color="grey", lw=0.6)
        ax.set_xticks(range(len(ticks)), ticks)
        ax.set(xlabel="noise on one modality (SD of its features)", ylabel=LABELS[metric])
        ax.grid(axis="y", alpha=0.3)
        ax.legend(fontsize=8)
    save(figure, path)
