"""A network camera by PyAV, for an OpenCV without FFmpeg (JetPack's has GStreamer only)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError, first_line
from ..opencv import cv2


class PyAvCapture:
    """As much of `cv2.VideoCapture` as `Camera` needs. Raises SourceError where `url` cannot be opened."""

    def __init__(self, url: str, open_timeout: float, read_timeout: float) -> None:
        from .camera import without_password

        shown = without_password(url)
        try:
            import av
        except ImportError:
            raise SourceError(
                f"camera {shown} needs FFmpeg, which this OpenCV has not; run `pip install 'jmt-edge[record]'`"
            ) from None
        self._errors = (av.FFmpegError, OSError)
        options = {"rtsp_transport": "tcp"} if url.lower().startswith("rtsp") else {}
        try:
            self._container: Any = av.open(url, options=options, timeout=(open_timeout, read_timeout))
            stream = self._container.streams.video[0]
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            raise SourceError(
                f"camera {shown} does not answer, or sends no video ({first_line(error)}); check its address, its user "
                "and password, and the network"
            ) from None
        self._known = {
            cv2.CAP_PROP_FRAME_WIDTH: stream.codec_context.width,
            cv2.CAP_PROP_FRAME_HEIGHT: stream.codec_context.height,
            cv2.CAP_PROP_FPS: float(stream.average_rate or 0),
        }
        self._frames = self._container.decode(stream)
        self._frame: Any = None

    def get(self, what: int) -> float:
        return float(self._known.get(what, 0))

    def grab(self) -> bool:
        """Wait for the next frame; False where the stream has ended or failed."""
        try:
            self._frame = next(self._frames, None)
        except self._errors:
            self._frame = None
        return self._frame is not None

    def retrieve(self) -> tuple[bool, NDArray[np.uint8]]:
        return True, self._frame.to_ndarray(format="bgr24")

    def release(self) -> None:
        self._container.close()
