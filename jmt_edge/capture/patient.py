"""Files on a mount that may stall: opened and read in a thread of their own, so that the caller stays in control."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ..faults import Steady
from ..media.chunk import Chunk, empty_chunk
from .base import Source, State, Status

FIRST = 2.0  # s that a call is waited for: no decoder is that slow, only a disk
AGAIN = 0.05  # s that `read` waits for a call that has not come back


class Patient:
    """`source`, whose calls are waited for in short pieces.

    A call that takes longer continues in its thread: `read` then returns nothing and `status` is STALLED, and the next
    `read` waits for the same call. What the call raises is raised by the `read` that finds it done. A signal is handled
    between two pieces, which a thread inside a file system's call cannot do.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.modality, self.name, self.realtime = source.modality, source.name, source.realtime
        self._call: Callable[[], Any] | None = None
        self._given, self._taken = threading.Semaphore(0), threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        self._waiting = ""  # what has not come back yet
        self._since = 0.0
        self._thread = Steady(self._work, f"file {source.name}")

    def _work(self) -> None:
        while True:
            self._given.acquire()
            if self._call is None:
                return
            try:
                self._result = self._call()
            except BaseException as error:
                self._error = error
            self._taken.set()

    def _start(self, what: str, call: Callable[[], Any]) -> None:
        self._call, self._waiting, self._since = call, what, time.monotonic()
        self._taken.clear()
        self._given.release()

    def _done(self, seconds: float) -> bool:
        """Whether the call came back within `seconds`; raises what it raised."""
        if not self._taken.wait(seconds):
            return False
        self._waiting = ""
        if (error := self._error) is not None:
            self._error = None
            raise error
        return True

    @property
    def pending(self) -> bool:
        """A call has not come back."""
        return bool(self._waiting)

    def open(self, origin: float) -> None:
        self._thread.start()
        self._start("opened", lambda: self._source.open(origin))
        self._done(FIRST)

    def read(self, until: float) -> Chunk:
        if self._waiting == "opened" and not self._done(AGAIN):
            return empty_chunk(self.modality)
        seconds = AGAIN if self._waiting else FIRST
        if not self._waiting:
            self._start("read", lambda: self._source.read(until))
        if not self._done(seconds):
            return empty_chunk(self.modality)
        chunk: Chunk = self._result
        return chunk

    def status(self) -> Status:
        if not self._waiting:
            return self._source.status()
        silence = time.monotonic() - self._since
        return Status(
            State.STALLED, f"{self.name} is being {self._waiting} for {silence:.1f} s; its disk does not answer"
        )

    def close(self) -> None:
        """Close the source; one whose call has not come back is left to its thread."""
        if self._waiting:
            return
        self._source.close()
        self._call = None
        self._given.release()
