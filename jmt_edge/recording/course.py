"""What is said of a recording's results as a whole, read once and in little memory: a day has 172 800 of them."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..result import STAGES
from .gaps import F64

T = TypeVar("T")
KINDS = 1000  # reasons that are told apart
OTHER = "other reasons"


class Reasons:
    """Reasons without what changes from window to window, each with a number."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, reason: str) -> int:
        name = re.sub(r"\d+(\.\d+)?", "…", reason.partition(":")[0]).strip() or "no reason given"
        if name not in self._numbers:
            if len(self.names) >= KINDS:
                name = OTHER
            if name not in self._numbers:
                self._numbers[name] = len(self.names)
                self.names.append(name)
        return self._numbers[name]


@dataclass
class Verdicts:
    """Of one modality. total, good: windows; why: reasons of the others, counted."""

    total: int = 0
    good: int = 0
    why: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Course:
    """The results by time. times: (n,) s of all; reason: (n,) number in `reasons` of those without outputs, -1 for the
    others. shown: (m,) s of those with outputs; outputs: {name: (m,)}. latency: {stage: ms where it was measured}.
    """

    times: F64
    reason: NDArray[np.int32]
    reasons: Sequence[str]
    shown: F64
    outputs: Mapping[str, F64]
    verdicts: Mapping[str, Verdicts]
    latency: Mapping[str, F64]

    def __len__(self) -> int:
        return len(self.times)

    def why(self, begin: float, end: float) -> Counter[str]:
        """The reasons of the results without outputs from `begin` to `end` (s), counted."""
        first, last = np.searchsorted(self.times, (begin, end))
        inside = self.reason[first:last]
        numbers, counts = np.unique(inside[inside >= 0], return_counts=True)
        return Counter({self.reasons[i]: n for i, n in zip(numbers.tolist(), counts.tolist())})


def read_course(results: Iterable[dict[str, Any]], outputs: Sequence[str], modalities: Sequence[str]) -> Course:
    """results: checked lines, of which nothing is kept but numbers."""
    times, reason, reasons = array("d"), array("i"), Reasons()
    columns = {name: array("d") for name in outputs}
    verdicts = {name: Verdicts() for name in modalities}
    latency = {stage: array("d") for stage in STAGES}
    for line in results:
        times.append(line["t"])
        shown = line["outputs"] is not None
        reason.append(-1 if shown else reasons.number(line["reason"]))
        for name, column in columns.items():
            column.append(line["outputs"][name] if shown else np.nan)
        for name, verdict in verdicts.items():
            found = line["quality"][name]
            verdict.total += 1
            verdict.good += found["ok"]
            if not found["ok"]:
                verdict.why[reasons.names[reasons.number(found["reason"])]] += 1
        for stage, values in latency.items():
            if (ms := line["latency_ms"].get(stage)) is not None:
                values.append(ms)
    every = np.array(times, np.float64)
    order = np.argsort(every, kind="stable")
    number = np.array(reason, np.int32)[order]
    known = number < 0
    return Course(
        every[order], number, reasons.names, every[order][known],
        {name: np.array(column, np.float64)[order][known] for name, column in columns.items()}, verdicts,
        {stage: np.array(values, np.float64) for stage, values in latency.items()},
    )  # fmt: skip


class Thinned(Generic[T]):
    """At most `most` values of a stream, evenly apart: every one, or every second, fourth, eighth, ..."""

    def __init__(self, most: int) -> None:
        self.kept: list[T] = []
        self._most, self._step, self._seen = most, 1, 0

    def add(self, value: T) -> None:
        if self._seen % self._step == 0:
            if len(self.kept) == self._most:
                del self.kept[1::2]
                self._step *= 2
            if self._seen % self._step == 0:
                self.kept.append(value)
        self._seen += 1
