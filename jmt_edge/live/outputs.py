"""Results as JSON lines, and marks read from lines."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import IO

from ..controls import Controls
from ..errors import ConfigError
from ..faults import FAULTS, Steady, one_item
from ..observer import Observer
from ..result import Result


class JsonLines(Observer):
    """One JSON line per result. When the reader closes the pipe, the run stops cleanly; when the results cannot be
    written for another reason (a full disk), it stops with that failure.

    person: whose results they are, the first key of each line; "" in a run of one person, whose lines lack it.
    """

    _WRITING = threading.Lock()  # several people's loops write to one file

    def __init__(self, file: IO[str], controls: Controls, person: str = "") -> None:
        self._file, self._controls = file, controls
        self._begin = f'{{"person": {json.dumps(person, ensure_ascii=False)}, ' if person else "{"

    def on_result(self, result: Result) -> None:
        line = self._begin + result.to_json()[1:] + "\n"
        try:
            with self._WRITING:
                self._file.write(line)
                self._file.flush()
        except OSError as error:
            discard(self._file)
            why = f"cannot write results to standard output ({error.strerror}); make room or write them elsewhere"
            self._controls.stop("" if isinstance(error, BrokenPipeError) else why)


def discard(file: IO[str]) -> None:
    """Send what is still written to `file` nowhere: Python flushes stdout once more at exit, which must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def parse_mark(line: str) -> tuple[str, int | None]:
    """`mark TEXT`, `rate N` or just `N` (a pain rating 0-10) -> (text, rating). Raises ConfigError for all else."""
    word, _, rest = line.strip().partition(" ")
    if word == "mark":
        return rest.strip(), None
    number = rest.strip() if word == "rate" else line.strip()
    if number.isdecimal() and len(number) < 3 and int(number) <= 10:
        return "", int(number)
    raise ConfigError(f"'{line.strip()[:40]}' is not a mark; write `mark TEXT`, or a pain rating from 0 to 10")


def read_marks(lines: IO[str], controls: Controls) -> Steady:
    """Read marks from `lines` in a separate thread until they end; malformed lines are reported on stderr."""

    def listen() -> None:
        try:
            for line in lines:
                if controls.stopped:
                    return
                with one_item("marks"):
                    take(line)
        except (OSError, ValueError) as error:  # ValueError: bytes that are not text, or a closed file
            if isinstance(error, UnicodeError):
                raise  # the rest can be read
            FAULTS.add("marks", error)
            with one_item("marks"):
                print(f"jmt-edge: no more marks: {error}", file=sys.stderr, flush=True)

    def take(line: str) -> None:
        if not line.strip():
            return
        try:
            controls.mark(*parse_mark(line))
        except ConfigError as error:
            print(f"jmt-edge: {error}", file=sys.stderr, flush=True)

    thread = Steady(listen, "marks")
    thread.start()
    return thread
