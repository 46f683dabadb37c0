"""Reading a recording: its events in order, its tables, its modalities as sources. See `docs/reference/recordings.md`.

A recording whose process was killed is read up to the last event whose data reached the disk completely.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..capture.base import Clock, State, Status
from ..errors import SourceError
from ..media.chunk import Chunk, empty_chunk
from ..media.sound import WavFile
from ..media.video import lossless_frames
from ..observer import Mark
from ..result import Quality, Result
from .recorder import FORMAT, VERSION, unpack_times, video_name


@dataclass(frozen=True)
class Passed:
    """A chunk of `modality`; None where its samples were not kept."""

    modality: str
    chunk: Chunk | None


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


Event = Passed | Skipped | Window | Mark | Gap


class Recording:
    """A recording's folder. Raises SourceError where it is not a recording, or one of another version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SourceError(
                f"{folder} is not a recording (it has no manifest.json); give a folder written by --record"
            ) from None
        except (OSError, ValueError) as error:
            raise SourceError(f"{folder}/manifest.json cannot be read ({error}); restore the recording") from None
        if self.manifest.get("format") != FORMAT or self.manifest.get("version") != VERSION:
            found = f"{self.manifest.get('format')!r} version {self.manifest.get('version')!r}"
            raise SourceError(
                f"{folder} holds {found}, not a {FORMAT} of version {VERSION}; use the version that made it"
            )

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
    def complete(self) -> bool:
        """The recorder closed it, and no samples were dropped."""
        closed = self.manifest["closed"]
        return bool(closed and closed["complete"])

    def results(self) -> list[dict[str, Any]]:
        return list(_lines(self.folder / "results.jsonl"))

    def marks(self) -> list[Mark]:
        return [Mark(line["t"], line["text"], line["rating"]) for line in _lines(self.folder / "events.jsonl")]

    def statuses(self) -> list[tuple[float, dict[str, Any]]]:
        """(end of the window they belong to, {modality: status as plain values}), one a second or at a change."""
        lines = list(_lines(self.folder / "status.jsonl"))
        found = []
        pending: list[int] = []
        for entry in _lines(self.folder / "timeline.jsonl"):
            if "status" in entry and entry["status"] < len(lines):
                pending.append(entry["status"])
            elif "window" in entry:
                found += [(entry["window"] * self.manifest["hop"], lines[i]) for i in pending]
                pending = []
        return found

    def eda(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """(times s, µS with NaN for no data)."""
        rows = list(_eda_rows(self.folder / "eda.csv"))
        return np.array([t for t, _ in rows]), np.array([v for _, v in rows], np.float32)

    def events(self, only: str = "") -> Iterator[Event]:
        """Everything in the order in which the loop saw it; `only`: the one modality whose samples are decoded."""
        media = _Media(self.folder, [name for name in self.manifest["raw"] if only in ("", name)])
        results = _lines(self.folder / "results.jsonl")
        marks = iter(self.marks())
        status_lines = _lines(self.folder / "status.jsonl")
        statuses: dict[str, Status] = {}
        try:
            for entry in _lines(self.folder / "timeline.jsonl"):
                if "chunk" in entry:
                    yield Passed(entry["chunk"], media.chunk(entry))
                elif "status" in entry:
                    statuses = {name: _status(plain) for name, plain in next(status_lines).items()}
                elif "window" in entry:
                    yield Window(_result(next(results), entry, self.manifest["bundle"]["demo"]), statuses)
                elif "mark" in entry:
                    yield next(marks)
                elif "skip" in entry:
                    yield Skipped(entry["skip"])
                elif "gap" in entry:
                    yield Gap(entry["gap"])
        except (StopIteration, _BrokenOff):
            yield Gap("the recording ends abruptly here")
        finally:
            media.close()


class _BrokenOff(Exception):
    """The timeline lists samples that did not reach the disk."""


class _Media:
    """The samples of the chunks, one after another."""

    def __init__(self, folder: Path, raw: list[str]) -> None:
        self._raw = raw
        self._eda = _eda_rows(folder / "eda.csv")
        self._frames = _frames(folder)
        self._folder = folder
        self._wav: WavFile | None = None
        self._heard = 0

    def chunk(self, entry: dict[str, Any]) -> Chunk | None:
        name, n = entry["chunk"], entry["n"]
        if name not in self._raw:
            return None
        if n == 0:
            return empty_chunk(name, entry["rate"], entry["lost"])
        if name == "face":
            images = [image for _, image in zip(range(n), self._frames)]
            times = np.array(entry["t"], np.float64)
            _demand(len(images) == n)
            return Chunk(times, images, entry["rate"], entry["lost"])
        if name == "voice":
            return Chunk(unpack_times(entry), self._sound(n), entry["rate"], entry["lost"])
        if name != "eda":
            raise SourceError(f"{self._folder} holds the unknown modality '{name}'; use the version that made it")
        rows = [row for _, row in zip(range(n), self._eda)]
        _demand(len(rows) == n)
        return Chunk(
            np.array([t for t, _ in rows]), np.array([v for _, v in rows], np.float32), entry["rate"], entry["lost"]
        )

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


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a JSONL file; a truncated last line is skipped."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError:
                return


def _eda_rows(path: Path) -> Iterator[tuple[float, float]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.readline()
        for line in file:
            if not line.endswith(b"\n"):
                return
            t, _, value = line.decode().rstrip().partition(",")
            yield float(t), float(value or "nan")


def _frames(folder: Path) -> Generator[NDArray[np.uint8], None, None]:
    """The recorded images (H, W, 3) uint8 BGR of all parts, in order."""
    part = 1
    while (path := folder / video_name(part)).is_file():
        for _, image in lossless_frames(path):
            yield image
        part += 1


def _status(plain: dict[str, Any]) -> Status:
    clock = {name: float("nan") if v is None else v for name, v in plain["clock"].items()}
    return Status(**{**plain, "state": State(plain["state"]), "clock": Clock(**clock)})


def _result(line: dict[str, Any], entry: dict[str, Any], demo: bool) -> Result:
    """The result of a line. Lines of the first edition have neither `demo` nor `novelty`."""
    quality = {name: Quality(**q, score=entry["scores"][name]) for name, q in line["quality"].items()}
    return Result(**{"demo": demo, **line, "index": entry["window"], "quality": quality})


class RecordedSource:
    """One modality of a recording as a source: its samples at their recorded times, readable at any speed.

    Raises SourceError where the recording has no raw samples of it.
    """

    realtime = False

    def __init__(self, modality: str, folder: Path) -> None:
        self._recording = Recording(folder)
        self.modality = modality
        self.name = f"replay:{folder}"
        if modality not in self._recording.manifest["raw"]:
            raise SourceError(
                f"recording {folder} has no raw {modality}; record with --record-raw {modality}, or give none"
            )
        self._chunks: Iterator[Chunk] = iter(())
        self._next: Chunk | None = None  # left over from the last read
        self._ended = False

    def open(self, origin: float) -> None:
        self._chunks = (
            event.chunk
            for event in self._recording.events(self.modality)
            if isinstance(event, Passed) and event.modality == self.modality and event.chunk is not None
        )
        self._advance()

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
        values: Any = [image for c in due for image in c.values]
        if self.modality != "face":
            values = np.concatenate([c.values for c in due])
        return Chunk(np.concatenate([c.times for c in due]), values, due[0].rate, sum(c.lost for c in due))

    def status(self) -> Status:
        state = State.ENDED if self._ended else State.STREAMING
        reason = "the recording has ended" if self._ended else ""
        return Status(state, reason, unit="µS" if self.modality == "eda" else "")

    def close(self) -> None:
        self._chunks, self._next, self._ended = iter(()), None, True
