"""Which frames make a clip.

Affect (Affwild2): a clip spans 32 consecutive frames of a 30 fps video and keeps every 4th of them, up to the last.
Pain (BioVid): T frames evenly over 3 s. Both are one rule: T times, `span / T` apart, the last at the clip's end.

A frame without a face is replaced by the last face seen before it ("hold") or by black. Black is a zero image *before*
normalisation, as in the published code, so the network sees -mean / std there, not 0.
Clips of measures are made by the same rule; there a frame whose face may not be used counts as one without a face.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tasks import Modality

MAX_OFFSET = 0.125  # s

Crop = NDArray[Any]  # what a clip holds of a frame: an aligned face (H, W, 3) uint8, or its measures (C,) float32


def tolerance(m: Modality) -> float:
    """How far a frame may lie from the time wanted (s): half a step, or `MAX_OFFSET` where that is more."""
    return max(m.span / m.shape[1] / 2, MAX_OFFSET)


def frame_times(m: Modality, end: float) -> NDArray[np.float64]:
    """(T,) times in s, oldest first, of the frames that a clip of `m` ending at `end` wants."""
    frames = m.shape[1]
    return np.asarray(end - np.arange(frames - 1, -1, -1) * (m.span / frames), np.float64)


def pick_crops(
    crops: Sequence[tuple[float, Crop | None]], end: float, m: Modality
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The frames of the clip of `m` that ends at `end`: ((T, H, W, 3) uint8 RGB or (T, C) float32 measures, (T,) bool).

    crops: (time in s, aligned RGB face (H, W, 3) uint8 or its measures, None where the frame shows no face), in time
        order; crops older than the clip may be included, for holding.
    The second array is True where the wanted frame exists and shows a face. Frames later than `end` are not used.
    With "hold", a frame before the first face gets that first face; a clip without any face is black.
    """
    channels, frames, *size = m.shape
    known = [(t, crop) for t, crop in crops if t <= end + 1e-6]
    times = np.array([t for t, _ in known])
    near = tolerance(m) + 1e-6
    picked: list[Crop | None] = []
    valid = np.zeros(frames, bool)
    for i, t in enumerate(frame_times(m, end)):
        crop = None
        if len(known):
            nearest = int(np.argmin(np.abs(times - t)))
            if abs(times[nearest] - t) <= near:
                crop = known[nearest][1]
        valid[i] = crop is not None
        if crop is None and m.fill == "hold":
            crop = next((c for s, c in reversed(known) if s <= t + near and c is not None), None)
        picked.append(crop)
    if m.fill == "hold":
        first = next((crop for crop in picked if crop is not None), None)
        picked = [first if crop is None else crop for crop in picked]
    clip = np.zeros((frames, *size, channels), np.float32 if m.measured else np.uint8)
    for i, crop in enumerate(picked):
        if crop is not None:
            clip[i] = crop
    return clip, valid
