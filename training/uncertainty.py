"""Prediction sets and intervals from people who were not trained on, and how often they hold the truth for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..engine.uncertainty import CLASSES, COVERAGE, Limit, Uncertainty, fit_limits, fit_width
from .clips import ClipStore
from .data import WindowTable
from .scores import Predictions

Features = dict[str, torch.Tensor]
Change = Callable[[Features, torch.Tensor], tuple[Features, torch.Tensor]]
Subsets = Mapping[frozenset[str], Predictions]  # present modalities -> predictions from these alone


def subsets(names: tuple[str, ...]) -> list[frozenset[str]]:
    """Every set of modalities that a result can come from."""
    return [frozenset(some) for n in range(1, len(names) + 1) for some in combinations(names, n)]


def only(names: tuple[str, ...], present: frozenset[str]) -> Change:
    """A change of features and presence as in a live run with these modalities: the others, and those that are absent
    at the newest step, are absent at every step.
    """
    wanted = torch.tensor([name in present for name in names])

    def change(features: Features, seen: torch.Tensor) -> tuple[Features, torch.Tensor]:
        return features, seen * wanted * (seen[:, -1:] > 0)

    return change


def promised(
    p: Predictions, windows: WindowTable, stores: Mapping[str, ClipStore], present: frozenset[str]
) -> Predictions:
    """Those of `windows` whose set or interval a live run shows: full ones that do not end in a pause in speech
    (`live.pipeline`). p: predictions of all `windows` from `present`.
    """
    keep = windows.end >= windows.task.window - 1e-6
    for name in present & stores.keys():
        newest = windows.rows[name][:, -1]
        keep &= (newest < 0) | ~stores[name].pause[np.maximum(newest, 0)]
    return replace(p, attention=p.present).take(np.flatnonzero(keep))  # attention is not needed, and may be empty


def fit_uncertainty(subset: Subsets, coverage: float = COVERAGE) -> Uncertainty | None:
    """Limits for each set of present modalities and each output; those that too few people can promise are left out,
    and None where that leaves nothing.
    """
    limits: dict[frozenset[str], dict[str, Limit]] = {}
    people: set[str] = set()
    windows = 0
    for present, whole in subset.items():
        p = _complete(whole, present)
        found: dict[str, Limit | None] = {}
        for o in p.labels:
            y = p.labels[o][:, -1]
            found[o] = (fit_limits if o == "pain" else fit_width)(shown(p, o), y, p.subject, coverage)
        known = {o: limit for o, limit in found.items() if limit is not None}
        if known:
            limits[present] = known
            people |= set(p.subject.tolist())
            windows = max(windows, len(p.end))
    return Uncertainty(coverage, len(people), windows, limits) if limits else None


def wider(one: Uncertainty | None, other: Uncertainty | None) -> Uncertainty | None:
    """What holds in both of two ways to use a model: the lower probabilities and the wider intervals."""
    if one is None or other is None:
        return None
    limits: dict[frozenset[str], dict[str, Limit]] = {}
    for present in one.limits.keys() & other.limits.keys():
        a, b = one.limits[present], other.limits[present]
        found = {o: _wider(a[o], b[o]) for o in a if o in b}
        limits |= {present: found} if found else {}
    return replace(one, windows=one.windows + other.windows, limits=limits) if limits else None


def _wider(one: Limit, other: Limit) -> Limit:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return min(one[0], other[0]), min(one[1], other[1])
    assert not isinstance(one, tuple) and not isinstance(other, tuple)  # both are of the same output
    return max(one, other)


@dataclass(frozen=True)
class Covered:
    """How often the truth lay in the set or interval: the mean over people, with its interval (95 %, by subject).

    size: mean number of classes, or width of the interval.
    """

    present: tuple[str, ...]
    output: str
    found: float
    low: float
    high: float
    people: int
    windows: int
    size: float


def coverage(known: Uncertainty, subset: Subsets) -> Iterator[Covered]:
    """The coverage found on predictions of other people; of pain also by class (`pain: no`, `pain: yes`)."""
    for present, whole in subset.items():
        p = _complete(whole, present)
        for o in p.labels:
            y = p.labels[o][:, -1]
            values = shown(p, o)
            spans = [known.of({o: float(v)}, present) for v in values]
            if not spans or spans[0] is None:
                continue
            span = [s[o] for s in spans if s is not None]
            seen = ~np.isnan(y)
            if o == "pain":
                hit = np.array([not np.isnan(t) and CLASSES[int(t)] in s for s, t in zip(span, y)])
                size = np.array([len(s) for s in span], float)
                parts = {"pain": seen, **{f"pain: {c}": y == i for i, c in enumerate(CLASSES)}}
            else:
                ends = np.array(span)
                hit, size, parts = (ends[:, 0] <= y) & (y <= ends[:, 1]), ends[:, 1] - ends[:, 0], {o: seen}
            for name, keep in parts.items():
                if keep.any():
                    yield _covered(p, present, name, hit[keep], size[keep], keep)


def _covered(
    p: Predictions,
    present: frozenset[str],
    output: str,
    hit: NDArray[np.bool_],
    size: NDArray[np.float64],
    keep: NDArray[np.bool_],
) -> Covered:
    who = p.subject[keep]
    each = np.array([hit[who == name].mean() for name in np.unique(who)])
    draws = np.random.default_rng(0).integers(0, len(each), (2000, len(each)))
    low, high = np.percentile(each[draws].mean(1), (2.5, 97.5))
    names = tuple(name for name in p.names if name in present)
    return Covered(names, output, float(each.mean()), float(low), float(high), len(each), len(hit), float(size.mean()))


def _complete(p: Predictions, present: frozenset[str]) -> Predictions:
    """The windows whose newest step has all of `present`."""
    columns = [p.names.index(name) for name in present]
    p = replace(p, attention=p.present)  # it has none where the fusion has none, and is not needed
    return p.take(np.flatnonzero((p.present[:, -1][:, columns] > 0).all(1)))


def shown(p: Predictions, output: str) -> NDArray[Any]:
    """(W,) an output of the last step as it is shown: the calibrated probability of pain, others within -1 to 1."""
    return p.probability() if output == "pain" else np.clip(p.outputs[output][:, -1].astype(float), -1, 1)
