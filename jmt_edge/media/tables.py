"""Text tables: the rows of numbers that EDA files and a data set's label files share."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, also gzipped, without a byte-order mark.

    Raises OSError or UnicodeDecodeError for a file that is not one; the caller knows what the file should have been.
    """
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig") as file
        ):
            return file.read().splitlines()
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from None


_BOMS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file as they are needed, without their ends: UTF-8, UTF-16, UTF-32 or cp1252, also
    gzipped.

    Raises OSError where the file cannot be read and UnicodeError where it is not text.
    """
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            yield from decoded_lines(file, file.read(4096))
    except (EOFError, zlib.error) as error:
        raise OSError(str(error)) from None


def decoded_lines(file: Any, start: bytes) -> Iterator[str]:
    """The lines of an open binary file whose first bytes, `start`, have been read."""
    file.seek(0)
    encoding = next((name for bom, name in _BOMS if start.startswith(bom)), "utf-8")
    if encoding == "utf-8" and b"\0" in start:
        # ASCII in UTF-16 without a mark has a zero in every other byte
        odd, even = start[1::2].count(0), start[::2].count(0)
        if max(odd, even) < 0.9 * (len(start) // 2) or min(odd, even):
            raise UnicodeError("it holds zero bytes")
        encoding = "utf-16-le" if odd else "utf-16-be"
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    for line in io.TextIOWrapper(file, encoding=encoding, errors=errors):
        text = line.rstrip("\r\n")
        if not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text):
            text = text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
        yield text


def number_rows(
    lines: list[str], start: int, separator: str | None, columns: list[int], width: int
) -> Iterator[tuple[int, list[float] | None]]:
    """(row of the file, counted from 1; its numbers in `columns`) of each row that is not blank, from index `start` on.

    None where the row has fewer than `width` cells or a cell is not a number. A blank cell is NaN.
    """
    for row, line in enumerate(lines[start:], start + 1):
        cells = line.split(separator)
        if not any(cell.strip() for cell in cells):
            continue
        try:
            yield row, [float(cells[c].strip() or "nan") for c in columns] if len(cells) >= width else None
        except ValueError:
            yield row, None


def column_number(text: str, count: int) -> int | None:
    """The index of the column that is named by its number, from 1 to `count`; None for any other text."""
    return int(text) - 1 if text.isdecimal() and len(text) < 10 and 1 <= int(text) <= count else None


def label_lines(path: Path) -> list[str]:
    """The lines of a data set's label file: a header and at least one row. Raises DataError."""
    try:
        lines = read_lines(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; restore it or drop it from the list") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable text file ({error}); restore or drop it") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) < 2:
        raise DataError(f"{path} holds no data row; restore or drop it")
    return lines


def column_indices(path: Path, header: str, delimiter: str, columns: tuple[str, ...]) -> list[int]:
    """Where `columns` are in `header`; case and spaces around names are ignored. Raises DataError for one that is not
    there."""
    names = [name.strip().lower() for name in header.split(delimiter)]
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(f"{path} row 1: no column '{missing[0]}' in the header ({', '.join(names)}); check the file")
    return [names.index(name) for name in columns]


def read_table(path: Path, delimiter: str, columns: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """The named columns of a label file, each (rows,). Raises DataError, naming file and row, for a row that is not
    numbers, is blank or has been cut off."""
    lines = label_lines(path)
    at = column_indices(path, lines[0], delimiter, columns)
    width = len(lines[0].split(delimiter))
    rows: list[list[float]] = []
    # a blank row would shift every row behind it against its frame
    for row, numbers in number_rows(lines, 1, delimiter, at, width):
        wanted = len(rows) + 2
        if numbers is None or row != wanted:
            text = lines[wanted - 1].strip()[:60]
            raise DataError(f"{path} row {wanted}: '{text}' is not {width} numbers; correct or drop the file")
        rows.append(numbers)
    if not rows:
        raise DataError(f"{path} holds no data row; restore or drop it")
    table = np.array(rows)
    return {name: table[:, k] for k, name in enumerate(columns)}
