"""The boundary to files, frames and the network: right, or refused by name."""

from __future__ import annotations

import os
import re
import signal
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import wavfile

from jmt_edge.capture import camera as camera_module
from jmt_edge.capture import open_source
from jmt_edge.capture.ahead import PIECES, ReadAhead
from jmt_edge.capture.base import Source, State, Status
from jmt_edge.capture.camera import Camera, without_password
from jmt_edge.capture.files import EdaFile, ImageFolder, SoundFile, VideoFile
from jmt_edge.errors import SourceError
from jmt_edge.media.chunk import Chunk
from jmt_edge.media.pixels import ToBgr, UnknownFrame

CASES = Path(os.environ.get("JMT_EDGE_TEST_CASES", Path(__file__).resolve().parents[3] / "shared/cases/eda")).parent


def opened(modality: str, spec: object) -> Source:
    source = open_source(modality, str(spec))
    assert source is not None
    source.open(0.0)
    return source


def everything(source: Source) -> Chunk:
    times: list[float] = []
    values: list[Any] = []
    until = 0.0
    while source.status().state is not State.ENDED:
        until += 0.5
        chunk = source.read(until)
        times += chunk.times.tolist()
        values += list(chunk.values)
        assert until < 600
    source.close()
    return Chunk(np.array(times), values)


# ---- frames that are not 8-bit BGR


def test_frames_of_other_kinds_become_bgr() -> None:
    bgr = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    grey = bgr[..., 0]
    bgrx = np.concatenate([bgr, np.full((6, 8, 1), 7, np.uint8)], axis=2)
    cases = [
        (bgr, bgr), (bgrx, bgr), (grey, grey[..., None]), (grey[..., None], grey[..., None]),
        (grey.astype(np.uint16) << 8 | 255, grey[..., None]), (bgr.astype(np.float32) / 255, bgr),
    ]  # fmt: skip
    for frame, expected in cases:
        out = ToBgr()(frame)
        assert out.dtype == np.uint8 and out.shape == (6, 8, 3) and out.flags.c_contiguous
        assert np.abs(out.astype(int) - expected).max() <= (frame.dtype.kind == "f")


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_depth_of_a_stream_is_that_of_its_brightest_frame(bits: int) -> None:
    convert = ToBgr()
    bright = np.full((4, 4), (1 << bits) - 1, np.uint16)
    assert convert(bright).max() == 255
    assert convert(bright >> 1).max() == 127  # and stays so


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4), np.int32), np.zeros(9, np.uint8)])
def test_frames_that_are_no_picture_are_refused_by_name(frame: np.ndarray) -> None:
    with pytest.raises(UnknownFrame, match=rf"{frame.dtype}.*videoconvert"):
        ToBgr()(frame)


class Frames:
    """A `cv2.VideoCapture` that delivers one frame again and again."""

    def __init__(self, frame: np.ndarray) -> None:
        self.frame = frame

    def grab(self) -> bool:
        time.sleep(0.01)
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, self.frame

    def get(self, what: int) -> float:
        return 0.0

    def release(self) -> None: ...


def test_a_camera_of_bgrx_streams_and_one_of_yuyv_says_why_not() -> None:
    camera = Camera("0", opener=lambda spec: Frames(np.full((6, 8, 4), 9, np.uint8)))
    camera.open(time.monotonic())
    wait_for(lambda: len(camera.read(1e9)) > 0)
    camera.close()
    camera = Camera("0", opener=lambda spec: Frames(np.zeros((6, 8, 2), np.uint8)))
    camera.open(time.monotonic())
    wait_for(lambda: "neither grey, BGR nor BGRx" in camera.status().reason)
    assert camera.status().state is State.STALLED and not len(camera.read(1e9))
    camera.close()


def wait_for(done: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# ---- names


def write_video(path: Path, frames: int = 20) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 10 * i % 256, np.uint8))
    writer.release()


@pytest.mark.parametrize("name", ["0", "12", "a ! b", "csi:0", "rtsp:x", "odd?fps=3", "name with spaces", "x!appsink"])
def test_a_file_that_exists_wins_over_a_device_of_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "v.avi")
    (tmp_path / "v.avi").rename(tmp_path / name)
    assert isinstance(opened("face", name), VideoFile)
    wavfile.write(tmp_path / "w.wav", 44_100, np.zeros(4410, np.int16))
    (tmp_path / "w.wav").rename(tmp_path / name)
    assert isinstance(opened("voice", name), SoundFile)
    (tmp_path / name).write_text("t,uS\n" + "".join(f"{i / 10},{5 + i % 3}.5\n" for i in range(40)))
    assert isinstance(opened("eda", name), EdaFile)


@pytest.mark.parametrize("name", ["bitalino:x.csv", "auto:x", "csv:x", "grove:1"])
def test_an_eda_file_wins_over_a_board(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("t,uS\n" + "".join(f"{i / 10},{5 + i % 3}.5\n" for i in range(40)))
    assert isinstance(opened("eda", name), EdaFile)
    assert isinstance(opened("eda", f"{name}?unit=uS"), EdaFile)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm")
def test_files_in_dev_shm_are_files() -> None:
    folder = Path(f"/dev/shm/jmt-edge-test-{os.getpid()}")
    folder.mkdir()
    try:
        write_video(folder / "v.avi")
        (folder / "e.csv").write_text("t,uS\n" + "".join(f"{i / 10},{5 + i % 3}.5\n" for i in range(40)))
        assert isinstance(opened("face", folder / "v.avi"), VideoFile)
        assert isinstance(opened("eda", folder / "e.csv"), EdaFile)
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_names_that_no_file_can_have_are_one_sentence() -> None:
    for spec in ("x" * 5000, "a/" + "y" * 400, "~nobody-of-this-name/x.mp4"):
        for modality in ("face", "voice", "eda"):
            with pytest.raises(SourceError):
                opened(modality, spec + ".mp4")


# ---- folders


def test_a_folder_as_people_have_them(tmp_path: Path) -> None:
    """An empty first picture, macOS's `._` files, a sub-folder and a dangling link named as pictures, TIFF."""
    for n in range(2, 6):
        cv2.imwrite(str(tmp_path / f"f{n}.{'tif' if n % 2 else 'png'}"), np.full((8, 8, 3), n, np.uint8))
    (tmp_path / "f1.png").write_bytes(b"")
    (tmp_path / "._f2.png").write_bytes(b"\0\5\x16\7" * 20)
    (tmp_path / "sub.jpg").mkdir()
    (tmp_path / "f6.png").symlink_to(tmp_path / "nowhere.png")
    source = opened("face", f"{tmp_path}?fps=10")
    assert isinstance(source, ImageFolder) and source.status().detail["size"] == [8, 8]
    chunk = source.read(10.0)
    np.testing.assert_allclose(chunk.times, [0.1, 0.2, 0.3, 0.4])
    assert [int(image[0, 0, 0]) for image in chunk.values] == [2, 3, 4, 5] and chunk.lost == 2


def test_a_folder_without_a_readable_picture_is_refused(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(b"no")
    with pytest.raises(SourceError, match=r"0\.png is not a readable image"):
        opened("face", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    try:
        with pytest.raises(SourceError, match="Permission denied"):
            opened("face", tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_an_error_of_the_disk_while_a_folder_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Path) -> Iterator[Path]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "iterdir", fails)
    with pytest.raises(SourceError, match="Input/output error"):
        opened("face", tmp_path)


# ---- pipes and disks that do not answer


@pytest.mark.parametrize(("modality", "option"), [("face", "--camera"), ("voice", "--microphone"), ("eda", "--eda")])
def test_a_fifo_is_refused_at_once(modality: str, option: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SourceError, match=rf"{option}: '.*pipe\.mp4' is a pipe.*;"):
        open_source(modality, str(tmp_path / "pipe.mp4"))


class Stalled:
    """A file on a mount that stops to answer in `where`, until it is released."""

    modality, name, realtime = "eda", "e.csv", False

    def __init__(self, where: str) -> None:
        self.where, self.free, self.calls = where, threading.Event(), 0

    def open(self, origin: float) -> None:
        if self.where == "open":
            self.free.wait()

    def read(self, until: float) -> Chunk:
        if self.where == "read":
            self.free.wait()
        self.calls += 1
        return Chunk(np.array([until]), np.array([5.0], np.float32), 4.0)

    def status(self) -> Status:
        return Status(State.STREAMING)

    def close(self) -> None: ...


@pytest.mark.parametrize("where", ["open", "read"])
def test_a_disk_that_does_not_answer_is_a_stall_and_loses_nothing(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jmt_edge.capture.ahead.FIRST", 0.05)
    stalled = Stalled(where)
    source = ReadAhead(stalled)
    source.open(0.0)
    for until in (0.5, 1.0):
        assert not len(source.read(until))
        assert source.status().state is State.STALLED and "does not answer" in source.status().reason
    stalled.free.set()
    found: list[Chunk] = []
    wait_for(lambda: found.append(source.read(1.5)) or len(found[-1]))
    assert found[-1].times.tolist() == [i / PIECES for i in range(1, 31)]
    assert source.status().state is State.STREAMING
    source.close()


def test_what_a_file_raises_reaches_the_caller(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("no\n")
    source = ReadAhead(EdaFile(tmp_path / "e.csv"))
    with pytest.raises(SourceError, match=r"e\.csv"):
        source.open(0.0)


STALL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from jmt_edge.capture import ahead, files
ahead.FIRST = 0.3
def stall(self, x):
    print("stalls", flush=True)
    __import__("ctypes").CDLL(None).pause()
    __import__("time").sleep(1e6)
files.EdaFile.{where} = stall
sys.argv = ["jmt-edge", "live", "--eda", sys.argv[1], "--speed", "{speed}", "--output", "none"]
from jmt_edge.cli import main
main()
"""


@pytest.mark.parametrize(("where", "speed"), [("open", "1"), ("open", "max"), ("read", "max"), ("read", "1")])
def test_sigint_stops_a_run_whose_disk_does_not_answer(where: str, speed: str, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("t,uS\n" + "".join(f"{i / 10},{5 + i % 3}.5\n" for i in range(400)))
    code = STALL.format(where=where, speed=speed)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "e.csv")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "stalls\n"
    time.sleep(1.0)  # longer than a call is waited for at first
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in err, err


# ---- time stamps


@pytest.fixture(scope="module")
def videos() -> Path:
    if not (CASES / "video").is_dir():
        pytest.skip(f"no cases at {CASES} (set JMT_EDGE_TEST_CASES)")
    return CASES / "video"


# file, frames, part of the note, who reported it
VIDEOS = [
    ("concat_reset.ts", 400, "step back", "FFMS/ffms2#258"),
    ("jump1h.mkv", 200, "step ahead", ""),
    ("av1.mp4", 100, "", "opencv/opencv#24430"),
    ("phone_rot90.mp4", 100, "", "opencv/opencv#15499"),
    ("person_swap.mp4", 200, "", ""),
]


@pytest.mark.parametrize(("name", "frames", "note"), [row[:3] for row in VIDEOS])
def test_video_case(name: str, frames: int, note: str, videos: Path) -> None:
    if name == "av1.mp4":
        pytest.importorskip("av")
    source = opened("face", videos / name)
    chunk = everything(source)
    assert len(chunk.values) == frames
    np.testing.assert_allclose(np.diff(chunk.times), 0.04, atol=1e-3)
    notes = source.status().detail.get("notes", [])
    assert note in " ".join(notes) and bool(note) == bool(notes)
    if name == "phone_rot90.mp4":
        assert chunk.values[0].shape == (288, 360, 3)


def test_sound_case(videos: Path) -> None:
    pytest.importorskip("av")
    source = opened("voice", videos / "concat_reset.ts")
    chunk = everything(source)
    assert chunk.times[-1] == pytest.approx(16.0, abs=0.1) and np.diff(chunk.times).max() < 0.03
    assert "step back" in source.status().detail["notes"][0]


def av_video(path: Path, stamps: list[int], codec: str = "mjpeg", pix_fmt: str = "yuvj420p") -> None:
    """A frame of brightness 5 n at each stamp (ms)."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        packets = []
        for n in range(len(stamps)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * n % 256, np.uint8), format="bgr24")
            frame.pts, frame.time_base = 40 * n, Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet, ms in zip(packets, stamps):
            packet.pts = packet.dts = ms
            out.mux(packet)


EVEN = [40 * n for n in range(60)]
# stamps in ms, part of the note, times that are expected where they are not the stamps
STAMPS = {
    "of a variable rate": ([40 * n + 7 * (n % 3) for n in range(60)], "", None),  # opencv/opencv#8834
    "even": (EVEN, "", None),
    "a pause of ten seconds": ([t + 10_000 * (n >= 30) for n, t in enumerate(EVEN)], "", None),
    "an hour ahead": ([t + 3_600_000 * (n >= 30) for n, t in enumerate(EVEN)], "step ahead by 3600", EVEN),
    "first stamp before the clock was set": (
        [t + 3_600_000 * (n >= 1) for n, t in enumerate(EVEN)], "step ahead", EVEN
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STAMPS)
def test_stamps_of_a_video(name: str, tmp_path: Path) -> None:
    stamps, note, expected = STAMPS[name]
    av_video(tmp_path / "v.mkv", stamps)
    source = opened("face", tmp_path / "v.mkv")
    chunk = everything(source)
    np.testing.assert_allclose(chunk.times * 1000, expected or stamps, atol=2)
    assert [round(float(image.mean()) / 5) % 51 for image in chunk.values] == [n % 51 for n in range(60)]
    assert note in " ".join(source.status().detail.get("notes", [])) and bool(note) == (
        "notes" in source.status().detail
    )


class Decoder:
    """A decoder of given stamps (s); the picture is the number of the frame."""

    rate, size, seconds, codec = 25.0, [8, 8], 0.0, ""

    def __init__(self, stamps: list[float]) -> None:
        self.stamps, self.at = stamps, -1

    def grab(self) -> float | None:
        self.at += 1
        return self.stamps[self.at] if self.at < len(self.stamps) else None

    def image(self) -> np.ndarray | None:
        return np.full((8, 8, 3), self.at, np.uint8) if self.at < len(self.stamps) else None

    def close(self) -> None: ...


GRID = [0.04 * n for n in range(50)]
WILD = {
    "one stamp ahead": ({20: 50_000.0}, "a wild time stamp"),
    "one stamp 30 s ahead": ({20: 30.0}, "a wild time stamp"),
    "one stamp back": ({20: -1e6}, "a wild time stamp"),
    "three wild stamps": ({20: 3e5, 30: 2e9, 41: 9e4}, "a wild time stamp"),
    "the last stamp": ({49: 1e5}, "step ahead"),
    "two in a row": ({20: 1e5, 21: 1e5 + 0.04}, "step ahead"),
    "not a number": ({20: float("nan")}, ""),
}


@pytest.mark.parametrize("name", WILD)
def test_wild_stamps_cost_no_time_and_keep_every_picture(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, note = WILD[name]
    stamps = [changes.get(n, t) for n, t in enumerate(GRID)]
    (tmp_path / "v.mkv").write_bytes(b"x")
    monkeypatch.setattr("jmt_edge.media.video._decoder", lambda path: Decoder(stamps))
    source = VideoFile(tmp_path / "v.mkv")
    source.open(0.0)
    chunk = everything(source)
    np.testing.assert_allclose(chunk.times, GRID, atol=1e-6)
    assert [int(image[0, 0, 0]) for image in chunk.values] == list(range(50))
    notes = source.status().detail.get("notes", [])
    assert note in " ".join(notes) and bool(note) == bool(notes)
    assert len(notes) <= 2


def test_stamps_that_never_advance_give_the_nominal_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """opencv/opencv#12109."""
    (tmp_path / "v.avi").write_bytes(b"x")
    monkeypatch.setattr("jmt_edge.media.video._decoder", lambda path: Decoder([0.0] * 200))
    source = VideoFile(tmp_path / "v.avi")
    source.open(0.0)
    chunk = everything(source)
    np.testing.assert_allclose(chunk.times, np.arange(200) / 25)
    assert "notes" not in source.status().detail


def test_raw_h264_needs_its_rate(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "x.h264"), "w", format="h264") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(30):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * n, np.uint8), format="bgr24")))
        out.mux(stream.encode(None))
    with pytest.raises(SourceError, match=r"raw stream.*\?fps=30"):
        opened("face", tmp_path / "x.h264")
    for fps in (30, 15):
        chunk = everything(opened("face", f"{tmp_path / 'x.h264'}?fps={fps}"))
        np.testing.assert_allclose(chunk.times, np.arange(30) / fps, atol=1e-9)
    write_video(tmp_path / "v.avi")
    with pytest.raises(SourceError, match="has its own time stamps"):
        opened("face", f"{tmp_path / 'v.avi'}?fps=30")


def test_a_video_that_begins_late_is_whole_and_one_that_lost_its_half_is_not(tmp_path: Path) -> None:
    av_video(tmp_path / "late.mkv", [3_600_000 + t for t in EVEN])
    source = opened("face", tmp_path / "late.mkv")
    assert len(everything(source).values) == 60 and "notes" not in source.status().detail
    av_video(tmp_path / "short.mkv", EVEN)
    whole = (tmp_path / "short.mkv").read_bytes()
    (tmp_path / "short.mkv").write_bytes(whole[: int(0.62 * len(whole))])
    source = opened("face", tmp_path / "short.mkv")
    assert 20 < len(everything(source).values) < 50 and "cut off" in source.status().detail["notes"][0]


def test_what_has_no_picture_says_so(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match="it is empty"):
        opened("face", tmp_path / "empty.mp4")
    wavfile.write(tmp_path / "s.wav", 8000, np.ones(8000, np.int16))
    with pytest.raises(SourceError, match="has no video track"):
        opened("face", tmp_path / "s.wav")


def test_inspect_says_a_sounds_own_rate_and_where_it_may_be_used(tmp_path: Path) -> None:
    from jmt_edge.capture.inspection import inspect_file

    x = np.random.default_rng(0).normal(0, 0.1, 4 * 8000).astype(np.float32)
    wavfile.write(tmp_path / "s.wav", 8000, np.where(np.arange(len(x)) >= 16_000, x, np.float32(0)))
    found = inspect_file(str(tmp_path / "s.wav"))
    assert "the file's 8000 Hz" in found.notes[0] and found.seconds == pytest.approx(4, abs=0.01)
    assert found.usable == 0 and found.unusable[-1].what == "no speech"
    assert found.unusable[0].what == "microphone dead or muted"


def test_what_is_cut_off_is_reported(tmp_path: Path) -> None:
    av_video(tmp_path / "v.mkv", EVEN * 1)
    data = (tmp_path / "v.mkv").read_bytes()
    whole = opened("face", tmp_path / "v.mkv")
    everything(whole)
    assert "notes" not in whole.status().detail
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 3])
    source = opened("face", tmp_path / "cut.mkv")
    everything(source)
    assert "it was cut off" in source.status().detail["notes"][0]
    wavfile.write(tmp_path / "w.wav", 44_100, np.zeros(88_200, np.int16))
    data = (tmp_path / "w.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[:88_200])
    source = opened("voice", tmp_path / "cut.wav")
    everything(source)
    assert source.status().detail["notes"] == ["the file ends at 1.0 s of 2.0 s: it was cut off"]


# ---- network cameras


class MotionJpeg(BaseHTTPRequestHandler):
    """Frames of growing brightness as multipart JPEG; the server closes after `most` of them."""

    most = 10**9

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for n in range(self.most):
            data = cv2.imencode(".jpg", np.full((48, 64, 3), 40 + n % 100, np.uint8))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            try:
                self.wfile.write(head + data + b"\r\n")
            except OSError:
                return
            time.sleep(0.03)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def camera_server(most: int = 10**9, port: int = 0) -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (MotionJpeg,), {"most": most})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_an_http_camera_streams_and_comes_back(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if decoder == "pyav":
        pytest.importorskip("av")
        monkeypatch.setattr(camera_module, "has_ffmpeg", lambda: False)
        real = cv2.VideoCapture
        monkeypatch.setattr(camera_module.cv2, "VideoCapture", lambda *args: real())
    frames: list[np.ndarray] = []

    def came(n: int) -> Any:
        def more() -> bool:
            frames.extend(source.read(1e9).values)
            return len(frames) >= n

        return more

    with camera_server(most=40) as server:
        port = server.server_address[1]
        source = open_source("face", f"http://user:secret@127.0.0.1:{port}/video?fps=x")
        assert isinstance(source, Camera) and "secret" not in source.name
        source.open(time.monotonic())
        wait_for(came(20))
    first = len(frames)
    wait_for(lambda: source.status().state in (State.LOST, State.BACKOFF, State.CONNECTING))
    with camera_server(port=port):
        wait_for(came(first + 60), 40)
        assert source.status().state is State.STREAMING and source.status().reconnects >= 1
    source.close()
    assert frames[0].shape == (48, 64, 3) and frames[0].dtype == np.uint8


def h264_units(frames: int = 40) -> list[list[bytes]]:
    """The NAL units of each of `frames` pictures of growing brightness; every tenth can be decoded alone."""
    av = pytest.importorskip("av")
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, "yuv420p", Fraction(1, 30)
    encoder.options = {"tune": "zerolatency", "preset": "ultrafast", "g": "10"}
    packets = []
    for n in range(frames):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 + 4 * n, np.uint8), format="bgr24")
        frame.pts = n
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return [[unit for unit in re.split(rb"\x00\x00\x00?\x01", data) if unit] for data in packets]


class Rtsp(socketserver.StreamRequestHandler):
    """A camera that speaks as much of RTSP (RFC 2326) as a client needs: H.264 by RTP (RFC 6184), interleaved."""

    units: list[list[bytes]]
    most = 10**9

    def handle(self) -> None:
        with suppress(OSError):
            while (method := self.answer()) not in ("", "TEARDOWN"):
                if method == "PLAY":
                    self.play()
                    return

    def answer(self) -> str:
        lines = []
        while (line := self.rfile.readline().decode().strip()) or not lines:
            if not line:
                return ""
            lines.append(line)
        method = lines[0].split()[0]
        number = next(line.split(":")[1].strip() for line in lines if line.lower().startswith("cseq"))
        more, body = {
            "OPTIONS": ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""),
            "DESCRIBE": ("Content-Type: application/sdp\r\n", (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
            )),
            "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
        }.get(method, ("Session: 1\r\n", ""))  # fmt: skip
        head = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        self.wfile.write((head + body).encode())
        return method

    def play(self) -> None:
        sequence = 0
        for n in range(self.most):
            units = self.units[n % len(self.units)]
            for unit in units:
                last = unit is units[-1]
                head = struct.pack(">BBHII", 0x80, 96 | 128 * last, sequence % 65536, 3000 * n, 1)
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(head) + len(unit)) + head + unit)
                sequence += 1
            time.sleep(0.03)


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_an_rtsp_camera_streams_and_comes_back(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    units = h264_units()
    if decoder == "pyav":
        monkeypatch.setattr(camera_module, "has_ffmpeg", lambda: False)
        real = cv2.VideoCapture
        monkeypatch.setattr(camera_module.cv2, "VideoCapture", lambda *args: real())
    frames: list[np.ndarray] = []
    source: Source | None = None
    port = 0
    for most in (120, 10**9):
        handler = type("Handler", (Rtsp,), {"units": units, "most": most})
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        with socketserver.ThreadingTCPServer(("127.0.0.1", port), handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            port = server.server_address[1]
            if source is None:
                source = open_source("face", f"rtsp://user:secret@127.0.0.1:{port}/stream")
                assert isinstance(source, Camera)
                source.open(time.monotonic())
            wanted = len(frames) + 30
            camera = source

            def more(camera: Source = camera, wanted: int = wanted) -> bool:
                frames.extend(camera.read(1e9).values)
                return len(frames) >= wanted

            wait_for(more, 60)
            if most < 10**9:
                wait_for(lambda camera=camera: camera.status().state is not State.STREAMING, 60)  # type: ignore[misc]
                more()
            server.shutdown()
    assert source is not None and source.status().reconnects >= 1
    source.close()
    assert frames[0].shape == (48, 64, 3) and 30 < frames[0].mean() < 210
    assert len({round(float(frame.mean())) for frame in frames}) > 10


def test_a_camera_that_does_not_answer_is_one_sentence() -> None:
    source = open_source("face", "rtsp://admin:secret@127.0.0.1:9/stream")
    assert source is not None
    with pytest.raises(SourceError, match=r"rtsp://admin:\*\*\*@127\.0\.0\.1:9/stream does not answer") as caught:
        source.open(time.monotonic())
    assert "secret" not in str(caught.value)
    with pytest.raises(SourceError, match="not a camera's address"):
        open_source("face", "gopher://x/y")
    assert without_password("rtsp://a:b@c/d") == "rtsp://a:***@c/d" and without_password("http://c/d") == "http://c/d"
