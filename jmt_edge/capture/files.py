"""Files as sources: video, sound, EDA, a folder of images. Readable at any speed; ENDED after the last sample.

Stream time 0 is the file's first frame or sample (for the sound of a video: the first frame).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..media.chunk import Chunk, empty_chunk
from ..media.eda_files import Asked, EdaRecording, read_eda_file
from ..tasks import AUDIO_RATE
from .base import State, Status

if TYPE_CHECKING:  # EDA files need neither OpenCV nor SciPy, which takes 80 MB
    from ..media.pixels import Image
    from ..media.sound import F32
    from ..media.video import FolderReader, VideoReader


class _File:
    """Common to all file sources: a name, and a state that becomes ENDED."""

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
        reason = f"{self.name} has ended" if self._ended else ""
        return Status(state, reason, lost=self._lost, unit=self._unit, detail=dict(self._detail))


class VideoFile(_File):
    """The frames of a video at the container's time stamps; see `media.video.VideoReader`."""

    modality = "face"

    def __init__(self, path: Path, fps: float | None = None) -> None:
        super().__init__(path)
        self._fps = fps
        self._reader: VideoReader | FolderReader | None = None

    def _opened(self) -> VideoReader | FolderReader:
        from ..media.video import VideoReader

        return VideoReader(self.path, self._fps)

    def open(self, origin: float) -> None:
        """Raises SourceError where no frame can be decoded."""
        self._reader = reader = self._opened()
        self._detail.update(size=reader.size, fps=round(1.0 / reader.period, 3))

    def read(self, until: float) -> Chunk:
        if (reader := self._reader) is None:
            return empty_chunk("face")
        times: list[float] = []
        images: list[Image] = []
        lost = 0
        while reader.time is not None and reader.time <= until:
            image = reader.image()
            if image is None:
                lost += 1
            else:
                times.append(reader.time)
                images.append(image)
            reader.advance()
        self._ended = reader.time is None
        self._lost += lost
        if reader.notes:
            self._detail.update(altered=reader.altered, notes=list(reader.notes))
        return Chunk(np.array(times, np.float64), images, 1.0 / reader.period, lost)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader, self._ended = None, True


class ImageFolder(VideoFile):
    """The images of a folder, `fps` per second; see `media.video.FolderReader`."""

    def _opened(self) -> FolderReader:
        from ..media.video import FolderReader

        return FolderReader(self.path, self._fps)


class SoundFile(_File):
    """The sound of a file or of a video as 44.1 kHz mono, decoded as it is read; see `media.sound.sound_blocks`."""

    modality = "voice"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._blocks: Iterator[tuple[float, F32]] = iter(())
        self._times: NDArray[np.float64] = np.empty(0)
        self._samples: F32 = np.empty(0, np.float32)
        self._notes: list[str] = []

    def open(self, origin: float) -> None:
        """Raises SourceError for a file without readable sound."""
        from ..media.sound import sound_blocks

        self._blocks = sound_blocks(self.path, self._notes)
        self._advance()

    def _advance(self) -> None:
        """Take the next block, or end."""
        t, self._samples = next(self._blocks, (0.0, np.empty(0, np.float32)))
        self._times = t + np.arange(len(self._samples)) / AUDIO_RATE
        self._ended = not len(self._samples)

    def read(self, until: float) -> Chunk:
        times, samples = [np.empty(0)], [np.empty(0, np.float32)]
        while not self._ended and self._times[0] <= until:
            n = int(np.searchsorted(self._times, until, side="right"))
            times.append(self._times[:n])
            samples.append(self._samples[:n])
            self._times, self._samples = self._times[n:], self._samples[n:]
            if not len(self._times):
                self._advance()
        if self._notes:
            self._detail["notes"] = list(self._notes)
        return Chunk(np.concatenate(times), np.concatenate(samples), float(AUDIO_RATE))

    def close(self) -> None:
        getattr(self._blocks, "close", lambda: None)()
        self._blocks, self._ended = iter(()), True


class EdaFile(_File):
    """An EDA recording; see `media.eda_files` for the formats, `asked` and `strict`.

    What the file lacks, and what was left out of it or moved, is in the status: `lost`, and `altered` (samples moved in
    time), `dropped` (by reason) and `notes` of its details.
    """

    modality = "eda"

    def __init__(self, path: Path, asked: Asked | None = None, *, strict: bool = False) -> None:
        super().__init__(path)
        self._asked, self._strict = asked, strict
        self._recording: EdaRecording | None = None
        self._at = 0
        self._unit = "µS"

    def open(self, origin: float) -> None:
        self._recording = found = read_eda_file(self.path, self._asked, strict=self._strict)
        span = float(found.times[-1])
        measured = (len(found.times) - 1) / span if span > 0 else 0.0
        self._lost, self._unit = found.lost, found.unit
        if found.notes or found.lost:
            self._detail.update(altered=found.altered, dropped=found.counts, notes=list(found.notes))
        self._detail.update(format=found.kind, nominal_rate=found.rate, rate=round(measured, 3))

    def read(self, until: float) -> Chunk:
        found = self._recording
        if found is None:
            return empty_chunk("eda")
        first = self._at
        self._at = max(first, int(np.searchsorted(found.times, until, side="right")))
        self._ended = self._at == len(found.times)
        part = slice(first, self._at)
        lost = found.lost if part.start == 0 and part.stop else 0  # told with the first samples
        return Chunk(found.times[part], found.values[part].astype(np.float32), found.rate, lost)

    def close(self) -> None:
        self._recording, self._ended = None, True
