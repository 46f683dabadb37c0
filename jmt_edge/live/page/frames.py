"""The camera's picture as JPEG: always the newest, encoded once for all clients, and only if one shows it."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...opencv import cv2
from ...trace import span
from .feed import Feed

FPS = 12.0
MAX_SIDE = 480
QUALITY = 72
BOX_AGE = 1.0  # s after which a face's position is no longer trusted
MARGIN = 0.35  # of the box's size, added on each side before blurring
MODES = ("show", "blur", "hide")

Image = NDArray[np.uint8]


class Frames:
    """Encodes the feed's newest frame. `encoded` counts the pictures."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._made: dict[str, tuple[float, bytes]] = {}  # mode -> (stream time, header after the sequence + JPEG)
        self.encoded = 0

    @property
    def newest(self) -> float | None:
        """Stream time of the newest frame."""
        return self._feed.frame[0] if self._feed.frame else None

    def get(self, mode: str) -> tuple[float, bytes] | None:
        """(stream time, message without its first 8 bytes) of the newest frame, None without one."""
        frame, seen = self._feed.frame, self._feed.face
        if frame is None:
            return None
        t, images = frame
        made = self._made.get(mode)
        if made is None or made[0] != t:
            box, score = None, 0.0
            if seen is not None and seen[1] is not None and abs(t - seen[0]) <= BOX_AGE:
                box, score = seen[1].box, seen[1].score
            with span("picture", face=mode):
                made = (t, _encode(t, images[0], box, score, blur=mode == "blur"))
            self._made[mode] = made
            self.encoded += 1
        return made

    def forget(self) -> None:
        """Drop the pictures, when no client shows them."""
        self._made.clear()


def header(sequence: int, blurred: bool) -> bytes:
    """The first 8 bytes of message type 1: u8 type, u8 blurred, u16 0, u32 sequence. Then follow f64 stream time,
    4 x f32 box as fractions of width and height (all 0: no face), f32 score, u32 0, and the JPEG."""
    return struct.pack("<BBHI", 1, blurred, 0, sequence)


def _encode(
    t: float, image: Image, box: tuple[float, float, float, float] | None, score: float, *, blur: bool
) -> bytes:
    height, width = image.shape[:2]
    part = (0.0, 0.0, 0.0, 0.0)
    if box is not None:
        part = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
    small = shrink(image)
    if blur:
        small = blurred(small, part if box is not None else None)
    return struct.pack("<d4ffI", t, *part, score, 0) + jpeg(small)


def jpeg(image: Image) -> bytes:
    encoded: Any = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return bytes(encoded.tobytes())


def shrink(image: Image) -> Image:
    scale = MAX_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def blurred(image: Image, box: tuple[float, float, float, float] | None) -> Image:
    """A copy with the face made unrecognisable; if no face is known, the whole picture, which may contain one."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box or (0.0, 0.0, 1.0, 1.0)
    wide, high = (x1 - x0) * MARGIN, (y1 - y0) * MARGIN
    left, right = max(0, int((x0 - wide) * width)), min(width, int((x1 + wide) * width))
    top, bottom = max(0, int((y0 - high) * height)), min(height, int((y1 + high) * height))
    out = image.copy()
    if right <= left or bottom <= top:
        return out
    part = out[top:bottom, left:right]
    # averages of about 8 x 8 blocks: the discarded detail cannot be restored by sharpening
    across = 8 if box else 16
    tiny = cv2.resize(
        part, (across, max(1, round(across * part.shape[0] / part.shape[1]))), interpolation=cv2.INTER_AREA
    )
    smooth = cv2.resize(tiny, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_CUBIC)
    out[top:bottom, left:right] = smooth
    return out
