"""EDA recordings as (times, µS): CSV with a header, OpenSignals text, Empatica CSV, BioVid's `_bio.csv`; also gzipped.

| kind | how it is known | times | values |
|---|---|---|---|
| OpenSignals | first line `# OpenSignals` | row and gaps of the sequence number / rate | ADC by the sensor's formula |
| BioVid | tab-separated header with `time` and `gsr` | µs | µS |
| Empatica | rows: unix start, rate, then one number a row | row / rate | µS |
| CSV | header with a time column (`t`, `t_ms`, ...) and a value column (`uS`, `eda`, ...) | by its unit | µS |
| numbers | one number a row, `?rate=HZ` in the specification | row / rate | µS |

A blank or `nan` value is NaN: no data. Rows whose time does not advance are left out and counted as lost.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from .tables import number_rows, read_lines
from .units import opensignals_us

F64 = NDArray[np.float64]

_TIME_SCALE = {
    "t": 1.0, "t_s": 1.0, "time": 1.0, "time_s": 1.0, "timestamp": 1.0, "seconds": 1.0, "s": 1.0,
    "t_ms": 1e-3, "time_ms": 1e-3, "timestamp_ms": 1e-3, "ms": 1e-3, "arduino_ts": 1e-3,
    "t_us": 1e-6, "time_us": 1e-6,
}  # fmt: skip
_VALUE_NAMES = ("us", "µs", "μs", "eda", "eda_us", "eda_µs", "eda_microsiemens", "gsr", "gsr_us", "scl", "microsiemens")
_MILLIS_WRAP = 2.0**32 * 1e-3  # s: an Arduino's millis()


@dataclass(frozen=True)
class EdaRecording:
    """times: (n,) seconds from the first sample, increasing; values: (n,) µS or NaN; rows: (n,) of the file, from 1;
    rate: nominal Hz, 0 if unknown."""

    times: F64
    values: F64
    rows: NDArray[np.int64]
    rate: float
    kind: str
    lost: int = 0


def read_eda_file(
    path: Path, rate: float | None = None, column: str | None = None, *, strict: bool = False
) -> EdaRecording:
    """Read any of the formats above. `column` names the value column of a CSV.

    strict: every row must hold a number and advance in time, as training demands of its data sets. Raises SourceError,
    one sentence naming the file and where possible the row.
    """
    try:
        lines = read_lines(path)
    except UnicodeDecodeError:
        raise SourceError(
            f"EDA file {path} is not a readable text file; give a CSV, an OpenSignals .txt or an Empatica EDA.csv"
        ) from None
    except OSError as error:
        raise SourceError(f"cannot read the EDA file {path} ({error.strerror or error}); give another file") from None
    if lines and lines[0].startswith("# OpenSignals"):
        found = _opensignals(path, lines)
    elif rate is not None and _number_rows(lines[:1]):
        found = _numbers(path, lines, 0, rate, "numbers")
    elif _is_empatica(lines):
        found = _numbers(path, lines, 2, float(lines[1].split(",")[0]), "empatica")
    else:
        found = _table(path, lines, column)
    if strict:
        _demand_every_row(path, lines, found)
    found = _advancing(found)
    if not np.isfinite(found.values).any():
        raise SourceError(
            f"EDA file {path} holds no valid number; check the file or the electrode it was recorded with"
        )
    return found


def _demand_every_row(path: Path, lines: list[str], found: EdaRecording) -> None:
    wrong = np.flatnonzero(~np.isfinite(found.values) | ~np.isfinite(found.times))
    back = np.flatnonzero(np.diff(found.times) <= 0) + 1
    last = max(row for row, line in enumerate(lines, 1) if line.strip())
    for rows, what in (
        (found.rows[wrong], "the skin conductance or its time is not a number"),
        (found.rows[back], "time does not increase"),
        ([last] if found.rows[-1] < last else [], "the row was cut off"),
    ):
        if len(rows):
            raise SourceError(f"EDA file {path} row {rows[0]}: {what}; correct or drop the file")


def _number_rows(lines: list[str]) -> bool:
    return bool(lines) and all(re.fullmatch(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\s*", line, re.IGNORECASE) for line in lines)


def _is_empatica(lines: list[str]) -> bool:
    """A unix time (after 2001), a rate a wearable can have, a number."""
    first = [line.split(",")[0] for line in lines[:3]]
    return len(first) == 3 and _number_rows(first) and float(first[0]) > 1e9 and 0 < float(first[1]) <= 2000


def _array(
    path: Path, lines: list[str], start: int, sep: str | None, columns: list[int], width: int = 0
) -> tuple[NDArray[np.int64], F64]:
    """The rows from index `start` on, counted from 1, and their numbers in `columns` (n, columns); a last row that was
    cut off is left out."""
    rows, table = [], []
    for row, numbers in number_rows(lines, start, sep, columns, max(width, 1 + max(columns))):
        if numbers is not None:
            rows.append(row)
            table.append(numbers)
        elif row < len(lines):
            raise SourceError(
                f"EDA file {path} row {row}: '{lines[row - 1][:40]}' is not numbers; give a CSV, an OpenSignals .txt "
                "or an Empatica EDA.csv"
            )
    if not rows:
        raise SourceError(f"EDA file {path} holds no samples; record it again or give another file")
    return np.array(rows), np.array(table)


def _numbers(path: Path, lines: list[str], start: int, rate: float, kind: str) -> EdaRecording:
    rows, table = _array(path, lines, start, ",", [0])
    return EdaRecording(np.arange(len(rows)) / rate, table[:, 0], rows, rate, kind)


def _table(path: Path, lines: list[str], column: str | None) -> EdaRecording:
    header = lines[0] if lines else ""
    sep = "\t" if "\t" in header else ";" if ";" in header else ","
    names = [name.strip().strip('"').lower() for name in header.split(sep)]
    biovid = sep == "\t" and "time" in names and "gsr" in names
    wanted = (column.lower(),) if column else _VALUE_NAMES
    time = next((i for i, name in enumerate(names) if name in _TIME_SCALE), None)
    value = next((i for i, name in enumerate(names) if name in wanted and i != time), None)
    if time is None or value is None:
        names_sought = "' or '".join(wanted[:4])
        lacking = "time column (t, t_ms, time_us)" if time is None else f"column '{names_sought}'"
        raise SourceError(
            f"EDA file {path} row 1: no {lacking} in the header ('{header[:60]}'); add a header such as `t_ms,uS`, or "
            "write FILE?rate=HZ for one number a row"
        )
    # a cut-off row's last cell would pass for a number; other tables may leave trailing cells out
    rows, table = _array(path, lines, 1, sep, [time, value], len(names) if biovid else 0)
    t = table[:, 0] * (1e-6 if biovid else _TIME_SCALE[names[time]])
    if names[time] == "t_ms":
        t = t + _MILLIS_WRAP * np.cumsum(np.diff(t, prepend=t[0]) < -_MILLIS_WRAP / 2)
    first = t[np.argmax(np.isfinite(t))]
    return EdaRecording(t - first, table[:, 1], rows, 0.0, "biovid" if biovid else "csv")


def _opensignals(path: Path, lines: list[str]) -> EdaRecording:
    try:
        devices = json.loads(lines[1].lstrip("# "))
        body = next(i for i, line in enumerate(lines[:100]) if line.startswith("# EndOfHeader")) + 1
        for device in devices.values():
            for sensor, label in zip(device["sensor"], device["label"]):
                if sensor in ("EDABITREV", "EDABIT"):
                    columns = device["column"]
                    index = columns.index(label)
                    bits = int(device["resolution"][index])
                    seq_bits = int(device["resolution"][0]) if columns[0] == "nSeq" else 0
                    rate = float(device["sampling rate"])
                    break
            else:
                continue
            break
        else:
            seen = ", ".join(str(s) for device in devices.values() for s in device["sensor"])
            raise SourceError(
                f"OpenSignals file {path} has no EDABITREV or EDABIT channel (it has {seen or 'none'}); give µS as CSV"
            )
        if rate <= 0:
            raise ValueError("sampling rate")
    except (KeyError, IndexError, ValueError, StopIteration, AttributeError, TypeError) as error:
        raise SourceError(f"OpenSignals file {path} has a damaged header ({error!r}); export it again") from None
    rows, table = _array(path, lines, body, None, [0, index])
    n = np.arange(len(rows), dtype=np.float64)
    lost = 0
    if seq_bits and np.any(np.diff(table[:, 0])):
        step = np.diff(table[:, 0]) % 2**seq_bits
        step[step == 0] = 1  # a repeated number: the row itself is the only witness
        n = np.concatenate([[0.0], np.cumsum(step)])
        lost = int((step - 1).sum())
    return EdaRecording(n / rate, opensignals_us(table[:, 1], bits, sensor), rows, rate, "opensignals", lost)


def _advancing(found: EdaRecording) -> EdaRecording:
    """`found` without rows that stand still or go back in time."""
    t = np.where(np.isfinite(found.times), found.times, -np.inf)
    kept = np.ones(len(t), bool)
    kept[1:] = t[1:] > np.maximum.accumulate(t)[:-1]
    kept &= np.isfinite(t)
    lost = found.lost + int((~kept).sum())
    return replace(found, times=found.times[kept], values=found.values[kept], rows=found.rows[kept], lost=lost)
