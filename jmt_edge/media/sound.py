"""Sound as blocks: WAV files read in place, compressed audio decoded as it is needed, any rate to 44.1 kHz.

A block is `(t, samples)`: the stream time of its first sample (s) and float32 mono samples in [-1, 1] at 44.1 kHz.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from itertools import chain
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from ..errors import SourceError
from ..tasks import AUDIO_RATE

F32 = NDArray[np.float32]
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MAX_GAP = 0.02  # s: a container's time stamp this far from the sample count is a real gap


class WavFile:
    """A WAV file in place: `read(i, j)` gives frames i..j-1 as float32 mono.

    PCM of 8, 16, 24 and 32 bits and float of 32 and 64. A file cut short (its header's size is 0, or larger than what
    lies on the disk) is read to its last whole frame. Raises SourceError for anything else.
    to_end: the samples are the file's last part, whatever size the header gives (a recorder that was killed).
    """

    def __init__(self, path: Path, *, to_end: bool = False) -> None:
        self.path = path
        self._to_end = to_end
        start, size, bits = self._header()
        self._width = bits // 8
        frame = self._width * self.channels
        self.frames = size // frame
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
                    fmt = file.read(size)
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
                    return here, there if self._to_end or size in (0, 0xFFFFFFFF) else min(size, there), bits
                else:
                    file.seek(size + size % 2, 1)
        raise SourceError(f"sound file {self.path} has no samples (no 'data' chunk); record it again")

    def read(self, i: int, j: int) -> F32:
        """Frames i..j-1, mixed to mono as the mean of the channels: (j - i,) float32."""
        raw = self._raw[i:j]
        if self._is_float:
            x = np.ascontiguousarray(raw).view(f"<f{self._width}")[..., 0].astype(np.float32)
        elif self._width == 1:
            x = (raw[..., 0].astype(np.float32) - 128.0) / 128.0
        else:
            wide = np.zeros((*raw.shape[:2], 4), np.uint8)
            wide[..., 4 - self._width :] = raw
            x = (wide.view("<i4")[..., 0].astype(np.float64) / 2.0**31).astype(np.float32)
        return x[:, 0] if self.channels == 1 else np.asarray(x.mean(axis=1), np.float32)


class StreamResampler:
    """Polyphase resampling of a stream to 44.1 kHz (Kaiser-windowed sinc, as `scipy.signal.resample_poly`).

    Any cutting of the input into pieces gives the same output, bit for bit. Output sample m stands at input time
    m / 44100; the last `delay` input samples wait for their right-hand context until more arrives or `flush`.
    """

    def __init__(self, rate: float) -> None:
        whole = max(1, round(rate))
        common = gcd(whole, AUDIO_RATE)
        self._up, self._down = AUDIO_RATE // common, whole // common
        widest = max(self._up, self._down)
        half = 10 * widest
        cutoff = 1.0 / widest if widest > 1 else 0.5  # equal rates bypass the filter
        taps = signal.firwin(2 * half + 1, cutoff, window=("kaiser", 5.0)) * self._up
        lead = -half % self._down  # zeros that put the filter's centre on the output grid
        self._taps = np.concatenate([np.zeros(lead), taps]).astype(np.float32)
        self._centre = (half + lead) // self._down
        self.delay = -(-half // self._up) + 1
        self._buffer = np.empty(0, np.float32)
        self._first = 0  # input index of _buffer[0], a multiple of `down`
        self._in = 0
        self._out = 0

    def __call__(self, samples: F32) -> F32:
        if self._up == self._down:
            return samples
        self._in += len(samples)
        self._buffer = np.concatenate([self._buffer, samples.astype(np.float32, copy=False)])
        return self._advance(self._in - self.delay)

    def flush(self) -> F32:
        """The rest of the output, as if zeros followed."""
        return np.empty(0, np.float32) if self._up == self._down else self._advance(self._in)

    def _advance(self, ready: int) -> F32:
        """Outputs whose input time lies before input sample `ready`."""
        end = max(0, -(-ready * self._up // self._down))
        if end <= self._out:
            return np.empty(0, np.float32)
        base = self._first // self._down * self._up  # output index of the buffer's first sample
        padded = np.concatenate([self._buffer, np.zeros(self.delay, np.float32)])
        full = signal.upfirdn(self._taps, padded, self._up, self._down)[self._centre :]
        out = full[self._out - base : end - base].astype(np.float32)
        self._out = end
        keep = max(0, end * self._down // self._up - self.delay) // self._down * self._down
        if keep > self._first:
            self._buffer = self._buffer[keep - self._first :]
            self._first = keep
        return out


def wav_blocks(wav: WavFile) -> Iterator[tuple[float, F32]]:
    """The file as blocks of about a second, time 0 at its first sample."""
    resample = StreamResampler(wav.rate)
    done = 0
    for i in range(0, wav.frames, wav.rate):
        out = resample(wav.read(i, min(i + wav.rate, wav.frames)))
        if len(out):
            yield done / AUDIO_RATE, out
            done += len(out)
    if len(out := resample.flush()):
        yield done / AUDIO_RATE, out


def compressed_blocks(path: Path) -> Iterator[tuple[float, F32]]:
    """The sound of a compressed file or of a video, by PyAV where it is installed, else by the program ffmpeg.

    Time 0 is the video stream's first frame where there is one. Raises SourceError where neither decoder is there or
    the file has no sound; at the first `next`, not before.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        pass
    else:
        return _av_blocks(path)
    if shutil.which("ffmpeg"):
        return _ffmpeg_blocks(path)
    raise SourceError(
        f"cannot decode the sound of {path} without PyAV or ffmpeg; `pip install 'jmt-edge[record]'` or give a WAV file"
    )


def _av_blocks(path: Path) -> Iterator[tuple[float, F32]]:
    import av

    try:
        container: Any = av.open(str(path))
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot read the sound of {path} ({_first_line(error)}); convert it to WAV") from None
    with container:
        if not container.streams.audio:
            raise SourceError(f"{path} has no sound; give --microphone another file, or none")
        stream = container.streams.audio[0]
        origin = 0.0
        for zero in (*container.streams.video[:1], stream):
            if zero.start_time is not None:
                origin = float(zero.start_time * zero.time_base)
                break
        mono = av.AudioResampler(format="flt", layout="mono", rate=AUDIO_RATE)
        expected: float | None = None
        try:
            for frame in chain(container.decode(stream), [None]):  # None: the resampler's rest
                if frame is not None and frame.pts is not None:
                    t = float(frame.pts * frame.time_base) - origin
                    if expected is None or abs(t - expected) > _MAX_GAP:
                        expected = t
                for out in mono.resample(frame):
                    samples = np.array(out.to_ndarray()[0], np.float32)
                    yield expected or 0.0, samples
                    expected = (expected or 0.0) + len(samples) / AUDIO_RATE
        except av.FFmpegError:
            return  # a file cut short ends at its last whole packet


def _ffmpeg_blocks(path: Path) -> Iterator[tuple[float, F32]]:
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(path), "-vn", "-af", "aresample=async=1:first_pts=0"]
    command += ["-ac", "1", "-ar", str(AUDIO_RATE), "-f", "f32le", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        done = 0
        try:
            while block := process.stdout.read(4 * AUDIO_RATE):
                samples = np.frombuffer(block[: len(block) // 4 * 4], "<f4").copy()
                yield done / AUDIO_RATE, samples
                done += len(samples)
            if done == 0:
                why = process.stderr.read().decode(errors="replace").strip().splitlines()
                raise SourceError(f"cannot read the sound of {path} ({why[-1] if why else 'it has none'}); give a WAV")
        finally:
            process.kill()


def _first_line(error: Exception) -> str:
    return getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]


def sound_blocks(path: Path) -> Iterator[tuple[float, F32]]:
    """Blocks of any sound file; see `wav_blocks` and `compressed_blocks`."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        return wav_blocks(WavFile(path))
    return compressed_blocks(path)
