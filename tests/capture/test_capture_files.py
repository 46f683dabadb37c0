"""File sources: every format, the same samples at any speed, one sentence for every fault."""

from __future__ import annotations

import gzip
import json
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from jmt_edge.capture import open_source
from jmt_edge.capture.base import Source, State
from jmt_edge.errors import SourceError
from jmt_edge.media.chunk import Chunk
from jmt_edge.media.eda_files import opensignals_us, read_eda_file


def opened(modality: str, spec: object, **options: float) -> Source:
    source = open_source(modality, str(spec), **options)
    assert source is not None
    source.open(0.0)
    return source


def read_all(source: Source, step: float = 0.5) -> list[Chunk]:
    chunks, t = [], 0.0
    while source.status().state is not State.ENDED:
        t += step
        chunks.append(source.read(t))
        assert t < 10_000
    source.close()
    return chunks


def joined(chunks: list[Chunk]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([c.times for c in chunks]), np.concatenate([np.asarray(c.values) for c in chunks])


def write_video(path: Path, frames: int, fps: float = 20.0) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 10 * i, np.uint8))
    writer.release()


# ---- video and images


def test_video_frames_come_once_in_order_at_their_time_stamps(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 20)
    for step in (0.01, 0.35, 5.0):
        chunks = read_all(opened("face", tmp_path / "v.avi"), step)
        times, images = joined([c for c in chunks if len(c)])
        np.testing.assert_allclose(times, np.arange(20) / 20.0, atol=1e-9)
        np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 10 * np.arange(20), atol=3)
    source = opened("face", tmp_path / "v.avi")
    assert len(source.read(0.05)) == 2 and len(source.read(0.05)) == 0
    assert not source.realtime


def test_video_of_variable_rate_keeps_its_own_times(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    stamps = [0, 40, 60, 200, 210, 500]
    with av.open(str(tmp_path / "v.mkv"), "w") as out:
        stream = out.add_stream("mjpeg", rate=1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for ms in stamps:
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")
            frame.pts = ms
            frame.time_base = Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    times, _ = joined([c for c in read_all(opened("face", tmp_path / "v.mkv")) if len(c)])
    np.testing.assert_allclose(times, np.array(stamps) / 1000, atol=1e-3)


def test_image_folder_keeps_the_gaps_of_its_numbers(tmp_path: Path) -> None:
    for n in (3, 4, 7, 10):
        cv2.imwrite(str(tmp_path / f"{n:05d}.png"), np.full((8, 8, 3), n, np.uint8))
    times, images = joined(read_all(opened("face", f"{tmp_path}?fps=10")))
    np.testing.assert_allclose(times, [0, 0.1, 0.4, 0.7])
    assert images[:, 0, 0, 0].tolist() == [3, 4, 7, 10]


def test_named_images_sort_as_people_count(tmp_path: Path) -> None:
    for n in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f"frame{n}.png"), np.full((8, 8, 3), n, np.uint8))
    times, images = joined(read_all(opened("face", tmp_path)))
    assert images[:, 0, 0, 0].tolist() == [1, 2, 10]
    np.testing.assert_allclose(times, np.arange(3) / 30)


# ---- sound


def tone(rate: int, seconds: float = 1.3) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_formats_agree_with_scipy(tmp_path: Path, dtype: type, channels: int) -> None:
    x = np.repeat(tone(44_100)[:, None], channels, axis=1)
    scale = {"u1": 127.0, "i2": 32767.0, "i4": 2**31 - 200.0}.get(np.dtype(dtype).str[1:], 1.0)
    offset = 128 if dtype is np.uint8 else 0
    wavfile.write(tmp_path / "x.wav", 44_100, (x * scale + offset).astype(dtype))
    times, samples = joined(read_all(opened("voice", tmp_path / "x.wav")))
    np.testing.assert_allclose(samples, x[:, 0], atol=1 / 64 if dtype is np.uint8 else 1e-4)
    np.testing.assert_allclose(times, np.arange(len(x)) / 44_100, atol=1e-9)


def test_wav_cut_short_is_read_to_its_last_whole_frame(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "x.wav", 44_100, tone(44_100))
    whole = (tmp_path / "x.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:-4003])
    _, samples = joined(read_all(opened("voice", tmp_path / "cut.wav")))
    np.testing.assert_array_equal(samples, tone(44_100)[: len(samples)])
    assert len(samples) == len(tone(44_100)) - 1001


def test_sound_resampled_while_read_is_the_same_at_any_speed(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "x.wav", 48_000, tone(48_000, 2.5))
    runs = [joined(read_all(opened("voice", tmp_path / "x.wav"), step)) for step in (0.1, 0.73, 9.0)]
    for times, samples in runs:
        np.testing.assert_array_equal(samples, runs[0][1])
        np.testing.assert_array_equal(times, runs[0][0])
    assert len(runs[0][1]) == int(2.5 * 44_100)


def test_sound_of_a_video(shared_data: Path) -> None:
    pytest.importorskip("av")
    times, samples = joined(read_all(opened("voice", shared_data / "av/grid/bbaf2n.mpg")))
    assert abs(len(samples) / 44_100 - 2.95) < 0.1
    assert 0.01 < samples.std() < 0.5
    assert np.all(np.diff(times) > 0)


def test_compressed_sound_without_a_decoder_is_one_sentence(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"jmt-edge\[record\]"):
        opened("voice", shared_data / "av/grid/bbaf2n.mpg")


# ---- EDA


def opensignals(path: Path, adc: np.ndarray, seq: np.ndarray, sensor: str = "EDABITREV") -> None:
    header = {
        "20:16": {
            "sensor": ["ECGBIT", sensor], "label": ["A1", "A3"], "column": ["nSeq", "I1", "A1", "A3"],
            "resolution": [4, 1, 10, 10], "sampling rate": 100,
        }
    }  # fmt: skip
    rows = "".join(f"{s}\t0\t511\t{a}\t\n" for s, a in zip(seq, adc))
    path.write_text(f"# OpenSignals Text File Format. Version 1\n# {json.dumps(header)}\n# EndOfHeader\n{rows}")


def test_opensignals_conversion_and_lost_rows(tmp_path: Path) -> None:
    n = np.delete(np.arange(60), [20, 21, 40])
    opensignals(tmp_path / "o.txt", 100 + n, n % 16)
    found = read_eda_file(tmp_path / "o.txt")
    np.testing.assert_allclose(found.times, n / 100)
    np.testing.assert_allclose(found.values, (100 + n) / 1024 * 3.3 / 0.132)
    assert (found.lost, found.rate, found.kind) == (3, 100.0, "opensignals")


def test_opensignals_formulas_at_the_data_sheets_points() -> None:
    adc = np.array([100.0, 512.0, 1022.0])
    np.testing.assert_allclose(opensignals_us(adc, 10, "EDABITREV"), [2.441, 12.5, 24.951], atol=1e-3)
    np.testing.assert_allclose(opensignals_us(adc, 10, "EDABIT"), 1 / (1 - adc / 1024))
    assert np.isnan(opensignals_us(np.array([0.0, 1023.0]), 10, "EDABITREV")).all()


def test_opensignals_real_recording(shared_data: Path) -> None:
    source = opened("eda", shared_data / "eda/bitalino_eda_hot_surface.txt")
    times, values = joined(read_all(source))
    raw = np.loadtxt(shared_data / "eda/bitalino_eda_hot_surface.txt", usecols=5)
    np.testing.assert_allclose(values, raw / 1024 * 25, rtol=1e-6)
    np.testing.assert_allclose(times, np.arange(len(raw)) / 1000)


def test_empatica_real_recording(shared_data: Path) -> None:
    source = opened("eda", shared_data / "eda/empatica_e4_EDA.csv")
    times, values = joined(read_all(source, 30.0))
    raw = np.loadtxt(shared_data / "eda/empatica_e4_EDA.csv")
    np.testing.assert_allclose(values, raw[2:], rtol=1e-6)
    np.testing.assert_allclose(np.diff(times), 0.25)
    assert source.status().unit == "µS"


def test_physiokit_times_are_the_boards_own(shared_data: Path) -> None:
    for file in sorted((shared_data / "eda/physiokit").glob("*.csv.gz")):
        source = opened("eda", file)
        rate = source.status().detail["rate"]
        with gzip.open(file, "rt") as text:
            stamps = np.array([float(line.split(",")[4]) for line in list(text)[1:]])
        assert rate == pytest.approx((len(stamps) - 1) / (stamps[-1] - stamps[0]) * 1000, rel=0.02)
        assert 250 < rate < 280


def test_biovid_table(tmp_path: Path) -> None:
    rows = "\n".join(f"{i * 1953.125:.0f}\t{1 + i / 100}\t0\t0\t0\t0" for i in range(50))
    (tmp_path / "s_bio.csv").write_text("time\t gsr\t ecg\t emg_trapezius\t emg_corrugator\t emg_zygomaticus\n" + rows)
    found = read_eda_file(tmp_path / "s_bio.csv")
    np.testing.assert_allclose(found.times, np.arange(50) / 512, atol=1e-6)
    np.testing.assert_allclose(found.values, 1 + np.arange(50) / 100)


def test_csv_blank_is_no_data_and_backward_rows_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("t_ms,uS\n1000,1.0\n1010,\n1010,9.0\n1005,9.0\n1020,nan\n1030,2.0\n104")
    found = read_eda_file(tmp_path / "e.csv")
    np.testing.assert_allclose(found.times, [0, 0.01, 0.02, 0.03])
    np.testing.assert_array_equal(found.values, [1, np.nan, np.nan, 2])
    assert found.lost == 2


def test_csv_millis_wrap(tmp_path: Path) -> None:
    stamps = [2**32 - 20, 2**32 - 10, 0, 10]
    (tmp_path / "e.csv").write_text("t_ms,uS\n" + "\n".join(f"{t},1" for t in stamps))
    np.testing.assert_allclose(read_eda_file(tmp_path / "e.csv").times, [0, 0.01, 0.02, 0.03], atol=1e-6)


def test_one_number_a_row_needs_its_rate(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("\n".join(str(1 + i / 10) for i in range(30)))
    with pytest.raises(SourceError, match=r"\?rate="):
        opened("eda", tmp_path / "n.csv")
    times, values = joined(read_all(opened("eda", f"{tmp_path / 'n.csv'}?rate=10")))
    np.testing.assert_allclose(times, np.arange(30) / 10)
    np.testing.assert_allclose(values, 1 + np.arange(30) / 10, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("junk") / "x.csv"
    file.write_bytes(data)
    try:
        found = read_eda_file(file)
    except SourceError:
        return
    assert len(found.times) == len(found.values) > 0


# ---- the factory


def test_delay_moves_samples_back(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("t,uS\n" + "\n".join(f"{i / 10},{i}" for i in range(20)))
    source = opened("eda", tmp_path / "e.csv", delay=0.25)
    chunk = source.read(0.5)
    np.testing.assert_allclose(chunk.times, np.arange(8) / 10 - 0.25)
    assert source.status().detail["delay"] == 0.25


def test_none_and_sim() -> None:
    assert open_source("face", "none") is None
    source = opened("eda", "sim:seed=3")
    assert len(source.read(1.0)) > 100


def faults(tmp: Path) -> dict[str, tuple[str, str]]:
    (tmp / "text.csv").write_text("# the patient felt fine\nand slept\n")
    (tmp / "words.csv").write_text("t,uS\n0,1\n0.1,two\n0.2,3\n")
    (tmp / "head.csv").write_text("t,uS\n")
    (tmp / "nan.csv").write_text("t,uS\n0,nan\n1,nan\n")
    (tmp / "empty").write_bytes(b"")
    (tmp / "junk.mp4").write_bytes(bytes(range(256)) * 40)
    (tmp / "folder").mkdir()
    wavfile.write(tmp / "zero.wav", 44_100, np.empty(0, np.int16))
    write_video(tmp / "none.avi", 0)
    opensignals(tmp / "ecg.txt", np.arange(9), np.arange(9), "ECGBIT")
    return {
        "missing video": ("face", "nowhere.mp4"),
        "missing sound": ("voice", "nowhere.wav"),
        "missing eda": ("eda", "nowhere.csv"),
        "video of junk": ("face", "junk.mp4"),
        "video of nothing": ("face", "empty"),
        "video without frames": ("face", "none.avi"),
        "sound of junk": ("voice", "junk.mp4"),
        "folder without images": ("face", "folder"),
        "folder as sound": ("voice", "folder"),
        "folder as eda": ("eda", "folder"),
        "wav of 0 samples": ("voice", "zero.wav"),
        "eda of text": ("eda", "text.csv"),
        "eda with a word": ("eda", "words.csv"),
        "eda without rows": ("eda", "head.csv"),
        "eda of nothing": ("eda", "empty"),
        "eda without a number": ("eda", "nan.csv"),
        "eda of video": ("eda", "junk.mp4"),
        "opensignals without eda": ("eda", "ecg.txt"),
        "unknown setting": ("face", "folder?colour=1"),
        "bad number": ("eda", "head.csv?rate=fast"),
    }


def test_each_fault_is_one_sentence(tmp_path: Path) -> None:
    for name, (modality, spec) in faults(tmp_path).items():
        with pytest.raises(SourceError) as caught:
            opened(modality, tmp_path / spec)
        message = str(caught.value)
        assert "\n" not in message and ";" in message and spec.split("?")[0] in message, name
