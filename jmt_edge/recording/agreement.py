"""How far a person's own ratings and the estimates before them agree.

A rating is about the seconds before it was given, as in `ratings`. Its estimate is the mean pain probability of those
windows. Rank correlation asks only whether higher ratings go with higher estimates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics import spearman, spearman_interval
from ..observer import Mark
from .ratings import F64, SPAN, about, uncorrected

SEVERE = 7  # the lowest rating of severe pain
LEAST = 5  # ratings with an estimate, for a correlation


@dataclass(frozen=True)
class Agreement:
    """ratings: those that were not corrected at once. n: of these, with an estimate. rho: Spearman's, `interval`: 95 %,
    each None where it cannot be given; reason: why, for the first that cannot.

    severe: ratings of `SEVERE` or more with an estimate; seen: of these, with an estimate in the windows that reached
    the alarm's threshold of then, None where that is not known; blind: severe ratings without an estimate. limits: the
    lowest and the highest threshold.
    """

    ratings: int
    n: int
    rho: float | None
    interval: tuple[float, float] | None
    reason: str
    severe: int
    blind: int
    seen: int | None
    limits: tuple[float, float] | None

    def lines(self) -> list[str]:
        """Sentences for a person."""
        if not self.ratings:
            return ["No ratings."]
        with_estimate = f"{self.n} of {_count(self.ratings, 'rating')} with an estimate in the {SPAN:g} s before"
        said = [f"{with_estimate}."]
        if self.rho is None:
            said.append(f"No correlation: {self.reason}.")
        else:
            width = self.reason
            if self.interval:
                low, high = self.interval
                width = f"95 % interval {low:.2f} to {high:.2f} as if the ratings were independent"
            said.append(f"Spearman {self.rho:.2f} (n = {self.n}; {width}).")
        if not self.severe + self.blind:
            said.append(f"No rating of {SEVERE} or more.")
        elif self.seen is None:
            said.append(f"How many ratings ≥ {SEVERE} were seen is not known: the alarm's threshold was not recorded.")
        elif self.severe and self.limits:
            low, high = self.limits
            limit = f"{low:.0%}" if low == high else f"the threshold of then, {low:.0%} to {high:.0%}"
            said.append(f"{self.seen} of {_count(self.severe, 'rating')} ≥ {SEVERE} seen (estimate ≥ {limit}).")
        if self.blind:
            said.append(f"{_count(self.blind, 'rating')} ≥ {SEVERE} had no estimate in the {SPAN:g} s before.")
        return said


def agreement(marks: Sequence[Mark], times: F64, pain: F64, limits: F64 | None = None) -> Agreement:
    """times: (n,) s, ascending, the windows' ends; pain: (n,) probabilities of the windows that have one; limits: (n,)
    the alarm's threshold at each, None where it is not known.

    A rating that another one follows within 3 s is a slip and is left out.
    """
    every = uncorrected(marks)
    given = about(marks, times)
    ratings = np.array([mark.rating for mark, _ in given], np.float64)
    estimates = np.array([round(float(pain[at].mean()), 9) for _, at in given])  # equal ones tie
    severe = [at for mark, at in given if (mark.rating or 0) >= SEVERE]
    blind = sum((mark.rating or 0) >= SEVERE for mark in every) - len(severe)
    seen = None if limits is None else sum(bool((pain[at] >= limits[at]).any()) for at in severe)
    of_severe = [] if limits is None else [float(limit) for at in severe for limit in limits[at]]
    span = (min(of_severe), max(of_severe)) if of_severe else None
    rho, interval, reason = _correlation(ratings, estimates)
    return Agreement(len(every), len(given), rho, interval, reason, len(severe), blind, seen, span)


def _correlation(ratings: F64, estimates: F64) -> tuple[float | None, tuple[float, float] | None, str]:
    n = len(ratings)
    if n < LEAST:
        return None, None, f"it takes {LEAST} ratings with an estimate, and there {'is' if n == 1 else 'are'} {n}"
    rho = spearman(ratings, estimates)
    if math.isnan(rho):
        which = "ratings" if np.ptp(ratings) == 0 else "estimates"
        return None, None, f"all {which} are equal"
    if abs(rho) >= 1:
        return rho, None, "no interval: the order is perfect, for which the formula has no width"
    return rho, spearman_interval(rho, n), ""


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
