"""The interface of everything that watches a run: outputs, the recorder, the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .capture.base import Status
from .media.chunk import Chunk
from .trace import span
from .wall_clock import WallClock

if TYPE_CHECKING:
    from .engine.bundle import Bundle
    from .preprocessing.face import Face
    from .result import Result
    from .summary import Summary


@dataclass(frozen=True)
class Mark:
    """A note made at stream time `t`: a text, a pain rating 0-10, or both.

    corrects: the `t` of the rating that this one takes the place of; without a `rating` it withdraws it.
    """

    t: float
    text: str = ""
    rating: int | None = None
    corrects: float | None = None

    @property
    def label(self) -> str:
        """The mark as one text, for streams of texts: `rating 7: after the cold pack`."""
        if self.corrects is not None:
            at = f"rating of {self.corrects:.3f} s"
            return f"{at} withdrawn" if self.rating is None else f"{at} corrected: {self.rating}"
        if self.rating is None:
            return self.text
        return f"rating {self.rating}" + (f": {self.text}" if self.text else "")


@dataclass(frozen=True)
class RunInfo:
    """What is known before the first sample. `sources`: modality -> the source's name, "" where there is none.

    first: the index of the run's first window. replay: the recording that is replayed; empty in a live run.
    novelty: what happens to clips that are unlike the training people's: gate, warn, off, or `not checked` where the
        bundle cannot tell. demo_alarms: physiological alarms although demo weights look at a real person. follow: whose
        face is followed, see `FaceTracker`. origin: `time.monotonic()` at stream time 0. uncertainty: what is promised
        of the sets and intervals of results, such as 90%, or `not known`. actions: results hold facial actions.
    clock: the one owner of the wall time of the run's seconds; the loop reads it again and tells `Observer.on_clock`.
    """

    bundle: Bundle
    backend: str
    precision: dict[str, str]
    hop: float
    realtime: bool
    smooth: float
    sources: dict[str, str]
    first: int = 1
    replay: str = ""
    novelty: str = "off"
    demo_alarms: bool = False
    follow: str = "largest"
    origin: float = 0.0
    uncertainty: str = "not known"
    actions: bool = False
    clock: WallClock = field(default_factory=WallClock, compare=False, repr=False)

    @property
    def alarms_off(self) -> str:
        """Why there are no physiological alarms; empty where there may be. A replayed source counts as a real one."""
        real = any(source and not source.startswith("sim:") for source in self.sources.values())
        return "demo weights" if self.bundle.demo and real and not self.demo_alarms else ""

    @property
    def zero(self) -> float | None:
        """Unix time at stream time 0; None where stream time is not the time of a clock."""
        return self.clock.at(self.origin) if self.realtime and self.origin else None

    def refusal(self, what: str) -> str:
        """Why a person cannot act on this run, so that `what`; empty in a live run."""
        return "" if self.realtime else f"this run is not live ({self.replay or 'files at full speed'}), so {what}"


class Observer:
    """Override the methods you need. All are called in the loop's thread, and none may block: the loop waits for it.

    Order of calls: `on_start`; for each window `on_chunk` (many), `on_face`, `on_mark`, then `on_status` with the
    statuses that the window's gate will read, then `on_result`; finally `on_end`. The chunks between the
    `on_result` of window i and that of window j > i are those that window j saw first, so feeding them in that
    order to a `Pipeline` gives the same results. A dropped window has no `on_status` and no `on_result`; `on_skip`
    announces it before any of its successor's chunks.
    """

    def on_start(self, info: RunInfo) -> None: ...

    def on_chunk(self, modality: str, chunk: Chunk) -> None: ...

    def on_face(self, t: float, face: Face | None) -> None:
        """The detector processed the frame at time `t`; only frames that a clip uses are processed."""

    def on_mark(self, mark: Mark) -> None: ...

    def on_skip(self, index: int) -> None:
        """Windows before `index` without a result were dropped; the next samples belong to window `index`."""

    def on_rest(self, seconds: float) -> None:
        """The person rests for so long, beginning with the next window."""

    def on_status(self, statuses: Mapping[str, Status]) -> None: ...

    def on_result(self, result: Result) -> None: ...

    def on_turn(self) -> None:
        """The loop advances: called at every pull, each 40 ms in real time, and between all the other calls."""

    def on_ending(self) -> None:
        """The run is about to end: what is asked of `Controls` now is the last that takes effect."""

    def on_clock(self, t: float, step: float) -> None:
        """The system's clock was set by `step` s at stream time `t`; `RunInfo.clock` knows it already."""

    def on_end(self, summary: Summary) -> None:
        """The last call: every observer gets it, in their order, even where one before it raised."""


def tell(observers: Iterable[Observer], method: str, *args: object) -> None:
    """Call `method` of every observer."""
    for observer in observers:
        with span(method, observer=type(observer).__name__):
            getattr(observer, method)(*args)


def tell_end(observers: Iterable[Observer], summary: Summary) -> None:
    """Call `on_end` of every observer, then raise the first of their errors."""
    problem: BaseException | None = None
    for observer in observers:
        try:
            observer.on_end(summary)
        except BaseException as error:  # a recording is closed even where Ctrl-C ends the page's farewell
            problem = problem or error
    if problem is not None:
        raise problem
