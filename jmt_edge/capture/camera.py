"""Cameras: USB and V4L2 by index or path, CSI cameras of a Jetson, network cameras, any GStreamer pipeline.

A thread grabs every frame, stamps it with the host's monotonic clock when the grab returns and keeps the newest in
a bounded ring. The Jetson pipeline is NVIDIA's `nvarguscamerasrc` (Jetson Linux developer guide, camera chapter).
"""

from __future__ import annotations

import errno
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from ..media.chunk import Chunk
from ..media.pixels import Image, ToBgr, UnknownFrame
from ..opencv import cv2
from .base import Status
from .reconnect import DeviceLost, Link, Supervisor, Timing
from .spec import number, split_query

RING_BYTES = 192 << 20  # a second of 1080p at 30 fps; the loop reads 25 times a second
MAX_AGE = 60.0  # s that a frame may have waited in a driver; a larger difference is of another clock
RING_FRAMES = 90
URL_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "rtp", "srt")
OPEN_TIMEOUT_MS, READ_TIMEOUT_MS = 5000, 1000


@dataclass(frozen=True)
class CameraSpec:
    """The request. kind: `v4l2` (target: a path), `csi` (target: a sensor id), `gstreamer` (a pipeline) or `url`."""

    kind: str
    target: str
    width: int = 640
    height: int = 480
    fps: float = 30.0

    @property
    def pipeline(self) -> str:
        """The GStreamer pipeline of a CSI camera, or the user's own."""
        if self.kind == "gstreamer":
            return self.target
        return (
            f"nvarguscamerasrc sensor-id={self.target} ! video/x-raw(memory:NVMM),format=NV12,width={self.width},"
            f"height={self.height},framerate={round(self.fps)}/1 ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert "
            "! video/x-raw,format=BGR ! appsink drop=1 max-buffers=1"
        )


def parse_camera(spec: str) -> CameraSpec:
    """Read `0`, `/dev/video0`, `csi:0` with `?width=&height=&fps=`, a URL, or a pipeline with `!`.

    Raises SourceError for a malformed one.
    """
    scheme, mark, rest = spec.partition("://")
    if mark and "!" not in spec:
        if scheme.lower() not in URL_SCHEMES or not rest:
            raise SourceError(
                f"'{without_password(spec)}' is not a camera's address; write one of {', '.join(URL_SCHEMES)}://"
            )
        return CameraSpec("url", spec)
    if "!" in spec:
        if "appsink" not in spec.rpartition("!")[2]:
            raise SourceError(f"the pipeline '{spec}' does not end in appsink; end it with `! appsink drop=1`")
        return CameraSpec("gstreamer", spec)
    target, given = split_query(spec, "width", "height", "fps")
    csi = target.startswith("csi:")
    if csi and not re.fullmatch("[0-9]{1,3}", target[4:]):
        raise SourceError(f"'{spec}' is not a CSI sensor; write csi:0 for the first one")
    width = number(spec, given, "width", 16, 8192) or (1280 if csi else 640)
    height = number(spec, given, "height", 16, 8192) or (720 if csi else 480)
    fps = number(spec, given, "fps", 1, 1000) or 30.0
    if csi:
        return CameraSpec("csi", target[4:], int(width), int(height), fps)
    path = f"/dev/video{int(target)}" if re.fullmatch("[0-9]{1,9}", target) else target
    return CameraSpec("v4l2", path, int(width), int(height), fps)


def has_gstreamer() -> bool:
    """Whether this OpenCV was built with GStreamer."""
    lines = cv2.getBuildInformation().splitlines()
    return any("GStreamer:" in line and "YES" in line for line in lines)


def open_capture(spec: CameraSpec) -> Any:
    """An opened `cv2.VideoCapture`. Raises SourceError where the camera is absent, busy or permission is denied."""
    if spec.kind == "url":
        return open_url(spec.target)
    if spec.kind != "v4l2":
        if not has_gstreamer():
            raise SourceError(
                f"camera '{spec.kind}:{spec.target}' needs GStreamer, which this OpenCV ({cv2.__version__}) was built "
                "without; use JetPack's OpenCV in a venv made with --system-site-packages, or a USB camera"
            )
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
        capture = cv2.VideoCapture(spec.pipeline, cv2.CAP_GSTREAMER, limits)
        if not capture.isOpened():
            raise SourceError(
                f"the GStreamer pipeline '{spec.pipeline}' does not start; try it with gst-launch-1.0, and restart "
                "nvargus-daemon if a CSI camera hangs"
            )
        return capture
    _check_device(spec.target)
    capture = cv2.VideoCapture(spec.target, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise SourceError(
            f"camera {spec.target} does not open: another program is using it, or it delivers no images; close the "
            "other program, or run `jmt-edge doctor`"
        )
    # uncompressed VGA at 30 fps fills half a USB 2 bus; the format has to be set before the size
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, spec.width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, spec.height)
    capture.set(cv2.CAP_PROP_FPS, spec.fps)
    return capture


def open_url(url: str) -> Any:
    """A network camera by OpenCV's FFmpeg, or by PyAV where this OpenCV has none. Raises SourceError."""
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    if capture.isOpened():
        return capture
    if not has_ffmpeg():
        from .network import PyAvCapture

        return PyAvCapture(url, OPEN_TIMEOUT_MS / 1000, READ_TIMEOUT_MS / 1000)
    raise SourceError(
        f"camera {without_password(url)} does not answer, or sends no video; check its address, its user and password, "
        "and the network"
    )


def has_ffmpeg() -> bool:
    """Whether this OpenCV was built with FFmpeg."""
    return any("FFMPEG:" in line and "YES" in line for line in cv2.getBuildInformation().splitlines())


def without_password(url: str) -> str:
    """The address as it may be shown and recorded."""
    return re.sub(r"(?<=://)([^/@]*?):[^/@]*@", r"\1:***@", url)


def _check_device(path: str) -> None:
    if not Path(path).exists():
        present = sorted(str(p) for p in Path("/dev").glob("video*"))
        raise SourceError(f"there is no camera {path} (found: {', '.join(present) or 'none'}); plug it in")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise SourceError(
                f"no permission to read camera {path}; add the user to the group 'video' and log in again"
            ) from None
        if error.errno == errno.EBUSY:
            raise SourceError(f"camera {path} is in use by another program; close that program") from None
        raise SourceError(f"camera {path} does not open ({error.strerror}); plug it in again") from None


class _Grabber:
    """An open capture; each `pump` delivers one frame."""

    def __init__(self, capture: Any, deliver: Callable[[float, Image], None], *, stamped: bool = False) -> None:
        self._capture, self._deliver, self._stamped = capture, deliver, stamped
        self._bgr = ToBgr()
        self.symptom, self.unreadable = "the camera delivers no frames", ""
        self._last = -math.inf

    def pump(self) -> bool:
        if not self._capture.grab():
            raise DeviceLost("the camera stopped delivering frames")
        now = self._taken(time.monotonic())
        ok, image = self._capture.retrieve()
        if not ok or image is None or not image.size:
            return False
        try:
            bgr = self._bgr(image)
        except UnknownFrame as error:
            self.unreadable = str(error)
            return False
        self._last = now
        self._deliver(now, bgr)
        return True

    def _taken(self, now: float) -> float:
        """When the frame was taken. A driver keeps a few frames: after a pause of this process (a starved machine,
        SIGSTOP) they are as old as the pause. V4L2 stamps each on the monotonic clock; a stamp that cannot be one is
        not used.
        """
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if self._stamped else now
        return stamp if self._last < stamp <= now < stamp + MAX_AGE else now

    def close(self) -> None:
        self._capture.release()


class Camera:
    """A live camera; see `open_source` for the specifications. `opener` makes the capture (tests replace it)."""

    modality = "face"
    realtime = True

    def __init__(
        self, spec: str, *, opener: Callable[[CameraSpec], Any] = open_capture, timing: Timing | None = None
    ) -> None:
        self.spec = parse_camera(spec)
        self.name = without_password(spec)
        self._opener = opener
        self._link = Link(timing)
        self._supervisor = Supervisor(self._connect, self._link, f"camera {self.name}")
        self._lock = threading.Lock()
        self._ring: deque[tuple[float, Image]] = deque()
        self._bytes = 0
        self._overrun = self._lost = 0
        self._stamps: deque[float] = deque(maxlen=64)
        self._actual: dict[str, Any] = {}
        self._origin = 0.0

    def open(self, origin: float) -> None:
        self._origin = origin
        self._supervisor.start(self._connect())

    def _connect(self) -> _Grabber:
        capture = self._opener(self.spec)
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        self._actual = {
            "width": int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            "height": int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            "fps": float(capture.get(cv2.CAP_PROP_FPS)),
            "format": "".join(chr(code >> 8 * i & 0xFF) for i in range(4)).strip("\0") if code > 0 else "",
        }
        self._stamps.clear()
        return _Grabber(capture, self._deliver, stamped=self.spec.kind == "v4l2")

    def _deliver(self, now: float, image: Image) -> None:
        with self._lock:
            self._ring.append((now, image))
            self._bytes += image.nbytes
            self._stamps.append(now)
            self._actual["width"], self._actual["height"] = image.shape[1], image.shape[0]
            while len(self._ring) > RING_FRAMES or (self._bytes > RING_BYTES and len(self._ring) > 1):
                self._bytes -= self._ring.popleft()[1].nbytes
                self._overrun += 1

    def read(self, until: float) -> Chunk:
        """Frames stamped up to `until`. Frames that left the ring unread are counted as lost."""
        times: list[float] = []
        images: list[Image] = []
        with self._lock:
            while self._ring and self._ring[0][0] - self._origin <= until:
                t, image = self._ring.popleft()
                self._bytes -= image.nbytes
                times.append(t - self._origin)
                images.append(image)
            lost, self._overrun = self._overrun, 0
            self._lost += lost
        return Chunk(np.array(times, np.float64), images, self._measured_fps() or self.spec.fps, lost)

    def _measured_fps(self) -> float:
        stamps = list(self._stamps)
        return (len(stamps) - 1) / (stamps[-1] - stamps[0]) if len(stamps) > 1 and stamps[-1] > stamps[0] else 0.0

    def status(self) -> Status:
        """`detail`: requested and actual size and rate, the measured rate, and `frame_age` in seconds."""
        with self._lock:
            last = self._stamps[-1] if self._stamps else None
            fps = self._measured_fps()
            actual = dict(self._actual)
        detail = {
            "requested": {"width": self.spec.width, "height": self.spec.height, "fps": self.spec.fps},
            "actual": actual,
            "measured_fps": round(fps, 2),
            "frame_age": None if last is None else round(time.monotonic() - last, 3),
        }
        return Status(
            self._link.state, self._link.reason, lost=self._lost, reconnects=self._link.reconnects, detail=detail
        )

    def close(self) -> None:
        self._supervisor.stop()
        with self._lock:
            self._ring.clear()
            self._bytes = 0
