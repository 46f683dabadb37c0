"""Whether a clip may be used: one rule for a window of a live run, a training example and a window of `calibrate`.

Nothing stale, too young, torn or of bad quality enters the network. A live run adds the state of its devices
(`live/gate.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..preprocessing.quality import VoiceQuality
from ..result import Quality
from .cutter import Cutter
from .plan import ClipPlan

MIN_COVERAGE = {"face": 0.5, "voice": 0.8, "eda": 0.8}  # share of a clip that must be real samples (face: faces)
STALE = 1.0  # s between the newest sample and a clip's end
YOUNG = 0.1  # s by which a stream may start late and still fill its first clip
WARMING_UP = "warming up"


class Presence(Enum):
    """What a clip is, or what is wrong with it."""

    USABLE = "usable"
    SILENT = "no samples, or none recently"
    YOUNG = "not enough samples yet"
    POOR = "bad quality"
    PAUSE = "a pause in speech, of a network that was trained to hold what was heard last"
    TORN = "too few real samples"


@dataclass(frozen=True)
class Cut:
    """One clip. signal: as the cutter gives it; None where nothing was cut (silent, young)."""

    signal: NDArray[Any] | None
    presence: Presence
    quality: Quality

    @property
    def ok(self) -> bool:
        return self.presence is Presence.USABLE


def cut(plan: ClipPlan, cutter: Cutter, end: float, t: float) -> Cut:
    """The clip that ends at `end`, of the window that ends at `t`, from the samples up to `t`."""
    if (refused := _refusal(plan, cutter, end, t)) is not None:
        return refused
    signal, coverage = cutter.clip(end)
    judged = cutter.verdict(end)
    quality = Quality(judged.ok, judged.reason, judged.score, track=judged.track, turn=judged.turn)
    if not judged.ok:
        holds = judged.reason == VoiceQuality.PAUSE and plan.m.pause == "hold"
        return Cut(signal, Presence.PAUSE if holds else Presence.POOR, quality)
    if coverage < MIN_COVERAGE[plan.m.name]:
        what = "shows a face" if plan.m.name == "face" else "has samples"
        return Cut(signal, Presence.TORN, replace(quality, ok=False, reason=f"only {coverage:.0%} of the clip {what}"))
    return Cut(signal, Presence.USABLE, quality)


def begin(plan: ClipPlan, cutter: Cutter, end: float, t: float) -> None:
    """Start what `cut` would wait for."""
    if _refusal(plan, cutter, end, t) is None:
        cutter.begin(end)


def _refusal(plan: ClipPlan, cutter: Cutter, end: float, t: float) -> Cut | None:
    """Why nothing is cut; None where there are samples enough."""
    if cutter.start is None:
        return _refused(Presence.SILENT, "no samples yet")
    if end - cutter.last > STALE:
        return _refused(Presence.SILENT, f"no samples for {t - cutter.last:.1f} s")
    have = end - cutter.start
    if have < plan.m.span - YOUNG:
        wait = -plan.m.end  # the window ends later than the clip
        return _refused(Presence.YOUNG, f"{WARMING_UP}: {max(0.0, have + wait):.1f} of {plan.m.span + wait:.1f} s")
    return None


def of_newest_person(present: NDArray[np.bool_], tracks: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """(..., S) bool: the present steps of a modality, without those of anybody but its newest person.

    tracks: (..., S), see `Quality.track`. What came of another person's face says nothing about this one.
    """
    steps = present.shape[-1]
    newest = steps - 1 - np.argmax(present[..., ::-1], axis=-1)
    return present & (tracks == np.take_along_axis(tracks, newest[..., None], -1))


def held(rows: NDArray[np.int64], pause: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(..., S) rows of a modality's clips, in which a step that is a pause shows the clip of the step before it.

    A pause is part of speech: what was heard last still holds. The verdict bounds how long, see `VoiceQuality`. A pause
    at the window's beginning has nothing before it and keeps its own row, whose clip is not usable.
    """
    steps = np.arange(rows.shape[-1])
    return np.take_along_axis(rows, np.maximum.accumulate(np.where(pause, 0, steps), axis=-1), -1)


def _refused(presence: Presence, reason: str) -> Cut:
    return Cut(None, presence, Quality(False, reason))
