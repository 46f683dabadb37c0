"""EDA of any device, 4 to 2000 Hz and irregular, on the network's grid: 512 Hz in the presets.

The values stay in µS: the papers feed the raw signal, level and response size both carry information, and a z-score
within the window would make a non-responder's noise look like a response. `normalise_eda` is the one place where
training and live apply a fixed mean and standard deviation, if the modality carries them. A z-score per person is
another, named mode ("calibrated") that happens before any of this.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..tasks import Modality
from .filters import low_pass

GAP_PERIODS = 2.5  # a gap is longer than 2.5 sample periods,
GAP_MIN, GAP_MAX = 0.25, 0.7  # but within these bounds in s: one lost sample at 4 Hz is bridged, 1 Hz is too slow
HALF_TAPS = 16  # of the low-pass, in output samples
UNEVEN = 8.0  # a median step further below the mean one comes from stamps in bursts, not from the sensor's rate
MAX_FACTOR = 64  # input rate over the grid's; bounds the work whatever the times say


def resample_eda(
    times: NDArray[np.float64], values: NDArray[np.float32], end: float, m: Modality
) -> tuple[NDArray[np.float32], float]:
    """((1, samples) float32 µS, `m.span` seconds whose last sample is at `end`, fraction of them that is real data).

    times: (n,) s, stream time. values: (n,) µS, NaN where the sensor gave no valid number. Samples before the
        window are welcome (they settle the filter); samples after `end` are not used.
    Between samples: monotone cubic (PCHIP), which never overshoots a step. Above the grid's rate a linear-phase
    low-pass at 0.45 of it comes first; at `end`, where the future is unknown, it sees the last value held. A grid
    point is not data where it lies in a gap (longer than 2.5 sample periods, at least 0.25 s and at most 0.7 s) or
    that far from the nearest sample on an edge; its value is still interpolated (held on an edge) so that the array
    is finite.
    Without any valid sample: zeros and 0.0. Time and memory are bounded by the number of samples and the window.
    """
    count = m.shape[-1]
    rate = count / m.span
    grid = end - np.arange(count - 1, -1, -1) / rate
    reach = (HALF_TAPS + 1) / rate
    keep = np.isfinite(values) & np.isfinite(times) & (times <= end + 1e-9) & (times >= grid[0] - reach - GAP_MAX)
    times, first = np.unique(np.asarray(times, np.float64)[keep], return_index=True)
    levels = np.asarray(values, np.float64)[keep][first]
    if not len(times):
        return np.zeros((1, count), np.float32), 0.0

    period = _period(times)
    limit = float(np.clip(GAP_PERIODS * period, GAP_MIN, GAP_MAX))
    after = np.searchsorted(times, grid)
    left = np.where(after > 0, times[np.maximum(after - 1, 0)], -np.inf)
    right = np.where(after < len(times), times[np.minimum(after, len(times) - 1)], np.inf)
    nearest = np.minimum(grid - left, right - grid)
    inside = np.isfinite(left) & np.isfinite(right)
    real = np.where(inside, right - left <= limit, nearest <= limit) | (nearest <= 1e-9)

    factor = int(np.ceil(min(1 / (period * rate), MAX_FACTOR) - 0.01))  # 1 % above it is clock tolerance
    if factor <= 1:
        resampled = _interpolate(times, levels, grid)
    else:
        half = HALF_TAPS * factor
        fine = end - np.arange((count - 1) * factor + half, -half - 1, -1) / (rate * factor)
        taps = _low_pass(factor)
        resampled = (
            np.lib.stride_tricks.sliding_window_view(_interpolate(times, levels, fine), len(taps))[::factor] @ taps
        )
    return resampled[None].astype(np.float32), float(real.mean())


def _period(times: NDArray[np.float64]) -> float:
    """Seconds between the samples of a window: the median step, which gaps do not change, unless it is far below the
    mean one, as stamps in bursts make it."""
    if len(times) < 2:
        return GAP_MAX
    middle, mean = float(np.median(np.diff(times))), float(times[-1] - times[0]) / (len(times) - 1)
    return middle if middle * UNEVEN >= mean else mean


def normalise_eda(values: NDArray[np.float32], m: Modality) -> NDArray[np.float32]:
    """What the network takes: `values` in µS as they are, or (values - mean) / std where `m` carries them."""
    if not m.mean:
        return np.asarray(values, np.float32)
    return ((values - np.float32(m.mean[0])) / np.float32(m.std[0])).astype(np.float32)


def _interpolate(
    times: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    if len(times) == 1:
        return np.full(len(at), values[0])
    # times near 0: a stream that runs for days keeps its resolution
    return _pchip(times - times[0], values, np.clip(at, times[0], times[-1]) - times[0])


def _pchip(times: NDArray[np.float64], values: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Monotone cubic Hermite interpolation (Fritsch and Butland 1984; ends as in Moler 2004, "Numerical Computing with
    MATLAB"), as `scipy.interpolate.PchipInterpolator`, without its import. times: (n,) ascending, n >= 2; `at` within.
    """
    step = np.diff(times)
    rise = np.diff(values) / step
    slopes = np.zeros(len(times))
    if len(times) == 2:
        slopes[:] = rise[0]
    else:
        before, after = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (before + after) / (before / rise[:-1] + after / rise[1:])
        same = (np.sign(rise[:-1]) == np.sign(rise[1:])) & (rise[:-1] != 0)
        slopes[1:-1] = np.where(same, mean, 0.0)
        slopes[0] = _end_slope(step[0], step[1], rise[0], rise[1])
        slopes[-1] = _end_slope(step[-1], step[-2], rise[-1], rise[-2])
    i = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(step) - 1)
    bend = (slopes[:-1] + slopes[1:] - 2 * rise) / step
    x = at - times[i]
    return np.asarray(
        values[i] + x * (slopes[i] + x * (((rise - slopes[:-1]) / step - bend)[i] + x * (bend / step)[i]))
    )


def _end_slope(near: float, next_: float, rise: float, next_rise: float) -> float:
    """The three-point slope at an end, held within what keeps the curve's shape."""
    slope = ((2 * near + next_) * rise - near * next_rise) / (near + next_)
    if np.sign(slope) != np.sign(rise):
        return 0.0
    return 3 * rise if np.sign(rise) != np.sign(next_rise) and abs(slope) > 3 * abs(rise) else slope


@lru_cache(maxsize=8)
def _low_pass(factor: int) -> NDArray[np.float64]:
    """Windowed-sinc low-pass at 0.45 of the grid's rate for input at `factor` times that rate; gain 1 at 0 Hz."""
    return low_pass(2 * HALF_TAPS * factor + 1, 0.9 / factor, 8.0)
