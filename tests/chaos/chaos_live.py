"""`jmt-edge` with two things of the chaos run's: a camera, stamped images from a Unix socket in place of a V4L2 device,
and the wall clock as Python sees it, `CHAOS_WALL` seconds ahead.

All else is the real program.
"""

from __future__ import annotations

import datetime
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_true_time = time.time


def _shifted() -> float:
    return _true_time() + float(Path(os.environ["CHAOS_WALL"]).read_text() or 0)


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _Datetime:
        return cls.fromtimestamp(_shifted(), tz)


if __name__ == "__main__":  # before any module of the program takes its clock
    time.time, time.time_ns = _shifted, lambda: int(1e9 * _shifted())
    datetime.datetime = _Datetime  # type: ignore[misc]

from jmt_edge.capture import camera  # noqa: E402
from jmt_edge.cli import main  # noqa: E402
from jmt_edge.errors import SourceError  # noqa: E402
from jmt_edge.opencv import cv2  # noqa: E402

WIDTH, HEIGHT = 320, 240
SIZE = WIDTH * HEIGHT * 3


class SocketCapture:
    """As much of `cv2.VideoCapture` as `Camera` needs; `grab` waits for up to 1 s, as V4L2's does."""

    def __init__(self, spec: Any) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SIZE)
        self._socket.settimeout(1.0)
        try:
            self._socket.connect(os.environ["CHAOS_CAMERA"])
        except OSError as error:
            raise SourceError(f"there is no camera {spec.target} ({error.strerror}); plug it in") from None
        self._image, self._stamp = b"", 0.0

    def grab(self) -> bool:
        self._image = b""
        try:
            while len(self._image) < SIZE + 8:
                part = self._socket.recv(SIZE + 8 - len(self._image))
                if not part:
                    return False
                self._image += part
        except OSError:
            return False
        self._stamp = struct.unpack("<d", self._image[:8])[0]
        return True

    def retrieve(self) -> tuple[bool, Any]:
        return True, np.frombuffer(self._image[8:], np.uint8).reshape(HEIGHT, WIDTH, 3).copy()

    def get(self, what: int) -> float:
        return 1000 * self._stamp if what == cv2.CAP_PROP_POS_MSEC else 0.0

    def release(self) -> None:
        self._socket.close()


if __name__ == "__main__":
    camera.Camera.__init__.__kwdefaults__["opener"] = SocketCapture
    sys.exit(main())
