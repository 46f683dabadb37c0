"""A person's own baseline: what is measured of clips at rest, and what it makes of that person's later clips.

One step for training, evaluation and live. A clip of a person whose rest is known is moved to where a usual person's
would be: EDA by level and spread, the level of the voice, each measure of a face (`preprocessing.actions`). Pictures of
a face stay as they are, because their baseline is not in a few numbers. What is not known changes nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..preprocessing.actions import MEASURES
from ..tasks import Modality, Task

MODES = ("none", "rest")
LEAST = 0.5  # of the rest's windows in which a signal must be usable
# A usual person's EDA at rest, µS. Fixed, so that nothing of the people scored enters the inputs of others.
EDA_LEVEL, EDA_SPREAD = 5.0, 0.3
MOST = 4.0  # times by which a spread may be wider or narrower than usual; beyond, a short rest is not trusted
EDA_LEAST = 0.05  # µS, below which there is no skin conductance


@dataclass
class Signal:
    """The rest's windows of one modality: values (n each) of the usable ones, why the others were not usable."""

    values: list[NDArray[np.float64]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    people: set[int] = field(default_factory=set)

    @property
    def refused(self) -> str:
        """Why there is no baseline; empty where there is one."""
        count = len(self.values) + self.reasons.total()
        if len(self.values) < max(2.0, LEAST * count):
            share = len(self.values) / count if count else 0.0
            why = self.reasons.most_common(1)[0][0] if self.reasons else "too few windows"
            return f"usable in {share:.0%} of the rest: {why}"
        return "more than one person was followed" if len(self.people) > 1 else ""

    @property
    def level(self) -> NDArray[np.float64]:
        return np.asarray(np.mean(self.values, axis=0))

    @property
    def spread(self) -> float:
        """Root mean square distance of the windows from the level."""
        apart = np.linalg.norm(np.asarray(self.values) - self.level, axis=1)
        return float(np.sqrt(np.square(apart).sum() / (len(apart) - 1)))


def with_baseline(task: Task) -> tuple[str, ...]:
    """The modalities of a task whose clips a baseline changes."""
    return tuple(m.name for m in task.modalities if _changes(m))


def _changes(m: Modality) -> bool:
    return not m.precomputed and (m.name != "face" or m.measured)


def measured(signal: NDArray[Any], m: Modality) -> NDArray[np.float64]:
    """What a usable clip at rest, as its cutter gives it, says of the person.

    EDA (2,): mean in µS and variance. Voice (1,): mean of the spectrogram, in units of its normalisation. Face
    (measures): the median of each over the clip.
    """
    x = np.asarray(signal, np.float64)
    if m.name == "eda":
        return np.array([x.mean(), x.var()])
    if m.name == "voice":
        return np.array([x.mean()])
    return np.asarray(np.median(x[..., : len(MEASURES)], axis=0))


@dataclass(frozen=True)
class Baseline:
    """A person at rest, in one modality. level: EDA µS (1,), voice (1,), face (measures,). spread: of EDA, µS."""

    level: NDArray[np.float64]
    spread: float = EDA_SPREAD

    @classmethod
    def of(cls, rest: Signal, m: Modality) -> Baseline:
        """From the `measured` clips of a rest that was not refused. The spread is that of all samples together."""
        if m.name == "face":
            return cls(np.asarray(np.median(rest.values, axis=0)))
        if m.name == "voice":
            return cls(rest.level)
        mean, within = np.asarray(rest.values).T
        return cls(np.array([mean.mean()]), float(np.sqrt(within.mean() + mean.var())))

    def apply(self, signal: NDArray[Any], m: Modality) -> NDArray[np.float32]:
        """A clip, or clips with leading axes, as its cutter gives it, as if the person were a usual one at rest.

        The pose of a face stays: it says how far its measures can be trusted. EDA never falls below `EDA_LEAST`.
        """
        if m.name == "eda":
            gain = np.clip(EDA_SPREAD / max(self.spread, 1e-9), 1 / MOST, MOST)
            moved = EDA_LEVEL + (np.asarray(signal, np.float64) - self.level) * gain
            return np.maximum(moved, EDA_LEAST).astype(np.float32)
        if m.name == "voice":
            return (signal - self.level).astype(np.float32)
        shift = np.zeros(signal.shape[-1])
        shift[: len(MEASURES)] = np.asarray(m.mean[: len(MEASURES)]) - self.level
        return (signal + shift).astype(np.float32)
