"""A person at rest: level and spread of EDA, voice and face while nothing happens, and how far from them they are now.

The network sees none of these differences. What weights that were trained with baselines make of a rest is in
`live.own`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..clips.baseline import Signal
from ..controls import check_rest
from ..result import Quality

UNITS = {"eda": "uS", "voice": "dB"}  # a face's distance has no unit, it is given in spreads


class Rest:
    """A rest of `seconds` that begins with the next window. add: for each window and modality; state: after that.

    Raises ConfigError for a length out of range.
    """

    def __init__(self, seconds: float) -> None:
        check_rest(seconds)
        self._seconds = seconds
        self._end: float | None = None
        self._signals: dict[str, Signal] = {}
        self._now: dict[str, tuple[int, NDArray[np.float64] | None]] = {}

    def begin(self, t: float) -> None:
        """The first window's hop begins at `t`, s of stream time; later calls change nothing."""
        self._end = t + self._seconds if self._end is None else self._end

    def add(self, t: float, name: str, quality: Quality, value: ArrayLike | None) -> None:
        """What the window that ends at `t` has of a modality: a number or a vector, None where it is not usable."""
        usable = quality.ok and value is not None and bool(np.isfinite(value).all())
        found = np.atleast_1d(np.asarray(value, np.float64)) if usable else None
        self._now[name] = quality.track, found
        if self._end is None or not self.lasts(t):
            return
        signal = self._signals.setdefault(name, Signal())
        if found is None:
            signal.reasons[quality.reason.partition(":")[0] or "no samples"] += 1
        else:
            signal.values.append(found)
            signal.people.add(quality.track)

    def lasts(self, t: float) -> bool:
        """Whether the window that ends at `t` belongs to the rest."""
        return self._end is None or t <= self._end + 1e-6

    def left(self, t: float) -> float:
        """Seconds of the rest after `t`, 0 once it is over."""
        if self._end is None:
            return self._seconds
        return self._end - t if t < self._end - 1e-6 else 0.0

    def signal(self, name: str) -> Signal:
        """What the rest's windows have of a modality, so far."""
        return self._signals.get(name, Signal())

    def state(self, t: float) -> dict[str, Any]:
        """`left`: s, while it lasts. Then `baseline` of each signal that was usable, `difference` from it in its unit
        and in spreads of the rest (None where the signal is not usable now), and `refused`: why one has no baseline.
        """
        if (left := self.left(t)) > 0:
            return {"left": round(left, 3)}
        refused = {name: why for name, signal in self._signals.items() if (why := signal.refused)}
        kept = {name: signal for name, signal in self._signals.items() if name not in refused}
        return {
            "baseline": {name: _described(name, signal) for name, signal in kept.items()},
            "difference": {name: self._difference(name, signal) for name, signal in kept.items()},
            "refused": refused,
        }

    def _difference(self, name: str, signal: Signal) -> dict[str, float] | None:
        track, now = self._now.get(name, (0, None))
        if now is None or track not in signal.people:
            return None
        apart = now - signal.level
        size = float(np.linalg.norm(apart)) if len(apart) > 1 else float(apart[0])
        found = {UNITS[name]: size} if name in UNITS else {}
        return {**found, "spreads": size / signal.spread} if signal.spread > 0 else found


def _described(name: str, signal: Signal) -> dict[str, float]:
    """The neutral face itself is not written anywhere."""
    level = {UNITS[name]: float(signal.level[0])} if name in UNITS else {}
    return {**level, "spread": signal.spread}


def decibels(power: float) -> float:
    """dB of full scale of a mean square."""
    return 10 * math.log10(max(power, 1e-10))


def in_words(rest: dict[str, Any] | None) -> str:
    """`rest: 1:20 left`, `from rest: EDA +1.30 µS (2.1 SD)`, or why there is none; before it, of weights that were
    trained to compare modalities with the rest, which they compare. Empty without a rest and such weights.
    """
    if rest is None:
        return ""
    if (own := rest.get("calibrated")) is None:
        return _differences(rest)
    mode = f"calibrated: {', '.join(_NAMES[name] for name in own)}" if own else "uncalibrated"
    return f"{mode}; {_differences(rest)}" if len(rest) > 1 else f"{mode}: no rest"


def _differences(rest: dict[str, Any]) -> str:
    if "left" in rest:
        left = math.ceil(rest["left"])
        return f"rest: {left // 60}:{left % 60:02d} left"
    shown = [_one(name, apart) for name, apart in rest["difference"].items()]
    shown += [f"{_NAMES[name]} has no rest ({why})" for name, why in rest["refused"].items()]
    if not rest["difference"]:
        return "rest refused: " + "; ".join(f"{_NAMES[name]} {why}" for name, why in rest["refused"].items())
    return "from rest: " + ", ".join(shown)


_NAMES = {"face": "face", "voice": "voice", "eda": "EDA"}
_SHOWN = {"uS": "µS", "dB": "dB"}


def _one(name: str, apart: dict[str, float] | None) -> str:
    if apart is None:
        return f"{_NAMES[name]} —"
    parts = [f"{apart[unit]:+.2f} {shown}" for unit, shown in _SHOWN.items() if unit in apart]
    parts += [f"{apart['spreads']:.1f} SD"] if "spreads" in apart else []
    numbers = f"{parts[0]}{f' ({parts[1]})' if parts[1:] else ''}" if parts else "—"
    return f"{_NAMES[name]} {numbers.replace('-', '−')}"
