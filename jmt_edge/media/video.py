"""Images: video files at their own time stamps, folders of images, single images, the video of a recording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError, first_line
from ..opencv import cv2
from .eda_times import MAX_GAP, MAX_NOTES
from .pixels import Image, ToBgr

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
DEFAULT_FPS = 30.0  # of a folder of images, and of a video that does not state its rate
_TRIED = 20  # images of a folder before it is refused
_MOST_MISSING = 1 << 24  # bytes that a cut-off file may lack
_JUMP = 1.0  # s: a stamp this far from where it is expected is looked at twice


class VideoReader:
    """A video file's frames, one after another, at the container's time stamps: by OpenCV, or by PyAV where OpenCV
    has no decoder (AV1).

    time: of the current frame (s; 0 is the file's first frame), None at the end. A frame whose stamp does not advance
    (some AVI and raw streams have none) comes one nominal period after the frame before it. A single wild stamp is
    replaced in the same way; where stamps restart, or jump by more than MAX_GAP, the picture continues one period on.
    notes: what was done to the stamps, and whether the file was cut off. altered: frames whose time was changed so.
    fps: frames a second of a raw stream (H.264, MJPEG), which has no stamps.
    Raises SourceError for a file that is not a video or holds no frame, and a raw stream without `fps`.
    """

    def __init__(self, path: Path, fps: float | None = None) -> None:
        self._path = path
        self._raw = _is_raw_stream(path)
        if self._raw and fps is None:
            raise SourceError(
                f"video {path} is a raw stream without time stamps; give its rate by FILE?fps=30, or put it into an MP4"
            )
        if fps is not None and not self._raw:
            raise SourceError(
                f"'{path}?fps={fps:g}': fps is for a folder of images or a raw stream; this video has its own time "
                "stamps, leave it out"
            )
        self._decoder = _decoder(path)
        rate = fps or self._decoder.rate
        self.period = 1.0 / rate if np.isfinite(rate) and 0 < rate <= 1000 else 1.0 / DEFAULT_FPS
        self.size = self._decoder.size
        self.time: float | None = None
        self.notes: list[str] = []
        self.altered = 0
        self._counts = {"wild": 0, "steps": 0}
        self._shift, self._step = 0.0, 0.0  # what is added to the stamps; the last step between two
        self._last, self._stamp = -np.inf, -np.inf  # the time of the last frame, and what its stamp was
        self._held = False  # the decoder is one frame ahead of the current one, whose picture was fetched before
        self._image: Image | None = None
        self._ahead: float | None = None  # the stamp of the decoder's frame; None at the end
        self.advance()
        if self.time is None:
            self.close()
            raise SourceError(f"video {path} has no frames; give another file")

    def advance(self) -> None:
        """Go to the next frame."""
        stamp = self._ahead if self._held else self._decoder.grab()
        self._held, self._image = False, None
        if stamp is None:
            self._say_if_cut_off()
            self.time = None
            return
        if not np.isfinite(self._last):
            self._last = stamp if np.isfinite(stamp) and not self._raw else 0.0
        else:
            self._last = self._last + self.period if self._raw else self._placed(stamp)
        self._stamp, self.time = stamp, self._last

    def _placed(self, stamp: float) -> float:
        """The time of a frame after the first."""
        t, following = stamp + self._shift, self._last + self.period
        if not np.isfinite(t):
            return following
        jump = t - self._last
        if 0 < jump <= max(_JUMP, 10 * self.period):
            self.altered += self._shift != 0
            self._step = jump
            return t
        if -_JUMP <= jump <= 0 or stamp == self._stamp:
            return following
        # the decoder has to go on to the next frame to tell, so this one's picture is fetched now
        self._held, self._image, self._ahead = True, self._decoder.image(), self._decoder.grab()
        onward = self._ahead - stamp if self._ahead is not None else np.inf
        following = self._last + (self._step or (onward if 0 < onward < _JUMP else self.period))
        after = jump + onward
        if (jump > 0 and -_JUMP < after < jump / 2) or (jump < 0 < after):
            self._note("wild", f"at {following:.2f} s: a wild time stamp; such stamps are replaced")
            self.altered += 1
            return following
        if 0 < jump <= MAX_GAP:
            self.altered += self._shift != 0
            return t
        way = "ahead" if jump > 0 else "back"
        self._note(
            "steps", f"at {following:.2f} s: the time stamps step {way} by {abs(jump):.6g} s; the picture continues"
        )
        self._shift += following - t
        self.altered += 1
        return following

    def _note(self, kind: str, text: str) -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= (1 if kind == "wild" else MAX_NOTES):
            self.notes.append(text)

    def _say_if_cut_off(self) -> None:
        declared, reached = self._decoder.seconds, self._last + self.period
        if self.time is None or any(self._counts.values()) or self._raw:
            return
        allowed = max(min(1.0, 0.2 * declared), 0.02 * declared)
        if declared - reached > allowed:
            declared -= _begins(self._path)  # a Matroska file's length is the time of its end
        if declared - reached > allowed:
            self.notes.append(f"the file ends at {reached:.1f} s of {declared:.1f} s: it was cut off")

    def image(self) -> Image | None:
        """The current frame; None where it is damaged."""
        return self._image if self._held else self._decoder.image()

    def close(self) -> None:
        self._decoder.close()
        self.time = None


def _begins(path: Path) -> float:
    """The time stamp (s) at which a video begins, which OpenCV does not tell; 0 without PyAV."""
    try:
        import av

        with av.open(str(path)) as container:
            return max(0.0, (container.start_time or 0) / 1e6)
    except (ImportError, OSError, ValueError):  # FFmpeg's errors are one of the latter two
        return 0.0


class _OpenCv:
    """rate: nominal, in Hz. seconds: that the container declares, 0 where unknown."""

    def __init__(self, path: Path) -> None:
        self._capture = cv2.VideoCapture(str(path))
        self.rate = self._capture.get(cv2.CAP_PROP_FPS)
        width, height = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
        self.size = [int(self._capture.get(p)) for p in (width, height)]
        frames = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.seconds = frames / self.rate if self.rate > 0 and np.isfinite(frames) and frames > 0 else 0.0
        self.codec = _fourcc(self._capture.get(cv2.CAP_PROP_FOURCC))
        self._bgr = ToBgr()
        self._first = self._capture.isOpened() and self._capture.grab()
        self.works = bool(self._first)

    def grab(self) -> float | None:
        """The stamp of the next frame in s; None at the end."""
        if not self._first and not self._capture.grab():
            return None
        self._first = False
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0

    def image(self) -> Image | None:
        ok, image = self._capture.retrieve()
        return self._bgr(image) if ok and image is not None and image.size else None

    def close(self) -> None:
        self._capture.release()


class _PyAv:
    """As `_OpenCv`, by PyAV. Raises SourceError where it decodes no frame."""

    def __init__(self, path: Path) -> None:
        import av

        self._error: type[Exception] = av.FFmpegError
        try:
            self._container: Any = av.open(str(path), metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            why = "it is empty" if not path.stat().st_size else getattr(error, "strerror", None) or first_line(error)
            raise SourceError(
                f"{path} is not a readable video ({why}); it may be cut off, or convert it to MP4"
            ) from None
        if not self._container.streams.video:
            self.close()
            raise SourceError(f"{path} has no video track; give another file, or none")
        try:
            stream = self._container.streams.video[0]
            self.rate = float(stream.average_rate or 0)
            self.seconds = float((self._container.duration or 0) / 1e6)
            self._base = stream.time_base or 0
            self._frames = self._decode(stream)
            self._first: Any = next(self._frames, None)
        except (IndexError, av.FFmpegError) as error:
            self.close()
            raise SourceError(f"{path} has no picture that can be decoded ({first_line(error)}); convert it") from None
        if self._first is None:
            self.close()
            raise SourceError(f"video {path} has no frames; give another file")
        self._start = float((self._first.pts or 0) * self._base)
        self._turns = round(getattr(self._first, "rotation", 0) / 90) % 4
        self._frame = self._first
        self.size = [*self._upright(self._first).shape[1::-1]]

    def _decode(self, stream: Any) -> Iterator[Any]:
        packets = self._container.demux(stream)
        while True:
            try:
                yield from next(packets).decode()
            except StopIteration:
                return
            except self._error:  # a damaged packet costs its frames
                continue

    def grab(self) -> float | None:
        self._frame, self._first = self._first or next(self._frames, None), None
        if self._frame is None:
            return None
        return float((self._frame.pts or 0) * self._base) - self._start

    def image(self) -> Image | None:
        return self._upright(self._frame)

    def _upright(self, frame: Any) -> Image:
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="bgr24"), self._turns), np.uint8)

    def close(self) -> None:
        self._container.close()


def _decoder(path: Path) -> _OpenCv | _PyAv:
    """What decodes `path`. Raises SourceError."""
    first = _OpenCv(path)
    if first.works:
        return first
    first.close()
    try:
        return _PyAv(path)
    except ImportError:
        codec = f" (codec {first.codec})" if first.codec else ""
        raise SourceError(
            f"{path} is not a readable video{codec}, or OpenCV cannot decode it; run `pip install 'jmt-edge[record]'`, "
            "or convert it to MP4 (H.264)"
        ) from None


def _fourcc(code: float) -> str:
    text = "".join(chr(int(code) >> 8 * i & 0xFF) for i in range(4)) if code > 0 else ""
    return text if text.isprintable() else ""


def _is_raw_stream(path: Path) -> bool:
    """H.264, HEVC or MJPEG without a container."""
    if path.suffix.lower() in (".mjpeg", ".mjpg"):
        return True
    try:
        with path.open("rb") as file:
            start = file.read(5)
    except OSError as error:
        raise SourceError(f"cannot read the video {path} ({error.strerror}); give another file") from None
    nal = start[4:5] if start[:4] == b"\0\0\0\1" else start[3:4] if start[:3] == b"\0\0\1" else b""
    return nal in (b"\x67", b"\x27", b"\x09", b"\x06", b"\x40", b"\x46")  # a parameter set, or what comes before one


def video_frames(path: Path) -> Iterator[tuple[float, Image]]:
    """(s, image) of each frame that decodes. Raises SourceError as VideoReader does."""
    with closing(VideoReader(path)) as reader:
        while reader.time is not None:
            if (image := reader.image()) is not None:
                yield reader.time, image
            reader.advance()


def video_times(path: Path) -> NDArray[np.float64]:
    """Time stamps (n,) of all frames, in seconds; no frame is decoded to pixels."""
    times = []
    with closing(VideoReader(path)) as reader:
        while reader.time is not None:
            times.append(reader.time)
            reader.advance()
    return np.array(times)


def lossless_frames(path: Path, start: float = 0.0) -> Iterator[tuple[float, Image]]:
    """(s, image) of a recording's video from its last key frame before `start` on, by PyAV.

    Ends at the first damaged frame, where OpenCV would skip it and so shift the frames after it: frames are matched
    with the recording's own times by their order. Raises SourceError where PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise SourceError("reading recorded video needs PyAV; run `pip install 'jmt-edge[record]'`") from None
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            base = stream.time_base or 1
            if start > 0:
                container.seek(int(start / base), stream=stream)
            for frame in container.decode(stream):
                yield float((frame.pts or 0) * base), frame.to_ndarray(format="bgr24")
    except (av.FFmpegError, IndexError):
        pass  # a killed recording may end within a frame, or before its first


class FolderReader:
    """The images of a folder in the order of their numbers, `fps` per second (default 30); used like VideoReader.

    Names that are all numbers (Affwild2's `00001.jpg`) keep their gaps: image n is at (n - first) / fps. Raises
    SourceError for a folder without images, and where none of the first few can be decoded.
    """

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        self.notes: list[str] = []
        self.altered = 0
        try:
            names = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("._")]
            files = [f for f in names if not f.is_dir()]  # a dangling link is a picture that is missing
        except OSError as error:
            raise SourceError(f"folder {folder} cannot be read ({error.strerror}); check it") from None
        if not files:
            raise SourceError(f"folder {folder} has no {', '.join(IMAGE_SUFFIXES)}; give a folder of images or a video")
        files.sort(key=_natural)
        numbers = [int(f.stem) for f in files] if all(f.stem.isdecimal() for f in files) else list(range(len(files)))
        self.time: float | None
        rate = fps or DEFAULT_FPS
        self._items = iter([((n - numbers[0]) / rate, f) for n, f in zip(numbers, files)])
        self.period = 1.0 / rate
        self.advance()
        self.size = self._first_size(files)

    @staticmethod
    def _first_size(files: list[Path]) -> list[int]:
        """Of the first picture that can be read; a few that cannot are lost frames, a folder of them is refused."""
        problem: SourceError | None = None
        for file in files[:_TRIED]:
            try:
                return [*read_image(file).shape[1::-1]]
            except SourceError as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def advance(self) -> None:
        """Go to the next image."""
        self.time, self._file = next(self._items, (None, Path()))

    def image(self) -> Image | None:
        """The current image; None where it cannot be read."""
        try:
            return read_image(self._file)
        except SourceError:
            return None

    def close(self) -> None:
        self.time = None


def _natural(file: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def read_image(path: Path) -> Image:
    """One image. Raises SourceError for a file that is not an image."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise SourceError(f"image {path} cannot be read ({error.strerror}); check the file") from None
    try:
        fits = len(data) and not _claims_more(data.tobytes())
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if fits else None
    except cv2.error:  # its sides or its pixels are too many
        image = None
    if image is None or not image.size or image.ndim != 3 or image.dtype != np.uint8:  # floats of a PFM
        raise SourceError(f"{path} is not a readable image (OpenCV cannot decode it); give a JPEG or PNG file")
    return np.asarray(image, np.uint8)


def _claims_more(data: bytes) -> bool:
    """Whether a chunk of a PNG claims far more bytes than there are: OpenCV fills that much memory before it looks."""
    at = 8 if data.startswith(b"\x89PNG\r\n\x1a\n") else len(data)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size > max(len(data), _MOST_MISSING):
            return True
        at += size + 12
    return False
