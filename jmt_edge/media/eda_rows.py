"""Rows of a text file as numbers: what the EDA formats share."""

from __future__ import annotations

import csv
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from .eda_times import spacing
from .units import Conversion, known_unit

F64 = NDArray[np.float64]

ENOUGH = 10  # samples from which a rate or a distribution means something
_MAX_BAD = 0.1  # share of rows that are not numbers; with more the file is not what it seems
_MISSING = {"", "na", "n/a", "nan", "null", "none", "-", "--", "?"}


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
    rows: NDArray[np.int32]
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


@dataclass
class Body:
    """The lines of one file, and what became of them. last: the last row that is not blank."""

    path: Path
    head: list[str]
    lines: Iterator[str]
    strict: bool
    last: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def table(
        self, start: int, sep: str | None, decimal: str, columns: list[int], width: int, header: str = ""
    ) -> tuple[NDArray[np.int32], list[F64]]:
        """The rows from index `start` on, counted from 1, and the numbers in `columns`, each (n,).

        Rows that are not numbers are counted; the last one, which may have been cut off, is left out in silence.
        Raises SourceError where strict, and where more than a share of them is not numbers.
        """
        rows = array("i")
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
                    wrong = [*wrong[:1], (row, shown(line, 40))]
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
                f"EDA file {self.path} row {row}: '{text}' is not numbers; correct it, say how the file is "
                "written by FILE?sep=, decimal= or column=, or give another file"
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
        return np.frombuffer(rows, np.int32), [np.frombuffer(out) for out in table]

    def _slow(
        self, line: str, sep: str | None, decimal: str, columns: list[int], width: int, header: str
    ) -> list[float] | None:
        """A row that is not plain numbers: None where it is to be skipped, [] where it is wrong."""
        if not line.strip() or is_comment(line):
            return None
        cells = split_cells(line, sep)
        if not any(cells):
            return None
        if header and not self.strict and plain(line) == header:
            self.counts["repeated headers"] += 1
            return None
        if len(cells) <= columns[-1]:
            return []
        own = header.split(sep) if header else []
        before = _unit_named(own[columns[-1]]) if len(own) > columns[-1] else "uS"
        if (unit := _unit_named(cells[columns[-1]])) and unit != (before or "uS"):
            raise SourceError(
                f"EDA file {self.path}: a header in its middle ('{shown(line, 40)}') gives the values another unit, "
                f"{unit}; split the file there"
            )
        if len(cells) < width:
            return []
        try:
            return [parse_cell(cells[c], decimal) for c in columns]
        except ValueError:
            return []


def _unit_named(cell: str) -> str:
    """The unit with which the name of a column ends, such as `kohm` of `GSR [kOhm]`; "" for anything else."""
    return known_unit(re.split(r"[\s_\[\]()]+", cell.strip(" ])"))[-1])


def split_cells(line: str, sep: str | None) -> list[str]:
    """The cells of a row, without quotes and surrounding spaces; `sep` None: any white space."""
    if '"' in line and sep:
        try:
            return [cell.strip() for cell in next(csv.reader([line], delimiter=sep, skipinitialspace=True))]
        except csv.Error:  # a quotation mark that is none
            pass
    return [cell.strip().strip('"').strip() for cell in line.split(sep)]


_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))? ?(Z|[+-]\d\d:?\d\d)?")
# a time of day; a date before it that is not ISO could be read in several ways, and is only needed at midnight
_CLOCK = re.compile(
    r"(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? )?(\d{1,2}):(\d\d):(\d\d)(?:[.,](\d+))?(?: ?([ap])\.?m\.?)?", re.I
)
_MINUTES = re.compile(r"(\d{1,3}):(\d\d)[.,](\d+)")  # as Excel shows a time; without a fraction it may be hours


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
        hour, minute, second, fraction, half = found.groups()
        hours = int(hour) if half is None else int(hour) % 12 + 12 * (half in "pP")
        return 3600.0 * hours + 60.0 * int(minute) + int(second) + float(f"0.{fraction or 0}")
    if found := _MINUTES.fullmatch(text):
        minute, second, fraction = found.groups()
        return 60.0 * int(minute) + int(second) + float(f"0.{fraction}")
    if decimal == "," and "." not in text:
        text = text.replace(",", ".", 1)
    return float(text)


def is_time_of_day(text: str) -> bool:
    return _CLOCK.fullmatch(text) is not None


def is_minutes(text: str) -> bool:
    return _MINUTES.fullmatch(text) is not None


def is_number(text: str, decimal: str = ".") -> bool:
    try:
        parse_cell(text, decimal)
    except ValueError:
        return False
    return True


def shown(line: str, most: int) -> str:
    """The start of a line as it may be quoted: a file may hold what a terminal obeys."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line[:most])


def is_comment(line: str) -> bool:
    return line.lstrip(' "').startswith(("#", "%", "//"))


def plain(line: str) -> str:
    return line.replace('"', "").replace(" ", "").strip().lower()
