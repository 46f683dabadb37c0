"""Refit one person's few parameters to their ratings, and write them into a bundle beside the old ones."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import t as student

from .. import metrics
from ..engine.bundle import Bundle, write_bundle
from ..engine.personal import OUTPUT, Personal
from ..errors import ConfigError, DataError
from .ratings import F64, PAINFUL, Rated, Read, split

# How far a person's parameters may lie from no change, as standard deviations of a Gaussian prior, and their bounds.
# Chosen on 46 simulated people who were used for nothing else (`benchmarks/personalise.py`). To choose between
# a quarter, a half and the whole of 0.3, 0.5, 0.25 for each person, by nested blocks, gained less on them: 20 ratings
# cannot tell.
PRIOR = {"scale": 0.15, "bias": 0.25, "weight": 0.125}
BLOCKS = 5  # of consecutive support ratings, each judged by a fit to the others
# An interval of 80 % lies above 0 for one in ten of those who gain nothing, and the later ratings, which must gain too,
# refuse half of these. At 95 %, stoic people's support ratings passed for 2 of 15.
SURE = 0.8
WORTH = 0.001  # of the Brier score: less is shown as 0
BOUNDS = {"scale": (0.1, 3.0), "bias": (-6.0, 6.0), "weight": (-1.0, 1.0)}
NOTE = (
    "Personalised to one person by their ratings; do not use it for anybody else. What the bundle promised of other "
    "people's sets (uncertainty) and of unseen noise (sensitivity) does not hold for these numbers and was set aside. "
    "The novelty gate is as before: it compares signals with those of the training people, not with this person's."
)
PROMISES = ("uncertainty", "sensitivity")  # of a manifest: measured with the general parameters


@dataclass(frozen=True)
class Judged:
    """How well ratings are met before and after: Brier score, share on the wrong side of 0.5, and the gain in the Brier
    score with its interval (95 %, by rating).
    """

    brier: tuple[float, float]
    wrong: tuple[float, float]
    gain: float
    interval: tuple[float, float]


def fit(rated: Sequence[Rated], names: Sequence[str], painful: int = PAINFUL, *, what_ifs: bool = True) -> Personal:
    """The parameters that meet the ratings best: logistic regression with a Gaussian prior around no change, so that
    few or contradictory ratings change little. Every rating weighs the same, however many windows it has.

    names: the task's modalities. what_ifs: false fits scale and bias alone.
    """
    z = np.concatenate([r.logits for r in rated])
    without = np.concatenate([r.without for r in rated])
    adds = np.nan_to_num(z[:, None] - without) if what_ifs else np.zeros((len(z), 0))
    y = np.concatenate([np.full(len(r.logits), float(r.rating >= painful)) for r in rated])
    weight = np.concatenate([np.full(len(r.logits), 1 / len(r.logits)) for r in rated])
    columns = np.column_stack([z, np.ones(len(z)), -adds])
    centre = np.array([1.0, 0.0, *[0.0] * adds.shape[1]])
    spread = np.array([PRIOR["scale"], PRIOR["bias"], *[PRIOR["weight"]] * adds.shape[1]])
    bounds = [BOUNDS["scale"], BOUNDS["bias"], *[BOUNDS["weight"]] * adds.shape[1]]

    def loss(x: F64) -> tuple[float, F64]:
        u = columns @ x
        apart = (x - centre) / spread
        value = float(weight @ (np.logaddexp(0, u) - y * u) + 0.5 * apart @ apart)
        return value, columns.T @ (weight * (expit(u) - y)) + apart / spread

    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds)
    scale, bias, *weights = (float(v) for v in found.x)
    return Personal(scale, bias, dict(zip(names, weights)))


@dataclass(frozen=True)
class Decided:
    """What the support ratings alone say: whether a change is worth making, and which.

    personal: no change where none is worth making. gain: of the Brier score, of blocks that were left out of the fit;
    interval: `SURE` of it.
    """

    personal: Personal
    gain: float
    interval: tuple[float, float]

    @property
    def worth(self) -> bool:
        return self.interval[0] > 0 and self.gain >= WORTH


def decide(
    support: Sequence[Rated], names: Sequence[str], window: float, painful: int = PAINFUL, *, what_ifs: bool = True
) -> Decided:
    """Fit where blocks of the support ratings, each judged by a fit to the others, gain for sure; else change nothing.

    window: s of signal in a result; what shares signal with a block does not judge it.
    """
    gains = []
    for block, others in _in_blocks(support, window):
        # ratings so close together that all share signal with the block cannot judge it
        new = fit(others, names, painful, what_ifs=what_ifs) if others else Personal()
        gains.append(_gains(block, names, new, Personal(), painful))
    found = np.concatenate(gains)
    decided = Decided(Personal(), float(found.mean()), _interval(found))
    return replace(decided, personal=fit(support, names, painful, what_ifs=what_ifs)) if decided.worth else decided


def _in_blocks(rated: Sequence[Rated], window: float) -> Iterator[tuple[list[Rated], list[Rated]]]:
    """(a block of consecutive ratings, the others without windows that share signal with it), in the order of time."""
    order = sorted(rated, key=lambda r: r.t)
    for at in np.array_split(np.arange(len(order)), BLOCKS):
        block = [order[i] for i in at]
        first, last = min(r.ends.min() for r in block), max(r.ends.max() for r in block)
        apart = [r.take((r.ends <= first - window) | (r.ends - window >= last)) for r in order]
        others = [r for r in apart if r.ends.size]
        yield block, others


def _interval(gains: F64) -> tuple[float, float]:
    """`SURE` of the mean of gains in the order of time, by Student's t. Neighbours are alike, so n count for fewer:
    n (1 - r) / (1 + r) with their autocorrelation r, where that is positive.
    """
    apart = gains - gains.mean()
    total = float(apart @ apart)
    r = max(0.0, float(apart[1:] @ apart[:-1]) / total) if total > 0 else 0.0
    count = max(2.0, len(gains) * (1 - r) / (1 + r))
    half = float(student.ppf((1 + SURE) / 2, count - 1)) * math.sqrt(total / (len(gains) - 1) / count)
    return float(gains.mean()) - half, float(gains.mean()) + half


def _gains(rated: Sequence[Rated], names: Sequence[str], new: Personal, old: Personal, painful: int) -> F64:
    """(n,) by how much the Brier score of each rating falls."""
    y = [float(r.rating >= painful) for r in rated]
    return np.array([_error(r, names, old, t)[0] - _error(r, names, new, t)[0] for r, t in zip(rated, y)])


def judge(rated: Sequence[Rated], names: Sequence[str], new: Personal, old: Personal, painful: int = PAINFUL) -> Judged:
    """How `new` meets ratings that it was not fitted to, beside `old`."""
    y = np.array([float(r.rating >= painful) for r in rated])
    errors = [np.array([_error(r, names, personal, t) for r, t in zip(rated, y)]) for personal in (old, new)]
    brier, wrong = ([float(e[:, k].mean()) for e in errors] for k in (0, 1))
    gains = errors[0][:, 0] - errors[1][:, 0]
    draws = metrics.bootstrap(lambda at: float(gains[at].mean()), np.arange(len(gains)))
    return Judged((brier[0], brier[1]), (wrong[0], wrong[1]), float(gains.mean()), metrics.interval95(draws))


def _error(r: Rated, names: Sequence[str], personal: Personal, y: float) -> tuple[float, float]:
    """(Brier score, share of windows on the wrong side) of one rating."""
    p = expit([personal.logit(float(z), _known(names, row)) for z, row in zip(r.logits, r.without)])
    return float(np.mean((p - y) ** 2)), float(np.mean((p >= 0.5) != (y == 1)))


def _known(names: Sequence[str], row: F64) -> dict[str, float]:
    return {name: float(z) for name, z in zip(names, row) if not math.isnan(z)}


@dataclass(frozen=True)
class Refit:
    """One person's new parameters, fitted to `support` ratings, and how they meet `test` later ones."""

    subject: str
    decided: Decided
    judged: Judged | None  # None where no change is worth making
    support: int
    test: int
    painful: int
    what_ifs: bool


def refit(bundle: Bundle, read: Sequence[Read], subject: str, *, painful: int = PAINFUL) -> Refit:
    """Fit to the first half of all ratings by time, where that half gains for sure (`decide`), and judge by the second,
    beside `bundle`'s own parameters.

    Raises ConfigError for a bundle without pain, and DataError for a recording given twice and for ratings that are too
    few or too one-sided.
    """
    require_pain(bundle)
    if len({r.sha256 for r in read}) < len(read):
        raise DataError("a recording was given twice; give each once")
    names = bundle.task.names
    what_ifs = all(r.what_ifs for r in read)
    support, test = split([rated for r in read for rated in r.rated], bundle.task.window, painful)
    decided = decide(support, names, bundle.task.window, painful, what_ifs=what_ifs)
    old = bundle.personal or Personal()
    judged = judge(test, names, decided.personal, old, painful) if decided.worth else None
    return Refit(subject, decided, judged, len(support), len(test), painful, what_ifs)


def require_pain(bundle: Bundle) -> None:
    if OUTPUT not in bundle.task.outputs:
        raise ConfigError(
            f"{bundle.id} does not estimate pain, which is what the ratings are of; give another --bundle"
        )


def write_personal(bundle: Bundle, found: Refit, read: Sequence[Read], out: str | os.PathLike[str]) -> Bundle:
    """Write `bundle` with the person's parameters; the networks and every other file stay as they are.

    Raises BundleError where `out` exists.
    """
    if found.judged is None:
        raise ValueError("no change is worth making")
    manifest = _kept(bundle)
    old = manifest.pop("personal", None)
    aside = {k: manifest[k] for k in ("name", *PROMISES) if k in manifest} | (old["set_aside"] if old else {})
    for promise in PROMISES:
        manifest.pop(promise, None)
    parameters = (bundle.personal or Personal()).to_manifest()
    before = {"bundle": bundle.id, "sha256": bundle.sha256, "parameters": parameters}
    j, d = found.judged, found.decided
    manifest["personal"] = {
        "subject": found.subject,
        "parameters": d.personal.to_manifest(),
        "recordings": [{"sha256": r.sha256, "created": r.created, "ratings": len(r.rated)} for r in read],
        "ratings": {"support": found.support, "test": found.test, "painful_from": found.painful},
        "held_out": {
            "brier": {"before": j.brier[0], "after": j.brier[1]},
            "wrong": {"before": j.wrong[0], "after": j.wrong[1]},
            "gain": j.gain,
            "interval": list(j.interval),
        },
        "left_out": {"gain": d.gain, "interval": list(d.interval), "sure": SURE},
        "what_ifs": found.what_ifs,
        "before": [*(old["before"] if old else []), before],
        "set_aside": aside,
        "note": NOTE,
    }
    manifest["name"] = f"{aside['name']}-for-{found.subject}"
    return write_bundle(out, manifest, bundle.files)


def undo_personal(bundle: Bundle, out: str | os.PathLike[str]) -> Bundle:
    """Write `bundle` as it was before it was personalised: the same manifest, byte for byte, unless it was built since.

    Raises ConfigError for a bundle that is not personalised, and BundleError where `out` exists.
    """
    if bundle.personal is None:
        raise ConfigError(f"{bundle.path} is not personalised, so there is nothing to undo; give the one that is")
    manifest = _kept(bundle)
    aside = manifest.pop("personal")["set_aside"]
    return write_bundle(out, {**manifest, **aside}, bundle.files)


def _kept(bundle: Bundle) -> dict[str, Any]:
    return {k: v for k, v in bundle.manifest.items() if k not in ("files", "schema")}
