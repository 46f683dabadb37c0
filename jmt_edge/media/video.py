"""Images: video files at their own time stamps, folders of images, single images, the video of a recording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..opencv import cv2

Image = NDArray[np.uint8]  # (H, W, 3) BGR
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
DEFAULT_FPS = 30.0  # of a folder of images, and of a video that does not state its rate


class VideoReader:
    """A video file's frames, one after another, at the container's time stamps, by OpenCV.

    time: of the current frame (s; 0 is the file's first frame), None at the end. A frame whose stamp does not advance
    (some AVI and raw streams have none) comes one nominal period after the frame before it.
    Raises SourceError for a file that is not a video or holds no frame.
    """

    def __init__(self, path: Path) -> None:
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"{path} is not a readable video (OpenCV cannot decode it); convert it to MP4 (H.264)")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.period = 1.0 / rate if np.isfinite(rate) and 0 < rate <= 1000 else 1.0 / DEFAULT_FPS
        width, height = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
        self.size = [int(self._capture.get(p)) for p in (width, height)]
        self.time: float | None = None
        self._last = -np.inf
        self.advance()
        if self.time is None:
            self.close()
            raise SourceError(f"video {path} has no frames; give another file")

    def advance(self) -> None:
        """Go to the next frame."""
        if not self._capture.grab():
            self.time = None
            return
        t = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        self._last = t if np.isfinite(t) and t > self._last else max(self._last, -self.period) + self.period
        self.time = self._last

    def image(self) -> Image | None:
        """The current frame; None where it is damaged."""
        ok, image = self._capture.retrieve()
        return np.asarray(image, np.uint8) if ok else None

    def close(self) -> None:
        self._capture.release()
        self.time = None


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
        with av.open(str(path)) as container:
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
    SourceError for a folder without images, and where the first cannot be decoded.
    """

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        files = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            raise SourceError(f"folder {folder} has no {', '.join(IMAGE_SUFFIXES)}; give a folder of images or a video")
        files.sort(key=_natural)
        numbers = [int(f.stem) for f in files] if all(f.stem.isdecimal() for f in files) else list(range(len(files)))
        self.time: float | None
        rate = fps or DEFAULT_FPS
        self._items = iter([((n - numbers[0]) / rate, f) for n, f in zip(numbers, files)])
        self.period = 1.0 / rate
        self.advance()
        self.size = [*read_image(self._file).shape[1::-1]]

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
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise SourceError(f"{path} is not a readable image (OpenCV cannot decode it); give a JPEG or PNG file")
    return np.asarray(image, np.uint8)
