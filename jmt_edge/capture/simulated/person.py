"""One simulated person: their traits, what they feel, and how their face and body react."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .randomness import AFFECT, COHORT, LIVE, MOVEMENT, REACTION, TRAITS, Key, Recent, Wander, draw
from .scenario import Episodes, Scenario, Stimulus

# BioVid's non-reactive subjects, whom the 67-subject protocol excludes; when simulated, their skin never responds.
BIOVID_NON_REACTIVE = frozenset([27, 28, *range(32, 37), *range(39, 43), 44, 51, 53, 55, 56, 61, 64, 74, 87])

# Share of stimuli that show, by pain, interpolated linearly. A person's own share is scaled by `expressiveness`.
PAIN_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
FACE_SHOWS = (0.0, 0.08, 0.22, 0.52, 0.90)
SKIN_RESPONDS = (0.0, 0.45, 0.60, 0.75, 0.90)  # of a responder
NON_RESPONDER_SHARE = 0.06
MOVEMENT_CELL = 30.0  # s: movements are drawn for one cell at a time
SCR_MEAN = (0.0, 0.113, 0.131, 0.146, 0.157)  # µS, of the responses that happen, before the person's gain


@dataclass(frozen=True)
class Traits:
    """What does not change in a person. Colours are BGR in 0..255; lengths are in half face widths."""

    sex: str  # m or w
    age: int
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    hair_long: bool
    beard: float  # 0 none .. 1 dark shadow
    face_length: float
    jaw: float
    eye_distance: float
    eye_size: float
    brow_thickness: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lip_fullness: float
    expressiveness: float  # share of a strong pain that shows
    au_weights: tuple[float, float, float, float, float]  # pain's AU4, AU6, AU7, AU9, AU10 + AU43 style
    eyes_close: float
    smile: float
    responder: bool
    eda_level: float  # µS
    eda_gain: float  # mean 1
    pitch: float  # Hz at rest
    tract: float  # formants relative to an average man


def draw_traits(key: Key, responder: bool) -> Traits:
    """The traits of the person `key`. A live person is always reactive (as in BioVid's 67-subject protocol)."""
    g = draw(key, TRAITS)
    least_expressive = 0.75 if key[0] == LIVE else 0.35
    male = bool(g.random() < 0.5)
    tone = g.uniform(0, 1) ** 1.4  # light .. dark
    light, dark = np.array([165.0, 190.0, 232.0]), np.array([52.0, 78.0, 118.0])
    skin = (light + (dark - light) * tone) * (1 + g.normal(0, 0.03, 3))
    hairs = [(22, 26, 34), (30, 42, 62), (42, 68, 104), (92, 138, 178), (140, 142, 145)]
    hair = hairs[int(g.integers(0, 5 if tone < 0.35 else 2))]
    irises = [(34, 52, 82), (70, 92, 96), (128, 104, 78)]
    iris = irises[int(g.integers(0, 3 if tone < 0.35 else 1))]
    return Traits(
        sex="m" if male else "w",
        age=int(g.integers(20, 66)),
        skin=tuple(float(v) for v in np.clip(skin, 30, 240)),  # type: ignore[arg-type]
        hair=hair,
        iris=iris,
        hair_long=bool(g.random() < (0.1 if male else 0.75)),
        beard=float(g.uniform(0.1, 0.8)) if male and g.random() < 0.5 else 0.0,
        face_length=float(g.uniform(0.94, 1.08)),
        jaw=float(g.uniform(0.76, 0.96) + (0.04 if male else -0.04)),
        eye_distance=float(g.uniform(0.95, 1.06)),
        eye_size=float(g.uniform(0.9, 1.12)),
        brow_thickness=float(g.uniform(0.8, 1.2) * (1.2 if male else 0.85)),
        nose_length=float(g.uniform(0.9, 1.06)),
        nose_width=float(g.uniform(1.02, 1.36)),
        mouth_width=float(g.uniform(0.92, 1.1)),
        lip_fullness=float(g.uniform(0.8, 1.25)),
        expressiveness=float(g.uniform(least_expressive, 1.0)),
        au_weights=tuple(float(v) for v in g.uniform(0.55, 1.0, 5)),  # type: ignore[arg-type]
        eyes_close=float(g.uniform(0.0, 1.0)),
        smile=float(g.uniform(0.6, 1.0)),
        responder=responder,
        eda_level=float(np.exp(g.normal(np.log(5.0), 0.5))),
        eda_gain=float(np.exp(g.normal(-0.08, 0.4))),
        pitch=float(g.uniform(95, 145) if male else g.uniform(170, 240)),
        tract=float(g.uniform(0.95, 1.05) * (1.0 if male else 1.17)),
    )


@dataclass(frozen=True)
class Reaction:
    """How one stimulus shows. Either part may be absent: a stoic face, or skin that does not respond."""

    stimulus: Stimulus
    face: float  # 0 nothing .. 1 the strongest expression
    face_delay: float  # s after the felt onset
    face_hold: float  # s
    au_mix: NDArray[np.float64]  # (5,) weights of AU4, AU6, AU7, AU9, AU10 in this reaction
    eyes_close: float  # share of full closure
    scr: float  # µS, 0 nothing
    scr_delay: float  # s after the felt onset
    scr_rise: float  # s from onset to peak
    scr_decay: float  # s, time constant of the recovery


@dataclass(frozen=True)
class Coupling:
    """What face and skin have in common beyond pain.

    correlation: of the normal variables behind the reactions of face and skin to the same stimulus, whether they react
        and how strongly (a Gaussian copula), so each of them alone stays as it is. 0: independent given pain.
    movement: movements a minute that look like a reaction in both: effort in the face, a hump in the conductance.
    """

    correlation: float = 0.0
    movement: float = 0.0


@dataclass(frozen=True)
class Movement:
    """A movement of the person at `time` (s): `effort` 0..1 in the face, `height` µS in the conductance, `length` s."""

    time: float
    effort: float
    height: float
    length: float

    def at(self, t: Any) -> Any:
        """Its course over time, 0..1."""
        return np.exp(-(((t - self.time) / (self.length / 2)) ** 2))


class Person:
    """The latent truth of one person in one scenario, and the reactions that the modalities show."""

    def __init__(
        self, key: Key, scenario: Scenario, *, responder: bool = True, coupling: Coupling = Coupling()
    ) -> None:
        self.key, self.scenario, self.coupling = key, scenario, coupling
        self.traits = draw_traits(key, responder)
        affect = draw(key, AFFECT)
        self._valence, self._arousal = Wander(affect, 6.0, 45.0), Wander(affect, 6.0, 45.0)
        self._reactions: dict[int, Reaction] = {}
        self._movements = Recent(self._draw_movements, 4)

    @classmethod
    def live(cls, seed: int, *, responder: bool = True) -> Person:
        """The person of `sim:seed=...`; no cohort subject is the same person."""
        key = (LIVE, seed, 0)
        return cls(key, Episodes(key), responder=responder)

    @classmethod
    def cohort_key(cls, seed: int, subject: int) -> Key:
        return (COHORT, seed, subject)

    def pain(self, t: float) -> float:
        """Felt pain, 0..1."""
        return self.scenario.pain(t)

    def affect(self, t: float) -> tuple[float, float]:
        """(valence, arousal), each in [-1, 1]. Pain lowers valence and raises arousal."""
        pain = self.scenario.pain(t)
        valence = 0.85 * float(np.tanh(1.1 * self._valence(t))) - 0.5 * pain
        arousal = 0.8 * float(np.tanh(1.1 * self._arousal(t))) + 0.4 * pain
        return min(max(valence, -1.0), 1.0), min(max(arousal, -1.0), 1.0)

    def truth(self, t: float) -> dict[str, float]:
        """What the person feels at `t`: pain 0..1, valence and arousal -1..1."""
        valence, arousal = self.affect(t)
        return {"pain": self.pain(t), "valence": valence, "arousal": arousal}

    def reactions(self, start: float, end: float) -> list[Reaction]:
        """Reactions to the stimuli with onset in [start, end)."""
        return [self.reaction(s) for s in self.scenario.stimuli(start, end)]

    def movements(self, start: float, end: float) -> list[Movement]:
        """Movements in [start, end)."""
        if not self.coupling.movement:
            return []
        cells = range(max(int(start // MOVEMENT_CELL), 0), int(end // MOVEMENT_CELL) + 1)
        return [m for cell in cells for m in self._movements(cell) if start <= m.time < end]

    def _draw_movements(self, cell: int) -> list[Movement]:
        g = draw(self.key, MOVEMENT, cell)
        return [
            Movement(
                float((cell + g.random()) * MOVEMENT_CELL), float(g.uniform(0.3, 0.9)),
                float(self.traits.eda_gain * g.uniform(0.1, 0.3)), float(g.uniform(1.0, 2.5)),
            )
            for _ in range(int(g.poisson(self.coupling.movement * MOVEMENT_CELL / 60)))
        ]  # fmt: skip

    def reaction(self, stimulus: Stimulus) -> Reaction:
        known = self._reactions.get(stimulus.number)
        if known is None:
            if len(self._reactions) > 64:
                del self._reactions[next(iter(self._reactions))]
            known = self._reactions[stimulus.number] = self._draw_reaction(stimulus)
        return known

    def _draw_reaction(self, stimulus: Stimulus) -> Reaction:
        who, g = self.traits, draw(self.key, REACTION, stimulus.number)
        pain = stimulus.pain
        face, skin, height, strength = g.random(), g.random(), g.normal(0.0, 1.0), g.uniform(0.0, 1.0)
        if rho := self.coupling.correlation:
            from scipy.special import ndtr, ndtri  # for cohorts; a live run needs no SciPy

            skin = float(ndtr(_mixed(rho, ndtri(face), ndtri(skin))))
            height = _mixed(rho, ndtri(strength), height)
        shows = face < who.expressiveness * np.interp(pain, PAIN_LEVELS, FACE_SHOWS)
        share = np.interp(pain, PAIN_LEVELS, SKIN_RESPONDS) if who.responder else NON_RESPONDER_SHARE
        # small numbers are likely reactions of both, and of their strength large ones are strong
        responds = skin < share
        scr = who.eda_gain * np.interp(pain, PAIN_LEVELS, SCR_MEAN) * np.exp(-0.08 + 0.4 * height)
        return Reaction(
            stimulus,
            face=float(shows * (0.45 + 0.55 * strength) * (0.4 + 0.6 * pain)),
            face_delay=float(g.uniform(0.3, 1.2)),
            face_hold=float(g.uniform(1.8, 4.2)),
            au_mix=np.asarray(who.au_weights) * g.uniform(0.7, 1.0, 5),
            eyes_close=float(who.eyes_close * g.uniform(0.5, 1.0)),
            scr=float(responds * scr),
            scr_delay=float(g.uniform(1.0, 3.0)),
            scr_rise=float(g.uniform(0.5, 1.5)),
            scr_decay=float(g.uniform(2.0, 5.0)),
        )


def _mixed(rho: float, common: float, own: float) -> float:
    """A standard normal number out of two independent ones, with correlation `rho` to the first."""
    return rho * common + float(np.sqrt(1 - rho * rho)) * own
