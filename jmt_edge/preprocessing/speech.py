"""Where a stream of sound is speech, step by step of 32 ms.

Detector: Silero VAD, a short-time spectrum, four convolutions and an LSTM, on 16 kHz. `NOTICE` records where its
graph comes from; it is the variant that takes several steps in one call and gives what the step-by-step graph gives.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .network import open_network
from .resample import StreamResampler

WEIGHTS = Path(__file__).parent / "data" / "silero_vad.onnx"

RATE = 16_000
STEP, CONTEXT = 512, 64  # samples: a step sees the last 64 samples before it, too
STATE = (1, 1, 128)
GROUP = 5  # steps a call, always: the last bits of a result depend on how many are computed together


class SpeechStep(NamedTuple):
    """t: time (s) of the step's last sample. known: of the sample after which it was computed. speech: 0..1."""

    t: float
    known: float
    speech: float


class SpeechDetector:
    """The probability of speech of each step of a stream, each sample used once and none before its time.

    The network's memory is cleared at every whole multiple of `RESET` seconds of stream time and after a gap. So a
    step depends on less than `RESET` seconds before it, whenever the stream began, and confidence cannot drift in a
    stream of days. (Over an hour without a reset it did not: 67-79 % of each minute of the simulated voice was speech.)
    A reset has its price: of 240 phrases that began with one, a few were not recognised to their end, so it is rare.
    How the samples are cut into chunks changes no bit.

    Raises DataError where the weights are missing from the installation.
    """

    RESET = 32.0  # s; 1000 steps, so the steps of a stream that began at 0 keep their places
    MAX_GAP = 0.04  # s

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._session = open_network(WEIGHTS)
        self._half = 0.5 / rate  # s: times of the same sample differ in their last bits
        self._reset: int | None = None  # number of the last reset, at RESET times that
        self._last = -np.inf  # time of the newest sample
        self._begin()

    def _begin(self) -> None:
        self._resample = StreamResampler(self._rate, RATE)
        self._times = np.empty(0)  # of the segment's samples from number `_first` on
        self._first = 0
        self._sound = np.zeros(CONTEXT, np.float32)  # at 16 kHz: the context and what was not computed yet
        self._done = 0  # samples at 16 kHz
        self._h, self._c = np.zeros(STATE, np.float32), np.zeros(STATE, np.float32)

    def update(self, times: NDArray[np.float64], samples: NDArray[np.float32]) -> list[SpeechStep]:
        """The steps that these samples complete. times: (n,) s, ascending. samples: (n,) in [-1, 1]."""
        if not len(times):
            return []
        begins = (np.flatnonzero(np.diff(times) > self.MAX_GAP) + 1).tolist()
        if times[0] - self._last > self.MAX_GAP:
            begins.append(0)
        first, last = self._resets(times[0]), self._resets(times[-1])
        if first != self._reset:
            begins.append(0)
        if last != first:
            begins += (np.flatnonzero(np.diff(np.floor((times + self._half) / self.RESET))) + 1).tolist()
        steps: list[SpeechStep] = []
        for start, stop in pairwise(sorted({0, *begins, len(times)})):
            if start in begins:
                steps += self._finish(float(times[start]))
                self._begin()
            steps += self._advance(times[start:stop], samples[start:stop])
        self._reset, self._last = last, float(times[-1])
        return steps

    def _resets(self, t: float) -> int:
        """Number of the last reset at or before `t`."""
        return math.floor((t + self._half) / self.RESET)

    def _advance(self, times: NDArray[np.float64], samples: NDArray[np.float32]) -> list[SpeechStep]:
        self._times = np.concatenate([self._times, times])
        self._sound = np.concatenate([self._sound, self._resample(np.asarray(samples, np.float32))])
        steps: list[SpeechStep] = []
        while len(self._sound) >= CONTEXT + GROUP * STEP:
            last = self._resample.needed(self._done + GROUP * STEP - 1) - 1
            steps += self._run(GROUP, float(self._times[last - self._first]))
        return steps

    def _finish(self, known: float) -> list[SpeechStep]:
        """The whole steps left of a segment that has ended, which the sample at `known` shows."""
        self._sound = np.concatenate([self._sound, self._resample.flush()])
        left = (len(self._sound) - CONTEXT) // STEP
        return self._run(left, known) if left > 0 else []

    def _run(self, count: int, known: float) -> list[SpeechStep]:
        x = np.empty((count, CONTEXT + STEP), np.float32)
        x[:, :CONTEXT] = self._sound[: count * STEP].reshape(count, STEP)[:, :CONTEXT]
        x[:, CONTEXT:] = self._sound[CONTEXT : CONTEXT + count * STEP].reshape(count, STEP)
        feed = {"input": x, "h": self._h, "c": self._c}
        speech, self._h, self._c = self._session.run(["speech_probs", "hn", "cn"], feed)
        self._sound = self._sound[count * STEP :]
        ends = (self._done + STEP * np.arange(1, count + 1) - 1) * self._rate / RATE
        at = self._times[np.minimum(ends.astype(np.int64) - self._first, len(self._times) - 1)]
        self._done += count * STEP
        used = int(self._done * self._rate / RATE) - self._first
        self._times, self._first = self._times[used:], self._first + used
        return [SpeechStep(float(t), known, float(p)) for t, p in zip(at, speech)]
