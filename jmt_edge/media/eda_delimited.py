"""EDA in delimited text: tables with or without a header, one number a row, Empatica's EDA.csv, BioVid, PhysioKit."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np

from ..errors import SourceError
from .eda_columns import (
    SECONDS,
    TIME_NAMES,
    TIME_UNITS,
    guessed_unit,
    refuse_implausible_rate,
    say_what_is_missing,
    time_column,
    value_column,
)
from .eda_rows import (
    ENOUGH,
    F64,
    Asked,
    Body,
    EdaRecording,
    is_comment,
    is_minutes,
    is_number,
    is_time_of_day,
    parse_cell,
    plain,
    split_cells,
)
from .units import UNITS, Conversion, written_unit

_SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": None, "pipe": "|"}
_DAY, _HOUR = 86400.0, 3600.0  # s
_WRAP = {"ms": 2.0**32 * 1e-3, "us": 2.0**32 * 1e-6}  # s: an Arduino's millis() and micros()
USUAL = (1.0, 25.0)  # µS: where the median of a column without a unit lies if it is µS


def delimited(body: Body, asked: Asked) -> EdaRecording:
    path, head = body.path, body.head
    sep, start = _declared_separator(path, asked, head)
    comment = ""
    while start < len(head) and (not head[start].strip() or is_comment(head[start])):
        comment = head[start] if head[start].strip() else comment
        start += 1
    sample = [line for line in head[start:] if line.strip() and not is_comment(line)]
    if not sample:
        what = "in the header; add a header such as `t_ms,uS`, or" if head else "in it;"
        raise SourceError(f"EDA file {path} row 1: no column {what} write FILE?rate=HZ for one number a row")
    if skipped := _preamble(body, sample, sep, asked):
        start, sample = head.index(sample[skipped], start), sample[skipped:]
        body.notes.append(f"{skipped} lines before the header are left out")
    if sep == "":
        sep = _separator(sample)
    decimal = asked.decimal or _decimal(sample, sep)
    if decimal not in (".", ","):
        raise SourceError(f"EDA file {path}: decimal is '{decimal}'; write decimal=. or decimal=,")
    if (found := empatica(body, sample, start, asked, decimal)) is not None:
        return found
    if sep == "," and decimal == "," and '"' not in sample[0]:
        sep = "\t"  # one number a row
    cells = split_cells(sample[0], sep)
    headless = all(is_number(cell, decimal) for cell in cells)
    if asked.rate is not None and headless and len([c for c in cells if c]) == 1:
        rows, (values,) = body.table(start, sep or ",", decimal, [0], 0)
        values, unit = microsiemens(body, values, "", "column 1", asked)
        return EdaRecording(np.arange(len(rows)) / asked.rate, values, rows, asked.rate, "numbers", 0, unit, "1")
    if headless and comment:
        names = split_cells(comment.lstrip(' "#%/'), sep)
        if len(names) == len(cells) and not all(is_number(name, decimal) for name in names):
            return _table(body, names, start, sep, decimal, asked, "")
    if headless:
        return _table(body, [], start, sep, decimal, asked, "")
    return _table(body, cells, start + 1, sep, decimal, asked, sample[0])


def _declared_separator(path: Path, asked: Asked, head: list[str]) -> tuple[str | None, int]:
    """(the separator, "" where none is declared; the index of the first line after a `sep=` line)."""
    start, declared = 0, ""
    if head and (found := re.fullmatch(r'"?sep=(\\t|.)"?', head[0].strip(" \r"), re.IGNORECASE)):
        start, declared = 1, found[1]
    wanted = asked.sep if asked.sep is not None else declared
    if wanted == "":
        return "", start
    known = _SEPARATORS.get(wanted.lower(), wanted)
    if known is not None and len(known) != 1:
        raise SourceError(
            f"EDA file {path}: sep is '{wanted}'; give one character, or tab, comma, semicolon, space or pipe"
        )
    return None if known == " " else known, start


def _separator(sample: list[str]) -> str | None:
    first = sample[0]
    found = next((s for s in ("\t", ";", "|") if s in first), "")
    if found:
        return found
    if "," in first:
        return ","
    return None if len(first.split()) > 1 else ","


def _preamble(body: Body, sample: list[str], sep: str | None, asked: Asked) -> int:
    """How many lines, such as `Subject: 7`, come before the first that names both a time and EDA."""
    if not sample or is_number(split_cells(sample[0], _separator(sample) if sep == "" else sep)[0]):
        return 0
    for i, line in enumerate(sample):
        names = split_cells(line, _separator([line]) if sep == "" else sep)
        lower = [name.lower() for name in names]
        units = [""] * len(names)
        try:
            time = time_column(body, lower, units, asked)
            if value_column(body, names, lower, units, time, asked) and (time or asked.rate is not None):
                return i
        except SourceError:
            if i == 0:
                return 0
    return 0


def _decimal(sample: list[str], sep: str | None) -> str:
    """The decimal sign of the first rows; a comma between two numbers without any point is a decimal comma where
    another sign separates the cells, or where a file of one number a row says so by its first rows."""
    rows = sample[1:] or sample
    if sep != "," or any(line.count('"') >= 4 for line in rows):
        cells = [cell for line in rows for cell in split_cells(line, sep)]
        commas = any(re.fullmatch(r"[-+]?\d*,\d+", cell) for cell in cells)
        return "," if commas and not any("." in cell and is_number(cell) for cell in cells) else "."
    alone = [line.strip().strip('"') for line in sample[:3]]
    start = [re.fullmatch(r"\d+,0+", line) for line in alone[:2]]
    return "," if len(alone) == 3 and all(start) and re.fullmatch(r"-?\d+,\d+", alone[2]) else "."


def empatica(body: Body, sample: list[str], start: int, asked: Asked, decimal: str) -> EdaRecording | None:
    """A unix time (after 2001), a rate a wearable can have, a number; None where it is not that."""
    path = body.path
    first = [re.split(",|;|\t", line) if decimal == "." else [line] for line in sample[:3]]
    if asked.sep is not None and asked.sep not in (",", "comma"):
        return None
    for cells in first:  # some spreadsheets end each line with the separator
        while len(cells) > 1 and not cells[-1].strip():
            cells.pop()
    if len(first) < 2 or not is_number(first[0][0].strip(), decimal):
        return None
    begin = parse_cell(first[0][0].strip(), decimal)
    if not 1e9 < begin < 1e11:
        return None
    if len(first[0]) == 2 and first[0][1].strip().lower() == "ibi":
        raise SourceError(f"EDA file {path} is an Empatica IBI.csv (heart beats), not EDA; give its EDA.csv")
    if not is_number(first[1][0].strip(), decimal):
        return None
    rate = parse_cell(first[1][0].strip(), decimal)
    if not 0 < rate <= 2000 or len(first) < 3 or not is_number(first[2][0].strip(), decimal):
        return None
    if len(first[0]) > 1:
        if len({len(cells) for cells in first}) == 1 and len({*(c.strip() for c in first[0])}) == 1:
            raise SourceError(
                f"EDA file {path} is an Empatica file of {len(first[0])} columns (ACC.csv, acceleration), not EDA; "
                "give its EDA.csv"
            )
        return None
    name = path.name.upper()
    for other, what in (
        ("TEMP", "temperature"),
        ("BVP", "blood volume pulse"),
        ("HR", "heart rate"),
        ("ACC", "acceleration"),
    ):
        if re.match(rf"(.*[_-])?{other}\.", name) and asked.unit is None:
            raise SourceError(f"EDA file {path} is an Empatica {other}.csv ({what}), not EDA; give its EDA.csv")
    rows, (values,) = body.table(start + 2, "\t" if decimal == "," else ",", decimal, [0], 0)
    if asked.unit is None:
        finite = values[np.isfinite(values)]
        if len(finite) and (np.median(finite) > USUAL[1] or (finite < -0.1).mean() > 0.02):
            raise SourceError(
                f"EDA file {path} looks like another signal of an Empatica (values around {np.median(finite):.4g}: "
                "temperature, heart rate or blood volume pulse); give its EDA.csv, or write FILE?unit=uS if it is EDA"
            )
    else:
        values, _ = microsiemens(body, values, "", "column 1", asked)
    if decimal == ",":
        body.notes.append("numbers have decimal commas")
    rate = asked.rate or rate
    return EdaRecording(np.arange(len(rows)) / rate, values, rows, rate, "empatica", 0, "µS", "1")


def _table(
    body: Body, names: list[str], start: int, sep: str | None, decimal: str, asked: Asked, header: str
) -> EdaRecording:
    path, head = body.path, body.head
    lower = [name.strip().lower() for name in names]
    units = [""] * len(names)
    if names and start < len(head):
        cells = [cell.strip("[]() ") for cell in split_cells(head[start], sep)]
        # a second header row with units, as in Shimmer's exports
        if any(c.lower() in TIME_UNITS or written_unit(c) for c in cells) and not any(
            is_number(c, decimal) and c for c in cells
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
    time = time_column(body, lower, units, asked)
    value = value_column(body, names, lower, units, time, asked)
    if (time is None and asked.rate is None) or value is None:
        say_what_is_missing(path, names, lower, time, asked, header or (head[start] if start < len(head) else ""))
    assert value is not None
    if len(lower) > 1 and sep == "," and _decimal_commas_between(head[start:], len(lower)):
        raise SourceError(
            f"EDA file {path} has decimal commas in a table that commas separate; export it with `;` or tabs between "
            "the columns"
        )
    if names and start < len(head) and len(first := _filled(split_cells(head[start], sep))) > len(names):
        raise SourceError(
            f"EDA file {path}: its header names {len(names)} columns and its rows have {len(first)}; name each in the "
            "header (row numbers without a name shift the others by one)"
        )
    # a cut-off row's last cell would pass for a number; other tables may leave trailing cells out
    columns = [value.index] if time is None else [time.index, value.index]
    rows, table = body.table(start, sep, decimal, columns, len(names) if biovid else 0, plain(header) if header else "")
    physiokit = "arduino_ts" in lower
    values, unit = microsiemens(body, table[-1], "uS" if biovid else value.unit, value.name, asked, counts=physiokit)
    kind = "biovid" if biovid else "physiokit" if physiokit else "csv"
    if decimal == ",":
        body.notes.append("numbers have decimal commas")
    if time is None or asked.rate is not None:
        assert asked.rate is not None
        return EdaRecording(np.arange(len(rows)) / asked.rate, values, rows, asked.rate, kind, 0, unit, value.name)
    first = split_cells(head[start], sep) if start < len(head) else []
    clock = first[time.index] if time.index < len(first) and ":" in first[time.index] else ""
    stamps = table[0]
    scale = "s" if clock else "us" if biovid and not time.unit else time.unit
    kept = np.isfinite(stamps)
    if not scale:
        scale = guessed_unit(path, time.name, stamps[kept] if not kept.all() else stamps)
        if scale != "s":
            body.notes.append(f"the times in '{time.name}' are taken as {scale}")
    t = stamps if scale == "s" else stamps * SECONDS[scale]
    # midnight, or an Arduino's millis() and micros()
    wrap = (
        _DAY
        if is_time_of_day(clock)
        else _HOUR
        if is_minutes(clock)
        else _WRAP.get(scale, 0.0)
        if lower[time.index] in TIME_NAMES
        else 0.0
    )
    if wrap and np.any(t[1:] < t[:-1] - wrap / 2):
        t = t + wrap * np.cumsum(np.diff(t, prepend=t[0]) < -wrap / 2)
    refuse_implausible_rate(path, time.name, t[kept] if not kept.all() else t, scale)
    return EdaRecording(t, values, rows, 0.0, kind, 0, unit, value.name)


def _filled(cells: list[str]) -> list[str]:
    """`cells` without the empty ones at the end."""
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def _decimal_commas_between(lines: list[str], width: int) -> bool:
    rows = [line.rstrip(", ").split(",") for line in lines[:20] if line.strip()]
    return bool(rows) and all(
        len(row) == 2 * width and all(re.fullmatch(r"-?\d+", c.strip()) for c in row) for row in rows
    )


def microsiemens(
    body: Body, values: F64, stated: str, name: str, asked: Asked, *, counts: bool = False
) -> tuple[F64, str]:
    """(values in µS, `µS`), or as they are and `a.u.` for a format known to hold `counts`.

    Raises SourceError for a column without a unit that is not likely to be µS.
    """
    path = body.path
    if asked.unit is not None:
        conversion = asked.unit
    elif stated:
        if stated not in UNITS:
            raise SourceError(
                f"EDA file {path}: '{name}' is in '{stated}', which is not a unit of skin conductance; say what it is "
                f"by FILE?unit=uS, or one of {', '.join(UNITS[1:])}"
            )
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
    top = float(np.max(values, initial=0.0, where=np.isfinite(values)))
    if conversion.unit == "adc" and top >= 2**conversion.bits:
        raise SourceError(
            f"EDA file {path}: '{name}' reaches {top:g}, more than {conversion.bits} bits hold; write "
            f"FILE?unit=adc&bits={int(top).bit_length()}"
        )
    if conversion.unit != "uS":
        body.notes.append(f"'{name}' was converted from {conversion.unit} to µS")
    return conversion(values), "µS"


def _refuse_unlikely(path: Path, values: F64, name: str) -> None:
    few = values[:: max(1, len(values) // 100_000)]
    finite = few[np.isfinite(few)]
    if len(finite) < ENOUGH:
        return
    middle = float(np.median(finite))
    if np.all(finite == np.floor(finite)) and np.ptp(finite) > 0:
        what = "holds whole numbers only, like the counts of a converter"
    elif not USUAL[0] <= middle <= USUAL[1]:
        what = f"has no unit, and values around {middle:.4g} are unusual for µS"
    elif step := converter_step(finite):
        what = f"has no unit, and only multiples of {step}, like the volts of a converter"
    else:
        return
    raise SourceError(
        f"EDA file {path}: '{name}' {what}; say what it is by FILE?unit=uS, or one of {', '.join(UNITS[1:])}"
    )


def converter_step(values: F64) -> str:
    """`5/1023 V` or the like, where all of (n,) finite values are multiples of it as far as their digits say; else "".

    BITalino's µS, multiples of 25/1024, are not: they have a larger step in common.
    """
    exact = next((d for d in range(8) if np.allclose(values, np.round(values, d), rtol=0, atol=1e-9)), 8)
    for volts, top in product((5.0, 3.3, 3.0, 2.5, 1.8), (1023, 1024, 4095, 4096)):
        step = volts / top
        if 10.0**-exact > 0.1 * step or values.max() > volts + step:
            continue
        counts = np.rint(values / step)
        found = np.diff(np.unique(counts)).astype(np.int64)
        off = np.abs(values - counts * step).max()
        if off <= 0.51 * 10.0**-exact and len(found) >= ENOUGH and np.gcd.reduce(found) == 1:
            return f"{volts:g}/{top} V"
    return ""
