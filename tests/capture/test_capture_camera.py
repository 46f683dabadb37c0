"""The camera: specifications, stamps, the bounded ring, a camera that stalls, goes away and comes back."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from jmt_edge.capture import camera as module
from jmt_edge.capture import open_source
from jmt_edge.capture.base import State
from jmt_edge.capture.camera import Camera, CameraSpec, open_capture, parse_camera
from jmt_edge.capture.reconnect import Timing
from jmt_edge.errors import SourceError

FAST = Timing(first=0.5, stall=0.15, lost=0.3, backoff=0.02, backoff_max=0.05)


class FakeCapture:
    """A `cv2.VideoCapture` whose frames count up; `mode` of the rig says how it behaves."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.released = False

    def grab(self) -> bool:
        time.sleep(self.rig.period)
        while self.rig.mode == "hang":
            time.sleep(0.01)
        return self.rig.mode != "gone"

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        if self.rig.mode == "blank":
            return False, None
        self.rig.count += 1
        image = np.zeros((*self.rig.shape, 3), np.uint8)
        image[..., :2] = self.rig.count % 256, self.rig.count // 256
        return True, image

    def get(self, what: int) -> float:
        known = {
            cv2.CAP_PROP_FRAME_WIDTH: 320, cv2.CAP_PROP_FRAME_HEIGHT: 240, cv2.CAP_PROP_FPS: 15,
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter_fourcc(*"MJPG"),
        }  # fmt: skip
        return float(known.get(what, 0))

    def release(self) -> None:
        self.released = True
        self.rig.open_now -= 1


def number(image: np.ndarray) -> int:
    return int(image[0, 0, 0]) + 256 * int(image[0, 0, 1])


class Rig:
    def __init__(self, period: float = 0.005, shape: tuple[int, int] = (24, 32)) -> None:
        self.period, self.shape = period, shape
        self.mode = "stream"
        self.count = self.opens = self.open_now = 0

    def __call__(self, spec: CameraSpec) -> FakeCapture:
        if self.mode == "gone":
            raise SourceError(f"there is no camera {spec.target}; plug it in")
        self.opens += 1
        self.open_now += 1
        return FakeCapture(self)


def wait_for(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def started(rig: Rig) -> tuple[Camera, float]:
    camera = Camera("0", opener=rig, timing=FAST)
    origin = time.monotonic()
    camera.open(origin)
    wait_for(lambda: camera.status().state is State.STREAMING)
    return camera, origin


def test_specifications() -> None:
    assert parse_camera("2") == CameraSpec("v4l2", "/dev/video2")
    assert parse_camera("/dev/video1?width=1280&height=720&fps=60") == CameraSpec("v4l2", "/dev/video1", 1280, 720, 60)
    assert parse_camera("csi:1?width=1920&height=1080").pipeline == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=30/1 "
        "! nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=1 max-buffers=1"
    )
    own = "videotestsrc ! videoconvert ! video/x-raw,format=BGR ! appsink"
    assert parse_camera(own).pipeline == own
    for bad in ("csi:", "csi:left", "0?colour=1", "0?width=wide", "0?fps=0", "videotestsrc ! fakesink"):
        with pytest.raises(SourceError):
            parse_camera(bad)


def test_each_device_specification_makes_a_camera() -> None:
    for spec in ("0", "/dev/video7", "csi:0?fps=60", "videotestsrc ! appsink"):
        assert isinstance(open_source("face", spec), Camera)


def test_an_absent_camera_is_one_sentence() -> None:
    if Path("/dev/video77").exists():
        pytest.skip("this machine has 78 cameras")
    source = open_source("face", "77")
    assert source is not None
    with pytest.raises(SourceError, match=r"there is no camera /dev/video77 \(found: .*\); plug it in"):
        source.open(0.0)
    source.close()


def test_a_device_that_is_no_camera_is_one_sentence() -> None:
    with pytest.raises(SourceError, match="does not open"):
        open_capture(CameraSpec("v4l2", "/dev/null"))


def test_csi_without_gstreamer_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_gstreamer", lambda: False)
    with pytest.raises(SourceError, match=r"csi:0.*GStreamer.*--system-site-packages"):
        open_capture(parse_camera("csi:0"))


def test_gstreamer_support_is_read_from_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    for line, expected in (("    GStreamer:   YES (1.20.3)", True), ("    GStreamer:   NO", False), ("", False)):
        monkeypatch.setattr(cv2, "getBuildInformation", lambda line=line: f"Video I/O:\n{line}\n")
        assert module.has_gstreamer() is expected


def test_frames_come_once_in_order_stamped_at_the_grab() -> None:
    rig = Rig()
    camera, origin = started(rig)
    numbers: list[int] = []
    times: list[float] = []
    while len(numbers) < 40:
        chunk = camera.read(time.monotonic() - origin)
        numbers += [number(image) for image in chunk.values]
        times += chunk.times.tolist()
        time.sleep(0.01)
    assert numbers == list(range(1, len(numbers) + 1))
    assert np.all(np.diff(times) > 0) and times[0] >= 0 and times[-1] <= time.monotonic() - origin
    camera.close()
    assert rig.open_now == 0 and camera.status().state is State.ENDED


def test_frames_after_the_asked_time_wait() -> None:
    rig = Rig()
    camera, origin = started(rig)
    wait_for(lambda: rig.count > 20)
    middle = (time.monotonic() - origin) / 2
    first = camera.read(middle)
    second = camera.read(1e9)
    assert len(first) and len(second) and first.times[-1] <= middle < second.times[0]
    camera.close()


def test_requested_and_actual_size_and_rate_are_reported() -> None:
    camera, _ = started(Rig(shape=(48, 64)))
    wait_for(lambda: camera.status().detail["measured_fps"] > 0)
    detail = camera.status().detail
    assert detail["requested"] == {"width": 640, "height": 480, "fps": 30.0}
    assert detail["actual"] == {"width": 64, "height": 48, "fps": 15.0, "format": "MJPG"}
    assert 0 <= detail["frame_age"] < 5
    camera.close()


def test_a_reader_that_falls_behind_gets_the_newest_frames_and_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RING_FRAMES", 10)
    rig = Rig(period=0.001)
    camera, _ = started(rig)
    wait_for(lambda: rig.count > 60)
    chunk = camera.read(1e9)
    assert len(chunk) <= 10 and chunk.lost >= 50
    numbers = [number(image) for image in chunk.values]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] == chunk.lost + 1
    assert camera.status().lost == chunk.lost
    camera.close()


@pytest.mark.parametrize("mode", ["gone", "blank", "hang"])
def test_a_camera_that_fails_is_noticed_and_recovers(mode: str) -> None:
    rig = Rig()
    camera, origin = started(rig)
    rig.mode = mode
    wait_for(lambda: camera.status().state is not State.STREAMING)
    status = camera.status()
    assert status.reason
    camera.read(1e9)
    wait_for(lambda: mode == "hang" or camera.status().state in (State.BACKOFF, State.LOST, State.CONNECTING))
    back = time.monotonic()
    rig.mode = "stream"
    wait_for(lambda: camera.status().state is State.STREAMING)
    chunk = camera.read(time.monotonic() - origin)
    assert len(chunk) == 0 or chunk.times[0] >= back - origin - 1.0
    assert camera.status().reconnects == (0 if mode == "hang" else 1)
    camera.close()
    assert rig.open_now == 0


def test_200_unplugs_leak_neither_threads_nor_captures() -> None:
    rig = Rig(period=0.001)
    before = threading.active_count()
    camera = Camera("0", opener=rig, timing=Timing(first=0.5, stall=0.15, lost=0.3, backoff=0.001, backoff_max=0.002))
    camera.open(time.monotonic())
    for cycle in range(200):
        wait_for(lambda: camera.status().state is State.STREAMING)
        rig.mode = "gone"
        wait_for(lambda: camera.status().state is not State.STREAMING)
        rig.mode = "stream"
        wait_for(lambda cycle=cycle: camera.status().reconnects > cycle)
    assert threading.active_count() == before + 1
    assert rig.open_now == 1
    camera.close()
    assert threading.active_count() == before and rig.open_now == 0


def test_a_real_opencv_capture_streams(shared_data: Path) -> None:
    file = str(shared_data / "av/grid/bbaf2n.mpg")
    camera = Camera("0", opener=lambda spec: cv2.VideoCapture(file), timing=FAST)
    origin = time.monotonic()
    camera.open(origin)
    images: list[np.ndarray] = []

    def enough() -> bool:
        images.extend(camera.read(time.monotonic() - origin).values)
        return len(images) >= 75

    wait_for(enough)
    assert images[0].shape == (288, 360, 3) and images[0].std() > 10
    camera.close()


@pytest.mark.parametrize(("age", "used"), [(2.0, True), (0.0, True), (-1.0, False), (1e6, False)])
@pytest.mark.parametrize("stamped", [True, False])
def test_a_frame_that_waited_in_the_driver_has_the_time_at_which_it_was_taken(
    age: float, used: bool, stamped: bool
) -> None:
    class Late:
        def grab(self) -> bool:
            self.stamp = time.monotonic() - age
            return True

        def get(self, what: int) -> float:
            return self.stamp * 1000 if what == cv2.CAP_PROP_POS_MSEC else 0.0

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, np.zeros((4, 4, 3), np.uint8)

    capture, times = Late(), []
    assert module._Grabber(capture, lambda t, image: times.append(t), stamped=stamped).pump()
    before = time.monotonic() - times[0]
    assert (times[0] == pytest.approx(capture.stamp, abs=1e-6)) if used and stamped else 0 <= before < max(1.0, age)
