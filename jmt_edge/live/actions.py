"""The facial actions of the followed face in a live run, against the person's own rest.

Geometric and uncalibrated, see docs/reference/actions.md; the network does not see them. A number is the median of the
second that ends with the newest clip, so that a blink is not taken for pain.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..clips.face import FaceCutter
from ..preprocessing.actions import ACTIONS, INDEX, MEASURES, FaceMeasures, actions, median_of, pain_index
from ..result import Quality
from .rest import Rest

LABEL = "geometric, uncalibrated"
NO_REST = "no rest to compare with; begin one with --rest or on the page"
OTHER = "another person than at rest"
# AU04 is left out: the mesh hardly moves with the brows
_SHORT = {"AU06": "6+7", "AU09": "9+10", "AU12": "12", "AU25": "25", "AU26": "26"}


class LiveActions:
    """What the face does whose frames `cutter` searches, window by window."""

    def __init__(self, cutter: FaceCutter) -> None:
        self._cutter = cutter
        self._rest: Rest | None = None
        self._calm: dict[str, float] | None = None  # each measure at rest, once the rest is over

    def begin_rest(self, seconds: float) -> None:
        """The person rests, beginning with the next window. Raises ConfigError for a length out of range."""
        self._rest, self._calm = Rest(seconds), None

    def forget_rest(self) -> None:
        """Forget the rest: another person is there."""
        self._rest = self._calm = None

    def state(self, t: float, hop: float, end: float) -> dict[str, Any]:
        """For the window that ends at `t`, whose newest clip of the face ends at `end` (s).

        `strengths` and the index are None where `reason` says why; `pose` and `measures` too where the face may not be
        used. The other fields: docs/reference/result.md.
        """
        verdict, frames = self._cutter.measured(end)
        own = [frame.measures for frame in frames if frame.track == verdict.track]
        now = median_of(own) if verdict.ok and own else None
        reason = "" if now is not None else verdict.reason or "no frame was measured in the last second"
        reason = self._compare(t, hop, Quality(now is not None, reason, track=verdict.track), now)
        found = actions(now, self._calm) if now is not None and self._calm is not None and not reason else None
        return {
            "label": LABEL,
            "t": round(end, 6),
            "reason": reason,
            "pose": None if now is None else _rounded({"pitch": now.pitch, "yaw": now.yaw, "roll": now.roll}),
            "measures": None if now is None else _rounded(now.values),
            "strengths": None if found is None else _rounded(found),
            INDEX: None if found is None else round(pain_index(found), 4),
        }

    def _compare(self, t: float, hop: float, quality: Quality, now: FaceMeasures | None) -> str:
        """Why the face cannot be compared with the rest; empty where it can."""
        rest = self._rest
        if rest is None:
            return quality.reason or NO_REST
        rest.begin(t - hop)
        rest.add(t, "face", quality, None if now is None else [now.values[name] for name in MEASURES])
        if (left := rest.left(t)) > 0:
            return quality.reason or f"the person rests: {math.ceil(left)} s left"
        signal = rest.signal("face")
        if signal.refused:
            return f"rest refused: {signal.refused}"
        if self._calm is None:
            self._calm = dict(zip(MEASURES, np.median(signal.values, axis=0).tolist()))
        return quality.reason or ("" if quality.track in signal.people else OTHER)


def _rounded(values: Any) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def in_words(found: dict[str, Any] | None) -> tuple[str, str]:
    """(the index and how much it means, the actions), or (that there are none, why); empty where none are asked for."""
    if found is None:
        return "", ""
    if found["strengths"] is None:
        return f"facial actions ({LABEL}): —", found["reason"]
    strengths = [f"{_SHORT[name]}: {found['strengths'][name]:.1f}" for name in ACTIONS if name in _SHORT]
    return f"PSPI-like index ({LABEL}): {found[INDEX]:.1f} of 16", f"AU {', '.join(strengths)} (of 5)"
