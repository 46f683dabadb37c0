"""What a file is, what was understood of it, and how good its signal is over time: for `jmt-edge inspect`."""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..preprocessing.eda import GAP_MAX, GAP_MIN, GAP_PERIODS
from ..preprocessing.quality import EdaQuality, Verdict, VoiceQuality
from ..tasks import get_task
from . import EDA_FILE_SETTINGS, asked_of
from .spec import kind_of, number, split_query

_VIDEO = (
    ".mp4", ".mpg", ".mpeg", ".avi", ".mkv", ".mov", ".webm", ".ts", ".m2ts", ".mts", ".3gp", ".wmv", ".flv", ".m4v",
    ".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg", ".ivf", ".gif",
)  # fmt: skip
_SOUND = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aac", ".opus")
_STEP = 1.0  # s between two verdicts
_PAUSE = 0.25  # s without a picture or sound that is worth a line
_NAMES = {
    "csv": "delimited text",
    "numbers": "one number a row",
    "opensignals": "OpenSignals",
    "empatica": "Empatica EDA",
    "biovid": "BioVid biosignals",
    "physiokit": "PhysioKit table (counts, not µS)",
    "xdf": "XDF",
    "edf": "EDF or BDF",
    "biopac": "BIOPAC AcqKnowledge",
    "embraceplus": "Empatica EmbracePlus (Avro)",
}


@dataclass(frozen=True)
class Stretch:
    """Seconds from `start` to `end`, and what is wrong there."""

    start: float
    end: float
    what: str


@dataclass(frozen=True)
class Trace:
    """A signal over time, for a picture. times: (n,) s; values: (n,), NaN for no data."""

    times: NDArray[np.float64]
    values: NDArray[Any]
    label: str
    from_zero: bool = False


@dataclass
class Inspection:
    """What `inspect` says of one file; what does not apply keeps its default.

    use: the option and the source string for `jmt-edge live`. rate: measured, Hz. low, middle, high: of the values, in
    `unit`. usable: share of the clips of a live run that the quality rule accepts, where `judged`. error: why the file
    is refused. trace: the signal, which is not part of `to_dict`.
    """

    file: str
    what: str = ""
    use: str = ""
    column: str = ""
    unit: str = ""
    samples: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0
    lost: int = 0
    altered: int = 0
    notes: list[str] = field(default_factory=list)
    gaps: list[Stretch] = field(default_factory=list)
    usable: float = 0.0
    unusable: list[Stretch] = field(default_factory=list)
    judged: bool = False
    error: str = ""
    trace: Trace | None = None

    def to_dict(self) -> dict[str, Any]:
        shown = asdict(replace(self, trace=None))
        return {
            name: value
            for name, value in shown.items()
            if name != "trace" and value is not False and value not in ("", [])
        }


def inspect_file(spec: str) -> Inspection:
    """What `spec`, a path with or without settings, holds; a file that is refused has `error`."""
    try:
        path = Path(split_query(spec, *EDA_FILE_SETTINGS, "fps", "rotate")[0]).expanduser()
        kind = kind_of(str(path))
        if kind not in ("file", "folder"):
            what = f"'{path}' is a {kind}" if kind else f"there is no '{path}'"
            raise SourceError(f"{what}; give a video, a sound file or an EDA recording")
        if (path / "manifest.json").is_file():
            raise SourceError(f"'{path}' is a folder of this program, a recording or a bundle; try `jmt-edge replay`")
        if path.is_dir() or path.suffix.lower() in _VIDEO:
            return _video(spec, path)
        return _sound(spec, path) if path.suffix.lower() in _SOUND else _eda(spec)
    except SourceError as error:
        return Inspection(spec, error=str(error))


def _video(spec: str, path: Path) -> Inspection:
    from ..media.video import FolderReader, VideoReader
    from .turned import split_rotate

    name, given = split_query(split_rotate(spec, "fps")[0], "fps")
    fps = number(spec, given, "fps", 0.1, 1000)
    reader = FolderReader(path, fps) if path.is_dir() else VideoReader(Path(name).expanduser(), fps)
    times: list[float] = []
    with closing(reader):
        width, height = reader.size
        while reader.time is not None:
            times.append(reader.time)
            reader.advance()
    what = f"{'folder of images' if path.is_dir() else 'video'}, {width}x{height}"
    out = Inspection(spec, what, f"--camera {shlex.quote(spec)}", samples=len(times))
    out.rate, out.seconds = round(1.0 / reader.period, 3), times[-1] - times[0] + reader.period
    out.altered, out.notes = reader.altered, list(reader.notes)
    at = np.flatnonzero(np.diff(times) > max(_PAUSE, 3 * reader.period))
    out.gaps = [Stretch(times[i], times[i + 1], "no picture") for i in at.tolist()]
    if len(times) > 1:
        out.trace = Trace(np.array(times[1:]), 1000 * np.diff(times), "ms since the frame before", from_zero=True)
    return out


def _sound(spec: str, path: Path) -> Inspection:
    from ..media.sound import file_rate, sound_blocks
    from ..tasks import AUDIO_RATE

    out = Inspection(spec, "sound", f"--microphone {shlex.quote(spec)}", rate=float(AUDIO_RATE))
    if (own := file_rate(path)) and own != AUDIO_RATE:
        out.notes.append(f"resampled from the file's {own} Hz")
    span = get_task("affect").modality("voice").span
    quality, ends = VoiceQuality(), span
    verdicts: list[tuple[float, Verdict]] = []
    times: list[NDArray[np.float64]] = [np.empty(0)]
    levels: list[NDArray[np.float64]] = [np.empty(0)]
    for start, block in sound_blocks(path, out.notes):
        if out.samples and start - out.seconds > _PAUSE:
            out.gaps.append(Stretch(out.seconds, start, "no sound"))
        out.seconds, out.samples = start + len(block) / AUDIO_RATE, out.samples + len(block)
        quality.update(start + np.arange(len(block)) / AUDIO_RATE, block)
        while ends <= out.seconds:
            verdicts.append((ends, quality.verdict(ends, span)))
            ends += _STEP
        at = np.arange(0, len(block), AUDIO_RATE // 20)  # a level every 50 ms
        power = np.add.reduceat(np.square(block, dtype=np.float64), at) / np.diff([*at, len(block)])
        times.append(start + at / AUDIO_RATE)
        levels.append(10 * np.log10(np.maximum(power, 1e-12)))
    out.trace = Trace(np.concatenate(times), np.concatenate(levels), "level, dBFS")
    out.judged = True
    out.usable, out.unusable = _stretches(verdicts, span)
    return out


def _eda(spec: str) -> Inspection:
    from ..media.eda_files import read_eda_file

    path, given = split_query(spec, *EDA_FILE_SETTINGS)
    found = read_eda_file(Path(path).expanduser(), asked_of(spec, given))
    times, values = found.times, found.values
    low, middle, high = np.nanpercentile(values, [0, 50, 100]).tolist()
    out = Inspection(spec, _NAMES[found.kind], f"--eda {shlex.quote(spec)}", found.column, found.unit, len(times))
    out.rate, out.seconds = found.measured_rate, float(times[-1])
    out.low, out.middle, out.high = low, middle, high
    out.lost, out.altered, out.notes = found.lost, found.altered, list(found.notes)
    out.gaps = _gaps(times, values, out.rate)
    out.trace = Trace(times, values, found.unit)
    if found.unit == "µS":
        out.judged = True
        out.usable, out.unusable = _quality(times, values)
    else:
        out.unusable = [Stretch(0.0, out.seconds, "not in µS; say what the counts are by unit=")]
    return out


def _gaps(times: NDArray[np.float64], values: NDArray[np.float64], rate: float) -> list[Stretch]:
    """Stretches without a valid value that are not interpolated across."""
    limit = float(np.clip(GAP_PERIODS / rate if rate else GAP_MAX, GAP_MIN, GAP_MAX))
    valid = times[np.isfinite(values)]
    at = np.flatnonzero(np.diff(valid) > limit)
    return [Stretch(float(valid[i]), float(valid[i + 1]), "no data") for i in at.tolist()]


def _quality(times: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, list[Stretch]]:
    """(share of clips that may be used, where not and why), for the pain task's clips, one a second."""
    span = get_task("pain").modality("eda").span
    quality = EdaQuality()
    verdicts: list[tuple[float, Verdict]] = []
    done = 0
    for end in np.arange(span, times[-1] + 1e-6, _STEP).tolist():
        stop = int(np.searchsorted(times, end, side="right"))
        quality.update(times[done:stop], values[done:stop].astype(np.float32))
        done = stop
        verdicts.append((end, quality.verdict(end, span)))
    return _stretches(verdicts, span)


def _stretches(verdicts: list[tuple[float, Verdict]], span: float) -> tuple[float, list[Stretch]]:
    """(share of clips that may be used, where not and why) by the verdicts on clips of `span` s that end at a time."""
    found: list[Stretch] = []
    good = 0
    for end, verdict in verdicts:
        good += verdict.ok
        if verdict.ok:
            continue
        why = verdict.reason.split(":")[0]
        if found and found[-1].end >= end - span - 1e-6 and found[-1].what == why:
            found[-1] = Stretch(found[-1].start, end, why)
        else:
            found.append(Stretch(end - span, end, why))
    return (good / len(verdicts) if verdicts else 0.0), found
