"""Two reports of the same bundle side by side: ratios with intervals that cover what the machine itself may have done.

Nobody knows how much of another program's load a stage felt: none of it, or as much as the reference workload on one
core, or on all. So each ratio is taken three ways (raw, and with either reference's drift divided out). The one nearest
to 1 is shown, the interval covers all three, and only what lies beyond the limit as a whole is a regression.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .measure import SCHEMA

_DRAWS = 2000
_COVER = (2.5, 97.5)  # percentiles of the resampled ratios
_NEEDED = {"date", "machine", "task", "stages", "references", "end_to_end"}
END_TO_END = "end to end"


@dataclass(frozen=True)
class Ratio:
    """New over old time of a stage (above 1 is slower), with an interval over resampled rounds and ways of counting."""

    stage: str
    old_ms: float
    new_ms: float
    ratio: float
    low: float
    high: float

    def regressed(self, limit: float) -> bool:
        """The whole interval lies beyond 1 + limit: noise alone does not make a regression."""
        return self.low > 1 + limit


def load_report(path: Path) -> dict[str, Any]:
    """A report that `bench --json` wrote. Raises DataError for anything else."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no benchmark report ({error}); write one with `jmt-edge bench --json`") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA or not set(report) >= _NEEDED:
        raise DataError(f"{path} is no report of this version of `jmt-edge bench --json`; measure again")
    return report


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Ratio]:
    """Ratios of every stage both reports have. Raises DataError where they do not measure the same thing."""
    for key in ("task", "variant", "batch", "hop"):
        if old.get(key) != new.get(key):
            raise DataError(
                f"the reports differ in {key} ({old.get(key)} and {new.get(key)}); measure the same setting"
            )
    drift = [(_array(old["references"][key]), _array(new["references"][key])) for key in old["references"]]
    rows = [
        _ratio(name, old["stages"][name]["rounds"], new["stages"][name]["rounds"], drift)
        for name in old["stages"]
        if name in new["stages"]
    ]
    before, after = old["end_to_end"], new["end_to_end"]
    if before["n"] and after["n"]:
        still = [(_array([before["references"][k]]), _array([after["references"][k]])) for k in before["references"]]
        rows.append(_ratio(END_TO_END, before["rounds"], after["rounds"], still))
    return rows


def different_settings(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What else differs between the two runs, which a ratio then includes: `backend: onnxruntime, now openvino`."""
    pairs = [(key, old.get(key), new.get(key)) for key in ("bundle", "backend", "precision", "threads")]
    pairs += [(key, old["machine"].get(key), new["machine"].get(key)) for key in ("processor", "board", "governor")]
    return [f"{key}: {a}, now {b}" for key, a, b in pairs if a != b]


def _array(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _ratio(name: str, old: Any, new: Any, drift: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Ratio:
    a, b = _array(old), _array(new)
    ways = [(a, b)]
    for x, y in drift:
        # round by round where both were measured in rounds: a slow moment slows both
        ways.append((a / _fit(x, a.size), b / _fit(y, b.size)))
    found = [(float(np.median(y) / np.median(x)), *_interval(x, y)) for x, y in ways]
    nearest = min(found, key=lambda way: abs(np.log(way[0])))[0]
    return Ratio(
        name, float(np.median(a)), float(np.median(b)), nearest,
        min(way[1] for way in found), max(way[2] for way in found),
    )  # fmt: skip


def _fit(reference: NDArray[np.float64], rounds: int) -> NDArray[np.float64]:
    return reference if reference.size == rounds else np.full(rounds, np.median(reference))


def _interval(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Percentile interval of the ratio of medians over resampled rounds; everything where there is one round."""
    if min(x.size, y.size) < 2:
        return 0.0, float("inf")
    rng = np.random.default_rng(0)
    tops = np.median(rng.choice(y, (_DRAWS, y.size)), axis=1)
    bottoms = np.median(rng.choice(x, (_DRAWS, x.size)), axis=1)
    low, high = np.percentile(tops / bottoms, _COVER)
    return float(low), float(high)
