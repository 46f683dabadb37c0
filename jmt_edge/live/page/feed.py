"""Hand-over from the loop's thread to the page's: the loop stores references here, the page takes them.

Nothing is computed, copied or encoded in the loop's calls. What the page does not fetch in time is dropped: only the
newest frame and face are kept, and of everything else the newest `INBOX`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ...capture.base import Status
from ...errors import ConfigError
from ...media.chunk import Chunk
from ...observer import Mark, RunInfo
from ...preprocessing.face import Face
from ...result import Result
from ..judge import Heard

INBOX = 2000  # entries: about half a minute at 25 pulls per second of two modalities
SHOWN = ("face", "voice", "eda")  # the modalities that the page can show


class Feed(Heard):
    """The observer's half of the page. `take` is called by the page's thread, everything else by the loop's."""

    def __init__(self) -> None:
        super().__init__()
        self.frame: tuple[float, Sequence[Any]] | None = None  # stream time, the one frame (H, W, 3) uint8 BGR
        self.face: tuple[float, Face | None] | None = None
        self._inbox: deque[tuple[str, Any]] = deque(maxlen=INBOX)

    def take(self) -> list[tuple[str, Any]]:
        """(kind, what) since the last call, oldest first. Kinds: eda, voice, status, result, mark."""
        taken = []
        while self._inbox:
            taken.append(self._inbox.popleft())
        return taken

    def on_start(self, info: RunInfo) -> None:
        """Raises ConfigError for a modality that the page cannot show."""
        unknown = [name for name in info.bundle.task.names if name not in SHOWN]
        if unknown:
            raise ConfigError(f"the page cannot show the modality '{unknown[0]}'; leave --page out")
        super().on_start(info)

    def on_chunk(self, modality: str, chunk: Chunk) -> None:
        super().on_chunk(modality, chunk)
        if not len(chunk):
            return
        if modality == "face":
            self.frame = (float(chunk.times[-1]), chunk.values[-1:])
        else:
            self._inbox.append((modality, chunk))

    def on_face(self, t: float, face: Face | None) -> None:
        self.face = (t, face)

    def on_mark(self, mark: Mark) -> None:
        self._inbox.append(("mark", mark))

    def on_status(self, statuses: Mapping[str, Status]) -> None:
        super().on_status(statuses)
        self._inbox.append(("status", dict(statuses)))

    def on_result(self, result: Result) -> None:
        super().on_result(result)
        self._inbox.append(("result", result))
