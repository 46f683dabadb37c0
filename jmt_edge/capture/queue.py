"""Samples on their way from the thread that reads a device to the loop that asks for them, and the sources of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..media.chunk import Chunk
from .base import Status
from .reconnect import Connection, Link, Supervisor, Timing

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

_LONGEST = 3600.0  # s: a longer gap is another session, not lost samples


class SampleQueue:
    """One thread puts, another takes.

    lost: samples lost since the start. overflowed: those of them that nobody took in time. waiting: samples put and not
    taken.
    """

    def __init__(self) -> None:
        self.lost = self.overflowed = self.waiting = 0
        self._lock = threading.Lock()
        self._parts: deque[tuple[Float64, Float32]] = deque()
        self._untold = 0  # lost since the last `take`
        self._newest = -np.inf  # time of the newest sample, for `put_advancing`

    def put(self, times: Float64, values: Float32, lost: int, most: float) -> None:
        """times: (n,) increasing; values: (n,). Keeps at most about `most` samples, the newest."""
        with self._lock:
            if len(times):
                self._parts.append((times, values))
                self.waiting += len(times)
            while self.waiting > most and len(self._parts) > 1:
                dropped = len(self._parts.popleft()[0])
                self.waiting -= dropped
                self.overflowed += dropped
                lost += dropped
            self._untold += lost
            self.lost += lost

    def put_advancing(self, times: Float64, values: Float32, period: float, most: float) -> None:
        """`put` for a device that only stamps its samples: those whose time does not advance are dropped and counted
        as lost, and so are those that are missing where samples follow each other every `period` s (0: unknown)."""
        reached = np.maximum.accumulate(np.concatenate([[self._newest], times]))
        ahead = times > reached[:-1]
        lost = int((~ahead).sum())
        times, values = times[ahead], values[ahead]
        if period and len(times):
            steps = np.diff(times, prepend=self._newest if np.isfinite(self._newest) else times[0])
            gaps = steps[(steps > 1.5 * period) & (steps < _LONGEST)]
            lost += int((np.rint(gaps / period) - 1).sum())
        self._newest = float(reached[-1])
        self.put(times, values, lost, most)

    def take(self, until: float) -> tuple[Float64, Float32, int]:
        """(times <= `until`, their values, samples lost since the last call)."""
        times, values = [np.empty(0)], [np.empty(0, np.float32)]
        with self._lock:
            while self._parts:
                t, v = self._parts[0]
                n = int(np.searchsorted(t, until, side="right"))
                times.append(t[:n])
                values.append(v[:n])
                self.waiting -= n
                if n < len(t):
                    self._parts[0] = (t[n:], v[n:])
                    break
                self._parts.popleft()
            lost, self._untold = self._untold, 0
        return np.concatenate(times), np.concatenate(values), lost


class QueuedEda:
    """Common to EDA devices that a thread reads into a queue. `now` is the host's clock, for tests."""

    modality = "eda"
    realtime = True
    KEPT = 60.0  # s of samples kept for a reader that does not come; the oldest go first, counted as lost

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection],
        timing: Timing | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._now = name, now
        self.link = Link(timing, now)
        self._supervisor = Supervisor(connect, self.link, f"eda {name}")
        self._queue = SampleQueue()
        self._origin = 0.0
        self._rate = 0.0  # nominal, Hz; 0 where unknown

    def read(self, until: float) -> Chunk:
        times, values, lost = self._queue.take(until)
        return Chunk(times, values, self._rate, lost)

    def status(self) -> Status:
        """What every such device says; a source adds its own."""
        link, queue = self.link, self._queue
        status = Status(link.state, link.reason, lost=queue.lost, reconnects=link.reconnects, unit="µS")
        status.detail = {"overflowed": queue.overflowed}
        return status

    def close(self) -> None:
        self._supervisor.stop()
