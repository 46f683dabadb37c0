"""Unit conversion: what a sensor or a file counts, in µS. One function a device, from its data sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError

NOMINAL_CAL = 512  # reading of an open Grove electrode
FEEDBACK = (40.2, 287.0, 1000.0, 3300.0)  # kΩ of a Shimmer3, by range
OPEN_ADC = 683


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
    return np.where(adc < OPEN_ADC, np.nan, 1000.0 * gain / np.array(FEEDBACK)[word >> 14 & 3])


def grove_us(reading: NDArray, cal: int = NOMINAL_CAL) -> NDArray[np.float64]:
    """Seeed Grove GSR: R = (1024 + 2 x) * 10^4 / (cal - x) Ω -> µS = 100 (cal - x) / (1024 + 2 x); NaN for
    x >= cal (open).
    """
    x = np.asarray(reading, np.float64)
    return np.where(x >= cal, np.nan, 100.0 * (cal - x) / (1024.0 + 2.0 * x))


def opensignals_us(adc: NDArray, bits: int, sensor: str) -> NDArray[np.float64]:
    """ADC counts of an OpenSignals file -> µS: EDABITREV `adc/2^n · 3.3/0.132`, EDABIT `1/(1 - adc/2^n)`, EDA (a
    biosignalsplux) `adc/2^n · 3/0.12` (PLUX data sheets). The converter's ends (an open or a shorted electrode) are
    NaN."""
    if sensor == "EDA":
        us = biosignalsplux_us(adc, bits)
    else:
        with np.errstate(divide="ignore"):
            us = bitalino_us(adc, bits, "revolution" if sensor == "EDABITREV" else "original")
    return np.where((adc > 0) & (adc < 2**bits - 1), us, np.nan)


def biosignalsplux_us(adc: NDArray, bits: int = 16) -> NDArray[np.float64]:
    """biosignalsplux EDA sensor (PLUX data sheet): µS = ADC / 2^n * 3 / 0.12."""
    return np.asarray(adc, np.float64) / 2**bits * 3.0 / 0.12


UNITS = ("uS", "nS", "mS", "S", "kohm", "ohm", "Mohm", "V", "mV", "adc")
_SPELLINGS = {
    "us": "uS", "µs": "uS", "μs": "uS", "microsiemens": "uS", "usiemens": "uS", "umho": "uS", "umhos": "uS",
    "µmho": "uS", "micromho": "uS", "micromhos": "uS", "µsiemens": "uS", "ns": "nS",
    "kohm": "kohm", "kohms": "kohm", "kω": "kohm", "kΩ": "kohm", "ohm": "ohm", "ohms": "ohm", "ω": "ohm",
    "mohm": "Mohm", "mohms": "Mohm", "mω": "Mohm", "siemens": "S", "mho": "S", "millisiemens": "mS",
    "v": "V", "volt": "V", "volts": "V", "mv": "mV", "adc": "adc", "raw": "adc", "counts": "adc",
}  # fmt: skip


def known_unit(text: str) -> str:
    """The unit, one of UNITS, that `text` spells; "" where it spells none."""
    return _SPELLINGS.get(text.strip().lower(), "")


def written_unit(text: str) -> str:
    """The same where a unit is expected: `S` and `mS` are siemens there, and seconds in the name of a column."""
    return {"s": "S", "ms": "mS"}.get(text.strip().lower(), "") or known_unit(text)


_OHMS = {"ohm": 1.0, "kohm": 1e3, "Mohm": 1e6}


@dataclass(frozen=True)
class Conversion:
    """A column's unit and the parameters that lead from it to µS.

    gain: V per µS of the amplifier. bits, vcc: of the converter. cal: of a Grove, its open-circuit reading.
    The defaults are a BITalino (r)evolution's.
    """

    unit: str = "uS"
    bits: int = 10
    vcc: float = 3.3
    gain: float = 0.132
    cal: int | None = None

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) values in `unit` -> (n,) µS; NaN where they stand for an open or a saturated electrode."""
        if self.unit == "uS":
            return x
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.unit in _OHMS:
                return np.where(x > 0, 1e6 / _OHMS[self.unit] / x, np.nan)
            if self.unit == "adc":
                top = 2**self.bits - 1
                us = x / 2**self.bits * self.vcc / self.gain
                if self.cal is not None:
                    us = grove_us(x * 1024 / 2**self.bits, self.cal)
                return np.where((x > 0) & (x < top), us, np.nan)
        return x * {"nS": 1e-3, "mS": 1e3, "S": 1e6, "V": 1 / self.gain, "mV": 1e-3 / self.gain}[self.unit]


def conversion(given: Mapping[str, str], spec: str) -> Conversion | None:
    """The conversion that a specification's settings `unit`, `bits`, `vcc`, `gain` and `cal` describe; None without
    a unit. Raises SourceError, quoting `spec`, for settings that do not fit."""
    if "unit" not in given:
        if extra := [key for key in ("bits", "vcc", "gain", "cal") if key in given]:
            raise SourceError(f"'{spec}': {extra[0]} belongs to a unit; add unit=adc or unit=V")
        return None
    unit = written_unit(given["unit"])
    if not unit:
        raise SourceError(f"'{spec}': the unit '{given['unit']}' is unknown; choose one of {', '.join(UNITS)}")
    allowed = {"adc": ("bits", "vcc", "gain", "cal"), "V": ("gain",), "mV": ("gain",)}.get(unit, ())
    for key in ("bits", "vcc", "gain", "cal"):
        if key in given and key not in allowed:
            raise SourceError(f"'{spec}': {key} does not belong to unit={unit}; leave it out")
    default = Conversion(unit)
    bits = int(number(spec, given, "bits", 4, 24, whole=True) or default.bits)
    cal = number(spec, given, "cal", 1, 2**bits - 1, whole=True)
    vcc, gain = number(spec, given, "vcc", 0.1, 50), number(spec, given, "gain", 1e-6, 1e6)
    return Conversion(unit, bits, vcc or default.vcc, gain or default.gain, None if cal is None else int(cal))


def number(
    spec: str,
    given: Mapping[str, str],
    key: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    whole: bool = False,
) -> float | None:
    """The value of `key`, None where it is not given.

    Raises SourceError where it is not a number, or a whole number, in [low, high].
    """
    if key not in given:
        return None
    try:
        value = float(given[key])
    except ValueError:
        value = math.nan
    if not (low <= value <= high and math.isfinite(value) and (not whole or value.is_integer())):
        kind = "whole number" if whole else "number"
        span = f" from {low:g} to {high:g}" if math.isfinite(high - low) else ""
        raise SourceError(f"'{spec}': {key} is '{given[key]}'; give a {kind}{span}")
    return value
