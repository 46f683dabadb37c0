"""Facial action over time: action units from pain, affect and speech, with blinks, gaze and head motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .person import Person
from .randomness import BLINK, HEAD, Recent, Wander, draw
from .voice import Speech

ACTION_UNITS = ("AU1", "AU2", "AU4", "AU6", "AU7", "AU9", "AU10", "AU12", "AU15", "AU25", "AU26", "AU43")
_RISE, _DECAY = 0.6, 1.2  # s, of a pain expression
_BLINK_CELL, _BLINK = 3.0, 0.28  # s: at most one blink a cell; how long it takes


def pspi(aus: dict[str, float]) -> float:
    """Prkachin and Solomon's pain intensity, 0..16: AU4 + max(AU6, AU7) + max(AU9, AU10) + AU43.

    Action units are FACS intensities 0..5; AU43 (eyes closed) counts 0 or 1.
    """
    closed = 1.0 if aus["AU43"] >= 0.5 else 0.0
    return aus["AU4"] + max(aus["AU6"], aus["AU7"]) + max(aus["AU9"], aus["AU10"]) + closed


@dataclass(frozen=True)
class Expression:
    """A face at one moment. `aus`: FACS intensities 0..5, AU43 0..1. `lids`: 0 open .. 1 shut (blink or AU43).

    `mouth`: opening by speech, 0..1. Head: `x`, `y`, `size` in half face widths, angles in radians.
    """

    aus: dict[str, float]
    lids: float
    mouth: float
    gaze: tuple[float, float]
    x: float
    y: float
    size: float
    roll: float
    yaw: float
    pitch: float


class Expressions:
    """The face of a person at any time."""

    def __init__(self, person: Person, speech: Speech) -> None:
        self._person, self._speech = person, speech
        g = draw(person.key, HEAD)
        self._head = [Wander(g, 2.0, 20.0) for _ in range(6)]
        self._gaze = [Wander(g, 0.8, 8.0) for _ in range(2)]
        self._display = Wander(g, 10.0, 60.0)  # how much of the affect the face shows
        self._blink = Recent(self._draw_blink, 4)

    def _draw_blink(self, cell: int) -> float:
        g = draw(self._person.key, BLINK, cell)
        return cell * _BLINK_CELL + g.uniform(0.3, _BLINK_CELL - _BLINK) if g.random() < 0.75 else -1.0

    def _blinking(self, t: float) -> float:
        start = self._blink(max(int(t // _BLINK_CELL), 0))
        phase = (t - start) / _BLINK
        return float(np.sin(np.pi * phase) ** 2) if start >= 0 and 0 <= phase <= 1 else 0.0

    def _pain(self, t: float) -> tuple[float, dict[str, float]]:
        """(strength 0..1, action units) of the pain expression at `t`; of overlapping ones, the strongest."""
        best, strongest = 0.0, None
        for r in self._person.reactions(t - 9.0, t):
            since = t - r.stimulus.onset - r.face_delay
            if r.face and since > 0:
                rise = min(since / _RISE, 1.0)
                decay = max(since - _RISE - r.face_hold, 0.0) / _DECAY
                strength = r.face * rise * rise * (3 - 2 * rise) * float(np.exp(-(decay**2)))
                if strength > best:
                    best, strongest = strength, r
        if strongest is None:
            return 0.0, {}
        names = ("AU4", "AU6", "AU7", "AU9", "AU10")
        aus = {name: 5 * best * float(w) for name, w in zip(names, strongest.au_mix)}
        aus["AU43"] = best * strongest.eyes_close
        aus["AU25"] = 2.0 * best * float(strongest.au_mix[4])
        return best, aus

    def __call__(self, t: float) -> Expression:
        valence, arousal = self._person.affect(t)
        shown = 0.7 + 0.3 * float(np.tanh(self._display(t)))
        up, down = shown * max(valence, 0.0), shown * max(-valence, 0.0)
        high, low = shown * max(arousal, 0.0), shown * max(-arousal, 0.0)
        smile = self._person.traits.smile * up
        aus = dict.fromkeys(ACTION_UNITS, 0.0)
        aus["AU1"] = 3.0 * high * (1 - down) + 1.5 * down * (1 - high)
        aus["AU2"] = 3.5 * high * (1 - down)
        aus["AU4"] = 1.6 * down * high
        aus["AU12"] = 4.5 * smile
        aus["AU6"] = 2.2 * smile * smile
        aus["AU15"] = 4.0 * down
        aus["AU25"] = 1.5 * high + 1.0 * smile * high
        aus["AU26"] = 1.5 * high * high
        pain, pain_aus = self._pain(t)
        for name in ("AU12", "AU1", "AU2"):  # antagonists yield to a strong grimace
            aus[name] *= 1 - 0.7 * pain
        for name, value in pain_aus.items():
            aus[name] = max(aus[name], value)
        effort = max((m.effort * float(m.at(t)) for m in self._person.movements(t - 5.0, t + 5.0)), default=0.0)
        for name in ("AU4", "AU6", "AU7"):
            aus[name] = max(aus[name], 4.0 * effort)
        head = [1.8 * float(np.tanh(w(t) / 1.8)) for w in self._head]
        droop = 0.25 * low  # calm eyes are half open
        lids = max(self._blinking(t), aus["AU43"], droop)
        motion = 0.6 + 0.3 * max(arousal, 0.0) + 0.3 * pain
        return Expression(
            aus=aus,
            lids=min(lids, 1.0),
            mouth=self._speech.opening(t),
            gaze=(0.35 * float(np.tanh(self._gaze[0](t))), 0.2 * float(np.tanh(self._gaze[1](t)))),
            x=0.07 * motion * head[0] + 0.15 * effort,
            y=0.045 * motion * head[1],
            size=1 + 0.03 * head[2],
            roll=0.05 * motion * head[3],
            yaw=0.12 * motion * head[4],
            pitch=0.09 * motion * head[5] - 0.06 * pain,
        )
