"""A board on a pseudo-terminal: runs a firmware in real time; loses, corrupts, delays, stalls, unplugs on request."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...faults import Steady
from .firmware import Firmware
from .signal import Signal

_STEP = 0.005  # s

Span = tuple[float, float]  # begins after s, lasts s


@dataclass(frozen=True)
class Faults:
    """drop: share of frames or lines lost; corrupt: share of bytes replaced; drift: ppm that the board's clock runs
    fast; jitter: mean and standard deviation of the exponential delay of each burst, s; stall, unplug: spans."""

    drop: float = 0.0
    corrupt: float = 0.0
    drift: float = 0.0
    jitter: float = 0.0
    stall: tuple[Span, ...] = ()
    unplug: tuple[Span, ...] = ()


class SimulatedBoard:
    """`with SimulatedBoard(CsvFirmware(), open_signal()) as board:` streams at `board.path` until the end of the block.

    link: a symbolic link kept on the pseudo-terminal, so that a replugged board has the same path.
    speed: board seconds per second of the host.
    Sample `n` is taken at host time (time.monotonic) `stream_start + n / rate / (1 + drift)`, at speed 1.
    """

    def __init__(
        self,
        firmware: Firmware,
        signal: Signal,
        faults: Faults | None = None,
        *,
        seed: int = 0,
        link: Path | None = None,
        speed: float = 1.0,
    ) -> None:
        self.firmware, self._signal, self._faults = firmware, signal, faults or Faults()
        self._random = np.random.default_rng(seed)
        self._link, self._speed = link, speed
        self._start = time.monotonic()
        self._fds: tuple[int, int] | None = None
        self._pending: deque[tuple[float, bytes]] = deque()
        self._next = 0
        self._running = False
        self._began = 0.0  # board seconds at which streaming last began
        self.pty = ""
        self.sent = self.dropped = self.corrupted = 0
        self._stop = threading.Event()
        self._thread = Steady(self.run, "simulated board", self._stop)
        self.plug()

    @property
    def path(self) -> str:
        """Where to open the board."""
        return str(self._link) if self._link else self.pty

    @property
    def stream_start(self) -> float:
        """Host time of sample 0 of the current or last stream."""
        return self._start + self._began / self._speed

    def __enter__(self) -> SimulatedBoard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def run(self, duration: float = float("inf")) -> None:
        """Run for `duration` host seconds, then unplug."""
        end = time.monotonic() + duration
        try:
            while not self._stop.is_set() and time.monotonic() < end:
                self._step((time.monotonic() - self._start) * self._speed)
                self._stop.wait(_STEP)
        finally:
            self.unplug()

    def plug(self) -> None:
        """Power up on a new pseudo-terminal."""
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        self._fds = master, slave
        self.pty = os.ttyname(slave)
        if self._link:
            fresh = self._link.with_name(f".{self._link.name}.{os.getpid()}")
            with suppress(FileNotFoundError):
                fresh.unlink()
            fresh.symlink_to(self.pty)
            fresh.replace(self._link)
        self.firmware.reset()
        self._pending.clear()
        self._running = False

    def unplug(self) -> None:
        """Vanish; does nothing if not plugged in."""
        if self._fds is None:
            return
        for fd in self._fds:
            os.close(fd)
        self._fds = None
        if self._link:
            with suppress(FileNotFoundError):
                self._link.unlink()

    def _step(self, now: float) -> None:
        if _within(now, self._faults.unplug):
            self.unplug()
            return
        if self._fds is None:
            self.plug()
        stalled = _within(now, self._faults.stall)
        with suppress(BlockingIOError, OSError):
            commands = os.read(self._fds[0], 4096)  # type: ignore[index]
            if not stalled:
                self._write(self.firmware.receive(commands))
        if not self.firmware.streaming:
            self._running = False
            return
        if not self._running:
            self._running, self._began, self._next = True, now, 0
            self._pending.clear()
        self._sample(now, stalled)
        while self._pending and self._pending[0][0] <= now:
            self._write(self._pending.popleft()[1])

    def _sample(self, now: float, stalled: bool) -> None:
        elapsed = (now - self._began) * (1 + self._faults.drift * 1e-6)
        own = self._signal.times
        if own is None:
            numbers = np.arange(self._next, int(elapsed * self.firmware.rate) + 1)
            times = numbers / self.firmware.rate
        else:
            numbers = np.arange(self._next, int(np.searchsorted(own, elapsed, side="right")))
            times = own[numbers]
        if not len(numbers):
            return
        self._next = int(numbers[-1]) + 1
        if stalled:
            return
        burst = b""
        for n, t, us in zip(numbers.tolist(), times.tolist(), self._signal.at(times).tolist()):
            frame = self.firmware.sample(n, t, us)
            if self._faults.drop and self._random.random() < self._faults.drop:
                self.dropped += 1
            else:
                burst += frame
                self.sent += 1
        if self._faults.corrupt:
            raw = np.frombuffer(burst, np.uint8).copy()
            hit = self._random.random(len(raw)) < self._faults.corrupt
            raw[hit] ^= self._random.integers(1, 256, int(hit.sum()), dtype=np.uint8)
            self.corrupted += int(hit.sum())
            burst = raw.tobytes()
        delay = float(self._random.exponential(self._faults.jitter)) if self._faults.jitter else 0.0
        earliest = self._pending[-1][0] if self._pending else 0.0
        self._pending.append((max(now + delay, earliest), burst))

    def _write(self, data: bytes) -> None:
        # a full buffer means that nothing is reading: the bytes are lost, as on a wire
        with suppress(BlockingIOError, OSError):
            if self._fds and data:
                os.write(self._fds[0], data)


def _within(now: float, spans: tuple[Span, ...]) -> bool:
    return any(at <= now < at + span for at, span in spans)
