"""Results and EDA of the last hours, a few bytes each, for a look back at an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...recording.gaps import F64, gaps, result_gap
from .traces import Trace

HOURS = 12.0
MOST = 86_400  # results: 12 hours, one each half second
EDA_RATE = 4.0  # points per second
AROUND = 30.0  # s shown before and after an event
LONGEST = 300.0  # s shown from an event's start on


class Past:
    """outputs, names: the task's outputs and modalities. eda: add samples to it."""

    def __init__(self, outputs: Sequence[str], names: Sequence[str], most: int = MOST) -> None:
        self._outputs, self._names = tuple(outputs), tuple(names)
        self._t = np.full(most, np.nan)
        self._values = np.full((most, len(self._outputs) + len(self._names)), np.nan, np.float32)
        self._count = 0
        self.eda = Trace(EDA_RATE, HOURS * 3600)

    def add(self, t: float, outputs: Mapping[str, float] | None, attention: Mapping[str, float | None]) -> None:
        """A result, its window ending at `t` (s)."""
        at = self._count % len(self._t)
        self._t[at] = t
        values = [outputs[name] if outputs else None for name in self._outputs]
        self._values[at] = [np.nan if v is None else v for v in (*values, *map(attention.get, self._names))]
        self._count += 1

    def span(self, start: float, end: float | None, now: float) -> tuple[float, float]:
        """(first, last) s of what is shown of an event; `end` is None while it lasts."""
        until = now if end is None else end
        return max(0.0, start - AROUND), min(until + AROUND, start + LONGEST, now)

    def around(self, begin: float, end: float, hop: float) -> dict[str, Any]:
        """What is held from `begin` to `end` (s), plain JSON values, None where there is no value.

        `t`: ends of the windows, with `outputs` and `attention` by name; `eda`: its `t` and `v`; `gaps`: [from, to] of
        every stretch without a number, and without EDA.
        """
        held = min(self._count, len(self._t))
        order = np.arange(self._count - held, self._count) % len(self._t)
        inside = order[(self._t[order] >= begin) & (self._t[order] <= end)]
        t, values = self._t[inside], self._values[inside]
        columns = [[None if np.isnan(v) else round(float(v), 4) for v in column] for column in values.T]
        split = len(self._outputs)
        shown = t[np.isfinite(values[:, :split]).all(axis=1)]
        times, eda, _ = self.eda.since(0)
        kept = (times >= begin) & (times <= end)
        times, eda = times[kept], eda[kept]
        return {
            "from": round(begin, 3), "to": round(end, 3), "t": np.round(t, 3).tolist(),
            "outputs": dict(zip(self._outputs, columns[:split], strict=True)),
            "attention": dict(zip(self._names, columns[split:], strict=True)),
            "eda": {
                "t": np.round(times, 3).tolist(), "v": [None if np.isnan(v) else round(float(v), 4) for v in eda],
            },
            "gaps": {
                "results": _without(shown, begin, end, result_gap(hop)),
                "eda": _without(times[np.isfinite(eda)], begin, end, result_gap(0.0)),
            },
        }  # fmt: skip


def _without(times: F64, begin: float, end: float, longest: float) -> list[list[float]]:
    """As `gaps`, with what is missing at the ends."""
    return gaps(np.concatenate([[begin], times, [end]]), longest)
