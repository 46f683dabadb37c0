"""Requests to a running loop, from any thread: terminal keys, standard input, the page."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from .errors import ConfigError
from .tasks import LONGEST_REST, SHORTEST_REST


def check_rest(seconds: float) -> None:
    """Raises ConfigError for a rest that is too short to say anything, or longer than anybody rests."""
    if not SHORTEST_REST <= seconds <= LONGEST_REST:
        raise ConfigError(f"a rest of {seconds:g} s is out of range; choose {SHORTEST_REST:g} to {LONGEST_REST:g} s")


SUBJECT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}"  # a person's code


def check_subject(code: str) -> None:
    """Raises ConfigError for what is no code of a person."""
    if not re.fullmatch(SUBJECT, code):
        raise ConfigError("a person's code has 1 to 32 letters, digits, `.`, `_` or `-`, and is not a name")


class RecorderSwitch(Protocol):
    """The recorder as `Controls` switches it; `start` and `stop` come from the loop's thread."""

    @property
    def active(self) -> bool: ...

    @property
    def folder(self) -> Path:
        """Of the recording that is being written, or the last one."""
        ...

    @property
    def state(self) -> str:
        """In words: where it is recording, `off`, or why it stopped."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def begin_session(self, subject: str, *, record: bool) -> None:
        """See `recording.recorder.Recorder.begin_session`."""
        ...

    def alarm(self, key: str, line: dict[str, Any], *, lasts: bool) -> None:
        """From any thread: see `recording.recorder.Recorder.alarm`."""
        ...


class Controls:
    """Thread-safe requests to a running loop. A request takes effect at the loop's next pull, within ~50 ms."""

    MAX_WAITING = 1000  # requests that the loop has not seen yet; more are refused

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._calls: deque[Callable[[], None]] = deque()
        self._marks: deque[tuple[float, str, int | None, float | None]] = deque()
        self._rests: deque[float] = deque(maxlen=1)  # s, 0 to forget the last one; the newest request counts
        self.recording: RecorderSwitch | None = None  # set before the run, where there is a recorder
        self.failure = ""  # why the run was stopped, where that is an error

    # --- from any thread -------------------------------------------------------------------------------------------
    def stop(self, failure: str = "") -> None:
        """End the run cleanly after the window in progress. failure: the error that makes it end."""
        self.failure = self.failure or failure
        self._stop.set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def mark(
        self, text: str = "", rating: int | None = None, *, age: float = 0.0, corrects: float | None = None
    ) -> None:
        """Add a mark now, or of `age` s ago; what UTF-8 cannot hold becomes `?`. corrects: as of `Mark`.

        Raises ConfigError for a rating outside 0-10, or when too many marks are waiting.
        """
        if rating is not None and not 0 <= rating <= 10:
            raise ConfigError(f"a pain rating is a number from 0 to 10, not {rating}; rate again")
        if len(self._marks) >= self.MAX_WAITING:
            raise ConfigError("too many marks are waiting; slow down")
        self._marks.append((time.monotonic() - age, text.encode(errors="replace").decode(), rating, corrects))

    def rate(self, rating: int) -> None:
        """Add a pain rating 0-10 now."""
        self.mark(rating=rating)

    def rest(self, seconds: float) -> None:
        """The person rests for so many seconds from now on, see `live.rest`. Raises as `check_rest`."""
        check_rest(seconds)
        self._rests.append(seconds)

    def begin_session(self, subject: str, *, record: bool, rest: bool) -> None:
        """Another person's session begins. subject: a code, "" where none is given; record: a recording of its own
        begins, else none continues; rest: what was measured at rest last is this person's, else it is forgotten.

        Raises ConfigError for a code that is none, and where there is no recorder to record with.
        """
        if subject:
            check_subject(subject)
        if record:
            self._demand_recorder()
        if (recorder := self.recording) is not None:
            self.call(lambda: recorder.begin_session(subject, record=record))
        if not rest:
            self._rests.append(0.0)
        self.mark("session begins")

    @property
    def is_recording(self) -> bool:
        return self.recording is not None and self.recording.active

    @property
    def part(self) -> Path | None:
        """The recording that is being written."""
        return self.recording.folder if self.recording is not None and self.recording.active else None

    def start_recording(self) -> None:
        self._record("start")

    def stop_recording(self) -> None:
        self._record("stop")

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` in the loop's thread."""
        if len(self._calls) >= self.MAX_WAITING:
            raise ConfigError("too many requests are waiting; slow down")
        self._calls.append(function)

    def _record(self, action: str) -> None:
        self.call(getattr(self._demand_recorder(), action))

    def _demand_recorder(self) -> RecorderSwitch:
        if self.recording is None:
            raise ConfigError("this run has no recorder; start it with --record DIR")
        return self.recording

    # --- from the loop ---------------------------------------------------------------------------------------------
    def wait(self, seconds: float) -> bool:
        """Sleep until `seconds` have passed or the run is stopped; True when stopped."""
        return self._stop.wait(max(0.0, seconds))

    def run_calls(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def take_rest(self) -> float | None:
        """Seconds of the rest asked for since the last call, 0 to forget the last one; None where none was."""
        return self._rests.popleft() if self._rests else None

    def take_marks(self) -> list[tuple[float, str, int | None, float | None]]:
        """(time.monotonic() of the mark, text, rating, what it corrects) since the last call, oldest first."""
        taken = []
        while self._marks:
            taken.append(self._marks.popleft())
        return taken
