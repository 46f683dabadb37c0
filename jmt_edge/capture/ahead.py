"""Files and simulations, read in a thread of their own, a little ahead of the run, which waits for none of them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..faults import Steady
from ..media.chunk import Chunk, empty_chunk
from ..trace import span
from .base import LazyFrames, Source, State, Status

PIECES = 20  # a second: what is read at once
# s that are read before they are due; frames are large. Half a second would be a usual hop: a simulated voice makes its
# next phrase, 30 ms of work every 4 s, where a source reads past the last one, and that must not be at a window's end
LEAD, LEAD_FACE = 0.35, 0.2
FIRST = 2.0  # s that a call is waited for: no decoder is that slow, only a disk
AGAIN = 0.05  # s that `read` waits for a call that has not come back
_SAME = 1e-9  # s


@dataclass
class _Piece:
    """What the source gave up to `end` (s), and its status then; or what it raised."""

    end: float
    chunk: Chunk
    status: Status | None
    error: BaseException | None = None


class ReadAhead:
    """`source`, whose samples are ready when they are due: decoding is not part of a window's latency.

    Samples, their order and the status are those of `source` itself, read by the caller. A call to it that takes longer
    than `FIRST` continues in its thread: `read` then returns nothing and `status` is STALLED, and the next `read` waits
    for the same call. What a call raises is raised by the `read` that needs it. A signal is handled between two waits,
    which a thread inside a file system's call cannot do.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.modality, self.name, self.realtime = source.modality, source.name, source.realtime
        self._lead = LEAD_FACE if source.modality == "face" else LEAD
        self._turn = threading.Condition()  # guards what follows
        self._pieces: deque[_Piece] = deque()
        self._opened: _Piece | None = None
        self._count = 0  # pieces read
        self._made = -math.inf  # s up to which they were read
        self._asked = 0.0
        self._since = 0.0  # when the call that is waited for began
        self._closing = False
        self._late = ""  # what has not come back yet
        self._status = Status(State.CONNECTING)
        self._thread = Steady(self._work, f"source {source.modality} {source.name}")

    # ---- the thread

    def _work(self) -> None:
        while (until := self._next()) is not None:
            with span("read ahead", source=self.modality):
                piece = self._call(until)
            with self._turn:
                if self._opened is None:
                    self._opened = piece
                    self._made = math.inf if piece.error else -math.inf
                else:
                    self._pieces.append(piece)
                    self._count += 1
                    ended = piece.status is not None and piece.status.state is State.ENDED
                    self._made = math.inf if ended else piece.end
                self._turn.notify_all()
        self._source.close()

    def _next(self) -> float | None:
        """How far to read now; None where the source is to be closed. Waits while it is far enough ahead."""
        with self._turn:
            while not self._closing and self._opened is not None and self._made >= self._asked + self._lead:
                self._turn.wait()
            self._since = time.monotonic()
            return None if self._closing else (self._count + 1) / PIECES

    def _call(self, until: float) -> _Piece:
        try:
            if self._opened is None:
                self._source.open(self._origin)
                return _Piece(0.0, empty_chunk(self.modality), self._source.status())
            return _Piece(until, self._source.read(until), self._source.status())
        except BaseException as error:
            return _Piece(until, empty_chunk(self.modality), None, error)

    # ---- the caller

    @property
    def pending(self) -> bool:
        """A call has not come back."""
        return bool(self._late)

    def open(self, origin: float) -> None:
        self._origin = origin
        self._since = time.monotonic()
        self._thread.start()
        self._wait_open(FIRST)

    def _wait_open(self, seconds: float) -> bool:
        with self._turn:
            done = self._turn.wait_for(lambda: self._opened is not None, seconds)
            self._late = "" if done else "opened"
            if not done or self._opened is None:
                return False
            self._status = self._opened.status or self._status
            if self._opened.error is not None:
                raise self._opened.error
        return True

    def read(self, until: float) -> Chunk:
        if self._late == "opened" and not self._wait_open(AGAIN):
            return empty_chunk(self.modality)
        with self._turn:
            self._asked = max(self._asked, until)
            self._turn.notify_all()
            done = self._turn.wait_for(lambda: self._made >= until - _SAME, AGAIN if self._late else FIRST)
            self._late = "" if done else "read"
            return self._take(until) if done else empty_chunk(self.modality)

    def _take(self, until: float) -> Chunk:
        """The samples up to `until`, of which all have been read."""
        chunks = []
        while self._pieces:
            piece = self._pieces[0]
            if piece.error is not None:
                self._pieces.popleft()
                raise piece.error
            whole = piece.end <= until + _SAME
            n = len(piece.chunk) if whole else int(np.searchsorted(piece.chunk.times, until + _SAME, side="right"))
            if n < len(piece.chunk) or not whole:
                chunks.append(_part(piece.chunk, slice(n)))
                piece.chunk = _part(piece.chunk, slice(n, None), piece.chunk.lost)
                break
            chunks.append(piece.chunk)
            self._status = piece.status or self._status
            self._pieces.popleft()
        return _joined(chunks) if chunks else empty_chunk(self.modality)

    def status(self) -> Status:
        with self._turn:
            if not self._late:
                return self._status
            silence = time.monotonic() - self._since
        return Status(State.STALLED, f"{self.name} is being {self._late} for {silence:.1f} s; its disk does not answer")

    def close(self) -> None:
        """Close the source; one whose call has not come back is left to its thread, which closes it then."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        if self._thread.is_alive():
            self._thread.join(0.0 if self._late else FIRST)


def _part(chunk: Chunk, rows: slice, lost: int = 0) -> Chunk:
    return Chunk(chunk.times[rows], chunk.values[rows], chunk.rate, lost)


def _joined(chunks: list[Chunk]) -> Chunk:
    """One chunk of several that follow each other."""
    if len(chunks) == 1:
        return chunks[0]
    values: Any = [c.values for c in chunks]
    if isinstance(values[0], np.ndarray):
        values = np.concatenate(values)
    else:
        values = LazyFrames.joined(values)
    return Chunk(np.concatenate([c.times for c in chunks]), values, chunks[-1].rate, sum(c.lost for c in chunks))
