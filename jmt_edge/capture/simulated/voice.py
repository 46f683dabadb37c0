"""A source-filter voice: glottal pulses and noise through formants, in phrases of consonant-vowel syllables.

Arousal raises pitch, its range, energy and tempo; valence brightens the timbre and turns the contour upwards.
Time is cut into phrases of `PHRASE` seconds (speech, then a pause), each made from its own random stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .person import Person
from .randomness import PHRASE as PHRASE_STREAM
from .randomness import ROOM, Recent, block_noise, draw

RATE = 44_100
PHRASE = 4.0  # s
_FRAME = 441  # samples: formants move in steps of 10 ms
_FORMANTS = {  # Hz, an average man (Peterson and Barney 1952), with a fixed fourth
    "a": (730, 1090, 2440, 3400),
    "e": (530, 1840, 2480, 3400),
    "i": (270, 2290, 3010, 3500),
    "o": (570, 840, 2410, 3300),
    "u": (300, 870, 2240, 3300),
}
_OPENING = {"a": 1.0, "e": 0.65, "i": 0.35, "o": 0.7, "u": 0.3}
_BANDWIDTHS = (70.0, 100.0, 140.0, 220.0)
_ROOM_NOISE = 4e-4
_LEVEL_DB = -27.0  # RMS of a syllable at arousal 0, re full scale


@dataclass(frozen=True)
class _Phrase:
    """Syllables of one phrase: arrays of equal length, times in seconds from the phrase's beginning."""

    start: NDArray[np.float64]
    length: NDArray[np.float64]
    vowel: list[str]
    consonant: list[str]  # plosive, fricative, nasal or none
    accent: NDArray[np.float64]  # semitones


class Speech:
    """A person's speech at any time: `opening` of the mouth for the face, `samples` for the microphone."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self._plan = Recent(self._draw_phrase, 4)
        self._sound = Recent(self._render, 2)

    def _draw_phrase(self, index: int) -> _Phrase:
        g = draw(self._person.key, PHRASE_STREAM, index)
        arousal = self._person.affect((index + 0.5) * PHRASE)[1]
        at, end = g.uniform(0.05, 0.4), PHRASE - g.uniform(0.4, 1.2) + 0.2 * min(arousal, 0)
        start, length = [], []
        while at < end:
            syllable = g.uniform(0.16, 0.27) / (1 + 0.2 * arousal)
            start.append(at)
            length.append(syllable)
            at += syllable + (g.uniform(0.08, 0.25) if g.random() < 0.2 else 0.0)
        n = len(start)
        return _Phrase(
            np.asarray(start),
            np.asarray(length),
            [str(v) for v in g.choice(list(_FORMANTS), n)],
            [str(c) for c in g.choice(["plosive", "fricative", "nasal", "none"], n, p=[0.35, 0.25, 0.25, 0.15])],
            g.normal(0, 1, n),
        )

    def opening(self, t: float) -> float:
        """How far speech opens the mouth at `t`, 0..1."""
        index = max(int(t // PHRASE), 0)
        phrase = self._plan(index)
        since = t - index * PHRASE
        i = int(np.searchsorted(phrase.start, since, side="right")) - 1
        if i < 0 or since > phrase.start[i] + phrase.length[i]:
            return 0.0
        return _OPENING[phrase.vowel[i]] * float(np.sin(np.pi * (since - phrase.start[i]) / phrase.length[i]) ** 2)

    def samples(self, first: int, count: int) -> NDArray[np.float32]:
        """Microphone samples numbered `first` .. `first + count` at 44.1 kHz, in [-1, 1]; sample 0 at t = 0."""
        size = int(PHRASE * RATE)
        out = np.empty(count, np.float32)
        done = 0
        while done < count:
            index, offset = divmod(first + done, size)
            take = min(count - done, size - offset)
            out[done : done + take] = self._sound(index)[offset : offset + take]
            done += take
        return out

    def _render(self, index: int) -> NDArray[np.float32]:
        """One phrase with its pause: (PHRASE * RATE,) float32."""
        from scipy.signal import lfilter  # of live runs, only one with a simulated voice waits for the import

        who, phrase, n = self._person.traits, self._plan(index), int(PHRASE * RATE)
        g = draw(self._person.key, PHRASE_STREAM, index + (1 << 31))
        frames = n // _FRAME
        at = (np.arange(frames) + 0.5) * _FRAME / RATE
        feel = np.array([self._person.affect(index * PHRASE + s) for s in at[::10]])
        valence, arousal = (np.interp(at, at[::10], feel[:, i]) for i in range(2))
        out = block_noise(self._person.key, ROOM, index * n, n, block=n) * _ROOM_NOISE

        voiced, formants, accent = _articulate(phrase, at)
        # pitch in semitones: arousal lifts it and widens its accents, valence tilts the phrase's contour
        contour = (at / PHRASE - 0.5) * (3.0 * valence - 1.5)
        semitones = 5.0 * arousal + contour + accent * (1.0 + 0.8 * arousal) + 0.15 * g.standard_normal(frames)
        f0 = who.pitch * 2 ** (semitones / 12)
        phase = np.cumsum(np.interp(np.arange(n) / RATE, at, f0)) / RATE
        flow = _glottal_flow(phase % 1.0)
        source = np.diff(flow, prepend=flow[:1]) * np.sqrt(RATE / 100)
        source += 0.02 * flow * g.standard_normal(n)  # breath
        loudness = 10 ** ((_LEVEL_DB + 8.0 * arousal) / 20)
        source *= np.repeat(voiced, _FRAME)

        smile = 1 + 0.05 * valence  # spread lips shorten the tract
        vocal = _formant_filter(source, formants * (who.tract * smile)[:, None])
        tilt = 1800.0 * 2 ** (1.0 * float(valence.mean()) + 0.6 * float(arousal.mean()))
        pole = np.exp(-2 * np.pi * tilt / RATE)
        vocal = lfilter([1 - pole], [1, -pole], vocal)
        speaking = np.repeat(voiced > 0.2, _FRAME)
        if speaking.any():
            vocal /= np.sqrt(np.mean(vocal[speaking] ** 2)) + 1e-9
        gain = np.interp(np.arange(n) / RATE, at, loudness)
        out += vocal * gain
        _add_consonants(out, phrase, gain, g)
        return np.clip(out, -1.0, 1.0).astype(np.float32)


def _articulate(
    phrase: _Phrase, at: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Per frame: voicing 0..1, formants (frames, 4) in Hz, pitch accent in semitones."""
    voiced, accent = np.zeros(len(at)), np.zeros(len(at))
    formants = np.tile(np.array([500.0, 1500.0, 2500.0, 3400.0]), (len(at), 1))
    for start, length, vowel, consonant, rise in zip(
        phrase.start, phrase.length, phrase.vowel, phrase.consonant, phrase.accent
    ):
        onset = {"plosive": 0.05, "fricative": 0.07, "nasal": 0.0, "none": 0.0}[consonant]
        inside = (at >= start) & (at < start + length)
        since = at[inside] - start
        voiced[inside] = np.clip((since - onset) / 0.02, 0, 1) * np.clip((length - since) / 0.03, 0, 1)
        if consonant == "nasal":
            voiced[inside] *= np.where(since < 0.06, 0.35, 1.0)
        formants[inside] = _FORMANTS[vowel]
        accent[inside] = rise
    smooth = np.hanning(9)[1:-1]  # tongue and larynx move within about 60 ms
    smooth /= smooth.sum()
    padded = np.pad(formants, ((3, 3), (0, 0)), mode="edge")
    formants = np.stack([np.convolve(padded[:, i], smooth, "valid") for i in range(4)], axis=1)
    return voiced, formants, np.convolve(np.pad(accent, 3, mode="edge"), smooth, "valid")


def _glottal_flow(phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rosenberg's glottal pulse (1971, type C) over one period, `phase` in [0, 1)."""
    rise, fall = 0.40, 0.16
    opening = 0.5 * (1 - np.cos(np.pi * phase / rise))
    closing = np.cos(0.5 * np.pi * (phase - rise) / fall)
    return np.where(phase < rise, opening, np.where(phase < rise + fall, closing, 0.0))


def _formant_filter(source: NDArray[np.float64], formants: NDArray[np.float64]) -> NDArray[np.float64]:
    """Klatt's (1980) resonators in cascade; `formants` (frames, 4) hold for one frame each."""
    from scipy.signal import sosfilt

    bandwidths = np.asarray(_BANDWIDTHS)
    c = -np.exp(-2 * np.pi * bandwidths / RATE)
    b = 2 * np.exp(-np.pi * bandwidths / RATE) * np.cos(2 * np.pi * formants / RATE)
    sections = np.zeros((len(formants), 4, 6))
    sections[..., 0], sections[..., 3] = 1 - b - c, 1
    sections[..., 4], sections[..., 5] = -b, -c
    out = np.empty_like(source)
    state = np.zeros((4, 2))
    for i, sos in enumerate(sections):
        part = slice(i * _FRAME, (i + 1) * _FRAME)
        out[part], state = sosfilt(sos, source[part], zi=state)
    return out


def _add_consonants(
    out: NDArray[np.float64], phrase: _Phrase, gain: NDArray[np.float64], g: np.random.Generator
) -> None:
    """Bursts and frication: high-passed noise at the head of a syllable."""
    for start, consonant in zip(phrase.start, phrase.consonant):
        if consonant not in ("plosive", "fricative"):
            continue
        begin = int((start + (0.035 if consonant == "plosive" else 0.0)) * RATE)
        length = int((0.015 if consonant == "plosive" else 0.07) * RATE)
        noise = np.diff(g.standard_normal(length + 1)) * np.hanning(length)
        stop = min(begin + length, len(out))
        out[begin:stop] += 0.25 * noise[: stop - begin] * gain[begin:stop]
