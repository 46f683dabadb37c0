"""Results as JSON lines, and marks read from lines."""

from __future__ import annotations

import os
import sys
import threading
from typing import IO

from ..controls import Controls
from ..errors import ConfigError
from ..observer import Observer
from ..result import Result


class JsonLines(Observer):
    """One JSON line per result. When the reader closes the pipe, the run stops cleanly; when the results cannot be
    written for another reason (a full disk), it stops with that failure.
    """

    def __init__(self, file: IO[str], controls: Controls) -> None:
        self._file, self._controls = file, controls

    def on_result(self, result: Result) -> None:
        try:
            self._file.write(result.to_json() + "\n")
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


def read_marks(lines: IO[str], controls: Controls) -> threading.Thread:
    """Read marks from `lines` in a separate thread until they end; malformed lines are reported on stderr."""

    def listen() -> None:
        for line in lines:
            if controls.stopped:
                return
            if not line.strip():
                continue
            try:
                controls.mark(*parse_mark(line))
            except ConfigError as error:
                print(f"jmt-edge: {error}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=listen, name="marks", daemon=True)
    thread.start()
    return thread
