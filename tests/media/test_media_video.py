"""One reader of video: every frame once, at its own time stamp, however it is read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jmt_edge.capture.files import ImageFolder, VideoFile
from jmt_edge.errors import SourceError
from jmt_edge.media.video import lossless_frames, read_image, video_frames, video_times

av: Any = pytest.importorskip("av", reason="PyAV is not installed")


def write_video(path: Path, stamps: list[int], codec: str = "mjpeg", pix_fmt: str = "yuvj420p") -> None:
    """A frame of brightness 5 n at each stamp (ms)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        stream.options = {"g": "1"}  # each frame on its own, as recordings have them
        for n, ms in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * n, np.uint8), format="bgr24")
            frame.pts, frame.time_base = ms, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


STAMPS = [0, 40, 60, 200, 210, 500, 533, 567, 600, 1600]


def test_all_readers_agree_on_a_variable_rate(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    write_video(path, STAMPS)
    times = video_times(path)
    np.testing.assert_allclose(times, np.array(STAMPS) / 1000, atol=1e-3)
    frames = list(video_frames(path))
    np.testing.assert_array_equal([t for t, _ in frames], times)
    source = VideoFile(path)
    source.open(0.0)
    chunks = [source.read(t) for t in np.arange(0.0, 3.0, 0.07)]
    np.testing.assert_array_equal(np.concatenate([c.times for c in chunks]), times)
    live = [image for c in chunks for image in c.values]
    for n, (_, image) in enumerate(frames):
        np.testing.assert_array_equal(image, live[n])
        assert image.mean() == pytest.approx(5 * n, abs=3)


def test_a_video_cut_in_the_middle_is_read_to_there(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", list(range(0, 2000, 40)))
    data = (tmp_path / "v.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    times = [t for t, _ in video_frames(tmp_path / "cut.mkv")]
    assert 10 < len(times) < 40
    np.testing.assert_allclose(times, np.arange(len(times)) * 0.04, atol=1e-3)


@pytest.mark.parametrize("content", [b"", b"not a video" * 100, b"RIFF\0\0\0\0AVI "])
def test_what_is_not_a_video_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "v.avi"
    path.write_bytes(content)
    for read in (lambda: list(video_frames(path)), lambda: video_times(path), lambda: VideoFile(path).open(0.0)):
        with pytest.raises(SourceError, match=r"v\.avi.*;") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_lossless_frames_end_at_the_first_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    write_video(path, list(range(0, 2000, 40)), "ffv1", "bgr0")
    frames = list(lossless_frames(path))
    assert len(frames) == 50
    assert all((image == 5 * n).all() for n, (_, image) in enumerate(frames))
    assert next(lossless_frames(path, 1.2))[0] == pytest.approx(1.2, abs=0.05)
    data = path.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    cut = list(lossless_frames(tmp_path / "cut.mkv"))
    assert 15 < len(cut) < 35
    assert all((image == 5 * n).all() for n, (_, image) in enumerate(cut))
    (tmp_path / "empty.mkv").write_bytes(b"")
    assert list(lossless_frames(tmp_path / "empty.mkv")) == []


def test_images(tmp_path: Path) -> None:
    for n in (1, 2, 5):
        cv2.imwrite(str(tmp_path / f"{n:05d}.png"), np.full((8, 8, 3), n, np.uint8))
    assert (read_image(tmp_path / "00005.png") == 5).all()
    (tmp_path / "00002.png").write_bytes(b"")
    (tmp_path / "00006.png").symlink_to(tmp_path / "nowhere.png")
    for name in ("00002.png", "00006.png", "00007.png"):
        with pytest.raises(SourceError, match=rf"{name}.*;"):
            read_image(tmp_path / name)
    source = ImageFolder(tmp_path, 10.0)
    source.open(0.0)
    chunk = source.read(1.0)
    np.testing.assert_allclose(chunk.times, [0.0, 0.4])  # what cannot be read is counted
    assert chunk.lost == 2


def test_a_folder_of_odd_names_is_in_order(tmp_path: Path) -> None:
    for n, name in enumerate(("1", "2", "10", "²")):  # str.isdigit holds for the last, int() fails
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8, 3), n, np.uint8))
    source = ImageFolder(tmp_path, 10.0)
    source.open(0.0)
    chunk = source.read(1.0)
    assert [image[0, 0, 0] for image in chunk.values] == [0, 1, 2, 3]
    np.testing.assert_allclose(chunk.times, np.arange(4) / 10)
