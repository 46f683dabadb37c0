"""What happens to the simulated person: painful stimuli over time, and the pain they cause.

Pain is 0 (none) to 1 (the person's tolerance). As in BioVid, PA1 is the pain threshold and PA4 the tolerance, with
equal steps in between; BL is no stimulus.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .randomness import EPISODE, SESSION, Key, Recent, draw

CLASS_NAMES = ("BL1", "PA1", "PA2", "PA3", "PA4")
CLASS_PAIN = {"BL1": 0.0, "PA1": 0.25, "PA2": 0.5, "PA3": 0.75, "PA4": 1.0}
PLATEAU = 4.0  # seconds at target temperature, BioVid's protocol
RISE, FALL = 0.8, 1.2  # seconds in which felt pain rises and fades
PAUSE = (8.0, 12.0)  # seconds between two stimuli, BioVid's protocol
TRIAL = 5.5  # seconds of one BioVid sample
ONSET = (-1.0, 0.5)  # felt onset within a sample: heating and reaction time differ from trial to trial

# A live episode: an ache with waves, each wave a stimulus.
EPISODE_PERIOD = 120.0  # one episode in each stretch of this length
TONIC_SHARE = 0.65  # of an episode's pain that stays between its waves


@dataclass(frozen=True)
class Stimulus:
    """One painful stimulus. `number` names it within the scenario; the person's reaction is drawn from it."""

    onset: float
    pain: float
    number: int


class Scenario(Protocol):
    def stimuli(self, start: float, end: float) -> list[Stimulus]:
        """Stimuli whose onset lies in [start, end), in time order."""

    def pain(self, t: float) -> float:
        """Pain felt at `t`, 0..1."""


def _smooth(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def envelope(t: float, onset: float, duration: float) -> float:
    """0..1: rises within RISE from `onset`, stays until `onset + duration`, fades within FALL."""
    return min(_smooth((t - onset) / RISE), 1 - _smooth((t - onset - duration) / FALL))


class Session:
    """A BioVid session: single stimuli in random order with pauses; trial windows are cut from it.

    `windows[i]` = (class name, number within its class, start in seconds).
    """

    def __init__(self, key: Key, trials_per_class: int, classes: tuple[str, ...] = CLASS_NAMES) -> None:
        generator = draw(key, SESSION)
        order = [(name, i) for name in classes for i in range(trials_per_class)]
        generator.shuffle(order)
        self._stimuli: list[Stimulus] = []
        self.windows: list[tuple[str, int, float]] = []
        start = 60.0
        for number, (name, i) in enumerate(order):
            start += TRIAL + generator.uniform(*PAUSE)
            onset = start + generator.uniform(*ONSET)
            self.windows.append((name, i, start))
            if CLASS_PAIN[name] > 0:
                self._stimuli.append(Stimulus(onset, CLASS_PAIN[name], number))
        self._onsets = [s.onset for s in self._stimuli]

    def stimuli(self, start: float, end: float) -> list[Stimulus]:
        return self._stimuli[bisect_left(self._onsets, start) : bisect_left(self._onsets, end)]

    def pain(self, t: float) -> float:
        recent = self.stimuli(t - RISE - PLATEAU - FALL, t)
        return max((s.pain * envelope(t, s.onset, PLATEAU) for s in recent), default=0.0)


@dataclass(frozen=True)
class _Episode:
    start: float
    end: float
    waves: tuple[Stimulus, ...]


class Episodes:
    """The live scenario, endless: one pain episode of 5 to 8 waves in every EPISODE_PERIOD, rest between."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._episode = Recent(self._draw, 4)

    def _draw(self, index: int) -> _Episode:
        generator = draw(self._key, EPISODE, index)
        pain = generator.uniform(0.85, 1.0)
        onset = index * EPISODE_PERIOD + generator.uniform(25.0, 50.0)
        waves = []
        for i in range(int(generator.integers(5, 9))):
            waves.append(Stimulus(onset, pain, index * 16 + i))
            onset += RISE + PLATEAU + generator.uniform(1.0, 2.5)
        return _Episode(waves[0].onset, waves[-1].onset + RISE + PLATEAU, tuple(waves))

    def _near(self, start: float, end: float) -> list[_Episode]:
        first, last = max(int(start // EPISODE_PERIOD), 0), int(end // EPISODE_PERIOD)
        return [self._episode(i) for i in range(first, last + 1)]

    def stimuli(self, start: float, end: float) -> list[Stimulus]:
        return [w for e in self._near(start, end) for w in e.waves if start <= w.onset < end]

    def pain(self, t: float) -> float:
        felt = 0.0
        for e in self._near(t - FALL, t):
            ache = envelope(t, e.start, e.end - e.start)
            wave = max(envelope(t, w.onset, PLATEAU) for w in e.waves)
            felt = max(felt, e.waves[0].pain * (TONIC_SHARE * ache + (1 - TONIC_SHARE) * wave))
        return felt

    def window_label(self, end: float, window: float = TRIAL) -> int | None:
        """The label of a window ending at `end`: 1 pain, 0 rest, None in between.

        1: the person was in pain for at least 3 s of the window, so face and skin have had time to react.
        0: no pain in the window, nor in the 5 s before it, in which the skin's response decays.
        """
        step = 0.1
        in_window = [self.pain(t) for t in np.arange(end - window, end, step)]
        if sum(p >= 0.5 for p in in_window) * step >= 3.0:
            return 1
        before = [self.pain(t) for t in np.arange(end - window - 5.0, end - window, step)]
        return 0 if max(in_window + before) < 0.05 else None
