"""One resampler for every stream of sound."""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

from ..tasks import AUDIO_RATE
from .filters import Polyphase, low_pass

F32 = NDArray[np.float32]


class StreamResampler:
    """Polyphase resampling of a stream from `rate` to `to` Hz (Kaiser-windowed sinc, as `scipy.signal.resample_poly`).

    Any cutting of the input into pieces gives the same output, bit for bit. Output sample m stands at input time
    m / to; the last `delay` input samples wait for their right-hand context until more arrives or `flush`.
    """

    def __init__(self, rate: float, to: int = AUDIO_RATE) -> None:
        whole = max(1, round(rate))
        common = gcd(whole, to)
        self._up, self._down = to // common, whole // common
        half = 10 * max(self._up, self._down)
        lead = -half % self._down  # zeros that put the filter's centre on the output grid
        self._filter = _filter(self._up, self._down, lead)
        self._centre = (half + lead) // self._down
        self.delay = -(-half // self._up) + 1
        self._buffer = np.empty(0, np.float32)
        self._first = 0  # input index of _buffer[0], a multiple of `down`
        self._in = 0
        self._out = 0

    def __call__(self, samples: F32) -> F32:
        if self._up == self._down:
            return samples
        self._in += len(samples)
        self._buffer = np.concatenate([self._buffer, samples.astype(np.float32, copy=False)])
        return self._advance(self._in - self.delay)

    def flush(self) -> F32:
        """The rest of the output, as if zeros followed."""
        return np.empty(0, np.float32) if self._up == self._down else self._advance(self._in)

    def needed(self, m: int) -> int:
        """The number of input samples after which output sample `m` is given."""
        return m + 1 if self._up == self._down else m * self._down // self._up + 1 + self.delay

    def _advance(self, ready: int) -> F32:
        """Outputs whose input time lies before input sample `ready`."""
        end = max(0, -(-ready * self._up // self._down))
        if end <= self._out:
            return np.empty(0, np.float32)
        base = self._first // self._down * self._up  # output index of the buffer's first sample
        padded = np.concatenate([self._buffer, np.zeros(self.delay, np.float32)])
        out = self._filter(padded, self._centre + self._out - base, self._centre + end - base)
        self._out = end
        keep = max(0, end * self._down // self._up - self.delay) // self._down * self._down
        if keep > self._first:
            self._buffer = self._buffer[keep - self._first :]
            self._first = keep
        return out


@lru_cache(maxsize=8)
def _filter(up: int, down: int, lead: int) -> Polyphase:
    widest = max(up, down)
    cutoff = 1.0 / widest if widest > 1 else 0.5  # equal rates bypass the filter
    taps = low_pass(20 * widest + 1, cutoff, 5.0) * up
    return Polyphase(np.concatenate([np.zeros(lead), taps]).astype(np.float32), up, down)
