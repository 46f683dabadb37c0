"""Signals as the page draws them: a bounded number of points, and a cursor for each client."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...recording.gaps import GAP

F64 = NDArray[np.float64]

EDA_RATE, VOICE_RATE = 16.0, 30.0  # points per second
EDA_SECONDS, VOICE_SECONDS = 90.0, 15.0
KINDS = {"eda": 0, "voice": 1}
FLOOR = -90.0  # dBFS


class Trace:
    """The newest `size` points (t, value) of one signal; NaN breaks the line."""

    def __init__(self, rate: float, seconds: float) -> None:
        self._rate = rate
        self._size = int(rate * seconds) + 1
        self._t = np.zeros(self._size)
        self._v = np.full(self._size, np.nan, np.float32)
        self.count = 0  # points so far; the cursor of a client that has seen all
        self._bin: int | None = None  # the bin being filled
        self._sum, self._n, self._seen = 0.0, 0, 0
        self._last = -np.inf

    def add(self, times: F64, values: F64) -> None:
        """Average samples (n,) into bins of 1 / rate seconds. A bin without a finite sample is NaN."""
        bins = np.floor(times * self._rate).astype(np.int64)
        edges = [0, *(np.flatnonzero(np.diff(bins)) + 1).tolist(), len(bins)]
        for start, stop in pairwise(edges):
            index = int(bins[start])
            if self._bin is not None and index != self._bin:
                self._close()
            self._bin = index
            part = values[start:stop]
            finite = part[np.isfinite(part)]
            self._sum += float(finite.sum())
            self._n += len(finite)

    def since(self, cursor: int) -> tuple[F64, NDArray[np.float32], int]:
        """(t, value, new cursor) of the points after `cursor` that are still kept."""
        first = max(cursor, self.count - self._size, 0)
        at = np.arange(first, self.count) % self._size
        return self._t[at], self._v[at], self.count

    def _close(self) -> None:
        assert self._bin is not None
        t = (self._bin + 0.5) / self._rate
        if t - self._last > GAP and np.isfinite(self._last):
            self._append(self._last + 1e-3, np.nan)
        self._append(t, self._sum / self._n if self._n else np.nan)
        self._last = t
        self._sum, self._n = 0.0, 0

    def _append(self, t: float, value: float) -> None:
        at = self.count % self._size
        self._t[at], self._v[at] = t, value
        self.count += 1


class VoiceLevel:
    """Root mean square in dBFS, thirty points per second."""

    def __init__(self) -> None:
        self.trace = Trace(VOICE_RATE, VOICE_SECONDS)

    def add(self, times: F64, samples: NDArray[np.float32]) -> None:
        bins = np.floor(times * VOICE_RATE).astype(np.int64)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(bins)) + 1])
        power = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
        power /= np.diff(np.append(starts, len(samples)))
        levels = np.maximum(FLOOR, 10 * np.log10(np.maximum(power, 1e-12)))
        self.trace.add(times[starts], levels)


def pack(sequence: int, traces: dict[str, tuple[F64, NDArray[np.float32]]]) -> bytes:
    """Message type 2, little endian: u8 type, u8 number of blocks, u16 0, u32 sequence; then for each block u32 kind,
    u32 n, f64 base time, n x f32 time after the base, n x f32 value."""
    parts = [struct.pack("<BBHI", 2, len(traces), 0, sequence)]
    for name, (t, v) in traces.items():
        base = float(t[0]) if len(t) else 0.0
        parts += [struct.pack("<IId", KINDS[name], len(t), base), (t - base).astype("<f4").tobytes()]
        parts.append(np.asarray(v, "<f4").tobytes())
    return b"".join(parts)
