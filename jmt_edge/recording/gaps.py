"""Where a line over time must break, and how many points become few without losing a peak."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
GAP = 1.0  # s without samples that break the line


def gaps(times: F64, longest: float = GAP) -> list[list[float]]:
    """[start, end] of every two neighbours in `times` (s, ascending) that are more than `longest` s apart."""
    at = np.flatnonzero(np.diff(times) > longest)
    return [[round(float(times[i]), 3), round(float(times[i + 1]), 3)] for i in at]


def result_gap(hop: float) -> float:
    """Seconds without a result that break the line: a window or two may be dropped."""
    return max(GAP, 2.5 * hop)


def bands(times: F64, values: F64, width: float) -> tuple[F64, F64, F64, F64]:
    """(mean time, lowest, mean, highest) of the values in each bin of `width` s that has any.

    times: (n,) s, ascending; values: (n,), finite.
    """
    if not times.size:
        return times, values, values, values
    bins = np.floor((times - times[0]) / width)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(bins)) + 1])
    count = np.diff(np.append(starts, times.size))
    return (
        np.add.reduceat(times, starts) / count, np.minimum.reduceat(values, starts),
        np.add.reduceat(values, starts) / count, np.maximum.reduceat(values, starts),
    )  # fmt: skip
