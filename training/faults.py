"""Faults of the input: what a sensor or a room does to a signal before a network sees it.

EDA and sound are spoiled sample by sample at the source, and then cut and judged as in a live run, so the quality rules
see the fault. Faces are spoiled as crops: they are found in the clean picture, and the network sees what a live run's
quality rules may have refused. A fault depends on the trial and the time alone, not on how the signal is read.
Noise that nobody can see (`GREY_NOISE`) is not a fault: it is in the camera's picture, where the face is then searched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..capture.base import LazyFrames
from ..capture.simulated.person import Person
from ..capture.simulated.voice import RATE, Speech
from ..clips.cut import Samples
from ..clips.frames import frame_times
from ..clips.presence import MIN_COVERAGE
from ..media.chunk import Chunk
from ..opencv import cv2
from ..tasks import Modality, Task

DROPOUTS = "drop-outs"
GREY_NOISE = "grey noise"  # each value of each frame one level up, down, or as it is
# Of each modality; the first of all modalities are combined, then the second, and so on (`conditions`).
FAULTS: dict[str, tuple[str, ...]] = {
    "face": ("occlusion", "darkness", "blur", DROPOUTS),
    "eda": ("electrode pops", "clipping", "electrode loss", DROPOUTS),
    "voice": ("babble", "clipping", "alarm", DROPOUTS),
}


def faults_of(m: Modality) -> tuple[str, ...]:
    """Those of `FAULTS` that a modality can have: pictures are spoiled, and of measures there is no picture."""
    return (DROPOUTS,) if m.measured else FAULTS[m.name]


DARK, SENSOR_NOISE = 0.1, 3.0  # share of the light that is left; SD of the picture's noise in steps of 255
POPS, POP_DECAY = 0.5, 0.4  # a second; s
CEILING = 0.05  # µS above a trial's first value at which the amplifier is saturated
BABBLERS, BABBLE = 6, 0.08  # people who talk, and the RMS of their sum
ALARM_HZ, ALARM_LEVEL = 960.0, 0.25  # a monitor's tone, and its amplitude
GAIN = 12.0  # of a microphone that is set too high

Times = NDArray[np.float64]


def conditions(task: Task) -> dict[str, dict[str, str]]:
    """Condition -> the fault of each modality that has one: each fault alone, then one fault on every modality."""
    names = [m.name for m in task.modalities]
    found = {f"{fault}, {m.name}": {m.name: fault} for m in task.modalities for fault in faults_of(m)}
    if len(names) > 1:
        for faults in zip(*(faults_of(m) for m in task.modalities)):
            found[" + ".join(faults)] = dict(zip(names, faults))
    return found


def chance(trial: str, fault: str) -> np.random.Generator:
    """The random numbers of a fault in a trial."""
    return np.random.default_rng(list(hashlib.sha256(f"{trial}\0{fault}".encode()).digest()))


def spans(rng: np.random.Generator, duration: float, fine: tuple[float, float], bad: tuple[float, float]) -> Times:
    """(n, 2) begins and ends (s) of the bad stretches of a trial, between fine ones; their lengths are uniform."""
    found, t = [], float(rng.uniform(0, fine[1]))
    while t < duration:
        end = t + float(rng.uniform(*bad))
        found.append((t, end))
        t = end + float(rng.uniform(*fine))
    return np.array(found).reshape(-1, 2)


def within(times: Times, stretches: Times) -> NDArray[np.bool_]:
    """(n,) whether each time lies in one of the stretches (m, 2)."""
    after = np.searchsorted(stretches[:, 0], times, side="right") - 1
    return (after >= 0) & (times < stretches[np.maximum(after, 0), 1]) if len(stretches) else np.zeros(len(times), bool)


# ---- EDA and sound, at the source ---------------------------------------------------------------------------------


@dataclass
class Spoiled:
    """A source whose samples have passed through `change`."""

    source: Samples
    change: Callable[[Chunk], Chunk]

    def open(self, origin: float) -> None:
        self.source.open(origin)

    def read(self, until: float) -> Chunk:
        chunk = self.source.read(until)
        return self.change(chunk) if len(chunk) else chunk

    def close(self) -> None:
        self.source.close()


def spoiled(source: Samples, modality: str, fault: str, trial: str, duration: float) -> Samples:
    """`source` of EDA or voice with the fault, or of a face with `GREY_NOISE`; trial, duration (s): what the fault's
    course depends on."""
    rng = chance(trial, fault)
    if fault == DROPOUTS:
        gaps = spans(rng, duration, (0.3, 1.2), (0.4, 1.2))
        return Spoiled(source, lambda chunk: _without(chunk, within(chunk.times, gaps)))
    return Spoiled(source, {"face": _FACE, "eda": _EDA, "voice": _VOICE}[modality][fault](rng, duration))


def _without(chunk: Chunk, lost: NDArray[np.bool_]) -> Chunk:
    return replace(chunk, times=chunk.times[~lost], values=chunk.values[~lost], lost=chunk.lost + int(lost.sum()))


def _added(chunk: Chunk, more: NDArray[Any]) -> Chunk:
    return replace(chunk, values=(chunk.values + more).astype(np.float32))


def _pops(rng: np.random.Generator, duration: float) -> Callable[[Chunk], Chunk]:
    """Sudden steps of 0.2 to 1 µS either way, which die away: an electrode whose contact jumps."""
    at = np.sort(rng.uniform(0, duration, max(1, rng.poisson(POPS * duration))))
    height = rng.uniform(0.2, 1.0, len(at)) * rng.choice([-1, 1], len(at))

    def change(chunk: Chunk) -> Chunk:
        since = chunk.times[:, None] - at[None]
        course = np.where(since >= 0, np.exp(-np.maximum(since, 0) / POP_DECAY), 0.0)
        return replace(chunk, values=np.maximum(chunk.values + course @ height, 0).astype(np.float32))

    return change


def _saturated(rng: np.random.Generator, duration: float) -> Callable[[Chunk], Chunk]:
    """An amplifier whose range ends just above the level at which the trial begins."""
    ceiling: list[float] = []

    def change(chunk: Chunk) -> Chunk:
        known = chunk.values[np.isfinite(chunk.values)]
        if not ceiling and len(known):
            ceiling.append(float(known[0]) + CEILING)
        return replace(chunk, values=np.minimum(chunk.values, np.float32(ceiling[0]))) if ceiling else chunk

    return change


def _open_circuit(rng: np.random.Generator, duration: float) -> Callable[[Chunk], Chunk]:
    """No conductance while the electrode is off the skin."""
    off = spans(rng, duration, (1.5, 3.0), (1.0, 3.0))
    return lambda chunk: replace(
        chunk, values=np.where(within(chunk.times, off), np.float32(0), chunk.values).astype(np.float32)
    )


def _babble(rng: np.random.Generator, duration: float) -> Callable[[Chunk], Chunk]:
    """Several people who talk at the same time."""
    people = [Speech(Person.live(int(seed))) for seed in rng.integers(500_000, 600_000, BABBLERS)]
    loudness = float(np.sqrt(BABBLERS * np.mean(np.square(people[0].samples(0, 8 * RATE)))))

    def change(chunk: Chunk) -> Chunk:
        first = round(float(chunk.times[0]) * RATE)
        count = round(float(chunk.times[-1]) * RATE) - first + 1
        talk = np.sum([p.samples(first, count) for p in people], axis=0)
        at = np.clip(np.rint(chunk.times * RATE).astype(int) - first, 0, count - 1)
        return _added(chunk, talk[at] * (BABBLE / max(loudness, 1e-9)))

    return change


def _alarm(rng: np.random.Generator, duration: float) -> Callable[[Chunk], Chunk]:
    """Bursts of tones with harmonics, as of a patient monitor."""
    bursts = spans(rng, duration, (0.15, 0.3), (0.15, 0.25))

    def change(chunk: Chunk) -> Chunk:
        tone = np.sum([np.sin(2 * np.pi * ALARM_HZ * k * chunk.times) / k for k in (1, 2, 3, 4)], axis=0)
        return _added(chunk, ALARM_LEVEL * tone * within(chunk.times, bursts))

    return change


def _overdriven(rng: np.random.Generator, duration: float) -> Callable[[Chunk], Chunk]:
    """A microphone's gain far too high."""
    return lambda chunk: replace(chunk, values=np.clip(GAIN * chunk.values, -1, 1).astype(np.float32))


def _grey_noise(rng: np.random.Generator, duration: float) -> Callable[[Chunk], Chunk]:
    """Independent in each frame, and frames stay lazy: most of a recording's are never looked at."""
    seed = int(rng.integers(2**31))

    def change(chunk: Chunk) -> Chunk:
        def noisy(i: int) -> NDArray[np.uint8] | None:
            frame = chunk.values[i]
            if frame is None:
                return None
            own = np.random.default_rng([seed, round(float(chunk.times[i]) * 1e6)])
            shaken = frame.astype(np.int16) + own.integers(-1, 2, frame.shape, np.int8)
            return np.asarray(np.clip(shaken, 0, 255), np.uint8)

        return replace(chunk, values=LazyFrames(noisy, range(len(chunk))))

    return change


_Maker = Callable[[np.random.Generator, float], Callable[[Chunk], Chunk]]
_FACE: dict[str, _Maker] = {GREY_NOISE: _grey_noise}
_EDA: dict[str, _Maker] = {"electrode pops": _pops, "clipping": _saturated, "electrode loss": _open_circuit}
_VOICE: dict[str, _Maker] = {"babble": _babble, "clipping": _overdriven, "alarm": _alarm}


# ---- faces, as crops ----------------------------------------------------------------------------------------------


def spoil_face(
    clip: NDArray[np.uint8], m: Modality, fault: str, trial: str, duration: float, end: float
) -> tuple[NDArray[np.uint8], bool]:
    """An aligned clip (T, H, W, 3) of a trial that ends at `end` (s), with the fault, and whether it may be used."""
    rng = chance(trial, fault)
    frames, height = clip.shape[:2]
    out = clip.copy()
    if fault == "occlusion":  # something held before mouth and cheeks
        colour = rng.uniform(40, 200, 3)
        out[:, round(0.55 * height) :] = colour.astype(np.uint8)
    elif fault == "darkness":
        own = np.random.default_rng([int(rng.integers(2**31)), round(end * 1000)])
        dark = clip * DARK + own.normal(0, SENSOR_NOISE, clip.shape)
        out = np.clip(np.rint(dark), 0, 255).astype(np.uint8)
    elif fault == "blur":
        for i in range(frames):
            out[i] = cv2.GaussianBlur(clip[i], (0, 0), height / 24)
    else:
        lost = within(frame_times(m, end), spans(rng, duration, (0.3, 1.2), (0.4, 1.2)))
        kept = np.flatnonzero(~lost)
        if len(kept):  # a lost frame shows the one before it, at the beginning the first that is there
            source = kept[np.maximum(np.searchsorted(kept, np.arange(frames), side="right") - 1, 0)]
            out = clip[source]
        return out, len(kept) >= MIN_COVERAGE["face"] * frames
    return out, True
