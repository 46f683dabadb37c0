"""Run summary: counts, latency percentiles, speed, memory."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .result import STAGES, Result


class Percentiles:
    """Percentiles of any number of values in constant memory: counts in bins 1 % apart, from 1 µs to 1000 s."""

    STEP = math.log(1.01)
    LOWEST = 1e-3  # ms

    def __init__(self) -> None:
        self._counts = np.zeros(2100, np.int64)

    def add(self, ms: float) -> None:
        at = math.log(max(ms, self.LOWEST) / self.LOWEST) / self.STEP
        self._counts[min(int(at), len(self._counts) - 1)] += 1

    def __call__(self, percent: float) -> float | None:
        """The value (ms, within 1 %) below which `percent` of the values lie; None without values."""
        total = int(self._counts.sum())
        if not total:
            return None
        rank = max(1, math.ceil(total * percent / 100))
        at = int(np.searchsorted(np.cumsum(self._counts), rank))
        return self.LOWEST * math.exp((at + 0.5) * self.STEP)


@dataclass
class Summary:
    """Counts of one run. Seconds: `stream` of signal seen, `busy` of the loop's own work, `wall` of the run."""

    bundle: str
    demo: bool
    realtime: bool
    results: int = 0
    with_outputs: int = 0
    dropped: int = 0
    stream: float = 0.0
    busy: float = 0.0
    wall: float = 0.0
    first_output: float | None = None  # stream time of the first result with outputs
    failed: str = ""  # the error that ended the run
    sources: dict[str, str] = field(default_factory=dict)  # modality -> what its source lost or altered, where it did
    subject: str = ""  # whom the bundle is personalised to
    faults: dict[str, str] = field(default_factory=dict)  # part of the program -> how often it failed, and why
    stages: dict[str, Percentiles] = field(default_factory=lambda: {stage: Percentiles() for stage in STAGES})

    def add(self, result: Result) -> None:
        self.results += 1
        if result.outputs is not None:
            self.with_outputs += 1
            self.first_output = result.t if self.first_output is None else self.first_output
        for stage, ms in result.latency_ms.items():
            if ms is not None:
                self.stages[stage].add(ms)

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of signal handled per second of work; above 1 is faster than real time."""
        return self.stream / self.busy if self.busy else None

    def lines(self) -> list[str]:
        """The summary as a person reads it."""
        return [
            *self._counts(),
            *_fault_lines(self.faults),
            f"  speed {self._speed()}   peak memory {peak_memory_mb():.0f} MB",
            f"  {notice(self.demo, self.subject)}",
        ]

    def _counts(self) -> list[str]:
        shown = f"{self.results} results, {self.with_outputs} with outputs, {self.dropped} windows dropped"
        first = f"; first output at {self.first_output:.2f} s" if self.first_output is not None else ""
        total = "from the window's end" if self.realtime else "computing time"
        lines = [f"{self.bundle}: {shown}; {self.stream:.1f} s of signal in {self.wall:.1f} s{first}"]
        for stage in STAGES:
            values = [self.stages[stage](p) for p in (50, 95, 99)]
            text = "  ".join(f"p{p} {v:8.2f}" for p, v in zip((50, 95, 99), values) if v is not None)
            note = f"   ({total})" if stage == "total" and text else ""
            absent = "included in networks" if self.stages["networks"](50) is not None else "did not run"
            lines.append(f"  {stage:<10} ms  {text or absent}{note}")
        return [*lines, *(f"  {name}: {what}" for name, what in self.sources.items())]

    def _speed(self) -> str:
        factor = self.real_time_factor
        return f"{factor:.1f} x real time" if factor is not None else "no signal"


def lines_of_people(summaries: Mapping[str, Summary], faults: Mapping[str, str]) -> list[str]:
    """The summaries of people in one process, by name: each person's counts, then what belongs to all.

    faults: as `Summary.faults`, of the process.
    """
    lines = []
    for name, summary in summaries.items():
        first, *rest = summary._counts()
        lines += [f"{name}: {first}", *rest, f"  speed {summary._speed()}"]
    about = next(iter(summaries.values()), None)
    said = [] if about is None else [notice(about.demo, about.subject)]
    return [
        *lines,
        f"people: {len(summaries)}",
        *_fault_lines(faults),
        f"  peak memory {peak_memory_mb():.0f} MB",
        *(f"  {line}" for line in said),
    ]


def _fault_lines(faults: Mapping[str, str]) -> list[str]:
    return [f"  {name} {what}" for name, what in faults.items()]


def notice(demo: bool, subject: str = "") -> str:
    """What must be said wherever a result is shown. subject: whom the bundle is personalised to."""
    what = "demo weights, trained on synthetic data" if demo else "research prototype"
    whose = f"personalised to {subject}, for nobody else; " if subject else ""
    return f"{whose}{what}; not for clinical use"


def peak_memory_mb() -> float:
    """The process's largest resident set so far, in MB (10^6 bytes)."""
    status = Path("/proc/self/status")
    if status.is_file():
        # not getrusage: its maximum survives exec, so it may be the parent's
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
