"""Unit conversion: what a sensor or a file counts, in µS. One function a device, from its data sheet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NOMINAL_CAL = 512  # reading of an open Grove electrode
_FEEDBACK = (40.2, 287.0, 1000.0, 3300.0)  # kΩ of a Shimmer3, by range
_OPEN_ADC = 683


def bitalino_us(adc: NDArray, bits: int = 10, generation: str = "revolution") -> NDArray[np.float64]:
    """BITalino (PLUX data sheets). (r)evolution: µS = ADC / 2^n * 3.3 / 0.132; original: µS = 1 / (1 - ADC / 2^n)."""
    share = np.asarray(adc, np.float64) / 2**bits
    return share * 3.3 / 0.132 if generation == "revolution" else 1.0 / (1.0 - share)


def shimmer3_us(word: NDArray) -> NDArray[np.float64]:
    """Shimmer3 GSR+: words (range in bits 15-14, ADC in 11-0) -> µS; NaN below ADC 683, where no skin is connected.

    V = ADC * 3 / 4095, R = Rf / (V / 0.5 - 1), µS = 1000 / R with R in kΩ.
    """
    word = np.asarray(word, np.int64)
    adc = word & 0x0FFF
    gain = adc * (3.0 / 4095 / 0.5) - 1
    return np.where(adc < _OPEN_ADC, np.nan, 1000.0 * gain / np.array(_FEEDBACK)[word >> 14 & 3])


def grove_us(reading: NDArray, cal: int = NOMINAL_CAL) -> NDArray[np.float64]:
    """Seeed Grove GSR: R = (1024 + 2 x) * 10^4 / (cal - x) Ω -> µS = 100 (cal - x) / (1024 + 2 x); NaN for
    x >= cal (open).
    """
    x = np.asarray(reading, np.float64)
    return np.where(x >= cal, np.nan, 100.0 * (cal - x) / (1024.0 + 2.0 * x))


def opensignals_us(adc: NDArray, bits: int, sensor: str) -> NDArray[np.float64]:
    """ADC counts of an OpenSignals file -> µS: EDABITREV `adc/2^n · 3.3/0.132`, EDABIT `1/(1 - adc/2^n)` (PLUX data
    sheets). The converter's ends (an open or a shorted electrode) are NaN."""
    us = bitalino_us(adc, bits, "revolution" if sensor == "EDABITREV" else "original")
    return np.where((adc > 0) & (adc < 2**bits - 1), us, np.nan)
