"""Sound of any file as 44.1 kHz mono, in blocks: decoded to float, mixed down, resampled and time-stamped.

A block is `(t, samples)`: the stream time of its first sample (s) and float32 mono samples in [-1, 1] at 44.1 kHz. WAV
files are read in place; PyAV decodes the rest. Whatever the format, samples become float, mono and 44.1 kHz by the
functions below, so the same samples give the same numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError, first_line
from ..preprocessing.resample import StreamResampler
from ..tasks import AUDIO_RATE
from .eda_times import MAX_GAP, MAX_NOTES

F32 = NDArray[np.float32]
Piece = tuple[float | None, F32, int]  # (time stamp in s, samples, their rate in Hz)
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_LONGEST_FORMAT = 64  # bytes of a format that are read
_MOST_PLANES = 8  # AV_NUM_DATA_POINTERS: PyAV reads beyond them and ends the process
_PLANES = {"u8p": np.uint8, "s16p": np.int16, "s32p": np.int32, "fltp": np.float32, "dblp": np.float64}
_COVER = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
_RATES = (1000, 768_000)  # Hz
_MAX_GAP = 0.02  # s: a time stamp this far from the sample count is a real gap
_NO_LENGTH = ("mp3", "aac", "mpegts", "mpeg")  # formats whose length is a guess by the size
_RESTART = 1.0  # s: a time stamp this far back means that the stamps restarted


def to_float(x: NDArray[Any]) -> F32:
    """Samples of any type as float32; the range of an integer type becomes [-1, 1)."""
    if x.dtype == np.uint8:
        return (x.astype(np.float32) - 128.0) / np.float32(128.0)
    if x.dtype.kind == "i":
        return (x.astype(np.float64) / 2.0 ** (8 * x.dtype.itemsize - 1)).astype(np.float32)
    return x.astype(np.float32)


def down_mix(x: F32) -> F32:
    """(n, channels) -> (n,): the mean of the channels, for every layout."""
    return x[:, 0] if x.shape[1] == 1 else np.asarray(np.ascontiguousarray(x).mean(axis=1), np.float32)


class Antiphase:
    """Whether the channels of a stream cancel each other out, so that their mean is silence (one is wired inverted).

    Judged on every 2 s of sound above -50 dBFS: the mean has less than 1 % of the channels' power.
    found: the last judgement; None before the first.
    """

    SECONDS, MIN_POWER, MAX_SHARE = 2.0, 1e-5, 0.01

    def __init__(self) -> None:
        self.found: bool | None = None
        self._heard = self._channels = self._mean = 0.0

    def add(self, x: F32, rate: float) -> None:
        """x: (n, channels)."""
        power = float(np.square(x, dtype=np.float64).mean()) if x.shape[1] > 1 and len(x) else 0.0
        if not self.MIN_POWER < power < np.inf:
            return
        self._channels += len(x) * power
        self._mean += float(np.square(x.mean(axis=1), dtype=np.float64).sum())
        self._heard += len(x) / rate
        if self._heard >= self.SECONDS:
            self.judge()

    def judge(self) -> None:
        """Judge what was heard since the last judgement, however short."""
        if self._heard:
            self.found = self._mean < self.MAX_SHARE * self._channels
            self._heard = self._channels = self._mean = 0.0


class WavFile:
    """A WAV file in place: `read(i, j)` gives frames i..j-1 as float32 mono.

    PCM of 8, 16, 24 and 32 bits and float of 32 and 64. A truncated file (its header's size is 0, or larger than the
    file) is read to its last whole frame. Raises SourceError for anything else.
    to_end: the samples reach to the file's end, whatever size the header gives (a recorder that was killed).
    """

    def __init__(self, path: Path, *, to_end: bool = False) -> None:
        self.path = path
        self._to_end = to_end
        self._declared = 0  # bytes of samples, by the header
        start, size, bits = self._header()
        self._width = bits // 8
        frame = self._width * self.channels
        self.frames = size // frame
        self.missing = max(0, self._declared // frame - self.frames)  # frames that were cut off
        if self.frames == 0:
            raise SourceError(f"sound file {path} holds 0 samples; record it again or give another file")
        raw = np.memmap(path, np.uint8, "r", offset=start, shape=(self.frames * frame,))
        self._raw = raw.reshape(self.frames, self.channels, self._width)

    def _header(self) -> tuple[int, int, int]:
        """(offset of the samples, their length in bytes, bits per sample); sets rate, channels and format."""
        total = self.path.stat().st_size
        bits = 0
        with self.path.open("rb") as file:
            if file.read(4) != b"RIFF" or file.seek(8) != 8 or file.read(4) != b"WAVE":
                raise SourceError(f"{self.path} is not a WAV file (no RIFF/WAVE header); convert it to WAV")
            while len(head := file.read(8)) == 8:
                name, size = head[:4], struct.unpack("<I", head[4:])[0]
                if name == b"fmt ":
                    fmt = file.read(min(size, _LONGEST_FORMAT))
                    file.seek(max(0, size - _LONGEST_FORMAT) + size % 2, 1)
                    if len(fmt) < 16:
                        break
                    kind, self.channels, self.rate, _, _, bits = struct.unpack("<HHIIHH", fmt[:16])
                    if kind == _EXTENSIBLE and len(fmt) >= 26:
                        kind = struct.unpack("<H", fmt[24:26])[0]
                    self._is_float = kind == _FLOAT
                    known = bits in (32, 64) if self._is_float else kind == _PCM and bits in (8, 16, 24, 32)
                    if not known or self.channels < 1 or self.rate < 1:
                        raise SourceError(
                            f"sound file {self.path} has WAV format {kind} with {bits} bits; convert it to 16-bit PCM"
                        )
                elif name == b"data" and bits:
                    here = file.tell()
                    there = total - here
                    if self._to_end or size in (0, 0xFFFFFFFF):
                        return here, there, bits
                    self._declared = size
                    return here, min(size, there), bits
                else:
                    file.seek(size + size % 2, 1)
        raise SourceError(f"sound file {self.path} has no samples (no 'data' chunk); record it again")

    def read(self, i: int, j: int) -> F32:
        """Frames i..j-1, mixed to mono as the mean of the channels: (j - i,) float32."""
        return down_mix(self.read_channels(i, j))

    def read_channels(self, i: int, j: int) -> F32:
        """Frames i..j-1: (j - i, channels) float32."""
        raw = np.ascontiguousarray(self._raw[i:j])
        if self._width == 3:
            wide = np.zeros((*raw.shape[:2], 4), np.uint8)
            wide[..., 1:] = raw
            raw = wide
        kind = "f" if self._is_float else "u" if self._width == 1 else "i"
        return to_float(raw.view(f"<{kind}{raw.shape[2]}")[..., 0])


def sound_blocks(path: Path, notes: list[str] | None = None) -> Iterator[tuple[float, F32]]:
    """The sound of a file as blocks in time order; a gap between their times is a gap in the file's time stamps.

    Time 0 is the first frame of the file's video, or its first sample where there is no video. Memory does not grow
    with the file's length. What was done to the time stamps is added to `notes`, and whether the file was cut off.
    Raises SourceError, at the first `next`, for a file without readable sound, and where the channels of its first
    sound cancel each other out.
    """
    notes = [] if notes is None else notes
    if path.is_dir():
        raise SourceError(f"cannot read the sound file {path} (it is a folder); give another file")
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise SourceError(f"cannot read the sound file {path} ({error.strerror}); give another file") from None
    wave = head[:4] == b"RIFF" and head[8:] == b"WAVE"
    pieces = _wav_pieces(WavFile(path), notes) if wave else _decoded_pieces(path, notes)
    resample, start, done = StreamResampler(AUDIO_RATE), 0.0, 0
    for begins, samples, rate in _placed(_mixed(pieces, path), notes):
        if begins is not None:
            if len(rest := resample.flush()):
                yield start + done / AUDIO_RATE, rest
            if not _RATES[0] <= rate <= _RATES[1]:
                raise SourceError(f"sound file {path} has a rate of {rate} Hz; convert it to 44100 Hz")
            resample, start, done = StreamResampler(rate), begins, 0
        if len(out := resample(samples)):
            yield start + done / AUDIO_RATE, out
            done += len(out)
    if len(rest := resample.flush()):
        yield start + done / AUDIO_RATE, rest
    elif not done:
        raise SourceError(f"sound file {path} holds 0 samples; record it again or give another file")


def file_rate(path: Path) -> int:
    """The rate (Hz) of a sound file before it is resampled; 0 where it cannot be told."""
    try:
        with path.open("rb") as file:
            if file.read(4) == b"RIFF":
                return int(WavFile(path).rate)
        import av

        with av.open(str(path)) as container:
            return int(container.streams.audio[0].rate)
    except (ImportError, SourceError, OSError, ValueError, IndexError):
        return 0


def _mixed(pieces: Iterator[Piece], path: Path) -> Iterator[Piece]:
    """The pieces, (n, channels), mixed to mono: (n,)."""
    antiphase = Antiphase()
    for t, channels, rate in pieces:
        if antiphase.found is None:
            antiphase.add(channels, rate)
        if antiphase.found:
            break
        yield t, down_mix(channels), rate
    if antiphase.found is None:
        antiphase.judge()
    if antiphase.found:
        raise SourceError(
            f"the channels of {path} cancel each other out (antiphase stereo), so their mean is silence; invert one "
            "of them, or save one alone as a mono file"
        )


def _placed(pieces: Iterator[Piece], notes: list[str]) -> Iterator[Piece]:
    """The pieces, with a time only where a stretch begins: at the start, after a gap, and where the rate changes.

    A single stray time stamp is ignored, samples that overlap those before them are dropped, and where time stamps
    restart, or jump by more than MAX_GAP, the sound continues without a gap.
    """
    steps = 0
    start = heard = shift = 0.0  # the stretch's start, the seconds since; what is added to the stamps
    last_rate = 0
    piece = next(pieces, None)
    while piece is not None:
        (t, samples, rate), following = piece, next(pieces, None)
        end, begins = start + heard, None
        if not last_rate:
            begins = t or 0.0
        elif t is not None:
            after = None if following is None else following[0]
            if after is None or abs(after + shift - end - len(samples) / rate) > _MAX_GAP:
                if t + shift < end - _RESTART or t + shift > end + MAX_GAP:
                    way = "ahead" if t + shift > end else "back"
                    if (steps := steps + 1) <= MAX_NOTES:
                        notes.append(
                            f"at {end:.2f} s: the time stamps step {way} by {abs(t + shift - end):.6g} s; the sound "
                            "continues"
                        )
                    shift = end - t
                elif t + shift < end - _MAX_GAP:
                    samples = samples[round((end - t - shift) * rate) :]
                elif t + shift > end + _MAX_GAP:
                    begins = t + shift
        if begins is None and rate != last_rate:
            begins = end
        if begins is not None:
            start, heard, last_rate = begins, 0.0, rate
        yield begins, samples, rate
        heard += len(samples) / rate
        piece = following


def _wav_pieces(wav: WavFile, notes: list[str]) -> Iterator[Piece]:
    if wav.missing > 0.01 * wav.rate:
        whole = (wav.frames + wav.missing) / wav.rate
        notes.append(f"the file ends at {wav.frames / wav.rate:.1f} s of {whole:.1f} s: it was cut off")
    for i in range(0, wav.frames, wav.rate):
        yield None, wav.read_channels(i, min(i + wav.rate, wav.frames)), wav.rate


def _decoded_pieces(path: Path, notes: list[str]) -> Iterator[Piece]:
    """The first sound track, decoded by PyAV. A damaged packet leaves a gap; a truncated file ends early."""
    try:
        import av
    except ImportError:
        raise SourceError(
            f"decoding the sound of {path} needs PyAV; run `pip install 'jmt-edge[record]'` or give a WAV file"
        ) from None
    try:
        container: Any = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"cannot read the sound of {path} ({_reason(error)}); convert it to WAV") from None
    with container:
        if not container.streams.audio:
            raise SourceError(f"{path} has no sound track; give another file, or none")
        stream = container.streams.audio[0]
        # a cover picture is a video stream too; PyAV before 14.2 cannot tell
        videos = [v for v in container.streams.video if not getattr(v, "disposition", 0) & _COVER]
        origin: float | None = None
        if videos and videos[0].start_time is not None:
            origin = float(videos[0].start_time * videos[0].time_base)
        problem: Exception | None = None
        decoded, damaged, reached, before = False, 0, 0.0, len(notes)
        packets = container.demux(stream)
        while True:
            try:
                frames = next(packets).decode()
            except StopIteration:
                break
            except av.FFmpegError as error:
                problem, damaged = error, damaged + 1
                continue
            for frame in frames:
                decoded = True
                t = None if frame.pts is None else float(frame.pts * frame.time_base)
                origin = t if origin is None else origin
                begins = None if t is None or origin is None else t - origin
                reached = (reached if begins is None else begins) + frame.samples / frame.sample_rate
                yield begins, _channels(frame, path), frame.sample_rate
        whole = float((container.duration or 0) / 1e6)
        if damaged:
            notes.append(f"damaged packets of sound are left out: {damaged}")
        # a picture may be longer than its sound
        elif videos or container.format.name in _NO_LENGTH or len(notes) > before:
            pass
        elif whole - reached > max(1.0, 0.02 * whole):
            notes.append(f"the file ends at {reached:.1f} s of {whole:.1f} s: it was cut off")
    if problem and not decoded:
        raise SourceError(f"cannot decode the sound of {path} ({_reason(problem)}); convert it to WAV")


def _channels(frame: Any, path: Path) -> F32:
    count = frame.layout.nb_channels
    if frame.format.is_planar and count > _MOST_PLANES:
        raise SourceError(f"{path} has sound of {count} channels; mix it down to at most {_MOST_PLANES}")
    if frame.format.name in _PLANES:
        # not to_ndarray: with 8 channels it takes the line size that follows the pointers for a ninth one
        planes = [np.frombuffer(p, _PLANES[frame.format.name], frame.samples) for p in frame.planes[:count]]
        return to_float(np.stack(planes, axis=1))
    try:
        x = frame.to_ndarray()
    except ValueError:
        raise SourceError(f"{path} has samples of type {frame.format.name}; convert it to 16-bit WAV") from None
    return to_float(x.reshape(-1, count))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)
