"""Statistics of the papers' claims over seeds and subjects: paired differences, equivalence, many comparisons.

A score is the mean over seeds of the pooled score of all subjects. Both are drawn with replacement, the same for all
systems, so that what two systems share cancels in the interval of their difference. Scores follow from sums by subject,
so thousands of draws take milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..metrics import interval95, subject_draws
from .scores import Predictions, judged

MARGIN = 0.02  # differences within it are of no consequence
LEVEL = 0.05
DRAWS = 10_000
Array = NDArray[np.float64]
Sums = dict[str, Array]  # measure -> (K, P, k): of each seed and subject


def sums_of(seeds: Sequence[Predictions]) -> tuple[list[str], Sums]:
    """The subjects (P), and what the scores of each seed's predictions of the same windows follow from.

    balanced_accuracy: number of windows of each class and how many were right; ccc_valence, ccc_arousal: the number of
    labels and the moments of prediction and label.
    """
    people = sorted(set(seeds[0].subject.tolist()))
    found: dict[str, list[Array]] = {}
    for p in seeds:
        for part in judged(p, "balanced_accuracy"):
            keep = ~np.isnan(part.label)
            x, y, who = part.prediction[keep], part.label[keep], part.subject[keep]
            if part.name == "balanced_accuracy":
                right = (x >= 0.5) == (y == 1)
                columns = [y == 0, right & (y == 0), y == 1, right & (y == 1)]
            else:
                columns = [np.ones(len(x)), x, y, x * x, y * y, x * y]
            table = np.array([[np.sum(c[who == name]) for c in columns] for name in people], float)
            found.setdefault(part.name, []).append(table)
    return people, {name: np.stack(tables) for name, tables in found.items()}


def measure(sums: Sums, metric: str, subjects: Array | None = None) -> Array:
    """(..., K) scores of each seed; subjects: (draws, P) how often each is drawn; None: once, without the first axis.

    metric: balanced_accuracy, ccc_valence, ccc_arousal, or ccc_mean of the two.
    """
    if metric == "ccc_mean":
        return np.asarray(np.mean([measure(sums, m, subjects) for m in sums if m.startswith("ccc_")], axis=0))
    table = sums[metric]
    total = table.sum(1) if subjects is None else np.einsum("kpj,bp->bkj", table, subjects)
    if metric == "balanced_accuracy":
        with np.errstate(invalid="ignore"):  # a class that was not drawn
            recall = np.stack([total[..., 1] / total[..., 0], total[..., 3] / total[..., 2]])
        return np.asarray(np.nanmean(recall, axis=0))
    n, sx, sy, sxx, syy, sxy = np.moveaxis(total, -1, 0)
    mx, my = sx / n, sy / n
    spread = (sxx / n - mx**2) + (syy / n - my**2) + (mx - my) ** 2
    return np.asarray(2 * (sxy / n - mx * my) / np.maximum(spread, 1e-12))


@dataclass(frozen=True)
class Draws:
    """How often each subject (B, P) and each seed (B, K) is drawn."""

    subjects: Array
    seeds: Array

    @classmethod
    def make(cls, people: int, seeds: int, seed: int = 0, draws: int = DRAWS) -> Draws:
        def counts(n: int, start: int) -> Array:
            return np.array([np.bincount(d, minlength=n) for d in subject_draws(n, draws, start)], float)

        return cls(counts(people, seed), counts(seeds, seed + 1))


@dataclass(frozen=True)
class Estimate:
    """A score or difference: its value, the draws of it, and the value of each seed."""

    value: float
    drawn: Array
    by_seed: Array

    @property
    def interval(self) -> tuple[float, float]:
        return interval95(self.drawn)

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.drawn - other.drawn, self.by_seed - other.by_seed)


def estimate(conditions: Sequence[Sums], metric: str, draws: Draws) -> Estimate:
    """The mean score over several conditions of one system."""
    point = np.mean([measure(s, metric) for s in conditions], axis=0)
    each = np.mean([measure(s, metric, draws.subjects) for s in conditions], axis=0)
    if each.shape[1] == 1:  # a system without a seed of its own
        return Estimate(float(point[0]), each[:, 0], np.repeat(point, draws.seeds.shape[1]))
    drawn = (each * draws.seeds).sum(1) / draws.seeds.sum(1)
    return Estimate(float(point.mean()), np.asarray(drawn), np.asarray(point))


@dataclass(frozen=True)
class Verdict:
    """A difference judged: p (two-sided, of no difference) as it is and after Holm; equivalent: the 90 % interval lies
    within the margin (two one-sided tests at 5 %)."""

    difference: Estimate
    p: float
    p_holm: float
    equivalent: bool

    @property
    def word(self) -> str:
        if self.p_holm < LEVEL:
            direction = "above" if self.difference.value > 0 else "below"
            return f"{direction}, within the margin" if self.equivalent else direction
        return "equivalent" if self.equivalent else "undecided"


def judge(differences: Mapping[str, Estimate]) -> dict[str, Verdict]:
    """The verdicts on a family of differences, corrected for their number (Holm 1979)."""
    raw = {name: p_value(d.drawn) for name, d in differences.items()}
    adjusted = holm(raw)
    found = {}
    for name, d in differences.items():
        low, high = np.nanpercentile(d.drawn, [5, 95])
        found[name] = Verdict(d, raw[name], adjusted[name], bool(low > -MARGIN and high < MARGIN))
    return found


def p_value(drawn: Array) -> float:
    """Two-sided, of no difference, by the share of draws on the other side of zero; draws at zero count for both."""
    known = drawn[np.isfinite(drawn)]
    count = len(known) + 1
    return float(min(1.0, 2 * min((known <= 0).sum() + 1, (known >= 0).sum() + 1) / count))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: in ascending order the smallest times n, the next times n - 1, ..., never falling."""
    found: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p, key=lambda n: p[n])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[name]))
        found[name] = highest
    return found
