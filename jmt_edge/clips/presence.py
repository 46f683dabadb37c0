"""Whether a clip may be used: one rule for a window of a live run, a training example and a window of `calibrate`.

Nothing stale, too young, torn or of bad quality enters the network. A live run adds the state of its devices
(`live/gate.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from numpy.typing import NDArray

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
    if cutter.start is None:
        return _refused(Presence.SILENT, "no samples yet")
    if end - cutter.last > STALE:
        return _refused(Presence.SILENT, f"no samples for {t - cutter.last:.1f} s")
    have = end - cutter.start
    if have < plan.m.span - YOUNG:
        wait = -plan.m.end  # the window ends later than the clip
        return _refused(Presence.YOUNG, f"{WARMING_UP}: {max(0.0, have + wait):.1f} of {plan.m.span + wait:.1f} s")
    signal, coverage = cutter.clip(end)
    judged = cutter.verdict(end)
    if not judged.ok:
        return Cut(signal, Presence.POOR, Quality(False, judged.reason, judged.score))
    if coverage < MIN_COVERAGE[plan.m.name]:
        what = "shows a face" if plan.m.name == "face" else "has samples"
        return Cut(signal, Presence.TORN, Quality(False, f"only {coverage:.0%} of the clip {what}", judged.score))
    return Cut(signal, Presence.USABLE, Quality(True, "", judged.score))


def _refused(presence: Presence, reason: str) -> Cut:
    return Cut(None, presence, Quality(False, reason))
