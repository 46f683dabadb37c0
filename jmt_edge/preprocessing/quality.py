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

from ..opencv import cv2
from .face import LYING, NO_FACE, Face, wrapped
from .filters import hann
from .speech import SpeechDetector, SpeechStep

KEEP = 60.0  # s of history
MIN_USABLE = 0.5  # share of a span that must be usable; below it the modality is not ok


@dataclass(frozen=True)
class Verdict:
    """`ok`: use the modality. `reason`: why not, "" when ok. `score`: 0 (useless) to 1 (as good as it gets).

    track, turn: whose face it is and how that person lies in the picture (`Face`); 0 for everything else.
    """

    ok: bool
    reason: str
    score: float
    track: int = 0
    turn: int = 0


def _ramp(x: float, bad: float, good: float) -> float:
    """0 at `bad` and beyond, 1 at `good` and beyond, linear between."""
    return float(min(1.0, max(0.0, (x - bad) / (good - bad))))


# --- face ---


class FaceFrame(NamedTuple):
    """One frame's face, judged. score: 0 where it may not be used, because of `reason`. track: whose face it is, 0
    where there is none. turn: see `Face`.
    """

    t: float
    score: float
    reason: str
    track: int
    turn: int

    @property
    def fault(self) -> str:
        """Why the face may not be used; empty where it may."""
        return self.reason if self.score == 0 else ""


class FaceQuality:
    """Size, sharpness, pose, brightness and visibility of the followed face.

    Limits, each with where it was seen: a face 40 pixels wide (a third of the 112-pixel crop); sharpness, the
    variance of the Laplacian over that of the crop, 0.01 (sharp recordings 0.08-0.2, a Gaussian blur of one 30th of
    the face's width 0.01); mean brightness 40..220 and contrast (standard deviation) 10 of 255; head turned by about
    40 degrees, read off the nose tip's place between the eyes; nodded so far that the nose tip leaves the middle half
    between eyes and mouth; tilted by 58 degrees against the way the person lies. What is covered is judged where the
    face is followed (`Face.fault`); a detection score below 0.65 (a free face has 0.8-0.95) counts as hidden, too.
    """

    STALE = 0.6  # s without a frame: the camera has stopped
    OTHER = "the followed person has changed"

    def __init__(self) -> None:
        self._frames: deque[FaceFrame] = deque()

    @staticmethod
    def judge(t: float, face: Face | None, crop: NDArray[np.uint8] | None, why: str = NO_FACE) -> FaceFrame:
        """The frame at time `t`: the face found, and its aligned crop (h, w, 3) uint8 RGB; for none None, and why."""
        if face is None or crop is None:
            return FaceFrame(t, 0.0, why, 0, 0)
        aspects = [(0.0, face.fault)] if face.fault else _face_scores(face, crop)
        score, reason = min(aspects, key=lambda aspect: aspect[0])
        return FaceFrame(t, score, reason, face.track, face.turn)

    def update(self, t: float, face: Face | None, crop: NDArray[np.uint8] | None, why: str = NO_FACE) -> None:
        """`judge` a frame and `add` it."""
        self.add(self.judge(t, face, crop, why))

    def add(self, frame: FaceFrame) -> None:
        """The next frame, in time order."""
        self._frames.append(frame)
        while self._frames[0].t < frame.t - KEEP:
            self._frames.popleft()

    def newest(self) -> str:
        """Why the newest frame is not usable, empty where it is or where there is none yet."""
        return self._frames[-1].fault if self._frames else ""

    def verdict(self, end: float, span: float) -> Verdict:
        """The span is ok where at least half of its frames are; the score is their mean.

        Frames of anybody but the newest person count as not usable.
        """
        frames = [f for f in self._frames if end - span - 1e-6 <= f.t <= end + 1e-6]
        if not frames:
            return Verdict(False, "no camera frames", 0.0)
        age = end - frames[-1].t
        seen = [f for f in frames if f.track]
        track, turn = (seen[-1].track, seen[-1].turn) if seen else (0, 0)
        if age > self.STALE:
            return Verdict(False, f"no camera frame for {age:.1f} s", 0.0, track, turn)
        own = [f if f.track in (track, 0) else f._replace(score=0.0, reason=self.OTHER) for f in frames]
        score = sum(f.score for f in own) / len(own)
        bad = [f.reason for f in own if f.score == 0]
        if len(bad) > (1 - MIN_USABLE) * len(own):
            return Verdict(False, f"{_commonest(bad)} in {len(bad)} of {len(own)} frames", score, track, turn)
        return Verdict(True, "", score, track, turn)


def _face_scores(face: Face, crop: NDArray[np.uint8]) -> list[tuple[float, str]]:
    """(score, what is wrong if it is 0) of each aspect of one face."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if grey.shape[0] > 112:
        grey = cv2.resize(grey, (112, 112), interpolation=cv2.INTER_AREA)
    light, contrast = float(grey.mean()), float(grey.std())
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var()) / max(contrast, 1.0) ** 2
    yaw, pitch, roll = _pose(face.landmarks.astype(np.float64))
    roll = wrapped(roll - face.turn)
    lies = LYING[180] if abs(roll) > 135 else f"{LYING[90]} (head tilted by about {round(abs(roll), -1):.0f}°)"
    return [  # of several that are 0, the first is named
        (_ramp(abs(roll), 58, 40), lies),
        (_ramp(min(face.width, face.height), 40, 100), "face too far away (too small)"),
        (min(_ramp(light, 40, 70), _ramp(contrast, 10, 25)), "face too dark or without contrast"),
        (_ramp(light, 220, 190), "face too bright"),
        (_ramp(sharpness, 0.01, 0.06), "face blurred"),
        (min(_ramp(abs(yaw), 0.45, 0.2), _ramp(abs(pitch - 0.5), 0.25, 0.15)), "face turned away"),
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
    lost: float  # share of samples that are not a number
    bands: NDArray[np.float32]  # power in bands of `BAND` Hz up to `TOP`
    alike: float  # cosine of its magnitude spectrum and that of the block before; NaN where there is none
    low: NDArray[np.float32]  # the sound at a quarter of the rate, for its pitch


class VoiceQuality:
    """Level, clipping and bandwidth, in blocks of 40 ms, and speech, in steps of 32 ms (`SpeechDetector`).

    There is speech in a span where 5 % of its steps are more likely speech than not and 15 % of those of the last 3 s
    are speech for sure (0.9), so that a pause does not end it. Clean speech has 40-90 %. An alarm with the harmonics of
    a vowel was seen to have 9 % of sure steps in 3 s, and a hum all; but its sound stays the same. From one block to
    the next the cosine of the spectra is 0.6-0.95 in speech, at most 0.995 in a monotonous synthetic voice, and more
    in a steady tone. Without speech there is nothing that a network was trained on, so the verdict is not ok; a groan
    or a cry has a reason of its own, and so has a pause: no speech in the span, loud or quiet, but speech for sure in
    the 3 s before its end.

    Sound is narrow-band where the spectrum of the last 3 s falls off an edge and stays empty above it, which no mouth
    and no room does: by 24 dB within 1 kHz, or by 14 dB down to what 16 bits resolve, somewhere from 3.5 to 8.5 kHz.
    Speech of full band falls by at most 21 dB (read sentences, synthetic voices, MP3 of 48 kbit/s), speech that
    passed through 8 or 16 kHz by 30. Power is averaged, so a pause has no weight.
    """

    BLOCK = 0.04
    CONTEXT = 3.0  # s that tell speech and bandwidth
    STALE = 0.5  # s without samples
    MAX_LOST = 0.01
    DEAD_SWING = 2.0**-14  # two steps of 16 bit
    FULL_SCALE = 0.99
    MAX_CLIPPED = 0.01
    MIN_LEVEL = -55.0
    MIN_SPEECH, MIN_SURE, SURE = 0.05, 0.15, 0.9
    STEADY, LOUD = 0.995, 20.0  # cosine; dB below the loudest block of those that are compared
    BAND, TOP = 500, 14_000  # Hz
    EDGES = range(7, 18)  # numbers of the bands at which sound may end
    EDGE, EDGE_TO_FLOOR, FLOOR = 24.0, 14.0, -108.0  # dB, dB, dBFS in a band: noise of 16 bits has -114

    NOT_NUMBERS = "of the sound is not a number (NaN)"
    NO_SPEECH, VOCAL, PAUSE = "no speech", "vocal, not speech", "pause in speech"
    NARROW = "narrow-band sound, nothing above"

    def __init__(self, rate: float = 44_100) -> None:
        self._rate = rate
        self._size = round(self.BLOCK * rate)
        self._bins = round(self.BAND * self._size / rate)  # of the spectrum in a band
        self._starts = np.arange(min(round(self.TOP / self.BAND), self._size // 2 // self._bins)) * 2 * self._bins
        self._magnitude = np.empty(0, np.float32)  # spectrum of the last block, 50-4000 Hz
        self._window = hann(self._size).astype(np.float32)
        self._blocks: deque[_Block] = deque()
        self._detector = SpeechDetector(rate)
        self._steps: deque[SpeechStep] = deque()
        self._samples = np.empty(0, np.float32)
        self._times = np.empty(0)

    @classmethod
    def history(cls, span: float) -> float:
        """Seconds before `end` on which the verdict on `span` depends."""
        return max(span, cls.CONTEXT) + SpeechDetector.RESET + 2 * cls.BLOCK

    def update(self, times: NDArray[np.float64], samples: NDArray[np.float32]) -> None:
        """times: (n,) s. samples: (n,) in [-1, 1]; what is not finite counts as lost."""
        times, samples = np.asarray(times, np.float64), np.asarray(samples, np.float32)
        self._steps += self._detector.update(times, _finite(samples))
        self._samples = np.concatenate([self._samples, samples])
        self._times = np.concatenate([self._times, times])
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

    def _append(self, block: NDArray[np.float32], t: float) -> None:
        x = _finite(block)
        lost = 0.0 if x is block else float(np.mean(~np.isfinite(block)))
        lowest, highest = float(x.min()), float(x.max())
        full = max(-lowest, highest) >= self.FULL_SCALE
        clipped = float(np.mean(np.abs(x) >= self.FULL_SCALE)) if full else 0.0
        wide = x.astype(np.float64)
        wide -= wide.mean()
        level = 10 * np.log10(max(float(np.mean(wide * wide)), 1e-12))
        centred = wide.astype(np.float32)
        quarters = len(x) // 4 * 4
        low = centred[0:quarters:4] + centred[1:quarters:4] + centred[2:quarters:4] + centred[3:quarters:4]
        bands, alike = self._spectrum(centred, t)
        self._blocks.append(_Block(t, level, highest - lowest, clipped, lost, bands, alike, low))
        while self._blocks[0].t < t - KEEP:
            self._blocks.popleft()
        while self._steps and self._steps[0].t < t - KEEP:
            self._steps.popleft()

    def _spectrum(self, x: NDArray[np.float32], t: float) -> tuple[NDArray[np.float32], float]:
        """`bands` and `alike` of a block."""
        spectrum = np.fft.rfft(x * self._window)[: len(self._starts) * self._bins]
        spectrum = spectrum.astype(np.complex64, copy=False)  # NumPy before 2.0 computes in double precision
        parts = spectrum.view(np.float32)
        bands = np.add.reduceat(parts * parts, self._starts) / np.float32(3 / 16 * len(x) ** 2)
        magnitude = np.abs(spectrum[2 : 8 * self._bins])
        magnitude /= np.float32(np.sqrt(np.sum(magnitude * magnitude)) + 1e-12)
        follows = bool(self._blocks) and t - self._blocks[-1].t < 1.5 * self.BLOCK
        alike = float(np.sum(magnitude * self._magnitude)) if follows else np.nan
        self._magnitude = magnitude
        return np.asarray(bands), alike

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
        lost = sum(b.lost for b in blocks) / len(blocks)
        if lost > self.MAX_LOST:
            return Verdict(False, f"{lost:.0%} {self.NOT_NUMBERS}", 0.0)
        if max(b.swing for b in blocks) < self.DEAD_SWING:
            return Verdict(False, "microphone dead or muted", 0.0)
        clipped = sum(b.clipped for b in blocks) / len(blocks)
        if clipped > self.MAX_CLIPPED:
            return Verdict(False, f"{clipped:.0%} of the sound is clipped", 0.0)
        context = end - max(span, self.CONTEXT)
        recent = [b for b in past if b.t > context]
        steps = [s for s in self._steps if s.known <= end + 1e-6 and s.t > context]
        speech = _share(s.speech > 0.5 for s in steps if s.t > end - span)
        spoken = _share(s.speech > self.SURE for s in steps) >= self.MIN_SURE and not self._is_steady(recent)
        pause = spoken and speech < self.MIN_SPEECH and not self._is_vocal(blocks)
        level = float(np.percentile([b.level for b in blocks], 95))
        if level < self.MIN_LEVEL and not pause:
            return Verdict(False, f"too quiet ({level:.0f} dBFS)", 0.0)
        if not pause and (speech < self.MIN_SPEECH or not spoken):
            return Verdict(False, self.VOCAL if self._is_vocal(blocks) else self.NO_SPEECH, 0.0)
        edge = self._edge([b.bands for b in recent])
        if edge is not None:
            return Verdict(False, f"{self.NARROW} {edge / 1000:g} kHz", 0.0)
        if pause:
            return Verdict(False, self.PAUSE, 0.0)
        score = min(_ramp(level, -60, -40), _ramp(clipped, self.MAX_CLIPPED, 0), _ramp(speech, 0, 0.3))
        return Verdict(True, "", score)

    def _edge(self, bands: list[NDArray[np.float32]]) -> float | None:
        """The frequency (Hz) above which there is nothing, None where there is sound up to `TOP`."""
        level = 10 * np.log10(np.mean(bands, axis=0, dtype=np.float64) + 1e-14)
        for e in (e for e in self.EDGES if e + 2 <= len(level)):
            above = float(level[e + 1 :].max())  # the band in between holds the edge
            fall = float(level[e - 3 : e - 1].mean()) - above
            if fall >= self.EDGE or (fall >= self.EDGE_TO_FLOOR and above <= self.FLOOR):
                return float(e * self.BAND)
        return None

    def _is_steady(self, blocks: list[_Block]) -> bool:
        """Whether the sound stays the same wherever it is loud, whatever pauses it has: a tone, not a voice."""
        loud = max(b.level for b in blocks) - self.LOUD
        alike = [b.alike for a, b in pairwise(blocks) if min(a.level, b.level) > loud and np.isfinite(b.alike)]
        return len(alike) > 2 and float(np.median(alike)) >= self.STEADY

    def _is_vocal(self, blocks: list[_Block]) -> bool:
        """Whether a pitch of 75-600 Hz glides through 0.24 s or more: that of a device or a key stands, or jumps."""
        pitch = [_pitch(b.low, self._rate / 4) if b.level > self.MIN_LEVEL - 10 else 0.0 for b in blocks]
        run: list[float] = []
        for f in (*pitch, 0.0):
            if run and (f == 0 or abs(f / run[-1] - 1) > 0.055):  # a semitone is 0.059
                if len(run) >= 6 and np.ptp(np.log(run)) > 0.05:
                    return True
                run = []
            if f:
                run.append(f)
        return False


def _share(x: Iterable[bool]) -> float:
    values = list(x)
    return sum(values) / max(1, len(values))


def _finite(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """`x` itself, or a copy with silence for what is not finite."""
    finite = np.isfinite(x)
    return x if finite.all() else np.where(finite, x, np.float32(0))


def _pitch(x: NDArray[np.float32], rate: float) -> float:
    """Pitch (Hz) of a block; 0 where it has none between 75 and 600 Hz."""
    n = len(x)
    power = np.abs(np.fft.rfft(x.astype(np.float64), 2 * n)) ** 2
    lags = np.arange(min(n, int(rate / 75) + 2))
    r = np.fft.irfft(power, 2 * n)[: len(lags)] * (n / (n - lags))
    if r[0] <= 0:
        return 0.0
    r = r / r[0]
    inner = r[1:-1]
    peaks = np.flatnonzero((inner > r[:-2]) & (inner >= r[2:])) + 1
    # a peak, not the slow decay of low-frequency noise: it rises from the dip before it
    peaks = np.array([p for p in peaks if r[p] > 0.5 and r[p] - r[:p].min() > 0.3], int)
    if not len(peaks):
        return 0.0
    p = int(peaks[r[peaks] > 0.9 * r[peaks].max()][0])  # later ones are multiples of the period
    left, top, right = r[p - 1 : p + 2]
    found = float(rate / (p + 0.5 * (left - right) / (left - 2 * top + right)))
    return found if 75 <= found <= 600 else 0.0


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
    needs a probe and is not checked. "Within 5 s" looks both ways, but never beyond `end`.

    A value that stays exactly the same for 10 s is a sensor or a driver that hangs, and is invalid too: skin and
    converters flicker (the longest such stretches in real recordings were 2 s at 4 Hz and 0.2 s at 1000 Hz).
    """

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
