"""The lines of a recording's files, each checked before it is used: a damaged line is counted, the others are read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..capture.base import State
from ..errors import SourceError
from ..tasks import LONGEST_REST, SHORTEST_REST
from .alarm_events import LABELS
from .chain import Codes, align, file_lines, line_codes

Check = Callable[[Any], bool]
_MOST_SAMPLES = 1 << 22  # of a chunk: a minute and a half of sound
_LARGEST = 3e38  # a float32 holds no larger number


def _text(x: Any) -> bool:
    return isinstance(x, str)


def _whose(x: Any) -> bool:
    return _text(x) and len(x) <= 200 and (x == "" or x.isprintable())


def _flag(x: Any) -> bool:
    return isinstance(x, bool)


def _count(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= 1 << 53


def _number(x: Any) -> bool:
    if isinstance(x, int):
        return not isinstance(x, bool) and abs(x) <= 1 << 53  # what a double holds
    return isinstance(x, float) and abs(x) < 1e300


def _maybe(check: Check) -> Check:
    return lambda x: x is None or check(x)


def _each(check: Check) -> Check:
    return lambda x: isinstance(x, list) and all(map(check, x))


def _map(check: Check) -> Check:
    return lambda x: isinstance(x, dict) and all(map(check, x.values()))


def _fields(**checks: Check) -> Check:
    """An object that has these fields, and may have others."""
    return lambda x: isinstance(x, dict) and all(name in x and check(x[name]) for name, check in checks.items())


def _optional(**checks: Check) -> Check:
    """An object in which these fields, where it has them, pass."""
    return lambda x: isinstance(x, dict) and all(check(x[name]) for name, check in checks.items() if name in x)


def _verdict(x: Any) -> bool:
    whole = ("lost", "altered", "track", "turn")
    counts = isinstance(x, dict) and all(_count(x.get(name, 0)) for name in whole)
    return counts and _flag(x.get("ok")) and _text(x.get("reason")) and _maybe(_number)(x.get("novelty"))


def _interval(x: Any) -> bool:
    return _each(_number)(x) and len(x) == 2


def _actions(x: Any) -> bool:
    parts = dict.fromkeys(("pose", "measures", "strengths"), _maybe(_map(_number)))
    return _fields(label=_text, reason=_text, t=_number, pspi_geometric_uncalibrated=_maybe(_number), **parts)(x)


def _rest(x: Any) -> bool:
    return _number(x) and SHORTEST_REST <= x <= LONGEST_REST


def _names(x: Any) -> bool:
    return bool(x) and _each(_text)(x)


def _hop(x: Any) -> bool:
    return _number(x) and 0.01 <= x <= 3600


def _bundle(x: Any) -> bool:
    """Recordings of earlier editions do not say whom it is personalised to."""
    return _fields(id=_text, demo=_flag)(x) and _optional(subject=_whose)(x)


def _closed(x: Any) -> bool:
    """Recordings of the first edition, and those that an error ended, have no hashes of the files."""
    file = _fields(bytes=_count, sha256=_text)
    whole = _fields(complete=_flag)(x) and _text(x.get("chain", "")) and _map(file)(x.get("files", {}))
    return whole and all(_text(one.get("header", "")) for one in x.get("files", {}).values())


_MANIFEST: dict[str, tuple[Check, str]] = {
    "created": (_text, "a time"),
    "intended_use": (_text, "a text"),
    "bundle": (_bundle, "an id, whether it is a demo, and perhaps whom it is personalised to"),
    "task": (_text, "a name"),
    "outputs": (_names, "a list of names"),
    "modalities": (_names, "a list of names"),
    "backend": (_text, "a name"),
    "threads": (_maybe(lambda x: _count(x) and 0 < x <= 256), "a number of threads from 1 to 256"),
    "hop": (_hop, "a number of seconds"),
    "first": (_count, "the number of a window"),
    "smooth": (_number, "a number of seconds"),
    "sources": (_map(_text), "a source for each modality"),
    "raw": (_each(_text), "a list of names"),
    "whole": (_flag, "true or false"),
    "closed": (_maybe(_closed), "null, or whether the recording is complete"),
}
_OPTIONAL: dict[str, tuple[Check, str]] = {
    "subject": (_whose, "a person's code"),
    "novelty": (_text, "a name"),
    "person": (_text, "a name"),
    "uncertainty": (_text, "a text"),
    "actions": (_flag, "true or false"),
    "chain": (_flag, "true or false"),
    "clock": (_each(_fields(t=_number, step=_number)), "a list of times and steps in seconds"),
    "continues": (_maybe(lambda x: isinstance(x, dict)), "null, or the part before this one"),
}
_CLOCK = _fields(offset=_maybe(_number), drift_ppm=_maybe(_number), jitter=_maybe(_number))
_STATUS = _fields(
    state=lambda x: x in [s.value for s in State], reason=_text, clock=_CLOCK, lost=_count, reconnects=_count,
    unit=_text, detail=lambda x: isinstance(x, dict),
)  # fmt: skip
_CHUNK = _fields(chunk=_text, n=lambda x: _count(x) and x <= _MOST_SAMPLES, rate=_number, lost=_count)

STATUSES = _map(_STATUS)
_EVENT = _fields(
    event=_text, alarm=_text, kind=_text, priority=_text, text=_text, start=_number, signalled=_number,
    limit=_maybe(_number), end=_maybe(_number), peak=_maybe(_number), acknowledged=_maybe(_number), by=_text,
)  # fmt: skip
_LABEL = _fields(event=_text, label=lambda x: x in LABELS, t=_number, by=_text)
_SET = _fields(settings=_fields(limit=_number, hysteresis=_number, delay=_number, enabled=_flag), off=_text)
_MARK = _fields(t=_number, text=_text, rating=_maybe(lambda x: _count(x) and x <= 10))


def mark_check(x: Any) -> bool:
    """A line of `events.jsonl`. Earlier versions had no corrections."""
    return _MARK(x) and _optional(corrects=_maybe(_number))(x)


def alarm_check(x: Any) -> bool:
    """A line of `alarms.jsonl`: settings, a label, or an event."""
    if not isinstance(x, dict):
        return False
    if "settings" in x:
        return _SET(x) and _optional(t=_number)(x)  # earlier versions did not say when
    return (_LABEL if "label" in x else _EVENT)(x)


def result_check(manifest: dict[str, Any]) -> Check:
    """Whether a line is a result of the run that `manifest` describes."""
    outputs = _fields(**dict.fromkeys(manifest["outputs"], _number))
    kinds = {name: _each(_text) if name == "pain" else _interval for name in manifest["outputs"]}
    added = _optional(  # by later editions
        uncertainty=_maybe(_optional(coverage=_number, **kinds)),
        without=_maybe(_map(outputs)),
        rest=_maybe(lambda x: isinstance(x, dict)),
        actions=_maybe(_actions),
        general=_maybe(_fields(outputs=outputs, without=_maybe(_map(outputs)))),
    )
    whole = _fields(
        t=_number, task=_text, outputs=_maybe(outputs), reason=_text, dropped=_count, bundle=_text,
        quality=_fields(**dict.fromkeys(manifest["modalities"], _verdict)),
        attention=_fields(**dict.fromkeys(manifest["modalities"], _maybe(_number))),
        latency_ms=_map(_maybe(_number)),
    )  # fmt: skip
    return lambda x: whole(x) and added(x)


def timeline_check(manifest: dict[str, Any]) -> Check:
    """Whether a line is one of the timeline's, with what is needed to find the samples that it stands for."""
    scores = _fields(**dict.fromkeys(manifest["modalities"], _number))

    def check(x: Any) -> bool:
        if not isinstance(x, dict):
            return False
        if "chunk" in x:
            if not _CHUNK(x) or x["chunk"] not in manifest["raw"] or not x["n"]:
                return _CHUNK(x)
            if x["chunk"] == "face":
                return _each(_number)(x.get("t")) and len(x["t"]) == x["n"]
            return x["chunk"] != "voice" or (_number(x.get("t0")) and _text(x.get("ulps")))
        if "window" in x:
            return _count(x["window"]) and scores(x.get("scores"))
        known = {"status": _count, "skip": _count, "gap": _text, "mark": _flag, "rest": _rest}
        return any(name in x and good(x[name]) for name, good in known.items())

    return check


def check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Raises SourceError, naming the field, where the manifest lacks what a reader needs."""
    for name, (good, what) in _MANIFEST.items():
        if name not in manifest:
            raise SourceError(f"{path} is damaged (it has no '{name}'); restore the recording")
        if not good(manifest[name]):
            raise SourceError(f"{path} is damaged ('{name}' is not {what}); restore the recording")
    for name, (good, what) in _OPTIONAL.items():
        if name in manifest and not good(manifest[name]):
            raise SourceError(f"{path} is damaged ('{name}' is not {what}); restore the recording")


class LineFile:
    """A file of lines. written: CRC-32 of each line, where the file is known not to be what was written.

    closed: nothing was written after those; else what follows them is read as it is.
    unmarked: after `lines` has ended, damaged lines that it gave no None for: added ones, those cut off at the end.
    """

    def __init__(self, path: Path, written: Codes | None = None, *, closed: bool = True) -> None:
        self._path, self._written, self._closed = path, written, closed
        self.unmarked = 0

    def lines(self) -> Iterator[bytes | None]:
        """The lines in the places where they were written, None for one that is not what was written. Without
        `written`: all lines. Nothing where there is no such file.

        Raises SourceError for a link, and where the file cannot be read.
        """
        self.unmarked = 0
        if self._written is not None:
            yield from self._as_written(self._written)
        elif os.path.lexists(self._path):
            for line in file_lines(self._path):
                if line.endswith(b"\n"):
                    yield line
                else:
                    self.unmarked = 1

    def _as_written(self, written: Codes) -> Iterator[bytes | None]:
        there = os.path.lexists(self._path)
        pairing = align(written, line_codes(self._path) if there else written[:0])
        places = iter(pairing.places.tolist())
        left, place = len(pairing.places), 0  # lines as written that are to come; the place of the next line
        wrong = marked = 0
        for line, kept in zip(file_lines(self._path) if there else (), pairing.kept.tolist()):
            if kept:
                gap = next(places) - place
                yield from [None] * gap
                yield line
                left, place, marked = left - 1, place + gap + 1, marked + gap
            elif not left and place == len(written) and not self._closed and line.endswith(b"\n"):
                yield line
            else:
                wrong += 1
                if not left and place < len(written) and line.endswith(b"\n"):
                    yield None
                    place, marked = place + 1, marked + 1
        self.unmarked = max(wrong, len(pairing.missing)) - marked


def json_lines(file: LineFile, good: Check) -> Iterator[dict[str, Any] | None]:
    """The lines of a JSONL file; None for one that is damaged. A last line that was cut off is left out.

    Raises SourceError where the file is there and cannot be read.
    """
    for line in file.lines():
        try:
            entry = json.loads(line) if line is not None else None
            yield entry if entry is not None and good(entry) else None
        except (ValueError, RecursionError, OverflowError):
            yield None


def eda_lines(file: LineFile) -> Iterator[tuple[float, float] | None]:
    """(s, µS with NaN for no data) of each row after the header; None for one that is damaged."""
    lines = file.lines()
    next(lines, None)
    for line in lines:
        try:
            t, comma, value = (line or b"").partition(b",")
            row = float(t), float(value.strip() or b"nan")
        except ValueError:
            yield None
        else:
            yield row if comma and math.isfinite(row[0]) and not abs(row[1]) > _LARGEST else None
