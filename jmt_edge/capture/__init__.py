"""Sources of samples: devices, files, simulations. `open_source` turns a specification into one.

| specification | face | voice | eda |
|---|---|---|---|
| `none` | no source | no source | no source |
| `sim:` or `sim:seed=3&...` | simulated person | simulated person | simulated person |
| a path | video, folder of images (`?fps=`) | WAV, other sound, a video's sound | see `eda_files` |
| a device | `0`, `/dev/video0`, `csi:0`, `rtsp:`, GStreamer | index or name | `bitalino:PORT`, `auto:PORT`, `lsl:...` |

`recording.open_source` also knows `replay:DIR`. Cameras take `?width=&height=&fps=`, microphones `?rate=`, EDA files
`?time=&column=&unit=&rate=&sep=&decimal=`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SourceError
from ..media.chunk import Chunk
from ..tasks import MODALITIES
from .base import Source, Status
from .spec import kind_of, names_file, number, split_query

if TYPE_CHECKING:
    from ..media.eda_files import Asked

_EDA_DEVICES = ("bitalino:", "shimmer3:", "grove:", "csv:", "auto:", "/dev/")
EDA_FILE_SETTINGS = ("time", "column", "unit", "rate", "sep", "decimal", "bits", "vcc", "gain", "cal")
_MEDIA_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aac", ".opus", ".mp4", ".mpg", ".mpeg", ".avi", ".mkv", ".mov", ".webm",
    ".csv", ".txt", ".gz", ".xdf", ".h5", ".zip", ".avro", ".edf", ".bdf", ".acq",
)  # fmt: skip


def open_source(modality: str, spec: str, *, delay: float = 0.0) -> Source | None:
    """The unopened source described by `spec`, None for `none`.

    `delay` is a known latency of the device in seconds: a sample read at time t was taken at t - delay.
    Raises SourceError for a malformed specification, a missing file or an unknown modality.
    """
    if modality not in MODALITIES:
        raise SourceError(f"there is no modality '{modality}'; choose one of {', '.join(MODALITIES)}")
    if spec in ("none", ""):
        return None
    if not np.isfinite(delay) or not -60 <= delay <= 60:
        raise SourceError(f"a delay of {delay} s for {modality} is not usable; give seconds between -60 and 60")
    source = _open(modality, spec)
    return _Delayed(source, delay) if delay else source


def _open(modality: str, spec: str) -> Source:
    if spec.startswith("sim:"):
        from .simulated import open_simulated

        return open_simulated(modality, spec)
    if spec.startswith("replay:"):
        raise SourceError(f"'{spec}' is a recording, not a device or a file; open it with jmt_edge.recording")
    return {"face": _open_face, "voice": _open_voice, "eda": _open_eda}[modality](spec)


def _open_face(spec: str) -> Source:
    looks = spec.startswith(("/dev/", "csi:")) or "!" in spec or "://" in spec or spec.partition("?")[0].isdecimal()
    if looks and not names_file(spec):
        from .camera import Camera

        return Camera(spec)
    from .files import ImageFolder, VideoFile

    path, given = split_query(spec, "fps")
    file = _existing(
        path, "--camera", "a video, a folder of images, an index, /dev/videoN, csi:N, rtsp://..., sim: or none"
    )
    fps = number(spec, given, "fps", 0.1, 1000)
    if file.is_dir():
        return ImageFolder(file, fps)
    return VideoFile(file, fps)


def _open_voice(spec: str) -> Source:
    from .files import SoundFile

    if not kind_of(spec) and "/" not in spec and Path(spec.partition("?")[0]).suffix not in _MEDIA_SUFFIXES:
        from .microphone import Microphone

        return Microphone(spec)
    file = _existing(spec, "--microphone", "a sound file, a device's index or name, sim: or none")
    return SoundFile(file)


def _open_eda(spec: str) -> Source:
    if spec.startswith("lsl:") and not names_file(spec):
        from .lsl import open_lsl

        return open_lsl(spec)
    if spec.startswith("brainflow:") and not names_file(spec):
        from .brainflow import open_brainflow

        return open_brainflow(spec)
    if spec.startswith(_EDA_DEVICES) and not names_file(spec):
        from .eda import open_eda

        return open_eda(spec)
    from .files import EdaFile

    path, given = split_query(spec, *EDA_FILE_SETTINGS)
    file = _existing(path, "--eda", "a recording, bitalino:/dev/..., auto:/dev/..., lsl:type=EDA, sim: or none")
    return EdaFile(file, asked_of(spec, given))


def asked_of(spec: str, given: Mapping[str, str]) -> Asked:
    """The settings of an EDA file's specification. Raises SourceError, quoting `spec`."""
    from ..media.eda_files import Asked
    from ..media.units import conversion

    rate, unit = number(spec, given, "rate", 0.1, 10_000), conversion(given, spec)
    return Asked(rate, given.get("column"), given.get("time"), given.get("sep"), given.get("decimal"), unit)


def _existing(path: str, option: str, choices: str) -> Path:
    kind = kind_of(path)
    if not kind:
        raise SourceError(f"{option}: there is no '{path}'; give {choices}")
    if kind in ("pipe", "device"):
        raise SourceError(
            f"{option}: '{path}' is a {kind}, which has no beginning to be read from; write its stream into a file, or "
            f"give {choices}"
        )
    return Path(path).expanduser()


class _Delayed:
    """A source whose samples reach the host `delay` seconds after they were taken."""

    def __init__(self, source: Source, delay: float) -> None:
        self._source, self._delay = source, delay
        self.modality, self.name, self.realtime = source.modality, source.name, source.realtime

    def open(self, origin: float) -> None:
        self._source.open(origin)

    def read(self, until: float) -> Chunk:
        chunk = self._source.read(until + self._delay)
        return Chunk(chunk.times - self._delay, chunk.values, chunk.rate, chunk.lost)

    def status(self) -> Status:
        status = self._source.status()
        status.detail["delay"] = self._delay
        return status

    def close(self) -> None:
        self._source.close()
