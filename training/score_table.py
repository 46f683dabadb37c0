"""Scores as text: the table of a terminal, and the cells that all tables share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .scores import Scores

MAIN = ("accuracy", "balanced_accuracy", "auc", "ccc_valence", "ccc_arousal", "ccc_mean")
ALL = ("accuracy", "balanced_accuracy", "f1", "auc", "ece", "brier", "ccc_valence", "ccc_arousal", "ccc_mean")


def interval(pair: Sequence[float] | None) -> str:
    """`[0.812, 0.901]`, empty without an interval."""
    return f"[{pair[0]:.3f}, {pair[1]:.3f}]" if pair else ""


def difference(value: float, low: float, high: float) -> str:
    """A difference with its 95 % interval: `+0.031 [-0.004, +0.066]`."""
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def mean_sd(scores: Scores, metric: str) -> str:
    """Mean and SD over subjects: `0.852 (0.071)`, empty where subjects have no score of their own."""
    mean, sd = scores.mean_sd(metric)
    return "" if np.isnan(mean) else f"{mean:.3f} ({sd:.3f})"


def score_lines(rows: Mapping[str, Scores], metrics: Sequence[str], detailed: str, corner: str = "") -> list[str]:
    """A line for each row with those of `metrics` that were scored; below the row `detailed` its 95 % interval, the
    mean and SD over subjects, and its extras.
    """
    names = [m for m in metrics if m in rows[detailed].pooled]

    def line(name: str, windows: int | str, cells: Sequence[str]) -> str:
        return f"{name:<22}{windows:>8} " + " ".join(f"{cell:>18}" for cell in cells)

    lines = [line(corner, "windows", names)]
    for name, s in rows.items():
        lines.append(line(name, s.windows, [f"{s.pooled.get(m, np.nan):.3f}" for m in names]))
        if name == detailed:
            lines.append(line("  95 % by subject", "", [interval(s.interval.get(m)) for m in names]))
            lines.append(line("  subjects mean (SD)", "", [mean_sd(s, m) for m in names]))
            lines += [f"  {extra}: {value:.3f}" for extra, value in s.extras.items()]
    return lines
