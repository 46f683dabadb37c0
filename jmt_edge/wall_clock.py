"""Wall time of a run's seconds.

A run counts seconds on the monotonic clock, which nobody can set. The system's clock can be wrong when the run begins
and be set later, so a `WallClock` is read again during the run, and what has a time of day asks it: a second of the run
has the time that the system's clock, as it was set last, gives it.
"""

from __future__ import annotations

import time

STEP = 0.1  # s by which the system's clock must differ to count as set; NTP changes its rate for less


class WallClock:
    """offset: Unix time at which the monotonic clock reads 0. One thread calls `reread`, any other the rest."""

    def __init__(self) -> None:
        self.offset = _offset()

    def at(self, monotonic: float) -> float:
        """Unix time at which `time.monotonic()` was `monotonic`."""
        return self.offset + monotonic

    def reread(self) -> float:
        """Read the system's clock again: the seconds by which it was set forward since the last reading, else 0.

        The monotonic clock does not run while the machine sleeps, so a sleep looks like a step.
        """
        step = (now := _offset()) - self.offset
        if abs(step) < STEP:
            return 0.0
        self.offset = now
        return step


def _offset() -> float:
    """The two clocks are read at once, or nearly: of a few tries, the one that took the shortest."""
    found = []
    for _ in range(3):
        before = time.monotonic()
        wall = time.time()
        after = time.monotonic()
        found.append((after - before, wall - before))
    return min(found)[1]


def in_words(step: float) -> str:
    """`set forward by 1:28:00` or `set back by 2.5 s`."""
    size = abs(step)
    whole = round(size)
    said = f"{size:.1f} s" if size < 60 else f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"set {'forward' if step > 0 else 'back'} by {said}"
