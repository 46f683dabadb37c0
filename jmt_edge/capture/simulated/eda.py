"""Electrodermal activity: a drifting level, responses to pain, spontaneous responses, sensor noise, artefacts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .person import Person
from .randomness import ARTEFACT, SENSOR, SPONTANEOUS, TONIC, Recent, Wander, block_noise, draw

NOISE = 0.003  # µS, RMS of the sensor
SPONTANEOUS_RATE = 2.0  # a minute, at rest
SPONTANEOUS_MEAN = 0.06  # µS
_CELL = 30.0  # s: spontaneous responses and artefacts are drawn for one cell at a time
_MEMORY = 40.0  # s after which a response has died away
_ARTEFACTS_PER_CELL = 0.1


@dataclass(frozen=True)
class Response:
    """One skin-conductance response: onset (s), peak height (µS), onset-to-peak (s), recovery constant (s)."""

    onset: float
    height: float
    rise: float
    decay: float
    evoked: bool

    def __call__(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """The response at times `t` (s) in µS: a Bateman function scaled to its peak."""
        fast = _fast_constant(self.rise, self.decay)
        since = np.maximum(t - self.onset, 0.0)
        peak = np.exp(-self.rise / self.decay) - np.exp(-self.rise / fast)
        return self.height / peak * (np.exp(-since / self.decay) - np.exp(-since / fast))


def _fast_constant(rise: float, decay: float) -> float:
    """The Bateman function's second constant that puts the peak `rise` seconds after the onset (bisection)."""
    low, high = 1e-3, decay * 0.999
    for _ in range(40):
        mid = (low + high) / 2
        if np.log(decay / mid) * decay * mid / (decay - mid) < rise:
            low = mid
        else:
            high = mid
    return (low + high) / 2


class Skin:
    """A person's skin conductance at any time."""

    def __init__(self, person: Person) -> None:
        self._person = person
        g = draw(person.key, TONIC)
        self._slow, self._drift = Wander(g, 60.0, 300.0), Wander(g, 300.0, 1800.0)
        self._spontaneous = Recent(self._draw_spontaneous, 4)
        self._artefacts = Recent(self._draw_artefacts, 4)

    def _draw_spontaneous(self, cell: int) -> list[Response]:
        g = draw(self._person.key, SPONTANEOUS, cell)
        arousal = self._person.affect((cell + 0.5) * _CELL)[1]
        rate = SPONTANEOUS_RATE * (1 + 0.5 * arousal)
        gain = self._person.traits.eda_gain
        return [
            Response(
                float(cell * _CELL + g.uniform(0, _CELL)),
                float(gain * SPONTANEOUS_MEAN * np.exp(g.normal(-0.125, 0.5))),
                float(g.uniform(0.5, 1.5)),
                float(g.uniform(2.0, 5.0)),
                evoked=False,
            )
            for _ in range(int(g.poisson(rate * _CELL / 60)))
        ]

    def _draw_artefacts(self, cell: int) -> list[tuple[float, float, float]]:
        """(time, height µS, length s) of movements of the electrode."""
        g = draw(self._person.key, ARTEFACT, cell)
        count = int(g.random() < _ARTEFACTS_PER_CELL)
        return [
            (float((cell + g.random()) * _CELL), float(g.choice([-1, 1]) * g.uniform(0.1, 0.6)), g.uniform(0.15, 0.6))
            for _ in range(count)
        ]

    def responses(self, start: float, end: float) -> list[Response]:
        """Evoked and spontaneous responses with onset in [start, end), evoked first."""
        found = [
            Response(r.stimulus.onset + r.scr_delay, r.scr, r.scr_rise, r.scr_decay, evoked=True)
            for r in self._person.reactions(start - 3.0, end)
            if r.scr
        ]
        for cell in range(max(int(start // _CELL), 0), int(end // _CELL) + 1):
            found += self._spontaneous(cell)
        return [r for r in found if start <= r.onset < end]

    def level(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """The tonic level in µS."""
        base = self._person.traits.eda_level
        return np.maximum(base * (1 + 0.02 * self._slow(t) + 0.06 * self._drift(t)), 0.2)

    def clean(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Conductance in µS at the increasing times `t`, without sensor noise and electrode artefacts."""
        value = self.level(t)
        if len(t):
            for response in self.responses(t[0] - _MEMORY, t[-1]):
                first, last = np.searchsorted(t, [response.onset, response.onset + _MEMORY])
                value[first:last] += response(t[first:last])
        return value

    def samples(self, first: int, count: int, rate: float) -> NDArray[np.float64]:
        """Readings of a sensor of `rate` Hz in µS: samples numbered `first` .. `first + count`, sample 0 at t = 0."""
        t = (first + np.arange(count)) / rate
        value = self.clean(t) + NOISE * block_noise(self._person.key, SENSOR, first, count)
        if count:
            for cell in range(max(int((t[0] - 1) // _CELL), 0), int(t[-1] // _CELL) + 1):
                for when, height, length in self._artefacts(cell):
                    value += height * np.exp(-(((t - when) / (length / 2)) ** 2))
            for m in self._person.movements(t[0] - 5.0, t[-1] + 5.0):
                value += m.height * m.at(t)
        return np.maximum(value, 0.0)
