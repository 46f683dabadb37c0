"""The course of the outputs over hours, in bounded memory: their lowest, mean and highest value in bins of time.

Times are stream times of a run, and Unix seconds of what was recorded before it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import SourceError
from ...observer import Mark
from ...recording.ratings import uncorrected
from ...recording.reader import Recording

# (s of a bin, s kept): a screen's width of bins for an hour, a shift, two days
LEVELS = ((4.0, 1.5 * 3600), (30.0, 12 * 3600.0), (120.0, 48 * 3600.0))
RATINGS = 1000
MOST_PARTS = 200  # of a session that is continued
TURN = 32  # results, between two pauses


@dataclass
class _Bin:
    index: int
    windows: int = 0  # results, those without outputs included
    count: int = 0
    low: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def add(self, values: list[float] | None) -> None:
        self.windows += 1
        if values is None:
            return
        self.count += 1
        if self.count == 1:
            self.low, self.total, self.high = list(values), list(values), list(values)
            return
        for i, value in enumerate(values):
            self.low[i] = min(self.low[i], value)
            self.total[i] += value
            self.high[i] = max(self.high[i], value)


class History:
    """Bins of the outputs named `outputs` at each of `LEVELS`, and the ratings."""

    def __init__(self, outputs: Iterable[str]) -> None:
        self.outputs = tuple(outputs)
        self._levels: list[deque[_Bin]] = [deque(maxlen=round(kept / width)) for width, kept in LEVELS]
        self.marks: deque[Mark] = deque(maxlen=RATINGS)  # ratings and their corrections
        self.begin: float | None = None  # of the first result
        self.end = -math.inf  # of the newest

    def add(self, at: float, outputs: Mapping[str, float] | None) -> None:
        """A result at time `at`, None where it has no outputs. One that is older than the newest is left out."""
        if at < self.end:
            return
        self.begin = at if self.begin is None else self.begin
        self.end = at
        values = [float(outputs[name]) for name in self.outputs] if outputs else None
        for (width, _), bins in zip(LEVELS, self._levels, strict=True):
            index = math.floor(at / width)
            if not bins or bins[-1].index != index:
                bins.append(_Bin(index))
            bins[-1].add(values)

    def rate(self, at: float, rating: int | None, corrects: float | None = None) -> None:
        """A rating, or with `corrects` one in place of the rating of that time."""
        self.marks.append(Mark(at, "", rating, corrects))

    @property
    def ratings(self) -> list[tuple[float, int]]:
        """(time, 0-10) as corrected; without those that another one follows at once."""
        return [(mark.t, mark.rating) for mark in uncorrected(self.marks) if mark.rating is not None]

    def prepend(self, older: History) -> None:
        """Put what came before the first result in front: of a clock that was ahead then, only what fits.

        Raises ValueError where there is no result here yet: it could be older than what is put in front.
        """
        if self.begin is None:
            raise ValueError("there is no result yet")
        if older.begin is None:
            return
        begin = self.begin
        for (width, _), mine, before in zip(LEVELS, self._levels, older._levels, strict=True):
            first = mine[0].index if mine else math.inf
            fits = [b for b in before if b.index < first and b.index * width < begin]
            room = (mine.maxlen or 0) - len(mine)
            mine.extendleft(reversed(fits[len(fits) - room :] if room < len(fits) else fits))
        self.marks.extendleft(mark for mark in reversed(older.marks) if mark.t < begin)
        self.begin = min(older.begin, begin)

    def values(
        self, seconds: float | None, now: float, zero: float = 0.0, earlier: History | None = None
    ) -> dict[str, Any]:
        """What a chart of the last `seconds` (None: of all) shows, plain JSON values.

        zero: the chart's time at time 0 here. earlier: what came before this, by the times of the chart; of a clock
        that was ahead then, what fits is shown.

        `bin`: s of a bin; `from`, `to`: the span; `rows`: [start of the bin, then low, mean, high of each output] of
        the bins with outputs; `gaps`: [from, to] of every stretch without outputs; `ratings`: [time, 0-10].
        """
        here = begin = zero + (self.begin if self.begin is not None else now)
        if earlier is not None and earlier.begin is not None:
            begin = min(begin, earlier.begin)
        now += zero
        span = max(now - begin, 1.0) if seconds is None else seconds
        level = next((i for i, (_, kept) in enumerate(LEVELS) if kept >= span), len(LEVELS) - 1)
        width, kept = LEVELS[level]
        start = now - min(span, kept)
        own = self._rows(level, start, zero)
        ratings = [(zero + at, rating) for at, rating in self.ratings]
        if earlier is not None:
            first = min(here, own[0][0]) if own else here
            own = [row for row in earlier._rows(level, start) if row[0] < first - width / 2] + own
            ratings = [rated for rated in earlier.ratings if rated[0] < here] + ratings
        return {
            "bin": width, "from": round(start, 3), "to": round(now, 3), "outputs": list(self.outputs), "rows": own,
            "gaps": _gaps([row[0] for row in own], width, max(start, begin), now),
            "ratings": [[round(at, 3), rating] for at, rating in ratings if start <= at <= now],
        }  # fmt: skip

    def _rows(self, level: int, start: float, zero: float = 0.0) -> list[list[float]]:
        """The `rows` of `values` that end after `start`."""
        rows, width = [], LEVELS[level][0]
        for one in self._levels[level]:
            if one.count and zero + (one.index + 1) * width > start:
                parts = zip(one.low, one.total, one.high, strict=True)
                each = [round(v, 4) for low, total, high in parts for v in (low, total / one.count, high)]
                rows.append([round(zero + one.index * width, 3), *each])
        return rows


def _gaps(starts: list[float], width: float, begin: float, end: float) -> list[list[float]]:
    """[from, to] of what no bin covers between `begin` and `end`; the bin that is being filled is not missing yet."""
    found, at = [], begin
    for start in starts:
        if start - at > width / 2:
            found.append([round(at, 3), round(start, 3)])
        at = start + width
    if end - at > width:
        found.append([round(at, 3), round(end, 3)])
    return found


@dataclass(frozen=True)
class Recorded:
    """What was recorded of a session by Unix time, and a sentence for each part that could not be read."""

    history: History
    unread: tuple[str, ...]


def recorded(last: Path, outputs: Iterable[str], pause: Callable[[], object] = lambda: None) -> Recorded:
    """The history of a session that was recorded up to the part `last`.

    A part that cannot be read leaves a gap; of one whose clock was ahead, what fits before the later parts is taken.
    pause: called every `TURN` results, so that a reading of minutes leaves the processor to others.
    """
    history, names, unread = History(outputs), set[str](), []
    folder: Path | None = last
    while folder is not None and folder.name not in names and len(names) < MOST_PARTS:
        names.add(folder.name)
        try:
            recording = Recording(folder)
        except SourceError as error:
            unread.append(str(error))
            break  # it would have said which part is before it
        try:
            part = _part(recording, history.outputs, pause)
            if history.begin is not None:
                history.prepend(part)
            elif part.begin is not None:
                history = part
        except SourceError as error:
            unread.append(str(error))
        before = (recording.manifest.get("continues") or {}).get("recording")
        folder = folder.parent / Path(before).name if isinstance(before, str) and before else None
    return Recorded(history, tuple(unread))


def _part(recording: Recording, outputs: tuple[str, ...], pause: Callable[[], object]) -> History:
    history = History(outputs)
    if recording.origin is None or tuple(recording.manifest["outputs"]) != outputs:
        return history  # when it was is not known, or it is of another kind
    origin = recording.origin.timestamp()
    for number, line in enumerate(recording.each_result(), 1):
        history.add(origin + line["t"], line["outputs"])
        if number % TURN == 0:
            pause()
    for mark in recording.marks():
        if mark.rating is not None or mark.corrects is not None:
            history.rate(origin + mark.t, mark.rating, None if mark.corrects is None else origin + mark.corrects)
    return history
