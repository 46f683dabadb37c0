"""Sounds of a ward that are not speech, groans and cries, and sound that lost its upper band; 44.1 kHz, 12 s.

`seed` 0 gives each sound as it is usually met; other seeds vary pitch, harmonics, rhythm and noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import signal

RATE, SECONDS = 44_100, 12
N = RATE * SECONDS
T = np.arange(N) / RATE

Vary = Callable[[float, float, float], float]  # (usual value, lowest, highest)


def vary(seed: int) -> tuple[np.random.Generator, Vary]:
    rng = np.random.default_rng(seed)
    return rng, lambda usual, low, high: usual if seed == 0 else float(rng.uniform(low, high))


def overtones(rng: np.random.Generator, seed: int, usual: Sequence[float]) -> Sequence[float]:
    if seed == 0:
        return usual
    return tuple(1 / np.arange(1, rng.integers(1, len(usual) + 5)) ** rng.uniform(0.5, 2)) or (1.0,)


def pulses(tones: Sequence[float], length: float, gap: float, pause: float, harmonics: Sequence[float]) -> np.ndarray:
    """Bursts of `tones` (Hz), each `length` s, `gap` s apart, `pause` s between bursts."""
    x, at = np.zeros(N), 0
    while True:
        for tone in tones:
            end = min(N, at + int(length * RATE))
            tt = np.arange(end - at) / RATE
            ramp = np.clip(np.minimum(tt, length - tt) / 0.02, 0, 1)
            x[at:end] += 0.2 * ramp * sum(a * np.sin(2 * np.pi * tone * (k + 1) * tt) for k, a in enumerate(harmonics))
            at = end + int(gap * RATE)
            if at >= N:
                return x
        at += int(pause * RATE)


def low_noise(rng: np.random.Generator, level: float, corner: float = 600) -> np.ndarray:
    return signal.lfilter(*signal.butter(2, corner / (RATE / 2)), level * rng.standard_normal(N))


def alarm_high(seed: int) -> np.ndarray:
    rng, v = vary(seed)
    tones = np.array([523, 523, 523, 784, 523]) * v(1, 0.3, 1.8)
    return pulses(
        tones, v(0.15, 0.1, 0.25), v(0.1, 0.05, 0.15), v(0.6, 0.3, 2), overtones(rng, seed, (1, 0.5, 0.3, 0.2))
    )


def alarm_medium(seed: int) -> np.ndarray:
    rng, v = vary(seed)
    tones = np.array([440, 494, 523]) * v(1, 0.3, 2)
    return pulses(tones, v(0.2, 0.15, 0.3), v(0.2, 0.1, 0.25), v(2.5, 1, 3), overtones(rng, seed, (1, 0.5, 0.3, 0.2)))


def ecg_beep(seed: int) -> np.ndarray:
    rng, v = vary(seed)
    return pulses([v(880, 400, 1200)], v(0.08, 0.05, 0.15), v(0.75, 0.3, 1.0), 0.0, overtones(rng, seed, (1, 0.3)))


def pump(seed: int) -> np.ndarray:
    _, v = vary(seed)
    return pulses([v(2400, 1000, 3500)], v(0.25, 0.1, 0.4), v(0.25, 0.1, 0.4), v(1.0, 0.5, 2), (1.0,))


def hum(seed: int) -> np.ndarray:
    rng, v = vary(seed)
    f = 120 if seed == 0 else float(rng.choice([50, 60, 100, 120]))
    tone = sum(a * np.sin(2 * np.pi * f * (k + 1) * T) for k, a in enumerate(overtones(rng, seed, (1.0,))))
    return 0.08 * tone * (0.55 + 0.45 * np.sin(2 * np.pi * v(0.8, 0.3, 6) * T))


def busy_tone(seed: int) -> np.ndarray:
    _, v = vary(seed)
    tones = np.sin(2 * np.pi * v(480, 350, 480) * T) + np.sin(2 * np.pi * v(620, 440, 620) * T)
    return 0.1 * tones * (v(0.5, 0.2, 0.8) > T % 1)


def ventilator(seed: int) -> np.ndarray:
    rng, v = vary(seed)
    breath = signal.lfilter(*signal.butter(1, 3 / (RATE / 2)), np.sin(2 * np.pi * T / v(3, 2, 5)) > 0)
    return breath * (low_noise(rng, 0.1) + 0.08 * signal.sawtooth(2 * np.pi * v(180, 80, 400) * T))


def fan(seed: int) -> np.ndarray:
    rng, v = vary(seed)
    return low_noise(rng, v(0.3, 0.1, 0.5), v(600, 200, 3000))


def snore(seed: int) -> np.ndarray:
    rng, v = vary(seed)
    buzz = signal.sawtooth(2 * np.pi * v(60, 30, 90) * T)
    buzz = signal.lfilter(*signal.butter(2, v(600, 400, 1500) / (RATE / 2)), buzz)
    return low_noise(rng, 0.02) + 0.3 * buzz * (T % 4 < 1.5)


def bed_motor(seed: int) -> np.ndarray:
    _, v = vary(seed)
    f = v(90, 60, 200) * (1 + v(0.05, 0, 0.1) * np.tanh(v(4, 1, 5) * (T % 3 - 0.3)))
    buzz = signal.sawtooth(2 * np.pi * np.cumsum(f) / RATE)
    return 0.1 * signal.lfilter(*signal.butter(2, v(2000, 800, 4000) / (RATE / 2)), buzz) * (T % 3 < 2)


def siren(seed: int) -> np.ndarray:
    _, v = vary(seed)
    f = v(900, 500, 1000) + v(300, 100, 400) * signal.sawtooth(2 * np.pi * 0.5 * T, 0.5)
    return 0.2 * np.sin(2 * np.pi * np.cumsum(f) / RATE)


def piano(seed: int) -> np.ndarray:
    _, v = vary(seed)
    x, apart = np.zeros(N), v(0.35, 0.15, 0.6)
    notes = np.array([262, 294, 330, 349, 392, 440, 494, 523, 196, 147]) * v(1, 0.7, 1.4)
    for i in range(int(SECONDS / apart)):
        since = T[int(i * apart * RATE) :] - int(i * apart * RATE) / RATE
        for k in range(1, 9):
            tone = np.sin(2 * np.pi * notes[i % len(notes)] * k * since)
            x[N - len(since) :] += 0.15 / k * np.exp(-since * (1 + k) * 0.6) * tone
    return x


def clicks(seed: int) -> np.ndarray:
    rng, v = vary(seed)
    return np.where(rng.random(N) < v(2, 1, 8) / RATE, 0.8, 0.0)


def white(seed: int) -> np.ndarray:
    rng, v = vary(seed)
    return v(0.1, 0.02, 0.2) * rng.standard_normal(N)


NOT_SPEECH = (
    alarm_high, alarm_medium, ecg_beep, pump, hum, busy_tone, ventilator, fan, snore, bed_motor, siren, piano, clicks,
    white,
)  # fmt: skip


def vocal(
    f0: float, length: float, every: float, formants: Sequence[tuple[float, float]], vibrato: float
) -> np.ndarray:
    """A voice without words: falling pitch with jitter through fixed `formants` (Hz, bandwidth)."""
    rng, x = np.random.default_rng(5), np.zeros(N)
    for start in np.arange(0.3, SECONDS - 1, every):
        n = int(length * RATE)
        tt = np.arange(n) / RATE
        jitter = signal.lfilter([0.02], [1, -0.98], rng.standard_normal(n))
        f = f0 * (1.1 - 0.3 * tt / length) * (1 + vibrato * np.sin(2 * np.pi * 5 * tt)) * (1 + 0.05 * jitter)
        y = np.diff(signal.sawtooth(2 * np.pi * np.cumsum(f) / RATE), prepend=0) + 0.02 * rng.standard_normal(n)
        y = signal.lfilter([1], [1, -0.97], y)
        for centre, width in formants:
            r, turn = np.exp(-np.pi * width / RATE), 2 * np.pi * centre / RATE
            y = signal.lfilter([1 - 2 * r * np.cos(turn) + r * r], [1, -2 * r * np.cos(turn), r * r], y)
        y *= 0.08 * np.sqrt(np.sin(np.pi * tt / length)) / np.sqrt(np.mean(y**2))
        at = int(start * RATE)
        x[at : at + n] += y[: N - at]
    return x


def groan() -> np.ndarray:
    return vocal(110, 1.6, 2.0, [(450, 80), (800, 90), (2400, 140), (3300, 200)], 0.0)


def cry() -> np.ndarray:
    return vocal(450, 0.9, 1.2, [(900, 100), (1400, 120), (3000, 200)], 0.03)


def in_a_room(x: np.ndarray, seed: int = 0) -> np.ndarray:
    """With the faint noise of a microphone: (N,) float32."""
    noise = 0.003 * np.random.default_rng(seed).standard_normal(len(x))
    return np.clip(x + noise, -1, 1).astype(np.float32)


def through(x: np.ndarray, rate: int, bits: int = 16) -> np.ndarray:
    """`x` as a device of `rate` Hz (a multiple of 100) gives it, at 44.1 kHz again."""
    low = signal.resample_poly(x, rate // 100, RATE // 100)
    high = signal.resample_poly(np.round(low * 2 ** (bits - 1)) / 2 ** (bits - 1), RATE // 100, rate // 100)
    return np.asarray(np.round(high[: len(x)] * 2 ** (bits - 1)) / 2 ** (bits - 1), np.float32)
