"""Scores, in NumPy: concordance, accuracy, balanced accuracy, AUC, calibration error, and intervals by subject.

Labels that are NaN are left out everywhere, so an unlabelled frame never scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
_Z95 = 1.959963984540054  # of the normal distribution, for a two-sided 95 % interval


def _pair(prediction: ArrayLike, label: ArrayLike) -> tuple[Array, Array]:
    p, y = np.asarray(prediction, np.float64).ravel(), np.asarray(label, np.float64).ravel()
    if p.shape != y.shape:
        raise ValueError(f"prediction has {p.size} values and label {y.size}")
    keep = ~np.isnan(y)
    return p[keep], y[keep]


def ccc(prediction: ArrayLike, label: ArrayLike) -> float:
    """Lin's concordance: 2 cov / (var + var + (mean - mean)^2), population moments. NaN without labels."""
    p, y = _pair(prediction, label)
    if not y.size:
        return float("nan")
    covariance = float(np.mean((p - p.mean()) * (y - y.mean())))
    spread = float(p.var() + y.var() + (p.mean() - y.mean()) ** 2)
    return 2 * covariance / spread if spread > 0 else 1.0


def confusion(decision: ArrayLike, label: ArrayLike, classes: int = 2) -> NDArray[np.int64]:
    """(classes, classes) counts: rows are labels, columns decisions."""
    d, y = _pair(decision, label)
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (y.astype(int), d.astype(int)), 1)
    return table


def accuracy(decision: ArrayLike, label: ArrayLike) -> float:
    d, y = _pair(decision, label)
    return float(np.mean(d == y)) if y.size else float("nan")


def balanced_accuracy(decision: ArrayLike, label: ArrayLike) -> float:
    """Mean recall over the classes that occur."""
    d, y = _pair(decision, label)
    return float(np.mean([np.mean(d[y == c] == c) for c in np.unique(y)])) if y.size else float("nan")


def f1(decision: ArrayLike, label: ArrayLike) -> float:
    """F1 of the positive class (1); 0 where nothing is positive on either side."""
    d, y = _pair(decision, label)
    hits = float(np.sum((d == 1) & (y == 1)))
    total = float(np.sum(d == 1) + np.sum(y == 1))
    return 2 * hits / total if total else 0.0


def roc_curve(score: ArrayLike, label: ArrayLike) -> tuple[Array, Array]:
    """False and true positive rates over all thresholds, from (0, 0) to (1, 1); equal scores make one step."""
    s, y = _pair(score, label)
    order = np.argsort(-s, kind="stable")
    s, y = s[order], y[order]
    last = np.flatnonzero(np.append(np.diff(s) != 0, True))
    tp, fp = np.cumsum(y)[last], np.cumsum(1 - y)[last]
    return np.append(0, fp / max(fp[-1], 1)), np.append(0, tp / max(tp[-1], 1))


def auc(score: ArrayLike, label: ArrayLike) -> float:
    """Area under the ROC curve; NaN where only one class occurs."""
    _, y = _pair(score, label)
    if not (0 < y.sum() < y.size):
        return float("nan")
    fpr, tpr = roc_curve(score, label)
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def reliability(probability: ArrayLike, label: ArrayLike, bins: int = 15) -> tuple[Array, Array, NDArray[np.int64]]:
    """Mean confidence, accuracy and count in equal bins of the predicted class's confidence, binary case.

    probability: of class 1. Empty bins hold 0.
    """
    p, y = _pair(probability, label)
    decision = (p >= 0.5).astype(float)
    confidence = np.where(decision == 1, p, 1 - p)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    safe = np.maximum(count, 1)
    mean = np.bincount(index, confidence, bins) / safe
    right = np.bincount(index, (decision == y).astype(float), bins) / safe
    return mean, right, count


def ece(probability: ArrayLike, label: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3) of a binary classifier's confidence."""
    mean, right, count = reliability(probability, label, bins)
    return float(np.sum(count * np.abs(mean - right)) / count.sum()) if count.sum() else float("nan")


def brier(probability: ArrayLike, label: ArrayLike) -> float:
    p, y = _pair(probability, label)
    return float(np.mean((p - y) ** 2)) if y.size else float("nan")


PAIN_METRICS: Mapping[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "accuracy": lambda p, y: accuracy(np.asarray(p) >= 0.5, y),
    "balanced_accuracy": lambda p, y: balanced_accuracy(np.asarray(p) >= 0.5, y),
    "f1": lambda p, y: f1(np.asarray(p) >= 0.5, y),
    "auc": auc,
    "ece": ece,
    "brier": brier,
}


def by_subject(
    metric: Callable[[ArrayLike, ArrayLike], float], prediction: ArrayLike, label: ArrayLike, subject: ArrayLike
) -> dict[str, float]:
    """The metric of each subject alone; subjects for whom it is undefined are left out."""
    p, y, s = np.asarray(prediction, float), np.asarray(label, float), np.asarray(subject)
    scores = {str(name): metric(p[s == name], y[s == name]) for name in np.unique(s)}
    return {name: value for name, value in scores.items() if not np.isnan(value)}


def subject_draws(count: int, draws: int, seed: int = 0) -> list[NDArray[np.int64]]:
    """`draws` bootstrap samples of `count` subjects, as indices; scores that share them can be compared in pairs."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, count, count) for _ in range(draws)]


def bootstrap(
    score: Callable[[NDArray[np.int64]], float], subject: ArrayLike, draws: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """`score` (of the samples at an index array) under each draw of whole subjects with replacement; finite values.

    Samples of one subject are not independent, so the subject is the unit that is resampled. Empty with one subject,
    of whom nothing follows for others.
    """
    names = np.asarray(subject)
    rows = [np.flatnonzero(names == name) for name in np.unique(names)]
    if len(rows) < 2:
        return np.empty(0)
    values = [score(np.concatenate([rows[i] for i in draw])) for draw in subject_draws(len(rows), draws, seed)]
    return np.array([v for v in values if np.isfinite(v)])


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation of (n,) values, ties at their mean rank. NaN below 2 pairs, where all of one side are
    equal, and where a value is NaN.
    """
    a, b = (_ranks(np.ravel(values)) for values in (x, y))
    if a.shape != b.shape:
        raise ValueError(f"x has {a.size} values and y {b.size}")
    a, b = a - a.mean() if a.size else a, b - b.mean() if b.size else b
    spread = math.sqrt(float(a @ a) * float(b @ b))
    return max(-1.0, min(1.0, float(a @ b) / spread)) if spread > 0 else float("nan")  # min(1.0, nan) would be 1.0


def _ranks(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """(n,) ranks from 1, ties at their mean, as `scipy.stats.rankdata`: a live page asks for them, and SciPy's import
    would hold up the run."""
    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[group], np.float64)


def spearman_interval(rho: float, n: int) -> tuple[float, float]:
    """95 % interval of a rank correlation of n independent pairs: Fisher's z with the standard error of Bonett and
    Wright (2000), sqrt((1 + rho^2 / 2) / (n - 3)).

    (NaN, NaN) below 4 pairs, and for a perfect order (|rho| = 1), where the formula has no width.
    """
    if n < 4 or not abs(rho) < 1:
        return float("nan"), float("nan")
    reach = _Z95 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return math.tanh(math.atanh(rho) - reach), math.tanh(math.atanh(rho) + reach)


def interval95(values: ArrayLike) -> tuple[float, float]:
    """The 2.5 and 97.5 % percentiles of bootstrap values, ignoring NaN; (NaN, NaN) without any."""
    found = np.asarray(values, float)
    if not np.isfinite(found).any():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_interval(
    metric: Callable[[ArrayLike, ArrayLike], float],
    prediction: ArrayLike,
    label: ArrayLike,
    subject: ArrayLike,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of the pooled metric by `bootstrap`."""
    p, y = np.asarray(prediction, float), np.asarray(label, float)
    return interval95(bootstrap(lambda at: metric(p[at], y[at]), subject, draws, seed))


def smooth_causal(values: ArrayLike, frames: int) -> Array:
    """Mean of the last `frames` values (fewer at the start): what a live system can compute."""
    x = np.asarray(values, np.float64)
    total = np.cumsum(np.insert(x, 0, 0.0))
    end = np.arange(1, x.size + 1)
    start = np.maximum(end - max(frames, 1), 0)
    return (total[end] - total[start]) / (end - start)


def smooth_centred(values: ArrayLike, frames: int) -> Array:
    """Mean of `frames` values around each one, as the published code does; it looks into the future."""
    x = np.asarray(values, np.float64)
    total = np.cumsum(np.insert(x, 0, 0.0))
    here = np.arange(x.size)
    start, end = np.maximum(here - frames // 2, 0), np.minimum(here + (frames + 1) // 2, x.size)
    return (total[end] - total[start]) / np.maximum(end - start, 1)
