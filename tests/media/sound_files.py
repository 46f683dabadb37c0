"""Sound files of known samples, written by PyAV with time stamps of our choosing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def click(seconds: float, at: float, rate: int = 44_100, channels: int = 1) -> np.ndarray:
    """(n, channels) silence with a click of 2 ms at `at`."""
    x = np.zeros((int(seconds * rate), channels), np.float32)
    x[int(at * rate) : int((at + 0.002) * rate)] = 0.8
    return x


def tones(seconds: float = 1.0, rate: int = 44_100, channels: int = 2) -> np.ndarray:
    """(n, channels): a tone of another frequency and level in each channel, quiet enough for any sum."""
    t = np.arange(int(seconds * rate)) / rate
    return np.stack([0.8 / (c + 1) * np.sin(2 * np.pi * (300 + 170 * c) * t) for c in range(channels)], 1).astype("f4")


def write_sound(
    path: Path,
    codec: str,
    x: np.ndarray,
    rate: int = 44_100,
    *,
    layout: str = "stereo",
    sample_format: str = "fltp",
    start: float = 0.0,
    jumps: dict[float, float] | None = None,
    picture: float | None = None,
    drop: slice = slice(0, 0),
) -> None:
    """`x` (n, channels), floats or integers of the codec's own type.

    start: stamp of the first sample (s); jumps: {second of the sound: seconds added to the stamps from there on};
    picture: the file also has black frames at 25 fps from this time on; drop: packets that are left out.
    """
    import av

    with av.open(str(path), "w") as out:
        video: Any = None
        if picture is not None:
            video = out.add_stream("mpeg1video" if path.suffix == ".mpg" else "mpeg4", rate=25)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
        stream: Any = out.add_stream(codec, rate=rate, layout=layout)
        stream.codec_context.format = sample_format
        size = 1024
        packets: list[Any] = []
        if video is not None:
            for n in range(max(1, int(25 * len(x) / rate))):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = n + round(picture * 25), Fraction(1, 25)
                packets += video.encode(frame)
            packets += video.encode(None)
        if stream.codec_context.frame_size > 1:
            size = stream.codec_context.frame_size
        sound: list[Any] = []
        converter = av.AudioResampler(format=sample_format, layout=layout, rate=rate)
        for i in range(0, len(x), size):
            part = np.ascontiguousarray(x[i : i + size]).reshape(1, -1)  # packed: PyAV cannot take eight planes
            native = "flt" if part.dtype.kind == "f" else {2: "s16", 4: "s32"}[part.dtype.itemsize]
            frame = av.AudioFrame.from_ndarray(part, format=native, layout=layout)
            frame.rate = rate
            extra = sum(add for second, add in (jumps or {}).items() if i / rate >= second)
            for piece in converter.resample(frame):
                piece.pts, piece.time_base = round((start + extra) * rate) + i, Fraction(1, rate)
                sound += stream.encode(piece)
        sound += stream.encode(None)
        del sound[drop]
        for packet in sorted(packets + sound, key=lambda p: float(p.dts * p.time_base)):
            out.mux(packet)


def onset(times: np.ndarray, samples: np.ndarray, level: float = 0.3) -> float:
    """When the sound first exceeds `level` (s)."""
    return float(times[np.argmax(np.abs(samples) > level)])
