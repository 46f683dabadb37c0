"""EDA clips as other sensors give them: their steps, their rates, and the contact of their electrodes.

Counts become µS as in `media.units` (data sheets), so a clip passes to counts and back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from ..media.units import FEEDBACK, NOMINAL_CAL, OPEN_ADC, bitalino_us, grove_us, shimmer3_us

F64 = NDArray[np.float64]
SENSORS = ("bitalino", "shimmer3", "grove", "e4")
E4_RATE = 4.0  # Hz of the wrist-band Empatica E4
SPIKE = 0.3  # s in which a spike of the contact dies away
SLOW = 1.0  # s over which contact noise is alike


def as_sensor(values: NDArray[np.floating[Any]], sensor: str, span: float) -> F64:
    """Clips (..., samples) in µS, `span` s long, as one of `SENSORS` gives them.

    bitalino: 10 bits over 25 µS. shimmer3: 12 bits in the most sensitive of four ranges that is not saturated. grove:
    10 bits of a voltage that falls with the conductance, so that its steps grow with it. e4: 4 samples a second.
    """
    us = np.asarray(values, np.float64)
    if sensor == "bitalino":
        return bitalino_us(np.clip(np.rint(us * 1024 / 25), 0, 1023))
    if sensor == "shimmer3":
        return _shimmer3(us)
    if sensor == "grove":
        reading = np.rint((100 * NOMINAL_CAL - 1024 * us) / (100 + 2 * np.maximum(us, 0)))
        return grove_us(np.clip(reading, 0, NOMINAL_CAL - 1))
    at = np.arange(us.shape[-1])
    seen = np.unique(np.append(at[:: max(1, round(us.shape[-1] / span / E4_RATE))], at[-1]))
    return np.asarray(PchipInterpolator(seen, us[..., seen], axis=-1)(at), np.float64)


def _shimmer3(us: F64) -> F64:
    word = np.zeros(us.shape, np.int64)
    for gain, feedback in enumerate(FEEDBACK):
        adc = np.rint((feedback * np.maximum(us, 0) / 1000 + 1) * 0.5 * 4095 / 3)
        # a more sensitive range replaces a coarser one where it is not saturated
        use = (adc <= 3000) | (gain == 0)
        word = np.where(use, gain << 14 | np.clip(adc, OPEN_ADC, 4095).astype(np.int64), word)
    return shimmer3_us(word)


def contact(shape: tuple[int, ...], span: float, noise: float, spikes: float, rng: np.random.Generator) -> F64:
    """What the contact of the electrodes adds to clips (..., samples) of `span` s, in µS.

    noise: SD of slow noise, alike over about a second. spikes: a second; each dies away, and is either way up to three
    SDs of the noise high, or up to 0.05 µS where that is more.
    """
    *clips, samples = shape
    step = max(1, round(samples * SLOW / span))
    knots = np.arange(0, samples + step, step)
    slow = noise * rng.standard_normal((*clips, len(knots)))
    found = np.asarray(PchipInterpolator(knots, slow, axis=-1)(np.arange(samples)), np.float64)
    times = np.arange(samples) * span / samples
    for index in np.ndindex(*clips):
        for _ in range(rng.poisson(spikes * span)):
            since = times - rng.uniform(0, span)
            height = rng.uniform(-1, 1) * max(3 * noise, 0.05)
            found[index] += np.where(since >= 0, height * np.exp(-np.maximum(since, 0) / SPIKE), 0)
    return found
