"""Which frames make a clip, and the array the visual backbone takes.

Affect (Affwild2): a clip spans 32 consecutive frames of a 30 fps video and keeps 8, every 4th, aligned to the last.
Where fewer frames exist before the clip's end: 24-31 every 3rd, 16-23 every 2nd, 8-15 the last 8, 1-7 all of them,
the last one repeated. Pain (BioVid): T frames evenly over 3 s. Both are one rule: T times, `span / T` apart,
the last at the clip's end.

A frame without a face is either the last face seen before it ("hold") or black. Black is a zero image *before*
normalisation, as in the published code, so the network sees -mean / std there, not 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..opencv import cv2
from ..tasks import Modality

EVERY = 4  # a full clip keeps every 4th frame
MAX_OFFSET = 0.125  # s; a frame further than this (or half a step) from the time wanted does not stand for it

Crop = NDArray[np.uint8]


def clip_indices(count: int, frames: int = 8) -> NDArray[np.int64]:
    """Indices, oldest first, of the `frames` video frames of a clip that ends at frame `count - 1`.

    `count` (>= 1) frames exist up to and including the clip's last; with `frames` 8 the published rules.
    """
    if count < 1:
        raise ValueError("a clip needs at least one frame")
    last = count - 1
    if count < frames:
        return np.minimum(np.arange(frames), last)
    every = min(EVERY, count // frames)
    return last - every * np.arange(frames - 1, -1, -1)


def frame_times(m: Modality, end: float, start: float = -np.inf) -> NDArray[np.float64]:
    """(T,) times in s, oldest first, of the frames that a clip of `m` ending at `end` wants.

    `start` is the time of the stream's first frame: a stream younger than the clip follows the short-clip rules,
    with `span / (4 T)` (1/30 s for affect) as the frame period. At 30 fps this agrees with `clip_indices`.
    """
    frames = m.shape[1]
    period = m.span / (EVERY * frames)
    full = EVERY * frames
    count = full if end - start >= m.span else max(1, round((end - start) / period) + 1)
    indices = clip_indices(min(count, full), frames)
    return np.asarray(end - (min(count, full) - 1 - indices) * period, np.float64)


def face_clip(
    crops: Sequence[tuple[float, Crop | None]], end: float, m: Modality, start: float = -np.inf
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The clip of `m` that ends at `end`: ((3, T, H, W) float32 normalised, (T,) bool).

    crops: (time in s, aligned RGB face (h, w, 3) uint8, or None where the frame shows no face), in time order;
        older ones than the clip may be there and serve to hold. Other sizes than (H, W) are resized.
    The second array is True where the frame wanted is there and shows a face. Frames later than `end` are not used.
    With "hold", a frame before the first face gets that first face; a clip without any face is black.
    """
    _, frames, height, width = m.shape
    known = [(t, crop) for t, crop in crops if t <= end + 1e-6]
    times = np.array([t for t, _ in known])
    tolerance = max(m.span / frames / 2, MAX_OFFSET) + 1e-6
    picked: list[Crop | None] = []
    valid = np.zeros(frames, bool)
    wanted = frame_times(m, end, start)
    for i, t in enumerate(wanted):
        crop = None
        if len(known):
            nearest = int(np.argmin(np.abs(times - t)))
            if abs(times[nearest] - t) <= tolerance:
                crop = known[nearest][1]
        valid[i] = crop is not None
        if crop is None and m.fill == "hold":
            crop = next((c for s, c in reversed(known) if s <= t + tolerance and c is not None), None)
        picked.append(crop)
    if m.fill == "hold":
        first = next((crop for crop in picked if crop is not None), None)
        picked = [first if crop is None else crop for crop in picked]
    clip = np.zeros((frames, height, width, 3), np.uint8)
    for i, crop in enumerate(picked):
        if crop is not None:
            clip[i] = crop if crop.shape[:2] == (height, width) else _resize(crop, width, height)
    mean, std = np.asarray(m.mean, np.float32), np.asarray(m.std, np.float32)
    normalised = (clip.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(normalised.transpose(3, 0, 1, 2)), valid


def _resize(crop: Crop, width: int, height: int) -> NDArray[np.uint8]:
    shrinks = width < crop.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (width, height), interpolation=method), np.uint8)
