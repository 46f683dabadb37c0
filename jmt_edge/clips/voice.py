"""Sound in, spectrogram clips out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..media.chunk import Chunk
from ..preprocessing.quality import Verdict, VoiceQuality
from ..preprocessing.voice import voice_clip
from ..tasks import AUDIO_RATE
from .plan import ClipPlan


class VoiceCutter:
    """A ring buffer on an exact 44.1 kHz grid; lost samples, and those that are not a number, are silence.

    Sample times decide the place on the grid, but times that stray by less than 20 ms (a clock's drift) do not tear
    the sound apart.
    """

    MAX_STRAY = 0.02

    def __init__(self, plan: ClipPlan) -> None:
        self._plan = plan
        self._length = round((plan.reach + 1.0) * AUDIO_RATE)
        self._samples = np.zeros(self._length, np.float32)
        self._real = np.zeros(self._length, bool)
        self._next: int | None = None  # grid index after the last sample
        self._first = 0  # grid index of the first sample ever
        self._quality = VoiceQuality()
        self.start: float | None = None
        self.last = -np.inf
        self.history = plan.reach - plan.m.span + VoiceQuality.history(plan.m.span)

    def push(self, chunk: Chunk) -> None:
        if not len(chunk):
            return
        if chunk.rate and round(chunk.rate) != AUDIO_RATE:
            raise DataError(f"a source gave sound at {chunk.rate:g} Hz; it must be resampled to {AUDIO_RATE} Hz first")
        if self.start is None:
            self.start = float(chunk.times[0])
        self._quality.update(chunk.times, chunk.values)
        index = np.round(chunk.times * AUDIO_RATE).astype(np.int64)
        if self._next is None:
            self._first = int(index[0])
        values = np.asarray(chunk.values, np.float32)
        done = 0
        while done < len(index):
            place = int(index[done]) if self._next is None else self._next
            stray = np.abs(index[done:] - place - np.arange(len(index) - done)) > self.MAX_STRAY * AUDIO_RATE
            count = int(np.argmax(stray)) if stray.any() else len(stray)
            if count == 0:
                self._jump(int(index[done]))
                continue
            self._write(place, values[done : done + count])
            done += count
        self.last = float(chunk.times[-1])

    def _jump(self, index: int) -> None:
        """Continue at grid `index`; what was skipped is silence."""
        if self._next is not None and index > self._next:
            skipped = np.arange(max(self._next, index - self._length), index) % self._length
            self._samples[skipped], self._real[skipped] = 0.0, False
        self._next = index

    def _write(self, index: int, values: NDArray[np.float32]) -> None:
        kept = values[-self._length :]
        self._next = index + len(values)
        where = np.arange(self._next - len(kept), self._next) % self._length
        finite = np.isfinite(kept)
        self._samples[where], self._real[where] = np.where(finite, kept, np.float32(0)), finite

    def advance(self, window: int) -> None:
        """Nothing waits for a window."""

    def clip(self, end: float) -> tuple[NDArray[np.float32], float]:
        """The clip that ends at `end`: ((1, 64, frames), fraction of its samples that are there)."""
        m = self._plan.m
        stop = round(end * AUDIO_RATE)
        index = np.arange(stop - round(m.span * AUDIO_RATE), stop)
        there = self._next if self._next is not None else 0
        where = index % self._length
        real = self._real[where] & (index < there) & (index >= there - self._length)
        samples = np.where(real, self._samples[where], np.float32(0))
        begun = index >= self._first  # before the first sample there is no sound; after it, lost samples are silence
        return voice_clip(samples[begun] if there else samples[:0], m), float(real.mean())

    def verdict(self, end: float) -> Verdict:
        return self._quality.verdict(end, self._plan.m.span)
