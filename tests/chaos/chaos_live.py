"""`jmt-edge` with a camera of the chaos run's: stamped images from a Unix socket in place of a V4L2 device.

All else is the real program.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Any

import numpy as np

from jmt_edge.capture import camera
from jmt_edge.cli import main
from jmt_edge.errors import SourceError
from jmt_edge.opencv import cv2

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
