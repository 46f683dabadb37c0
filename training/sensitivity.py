"""How far noise that nobody can see moves a bundle's outputs: each value of each frame one grey level off, or none.

The noise is in the camera's picture, so that everything it moves counts: the face that is searched and followed, its
crop, and the networks. The same windows are cut twice, with and without it, and run by the engine that `live` uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.bundle import Bundle
from .data import Cohort, WindowTable, cut_windows
from .experiment import TrainingOptions
from .faults import GREY_NOISE
from .uncertainty import only, shown

LIMITS = {"pain": 0.03, "valence": 0.05, "arousal": 0.05}
PEOPLE, WINDOWS = 3, 40  # at most, and of each


@dataclass(frozen=True)
class Sensitivity:
    """Of windows whose face is usable with and without the noise: per output the limit, the share of windows that
    change by no more, and the 95th percentile and the largest of the changes.
    """

    people: int
    windows: int
    outputs: Mapping[str, Mapping[str, float]]

    def to_manifest(self) -> dict[str, Any]:
        return {
            "people": self.people,
            "windows": self.windows,
            "outputs": {o: dict(v) for o, v in self.outputs.items()},
        }

    def lines(self) -> list[str]:
        """For a terminal; empty where no window has a face."""
        about = f"noise of ±1 grey level ({self.windows} windows of {self.people} people)"
        return [
            f"{about}: {o} changes by at most {v['limit']:g} in {v['within']:.1%}, 95th percentile {v['p95']:.3f}, "
            f"largest {v['largest']:.3f}"
            for o, v in self.outputs.items()
        ]


def measure(
    bundle: Bundle, cohort: Cohort, options: TrainingOptions, windows: WindowTable | None = None
) -> Sensitivity:
    """The sensitivity of a bundle on `windows` of a cohort (all of it by default), of which `some` are used.

    Nothing is measured where the bundle or the data has no face.
    """
    from .evaluation import BundleScorer  # which prints what is found here

    table = some(cut_windows(cohort, bundle.task) if windows is None else windows)
    if "face" not in bundle.task.names or "face" not in cohort.modalities or not len(table):
        return Sensitivity(0, 0, {})
    everything = only(bundle.task.names, frozenset(bundle.task.names))  # masked as live masks
    clean, noisy = (
        BundleScorer(bundle, cohort, options, windows=table, faults=faults).predict(table, change=everything)
        for faults in ({}, {"face": GREY_NOISE})
    )
    face = bundle.task.names.index("face")
    seen = (clean.present[:, -1, face] > 0) & (noisy.present[:, -1, face] > 0)
    outputs = {}
    for o in bundle.task.outputs:
        changes = np.abs(shown(clean, o) - shown(noisy, o))[seen]
        if len(changes):
            outputs[o] = {
                "limit": LIMITS[o], "within": float((changes <= LIMITS[o]).mean()),
                "p95": float(np.percentile(changes, 95)), "largest": float(changes.max()),
            }  # fmt: skip
    return Sensitivity(len(np.unique(table.subject[seen])), int(seen.sum()), outputs)


def some(windows: WindowTable) -> WindowTable:
    """The first windows of some people, spread evenly over all, with the clips that they use."""
    everyone = np.unique(windows.subject)
    people = everyone[np.unique(np.linspace(0, len(everyone) - 1, min(PEOPLE, len(everyone))).astype(int))]
    chosen = [np.flatnonzero(windows.subject == person)[:WINDOWS] for person in people]
    return windows.take(np.concatenate([*chosen, np.empty(0, int)]).astype(int)).with_used_clips()
