"""The ratings of a run, for page and terminal: as corrected, beside the estimates before them, when to ask for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..observer import Mark
from ..recording.agreement import LEAST, SEVERE, agreement
from ..recording.alarm_events import AlarmEvent
from ..recording.gaps import F64
from ..recording.ratings import SPAN, final, uncorrected

KEPT = 1000  # ratings and corrections
UNDO = 5.0  # s in which a rating can be undone: the page and the terminal view send it then
MAX_AGE = 60.0  # s after which a rating that did not reach the server is too old to be sent
RECENT = MAX_AGE + SPAN  # s of estimates that a rating which is still to come may be about
ASKED = 600.0  # s after an alarm's end for which a rating is asked for


class Ratings:
    """The ratings of one run. One thread calls all of it.

    every: minutes after a rating at which the next one is asked for; 0: none is.
    """

    def __init__(self, every: int = 0) -> None:
        self.every = every
        self.marks: deque[Mark] = deque(maxlen=KEPT)
        self._parts: dict[float, Path | None] = {}  # t of a rating -> the recording that holds it
        self._recent: deque[tuple[float, float]] = deque()  # (end s, pain) of windows
        self._about: deque[tuple[float, float]] = deque()  # older ones that a rating is about
        self._begin: float | None = None  # s, of the first window

    def add(self, mark: Mark, part: Path | None) -> None:
        """A mark; `part`: the recording that holds it, None where nothing is recorded."""
        if mark.rating is None and mark.corrects is None:
            return
        if len(self.marks) == KEPT:
            self._parts.pop(self.marks[0].t, None)
        self.marks.append(mark)
        if mark.corrects is None:
            self._parts[mark.t] = part

    def window(self, t: float, pain: float | None) -> None:
        """A result: the end of its window, and the pain probability."""
        self._begin = t if self._begin is None else self._begin
        if pain is not None:
            self._recent.append((t, pain))
        while self._recent and self._recent[0][0] < t - RECENT:
            old = self._recent.popleft()
            if any(0 <= mark.t - old[0] < SPAN for mark in self.marks):
                self._about.append(old)
        if len(self.marks) == KEPT:  # some were forgotten, and so are their windows
            oldest = min(mark.t for mark in self.marks)
            while self._about and self._about[0][0] < oldest - SPAN:
                self._about.popleft()

    @property
    def given(self) -> list[Mark]:
        """As `uncorrected`."""
        return uncorrected(self.marks)

    def values(self) -> list[list[float]]:
        """[s, 0-10] of each rating as corrected."""
        return [[round(mark.t, 3), mark.rating] for mark in self.given if mark.rating is not None]

    def find(self, t: float) -> Mark | None:
        """The rating given at `t`, in ms, with its present value; None where there is none, or it was withdrawn."""
        return next((mark for mark in final(self.marks) if round(mark.t, 3) == round(t, 3)), None)

    def lost(self, mark: Mark, part: Path | None) -> str:
        """Why a correction of this rating would be lost while `part` is being recorded; empty where it is not."""
        there = self._parts.get(mark.t)
        if there == part:
            return ""
        if there is None:
            return "that rating was given while nothing was recorded, so it cannot be corrected; rate again"
        return f"that rating is in the recording {there.name}, which has ended; write a note instead"

    def agreement(self, limits_at: Callable[[F64], F64 | None]) -> dict[str, Any]:
        """`agreement` of the ratings with the estimates as plain JSON values; `lines` as the report has it.

        limits_at: times (n,) s -> the alarm's threshold at each; None where there is none.
        enough: whether there are enough ratings for a correlation, of which it takes `least`.
        """
        windows = np.array([*self._about, *self._recent], np.float64).reshape(-1, 2)
        found = agreement(self.marks, windows[:, 0], windows[:, 1], limits_at(windows[:, 0]))
        return {
            **asdict(found), "lines": found.lines(), "enough": found.n >= LEAST, "least": LEAST, "severe_from": SEVERE,
        }  # fmt: skip

    def question(self, now: float, alarm: AlarmEvent | None) -> dict[str, Any] | None:
        """What to ask a person for at `now` (s), None for nothing: after a pain alarm's end, and every so many minutes.

        alarm: the newest event about the person. `id` stays the same until it is answered or asked again; `since`: s;
        `why`: `alarm` or `time`.
        """
        last = max((mark.t for mark in self.given), default=None)
        end = None if alarm is None else alarm.end
        if alarm is not None and end is not None and now - end <= ASKED and (last is None or last < end):
            return {"id": alarm.id, "why": "alarm", "since": end}
        if self.every and self._begin is not None:
            began = self._begin if last is None else last
            times = int((now - began) // (60 * self.every))
            if times > 0:
                due = began + 60 * self.every * times
                return {"id": f"time-{due:.0f}", "why": "time", "since": round(due, 3), "minutes": self.every}
        return None
