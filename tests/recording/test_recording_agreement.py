"""Agreement of ratings and estimates: correlations and counts worked out by hand, and scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from jmt_edge.metrics import spearman, spearman_interval
from jmt_edge.observer import Mark
from jmt_edge.recording.agreement import Agreement, agreement


def session(rated: list[tuple[int, float | None]]) -> tuple[list[Mark], np.ndarray, np.ndarray]:
    """A rating every minute with the estimate of its 10 s, None: there is none. A window every half second."""
    marks = [Mark(60.0 * (i + 1), "", rating) for i, (rating, _) in enumerate(rated)]
    known = [(mark.t, estimate) for mark, (_, estimate) in zip(marks, rated) if estimate is not None]
    times = np.concatenate([[]] + [t - 9.5 + np.arange(20) / 2 for t, _ in known])
    return marks, times, np.concatenate([[]] + [np.full(20, estimate) for _, estimate in known])


def at(limit: float, marks: list[Mark], times: np.ndarray, pain: np.ndarray) -> Agreement:
    """With this threshold all the time."""
    return agreement(marks, times, pain, np.full(len(times), limit))


@pytest.mark.parametrize("seed", range(20))
def test_spearman_is_scipys_ties_included(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 11, 30), rng.integers(0, 11, 30) + rng.integers(0, 2, 30) / 2
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert spearman(x, -np.exp(x)) == pytest.approx(-1.0, abs=1e-12)


def test_spearman_of_nothing_is_no_number() -> None:
    assert (
        math.isnan(spearman([], [])) and math.isnan(spearman([1], [2])) and math.isnan(spearman([1, 2, 3], [5, 5, 5]))
    )
    assert math.isnan(spearman([1, 2, float("nan")], [1, 2, 3]))
    with pytest.raises(ValueError, match="3 values and y 2"):
        spearman([1, 2, 3], [1, 2])


def test_interval_by_hand() -> None:
    # atanh(0.6) = ln 2; sqrt((1 + 0.18) / 25) = 0.21726; x 1.95996 = 0.42581; tanh(0.69315 -+ 0.42581)
    assert spearman_interval(0.6, 28) == pytest.approx((0.26112, 0.80718), abs=1e-4)
    assert np.isnan(spearman_interval(1.0, 28)).all() and np.isnan(spearman_interval(0.6, 3)).all()


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Pairs of a normal distribution, whose rank correlation is 6 / pi asin(r / 2)."""
    rng = np.random.default_rng(5)
    r, n, draws = 0.6, 30, 1500
    truth, inside = 6 / math.pi * math.asin(r / 2), 0
    for _ in range(draws):
        x = rng.standard_normal(n)
        low, high = spearman_interval(spearman(x, r * x + math.sqrt(1 - r**2) * rng.standard_normal(n)), n)
        inside += low <= truth <= high
    assert 0.93 <= inside / draws <= 0.97


def test_agreement_by_hand() -> None:
    # ranks 1 2 3 4 5 and 1 2 3 5 4: rho = 1 - 6 x 2 / (5 x 24) = 0.9
    found = at(0.7, *session([(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.5), (5, 0.4)]))
    assert (found.ratings, found.n, found.severe, found.seen) == (5, 5, 0, 0)
    assert found.rho == pytest.approx(0.9) and found.interval == pytest.approx((-0.16893, 0.99607), abs=1e-4)
    assert found.lines() == [
        "5 of 5 ratings with an estimate in the 10 s before.",
        "Spearman 0.90 (n = 5; 95 % interval -0.17 to 1.00 as if the ratings were independent).",
        "No rating of 7 or more.",
    ]


def test_seven_of_nine_severe_ratings_seen() -> None:
    severe = [(7, 0.7), (7, 0.9), (8, 0.8), (9, 0.75), (10, 0.99), (8, 0.71), (9, 0.9), (7, 0.69), (10, 0.1)]
    found = at(0.7, *session([*severe, (6, 0.9), (8, None)]))
    assert (found.severe, found.seen, found.blind, found.n, found.ratings) == (9, 7, 1, 10, 11)
    said = " ".join(found.lines())
    assert "7 of 9 ratings ≥ 7 seen (estimate ≥ 70%)" in said and "1 rating ≥ 7 had no estimate" in said
    unknown = agreement(*session(severe))
    assert unknown.seen is None and "threshold was not recorded" in " ".join(unknown.lines())


def test_a_short_peak_before_a_rating_counts_as_seen() -> None:
    marks, times, pain = session([(8, 0.2)])
    pain[3] = 0.95
    assert at(0.7, marks, times, pain).seen == 1


@pytest.mark.parametrize(
    ("rated", "says"),
    [
        ([], "No ratings"),
        ([(1, 0.1)] * 4, "it takes 5 ratings with an estimate, and there are 4"),
        ([(1, 0.1), *[(3, None)] * 5], "and there is 1"),
        ([(4, i / 10) for i in range(6)], "all ratings are equal"),
        ([(i, 0.5) for i in range(6)], "all estimates are equal"),
        ([(i, i / 10) for i in range(6)], "Spearman 1.00 (n = 6; no interval: the order is perfect"),
    ],
)
def test_what_cannot_be_given_has_a_reason(rated: list[tuple[int, float | None]], says: str) -> None:
    found = agreement(*session(rated))
    assert says in " ".join(found.lines()) and found.interval is None
    assert (found.rho is None) == ("Spearman" not in says)


def test_equal_estimates_tie_whatever_the_number_of_windows() -> None:
    """The mean of 20 times 0.2 is not that of 10 times 0.2, in floating point."""
    marks, times, pain = session([(1, 0.2), (2, 0.2), (3, 0.2), (4, 0.2), (5, 0.2)])
    fewer = np.arange(len(times)) % 7 != 0
    fewer[:20] = True
    assert "all estimates are equal" in " ".join(agreement(marks, times[fewer], pain[fewer]).lines())


def test_a_slip_is_no_rating() -> None:
    marks, times, pain = session([(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.5), (5, 0.4)])
    slip = Mark(marks[2].t - 2, "", 10)
    assert at(0.7, [*marks, slip, Mark(7.0, "a note")], times, pain) == at(0.7, marks, times, pain)
