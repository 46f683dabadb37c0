"""Time stamps of a recording, made into one increasing time: bursts, wild stamps, clocks that step.

Nothing here allocates by what the stamps say, only by how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

LONGEST_BURST = 1.5  # s between two groups of stamps that are one stream, read in portions
MAX_GAP = 60.0  # s: a longer step forward is a clock that was set, or a pause; it is shortened to BREAK
_MANY, _PIECE = 200_000, 5_000  # samples: how many are looked at, and in pieces of how many
BREAK = 1.0  # s left where the true length of a step is unknown: too long to interpolate across
OVERLAP = 1.0  # s: a smaller step back is rows out of order or sent twice
MAX_NOTES = 5  # steps that are described one by one
MIN_RUN = 5  # samples in a row that agree with each other and so are believed


@dataclass
class Spacing:
    """How stamps follow one another. period: between samples, in the stamps' unit, 0 where unknown.

    starts: indices at which the groups of samples begin that were stamped together; None without such groups.
    """

    period: float = 0.0
    starts: NDArray[np.int64] | None = None


def spacing(stamps: F64) -> Spacing:
    """`stamps`: (n,) finite, of any unit.

    Stamps come in groups where most steps are far below the mean one: a host that reads ten lines at once stamps them
    microseconds apart, a clock in whole seconds stamps them alike. The largest five steps may be gaps or errors.
    """
    part, joints = stamps, 0
    if len(stamps) > _MANY:  # a few pieces of a long recording say as much, and cost no memory
        part = np.concatenate([stamps[i : i + _PIECE] for i in range(0, len(stamps), len(stamps) // (_MANY // _PIECE))])
        joints = len(part) // _PIECE
    steps = np.diff(part)
    forward = np.sort(steps[steps >= 0])
    if len(forward) < 1:
        return Spacing()
    middle = float(forward[len(forward) // 2])
    if len(forward) < 10:
        return Spacing(middle)
    mean = float(forward[: len(forward) - 5 - joints if len(forward) > 50 else None].mean())
    if middle >= 0.2 * mean and float((steps == 0).mean()) <= 0.1:
        return Spacing(middle)
    steps = np.diff(stamps)
    starts = np.concatenate([[0], np.flatnonzero((steps > mean / 2) | (steps < 0)) + 1])
    if len(starts) < 4:
        return Spacing(middle)
    apart, sizes = np.diff(stamps[starts]), np.diff(starts)
    ahead = apart > 0
    if not ahead.any():
        return Spacing(middle)
    period = float(np.median(apart[ahead] / sizes[ahead]))
    alike = float((steps == 0).mean()) > 0.1
    grouped = len(stamps) >= 1.8 * len(starts) and middle < 0.2 * period
    return Spacing(period, starts) if alike or grouped else Spacing(middle)


def respaced(times: F64, groups: Spacing) -> F64:
    """(n,) s, with the samples of each group spread evenly up to the next group's stamp."""
    assert groups.starts is not None
    starts, period = groups.starts, groups.period
    sizes = np.diff(np.append(starts, len(times)))
    apart = np.append(np.diff(times[starts]), np.inf)
    far = (apart <= 0) | (apart > LONGEST_BURST)
    step = np.where(far, period, apart / sizes)
    within = np.arange(len(times)) - np.repeat(starts, sizes)
    out = np.repeat(times[starts], sizes) + within * np.repeat(step, sizes)
    first = int(sizes[0])
    if not far[0] and first < 0.8 * np.median(sizes):  # the recording began in the middle of a group
        out[:first] = times[starts[1]] - period * np.arange(first, 0, -1)
    return np.asarray(out)


@dataclass
class Straightened:
    """times: (n,) s, increasing where `kept`. counts: what was dropped, by reason. moved: samples whose time was
    changed. notes: what was done, in words."""

    times: F64
    kept: NDArray[np.bool_]
    counts: dict[str, int] = field(default_factory=dict)
    moved: int = 0
    notes: list[str] = field(default_factory=list)


def straighten(times: F64, rows: NDArray[np.int32]) -> Straightened:
    """One increasing time out of (n,) finite `times` (s) of the file's `rows`.

    Runs of stamps that follow one another within MAX_GAP are compared with the time reached so far. A run that
    continues it stays as it is. One that starts up to OVERLAP before it loses the rows that are there already. Any
    other run of MIN_RUN samples is a clock that stepped: it continues BREAK after the last sample. A shorter one is
    wild stamps: dropped. Times without any of this are returned untouched.
    """
    found = Straightened(times, np.ones(len(times), bool))
    broken = ~(times[1:] > times[:-1])
    broken |= times[1:] > times[:-1] + MAX_GAP
    edges = np.flatnonzero(broken) + 1
    if not len(edges):
        return found
    bounds = np.concatenate([[0], edges, [len(times)]]).tolist()
    runs = list(pairwise(bounds))
    if any(b - a >= MIN_RUN for a, b in runs):
        first = next(i for i, (a, b) in enumerate(runs) if b - a >= MIN_RUN)
    else:
        first = 0
    out = times.copy()
    last, offset = -np.inf, 0.0
    for i, (a, b) in enumerate(runs):
        begins = float(times[a]) + offset
        if not np.isfinite(last):
            ahead = float(times[runs[first][0]]) - float(times[b - 1])
            if i < first and not 0 < ahead <= MAX_GAP:
                _drop(found, a, b, rows, "wild stamps", "a wild time stamp")
                continue
        elif not last < begins <= last + MAX_GAP:
            if last - OVERLAP <= begins <= last:
                late = a + int(np.searchsorted(times[a:b] + offset, last, side="right"))
                _drop(found, a, late, rows, "repeated stamps", "a time stamp that does not advance")
                if late == b:
                    continue
                a = late
            elif b - a >= MIN_RUN:
                moved = begins - last
                offset += last + BREAK - begins
                found.counts["clock steps"] = found.counts.get("clock steps", 0) + 1
                way = "ahead" if moved > 0 else "back"
                if found.counts["clock steps"] <= MAX_NOTES:
                    found.notes.append(
                        f"row {rows[a]}: the clock stepped {way} by {abs(moved):.6g} s; the recording continues "
                        f"{BREAK:g} s after the row before"
                    )
            else:
                _drop(found, a, b, rows, "wild stamps", "a wild time stamp")
                continue
        if offset:
            out[a:b] = times[a:b] + offset
            found.moved += b - a
        last = float(out[b - 1])
    found.times = out
    return found


def _drop(found: Straightened, a: int, b: int, rows: NDArray[np.int32], name: str, what: str) -> None:
    found.kept[a:b] = False
    if name not in found.counts:
        found.notes.append(f"row {rows[a]}: {what}; such rows are dropped")
    found.counts[name] = found.counts.get(name, 0) + b - a
