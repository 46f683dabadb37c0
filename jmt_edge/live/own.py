"""The person's own baseline in a live run, for weights that were trained with one (`clips.baseline`).

Until a rest is over, without a rest, and for a signal that was not usable at rest, the clips stay as they are: the
weights were trained with and without a baseline, so this is the uncalibrated path that they know.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clips.baseline import Baseline, measured
from ..preprocessing.quality import VoiceQuality
from ..result import Quality
from ..tasks import Modality
from .rest import Rest


class OwnBaseline:
    """The baselines of the person who is in front of the sensors. modalities: those that the weights compare."""

    def __init__(self, modalities: Mapping[str, Modality]) -> None:
        self._modalities = dict(modalities)
        self._rest: Rest | None = None
        self._over = False
        self._found: dict[str, Baseline] = {}

    def __bool__(self) -> bool:
        return bool(self._modalities)

    def begin(self, seconds: float) -> Collection[str]:
        """The person rests, beginning with the next window; the modalities whose clips are no longer changed."""
        changed = list(self._found)
        self._rest, self._over, self._found = Rest(seconds), False, {}
        return changed

    def settle(self, t: float) -> Collection[str]:
        """Before the clips of the window that ends at `t` are cut: the modalities whose clips change from now on."""
        rest = self._rest
        if rest is None or self._over or rest.lasts(t):
            return ()
        self._over = True
        signals = {name: rest.signal(name) for name in self._modalities}
        kept = {name: signal for name, signal in signals.items() if not signal.refused}
        self._found = {name: Baseline.of(signal, self._modalities[name]) for name, signal in kept.items()}
        return list(self._found)

    def measure(self, name: str, signal: NDArray[Any]) -> NDArray[np.float64] | None:
        """What a clip says of the person, while there is a rest."""
        if name not in self._modalities or self._rest is None or self._over:
            return None
        return measured(signal, self._modalities[name])

    def add(self, t: float, hop: float, of: Mapping[str, tuple[Quality, NDArray[np.float64] | None]]) -> None:
        """The newest clips of the window that ends at `t`: their verdicts, and what they say of the person."""
        if self._rest is None or self._over:
            return
        self._rest.begin(t - hop)
        for name in self._modalities:
            if name in of:
                quality, value = of[name]
                self._rest.add(t, name, quality, None if quality.reason == VoiceQuality.PAUSE else value)

    def knows(self, name: str, track: int) -> bool:
        """Whether there is a baseline of this modality, of the person that is followed."""
        return name in self._found and (name != "face" or self._rest is None or track in self._rest.signal(name).people)

    def apply(self, name: str, signal: NDArray[Any], track: int) -> NDArray[Any]:
        """The clip as the weights take it."""
        return self._found[name].apply(signal, self._modalities[name]) if self.knows(name, track) else signal
