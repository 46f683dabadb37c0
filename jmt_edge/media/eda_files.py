"""EDA recordings as (times, µS): delimited text, OpenSignals text, Empatica CSV, BioVid's `_bio.csv`; also gzipped.

| kind | how it is known | times | values |
|---|---|---|---|
| OpenSignals | first line `# OpenSignals` | row and gaps of the sequence number / rate, or its seconds | by the sensor's formula |
| BioVid | tab-separated header with `time`, `gsr` and `ecg` or `emg...` | µs | µS |
| Empatica | rows: unix start, rate, then one number a row | row / rate | µS |
| PhysioKit | header with `arduino_ts` | ms | the board's counts (a.u.), unless `unit=` is given |
| CSV | a header, or two numbers a row | by its unit, or by what makes sense | by its unit, or refused |
| numbers | one number a row, `?rate=HZ` in the specification | row / rate | as for CSV |

Delimiters, decimal commas, quotes, comments, NA, ISO times, cp1252 and UTF-16 are understood. A blank, `nan` or `NA`
value is NaN: no data. What could be read in two ways is refused, with the setting that decides. Rows that cannot be
used are left out and counted; `EdaRecording.notes` says what was done.
"""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from .eda_times import LONGEST_BURST, respaced, spacing, straighten
from .tables import text_lines
from .units import UNITS, Conversion, known_unit, opensignals_us

F64 = NDArray[np.float64]

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_TIME_UNITS = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "ms": "ms", "msec": "ms", "millis": "ms",
    "milliseconds": "ms", "us": "us", "µs": "us", "μs": "us", "usec": "us", "micros": "us", "microseconds": "us",
    "ns": "ns", "nanoseconds": "ns",
}  # fmt: skip
_TIME_NAMES = {
    "t": "", "time": "", "timestamp": "", "timestamps": "", "datetime": "", "t_s": "s", "time_s": "s", "seconds": "s",
    "s": "s", "t_ms": "ms", "time_ms": "ms", "timestamp_ms": "ms", "ms": "ms", "arduino_ts": "ms", "millis": "ms",
    "t_us": "us", "time_us": "us", "timestamp_us": "us", "micros": "us", "t_ns": "ns", "time_ns": "ns",
}  # fmt: skip
_VALUE_NAMES = {
    "us": "uS", "µs": "uS", "μs": "uS", "eda": "", "eda_us": "uS", "eda_µs": "uS", "eda_microsiemens": "uS", "gsr": "",
    "gsr_us": "uS", "scl": "", "microsiemens": "uS",
}  # fmt: skip
_MISSING = {"", "na", "n/a", "nan", "null", "none", "-", "--", "?"}
_SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": None, "pipe": "|"}
_WRAP = {"ms": 2.0**32 * 1e-3, "us": 2.0**32 * 1e-6}  # s: an Arduino's millis() and micros()
_MAX_RATE, _MIN_RATE = 10_000.0, 0.3  # Hz of any EDA device
_MAX_BAD = 0.1  # share of rows that are not numbers; with more the file is not what it seems
_MAX_DROPPED = 0.5  # share of rows whose time cannot be used
_USUAL = (1.0, 25.0)  # µS: where the median of a column without a unit lies if it is µS
_ENOUGH = 10  # samples from which a rate or a distribution means something
_DROPS = ("rows without a time", "wild stamps", "repeated stamps")
_HEAD = 64  # lines that are looked at before the file is read
_MAGIC = {
    b"\x89HDF": "an HDF5 file (OpenSignals .h5, MATLAB 7.3); export it as text",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; unpack it, or save it as CSV",
    b"Obj\x01": "an Avro file (Empatica EmbracePlus); export its EDA as CSV",
    b"XDF:": "an XDF file; export its EDA stream as CSV",
    b"MATLAB": "a MATLAB file; export its EDA as CSV",
    b"0       ": "an EDF file; export its EDA as CSV",
    b"%PDF": "a PDF; give the recording itself",
}


@dataclass(frozen=True)
class Asked:
    """What a specification says about a file. time: a column, a unit of time (s, ms, us, ns), or COLUMN:UNIT."""

    rate: float | None = None
    column: str | None = None
    time: str | None = None
    sep: str | None = None
    decimal: str | None = None
    unit: Conversion | None = None


@dataclass(frozen=True)
class EdaRecording:
    """times: (n,) seconds from the first sample, increasing; values: (n,) µS or NaN; rows: (n,) of the file, from 1;
    rate: nominal Hz, 0 if unknown. unit: `µS`, or `a.u.` where values are counts. column: what was read.

    lost: samples missing or left out, of which `counts` says why. altered: samples whose time was moved. notes: each
    thing that was done to the file, in words.
    """

    times: F64
    values: F64
    rows: NDArray[np.int64]
    rate: float
    kind: str
    lost: int = 0
    unit: str = "µS"
    column: str = ""
    altered: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def measured_rate(self) -> float:
        """Samples a second, gaps left out; 0 where there are too few."""
        period = spacing(self.times).period if len(self.times) > 1 else 0.0
        return 1.0 / period if period > 0 else 0.0


def read_eda_file(
    path: Path,
    asked: Asked | None = None,
    *,
    rate: float | None = None,
    column: str | None = None,
    strict: bool = False,
) -> EdaRecording:
    """Read any of the formats above as `asked`; `rate` and `column` are short for an `Asked` of those two.

    strict: every row must hold a number and advance in time, as training demands of its data sets. Raises SourceError,
    one sentence naming the file and where possible the row.
    """
    asked = asked or Asked(rate, column)
    try:
        _refuse_binary(path)
        lines = text_lines(path)
        head = list(islice(lines, _HEAD))
        body = _Body(path, head, chain(head, lines), strict)
        if head and head[0].startswith("# OpenSignals"):
            found = _opensignals(body, asked)
        else:
            found = _delimited(body, asked)
    except UnicodeError:
        raise SourceError(
            f"EDA file {path} is not a readable text file; give a CSV, an OpenSignals .txt or an Empatica EDA.csv"
        ) from None
    except OSError as error:
        raise SourceError(f"cannot read the EDA file {path} ({error.strerror or error}); give another file") from None
    if strict:
        _demand_every_row(path, body.last, found)
    found = _straightened(body, found)
    if not np.isfinite(found.values).any():
        raise SourceError(
            f"EDA file {path} holds no valid number; check the file or the electrode it was recorded with"
        )
    return found


def _refuse_binary(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            raise SourceError(f"EDA file {path} is {what}")


def _demand_every_row(path: Path, last: int, found: EdaRecording) -> None:
    wrong = np.flatnonzero(~np.isfinite(found.values) | ~np.isfinite(found.times))
    back = np.flatnonzero(np.diff(found.times) <= 0) + 1
    for rows, what in (
        (found.rows[wrong], "the skin conductance or its time is not a number"),
        (found.rows[back], "time does not increase"),
        ([last] if found.rows[-1] < last else [], "the row was cut off"),
    ):
        if len(rows):
            raise SourceError(f"EDA file {path} row {rows[0]}: {what}; correct or drop the file")


# ---- rows of numbers -----------------------------------------------------------------------------------------------


@dataclass
class _Body:
    """The lines of one file, and what became of them. last: the last row that is not blank."""

    path: Path
    head: list[str]
    lines: Iterator[str]
    strict: bool
    last: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def table(self, start: int, sep: str | None, decimal: str, columns: list[int], width: int, header: str = "") -> tuple[NDArray[np.int64], list[F64]]:  # fmt: skip
        """The rows from index `start` on, counted from 1, and the numbers in `columns`, each (n,).

        Rows that are not numbers are counted; the last one, which may have been cut off, is left out in silence.
        Raises SourceError where strict, and where more than a share of them is not numbers.
        """
        rows = array("q")
        table = [array("d") for _ in columns]
        width = max(width, 1 + max(columns))
        wrong: list[tuple[int, str]] = []
        bad = 0
        for row, line in enumerate(islice(self.lines, start, None), start + 1):
            cells = line.split(sep)
            try:
                if len(cells) < width:
                    raise ValueError
                numbers = [float(cells[c]) for c in columns]
            except ValueError:
                found = self._slow(line, sep, decimal, columns, width, header)
                if found is None:
                    continue
                self.last = row
                if not found:
                    bad += 1
                    wrong = [*wrong[:1], (row, line[:40])]
                    if self.strict and bad > 1:
                        break
                    continue
                numbers = found
            self.last = row
            rows.append(row)
            for cell, out in zip(numbers, table):
                out.append(cell)
        cut_off = bool(wrong) and wrong[-1][0] == self.last
        bad -= cut_off
        if bad and (self.strict or bad > _MAX_BAD * (len(rows) + bad)):
            row, text = wrong[0]
            raise SourceError(
                f"EDA file {self.path} row {row}: '{text}' is not numbers; give a CSV, an OpenSignals .txt "
                "or an Empatica EDA.csv"
            )
        if cut_off:
            self.notes.append(f"row {self.last}: the last row was cut off and is left out")
        if self.counts["repeated headers"]:
            self.notes.append(f"the header is repeated {self.counts['repeated headers']} times (the board restarted)")
        if bad:
            self.counts["bad rows"] += bad
            self.notes.append(f"row {wrong[0][0]}: '{wrong[0][1]}' is not numbers; such rows are dropped")
        if not rows:
            raise SourceError(f"EDA file {self.path} holds no samples; record it again or give another file")
        return np.frombuffer(rows, np.int64), [np.frombuffer(out) for out in table]

    def _slow(self, line: str, sep: str | None, decimal: str, columns: list[int], width: int, header: str) -> list[float] | None:  # fmt: skip
        """A row that is not plain numbers: None where it is to be skipped, [] where it is wrong."""
        if not line.strip() or _is_comment(line):
            return None
        cells = split_cells(line, sep)
        if not any(cells):
            return None
        if header and not self.strict and _plain(line) == header:
            self.counts["repeated headers"] += 1
            return None
        if len(cells) < width:
            return []
        try:
            return [parse_cell(cells[c], decimal) for c in columns]
        except ValueError:
            return []


def split_cells(line: str, sep: str | None) -> list[str]:
    """The cells of a row, without quotes and surrounding spaces; `sep` None: any white space."""
    if '"' in line and sep:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=sep, skipinitialspace=True))]
    return [cell.strip().strip('"').strip() for cell in line.split(sep)]


_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))? ?(Z|[+-]\d\d:?\d\d)?")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d):(\d\d)(?:[.,](\d+))?")


def parse_cell(text: str, decimal: str) -> float:
    """The number, or the time in seconds, that a cell holds; NaN where it is missing. Raises ValueError."""
    if text.lower() in _MISSING:
        return float("nan")
    if found := _ISO.fullmatch(text):
        day, clock, fraction, zone = found.groups()
        zone = "+00:00" if zone in (None, "Z") else zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
        whole = datetime.fromisoformat(f"{day}T{clock}{zone}").astimezone(timezone.utc).timestamp()
        return whole + float(f"0.{fraction or 0}")
    if found := _CLOCK.fullmatch(text):
        hour, minute, second, fraction = found.groups()
        return 3600.0 * int(hour) + 60.0 * int(minute) + int(second) + float(f"0.{fraction or 0}")
    if decimal == "," and "." not in text:
        text = text.replace(",", ".", 1)
    return float(text)


def _is_number(text: str, decimal: str = ".") -> bool:
    try:
        parse_cell(text, decimal)
    except ValueError:
        return False
    return True


def _is_comment(line: str) -> bool:
    return line.lstrip(' "').startswith(("#", "%", "//"))


def _plain(line: str) -> str:
    return line.replace('"', "").replace(" ", "").strip().lower()


# ---- delimited text ------------------------------------------------------------------------------------------------


def _delimited(body: _Body, asked: Asked) -> EdaRecording:
    path, head = body.path, body.head
    sep, start = _declared_separator(asked, head)
    comment = ""
    while start < len(head) and (not head[start].strip() or _is_comment(head[start])):
        comment = head[start] if head[start].strip() else comment
        start += 1
    sample = [line for line in head[start:] if line.strip() and not _is_comment(line)]
    if not sample:
        what = "in the header; add a header such as `t_ms,uS`, or" if head else "in it;"
        raise SourceError(f"EDA file {path} row 1: no column {what} write FILE?rate=HZ for one number a row")
    if sep == "":
        sep = _separator(sample)
    decimal = asked.decimal or _decimal(sample, sep)
    if decimal not in (".", ","):
        raise SourceError(f"EDA file {path}: decimal is '{decimal}'; write decimal=. or decimal=,")
    if empatica := _empatica(body, sample, start, asked, decimal):
        return empatica
    if sep == "," and decimal == ",":
        sep = "\t"  # one number a row
    cells = split_cells(sample[0], sep)
    headless = all(_is_number(cell, decimal) for cell in cells)
    if asked.rate is not None and headless and len([c for c in cells if c]) == 1:
        rows, (values,) = body.table(start, sep or ",", decimal, [0], 0)
        values, unit = _microsiemens(body, values, "", "column 1", asked)
        return EdaRecording(np.arange(len(rows)) / asked.rate, values, rows, asked.rate, "numbers", 0, unit, "1")
    if headless and comment:
        names = split_cells(comment.lstrip(' "#%/'), sep)
        if len(names) == len(cells) and not all(_is_number(name, decimal) for name in names):
            return _table(body, names, start, sep, decimal, asked, "")
    if headless:
        return _table(body, [], start, sep, decimal, asked, "")
    return _table(body, cells, start + 1, sep, decimal, asked, sample[0])


def _declared_separator(asked: Asked, head: list[str]) -> tuple[str | None, int]:
    """(the separator, "" where none is declared; the index of the first line after a `sep=` line)."""
    start, declared = 0, ""
    if head and (found := re.fullmatch(r'"?sep=(\\t|.)"?', head[0].strip(" \r"), re.IGNORECASE)):
        start, declared = 1, found[1]
    wanted = asked.sep if asked.sep is not None else declared
    if wanted == "":
        return "", start
    known = _SEPARATORS.get(wanted.lower(), wanted)
    if known is not None and len(known) != 1:
        raise SourceError(f"sep is '{wanted}'; give one character, or tab, comma, semicolon, space or pipe")
    return None if known == " " else known, start


def _separator(sample: list[str]) -> str | None:
    first = sample[0]
    found = next((s for s in ("\t", ";", "|") if s in first), "")
    if found:
        return found
    if "," in first:
        return ","
    return None if len(first.split()) > 1 else ","


def _decimal(sample: list[str], sep: str | None) -> str:
    """The decimal sign of the first rows; a comma between two numbers without any point is a decimal comma where
    another sign separates the cells, or where a file of one number a row says so by its first rows."""
    rows = sample[1:] or sample
    if sep != ",":
        cells = [cell for line in rows for cell in split_cells(line, sep)]
        commas = any(re.fullmatch(r"[-+]?\d*,\d+", cell) for cell in cells)
        return "," if commas and not any("." in cell and _is_number(cell) for cell in cells) else "."
    alone = [line.strip().strip('"') for line in sample[:3]]
    start = [re.fullmatch(r"\d+,0+", line) for line in alone[:2]]
    return "," if len(alone) == 3 and all(start) and re.fullmatch(r"-?\d+,\d+", alone[2]) else "."


def _empatica(body: _Body, sample: list[str], start: int, asked: Asked, decimal: str) -> EdaRecording | None:
    """A unix time (after 2001), a rate a wearable can have, a number; None where it is not that."""
    path = body.path
    first = [re.split(",|;|\t", line) if decimal == "." else [line] for line in sample[:3]]
    if asked.sep is not None and asked.sep not in (",", "comma"):
        return None
    if len(first) < 2 or not _is_number(first[0][0].strip(), decimal):
        return None
    begin = parse_cell(first[0][0].strip(), decimal)
    if not 1e9 < begin < 1e11:
        return None
    if len(first[0]) == 2 and first[0][1].strip().lower() == "ibi":
        raise SourceError(f"EDA file {path} is an Empatica IBI.csv (heart beats), not EDA; give its EDA.csv")
    if not _is_number(first[1][0].strip(), decimal):
        return None
    rate = parse_cell(first[1][0].strip(), decimal)
    if not 0 < rate <= 2000 or len(first) < 3 or not _is_number(first[2][0].strip(), decimal):
        return None
    if len(first[0]) > 1:
        if len({len(cells) for cells in first}) == 1 and len({*(c.strip() for c in first[0])}) == 1:
            raise SourceError(
                f"EDA file {path} is an Empatica file of {len(first[0])} columns (ACC.csv, acceleration), not EDA; give "
                "its EDA.csv"
            )
        return None
    name = path.name.upper()
    for other, what in (("TEMP", "temperature"), ("BVP", "blood volume pulse"), ("HR", "heart rate"), ("ACC", "acceleration")):  # fmt: skip
        if re.match(rf"(.*[_-])?{other}\.", name) and asked.unit is None:
            raise SourceError(f"EDA file {path} is an Empatica {other}.csv ({what}), not EDA; give its EDA.csv")
    rows, (values,) = body.table(start + 2, "\t" if decimal == "," else ",", decimal, [0], 0)
    if asked.unit is None:
        finite = values[np.isfinite(values)]
        if len(finite) and (np.median(finite) > _USUAL[1] or (finite < -0.1).mean() > 0.02):
            raise SourceError(
                f"EDA file {path} looks like another signal of an Empatica (values around {np.median(finite):.4g}: "
                "temperature, heart rate or blood volume pulse); give its EDA.csv, or write FILE?unit=uS if it is EDA"
            )
    else:
        values, _ = _microsiemens(body, values, "", "column 1", asked)
    if decimal == ",":
        body.notes.append("numbers have decimal commas")
    return EdaRecording(np.arange(len(rows)) / rate, values, rows, rate, "empatica", 0, "µS", "1")


@dataclass(frozen=True)
class _Column:
    index: int
    name: str
    unit: str  # "" where the header does not say


def _table(
    body: _Body, names: list[str], start: int, sep: str | None, decimal: str, asked: Asked, header: str
) -> EdaRecording:
    path, head = body.path, body.head
    lower = [name.strip().lower() for name in names]
    units = [""] * len(names)
    if names and start < len(head):
        cells = split_cells(head[start], sep)
        # a second header row with units, as in Shimmer's exports
        if sum(c.lower() in _TIME_UNITS or known_unit(c) != "" for c in cells) >= 2 and not any(
            _is_number(c, decimal) and c for c in cells
        ):
            units, start = [*cells, *units][: len(names)], start + 1
    if not names:
        width = max(len(split_cells(line, sep)) for line in head[start : start + 1])
        lower = [str(i + 1) for i in range(width)]
        units = [""] * width
    biovid = (
        sep == "\t"
        and "time" in lower
        and "gsr" in lower
        and (body.strict or any(n.startswith(("ecg", "emg")) for n in lower))
    )
    time = _time_column(body, lower, units, asked)
    value = _value_column(body, names, lower, units, time, asked)
    if time is None and asked.rate is None or value is None:
        _say_what_is_missing(path, names, lower, time, asked, header or (head[start] if start < len(head) else ""))
    assert value is not None
    if len(lower) > 1 and sep == "," and _decimal_commas_between(head[start:], len(lower)):
        raise SourceError(
            f"EDA file {path} has decimal commas in a table that commas separate; export it with `;` or tabs between "
            "the columns"
        )
    # a cut-off row's last cell would pass for a number; other tables may leave trailing cells out
    columns = [value.index] if time is None else [time.index, value.index]
    rows, table = body.table(
        start, sep, decimal, columns, len(names) if biovid else 0, _plain(header) if header else ""
    )
    physiokit = "arduino_ts" in lower
    values, unit = _microsiemens(body, table[-1], "uS" if biovid else value.unit, value.name, asked, counts=physiokit)
    kind = "biovid" if biovid else "physiokit" if physiokit else "csv"
    if decimal == ",":
        body.notes.append("numbers have decimal commas")
    if time is None or asked.rate is not None:
        assert asked.rate is not None
        return EdaRecording(np.arange(len(rows)) / asked.rate, values, rows, asked.rate, kind, 0, unit, value.name)
    iso = ":" in split_cells(head[start], sep)[time.index] if start < len(head) else False
    stamps = table[0]
    scale = "s" if iso else "us" if biovid and not time.unit else time.unit
    kept = np.isfinite(stamps)
    if not scale:
        scale = _guessed_unit(path, time.name, stamps[kept] if not kept.all() else stamps)
        if scale != "s":
            body.notes.append(f"the times in '{time.name}' are taken as {scale}")
    t = stamps * SECONDS[scale]
    if scale in _WRAP and lower[time.index] in _TIME_NAMES:
        t = t + _WRAP[scale] * np.cumsum(np.diff(t, prepend=t[0]) < -_WRAP[scale] / 2)
    _refuse_implausible_rate(path, time.name, t[kept] if not kept.all() else t, scale)
    return EdaRecording(t, values, rows, 0.0, kind, 0, unit, value.name)


def _decimal_commas_between(lines: list[str], width: int) -> bool:
    rows = [line.rstrip(", ").split(",") for line in lines[:20] if line.strip()]
    return bool(rows) and all(
        len(row) == 2 * width and all(re.fullmatch(r"-?\d+", c.strip()) for c in row) for row in rows
    )


def _with_unit(name: str) -> tuple[str, str]:
    """A column's name -> (name without its unit, the unit as it is written): `EDA [µS]`, `gsr (kOhm)`, `eda_uS`."""
    if found := re.fullmatch(r"(.*?)[\s_]*[\[(]\s*([^\])]+?)\s*[\])]", name):
        return found[1].strip(), found[2]
    base, _, last = name.rpartition("_")
    return (base, last) if base and (known_unit(last) or last in _TIME_UNITS) else (name, "")


def _time_column(body: _Body, lower: list[str], units: list[str], asked: Asked) -> _Column | None:
    wanted, unit = "", ""
    if asked.time is not None:
        wanted, _, unit = asked.time.rpartition(":")
        if not wanted and unit.lower() in _TIME_UNITS and unit.lower() not in lower:
            wanted = ""
        elif not wanted or unit.lower() not in _TIME_UNITS:
            wanted, unit = asked.time, ""
        unit = _TIME_UNITS.get(unit.lower(), "")
    if wanted:
        index = _index(wanted, lower)
        if index is None:
            raise SourceError(f"EDA file {body.path} has no column '{wanted}' for time=; it has {', '.join(lower)}")
        return _Column(index, wanted, unit or _stated_time_unit(lower[index], units[index]))
    for i, name in enumerate(lower):
        if name in _TIME_NAMES:
            return _Column(i, name, unit or _stated_time_unit(name, units[i]))
    for i, name in enumerate(lower):
        base, _ = _with_unit(name)
        if re.search(r"(^|[\s_])(time|timestamp|timestamps)([\s_]|$)", base):
            return _Column(i, name, unit or _stated_time_unit(name, units[i]))
    if lower and lower[0] == "1" and len(lower) >= 2:
        return _Column(0, "column 1", unit)
    return None


def _stated_time_unit(name: str, below: str) -> str:
    if below.lower() in _TIME_UNITS:
        return _TIME_UNITS[below.lower()]
    if name in _TIME_NAMES:
        return _TIME_NAMES[name]
    return _TIME_UNITS.get(_with_unit(name)[1].lower(), "")


def _index(wanted: str, lower: list[str]) -> int | None:
    """Where a column is: by its name, or by its number from 1 on."""
    if wanted.strip().lower() in lower:
        return lower.index(wanted.strip().lower())
    return int(wanted) - 1 if wanted.isdecimal() and 1 <= int(wanted) <= len(lower) else None


def _value_column(body: _Body, names: list[str], lower: list[str], units: list[str], time: _Column | None, asked: Asked) -> _Column | None:  # fmt: skip
    def stated(i: int) -> str:
        return known_unit(units[i]) or _VALUE_NAMES.get(lower[i], "") or known_unit(_with_unit(lower[i])[1])

    at = time.index if time else -1
    if asked.column is not None:
        index = _index(asked.column, lower)
        return None if index is None or index == at else _Column(index, lower[index], stated(index))
    if not names:
        return _Column(1, "column 2", "") if len(lower) == 2 and at == 0 else None
    for i, name in enumerate(lower):
        if name in _VALUE_NAMES and i != at:
            return _Column(i, name, stated(i))
    fuzzy = [
        i for i, name in enumerate(lower)
        if i != at and re.search(r"conductance|(^|[\s_(])(eda|gsr|scl)([\s_)\[(]|$)", name) and "range" not in name
        and "raw" not in name
    ]  # fmt: skip
    fuzzy.sort(key=lambda i: (stated(i) != "uS", "conductance" not in lower[i]))
    return _Column(fuzzy[0], lower[fuzzy[0]], stated(fuzzy[0])) if fuzzy else None


def _say_what_is_missing(
    path: Path, names: list[str], lower: list[str], time: _Column | None, asked: Asked, line: str
) -> None:
    if not names:
        raise SourceError(
            f"EDA file {path} row 1: '{line[:60]}' is not a header, and no column is named; add a header such as "
            "`t_ms,uS`, write FILE?rate=HZ for one number a row, or FILE?time=1&column=3 by the columns' numbers"
        )
    sought = "' or '".join((asked.column.lower(),) if asked.column else list(_VALUE_NAMES)[:4])
    lacking = "time column (t, t_ms, time_us)" if time is None and asked.rate is None else f"column '{sought}'"
    raise SourceError(
        f"EDA file {path} row 1: no {lacking} in the header ('{line[:60]}'); add a header such as `t_ms,uS`, name the "
        "columns by FILE?time=NAME&column=NAME, or write FILE?rate=HZ for one number a row"
    )


def _guessed_unit(path: Path, name: str, stamps: F64) -> str:
    """The unit of times whose header does not say. Raises SourceError where two units would make sense."""
    if len(stamps) < _ENOUGH:
        return "s"
    size, period = float(np.median(np.abs(stamps))), spacing(stamps).period
    if size > 1e11:  # since 1970
        return "ms" if size < 1e14 else "us" if size < 1e17 else "ns"
    if period < 1.0 or size > 1e9 and period <= 1.0:
        return "s"
    for low, high, unit in ((5, 300, "ms"), (1000, 1e5, "us"), (1e6, 1e8, "ns")):
        if low <= period <= high:
            return unit
    raise SourceError(
        f"EDA file {path}: the times in '{name}' are {period:.6g} apart, in seconds, milliseconds or microseconds; say "
        "which by FILE?time=s, time=ms or time=us"
    )


def _refuse_implausible_rate(path: Path, name: str, t: F64, unit: str) -> None:
    if len(t) < _ENOUGH:
        return
    found = spacing(t)
    if found.period <= 0:
        if float(np.ptp(t)) == 0 or found.starts is None:
            raise SourceError(
                f"EDA file {path}: the times in '{name}' do not advance; give the sampling rate by FILE?rate=HZ"
            )
        return
    rate = 1.0 / found.period
    if _MIN_RATE <= rate <= _MAX_RATE and (found.starts is None or _burst_length(t, found.starts) <= LONGEST_BURST):
        return
    likely = next((u for u in SECONDS if _MIN_RATE * 3 <= rate * SECONDS[unit] / SECONDS[u] <= 4000), "s")
    raise SourceError(
        f"EDA file {path}: the times in '{name}', read as {unit}, give {rate:.4g} samples a second, which no EDA sensor "
        f"has; write FILE?time={likely} if they are {likely}, or give the rate by FILE?rate=HZ"
    )


def _burst_length(t: F64, starts: NDArray[np.int64]) -> float:
    apart = np.diff(t[starts])
    return float(np.median(apart[apart > 0]))


def _microsiemens(
    body: _Body, values: F64, stated: str, name: str, asked: Asked, *, counts: bool = False
) -> tuple[F64, str]:
    """(values in µS, `µS`), or as they are and `a.u.` for a format known to hold `counts`.

    Raises SourceError for a column without a unit that is not likely to be µS.
    """
    path = body.path
    if asked.unit is not None:
        conversion = asked.unit
    elif stated:
        conversion = Conversion(stated)
        if stated in ("V", "mV", "adc"):
            raise SourceError(
                f"EDA file {path}: '{name}' is in {stated}, and how that becomes µS depends on the sensor; write "
                f"FILE?unit={stated} with {'gain=' if stated != 'adc' else 'bits=, vcc= and gain='}"
            )
    elif counts:
        return values, "a.u."
    else:
        _refuse_unlikely(path, values, name)
        return values, "µS"
    finite = values[np.isfinite(values)]
    if conversion.unit == "adc" and len(finite) and finite.max() >= 2**conversion.bits:
        raise SourceError(
            f"EDA file {path}: '{name}' reaches {finite.max():g}, more than {conversion.bits} bits hold; write "
            f"FILE?unit=adc&bits={max(1, int(finite.max())).bit_length()}"
        )
    if conversion.unit != "uS":
        body.notes.append(f"'{name}' was converted from {conversion.unit} to µS")
    return conversion(values), "µS"


def _refuse_unlikely(path: Path, values: F64, name: str) -> None:
    finite = values[np.isfinite(values)]
    if len(finite) < _ENOUGH:
        return
    middle = float(np.median(finite))
    if np.all(finite == np.floor(finite)) and np.ptp(finite) > 0:
        what = "holds whole numbers only, like the counts of a converter"
    elif not _USUAL[0] <= middle <= _USUAL[1]:
        what = f"has no unit, and values around {middle:.4g} are unusual for µS"
    else:
        return
    raise SourceError(
        f"EDA file {path}: '{name}' {what}; say what it is by FILE?unit=uS, or one of {', '.join(UNITS[1:])}"
    )


# ---- OpenSignals ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Channel:
    device: str
    label: str
    sensor: str
    index: int  # of its column among all
    sequence: int  # index of its device's nSeq
    bits: int
    seq_bits: int  # 0 where the header does not say
    rate: float
    converted: bool


_EDA_SENSORS = ("EDABITREV", "EDABIT", "EDA")


def _opensignals(body: _Body, asked: Asked) -> EdaRecording:
    path, lines = body.path, body.head
    try:
        devices = json.loads(lines[1].lstrip("# "))
        start = next(i for i, line in enumerate(lines) if line.startswith("# EndOfHeader")) + 1
        channels, width = _opensignals_channels(devices)
    except (KeyError, IndexError, ValueError, StopIteration, AttributeError, TypeError) as error:
        raise SourceError(f"OpenSignals file {path} has a damaged header ({error!r}); export it again") from None
    channel = _chosen(path, devices, channels, asked.column)
    if asked.unit is not None:
        channel = replace(channel, converted=True)
    if start < len(lines):
        cells = len(lines[start].split())
        if cells != width and len(devices) > 1:
            raise SourceError(
                f"OpenSignals file {path} has {cells} columns and its header {width} for {len(devices)} devices; export "
                "each device by itself"
            )
    rows, (sequence, raw) = body.table(start, None, ".", [channel.sequence, channel.index], 0)
    n = np.arange(len(rows), dtype=np.float64)
    lost = 0
    if len(sequence) > 1 and np.any(sequence != np.floor(sequence)):
        step = np.diff(sequence)  # seconds
        times = sequence - sequence[0] if np.all(step > 0) else n / channel.rate
        lost = int(np.maximum(np.rint(step[step > 0] * channel.rate) - 1, 0).sum())
    else:
        if channel.sequence >= 0 and np.any(np.diff(sequence)):
            bits = channel.seq_bits or max(4, int(sequence.max()).bit_length())
            step = np.diff(sequence) % 2**bits
            step[step == 0] = 1  # a repeated number: the row itself is the only witness
            n = np.concatenate([[0.0], np.cumsum(step)])
            lost = int((step - 1).sum())
        times = n / channel.rate
    if asked.unit is not None:
        values, _ = _microsiemens(body, raw, "", channel.label, asked)
    elif channel.converted or np.any(raw[np.isfinite(raw)] != np.floor(raw[np.isfinite(raw)])):
        values = raw
        body.notes.append(f"the values of {channel.label} are in µS already")
    else:
        top = float(raw.max())
        if top >= 2**channel.bits:
            raise SourceError(
                f"OpenSignals file {path}: {channel.label} reaches {top:g}, more than the {channel.bits} bits of the "
                "header hold; say by FILE?unit=adc&bits=, or unit=uS, what it is"
            )
        values = opensignals_us(raw, channel.bits, channel.sensor)
    if not np.isfinite(values).any() and len(channels) > 1:
        others = ", ".join(c.label for c in channels if c is not channel and c.label != channel.label)
        raise SourceError(
            f"OpenSignals file {path}: {channel.label} is an open electrode throughout; choose another EDA channel by "
            f"FILE?column={others}"
        )
    if lost:
        body.counts["missing in the sequence"] += lost
    name = f"{channel.device}:{channel.label}" if len(devices) > 1 else channel.label
    return EdaRecording(times, values, rows, channel.rate, "opensignals", lost, "µS", name)


def _opensignals_channels(devices: dict[str, dict[str, object]]) -> tuple[list[_Channel], int]:
    """The EDA channels, and the number of columns: those of the devices follow one another in the header's order."""
    found, before = [], 0
    for name, device in devices.items():
        columns, labels = _strings(device["column"]), _strings(device["label"])
        bits = [int(b) for b in device["resolution"]]  # type: ignore[attr-defined]
        rate = float(device["sampling rate"])  # type: ignore[arg-type]
        for k, (sensor, label) in enumerate(zip(_strings(device["sensor"]), labels)):
            if sensor not in _EDA_SENSORS:
                continue
            if rate <= 0:
                raise ValueError("sampling rate")
            index = columns.index(label)
            # by column; the mobile app and biosignalsplux list one a channel, or one for all
            by_column = len(bits) == len(columns)
            own = bits[index] if by_column else bits[k] if len(bits) == len(labels) else bits[0]
            seq = columns.index("nSeq") if "nSeq" in columns else -1
            seq_bits = bits[seq] if by_column and seq >= 0 else 0
            converted = bool(device.get("convertedValues", 0))
            found.append(
                _Channel(name, label, sensor, before + index, before + max(seq, 0), own, seq_bits, rate, converted)
            )
        before += len(columns)
    return found, before


def _strings(listed: object) -> list[str]:
    if not isinstance(listed, list):
        raise TypeError("a list is missing")
    return [str(item) for item in listed]


def _chosen(path: Path, devices: dict[str, dict[str, object]], channels: list[_Channel], column: str | None) -> _Channel:  # fmt: skip
    if not channels:
        seen = ", ".join(str(s) for device in devices.values() for s in _strings(device["sensor"]))
        raise SourceError(
            f"OpenSignals file {path} has no EDABITREV, EDABIT or EDA channel (it has {seen or 'none'}); give µS as CSV"
        )
    names = [f"{c.device}:{c.label}" if len(devices) > 1 else c.label for c in channels]
    fitting = [c for c, n in zip(channels, names) if column is None or column.lower() in (n.lower(), c.label.lower())]
    if column == "gsr" and not fitting:
        fitting = channels
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise SourceError(f"OpenSignals file {path} has no EDA channel '{column}'; choose one of {', '.join(names)}")
    raise SourceError(
        f"OpenSignals file {path} has {len(fitting)} EDA channels ({', '.join(names)}); choose one by "
        f"FILE?column={names[-1]}"
    )


# ---- times ---------------------------------------------------------------------------------------------------------


def _straightened(body: _Body, found: EdaRecording) -> EdaRecording:
    """`found` with times from its first sample on that only increase; what that took is counted."""
    counts, notes = body.counts, body.notes
    times, values, rows = found.times, found.values, found.rows
    total = len(times)
    kept = np.isfinite(times)
    if not kept.all():
        counts["rows without a time"] += int((~kept).sum())
        notes.append(f"row {rows[int(np.argmin(kept))]}: no time; such rows are dropped")
        times, values, rows = times[kept], values[kept], rows[kept]
    if not len(times):
        raise SourceError(f"EDA file {body.path} holds no valid number; no row has a time")
    altered = 0
    groups = spacing(times)
    if groups.starts is not None and found.rate == 0 and groups.period > 0:
        times, altered = respaced(times, groups), len(times)
        notes.append(
            f"{len(groups.starts)} groups of equal or nearly equal time stamps; their samples are spread evenly "
            f"({1 / groups.period:.4g} Hz)"
        )
    line = straighten(times, rows)
    counts.update(line.counts)
    notes += line.notes
    altered = max(altered, line.moved)
    if line.counts:
        times, values, rows = line.times[line.kept], values[line.kept], rows[line.kept]
    if total >= _ENOUGH and len(times) < (1 - _MAX_DROPPED) * total:
        raise SourceError(
            f"EDA file {body.path}: {total - len(times)} of {total} rows have a time that cannot be used "
            f"({notes[-1]}); correct the times, or give the rate by FILE?rate=HZ"
        )
    lost = found.lost + counts["bad rows"] + sum(v for k, v in counts.items() if k in _DROPS)
    return replace(
        found, times=times - times[0], values=values, rows=rows, lost=lost, altered=altered, counts=dict(counts),
        notes=tuple(notes),
    )  # fmt: skip
