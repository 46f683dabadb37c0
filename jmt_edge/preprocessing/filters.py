"""Windows, a low-pass and a polyphase filter in NumPy.

SciPy has all of them. Its import took half of the processor time of a live run's start, and 40 MB, which is why what
runs at the bedside does without it; the tests compare the two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def hann(n: int) -> F64:
    """(n,) periodic Hann window, as `scipy.signal.windows.hann(n, sym=False)`."""
    return 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, n + 1)[:-1])


def low_pass(taps: int, cutoff: float, beta: float) -> F64:
    """(taps,) Kaiser-windowed sinc of gain 1 at 0 Hz, as `scipy.signal.firwin(taps, cutoff, window=("kaiser", beta))`.

    taps: odd. cutoff: as a fraction of half the rate, below 1.
    """
    at = np.arange(taps) - (taps - 1) / 2
    response = cutoff * np.sinc(cutoff * at) * np.kaiser(taps, beta)
    return np.asarray(response / response.sum())


class Polyphase:
    """Every `down`-th sample of a signal that was filled with `up` - 1 zeros after each sample and filtered by `taps`:
    `scipy.signal.upfirdn`, a part of it at a time. Any part has the same bits as the whole, where samples are finite.

    `up` outputs come of `down` samples by one product with a matrix. It is mostly zeros, and faster than gathering what
    is not; for odd rates it would be large, and each output is made by itself.
    """

    LARGEST = 1 << 19  # elements of the matrix

    def __init__(self, taps: F32, up: int, down: int) -> None:
        self._up, self._down = up, down
        length = self._length = -(-len(taps) // up)  # taps of a phase
        padded = np.zeros(length * up, np.float32)
        padded[: len(taps)] = taps
        # in the order of the samples they meet: the last tap of a phase meets the oldest
        self._phases = np.ascontiguousarray(padded.reshape(length, up).T[:, ::-1])
        width = down + length - 1
        self._matrix: F32 | None = None
        if up * width <= self.LARGEST:
            self._matrix = np.zeros((width, up), np.float32)
            for output in range(up):
                newest, phase = divmod(output * down, up)
                self._matrix[newest : newest + length, output] = self._phases[phase]

    def __call__(self, samples: F32, start: int, stop: int) -> F32:
        """Outputs `start` to `stop` - 1; what lies outside `samples` (n,) is 0."""
        if stop <= start:
            return np.empty(0, np.float32)
        up, down = self._up, self._down
        first, last = start // up, (stop - 1) // up  # blocks of `up` outputs
        begin, end = first * down - (self._length - 1), (last + 1) * down
        padded = np.zeros(end - begin, np.float32)
        there = samples[max(begin, 0) : max(end, 0)]
        padded[max(-begin, 0) : max(-begin, 0) + len(there)] = there
        windows = np.lib.stride_tricks.sliding_window_view
        if self._matrix is not None and np.isfinite(padded).all():
            blocks = np.ascontiguousarray(windows(padded, len(self._matrix))[::down])
            # one product of the same shape a block: the bits of a larger one depend on its size
            return np.matmul(blocks[:, None], self._matrix).reshape(-1)[start - first * up : stop - first * up]
        position = np.arange(start, stop) * down
        rows = windows(padded, self._length)[position // up - first * down]
        return np.asarray(np.einsum("ij,ij->i", rows, self._phases[position % up]))
