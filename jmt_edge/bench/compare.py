"""Compares two reports of the same bundle: ratios, with intervals that include the machine's own changes.

Each process is one observation. On the logarithm of its quick time, Welch's interval says how much two runs of one
build may differ by chance. How much a stage was affected by the machine's own changes cannot be measured: not at all,
or as much as a reference workload; so the ratio is also taken process by process relative to each reference. The ratio
nearest to 1 is shown, the interval covers all of them, and a stage has regressed only if all of it is over the limit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ..errors import DataError, short
from .measure import SCHEMA
from .stages import ALL_CORES

SHARED = 1.2  # from this many cores on, the slowness of other cores counts too
_NEEDED = {"date", "machine", "task", "stages", "references", "end_to_end"}
END_TO_END = "end to end"


@dataclass(frozen=True)
class Ratio:
    """New over old time of a stage (above 1 is slower), with an interval over processes and ways of counting."""

    stage: str
    old_ms: float
    new_ms: float
    ratio: float
    low: float
    high: float

    def regressed(self, limit: float) -> bool:
        """The whole interval is above 1 + limit, so noise alone is not a regression."""
        return self.low > 1 + limit


def load_report(path: Path) -> dict[str, Any]:
    """A report written by `bench --json`. Raises DataError for anything else."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not a benchmark report ({short(error)}); write one with `jmt-edge bench --json`"
        ) from None
    schema = report.get("schema") if isinstance(report, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise DataError(
            f"{path} was written by another version of `jmt-edge bench` (report schema {schema}, this is {SCHEMA}); "
            "measure both with the same version"
        )
    if schema is None or not set(report) >= _NEEDED:
        raise DataError(f"{path} is not a benchmark report; write one with `jmt-edge bench --json`")
    return dict(report)


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Ratio]:
    """Ratios of every stage both reports have. Raises DataError where they do not measure the same thing."""
    for key in ("task", "variant", "batch", "hop"):
        if old.get(key) != new.get(key):
            raise DataError(
                f"the reports differ in {key} ({old.get(key)} and {new.get(key)}); measure the same setting"
            )
    before = {**old["stages"], END_TO_END: old["end_to_end"]}
    after = {**new["stages"], END_TO_END: new["end_to_end"]}
    drift = {key: (_log(old["references"][key]), _log(new["references"][key])) for key in old["references"]}
    rows = []
    for name in before:
        if name not in after or not before[name]["processes"] or not after[name]["processes"]:
            continue
        shared = max(before[name]["cores"], after[name]["cores"]) > SHARED
        felt = [pair for key, pair in drift.items() if shared or key != ALL_CORES]
        rows.append(_ratio(name, _log(before[name]["processes"]), _log(after[name]["processes"]), felt))
    return rows


def different_settings(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What else differs between the two runs, and so affects the ratios: `backend: onnxruntime, now openvino`."""
    pairs = [(key, old.get(key), new.get(key)) for key in ("bundle", "backend", "precision", "threads")]
    keys = ("processor", "board", "governor", "power_mode")
    pairs += [(key, old["machine"].get(key), new["machine"].get(key)) for key in keys]
    return [f"{key}: {a}, now {b}" for key, a, b in pairs if a != b]


Logs = NDArray[np.float64]


def _log(values: Any) -> Logs:
    return np.log(np.asarray(values, np.float64))


def _ratio(name: str, old: Logs, new: Logs, drift: list[tuple[Logs, Logs]]) -> Ratio:
    # what slows a process for a moment slows its references too
    ways = [(old, new), *((old - x, new - y) for x, y in drift if x.size == old.size and y.size == new.size)]
    found = [_welch(x, y) for x, y in ways]
    nearest = min((middle for middle, _ in found), key=abs)
    low, high = min(m - half for m, half in found), max(m + half for m, half in found)
    return Ratio(name, *(float(v) for v in np.exp([old.mean(), new.mean(), nearest, low, high])))


def _welch(x: Logs, y: Logs) -> tuple[float, float]:
    """Difference of the means and half of its 95 % interval; infinitely wide where one side has one process."""
    difference = float(y.mean() - x.mean())
    if min(x.size, y.size) < 2:
        return difference, float("inf")
    a, b = float(x.var(ddof=1)) / x.size, float(y.var(ddof=1)) / y.size
    if a + b == 0.0:
        return difference, 0.0
    freedom = (a + b) ** 2 / (a**2 / (x.size - 1) + b**2 / (y.size - 1))
    return difference, float(stdtrit(freedom, 0.975) * np.sqrt(a + b))
