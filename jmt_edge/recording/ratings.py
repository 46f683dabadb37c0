"""The ratings (0-10) in recordings, each with the results that it is about.

A rating is about the seconds before it was given. A slip is corrected at once, so a rating that another one follows
within 3 s is left out; one that was corrected later, on the page, counts as corrected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.bundle import Bundle
from ..engine.personal import OUTPUT, logit
from ..errors import DataError, SourceError
from ..observer import Mark
from ..plain_files import printable
from .reader import Recording
from .recorder import MANIFEST

PAINFUL = 4  # the lowest rating that counts as pain: moderate pain begins there
SPAN = 10.0  # s before a rating that it is about, at most
CORRECTION = 3.0  # s
LEAST = 5  # ratings on each side of PAINFUL, in each half
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Rated:
    """One rating, given at `t` (s), and the network's results of the n windows that it is about.

    ends: (n,) s. logits: (n,) of pain. without: (n, M) logits without each of the task's modalities, NaN where that is
    not known.
    """

    t: float
    rating: int
    ends: F64
    logits: F64
    without: F64

    def take(self, index: NDArray[np.bool_]) -> Rated:
        return replace(self, ends=self.ends[index], logits=self.logits[index], without=self.without[index])


@dataclass(frozen=True)
class Read:
    """The rated windows of one recording. sha256: of what identifies it; what_ifs: its results have them."""

    sha256: str
    created: str
    rated: list[Rated]
    what_ifs: bool


def read_ratings(recording: Recording, bundle: Bundle) -> Read:
    """The ratings of a recording made with `bundle`, or with one of those that it was personalised from.

    Raises SourceError for a recording of other networks, of smoothed results, one that was altered, or has no hashes.
    """
    name, manifest = printable(recording.folder), recording.manifest
    if not recording.seal.chained:
        raise SourceError(f"recording {name} has no hashes ({recording.seal.note}); record with this version")
    for fault in recording.seal.faults():
        raise SourceError(f"recording {name} was altered: {fault}; copy the whole recording again, or leave it out")
    made_with = manifest["bundle"]
    before = [entry["sha256"] for entry in bundle.manifest.get("personal", {}).get("before", [])]
    if made_with.get("sha256") not in (bundle.sha256, *before):
        raise SourceError(
            f"recording {name} was made with {printable(made_with['id'])}, whose results are not those of {bundle.id}; "
            "give the bundle that it was made with, or leave the recording out"
        )
    if manifest["smooth"]:
        raise SourceError(
            f"recording {name} holds means over {manifest['smooth']:g} s (--smooth); record without --smooth"
        )
    every = list(recording.results())
    results = [r for r in every if r["outputs"] is not None]
    network = [_network(r) for r in results]
    rated = rated_windows(
        recording.marks(),
        np.array([r["t"] for r in results]),
        np.array([logit(outputs[OUTPUT]) for outputs, _ in network]),
        np.array([_without(without, bundle.task.names) for _, without in network]).reshape(len(results), -1),
        began=_began(recording, every),
    )
    what_ifs = all(without is not None for _, without in network)
    return Read(recording.seal.identity, manifest["created"], rated, what_ifs)


def _began(recording: Recording, results: Sequence[dict[str, Any]]) -> float:
    """When stream time was 0, in s since 1970. A recording that was begun during a run has later stream times from its
    first result on; where the time of 0 was not kept, it is reckoned back from that result.
    """
    if recording.origin is not None:
        return recording.origin.timestamp()
    first = float(results[0]["t"]) if results else 0.0
    try:
        return datetime.fromisoformat(recording.manifest["created"]).timestamp() - first
    except ValueError:
        raise SourceError(
            f"{printable(recording.folder / MANIFEST)} is damaged ('created' is not a time); restore the recording"
        ) from None


def _network(result: dict[str, Any]) -> tuple[dict[str, float], dict[str, dict[str, float]] | None]:
    """What the network itself gave: of a personalised bundle's results that is kept beside them."""
    general = result.get("general") or result
    return general["outputs"], general.get("without")


def _without(what_ifs: dict[str, dict[str, float]] | None, names: Sequence[str]) -> list[float]:
    known = what_ifs or {}
    return [logit(known[name][OUTPUT]) if name in known else math.nan for name in names]


def final(marks: Iterable[Mark]) -> list[Mark]:
    """The marks by time as corrected: each rating has its last value, those that were withdrawn have none.

    A correction whose rating was lost is that rating. A mark of which nothing is left is left out.
    """
    every = sorted(marks, key=lambda m: m.t)
    last = {t: m.rating for m in every if (t := m.corrects) is not None}
    found = [m for m in every if m.corrects is None]
    given = {m.t for m in found if m.rating is not None}
    found = [m if m.rating is None else replace(m, rating=last.get(m.t, m.rating)) for m in found]
    found += [Mark(t, "", rating) for t, rating in last.items() if t not in given]
    return sorted((m for m in found if m.rating is not None or m.text), key=lambda m: m.t)


def uncorrected(marks: Iterable[Mark]) -> list[Mark]:
    """The ratings by time as corrected, without those that another one follows within `CORRECTION` s."""
    given = [m for m in final(marks) if m.rating is not None]
    return [m for m, later in pairwise([*given, Mark(math.inf)]) if later.t - m.t > CORRECTION]


def about(marks: Iterable[Mark], t: F64) -> list[tuple[Mark, NDArray[np.intp]]]:
    """Each rating with the indices (one or more) of the windows that it is about, whose ends are `t` (n,) s, in order:
    those of the `SPAN` s before it and since the rating before it.

    Ratings without such a window, and those corrected at once, are left out.
    """
    found = []
    before = -math.inf
    for mark in uncorrected(marks):
        at = np.flatnonzero((t > max(before, mark.t - SPAN)) & (t <= mark.t))
        before = mark.t
        if at.size:
            found.append((mark, at))
    return found


def rated_windows(marks: Iterable[Mark], t: F64, logits: F64, without: F64, began: float = 0.0) -> list[Rated]:
    """Each rating with the network's results that it is `about`. began: what is added to its time and their ends, s."""
    return [
        Rated(began + mark.t, mark.rating, began + t[at], logits[at], without[at])
        for mark, at in about(marks, t)
        if mark.rating is not None
    ]


def split(rated: Sequence[Rated], window: float, painful: int = PAINFUL) -> tuple[list[Rated], list[Rated]]:
    """(the first half of the ratings, by time, the other half). Windows of the second that share signal (`window` s)
    with the first are left out.

    Raises DataError where a half has fewer than `LEAST` ratings on a side, with the numbers.
    """
    order = sorted(rated, key=lambda r: r.t)
    half = (len(order) + 1) // 2
    support = order[:half]
    apart = [r.take(r.ends - window >= support[-1].t) for r in order[half:]] if support else []
    test = [r for r in apart if r.ends.size]
    halves = {"first": support, "second": test}
    counts = {
        name: (sum(r.rating < painful for r in part), sum(r.rating >= painful for r in part))
        for name, part in halves.items()
    }
    if min(min(pair) for pair in counts.values()) < LEAST:
        said = ", ".join(
            f"the {name} half has {low} below {painful} and {high} from {painful} on"
            for name, (low, high) in counts.items()
        )
        raise DataError(
            f"too few ratings, or too one-sided: {said}; it takes {LEAST} of each in each half by time, {4 * LEAST} in "
            "all, with results in the 10 s before them"
        )
    return support, test
