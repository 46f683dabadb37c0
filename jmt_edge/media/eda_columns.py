"""Which columns of a table are the time and the skin conductance, and what unit the times have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from .eda_rows import ENOUGH, F64, Asked, Body, shown
from .eda_times import LONGEST_BURST, spacing
from .tables import column_number
from .units import known_unit, written_unit

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
TIME_UNITS = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "ms": "ms", "msec": "ms", "millis": "ms",
    "milliseconds": "ms", "us": "us", "µs": "us", "μs": "us", "usec": "us", "micros": "us", "microseconds": "us",
    "ns": "ns", "nanoseconds": "ns", "min": "min", "mins": "min", "minute": "min", "minutes": "min", "h": "h",
    "hr": "h", "hrs": "h", "hour": "h", "hours": "h",
}  # fmt: skip
TIME_NAMES = {
    "t": "", "time": "", "timestamp": "", "timestamps": "", "datetime": "", "t_s": "s", "time_s": "s", "seconds": "s",
    "s": "s", "sec": "s", "min": "min", "minutes": "min",
    "t_ms": "ms", "time_ms": "ms", "timestamp_ms": "ms", "ms": "ms", "arduino_ts": "ms", "millis": "ms",
    "t_us": "us", "time_us": "us", "timestamp_us": "us", "micros": "us", "t_ns": "ns", "time_ns": "ns",
}  # fmt: skip
VALUE_NAMES = {
    "us": "uS", "µs": "uS", "μs": "uS", "eda": "", "eda_us": "uS", "eda_µs": "uS", "eda_microsiemens": "uS", "gsr": "",
    "gsr_us": "uS", "scl": "", "microsiemens": "uS",
}  # fmt: skip
_PARTS = r"phasic|scr|scrs|peaks?|onsets?|amplitude|risetime|recovery"  # what is computed from EDA, and is not EDA
_NOT_EDA = r"range|raw|quality|flag|marker|label|index|valid"  # said of EDA, or counts of a converter
_LONGEST_NAME = 200  # characters; the search for a unit in thousands of brackets takes minutes
_MAX_RATE, _MIN_RATE = 10_000.0, 0.3  # Hz of any EDA device
_UNSAID_RATE = 2500.0  # Hz: a faster one must be said; the times may be minutes


@dataclass(frozen=True)
class Column:
    index: int
    name: str
    unit: str  # "" where the header does not say


def _with_unit(name: str) -> tuple[str, str]:
    """A column's name -> (name without its unit, the unit as it is written): `EDA [µS]`, `gsr (kOhm)`, `eda_uS`."""
    if len(name) > _LONGEST_NAME:
        return name, ""
    if found := re.fullmatch(r"(.*?)[\s_]*[\[(]\s*([^\])]+?)\s*[\])]", name):
        return found[1].strip(), found[2]
    base, _, last = name.rpartition("_")
    return (base, last) if base and (known_unit(last) or last in TIME_UNITS) else (name, "")


def time_column(body: Body, lower: list[str], units: list[str], asked: Asked) -> Column | None:
    wanted, unit = "", ""
    if asked.time is not None:
        wanted, _, unit = asked.time.rpartition(":")
        if not wanted and unit.lower() in TIME_UNITS and unit.lower() not in lower:
            wanted = ""
        elif not wanted or unit.lower() not in TIME_UNITS:
            wanted, unit = asked.time, ""
        unit = TIME_UNITS.get(unit.lower(), "")
    if wanted:
        index = _index(wanted, lower)
        if index is None:
            raise SourceError(f"EDA file {body.path} has no column '{wanted}' for time=; it has {', '.join(lower)}")
        return Column(index, wanted, unit or _stated_time_unit(lower[index], units[index]))
    for i, name in enumerate(lower):
        if name in TIME_NAMES and (name != "min" or i == 0):  # further on it is a minimum
            return Column(i, name, unit or _stated_time_unit(name, units[i]))
    for i, name in enumerate(lower):
        base, _ = _with_unit(name)
        if re.search(r"(^|[\s_])(time|timestamp|timestamps)([\s_]|$)", base):
            return Column(i, name, unit or _stated_time_unit(name, units[i]))
    for i, name in enumerate(lower):  # in any language
        if re.fullmatch(r".*[\[(] ?(s|sec|ms|min|h) ?[\])]", name):
            return Column(i, name, unit or _stated_time_unit(name, units[i]))
    if lower and lower[0] == "1" and len(lower) >= 2:
        return Column(0, "column 1", unit)
    return None


def _stated_time_unit(name: str, below: str) -> str:
    if below.lower() in TIME_UNITS:
        return TIME_UNITS[below.lower()]
    if name in TIME_NAMES:
        return TIME_NAMES[name]
    return TIME_UNITS.get(_with_unit(name)[1].lower(), "")


def _index(wanted: str, lower: list[str]) -> int | None:
    """Where a column is: by its name, or by its number from 1 on."""
    if wanted.strip().lower() in lower:
        return lower.index(wanted.strip().lower())
    return column_number(wanted, len(lower))


def value_column(
    body: Body, names: list[str], lower: list[str], units: list[str], time: Column | None, asked: Asked
) -> Column | None:
    def stated(i: int) -> str:
        """A unit as UNITS has it, or as the header has it where that is none of them."""
        bracketed = _with_unit(names[i])[1] if names and names[i].rstrip().endswith(("]", ")")) else ""
        said = units[i] or bracketed
        if written_unit(said) or _looks_like_a_unit(said):
            return written_unit(said) or said
        return VALUE_NAMES.get(lower[i], "") or known_unit(_with_unit(lower[i])[1])

    at = time.index if time else -1
    if asked.column is not None:
        index = _index(asked.column, lower)
        return None if index is None or index == at else Column(index, lower[index], stated(index))
    if not names:
        return Column(1, "column 2", "") if len(lower) == 2 and at == 0 else None
    named = [i for i, name in enumerate(lower) if name in VALUE_NAMES and i != at]
    found = named or [
        i for i, name in enumerate(lower)
        if i != at and re.search(r"conductance|(^|[\s_(])(eda|gsr|scl)([\s_)\[(]|$)", name)
        and not re.search(rf"(^|[\s_])({_PARTS}|{_NOT_EDA})([\s_]|$)", name)
    ]  # fmt: skip
    if not found:
        return None
    # the unit decides, then the quantity; of a decomposed signal its level is the last choice
    rank = {i: (stated(i) != "uS", "conductance" not in lower[i], "tonic" in lower[i]) for i in found}
    best = [i for i in found if rank[i] == min(rank.values())]
    if len(best) > 1:
        listed = " and ".join(f"'{names[i].strip()}' (column {i + 1})" for i in best)
        raise SourceError(
            f"EDA file {body.path} has {len(best)} EDA columns, {listed}; choose one by FILE?column=NAME or its number"
        )
    return Column(best[0], lower[best[0]], stated(best[0]))


def _looks_like_a_unit(text: str) -> bool:
    """Whether what a header has in brackets is a unit rather than a place or a device: `a.u.`, `%`, `z`, `mA`."""
    return bool(text) and (
        len(text) <= 2 or re.search(r"[^\w\s-]", text) is not None or text.lower() in ("arb", "norm", "zscore", "units")
    )


def say_what_is_missing(
    path: Path, names: list[str], lower: list[str], time: Column | None, asked: Asked, line: str
) -> None:
    if not names:
        raise SourceError(
            f"EDA file {path} row 1: '{shown(line, 60)}' is not a header, and no column is named; add a header such as "
            "`t_ms,uS`, write FILE?rate=HZ for one number a row, or FILE?time=1&column=3 by the columns' numbers"
        )
    sought = "' or '".join((asked.column.lower(),) if asked.column else list(VALUE_NAMES)[:4])
    lacking = "time column (t, t_ms, time_us)" if time is None and asked.rate is None else f"column '{sought}'"
    raise SourceError(
        f"EDA file {path} row 1: no {lacking} in the header ('{shown(line, 60)}'); add a header such as `t_ms,uS`, "
        "name the columns by FILE?time=NAME&column=NAME, or write FILE?rate=HZ for one number a row"
    )


def guessed_unit(path: Path, name: str, stamps: F64) -> str:
    """The unit of times whose header does not say. Raises SourceError where two units would make sense."""
    if len(stamps) < ENOUGH:
        return "s"
    size, period = float(np.median(np.abs(stamps))), spacing(stamps).period
    if size > 1e11:  # since 1970
        return "ms" if size < 1e14 else "us" if size < 1e17 else "ns"
    if 0 < period < 1 / _UNSAID_RATE and size < 1e9:
        raise SourceError(
            f"EDA file {path}: the times in '{name}' are {period:.4g} apart, {1 / period:.4g} samples a second if they "
            "are seconds; say what they are by FILE?time=s, time=min or time=h"
        )
    if period < 1.0 or (size > 1e9 and period <= 1.0):
        return "s"
    for low, high, unit in ((5, 300, "ms"), (1000, 1e5, "us"), (1e6, 1e8, "ns")):
        if low <= period <= high:
            return unit
    raise SourceError(
        f"EDA file {path}: the times in '{name}' are {period:.6g} apart, in seconds, milliseconds or microseconds; say "
        "which by FILE?time=s, time=ms or time=us"
    )


def refuse_implausible_rate(path: Path, name: str, t: F64, unit: str) -> None:
    if len(t) < ENOUGH:
        return
    found = spacing(t)
    if found.period <= 0:
        raise SourceError(
            f"EDA file {path}: the times in '{name}' do not advance; give the sampling rate by FILE?rate=HZ, or, if "
            "they are values with decimal commas, decimal=,"
        )
    if found.starts is not None and (apart := _burst_length(t, found.starts)) > LONGEST_BURST:
        raise SourceError(
            f"EDA file {path}: the times in '{name}', read as {unit}, change every {apart:.4g} s only; give the "
            "sampling rate by FILE?rate=HZ, or the unit by FILE?time=ms or time=us"
        )
    rate = 1.0 / found.period
    if _MIN_RATE <= rate <= _MAX_RATE:
        return
    since_1970 = 1e9 < float(np.median(np.abs(t))) < 1e11  # so the unit is right
    fits = (u for u in ("s", "ms", "us", "ns") if _MIN_RATE * 3 <= rate * SECONDS[unit] / SECONDS[u] <= 4000)
    likely = "" if since_1970 else next(fits, "")
    hint = f"write FILE?time={likely} if they are in {likely}, or give" if likely and likely != unit else "give"
    raise SourceError(
        f"EDA file {path}: the times in '{name}', read as {unit}, give {rate:.4g} samples a second, which no "
        f"EDA sensor has; {hint} the rate by FILE?rate=HZ"
    )


def _burst_length(t: F64, starts: NDArray[np.int64]) -> float:
    apart = np.diff(t[starts])
    return float(np.median(apart[apart > 0]))
