"""Frames of whatever depth and channels as 8-bit BGR."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3) BGR
_DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras put into 16


class UnknownFrame(ValueError):
    """A frame that is neither grey, BGR nor BGRx; the message is one sentence for the user."""


class ToBgr:
    """Turns a stream's frames into 8-bit BGR.

    Grey becomes three equal channels, the fourth channel of BGRx and BGRA is left out. Samples of 16 bits are scaled by
    the depth that the brightest of the stream needs (10, 12, 14 or 16 bits); floats are taken as 0 to 1.
    """

    def __init__(self) -> None:
        self._bits = 8

    def __call__(self, frame: NDArray[Any]) -> Image:
        """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) -> (H, W, 3). Raises UnknownFrame."""
        image = frame[..., None] if frame.ndim == 2 else frame
        known = image.ndim == 3 and image.shape[2] in (1, 3, 4)
        if not known or image.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            shape = "x".join(map(str, frame.shape))
            raise UnknownFrame(
                f"frames of {frame.dtype} {shape} are neither grey, BGR nor BGRx; end the pipeline in "
                "`videoconvert ! video/x-raw,format=BGR ! appsink`"
            )
        image = image[..., :3]
        if image.dtype == np.uint16:
            top = int(image.max(initial=0))
            self._bits = next(bits for bits in _DEPTHS if bits >= self._bits and top < 1 << bits)
            image = (image >> (self._bits - 8)).astype(np.uint8)
        elif image.dtype != np.uint8:
            image = np.nan_to_num(image * 255.0).clip(0, 255).astype(np.uint8)
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else np.ascontiguousarray(image)
