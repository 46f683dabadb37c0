"""Sound in, spectrogram clips out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..media.chunk import Chunk
from ..preprocessing.quality import Verdict, VoiceQuality
from ..preprocessing.voice import HOP, MELS, WINDOW, Known, decibels, voice_clip
from ..tasks import AUDIO_RATE
from .plan import ClipPlan


class _Columns:
    """Columns of the spectrograms of clips that overlap, each computed once, where its samples are complete.

    Clips share columns where they begin at the same phase of the columns' distance, as those of a regular hop do. While
    they do, columns are computed as samples come, at most a clip's length beyond the last clip's end.
    heard: the samples (n,) from one grid index to another. length: for how many back from the newest one it knows them.
    """

    GROUP = 8  # columns that are computed together, until a clip needs fewer

    def __init__(self, heard: Callable[[int, int], NDArray[np.float32]], length: int) -> None:
        self._heard, self._length = heard, length
        self._ring = np.zeros((length // HOP + 2, MELS))
        self.forget()

    def forget(self) -> None:
        """What was heard has changed."""
        self._phase = -1  # column n stands at sample n * HOP + phase
        self._regular = False  # the last two clips shared their phase
        self._from = self._upto = 0  # the columns that are known
        self._end = 0  # sample up to which columns are worth while

    def extend(self, there: int, least: int = GROUP) -> None:
        """Compute the columns that are complete with sample `there` - 1, unless they are fewer than `least`."""
        if not self._regular:
            return
        stop = (min(there, self._end) - HOP - self._phase) // HOP + 1
        first = max(self._upto, -(-(there - self._length + HOP - self._phase) // HOP))
        if stop - first < least:
            return
        sound = self._heard((first - 1) * HOP + self._phase, stop * HOP + self._phase)
        frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
        self._ring[np.arange(first, stop) % len(self._ring)] = decibels(frames)
        if first > self._upto:
            self._from = first
        self._from, self._upto = max(self._from, stop - len(self._ring)), stop

    def known(self, start: int, stop: int, there: int) -> Known | None:
        """The known columns of the clip of the samples `start` to `stop`, of which those before `there` have come."""
        number, phase = divmod(start, HOP)
        inner = number + 1  # the first column shows the clip's beginning reflected, the last one its end
        self._regular = phase == self._phase
        if not self._regular or inner > self._upto:
            self._from = self._upto = inner
        self._phase, self._end = phase, 2 * stop - start
        self.extend(there, 1)
        first, last = max(inner, self._from), min(self._upto, (stop - HOP - phase) // HOP + 1)
        if last <= first:
            return None
        return Known(first - number, self._ring[np.arange(first, last) % len(self._ring)])


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
        self._columns = _Columns(lambda start, stop: self._heard(start, stop)[0], self._length)
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
        self._columns.extend(self._next or 0)
        self.last = float(chunk.times[-1])

    def _jump(self, index: int) -> None:
        """Continue at grid `index`; what was skipped is silence."""
        if self._next is not None and index > self._next:
            skipped = np.arange(max(self._next, index - self._length), index) % self._length
            self._samples[skipped], self._real[skipped] = 0.0, False
        elif self._next is not None:
            self._columns.forget()  # what was heard is overwritten
        self._next = index

    def _write(self, index: int, values: NDArray[np.float32]) -> None:
        kept = values[-self._length :]
        self._next = index + len(values)
        where = np.arange(self._next - len(kept), self._next) % self._length
        finite = np.isfinite(kept)
        self._samples[where], self._real[where] = np.where(finite, kept, np.float32(0)), finite

    def advance(self, window: int) -> None:
        """Nothing waits for a window."""

    def begin(self, end: float) -> None:
        """A clip waits for nothing."""

    def clip(self, end: float) -> tuple[NDArray[np.float32], float]:
        """The clip that ends at `end`: ((1, 64, frames), fraction of its samples that are there)."""
        m = self._plan.m
        stop, count = round(end * AUDIO_RATE), round(m.span * AUDIO_RATE)
        start = stop - count
        if self._next is None:
            return voice_clip(self._samples[:0], m), 0.0
        samples, real = self._heard(start, stop)
        begun = max(0, self._first - start)  # before the first sample there is no sound; after it, lost is silence
        held = not begun and start >= self._next - self._length
        known = self._columns.known(start, stop, self._next) if held else None
        return voice_clip(samples[begun:], m, known), np.count_nonzero(real) / count

    def _heard(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The samples from grid index `start` to `stop`, silence where there are none, and whether each is real."""
        samples, real = np.zeros(stop - start, np.float32), np.zeros(stop - start, bool)
        assert self._next is not None
        at, end = max(start, self._next - self._length), min(stop, self._next)
        while at < end:
            place = at % self._length
            n = min(end - at, self._length - place)
            to = slice(at - start, at - start + n)
            samples[to], real[to] = self._samples[place : place + n], self._real[place : place + n]
            at += n
        return samples, real

    def verdict(self, end: float) -> Verdict:
        return self._quality.verdict(end, self._plan.m.span)
