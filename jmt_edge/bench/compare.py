"""Two reports of the same bundle side by side: ratios with intervals, the machine's own drift divided out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .measure import SCHEMA

_DRAWS = 4000


@dataclass(frozen=True)
class Ratio:
    """New over old time of a stage (above 1 is slower), with its 95 % interval over resampled rounds."""

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
    if not isinstance(report, dict) or report.get("schema") != SCHEMA or "stages" not in report:
        raise DataError(f"{path} is no report of this version of `jmt-edge bench --json`; measure again")
    return report


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[Ratio]:
    """Ratios of every stage both reports have. Raises DataError where they do not measure the same thing."""
    for key in ("task", "variant", "batch", "hop"):
        if old.get(key) != new.get(key):
            raise DataError(
                f"the reports differ in {key} ({old.get(key)} and {new.get(key)}); measure the same setting"
            )
    drift_old, drift_new = (np.asarray(r["reference"]["round_medians"]) for r in (old, new))
    rows = []
    for name in (stage for stage in old["stages"] if stage in new["stages"]):
        a, b = (np.asarray(r["stages"][name]["round_medians"]) for r in (old, new))
        # each round beside the reference of the same round: a slow moment slows both
        x, y = a / drift_old[: len(a)], b / drift_new[: len(b)]
        low, high = _interval(x, y)
        rows.append(
            Ratio(name, float(np.median(a)), float(np.median(b)), float(np.median(y) / np.median(x)), low, high)
        )
    return rows


def _interval(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    ratios = [
        np.median(rng.choice(y, y.size)) / np.median(rng.choice(x, x.size))
        for _ in range(_DRAWS if min(x.size, y.size) > 1 else 0)
    ]
    if not ratios:
        return 0.0, float("inf")
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)
