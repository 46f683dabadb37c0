"""How far a result can be trusted: a set or an interval that holds the truth for 90 % of the windows of other people.

Conformal prediction with the person as its unit. Windows of one person are alike, so a quantile over all windows of a
few people promises too much for the next one. Here each of the J people weighs 1/(J + 1), spread evenly over that
person's windows, and the next person weighs 1/(J + 1) at infinity; the quantile of that distribution covers a new
person's window with at least the promised probability, whatever the distribution (Lee, Barber and Willett 2023,
"Distribution-free inference with hierarchical data", arXiv:2306.06342; Dunn, Wasserman and Ramdas 2022,
"Distribution-free prediction sets for two-layer hierarchical models"). Fewer than 9 people cannot promise 90 %.

The promise is kept for each set of present modalities by itself, because the network is less sure without one. Pain has
a limit for each class: the set then holds the truth in 90 % of painful windows and in 90 % of painless ones, however
rare pain is at the bedside.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

COVERAGE = 0.9
CLASSES = ("no", "yes")  # of pain, as they are shown
Limit = float | tuple[float, float]


@dataclass(frozen=True)
class Uncertainty:
    """limits: present modalities -> output -> its limit: of pain the smallest probabilities (no, yes) with which a
    class belongs to the set, of valence and arousal the half-width of the interval. people, windows: their source.
    """

    coverage: float
    people: int
    windows: int
    limits: Mapping[frozenset[str], Mapping[str, Limit]]

    def of(self, outputs: Mapping[str, float], present: Collection[str]) -> dict[str, Any] | None:
        """`coverage`, and for each output the classes of its set or the ends of its interval; None where not known.

        outputs: as shown, not smoothed. Of pain, the likelier class always belongs to the set.
        """
        limits = self.limits.get(frozenset(present), {})
        found = {name: _around(value, limits[name]) for name, value in outputs.items() if name in limits}
        return {"coverage": self.coverage, **found} if found else None

    def to_manifest(self) -> dict[str, Any]:
        """As in a bundle's manifest: the keys of `limits` are names joined by `+`."""
        limits = {
            "+".join(sorted(present)): {o: list(q) if isinstance(q, tuple) else q for o, q in of.items()}
            for present, of in self.limits.items()
        }
        return {"coverage": self.coverage, "people": self.people, "windows": self.windows, "limits": limits}

    @classmethod
    def from_manifest(cls, entry: Mapping[str, Any]) -> Uncertainty:
        """Inverse of `to_manifest`, of an entry that `check_manifest` accepted."""
        limits = {
            frozenset(key.split("+")): {o: tuple(q) if isinstance(q, list) else float(q) for o, q in of.items()}
            for key, of in entry["limits"].items()
        }
        return cls(float(entry["coverage"]), int(entry["people"]), int(entry["windows"]), limits)


def _around(value: float, limit: Limit) -> list[Any]:
    if isinstance(limit, tuple):
        probability = (1 - value, value)
        return [c for c, p, low in zip(CLASSES, probability, limit) if p >= low or p == max(probability)]
    return [max(-1.0, value - limit), min(1.0, value + limit)]


def fit_limits(
    probability: ArrayLike, label: ArrayLike, person: NDArray[Any], coverage: float = COVERAGE
) -> tuple[float, float] | None:
    """The limits of pain from probabilities (N,), labels (N,) 0 or 1 and the people (N,); None where too few people
    have a class.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(label, np.float64)
    farthest = [quantile((1 - p if c else p)[y == c], person[y == c], coverage) for c in (0, 1)]
    return (1 - farthest[0], 1 - farthest[1]) if all(map(math.isfinite, farthest)) else None


def fit_width(value: ArrayLike, label: ArrayLike, person: NDArray[Any], coverage: float = COVERAGE) -> float | None:
    """The half-width of the interval around outputs (N,) with labels (N,); None for too few people."""
    y = np.asarray(label, np.float64)
    keep = ~np.isnan(y)
    apart = np.abs(np.asarray(value, np.float64)[keep] - y[keep])
    found = quantile(apart, person[keep], coverage)
    return found if math.isfinite(found) else None


def quantile(scores: NDArray[np.float64], person: NDArray[Any], coverage: float = COVERAGE) -> float:
    """The hierarchical conformal quantile of scores (N,) of people (N,); infinite where they are too few."""
    names, which, count = np.unique(person, return_inverse=True, return_counts=True)
    order = np.argsort(scores)
    reached = np.cumsum(1 / count[which][order]) / (len(names) + 1)
    at = int(np.searchsorted(reached, coverage - 1e-9))
    return float(scores[order[at]]) if at < len(order) else math.inf
