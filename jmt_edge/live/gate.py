"""What a live run adds to a clip's presence: the state of its device, and why there is no result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ..capture.base import State, Status
from ..clips.cutter import Cutter
from ..clips.plan import ClipPlan
from ..clips.presence import WARMING_UP, Cut, Presence, cut
from ..result import Quality

NO_SOURCE = "no source"
UNLIKE = {"face": "faces", "voice": "voices", "eda": "EDA"}


def cut_of_device(plan: ClipPlan, cutter: Cutter, end: float, t: float, status: Status) -> Cut:
    """The clip that ends at `end`, in the window that ends at `t`; the device's state says why there is none."""
    if status.unit == "a.u." and cutter.start is not None:
        return Cut(None, Presence.POOR, Quality(False, "the readings are uncalibrated (a.u.), not µS"))
    found = cut(plan, cutter, end, t)
    quality = found.quality
    if found.presence is Presence.SILENT and status.state is State.ENDED:
        return _because(found, status.reason or "the recording has ended")
    judged = found.presence in (Presence.POOR, Presence.PAUSE)
    if (judged or found.presence is Presence.SILENT) and status.state not in (State.STREAMING, State.ENDED):
        return _because(found, f"sensor {status.state.value}: {status.reason or quality.reason}")
    if judged and status.state is State.STREAMING and status.reason:
        return _because(found, status.reason)
    return found


def judge_novelty(name: str, quality: Quality, score: float, *, gate: bool) -> Quality:
    """The verdict on a usable clip of modality `name` that has this `Novelty.score`.

    With `gate` a novel clip is not usable; else its reason is a warning. A score that is not a number judges nothing:
    the network's own output will not be one either.
    """
    shown = round(score, 4) if math.isfinite(score) else None
    if not score > 1:
        return replace(quality, novelty=shown)
    why = f"unlike the {UNLIKE[name]} these weights were trained on"
    return replace(quality, ok=not gate, reason=why, novelty=shown)


def _because(cut: Cut, reason: str) -> Cut:
    """The device has a fault, so a pause is not one: the clip before it does not hold."""
    presence = Presence.POOR if cut.presence is Presence.PAUSE else cut.presence
    return Cut(cut.signal, presence, replace(cut.quality, ok=False, reason=reason))


def no_result_reason(qualities: Mapping[str, Quality]) -> str:
    """Why there are no outputs, from the modalities' reasons."""
    waiting = [q.reason for q in qualities.values() if q.reason.startswith(WARMING_UP)]
    if waiting and all(q.reason.startswith(WARMING_UP) or q.reason == NO_SOURCE for q in qualities.values()):
        return min(waiting, key=_remaining)
    return "no usable modality: " + "; ".join(f"{name}: {q.reason}" for name, q in qualities.items())


def _remaining(reason: str) -> float:
    have, _, need, _ = reason.removeprefix(f"{WARMING_UP}: ").split(" ")
    return float(need) - float(have)
