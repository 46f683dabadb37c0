"""Is a modality usable right now, why not, and how good is it (0..1)?

Each class takes samples as they come (cost proportional to the new samples, answers independent of how they were
chunked) and gives a verdict on the `span` seconds before `end`. Samples later than `end` never count, so a replay
sees what the live run saw. Times are stream seconds in ascending order; history is kept for 60 s.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ..opencv import cv2
from .face import Face

KEEP = 60.0  # s of history
MIN_USABLE = 0.5  # share of a span that must be usable; below it the modality is not ok


@dataclass(frozen=True)
class Verdict:
    """`ok`: use the modality. `reason`: why not, "" when ok. `score`: 0 (useless) to 1 (as good as it gets)."""

    ok: bool
    reason: str
    score: float


def _ramp(x: float, bad: float, good: float) -> float:
    """0 at `bad` and beyond, 1 at `good` and beyond, linear between."""
    return float(min(1.0, max(0.0, (x - bad) / (good - bad))))


# --- face ---


class _Frame(NamedTuple):
    t: float
    score: float  # 0: not usable
    reason: str


class FaceQuality:
    """Size, sharpness, pose, brightness and visibility of the followed face.

    Limits, each with where it was seen: a face 40 pixels wide (a third of the 112-pixel crop); sharpness, the
    variance of the Laplacian over that of the crop, 0.01 (sharp recordings 0.08-0.2, a Gaussian blur of one 30th of
    the face's width 0.01); mean brightness 40..220 and contrast (standard deviation) 10 of 255; head turned by about
    40 degrees, read off the nose tip's place between the eyes; nodded so far that the nose tip leaves the middle half
    between eyes and mouth; tilted by 45 degrees. Occlusion shows as a detection score below 0.65 (a free face has
    0.8-0.95).
    """

    STALE = 0.6  # s without a frame: the camera has stopped

    def __init__(self) -> None:
        self._frames: deque[_Frame] = deque()

    def update(self, t: float, face: Face | None, crop: NDArray[np.uint8] | None) -> None:
        """One frame at time `t`: the face found, and its aligned crop (h, w, 3) uint8 RGB; None where there is none."""
        if face is None or crop is None:
            self._frames.append(_Frame(t, 0.0, "no face"))
        else:
            score, reason = min(_face_scores(face, crop))
            self._frames.append(_Frame(t, score, reason))
        while self._frames[0].t < t - KEEP:
            self._frames.popleft()

    def verdict(self, end: float, span: float) -> Verdict:
        """The span is ok where at least half of its frames are; the score is their mean."""
        frames = [f for f in self._frames if end - span - 1e-6 <= f.t <= end + 1e-6]
        if not frames:
            return Verdict(False, "no camera frames", 0.0)
        age = end - frames[-1].t
        if age > self.STALE:
            return Verdict(False, f"no camera frame for {age:.1f} s", 0.0)
        score = sum(f.score for f in frames) / len(frames)
        bad = [f.reason for f in frames if f.score == 0]
        if len(bad) > (1 - MIN_USABLE) * len(frames):
            return Verdict(False, f"{_commonest(bad)} in {len(bad)} of {len(frames)} frames", score)
        return Verdict(True, "", score)


def _face_scores(face: Face, crop: NDArray[np.uint8]) -> list[tuple[float, str]]:
    """(score, what is wrong if it is 0) of each aspect of one face."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if grey.shape[0] > 112:
        grey = cv2.resize(grey, (112, 112), interpolation=cv2.INTER_AREA)
    light, contrast = float(grey.mean()), float(grey.std())
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var()) / max(contrast, 1.0) ** 2
    yaw, pitch, roll = _pose(face.landmarks.astype(np.float64))
    return [
        (_ramp(face.width, 40, 100), "face too small"),
        (_ramp(sharpness, 0.01, 0.06), "face blurred"),
        (min(_ramp(light, 40, 70), _ramp(contrast, 10, 25)), "face too dark or without contrast"),
        (_ramp(light, 220, 190), "face too bright"),
        (min(_ramp(abs(yaw), 0.45, 0.2), _ramp(abs(pitch - 0.5), 0.25, 0.15)), "face turned away"),
        (_ramp(abs(roll), 45, 25), "head tilted"),
        (_ramp(face.score, 0.65, 0.8), "face partly hidden"),
    ]


def _pose(landmarks: NDArray[np.float64]) -> tuple[float, float, float]:
    """Nose tip across (eye distances off the middle) and down (fraction of eyes to mouth), and roll in degrees."""
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    across = landmarks[1] - landmarks[0]
    distance = float(np.hypot(*across)) or 1.0
    across = across / distance
    down = np.array([-across[1], across[0]])
    nose = landmarks[2] - eyes
    length = float((mouth - eyes) @ down)
    pitch = float(nose @ down) / length if length > 0 else np.inf
    return float(nose @ across) / distance, pitch, float(np.degrees(np.arctan2(across[1], across[0])))


# --- voice ---


class _Block(NamedTuple):
    t: float  # of its last sample
    level: float  # dBFS, RMS without the mean
    swing: float  # peak to peak
    clipped: float  # share of samples at full scale
    voiced: bool


class VoiceQuality:
    """Level, clipping and speech, in blocks of 40 ms.

    A block is voiced where the autocorrelation has a peak above 0.5 at a period of 1/400 to 1/75 s. There is speech
    where a tenth of the span is voiced and the level moves by 3 dB within 3 s (a hum does not). Without speech the
    voice carries nothing to estimate from, so the verdict is not ok.
    """

    BLOCK = 0.04
    STALE = 0.5  # s without samples
    DEAD_SWING = 2.0**-14  # two steps of 16 bit
    FULL_SCALE = 0.99
    MAX_CLIPPED = 0.01
    MIN_LEVEL = -55.0
    MIN_VOICED = 0.1
    MIN_MOVEMENT, MOVEMENT_SPAN = 3.0, 3.0

    def __init__(self, rate: float = 44_100) -> None:
        self._rate = rate
        self._size = round(self.BLOCK * rate)
        self._blocks: deque[_Block] = deque()
        self._samples = np.empty(0, np.float32)
        self._times = np.empty(0)

    def update(self, times: NDArray[np.float64], samples: NDArray[np.float32]) -> None:
        """times: (n,) s. samples: (n,) in [-1, 1]."""
        self._samples = np.concatenate([self._samples, np.asarray(samples, np.float32)])
        self._times = np.concatenate([self._times, np.asarray(times, np.float64)])
        start = 0
        # a block never spans a gap
        gaps = np.flatnonzero(np.diff(self._times) > self.BLOCK) + 1
        for stop in (*gaps.tolist(), len(self._times)):
            while stop - start >= self._size:
                self._append(self._samples[start : start + self._size], float(self._times[start + self._size - 1]))
                start += self._size
            if stop < len(self._times):
                start = stop
        self._samples, self._times = self._samples[start:], self._times[start:]

    def _append(self, x: NDArray[np.float32], t: float) -> None:
        centred = x.astype(np.float64) - float(np.mean(x, dtype=np.float64))
        level = 10 * np.log10(max(float(np.mean(centred**2)), 1e-12))
        clipped = float(np.mean(np.abs(x) >= self.FULL_SCALE))
        voiced = level > self.MIN_LEVEL - 10 and _is_voiced(centred, self._rate)
        self._blocks.append(_Block(t, level, float(np.ptp(x)), clipped, voiced))
        while self._blocks[0].t < t - KEEP:
            self._blocks.popleft()

    def verdict(self, end: float, span: float) -> Verdict:
        past = [b for b in self._blocks if b.t <= end + 1e-6]
        blocks = [b for b in past if b.t > end - span]
        if not blocks:
            return Verdict(False, "no sound samples", 0.0)
        age = end - blocks[-1].t
        if age > self.STALE:
            return Verdict(False, f"no sound for {age:.1f} s", 0.0)
        # the blocks' phase costs up to one block on either side
        if (len(blocks) + 2) * self.BLOCK < MIN_USABLE * span:
            return Verdict(False, "more than half of the sound is missing", 0.0)
        if max(b.swing for b in blocks) < self.DEAD_SWING:
            return Verdict(False, "microphone dead or muted", 0.0)
        clipped = sum(b.clipped for b in blocks) / len(blocks)
        if clipped > self.MAX_CLIPPED:
            return Verdict(False, f"{clipped:.0%} of the sound is clipped", 0.0)
        level = float(np.percentile([b.level for b in blocks], 95))
        if level < self.MIN_LEVEL:
            return Verdict(False, f"too quiet ({level:.0f} dBFS)", 0.0)
        voiced = sum(b.voiced for b in blocks) / len(blocks)
        recent = [b.level for b in past if b.t > end - max(span, self.MOVEMENT_SPAN)]
        movement = float(np.subtract(*np.percentile(recent, [95, 5])))
        if voiced < self.MIN_VOICED or movement < self.MIN_MOVEMENT:
            return Verdict(False, "no speech", 0.0)
        score = min(_ramp(level, -60, -40), _ramp(clipped, self.MAX_CLIPPED, 0), _ramp(voiced, 0, 0.3))
        return Verdict(True, "", score)


def _is_voiced(x: NDArray[np.float64], rate: float) -> bool:
    factor = max(1, int(rate / 11_025))
    x = x[: len(x) // factor * factor].reshape(-1, factor).mean(1)
    n, rate = len(x), rate / factor
    power = np.abs(fft.rfft(x, fft.next_fast_len(2 * n, real=True))) ** 2
    r = fft.irfft(power)[: min(n, int(rate / 75) + 2)] * (n / (n - np.arange(min(n, int(rate / 75) + 2))))
    if r[0] <= 0:
        return False
    r = r / r[0]
    low = int(rate / 400)
    inner = r[low:-1]
    peaks = np.flatnonzero((inner > r[low - 1 : -2]) & (inner >= r[low + 1 :])) + low
    # a peak, not the slow decay of low-frequency noise: it rises from the dip before it
    return any(r[p] > 0.5 and r[p] - r[:p].min() > 0.3 for p in peaks)


# --- EDA ---


class Scr(NamedTuple):
    """A skin-conductance response: times in s, amplitude (peak minus onset) in µS."""

    onset: float
    peak: float
    amplitude: float


class _Bin(NamedTuple):
    k: int  # covers [k, k + 1) quarters of a second
    value: float  # µS, mean of the finite samples; NaN without any
    t: float  # mean time of the finite samples
    last: float  # time of the last finite sample
    fault: str  # "": none
    flat: float = np.nan  # the value, where all samples have exactly the same


class EdaQuality:
    """The rules of Kleckner et al. (2018): EDA is invalid outside 0.05-60 µS, where it changes faster than 10 µS/s,
    and within 5 s of such data. An open or saturated electrode (NaN) counts like a value out of range.

    The slope is taken between means over 0.25 s, the 4 Hz of the wrist sensor the rule was made for: between raw
    samples of a 10-bit board at 1000 Hz one step of the converter (0.024 µS) already is 24 µS/s. A step between two
    means shows fully, so a jump of 2.5 µS or more is caught. The rule's fourth part, skin temperature of 30-40 °C,
    needs a probe and is not checked (`unchecked`). "Within 5 s" looks both ways, but never beyond `end`.

    A value that stays exactly the same for 10 s is a sensor or a driver that hangs, and is invalid too: skin and
    converters flicker (the longest such stretches in real recordings were 2 s at 4 Hz and 0.2 s at 1000 Hz).
    """

    unchecked = "skin temperature is not checked"

    BIN = 0.25
    RANGE = (0.05, 60.0)
    MAX_SLOPE = 10.0
    MARGIN = 5.0
    STALE = 1.0  # s without a valid value: no data
    FROZEN = 10.0  # s of exactly one value

    STUCK = "frozen at one value"
    OUT_OF_RANGE, TOO_FAST, OPEN = "outside 0.05-60 µS", "changing faster than 10 µS/s", "electrode open or saturated"

    def __init__(self) -> None:
        self._bins: deque[_Bin] = deque()
        self._times = np.empty(0)  # of the bin still open
        self._values = np.empty(0)
        self._scr = _ScrDetector()

    def update(self, times: NDArray[np.float64], values: NDArray[np.float32]) -> None:
        """times: (n,) s. values: (n,) µS, NaN where the sensor gave no valid number."""
        times = np.concatenate([self._times, np.asarray(times, np.float64)])
        levels = np.concatenate([self._values, np.asarray(values, np.float64)])
        if not len(times):
            return
        index = np.floor(times / self.BIN).astype(np.int64)
        edges = [0, *(np.flatnonzero(np.diff(index)) + 1).tolist()]
        for start, stop in pairwise(edges):
            closed = self._summary(int(index[start]), times[start:stop], levels[start:stop])
            self._scr.update(closed)
            self._bins.append(closed)
        self._times, self._values = times[edges[-1] :], levels[edges[-1] :]
        while self._bins and self._bins[0].k < index[-1] - KEEP / self.BIN:
            self._bins.popleft()

    def verdict(self, end: float, span: float) -> Verdict:
        """Not ok without a valid value in the last second, or with more than half of the span invalid or missing.

        The score is the valid share. Only whole quarters of a second up to `end` count.
        """
        last = int(np.floor(end / self.BIN + 1e-9)) - 1
        first = last - max(1, round(span / self.BIN)) + 1
        reach = int(self.MARGIN / self.BIN)
        known = self._known()
        bins = [b for b in known if first - reach <= b.k <= last]
        seen = [b for b in bins if b.fault != self.OPEN and np.isfinite(b.value)]
        if not bins:
            return Verdict(False, "no EDA samples", 0.0)
        age = end - max((b.last for b in seen), default=-np.inf)
        if age > self.STALE:
            why = self.OPEN if bins[-1].k >= last - 1 else "sensor silent"
            return Verdict(False, f"no valid EDA value for {min(age, span):.1f} s or more: {why}", 0.0)
        data = np.zeros(last - first + 3, bool)  # one bin more on either side
        for b in bins:
            if first - 1 <= b.k:
                data[b.k - first + 1] = True
        # a single empty bin between two others is the jitter of a slow sensor
        bad = ~(data[:-2] | data[1:-1] | data[2:])
        faults = [b for b in bins if b.fault]
        for b in faults:
            bad[max(0, b.k - reach - first) : max(0, b.k + reach - first + 1)] = True
        still = [b for b in known if first - self.FROZEN / self.BIN <= b.k <= last]
        frozen = [k for k in self._frozen(still) if k >= first]
        bad[np.array(frozen, np.int64) - first] = True
        score = 1 - float(bad.mean())
        if score < MIN_USABLE:
            reasons = [b.fault for b in faults] + [self.STUCK] * len(frozen)
            why = f"EDA {_commonest(reasons)}" if reasons else "EDA samples missing"
            return Verdict(False, f"{why}: {1 - score:.0%} of the window lost", score)
        return Verdict(True, "", score)

    def scrs(self) -> list[Scr]:
        """The responses of the last minute, oldest first, each reported once its peak has passed."""
        return list(self._scr.found)

    def _frozen(self, bins: list[_Bin]) -> list[int]:
        """The numbers of those bins that lie in a stretch of exactly one value, FROZEN long."""
        found: list[int] = []
        run: list[int] = []
        before = np.nan
        for b in bins:
            if b.flat != before or (run and b.k - run[-1] > self.STALE / self.BIN):
                run = []
            before = b.flat
            if np.isfinite(b.flat):
                run.append(b.k)
            if len(run) > 1 and run[-1] - run[0] + 1 >= self.FROZEN / self.BIN:
                found += run if not found or found[-1] < run[0] else run[-1:]
        return found

    def _known(self) -> list[_Bin]:
        """The closed bins and the open one as it stands."""
        if not len(self._times):
            return list(self._bins)
        index = int(np.floor(self._times[0] / self.BIN))
        return [*self._bins, self._summary(index, self._times, self._values)]

    def _summary(self, index: int, times: NDArray[np.float64], values: NDArray[np.float64]) -> _Bin:
        finite = np.isfinite(values)
        count = int(finite.sum())
        if 2 * count <= len(values):
            return _Bin(index, np.nan, np.nan, np.nan, self.OPEN)
        value, t = float(values[finite].mean()), float(times[finite].mean())
        outside = (values[finite] < self.RANGE[0]) | (values[finite] > self.RANGE[1])
        fault = self.OUT_OF_RANGE if outside.mean() > 0.5 else ""
        before = self._bins[-1] if self._bins else None
        if before and np.isfinite(before.value) and t - before.t <= self.STALE:
            slope = (value - before.value) / max(t - before.t, self.BIN)
            if abs(slope) > self.MAX_SLOPE and not fault:
                fault = self.TOO_FAST
        level = values[finite]
        flat = float(level[0]) if level.min() == level.max() else np.nan
        return _Bin(index, value, t, float(times[finite][-1]), fault, flat)


class _ScrDetector:
    """Responses in the quarter-second means: from where the slope exceeds 0.02 µS/s to where it falls below, if the
    rise is at least 0.05 µS and takes 0.5-6 s. Three means are averaged against the converter's noise."""

    MIN_SLOPE, MIN_AMPLITUDE = 0.02, 0.05
    MIN_RISE, MAX_RISE = 0.5, 6.0

    def __init__(self) -> None:
        self.found: deque[Scr] = deque()
        self._recent: deque[_Bin] = deque(maxlen=3)
        self._before: tuple[float, float] | None = None
        self._onset: tuple[float, float] | None = None

    def update(self, b: _Bin) -> None:
        if b.fault or (self._recent and b.t - self._recent[-1].t > EdaQuality.STALE):
            self._recent.clear()
            self._before = self._onset = None
        if b.fault:
            return
        self._recent.append(b)
        if len(self._recent) < 3:
            return
        now = (sum(x.t for x in self._recent) / 3, sum(x.value for x in self._recent) / 3)
        if self._before is not None:
            slope = (now[1] - self._before[1]) / max(now[0] - self._before[0], EdaQuality.BIN / 2)
            if slope >= self.MIN_SLOPE:
                self._onset = self._onset or self._before
            elif self._onset is not None:
                rise, amplitude = self._before[0] - self._onset[0], self._before[1] - self._onset[1]
                if self.MIN_RISE <= rise <= self.MAX_RISE and amplitude >= self.MIN_AMPLITUDE:
                    self.found.append(Scr(self._onset[0], self._before[0], amplitude))
                self._onset = None
        self._before = now
        while self.found and self.found[0].peak < now[0] - KEEP:
            self.found.popleft()


def _commonest(reasons: Iterable[str]) -> str:
    return Counter(reasons).most_common(1)[0][0]
