"""The chain of a recording: `chain.jsonl`, by which every byte is compared with what was written.

Each time the recorder hands its files to the operating system it adds a line: for every file that grew, its size, the
sha256 of all its bytes so far, and a CRC-32 of each new line. Each line of the chain has the sha256 of the line before
it and itself, so that none can be changed, left out or moved alone. When the recording is closed, the manifest gets
the last hash and every file's sha256, and `manifest.sha256` the manifest's.

The sha256 says whether a file is what was written. The CRC-32s say which of its lines are not: reading leaves those
out, and knows where one is missing. A recording that was not closed is covered up to the chain's last line. None of
this keeps out somebody who writes a new chain; a signature does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..plain_files import Kind, blocks

RECORDING = Kind("recording", SourceError)
CHAIN = "chain.jsonl"
LINES = ("results.jsonl", "events.jsonl", "alarms.jsonl", "status.jsonl", "timeline.jsonl", "eda.csv")
WAV_HEADER = 44  # bytes of voice.wav that change: its hash is of those after them
_START = "0" * 64
_TAIL = 1 << 20  # bytes that hold the last line of any chain
Codes = NDArray[np.uint32]  # (n,): CRC-32 of each line


def code(line: bytes) -> int:
    return zlib.crc32(line)


class ChainWriter:
    """Written by the recorder's thread alone. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._out = (folder / CHAIN).open("ab")
        self._files: dict[str, _Written] = defaultdict(_Written)
        self.head = _START

    def add(self, name: str, data: bytes | memoryview) -> None:
        """`data` was appended to the file, whole lines where it has lines."""
        file = self._files[name]
        file.digest.update(data)
        file.size += len(data)
        if name in LINES:
            file.codes.extend(map(code, bytes(data).splitlines(keepends=True)))

    def link(self) -> None:
        """A line for what was added since the last one; all of it has been handed to the operating system."""
        grown = {name: file.entry() for name, file in sorted(self._files.items()) if file.size != file.linked}
        if not grown:
            return
        self.head = _hash(self.head, grown)
        self._out.write(json.dumps({"files": grown, "chain": self.head}).encode() + b"\n")
        self._out.flush()

    def close(self) -> dict[str, dict[str, Any]]:
        """Every file's size and sha256; the chain's own is in `head`."""
        self.link()
        self._out.close()
        return {name: {"bytes": f.size, "sha256": f.digest.hexdigest()} for name, f in sorted(self._files.items())}

    def abandon(self) -> None:
        self._out.close()


@dataclass
class _Written:
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    linked: int = 0  # bytes that the chain covers
    codes: list[int] = field(default_factory=list)

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"bytes": self.size, "sha256": self.digest.hexdigest()}
        if self.codes:
            entry["lines"] = base64.b64encode(np.array(self.codes, "<u4").tobytes()).decode()
        self.linked = self.size
        self.codes = []
        return entry


def _hash(before: str, files: dict[str, Any]) -> str:
    content = json.dumps(files, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{before} {content}".encode()).hexdigest()


@dataclass(frozen=True)
class Covered:
    """How much of a file the chain covers: its first `size` bytes, with this sha256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Chain:
    """A chain that was read. problem: why it ends early, empty where it does not. torn: its last line was cut off, as
    when the process was killed.
    """

    folder: Path
    files: dict[str, Covered]
    head: str
    problem: str
    torn: bool

    def codes(self, name: str) -> Codes:
        """CRC-32 of every line of a file that the chain covers."""
        entries = (files[name] for files in _links(self.folder) if isinstance(files, dict) and name in files)
        data = b"".join(base64.b64decode(entry.get("lines", "")) for entry in entries)
        return np.frombuffer(data, "<u4")


def read_chain(folder: Path) -> Chain:
    """The chain of a recording, to its last line that is whole and follows from the one before.

    Raises SourceError where the file is missing, is a link, or cannot be read.
    """
    covered: dict[str, Covered] = {}
    head, problem, torn = _START, "", False
    for link in _links(folder):
        if link is None:
            torn = True
        elif isinstance(link, str):
            problem = link
        else:
            covered.update({name: Covered(entry["bytes"], entry["sha256"]) for name, entry in link.items()})
            head = _hash(head, link)
    return Chain(folder, covered, head, problem, torn)


def last_head(folder: Path) -> str:
    """The hash in the last whole line of a recording's chain, read from its end; "" where there is none."""
    try:
        with (folder / CHAIN).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            line = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
        return str(json.loads(line)["chain"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""


def _links(folder: Path) -> Iterator[dict[str, dict[str, Any]] | str | None]:
    """What each line says of the files; at the end a clause where a line is not as it was written, None where it was
    cut off.
    """
    head = _START
    for number, line in enumerate(file_lines(folder / CHAIN), 1):
        if not line.endswith(b"\n"):
            yield None
            return
        try:
            entry = json.loads(line)
            files = entry["files"]
            head = _hash(head, files)
            if entry["chain"] != head or json.dumps(entry).encode() + b"\n" != line:
                raise ValueError("it is not what was written")
            for name, file in files.items():
                if not (type(name) is type(file["sha256"]) is str and type(file["bytes"]) is int):
                    raise ValueError("not a size and a hash")
                base64.b64decode(file.get("lines", ""), validate=True)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            yield f"line {number} of {CHAIN} was changed, moved or left out"
            return
        yield files


def file_lines(path: Path) -> Iterator[bytes]:
    """A plain file's lines with their ends; the last one has none where it was cut off. Raises SourceError."""
    rest: list[bytes] = []
    for block in blocks(path, RECORDING):
        first, *more = block.split(b"\n")
        rest.append(first)
        if more:
            yield b"".join(rest) + b"\n"
            yield from (line + b"\n" for line in more[:-1])
            rest = [more[-1]]
    if last := b"".join(rest):
        yield last


@dataclass(frozen=True)
class Alignment:
    """The lines of a file against those that were written.

    kept: (n,) bool, the file's lines that are as they were written and in their place. places: where each of those was.
    missing: the numbers, from 0, of the lines written that are not there.
    """

    kept: NDArray[np.bool_]
    places: NDArray[np.int64]
    missing: NDArray[np.int64]


def align(written: Codes, found: Codes) -> Alignment:
    """Pair the longest run of lines that are in both in the same order."""
    most = min(len(written), len(found))
    differ = np.flatnonzero(written[:most] != found[:most])
    head = int(differ[0]) if len(differ) else most
    backwards = written[len(written) - most + head :] != found[len(found) - most + head :]
    differ = np.flatnonzero(backwards)
    tail = len(backwards) - 1 - int(differ[-1]) if len(differ) else len(backwards)
    old, new = written[head : len(written) - tail], found[head : len(found) - tail]
    if len(old) == len(new):
        pairs = [(i, i) for i in np.flatnonzero(old == new).tolist()]
        if len(pairs) < len(old) // 2:
            pairs = max(pairs, _longest(old, new), key=len)
    else:
        pairs = _longest(old, new)
    kept, there = np.zeros(len(found), bool), np.zeros(len(written), bool)
    kept[:head] = there[:head] = True
    kept[len(found) - tail :] = there[len(written) - tail :] = True
    for i, j in pairs:
        there[head + i] = kept[head + j] = True
    return Alignment(kept, np.flatnonzero(there), np.flatnonzero(~there))


def _longest(old: Codes, new: Codes) -> list[tuple[int, int]]:
    """Pairs (i, j) with old[i] == new[j], both rising: the longest such list, equal lines counted in their order."""
    where: dict[tuple[int, int], int] = {}
    seen: Counter[int] = Counter()
    for i, value in enumerate(old.tolist()):
        where[value, seen[value]] = i
        seen[value] += 1
    seen.clear()
    ends: list[int] = []  # the smallest last i of a rising list of each length
    last: list[int] = []  # the pair that ends it
    pairs: list[tuple[int, int, int]] = []  # i, j, the pair before
    for j, value in enumerate(new.tolist()):
        key = (value, seen[value])
        seen[value] += 1
        if key not in where:
            continue
        i = where[key]
        length = bisect_left(ends, i)
        pairs.append((i, j, last[length - 1] if length else -1))
        ends[length : length + 1] = [i]
        last[length : length + 1] = [len(pairs) - 1]
    chosen = []
    at = last[-1] if last else -1
    while at >= 0:
        i, j, at = pairs[at]
        chosen.append((i, j))
    return chosen[::-1]


def line_codes(path: Path) -> Codes:
    """CRC-32 of each line of a file; a last line that was cut off counts as one."""
    return np.fromiter(map(code, file_lines(path)), np.uint32)


def differences(path: Path, written: Codes, *, closed: bool = True) -> str:
    """A clause that says which lines of a file are not those that were written; empty where all are.

    closed: nothing was written after those.
    """
    found = line_codes(path)
    pairing = align(written, found)
    wrong = np.flatnonzero(~pairing.kept)
    if not closed:
        end = int(np.flatnonzero(pairing.kept).max(initial=-1))
        lost = np.count_nonzero(pairing.missing > pairing.places.max(initial=-1))
        wrong = np.concatenate([wrong[wrong < end], wrong[wrong > end][:lost]])
    if not len(wrong) and not len(pairing.missing):
        return ""
    names = (wrong + 1).tolist()
    if not len(wrong):
        return f"{_named((pairing.missing + 1).tolist())} of {len(written)} {_is(pairing.missing)} missing"
    if len(wrong) == len(pairing.missing):
        moved = sorted(found[wrong].tolist()) == sorted(written[pairing.missing].tolist())
        return f"{_named(names)} {'was' if len(names) == 1 else 'were'} {'moved' if moved else 'changed'}"
    if not len(pairing.missing):
        return f"{_named(names)} {'was' if len(names) == 1 else 'were'} added"
    return f"{_named(names)} {_is(wrong)} not as written, and {len(pairing.missing)} of {len(written)} are missing"


def _is(several: Sized) -> str:
    return "is" if len(several) == 1 else "are"


def _named(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    return f"lines {', '.join(map(str, numbers[:3]))}" + (f", ... ({len(numbers)} in all)" if len(numbers) > 3 else "")
