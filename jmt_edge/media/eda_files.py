"""EDA recordings as (times, µS): delimited text, OpenSignals text, Empatica CSV, BioVid's `_bio.csv`, also gzipped; and
the binary formats of `eda_formats`.

| kind | how it is known | times | values |
|---|---|---|---|
| OpenSignals | first line `# OpenSignals` | row and gaps of the sequence number / rate | by the sensor's formula |
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

from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from ..errors import SourceError
from .eda_delimited import delimited
from .eda_formats import binary_reader
from .eda_rows import ENOUGH, F64, Asked, Body, EdaRecording
from .eda_times import respaced, spacing, straighten
from .opensignals import opensignals
from .tables import text_lines
from .units import opensignals_us

__all__ = ["Asked", "EdaRecording", "opensignals_us", "read_eda_file"]

_LARGEST = 3e38  # what a float32 holds, as the samples are further on
_MAX_DROPPED = 0.5  # share of rows whose time cannot be used
_DROPS = ("rows without a time", "wild stamps", "repeated stamps")
HEAD = 64  # lines that are looked at before the file is read


def read_eda_file(path: Path, asked: Asked | None = None, *, strict: bool = False) -> EdaRecording:
    """Read any of the formats above as `asked`.

    strict: every row must hold a number and advance in time, as training demands of its data sets. Raises SourceError,
    one sentence naming the file and where possible the row.
    """
    asked = asked or Asked()
    try:
        body = Body(path, [], iter(()), strict)
        if read := binary_reader(body):
            found = read(body, asked)
        else:
            lines = text_lines(path)
            head = list(islice(lines, HEAD))
            body = Body(path, head, chain(head, lines), strict)
            found = (opensignals if head and head[0].startswith("# OpenSignals") else delimited)(body, asked)
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


def _sparse(values: F64) -> int:
    """How many of (n,) values are numbers where the column is one of a lower rate among others, so that most of its
    cells are blank and the others evenly spread; 0 where it is not."""
    at = np.flatnonzero(np.isfinite(values))
    if len(at) < ENOUGH or len(at) > 0.6 * len(values):
        return 0
    steps = np.diff(at)
    every = int(np.median(steps))
    return len(at) if every > 1 and float((np.abs(steps - every) <= 1).mean()) > 0.8 else 0


def _straightened(body: Body, found: EdaRecording) -> EdaRecording:
    """`found` with times from its first sample on that only increase; what that took is counted."""
    counts, notes = body.counts, body.notes
    times, values, rows = found.times, found.values, found.rows
    total = len(times)
    beyond = (values > _LARGEST) | (values < -_LARGEST)
    if beyond.any():
        values = np.where(beyond, np.nan, values)
    kept = np.isfinite(times)
    if not kept.all():
        counts["rows without a time"] += int((~kept).sum())
        notes.append(f"row {rows[int(np.argmin(kept))]}: no time; such rows are dropped")
        times, values, rows = times[kept], values[kept], rows[kept]
    if not len(times):
        raise SourceError(f"EDA file {body.path} holds no valid number; no row has a time")
    if not body.strict and (dense := _sparse(values)):
        kept = np.isfinite(values)
        notes.append(
            f"{dense} rows have a value, at even distances, and {len(values) - dense} belong to other signals of a "
            "higher rate: those are left out"
        )
        times, values, rows, total = times[kept], values[kept], rows[kept], dense
    altered = 0
    groups = spacing(times)
    if groups.starts is not None and found.rate == 0 and groups.period > 0:
        times, altered = respaced(times, groups), len(times)
        notes.append(
            f"{len(groups.starts)} groups of equal or nearly equal time stamps; their samples are spread evenly "
            f"({1 / groups.period:.4g} Hz)"
        )
    line = straighten(times, rows)
    if body.strict and line.notes:
        raise SourceError(f"EDA file {body.path} {line.notes[0]}; correct or drop the file")
    counts.update(line.counts)
    notes += line.notes
    altered = max(altered, line.moved)
    if line.counts:
        times, values, rows = line.times[line.kept], values[line.kept], rows[line.kept]
    if total >= ENOUGH and len(times) < (1 - _MAX_DROPPED) * total:
        raise SourceError(
            f"EDA file {body.path}: {total - len(times)} of {total} rows have a time that cannot be used "
            f"({notes[-1]}); correct the times, or give the rate by FILE?rate=HZ"
        )
    lost = found.lost + counts["bad rows"] + sum(v for k, v in counts.items() if k in _DROPS)
    times -= times[0]  # in place: an hour at 1000 Hz is 29 MB an array
    return replace(
        found, times=times, values=values, rows=rows, lost=lost, altered=altered, counts=dict(counts),
        notes=tuple(notes),
    )  # fmt: skip
