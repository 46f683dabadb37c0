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
        self._began: float | None = None  # s, when the rest did
        self._over = False
        self._found: dict[str, Baseline] = {}

    def __bool__(self) -> bool:
        return bool(self._modalities)

    def begin(self, seconds: float) -> Collection[str]:
        """The person rests, beginning with the next window; the modalities whose clips are no longer changed."""
        changed = list(self._found)
        self._rest, self._began, self._over, self._found = Rest(seconds), None, False, {}
        return changed

    def forget(self) -> Collection[str]:
        """Forget the rest: another person is there. The modalities whose clips are no longer changed."""
        changed = list(self._found)
        self._rest, self._began, self._over, self._found = None, None, False, {}
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
        """What a clip, as it was cut, says of the person: at rest, and afterwards in comparison with the rest."""
        if name not in self._modalities or self._rest is None:
            return None
        return measured(signal, self._modalities[name])

    def add(self, t: float, hop: float, of: Mapping[str, tuple[float, Quality, NDArray[np.float64] | None]]) -> None:
        """The newest clips of the window that ends at `t`: the clip's end (s), its verdict, and what it says of the
        person. A clip that began before the rest did is not of it.
        """
        if self._rest is None or self._over:
            return
        self._rest.begin(t - hop)
        self._began = t - hop if self._began is None else self._began
        for name, m in self._modalities.items():
            if name in of:
                end, quality, value = of[name]
                if end - m.span >= self._began - 1e-6:
                    self._rest.add(t, name, quality, None if quality.reason == VoiceQuality.PAUSE else value)

    def takes(self, name: str) -> bool:
        """Whether the weights compare this modality with the rest."""
        return name in self._modalities

    def knows(self, name: str, track: int) -> bool:
        """Whether there is a baseline of this modality, of the person that is followed."""
        return name in self._found and (name != "face" or self._rest is None or track in self._rest.signal(name).people)

    def apply(self, name: str, signal: NDArray[Any], track: int) -> NDArray[Any]:
        """The clip as the weights take it."""
        return self._found[name].apply(signal, self._modalities[name]) if self.knows(name, track) else signal
