"""Reading a recording: its events in order, its tables, its modalities as sources. See `docs/reference/recordings.md`.

A recording whose process was killed is read up to the last event whose data reached the disk completely. Lines that
are damaged are left out and counted in `Recording.unread`.
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..capture.base import Clock, State, Status
from ..errors import SourceError, first_line
from ..media.chunk import Chunk, empty_chunk
from ..media.sound import WavFile
from ..media.video import lossless_frames
from ..observer import Mark
from ..plain_files import printable, read_small
from ..result import Quality, Result
from .alarm_events import AlarmLog, read_log
from .chain import RECORDING
from .lines import (
    STATUSES,
    Check,
    LineFile,
    alarm_check,
    check_manifest,
    eda_lines,
    json_lines,
    mark_check,
    result_check,
    timeline_check,
)
from .recorder import FORMAT, MANIFEST, VERSION, unpack_times, video_name
from .seal import Seal

T = TypeVar("T")


@dataclass(frozen=True)
class Passed:
    """A chunk of `modality`; None where its samples were not kept."""

    modality: str
    chunk: Chunk | None


@dataclass(frozen=True)
class Rested:
    """The person rests for `seconds`, beginning with the next window."""

    seconds: float


@dataclass(frozen=True)
class Skipped:
    """Windows before `index` were dropped."""

    index: int


@dataclass(frozen=True)
class Window:
    """A result, with the statuses that its gate read."""

    result: Result
    statuses: dict[str, Status]


@dataclass(frozen=True)
class Gap:
    """Samples are missing from here on, or the recording ends abruptly."""

    reason: str


Event = Passed | Skipped | Rested | Window | Mark | Gap


class Recording:
    """A recording's folder. Raises SourceError where it is not a recording, or one of another version.

    unread: lines that were damaged and left out, by file, of what has been read so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unread: dict[str, int] = {}
        path = folder / MANIFEST
        if not os.path.lexists(path):
            raise SourceError(
                f"{folder} is not a recording (it has no {MANIFEST}); give a folder written by --record"
            ) from None
        raw = read_small(path, RECORDING)
        try:
            self.manifest: dict[str, Any] = json.loads(raw.decode())
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{path} cannot be read ({first_line(error)}); restore the recording") from None
        if not isinstance(self.manifest, dict):
            raise SourceError(f"{path} is damaged (it is not an object); restore the recording")
        if self.manifest.get("format") != FORMAT or self.manifest.get("version") != VERSION:
            found = f"{self.manifest.get('format')!r} version {self.manifest.get('version')!r}"
            raise SourceError(
                f"{folder} holds {found}, not a {FORMAT} of version {VERSION}; use the version that made it"
            )
        check_manifest(path, self.manifest)
        self.seal = Seal(folder, self.manifest, raw)

    @property
    def connected(self) -> list[str]:
        """The task's modalities that had a source."""
        return [name for name in self.manifest["modalities"] if self.manifest["sources"].get(name)]

    @property
    def replay_blocker(self) -> str:
        """Why results cannot be computed again from this recording; empty if they can."""
        missing = [name for name in self.connected if name not in self.manifest["raw"]]
        if missing:
            return f"raw {' and '.join(missing)} was not recorded (--record-raw {','.join(missing)})"
        return "" if self.manifest["whole"] else "the recording did not begin with the run"

    @property
    def subject(self) -> str:
        """The code of the person whom its bundle was personalised to; empty where it was for everybody, or an earlier
        edition did not say.
        """
        return str(self.manifest["bundle"].get("subject", ""))

    @property
    def recorded_subject(self) -> str:
        """The code of the person who was recorded; empty where none was given, or an earlier edition had none."""
        return str(self.manifest.get("subject", ""))

    @property
    def origin(self) -> datetime | None:
        """When stream time was 0; None where that was not kept, or the run was not live."""
        try:
            return datetime.fromisoformat(self.manifest["origin"]) if self.manifest.get("origin") else None
        except (TypeError, ValueError):
            return None

    @property
    def complete(self) -> bool:
        """The recorder closed it, and no samples were dropped."""
        closed = self.manifest["closed"]
        return bool(closed and closed["complete"])

    @property
    def damage(self) -> list[str]:
        """What could not be read, one sentence a file."""
        counts = {name: n for name, n in self.unread.items() if n}
        said = [f"{name}: {n} damaged line{'s' if n > 1 else ''} left out" for name, n in counts.items()]
        if self.seal.chained and (problem := self.seal.chain_problem()):
            said.append(f"{problem}, so lines that were changed cannot be told from others")
        return said

    @property
    def remarks(self) -> list[str]:
        """What a reader should know of the recording as a whole, one sentence each."""
        said = [f"the recording is {self.seal.note}"] if self.seal.note else []
        closed = self.manifest["closed"] or {}
        if closed and not closed["complete"]:
            why = closed.get("problem") or "samples were dropped because the disk was slow"
            said.append(f"the recording is not complete: {printable(str(why))}")
        return said

    def _file(self, name: str) -> LineFile:
        return LineFile(self.folder / name, self.seal.written(name), closed=self.seal.closed)

    def _read(self, name: str, read: Callable[[LineFile], Iterator[T | None]]) -> Iterator[T | None]:
        """What `read` finds in a file, None for a damaged line; `unread` has the number of those at the end."""
        file, damaged = self._file(name), 0
        for one in read(file):
            damaged += one is None
            yield one
        self.unread[name] = damaged + file.unmarked

    def _each(self, name: str, read: Callable[[LineFile], Iterator[T | None]]) -> Iterator[T]:
        """As `_read`, without the damaged ones."""
        return (one for one in self._read(name, read) if one is not None)

    def _lines(self, name: str, good: Check) -> list[dict[str, Any]]:
        return list(self._each(name, lambda file: json_lines(file, good)))

    def results(self) -> list[dict[str, Any]]:
        """All of `each_result`: 4.5 kB each, so that those of a day do not fit into a small machine's memory."""
        return list(self.each_result())

    def each_result(self) -> Iterator[dict[str, Any]]:
        """The results as plain values, in the order of the file."""
        check = result_check(self.manifest)
        return self._each("results.jsonl", lambda file: json_lines(file, check))

    def marks(self) -> list[Mark]:
        """As they were given: a correction is a mark of its own, see `ratings.final`."""
        return [_mark(line) for line in self._lines("events.jsonl", mark_check)]

    def alarms(self) -> AlarmLog:
        """The events of the alarms; empty, and not judged, in recordings of versions that did not record them."""
        return read_log(self._lines("alarms.jsonl", alarm_check))

    @property
    def eda_unit(self) -> str:
        """`µS` if every status that knows the unit says so, else `a.u.`: a lost line must not turn counts into µS."""
        lines = self._read("status.jsonl", lambda file: json_lines(file, STATUSES))
        units = {line["eda"]["unit"] for line in lines if line and "eda" in line} - {""}  # reads all of them
        return "µS" if units == {"µS"} else "a.u."

    def statuses(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """(end of the window they belong to, {modality: status as plain values}), one a second or at a change."""
        check = timeline_check(self.manifest)
        lines = enumerate(self._read("status.jsonl", lambda file: json_lines(file, STATUSES)))
        at, line = -1, None
        pending: list[dict[str, Any]] = []
        for entry in self._each("timeline.jsonl", lambda file: json_lines(file, check)):
            if "status" in entry:
                while at < entry["status"] and (found := next(lines, None)) is not None:
                    at, line = found
                if at == entry["status"] and line is not None:
                    pending.append(line)
            elif "window" in entry:
                yield from ((entry["window"] * self.manifest["hop"], line) for line in pending)
                pending = []
        deque(lines, 0)  # the damaged ones among them are counted

    def eda(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """(times s, values in `eda_unit` with NaN for no data)."""
        times, values = array("d"), array("f")
        for t, value in self.each_eda():
            times.append(t)
            values.append(value)
        return np.array(times, np.float64), np.array(values, np.float32)

    def each_eda(self) -> Iterator[tuple[float, float]]:
        """(time s, value in `eda_unit` with NaN for no data) of each sample, in the order of the file."""
        return self._each("eda.csv", eda_lines)

    def events(self, only: str = "") -> Iterator[Event]:
        """Everything in the order in which the loop saw it; a Gap stands for what is damaged. `only`: the one modality
        whose samples are decoded.
        """
        raw = [name for name in self.manifest["raw"] if only in ("", name)]
        media = _Media(self.folder, raw, self._file("eda.csv"))
        results = _Results(json_lines(self._file("results.jsonl"), result_check(self.manifest)), self.manifest["hop"])
        marks = json_lines(self._file("events.jsonl"), mark_check)
        status_lines = json_lines(self._file("status.jsonl"), STATUSES)
        statuses: dict[str, Status] = {}
        timeline = json_lines(self._file("timeline.jsonl"), timeline_check(self.manifest))
        try:
            yield from (Gap(problem) for name in raw if (problem := self.seal.media_problem(name)))
            for number, entry in enumerate(timeline, 1):
                if entry is None:
                    media.lose_track()
                    yield Gap(f"line {number} of timeline.jsonl is damaged")
                elif "chunk" in entry:
                    damaged = media.damaged
                    chunk = media.chunk(entry)
                    if media.damaged > damaged:
                        yield Gap(f"damaged rows of eda.csv are left out: {media.damaged - damaged}")
                    yield Passed(entry["chunk"], chunk)
                elif "status" in entry:
                    line = next(status_lines)
                    if line is None:
                        yield Gap(f"line {entry['status'] + 1} of status.jsonl is damaged")
                    else:
                        statuses = {name: _status(plain) for name, plain in line.items()}
                elif "window" in entry:
                    found = results.of(entry["window"])
                    if found is None:
                        yield Gap(f"the result of window {entry['window']} is damaged")
                    else:
                        yield Window(_result(found, entry, self.manifest["bundle"]["demo"]), statuses)
                elif "mark" in entry:
                    mark = next(marks)
                    if mark is not None:
                        yield _mark(mark)
                elif "skip" in entry:
                    yield Skipped(entry["skip"])
                elif "rest" in entry:
                    yield Rested(entry["rest"])
                elif "gap" in entry:
                    yield Gap(entry["gap"])
        except (StopIteration, _BrokenOff):
            yield Gap("the recording ends abruptly here")
        finally:
            media.close()


def _mark(line: dict[str, Any]) -> Mark:
    return Mark(line["t"], line["text"], line["rating"], line.get("corrects"))


class _Results:
    """The lines of results.jsonl by the number of their window. Raises StopIteration where they have ended."""

    def __init__(self, lines: Iterator[dict[str, Any] | None], hop: float) -> None:
        self._lines, self._hop = lines, hop
        self._ahead: deque[dict[str, Any] | None] = deque()

    def of(self, window: int) -> dict[str, Any] | None:
        """The result of `window`; None where its line is damaged. Windows are asked for in order."""
        while True:
            line = self._peek(0)
            if line is None or (index := self._index(line)) <= window:
                self._ahead.popleft()
                if line is None or index == window:
                    return line
                continue  # its window's line of the timeline was damaged
            try:
                following = self._peek(1)
            except StopIteration:
                return None
            if following is not None and self._index(following) <= index:  # its time is damaged
                self._ahead.popleft()
            return None

    def _peek(self, n: int) -> dict[str, Any] | None:
        while len(self._ahead) <= n:
            self._ahead.append(next(self._lines))
        return self._ahead[n]

    def _index(self, line: dict[str, Any]) -> int:
        return round(line["t"] / self._hop)


class _BrokenOff(Exception):
    """The timeline lists samples that did not reach the disk."""


class _Media:
    """The samples of the chunks, one after another."""

    def __init__(self, folder: Path, raw: list[str], eda: LineFile) -> None:
        self._raw = raw
        self._lost_track = False
        self.damaged = 0  # rows of eda.csv so far
        self._eda = eda_lines(eda)
        self._frames = _frames(folder)
        self._folder = folder
        self._wav: WavFile | None = None
        self._heard = 0

    def chunk(self, entry: dict[str, Any]) -> Chunk | None:
        name, n = entry["chunk"], entry["n"]
        if name not in self._raw or self._lost_track:
            return None
        if n == 0:
            return empty_chunk(name, entry["rate"], entry["lost"])
        if name == "face":
            images = [image for _, image in zip(range(n), self._frames)]
            times = np.array(entry["t"], np.float64)
            _demand(len(images) == n)
            return Chunk(times, images, entry["rate"], entry["lost"])
        if name == "voice":
            try:
                times = unpack_times(entry)
            except (ValueError, zlib.error) as error:
                raise _BrokenOff from error
            return Chunk(times, self._sound(n), entry["rate"], entry["lost"])
        if name != "eda":
            raise SourceError(f"{self._folder} holds the unknown modality '{name}'; use the version that made it")
        lines = list(islice(self._eda, n))
        _demand(len(lines) == n)
        rows = [row for row in lines if row is not None]
        self.damaged += n - len(rows)
        return Chunk(
            np.array([t for t, _ in rows]), np.array([v for _, v in rows], np.float32), entry["rate"],
            entry["lost"] + n - len(rows),
        )  # fmt: skip

    def lose_track(self) -> None:
        """A line of the timeline is missing, so that samples can no longer be told apart."""
        self._lost_track = True

    def _sound(self, n: int) -> NDArray[np.float32]:
        if self._wav is None:
            path = self._folder / "voice.wav"
            _demand(path.is_file() and path.stat().st_size > 44)
            self._wav = WavFile(path, to_end=True)
        _demand(self._heard + n <= self._wav.frames)
        self._heard += n
        return self._wav.read(self._heard - n, self._heard)

    def close(self) -> None:
        self._frames.close()


def _demand(there: bool) -> None:
    if not there:
        raise _BrokenOff


def _frames(folder: Path) -> Generator[NDArray[np.uint8], None, None]:
    """The recorded images (H, W, 3) uint8 BGR of all parts, in order."""
    part = 1
    while (path := folder / video_name(part)).is_file():
        for _, image in lossless_frames(path):
            yield image
        part += 1


def _status(plain: dict[str, Any]) -> Status:
    clock = {f.name: float("nan") if (v := plain["clock"][f.name]) is None else v for f in fields(Clock)}
    known = {f.name: plain[f.name] for f in fields(Status)}
    return Status(**{**known, "state": State(plain["state"]), "clock": Clock(**clock)})


def _result(line: dict[str, Any], entry: dict[str, Any], demo: bool) -> Result:
    """The result of a line. Lines of earlier editions lack the newer fields."""
    known = {f.name: line[f.name] for f in fields(Result) if f.name in line}
    quality = {name: _quality(q, entry["scores"][name]) for name, q in line["quality"].items()}
    return Result(**{"demo": demo, **known, "index": entry["window"], "quality": quality})


def _quality(verdict: dict[str, Any], score: float) -> Quality:
    known = {f.name: verdict[f.name] for f in fields(Quality) if f.name in verdict}
    return Quality(**{**known, "score": score})


class RecordedSource:
    """One modality of a recording as a source: its samples at their recorded times, readable at any speed.

    Raises SourceError where the recording has no raw samples of it.
    """

    realtime = False

    def __init__(self, modality: str, folder: Path) -> None:
        self._recording = Recording(folder)
        self.modality = modality
        self.name = f"replay:{folder.resolve().name}"
        if modality not in self._recording.manifest["raw"]:
            raise SourceError(
                f"recording {folder} has no raw {modality}; record with --record-raw {modality}, or give none"
            )
        if problem := self._recording.seal.media_problem(modality):
            raise SourceError(f"recording {folder} was altered ({problem}); copy the whole recording again")
        self._unit = self._recording.eda_unit if modality == "eda" else ""
        self._chunks: Iterator[Chunk] = iter(())
        self._next: Chunk | None = None  # left over from the last read
        self._ended = False
        self._notes: list[str] = []  # what is damaged or missing
        self._lost = 0

    def open(self, origin: float) -> None:
        self._chunks = (
            event.chunk
            for event in self._noted(self._recording.events(self.modality))
            if isinstance(event, Passed) and event.modality == self.modality and event.chunk is not None
        )
        self._advance()

    def _noted(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Gap):
                self._notes.append(event.reason)
            yield event

    def _advance(self) -> None:
        self._next = next(self._chunks, None)
        self._ended = self._next is None

    def read(self, until: float) -> Chunk:
        """All recorded samples since the last read with time <= `until`."""
        due: list[Chunk] = []
        while self._next is not None and not (len(self._next) and self._next.times[-1] > until):
            due.append(self._next)
            self._advance()
        if (rest := self._next) is not None and (n := int(np.searchsorted(rest.times, until, side="right"))):
            due.append(Chunk(rest.times[:n], rest.values[:n], rest.rate, rest.lost))
            self._next = Chunk(rest.times[n:], rest.values[n:], rest.rate)
        if not due:
            return empty_chunk(self.modality)
        self._lost += sum(c.lost for c in due)
        values: Any = [image for c in due for image in c.values]
        if self.modality != "face":
            values = np.concatenate([c.values for c in due])
        return Chunk(np.concatenate([c.times for c in due]), values, due[0].rate, sum(c.lost for c in due))

    def status(self) -> Status:
        state = State.ENDED if self._ended else State.STREAMING
        reason = "the recording has ended" if self._ended else ""
        detail = {"notes": list(self._notes)} if self._notes else {}
        return Status(state, reason, lost=self._lost, unit=self._unit, detail=detail)

    def close(self) -> None:
        self._chunks, self._next, self._ended = iter(()), None, True
