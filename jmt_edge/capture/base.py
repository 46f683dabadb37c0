"""The interface of every source of samples: devices, files, simulations and replays.

Stream time is seconds since the run's origin (t = 0), on the host's monotonic clock. A device's own clock is
fitted to it inside the source; its readers see stream time only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from ..media.chunk import Chunk


class LazyFrames(Sequence[Any]):
    """A chunk's frames, each made from its item whenever it is accessed; `once` makes each only the first time."""

    def __init__(self, make: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self._make, self._items = make, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, i: Any) -> Any:
        return LazyFrames(self._make, self._items[i]) if isinstance(i, slice) else self._make(self._items[i])

    @classmethod
    def once(cls, make: Callable[[Any], Any], items: Iterable[Any], turn: threading.Lock) -> LazyFrames:
        """Frames that are kept once made. turn: held while one is made, so that `make` is called by one thread."""
        return cls(_Once.get, [_Once(make, item, turn) for item in items])

    @classmethod
    def joined(cls, parts: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """The frames of all parts in order, not made yet where all are made alike."""
        lazy = [part for part in parts if isinstance(part, LazyFrames)]
        if lazy and len(lazy) == len(parts) and all(part._make == lazy[0]._make for part in lazy):
            return cls(lazy[0]._make, [item for part in lazy for item in part._items])
        return [frame for part in parts for frame in part]


class _Once:
    def __init__(self, make: Callable[[Any], Any], item: Any, turn: threading.Lock) -> None:
        self._make, self._item, self._turn = make, item, turn
        self._made: Any = None

    def get(self) -> Any:
        with self._turn:
            if self._made is None:
                self._made = self._make(self._item)
            return self._made


class State(str, Enum):
    """A source's life: see `docs/reference/sources.md` for the transitions."""

    CONNECTING = "connecting"
    STREAMING = "streaming"
    STALLED = "stalled"
    LOST = "lost"
    BACKOFF = "backoff"
    ENDED = "ended"  # a file, or a simulation of limited length, is over


@dataclass
class Clock:
    """The fit of a device's clock to the host's: offset (s), drift, jitter (s)."""

    offset: float = 0.0
    drift_ppm: float = 0.0
    jitter: float = 0.0


@dataclass
class Status:
    """A source's state and the reason for it; `unit` is `µS` or `a.u.` for EDA."""

    state: State
    reason: str = ""
    clock: Clock = field(default_factory=Clock)
    lost: int = 0
    reconnects: int = 0
    unit: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """One stream. `open` once, `read` every hop from one thread, `close` once (also after an error)."""

    modality: str
    name: str
    realtime: bool  # a device, which sets the pace; False: readable at any speed

    def open(self, origin: float) -> None:
        """Start streaming; `origin` is `time.monotonic()` at stream time 0.

        Raises SourceError where the source does not exist or cannot be used at all. A device that is lost later
        reconnects automatically; `status` shows it.
        """

    def read(self, until: float) -> Chunk:
        """All samples since the last read with time <= `until`. Never blocks on a device."""

    def status(self) -> Status: ...

    def close(self) -> None: ...
