"""Files as sources: video, sound, EDA, a folder of images. Readable at any speed; ENDED after the last sample.

Stream time 0 is the file's first frame or sample (for the sound of a video: the first frame).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..tasks import AUDIO_RATE
from .audio import F32, sound_blocks
from .base import Chunk, State, Status, empty_chunk
from .eda_files import EdaRecording, read_eda_file

Image = NDArray[np.uint8]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
FOLDER_FPS = 30.0


def split_query(spec: str, *keys: str) -> tuple[str, dict[str, str]]:
    """`PATH?key=value&...` -> (PATH, {key: value}). A path that exists as it stands has no query.

    Raises SourceError for a key not in `keys`.
    """
    path, mark, query = spec.rpartition("?")
    if not mark or Path(spec).exists():
        return spec, {}
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [k for k in given if k not in keys]
    if unknown or not given:
        raise SourceError(f"'{spec}' has the unknown setting '{(unknown or [query])[0]}'; it takes {', '.join(keys)}")
    return path, given


def query_number(spec: str, given: dict[str, str], key: str, low: float, high: float) -> float | None:
    """The value of `key`, None where it is not given. Raises SourceError where it is no number in [low, high]."""
    if key not in given:
        return None
    try:
        value = float(given[key])
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise SourceError(f"'{spec}': {key} is '{given[key]}'; give a number from {low:g} to {high:g}")
    return value


class _File:
    """What all file sources share: a name and a state that ends."""

    modality = ""
    realtime = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self._ended = False
        self._lost = 0
        self._detail: dict[str, Any] = {"file": str(path)}
        self._unit = ""

    def status(self) -> Status:
        state = State.ENDED if self._ended else State.STREAMING
        reason = f"{self.name} came to its end" if self._ended else ""
        return Status(state, reason, lost=self._lost, unit=self._unit, detail=dict(self._detail))


class VideoFile(_File):
    """A video's frames at the container's time stamps, by OpenCV.

    A frame whose stamp does not advance (some AVI and raw streams carry none) stands one nominal period after the
    frame before it. `open` raises SourceError for a file that holds no frame.
    """

    modality = "face"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._capture: Any = None
        self._next = 0.0
        self._last = -np.inf

    def open(self, origin: float) -> None:
        from ..opencv import cv2  # here, so that sound and EDA are read where OpenCV does not load

        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            capture.release()
            raise SourceError(f"{self.path} is not a video that OpenCV can read; convert it to MP4 (H.264)")
        self._capture = capture
        rate = capture.get(cv2.CAP_PROP_FPS)
        self._period = 1.0 / rate if np.isfinite(rate) and 0 < rate <= 1000 else 1.0 / FOLDER_FPS
        size = [int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        self._detail.update(size=size, fps=round(1.0 / self._period, 3))
        self._grab()
        if self._ended:
            self.close()
            raise SourceError(f"video {self.path} has no frames; give another file")

    def _grab(self) -> None:
        """Stand on the next frame, or end."""
        from ..opencv import cv2

        if not self._capture.grab():
            self._ended = True
            return
        t = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        self._next = t if np.isfinite(t) and t > self._last else max(self._last, -self._period) + self._period
        self._last = self._next

    def read(self, until: float) -> Chunk:
        times: list[float] = []
        images: list[Image] = []
        lost = 0
        while not self._ended and self._next <= until:
            ok, image = self._capture.retrieve()
            if ok and image is not None:
                times.append(self._next)
                images.append(image)
            else:
                lost += 1
            self._grab()
        self._lost += lost
        return Chunk(np.array(times, np.float64), images, 1.0 / self._period, lost)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None
        self._ended = True


class ImageFolder(_File):
    """Images of a folder in the order of their numbers, `fps` a second (30 unless told).

    Names that are all numbers (Affwild2's `00001.jpg`) keep their gaps: image n stands at (n - first) / fps.
    """

    modality = "face"

    def __init__(self, path: Path, fps: float = FOLDER_FPS) -> None:
        super().__init__(path)
        self._fps = fps
        self._detail["fps"] = fps
        files = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            raise SourceError(f"folder {path} holds no {', '.join(IMAGE_SUFFIXES)}; give a folder of images or a video")
        if all(f.stem.isdigit() for f in files):
            files.sort(key=lambda f: int(f.stem))
            first = int(files[0].stem)
            self._items = [((int(f.stem) - first) / fps, f) for f in files]
        else:
            files.sort(key=_natural)
            self._items = [(i / fps, f) for i, f in enumerate(files)]
        self._at = 0

    def open(self, origin: float) -> None:
        """Raises SourceError where the first image cannot be decoded."""
        if self._decode(self._items[0][1]) is None:
            raise SourceError(
                f"{self._items[0][1]} is not an image OpenCV can read; give a folder of JPEG or PNG files"
            )

    def read(self, until: float) -> Chunk:
        times: list[float] = []
        images: list[Image] = []
        lost = 0
        while self._at < len(self._items) and self._items[self._at][0] <= until:
            t, file = self._items[self._at]
            self._at += 1
            image = self._decode(file)
            if image is None:
                lost += 1
            else:
                times.append(t)
                images.append(image)
        self._ended = self._at == len(self._items)
        self._lost += lost
        return Chunk(np.array(times, np.float64), images, self._fps, lost)

    @staticmethod
    def _decode(file: Path) -> Image | None:
        from ..opencv import cv2

        data = np.frombuffer(file.read_bytes(), np.uint8)
        image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        return image

    def close(self) -> None:
        self._ended = True


def _natural(file: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]


class SoundFile(_File):
    """A WAV file, or the sound of a compressed file or a video, as 44.1 kHz mono. Decoded as it is read."""

    modality = "voice"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._blocks: Iterator[tuple[float, F32]] = iter(())
        self._times: NDArray[np.float64] = np.empty(0)
        self._samples: F32 = np.empty(0, np.float32)

    def open(self, origin: float) -> None:
        self._blocks = sound_blocks(self.path)
        if not self._more():
            raise SourceError(f"sound file {self.path} holds 0 samples; record it again or give another file")

    def _more(self) -> bool:
        block = next(self._blocks, None)
        if block is None:
            return False
        t, samples = block
        self._times = np.concatenate([self._times, t + np.arange(len(samples)) / AUDIO_RATE])
        self._samples = np.concatenate([self._samples, samples])
        return True

    def read(self, until: float) -> Chunk:
        while not self._ended and (not len(self._times) or self._times[-1] <= until):
            self._ended = not self._more()
        n = int(np.searchsorted(self._times, until, side="right"))
        chunk = Chunk(self._times[:n], self._samples[:n], float(AUDIO_RATE))
        self._times, self._samples = self._times[n:], self._samples[n:]
        return chunk

    def close(self) -> None:
        getattr(self._blocks, "close", lambda: None)()
        self._blocks, self._ended = iter(()), True


class EdaFile(_File):
    """An EDA recording; see `eda_files` for the formats."""

    modality = "eda"

    def __init__(self, path: Path, rate: float | None = None, column: str | None = None) -> None:
        super().__init__(path)
        self._rate, self._column = rate, column
        self._recording: EdaRecording | None = None
        self._at = 0
        self._unit = "µS"

    def open(self, origin: float) -> None:
        self._recording = found = read_eda_file(self.path, self._rate, self._column)
        span = float(found.times[-1])
        measured = (len(found.times) - 1) / span if span > 0 else 0.0
        self._lost = found.lost
        self._detail.update(format=found.kind, nominal_rate=found.rate, rate=round(measured, 3))

    def read(self, until: float) -> Chunk:
        found = self._recording
        if found is None:
            return empty_chunk("eda")
        first = self._at
        self._at = max(first, int(np.searchsorted(found.times, until, side="right")))
        self._ended = self._at == len(found.times)
        part = slice(first, self._at)
        return Chunk(found.times[part], found.values[part].astype(np.float32), found.rate)

    def close(self) -> None:
        self._recording, self._ended = None, True
