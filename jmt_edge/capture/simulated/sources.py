"""The simulated person as live sources: `sim:` or `sim:seed=3&fps=25&drop_at=60&drop_for=10`.

All sources of one seed are the same person at the same moment.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ...errors import SourceError
from ...media.chunk import Chunk, empty_chunk
from ..base import LazyFrames, Source, State, Status
from ..spec import number, parse_settings
from .eda import Skin
from .expression import Expressions
from .face import FaceRenderer, Image
from .person import Person
from .scenario import Episodes
from .voice import RATE, Speech

_FAULTS = {"face": ("dark", "noface"), "voice": ("silent",), "eda": ("open",)}
_OWN_KEYS = {"face": ("fps", "size"), "voice": (), "eda": ("rate",)}
_KEYS = ("seed", "responder", "drop_at", "drop_for", "fault", "fault_at", "fault_for")


Times = NDArray[np.float64]
Flags = NDArray[np.bool_]
Span = tuple[float, float]  # stream time [start, end) in seconds


@dataclass(frozen=True)
class SimulatedSpec:
    """A parsed `sim:` specification; see `docs/reference/simulated-person.md` for its keys."""

    seed: int = 0
    responder: bool = True
    fps: float = 25.0
    size: tuple[int, int] = (320, 240)
    rate: float = 128.0
    drop: Span = (0.0, 0.0)
    fault: str = ""
    fault_span: Span = (0.0, float("inf"))


def _within(times: Times, span: Span) -> Flags:
    return (times >= span[0]) & (times < span[1])


class _Simulated:
    """Common to the three sources: a sample clock, the dropout and the status."""

    modality = ""

    def __init__(self, spec: SimulatedSpec, rate: float) -> None:
        self.name = f"sim:seed={spec.seed}"
        self.realtime = False
        self._spec, self._rate = spec, rate
        self._next = 0  # number of the next sample; sample n is taken at n / rate
        self._dropped = False

    def open(self, origin: float) -> None:
        """Prepare what the first read would wait for. Simulated time is stream time, so `origin` means nothing."""

    def close(self) -> None:
        """Does nothing."""

    def status(self) -> Status:
        unit = "µS" if self.modality == "eda" else ""
        if self._dropped:
            return Status(State.STALLED, "the simulated sensor dropped out, as set by drop_at", unit=unit)
        return Status(State.STREAMING, unit=unit)

    def read(self, until: float) -> Chunk:
        """All samples since the last read with time <= `until`; the cost depends only on their number."""
        stop = int(np.floor(until * self._rate + 1e-6)) + 1
        if stop <= self._next:
            return empty_chunk(self.modality, self._rate)
        first, count = self._next, stop - self._next
        self._next = stop
        times = (first + np.arange(count)) / self._rate
        dropped = _within(times, self._spec.drop)
        self._dropped = bool(dropped[-1])
        return self._make(first, times, ~dropped)

    def skip_to(self, t: float) -> None:
        """Skip unread samples before stream time `t`."""
        self._next = max(self._next, int(np.ceil(t * self._rate - 1e-6)))

    def _make(self, first: int, times: Times, kept: Flags) -> Chunk:
        raise TypeError("use SimFace, SimVoice or SimEda")

    def _faulty(self, times: Times) -> Flags:
        return _within(times, self._spec.fault_span) & bool(self._spec.fault)


class SimFace(_Simulated):
    """A camera: frames of `size` at `fps`. Faults: `dark` (lens covered), `noface` (nobody in the picture).

    A frame is drawn when it is first accessed, because most are neither searched nor shown. lazy: drawn again at every
    access, and not kept.
    """

    modality = "face"

    def __init__(self, spec: SimulatedSpec, *, lazy: bool = False) -> None:
        super().__init__(spec, spec.fps)
        self._lazy, self._turn = lazy, threading.Lock()
        self._person = Person.live(spec.seed, responder=spec.responder)
        self._expression = Expressions(self._person, Speech(self._person))

    def open(self, origin: float) -> None:
        _ = self._renderer

    @cached_property
    def _renderer(self) -> FaceRenderer:
        return FaceRenderer(self._person, *self._spec.size)

    def _make(self, first: int, times: Times, kept: Flags) -> Chunk:
        times = times[kept]
        at = times.tolist()
        frames = LazyFrames(self._frame, at) if self._lazy else LazyFrames.once(self._frame, at, self._turn)
        return Chunk(times, frames, self._rate, lost=int((~kept).sum()))

    def _frame(self, t: float) -> Image:
        if self._faulty(np.array([t]))[0]:
            return self._renderer.without_face(t, dark=self._spec.fault == "dark")
        return self._renderer.frame(t, self._expression(t))


class SimVoice(_Simulated):
    """A microphone: mono float32 at 44.1 kHz. Fault: `silent` (digital zero)."""

    modality = "voice"

    def __init__(self, spec: SimulatedSpec) -> None:
        super().__init__(spec, float(RATE))
        self._speech = Speech(Person.live(spec.seed, responder=spec.responder))

    def open(self, origin: float) -> None:
        self._speech.samples(0, 1)  # imports SciPy, and draws the first phrase

    def _make(self, first: int, times: Times, kept: Flags) -> Chunk:
        values = self._speech.samples(first, len(times))
        values[self._faulty(times)] = 0.0
        return Chunk(times[kept], values[kept], self._rate, lost=int((~kept).sum()))


class SimEda(_Simulated):
    """A skin-conductance sensor in µS. Fault: `open` (the electrode is off: no valid number, NaN)."""

    modality = "eda"

    def __init__(self, spec: SimulatedSpec) -> None:
        super().__init__(spec, spec.rate)
        self._skin = Skin(Person.live(spec.seed, responder=spec.responder))

    def _make(self, first: int, times: Times, kept: Flags) -> Chunk:
        values = self._skin.samples(first, len(times), self._rate).astype(np.float32)
        values[self._faulty(times)] = np.nan
        return Chunk(times[kept], values[kept], self._rate, lost=int((~kept).sum()))


def parse_spec(modality: str, spec: str) -> SimulatedSpec:
    """Read `sim:key=value&...`. Raises SourceError for an unknown key or a value out of range."""
    kind, _, query = spec.partition(":")
    if kind != "sim":
        raise SourceError(f"'{spec}' is not a simulated source; write `sim:` or `sim:seed=3`")
    given = parse_settings(spec, query, _KEYS + _OWN_KEYS[modality])

    def value(key: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
        found = number(spec, given, key, low, high, whole=whole)
        return default if found is None else found

    fault = given.get("fault", "")
    if fault and fault not in _FAULTS[modality]:
        raise SourceError(f"'{spec}': {modality} has no fault '{fault}'; choose {' or '.join(_FAULTS[modality])}")
    width, _, height = given.get("size", "320x240").partition("x")
    if not all(side.isdecimal() and len(side) <= 4 and 64 <= int(side) <= 4096 for side in (width, height)):
        raise SourceError(f"'{spec}': size must be WIDTHxHEIGHT from 64 to 4096, as in size=480x360")
    forever = 1e9
    drop_at = value("drop_at", 0, 0, forever)
    drop_for = value("drop_for", forever if "drop_at" in given else 0, 0, forever)
    fault_at, fault_for = value("fault_at", 0, 0, forever), value("fault_for", forever, 0, forever)
    return SimulatedSpec(
        seed=int(value("seed", 0, 0, 2**32 - 1, whole=True)),
        responder=bool(value("responder", 1, 0, 1)),
        fps=value("fps", 25.0, 1, 240),
        size=(int(width), int(height)),
        rate=value("rate", 128.0, 4, 2000),
        drop=(drop_at, drop_at + drop_for),
        fault=fault,
        fault_span=(fault_at, fault_at + fault_for),
    )


def open_simulated(modality: str, spec: str, *, lazy: bool = False) -> Source:
    """The unopened source of `modality` (face, voice, eda). Raises SourceError where `spec` is malformed.

    lazy: frames are drawn at every access and not kept, for readers that hold many chunks.
    """
    if modality not in _FAULTS:
        raise SourceError(f"there is no simulated '{modality}'; choose one of {', '.join(_FAULTS)}")
    parsed = parse_spec(modality, spec)
    if modality == "face":
        return SimFace(parsed, lazy=lazy)
    return SimVoice(parsed) if modality == "voice" else SimEda(parsed)


@lru_cache(maxsize=4)
def _live_person(seed: int) -> Person:
    return Person.live(seed)


def simulated_truth(seed: int, t: float) -> dict[str, float]:
    """The feelings of the person of `sim:seed=...` at stream time `t`: pain 0..1, valence and arousal -1..1."""
    return _live_person(seed).truth(t)


def window_label(seed: int, end: float) -> int | None:
    """The label of the 5.5 s window ending at `end`: 1 pain, 0 rest, None in transition (`Episodes.window_label`)."""
    scenario = _live_person(seed).scenario
    return scenario.window_label(end) if isinstance(scenario, Episodes) else None
