"""The lines of a recording's files, each checked before it is used: a damaged line is counted, the others are read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..capture.base import State
from ..errors import SourceError

Check = Callable[[Any], bool]
_MOST_SAMPLES = 1 << 22  # of a chunk: a minute and a half of sound
_LARGEST = 3e38  # a float32 holds no larger number


def _text(x: Any) -> bool:
    return isinstance(x, str)


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


def _verdict(x: Any) -> bool:
    whole = ("lost", "altered", "track", "turn")
    counts = isinstance(x, dict) and all(_count(x.get(name, 0)) for name in whole)
    return counts and _flag(x.get("ok")) and _text(x.get("reason")) and _maybe(_number)(x.get("novelty"))


def _names(x: Any) -> bool:
    return bool(x) and _each(_text)(x)


def _hop(x: Any) -> bool:
    return _number(x) and 0.01 <= x <= 3600


_MANIFEST: dict[str, tuple[Check, str]] = {
    "created": (_text, "a time"),
    "intended_use": (_text, "a text"),
    "bundle": (_fields(id=_text, path=_text, demo=_flag), "an id, a path and whether it is a demo"),
    "task": (_text, "a name"),
    "outputs": (_names, "a list of names"),
    "modalities": (_names, "a list of names"),
    "backend": (_text, "a name"),
    "threads": (_maybe(_count), "a number of threads"),
    "hop": (_hop, "a number of seconds"),
    "first": (_count, "the number of a window"),
    "smooth": (_number, "a number of seconds"),
    "sources": (_map(_text), "a source for each modality"),
    "raw": (_each(_text), "a list of names"),
    "whole": (_flag, "true or false"),
    "closed": (_maybe(_fields(complete=_flag)), "null, or whether the recording is complete"),
}
_CLOCK = _fields(offset=_maybe(_number), drift_ppm=_maybe(_number), jitter=_maybe(_number))
_STATUS = _fields(
    state=lambda x: x in [s.value for s in State], reason=_text, clock=_CLOCK, lost=_count, reconnects=_count,
    unit=_text, detail=lambda x: isinstance(x, dict),
)  # fmt: skip
_CHUNK = _fields(chunk=_text, n=lambda x: _count(x) and x <= _MOST_SAMPLES, rate=_number, lost=_count)

STATUSES = _map(_STATUS)
MARK = _fields(t=_number, text=_text, rating=_maybe(_count))


def result_check(manifest: dict[str, Any]) -> Check:
    """Whether a line is a result of the run that `manifest` describes."""
    outputs = _fields(**dict.fromkeys(manifest["outputs"], _number))
    return _fields(
        t=_number, task=_text, outputs=_maybe(outputs), reason=_text, dropped=_count, bundle=_text,
        quality=_fields(**dict.fromkeys(manifest["modalities"], _verdict)),
        attention=_fields(**dict.fromkeys(manifest["modalities"], _maybe(_number))),
        latency_ms=_map(_maybe(_number)),
    )  # fmt: skip


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
        known = {"status": _count, "skip": _count, "gap": _text, "mark": _flag}
        return any(name in x and good(x[name]) for name, good in known.items())

    return check


def check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Raises SourceError, naming the field, where the manifest lacks what a reader needs."""
    for name, (good, what) in _MANIFEST.items():
        if name not in manifest:
            raise SourceError(f"{path} is damaged (it has no '{name}'); restore the recording")
        if not good(manifest[name]):
            raise SourceError(f"{path} is damaged ('{name}' is not {what}); restore the recording")


def json_lines(path: Path, good: Check) -> Iterator[dict[str, Any] | None]:
    """The lines of a JSONL file; None for one that is damaged. A last line that was cut off is left out.

    Raises SourceError where the file is there and cannot be read.
    """
    for line in whole_lines(path):
        try:
            entry = json.loads(line)
            yield entry if entry is not None and good(entry) else None
        except (ValueError, RecursionError, OverflowError):
            yield None


def eda_lines(path: Path) -> Iterator[tuple[float, float] | None]:
    """(s, µS with NaN for no data) of each row after the header; None for one that is damaged."""
    lines = whole_lines(path)
    next(lines, None)
    for line in lines:
        try:
            t, comma, value = line.partition(b",")
            row = float(t), float(value.strip() or b"nan")
        except ValueError:
            yield None
        else:
            yield row if comma and math.isfinite(row[0]) and not abs(row[1]) > _LARGEST else None


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file without a last one that was cut off; nothing where there is no such file."""
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise SourceError(f"cannot read {path} ({error.strerror}); restore the recording") from None


def cut_off(path: Path) -> int:
    """1 where the last line of a file was cut off, else 0."""
    try:
        with path.open("rb") as file:
            return int(file.seek(0, 2) > 0 and file.seek(-1, 2) >= 0 and file.read(1) != b"\n")
    except OSError:
        return 0
