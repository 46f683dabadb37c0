"""A device's clock on the host's: offset, drift and jitter from one-sided delays; sample times from counters.

A sample reaches the host some time after it was taken, never before: delay >= 0, with bursts and long tails (USB
polling, Bluetooth, the scheduler). A least-squares line through (device time, arrival) is therefore late by the
mean delay. The lower envelope of the points is late by the *smallest* delay only, the constant part of the path, which
no one-way measurement can see. That is the stated bias: 0 <= bias <= smallest delay; the user's `delay` constant
removes it where the device's latency is known.

The envelope: arrivals are cut into bins of device time, each keeps its earliest point, and a line runs through these:
its slope is the median slope between each bin of the older half and its partner in the newer half (Theil 1950, the
incomplete method), its offset the bins' 10 % quantile, so a few impossible early points do no harm.
Compare Moon, Skelly and Towsley, "Estimation and removal of clock skew from network delay measurements" (1999).
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from .base import Clock

_BINS = 128
_FIRST_BIN, _LONGEST_BIN = 0.25, 8.0  # seconds; at 128 bins pairs merge, then the window slides (1024 s)
_JITTER_MEMORY = 1000  # arrivals


def unwrap(counter: NDArray[np.int64], last: int, modulus: int) -> NDArray[np.int64]:
    """A wrapping counter as an endless one, after the endless value `last`.

    Each step is taken as the shortest one, forward or backward, modulo `modulus`.
    """
    raw = np.concatenate(([last % modulus], counter))
    steps = (np.diff(raw) + modulus // 2) % modulus - modulus // 2
    return last + np.cumsum(steps)


class ClockFit:
    """Lower-envelope fit of device time (s) to host time (s), in bounded memory, O(1) per arrival (amortised).

    prior_ppm: how far the device's rate may plausibly be off; it steadies the first seconds.
    """

    def __init__(self, prior_ppm: float = 200.0) -> None:
        self._prior = prior_ppm * 1e-6
        self._x0 = self._r0 = 0.0
        self._started = False
        self._slope = self._slope_mean = 0.0
        self._level = 0.0
        self._clear()

    def _clear(self) -> None:
        self._bin = _FIRST_BIN
        self._bins: list[tuple[float, float]] = []  # (x, r), oldest first
        self._edge = 0.0  # where the open bin ends
        self._low: tuple[float, float] | None = None  # earliest point of the open bin
        self._n = 0
        self._mean = self._var = self._spread = 0.0

    @property
    def started(self) -> bool:
        return self._started

    @property
    def span(self) -> float:
        """Seconds of device time that the fit is based on."""
        return self._bins[-1][0] - self._bins[0][0] if len(self._bins) > 1 else 0.0

    @property
    def drift_ppm(self) -> float:
        """How much faster than the host's the device's clock runs, parts per million."""
        return (1.0 / (1.0 + self._slope) - 1.0) * 1e6

    @property
    def offset(self) -> float:
        """Host time minus device time at the first arrival, s."""
        return self._r0 + self._level

    @property
    def jitter(self) -> float:
        """Standard deviation of the delay over the last arrivals, s."""
        return float(np.sqrt(self._var))

    @property
    def error(self) -> float:
        """Uncertainty of a mapped time beside the constant delay, s: how far the bins' minima scatter."""
        return self._spread

    def clock(self) -> Clock:
        return Clock(float(self.offset), float(self.drift_ppm), self.jitter)

    def map(self, device: NDArray[np.float64]) -> NDArray[np.float64]:
        """Host times of device times."""
        return device + self._r0 + self._level + self._slope * (device - self._x0)

    def excess(self, device: float, host: float) -> float:
        """Delay of an arrival over the envelope, s; negative: earlier than any before."""
        return host - device - self._r0 - self._level - self._slope * (device - self._x0)

    def add(self, device: float, host: float) -> None:
        """One arrival: the sample taken at `device` was read at `host`."""
        if not self._started:
            self._started = True
            self._x0, self._r0, self._level = float(device), float(host - device), 0.0
            self._edge = self._bin
        x, r = device - self._x0, host - device - self._r0
        if x >= self._edge:
            self._close_bin(x)
        detrended = r - self._slope * x
        if self._low is None or detrended < self._low[1] - self._slope * self._low[0]:
            self._low = (x, r)
        if len(self._bins) < 4:  # too few bins for statistics: nothing arrives before it was taken
            self._level = min(self._level, detrended)
        self._n = min(self._n + 1, _JITTER_MEMORY)
        delta = detrended - self._level - self._mean
        self._mean += delta / self._n
        self._var += (delta * (detrended - self._level - self._mean) - self._var) / self._n

    def shift(self, seconds: float) -> None:
        """The path's constant delay, or the device's clock, has stepped by `seconds`."""
        self._level += seconds
        self._bins = [(x, r + seconds) for x, r in self._bins]
        if self._low is not None:
            self._low = (self._low[0], self._low[1] + seconds)

    def restart(self) -> None:
        """The device's clock restarts; the drift, a property of its crystal, is kept as the prior mean."""
        self._started = False
        self._slope_mean = self._slope
        self._clear()

    def _close_bin(self, x: float) -> None:
        if self._low is not None:
            self._bins.append(self._low)
            self._low = None
        if len(self._bins) >= _BINS:
            if 2 * self._bin <= _LONGEST_BIN:
                self._bin *= 2
                pairs = zip(self._bins[::2], self._bins[1::2])
                self._bins = [min(pair, key=lambda p: p[1] - self._slope * p[0]) for pair in pairs]
            else:
                del self._bins[0]
        self._edge = x + self._bin
        self._refit()

    def _refit(self) -> None:
        points = np.array(self._bins)
        x, r = points[:, 0], points[:, 1]
        half = len(x) // 2
        if half >= 2:
            slope = _median((r[-half:] - r[:half]) / (x[-half:] - x[:half]))
            scatter = r - slope * x
            sigma = 1.4826 * _median(np.abs(scatter - _median(scatter)))
            doubt = (sigma + 1e-6) / (float(x[-1] - x[0]) * np.sqrt(len(x) / 12))  # of the slope
            weight = self._prior**2 / (self._prior**2 + doubt**2)
            self._slope = self._slope_mean + weight * (slope - self._slope_mean)
        levels = np.sort(r - self._slope * x)
        self._level = float(levels[len(x) // 10])
        middle = float(levels[half])
        self._spread = middle - self._level + 1.4826 * _median(np.abs(levels - middle))


def _median(x: NDArray[np.float64]) -> float:
    """The upper median; np.median costs five times as much on so few numbers."""
    return float(np.sort(x)[len(x) // 2])


_PAST = 5.0  # s: no sample waits longer than this on its way
_FUTURE = 0.05  # s: how far ahead of its arrival a sample may seem to be taken (the fit's own error)
_AGREE = 5  # contradicting samples in a row that agree with each other, and are therefore believed
_SETTLED = 2.0  # s of fitted data before a change of the delay means anything
_HICCUP = 0.25  # s of sudden extra delay: wait and see whether it is a backlog or a loss
_BUCKET = 1.0  # s; slips and steps are judged on the third earliest arrival of two buckets
_STEP = 0.05  # s: a smaller step of the constant delay is left to the fit


class Timeline:
    """Stamps the samples of one device: counters in, strictly increasing host times out.

    tick: seconds per count of the device's counter; 0 where the rate is unknown (measured during `hold`).
    prior_ppm: how far the device's rate may be off.
    cycle: counts that a loss can hide without a trace (16 for a 4-bit sequence number); 0: none.
    period: nominal seconds between samples; times never come closer than half of it.
    hold: seconds of arrivals to see before the first samples are stamped and released.
    repeats: equal counters are different samples (a counter coarser than the rate).

    A sample is dropped (counted in `dropped`) where its counter repeats, steps back or contradicts the host's clock
    while its neighbours do not. Five such samples in a row that agree with each other are believed: the device's clock
    has restarted. After a sudden extra delay of 0.25 s samples are held for 0.5 s to tell a backlog, which drains,
    from a loss, which does not; `slipped` counts the losses that only the host's clock revealed.
    """

    def __init__(
        self,
        tick: float,
        *,
        prior_ppm: float = 200.0,
        cycle: int = 0,
        period: float = 0.0,
        hold: float = 1.0,
        repeats: bool = False,
    ) -> None:
        self.fit = ClockFit(prior_ppm)
        self.dropped = self.slipped = 0
        self._tick, self._cycle, self._period = tick, cycle, period or tick
        self._hold = hold
        self._least = 0 if repeats else 1
        self._last_time = -np.inf
        self._recent: deque[tuple[float, int]] = deque(maxlen=256)  # (time, samples so far), for `rate`
        self._count = 0
        self._forget()

    def _forget(self) -> None:
        self._last: int | None = None
        self._shift = 0  # counts added for slips since the counter started
        self._release: float | None = None  # arrival at which held samples are let go
        self._held: list[tuple[NDArray[np.int64], NDArray]] = []
        self._waiting: list[tuple[int, float]] = []  # (count, arrival) until the tick is known
        self._excess: list[float] = []  # of the arrivals during a hiccup
        self._hiccup = False
        self._odd: list[tuple[int, float]] = []
        self._buckets: tuple[list[float], list[float]] = ([], [])
        self._bucket_end = 0.0

    @property
    def missing(self) -> int:
        """Samples dropped, or found to be lost, so far."""
        return self.dropped + self.slipped

    @property
    def rate(self) -> float:
        """Samples per host second over the last pushes; 0 before there are any."""
        if len(self._recent) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._recent[0], self._recent[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0

    def restart(self, hold: float = 0.5) -> None:
        """The device's counter restarts; its drift is remembered. Samples still held are dropped."""
        self.dropped += sum(len(c) for c, _ in self._held) + len(self._odd)
        self.fit.restart()
        self._hold = min(hold, self._hold)
        self._recent.clear()
        self._forget()

    def push(
        self, counts: NDArray[np.int64], values: NDArray, arrival: float, ahead: int = 0
    ) -> tuple[NDArray[np.float64], NDArray]:
        """Times and values that can be stamped now; `counts` (n,) and `values` (n,) were read at `arrival` (s).

        `n` may be 0: samples still held are then released when they are due. `ahead`: by how many counts the newest
        sample that has arrived is ahead of counts[-1] (for a decoder that holds samples back).
        """
        if len(counts):
            counts, values = self._admit(counts + self._shift, values, arrival)
        if len(counts):
            if self._release is None and not self.fit.started:
                self._release = arrival + self._hold
            counts = self._observe(counts, arrival, ahead)
        if self._release is not None:
            if len(counts):
                self._held.append((counts, values))
            if arrival < self._release or not self._resolve():
                return np.empty(0), values[:0]
            self._release = None
            if not self._held:
                return np.empty(0), values[:0]
            counts = np.concatenate([c for c, _ in self._held])
            values = np.concatenate([v for _, v in self._held])
            self._held = []
        return (self._stamp(counts), values) if len(counts) else (np.empty(0), values)

    def _admit(self, counts: NDArray[np.int64], values: NDArray, arrival: float) -> tuple[NDArray[np.int64], NDArray]:
        if self._last is None or not self.fit.started:
            self._last = int(counts[0]) - 1
        if int(np.diff(counts, prepend=self._last).min()) >= self._least and self._plausible(int(counts[-1]), arrival):
            self.dropped += len(self._odd)
            self._odd.clear()
            self._last = int(counts[-1])
            return counts, values
        kept: list[tuple[int, float]] = []
        for count, value in zip(counts.tolist(), values.tolist()):
            if count - self._last >= self._least and self._plausible(count, arrival):
                self.dropped += len(self._odd)
                self._odd.clear()
                kept.append((count, value))
                self._last = count
                continue
            if self._odd and not self._least <= count - self._odd[-1][0] <= max(1.0, 5 * self._period) / (
                self._tick or 1.0
            ):
                self.dropped += len(self._odd)
                self._odd.clear()
            self._odd.append((count, value))
            if len(self._odd) >= _AGREE:
                odd, self._odd = self._odd, []
                if not self._plausible(count, arrival):
                    self.dropped += len(kept)
                    shift = self._shift
                    self.restart()
                    kept = []
                    odd = [(c - shift, v) for c, v in odd]
                kept += odd
                self._last = kept[-1][0]
                if not self.fit.started:
                    self.fit.add(self._last * self._tick, arrival)
                    self._release = arrival + self._hold
        return np.array([c for c, _ in kept], np.int64), np.array([v for _, v in kept], values.dtype)

    def _plausible(self, count: int, arrival: float) -> bool:
        if not self.fit.started:
            return True
        early = _FUTURE + (4 * self.fit.error if self.fit.span > _SETTLED else 0.3)
        return -early <= self.fit.excess(count * self._tick, arrival) <= _PAST

    def _observe(self, counts: NDArray[np.int64], arrival: float, ahead: int) -> NDArray[np.int64]:
        """Feed the fit with the batch's newest sample; returns `counts`, corrected for slips."""
        last = int(counts[-1]) + ahead
        if not self._tick:
            self._waiting.append((last, arrival))
            return counts
        excess = self.fit.excess(last * self._tick, arrival) if self.fit.started else 0.0
        if self.fit.span > _SETTLED:
            if self._hiccup:
                self._excess.append(excess)
                return counts
            if excess > _HICCUP + 4 * self.fit.jitter:
                self._hiccup, self._excess = True, [excess]
                self._release = arrival + 0.5
                return counts
            moved = self._slip(excess, arrival)
            counts = counts + moved
            last += moved
        self.fit.add(last * self._tick, arrival)
        return counts

    def _resolve(self) -> bool:
        """At the end of a hold: False where it must continue."""
        if not self._tick:
            if len(self._waiting) < _AGREE or self._waiting[-1][0] == self._waiting[0][0]:
                return False
            points = np.array(self._waiting[-_BINS:])
            i, j = np.triu_indices(len(points), 1)
            self._tick = float(np.median((points[j, 1] - points[i, 1]) / (points[j, 0] - points[i, 0])))
            self._period = self._period or self._tick
            for count, arrival in self._waiting:
                self.fit.add(count * self._tick, arrival)
            self._waiting = []
        if self._hiccup:
            self._hiccup = False
            moved = self._settle(float(min(self._excess)))
            self._held = [(c + moved, v) for c, v in self._held]
        return True

    def _slip(self, excess: float, arrival: float) -> int:
        unit = self._cycle * self._tick
        if self._shift and excess < -0.6 * unit:  # moved too far before
            return self._move(-min(round(-excess / unit) * self._cycle, self._shift))
        old, new = self._buckets
        new.append(excess)
        if arrival < self._bucket_end:
            return 0
        lows = sorted(old + new)
        self._buckets = (new, [])
        self._bucket_end = arrival + max(_BUCKET, 5 * self._period)
        if not old or len(lows) < 6:
            return 0
        low = lows[2]
        threshold = 0.6 * unit if unit else max(_STEP, 4 * self.fit.error)
        if low > threshold or (not unit and low < -threshold):
            self._buckets = ([], [])
            return self._settle(low)
        return 0

    def _settle(self, excess: float) -> int:
        """The smallest delay has grown by `excess` for good: counts were lost, or the path changed."""
        if self._cycle:
            return self._move(round(excess / (self._cycle * self._tick)) * self._cycle)
        if abs(excess) > _STEP:
            self.fit.shift(excess)
        return 0

    def _move(self, counts: int) -> int:
        self._shift += counts
        self.slipped += counts
        if self._last is not None:
            self._last += counts
        return counts

    def _stamp(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        times = self.fit.map(np.multiply(counts, self._tick, dtype=np.float64))
        apart = 0.5 * self._period or 1e-6
        least = np.arange(len(times)) * apart
        times = np.maximum.accumulate(np.maximum(times - least, self._last_time + apart)) + least
        self._last_time = float(times[-1])
        self._count += len(times)
        self._recent.append((self._last_time, self._count))
        return times
