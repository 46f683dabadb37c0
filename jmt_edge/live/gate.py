"""Which modalities take part in a result: nothing stale, too young, torn or of bad quality enters the network."""

from __future__ import annotations

from collections.abc import Mapping

from ..capture.base import State, Status
from ..clips.cutters import ClipPlan, Stream
from ..preprocessing.quality import Verdict
from ..result import Quality

MIN_COVERAGE = {"face": 0.5, "voice": 0.8, "eda": 0.8}  # share of a clip that must be real samples (face: faces)
STALE = 1.0  # s between the newest sample and a clip's end
YOUNG = 0.1  # s by which a stream may start late and still fill its first clip

WARMING_UP = "warming up"
NO_SOURCE = "no source"


def before_clip(plan: ClipPlan, stream: Stream, end: float, t: float, status: Status) -> Quality | None:
    """Why the clip that ends at `end`, in the window that ends at `t`, cannot be cut at all; None where it can."""
    if stream.start is None:
        return _refuse(status, "no samples yet")
    if status.unit == "a.u.":
        return Quality(False, "the readings are uncalibrated (a.u.), not µS")
    age = end - stream.last
    if age > STALE:
        return _refuse(status, f"no samples for {t - stream.last:.1f} s")
    have = end - stream.start
    if have < plan.m.span - YOUNG:
        wait = -plan.m.end  # the window's end runs ahead of the clip's
        return Quality(False, f"{WARMING_UP}: {max(0.0, have + wait):.1f} of {plan.m.span + wait:.1f} s")
    return None


def after_clip(plan: ClipPlan, coverage: float, verdict: Verdict, status: Status) -> Quality:
    """The verdict on a clip that was cut; `coverage` is the share of it that is real."""
    if not verdict.ok:
        reason = verdict.reason
        if status.state not in (State.STREAMING, State.ENDED):
            reason = _with_state(status, reason)
        return Quality(False, reason, verdict.score)
    if coverage < MIN_COVERAGE[plan.m.name]:
        what = "shows a face" if plan.m.name == "face" else "has samples"
        return Quality(False, f"only {coverage:.0%} of the clip {what}", verdict.score)
    return Quality(True, "", verdict.score)


def _refuse(status: Status, reason: str) -> Quality:
    return Quality(False, _with_state(status, reason))


def _with_state(status: Status, reason: str) -> str:
    if status.state is State.STREAMING:
        return reason
    if status.state is State.ENDED:
        return f"{status.reason or 'the recording has ended'}"
    return f"sensor {status.state.value}: {status.reason or reason}"


def no_result_reason(qualities: Mapping[str, Quality]) -> str:
    """Why there are no outputs, from the modalities' reasons."""
    waiting = [q.reason for q in qualities.values() if q.reason.startswith(WARMING_UP)]
    if waiting and all(q.reason.startswith(WARMING_UP) or q.reason == NO_SOURCE for q in qualities.values()):
        return min(waiting, key=_remaining)
    return "no usable modality: " + "; ".join(f"{name}: {q.reason}" for name, q in qualities.items())


def _remaining(reason: str) -> float:
    have, _, need, _ = reason.removeprefix(f"{WARMING_UP}: ").split(" ")
    return float(need) - float(have)
