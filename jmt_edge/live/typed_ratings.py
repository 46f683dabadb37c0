"""Pain ratings from single keys, with the page's rules: one waits before it is noted, and the last can be corrected."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..controls import Controls
from ..errors import ConfigError
from ..observer import Mark
from .ratings import UNDO, Ratings

KEYS = "0123456789tucw"


@dataclass(frozen=True)
class _Waiting:
    """A rating that is not noted yet. at: time.monotonic() when it was given; value: None to withdraw `corrects`."""

    value: int | None
    at: float
    corrects: Mark | None = None


class TypedRatings:
    """What the keys `KEYS` do; each answers in words. Any thread may call it.

    note: writes what is corrected to the audit log, before it is done; it raises ConfigError where it cannot.
    """

    def __init__(self, controls: Controls, note: Callable[..., None]) -> None:
        self._controls, self._note = controls, note
        self._ratings = Ratings()
        self._lock = threading.Lock()
        self._waiting: _Waiting | None = None
        self._changing: Mark | None = None  # the next rating takes its place

    def add(self, mark: Mark) -> None:
        """A mark of the run, made here or on the page."""
        with self._lock:
            self._ratings.add(mark, self._controls.part)

    def press(self, key: str) -> str:
        """Raises ConfigError where the key can do nothing now."""
        with self._lock:
            if key == "u":
                return self._undo()
            if key == "c":
                return self._change()
            if key == "w":
                return self._wait(None)
            return self._wait(10 if key == "t" else int(key))

    def turn(self, *, ending: bool = False) -> None:
        """Note what has waited long enough; all of it where the run is `ending`: the person has given it."""
        with self._lock:
            waiting = self._waiting
            if waiting is None or not (ending or time.monotonic() - waiting.at >= UNDO):
                return
            self._waiting = None
            if (old := waiting.corrects) is not None:
                self._demand_kept(old)
        if old is None:
            self._controls.mark(rating=waiting.value, age=time.monotonic() - waiting.at)
        else:  # the log may wait for its disk, which `add` must not
            self._note("correct rating", of=round(old.t, 3), before=old.rating, after=waiting.value)
            self._controls.mark(rating=waiting.value, corrects=old.t)

    def _wait(self, value: int | None) -> str:
        if value is None and self._changing is None:
            raise ConfigError("nothing to withdraw: press c first, then w withdraws the last rating")
        self._waiting = _Waiting(value, time.monotonic(), self._changing)
        corrects, self._changing = self._changing, None
        said = "withdrawn" if value is None else f"rating {value} noted" if corrects is None else f"changed to {value}"
        lost = "" if self._controls.is_recording else ", not saved: recording is off"
        return f"{said} in {UNDO:.0f} s{lost}; u undoes it"

    def _undo(self) -> str:
        waiting, changing = self._waiting, self._changing
        self._waiting = self._changing = None
        if waiting is not None:
            return (
                f"rating {waiting.value} undone" if waiting.corrects is None else "undone: the rating stays as it was"
            )
        if changing is not None:
            return "the rating stays as it was"
        raise ConfigError(f"no rating waits; c corrects the last one after its {UNDO:.0f} s")

    def _change(self) -> str:
        if self._waiting is not None:
            raise ConfigError("a rating waits; undo it with u, or type the right one")
        if not (given := self._ratings.given):
            raise ConfigError("there is no rating to correct in this run")
        self._demand_kept(given[-1])
        self._changing = given[-1]
        return f"instead of {given[-1].rating} at {given[-1].t:.1f} s: 0-9, t; w withdraws it, u keeps it"

    def _demand_kept(self, mark: Mark) -> None:
        if why := self._ratings.lost(mark, self._controls.part):
            raise ConfigError(why)
