"""Files of a data set as arrays. Every failure is one DataError that names the file and, if any, the row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..opencv import cv2
from ..tasks import AUDIO_RATE

BIOVID_COLUMNS = ("time", "gsr", "ecg", "emg_trapezius", "emg_corrugator", "emg_zygomaticus")


def read_table(path: Path, delimiter: str, columns: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """The named columns of a text table with a header; spaces around names and a byte-order mark are ignored."""
    lines = _lines(path)
    header = [name.strip().lower() for name in lines[0].lstrip("\ufeff").split(delimiter)]
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(f"{path} row 1: no column '{missing[0]}' in the header ({', '.join(header)}); check the file")
    at = [header.index(name) for name in columns]
    rows = np.empty((len(lines) - 1, len(columns)))
    for i, line in enumerate(lines[1:]):
        cells = line.split(delimiter)
        try:
            if len(cells) < len(header):  # cut off: what is left of its last number would pass for one
                raise ValueError
            rows[i] = [float(cells[k]) for k in at]
        except ValueError:
            raise DataError(
                f"{path} row {i + 2}: '{line.strip()[:60]}' is not {len(header)} numbers; mend it"
            ) from None
    return {name: rows[:, k] for k, name in enumerate(columns)}


def read_biovid_eda(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (s) and skin conductance (µS) of a `_bio.csv`; `time` counts microseconds."""
    table = read_table(path, "\t", ("time", "gsr"))
    times, values = table["time"] * 1e-6, table["gsr"]
    bad = np.flatnonzero(~np.isfinite(values) | ~np.isfinite(times))
    if bad.size:
        raise DataError(f"{path} row {bad[0] + 2}: the skin conductance or its time is not a number; mend or drop it")
    if times.size < 2 or np.any(np.diff(times) <= 0):
        row = int(np.flatnonzero(np.diff(times) <= 0)[0]) + 3 if times.size > 1 else 2
        raise DataError(f"{path} row {row}: time does not increase; mend or drop the file")
    return times, values


def read_video(path: Path) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """(seconds, BGR image) of each frame that decodes, by the file's timestamps; DataError where none does."""
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(f"{path} is not a readable video (no decoder accepts it); restore or drop it")
        fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
        count, last = 0, -1.0
        while True:
            ok, image = capture.read()
            if not ok:
                break
            t = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            # some containers report 0 for every frame: fall back to the nominal rate
            t = t if t > last else (last + 1 / fps if count else 0.0)
            last = t
            count += 1
            yield t, np.asarray(image, np.uint8)
        if not count:
            raise DataError(f"{path} holds no decodable frame; restore or drop it")
    finally:
        capture.release()


def video_times(path: Path) -> NDArray[np.float64]:
    """Timestamp of each frame (s); reads packets only as far as OpenCV can (`grab`)."""
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(f"{path} is not a readable video (no decoder accepts it); restore or drop it")
        fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
        times: list[float] = []
        while capture.grab():
            t = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            times.append(t if not times or t > times[-1] else times[-1] + 1 / fps)
        return np.asarray(times)
    finally:
        capture.release()


def read_image(path: Path) -> NDArray[np.uint8]:
    """One BGR image."""
    raw = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
    image = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
    if image is None:
        raise DataError(f"{path} is not a readable image; restore or drop it")
    return np.asarray(image, np.uint8)


def read_audio(path: Path) -> NDArray[np.float32]:
    """Mono samples in [-1, 1] at 44.1 kHz of a wav, or of a video's sound track (needs PyAV)."""
    from ..preprocessing.voice import resample_audio

    if path.suffix.lower() == ".wav":
        from scipy.io import wavfile

        try:
            rate, samples = wavfile.read(path)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path} is not a readable wav ({error}); restore or drop it") from None
        scale = np.iinfo(samples.dtype).max + 1.0 if np.issubdtype(samples.dtype, np.integer) else 1.0
        mono = np.asarray(samples, np.float32).reshape(len(samples), -1).mean(1) / np.float32(scale)
    else:
        rate, mono = _sound_track(path)
    if not mono.size:
        raise DataError(f"{path} holds no sound; restore or drop it")
    return mono.astype(np.float32) if rate == AUDIO_RATE else np.asarray(resample_audio(mono, rate), np.float32)


def _sound_track(path: Path) -> tuple[int, NDArray[np.float32]]:
    import av  # the `record` extra; the command line names it when it is absent

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise DataError(f"{path} has no sound track; put its sound beside it as a wav or drop the file")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=AUDIO_RATE)
            blocks = [
                block.to_ndarray().ravel() for frame in container.decode(audio=0) for block in resampler.resample(frame)
            ]
    except av.error.FFmpegError as error:
        raise DataError(f"{path} has no readable sound ({error}); restore or drop it") from None
    return AUDIO_RATE, np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; restore it or drop it from the list") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable text file ({error}); restore or drop it") from None
    # an empty line at the end is harmless; one in between would shift every row behind it against its frame
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) < 2:
        raise DataError(f"{path} holds no data row; restore or drop it")
    return lines
