"""A camera that is mounted on its side or upside down: `?rotate=90|180|270` turns its pictures clockwise.

Without it, or with `rotate=auto`, pictures stay as they are, and a person who lies turned in them is found and followed
as such (`FaceTracker`).
"""

from __future__ import annotations

from ..errors import SourceError
from ..media.chunk import Chunk
from ..media.pixels import Image
from ..opencv import cv2
from .base import LazyFrames, Source, Status
from .spec import split_query

_CODES = {"90": cv2.ROTATE_90_CLOCKWISE, "180": cv2.ROTATE_180, "270": cv2.ROTATE_90_COUNTERCLOCKWISE}


def split_rotate(spec: str, *keys: str) -> tuple[str, str]:
    """A camera's specification without `rotate`, and its value; `auto` where it is not given.

    keys: the other settings. Raises SourceError for any other value and as `split_query` does.
    """
    target, given = split_query(spec, *keys, "rotate")
    rotate = given.pop("rotate", "auto")
    if rotate != "auto" and rotate not in _CODES:
        raise SourceError(f"'{spec}': rotate is '{rotate}'; give 90, 180, 270 or auto")
    rest = "&".join(f"{key}={value}" for key, value in given.items())
    return (f"{target}?{rest}" if rest else target), rotate


def turned(source: Source, rotate: str) -> Source:
    """`source` with its pictures turned; itself for `auto`."""
    return source if rotate == "auto" else _Turned(source, rotate)


class _Turned:
    def __init__(self, source: Source, rotate: str) -> None:
        self._source, self._rotate = source, rotate
        self.modality, self.realtime = source.modality, source.realtime
        self.name = f"{source.name}{'&' if '?' in source.name else '?'}rotate={rotate}"

    def open(self, origin: float) -> None:
        self._source.open(origin)

    def read(self, until: float) -> Chunk:
        chunk = self._source.read(until)
        return Chunk(chunk.times, LazyFrames(self._turn, chunk.values), chunk.rate, chunk.lost)

    def _turn(self, image: Image) -> Image:
        return cv2.rotate(image, _CODES[self._rotate])  # type: ignore[return-value]

    def status(self) -> Status:
        status = self._source.status()
        status.detail["rotate"] = int(self._rotate)
        return status

    def close(self) -> None:
        self._source.close()
