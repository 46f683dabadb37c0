"""What a simulated board measures: a sine, the simulated person, or a recording at its own timestamps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import SourceError

Float = NDArray[np.float64]


@dataclass
class Signal:
    """at: (n,) increasing seconds -> (n,) µS. times: when the samples are due (None: at the board's rate)."""

    at: Callable[[Float], Float]
    times: Float | None = None


def open_signal(text: str = "sine", seed: int = 0) -> Signal:
    """`sine` (2 to 8 µS, period 10 s), `sim` (the simulated person `seed`), or a recording (`eda_files`), repeated.

    Raises SourceError where a file cannot be read.
    """
    if text == "sine":
        return Signal(lambda t: 5.0 + 3.0 * np.sin(2 * np.pi * t / 10.0))
    if text == "sim":
        return Signal(_Simulated(seed))
    if not Path(text).is_file():
        raise SourceError(f"--signal: there is no '{text}'; give sine, sim or a recording")
    from ...media.eda_files import read_eda_file

    found = read_eda_file(Path(text))
    period = float(found.times[-1] + np.median(np.diff(found.times)))

    def recording(t: Float) -> Float:
        return found.values[np.maximum(np.searchsorted(found.times, t % period + 1e-9, side="right") - 1, 0)]

    return Signal(recording, found.times if not found.rate else None)


class _Simulated:
    def __init__(self, seed: int) -> None:
        from ..simulated import open_simulated

        self._source = open_simulated("eda", f"sim:seed={seed}")
        self._times, self._values = np.empty(0), np.empty(0)

    def __call__(self, t: Float) -> Float:
        if not len(t):
            return np.empty(0)
        chunk = self._source.read(float(t[-1]) + 0.1)
        keep = np.searchsorted(self._times, t[0] - 1.0)
        self._times = np.concatenate([self._times[keep:], chunk.times])
        self._values = np.concatenate([self._values[keep:], chunk.values])
        return np.interp(t, self._times, self._values)
