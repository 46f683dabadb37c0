"""One reader of sound: the same samples give the same numbers from every format, at their real times."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from scipy.io import wavfile
from sound_files import click, onset, tones, write_sound

from jmt_edge.capture.files import SoundFile
from jmt_edge.errors import SourceError
from jmt_edge.media import sound
from jmt_edge.media.sound import WavFile, sound_blocks
from jmt_edge.preprocessing.resample import StreamResampler

pytest.importorskip("av", reason="PyAV is not installed")
RATE = 44_100


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(times, samples) of a whole file; times strictly increase."""
    blocks = list(sound_blocks(path))
    times = np.concatenate([t + np.arange(len(x)) / RATE for t, x in blocks])
    samples = np.concatenate([x for _, x in blocks])
    assert samples.dtype == np.float32
    assert np.all(np.diff(times) > 0)
    return times, samples


def write_wav(path: Path, x: np.ndarray, rate: int = RATE) -> Path:
    wavfile.write(path, rate, x)
    return path


# ---- the same samples, the same numbers


@pytest.mark.parametrize("kind", ["s16", "s32"])
@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
@pytest.mark.parametrize("rate", [RATE, 48_000, 16_000])
def test_flac_is_bit_equal_to_wav(tmp_path: Path, kind: str, layout: str, channels: int, rate: int) -> None:
    dtype = {"s16": np.int16, "s32": np.int32}[kind]
    x = np.random.default_rng(channels).integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (9000, channels), dtype)
    if kind == "s32":
        x &= ~np.int32(0xFF)  # FLAC keeps 24 bits
    write_sound(tmp_path / "x.flac", "flac", x, rate, layout=layout, sample_format=kind)
    times, samples = read(tmp_path / "x.flac")
    expected_times, expected = read(write_wav(tmp_path / "x.wav", x, rate))
    np.testing.assert_array_equal(samples, expected)
    np.testing.assert_allclose(times, expected_times, atol=1e-9)
    if rate == RATE:  # and both are the mean of the channels
        scale = 2.0 ** (8 * dtype().itemsize - 1)
        np.testing.assert_allclose(samples, (x / scale).mean(axis=1), atol=1e-6)


def test_full_scale_stereo_is_not_clipped(tmp_path: Path) -> None:
    """libav's matrix, 0.707 (L + R), made 1.41 of it."""
    x = np.full((4096, 2), 32_767, np.int16)
    write_sound(tmp_path / "x.flac", "flac", x, sample_format="s16")
    assert np.abs(read(tmp_path / "x.flac")[1]).max() <= 1.0


LOSSY = [
    ("x.mp3", "libmp3lame", "fltp", 0.02),  # LAME scales what it encodes by 0.95
    ("x.m4a", "aac", "fltp", 0.03),
    ("x.mp2", "mp2", "s16", 0.03),
    ("x.mpg", "mp2", "s16", 0.03),
    ("x.mp4", "aac", "fltp", 0.03),
    ("x.ogg", "libopus", "flt", 0.03),
]


@pytest.mark.parametrize(("name", "codec", "kind", "error"), LOSSY)
def test_lossy_formats_have_the_level_of_the_mean(
    tmp_path: Path, name: str, codec: str, kind: str, error: float
) -> None:
    rate = 48_000 if codec == "libopus" else RATE
    x = tones(2.0, rate)
    write_sound(
        tmp_path / name, codec, x, rate, sample_format=kind, picture=0.0 if name.endswith(("mpg", "mp4")) else None
    )
    _, samples = read(tmp_path / name)
    expected = signal.resample_poly(x.mean(axis=1).astype(float), RATE, rate) * (0.95 if name == "x.mp3" else 1.0)
    middle = slice(RATE // 2, 3 * RATE // 2)  # a codec's delay and its edges aside
    assert np.std(samples[middle]) == pytest.approx(np.std(expected[middle]), rel=error)
    power = [np.abs(np.fft.rfft(y[middle])) / RATE for y in (samples, expected)]
    np.testing.assert_allclose(power[0], power[1], atol=error)


@pytest.mark.parametrize(("layout", "channels"), [("5.1", 6), ("7.1", 8)])
def test_surround_is_the_mean_of_its_channels(tmp_path: Path, layout: str, channels: int) -> None:
    """With eight, PyAV's own array takes what follows the pointers for a ninth channel and ends the process."""
    x = tones(2.0, channels=channels)
    write_sound(tmp_path / "x.m4a", "aac", x, layout=layout)
    _, samples = read(tmp_path / "x.m4a")
    half = slice(RATE // 2, 3 * RATE // 2)
    ours, mean = (np.abs(np.fft.rfft(y[half])) / RATE for y in (samples, x.mean(axis=1)))
    loud = np.flatnonzero(mean > 0.04 / channels)
    # a codec low-passes the LFE channel (the fourth, 810 Hz): the others keep a sixth of their level
    loud = loud[np.abs(loud - 810) > 5]
    assert len(loud) == channels - 1
    np.testing.assert_allclose(ours[loud], mean[loud], rtol=0.1)


def test_wav_of_every_width(tmp_path: Path) -> None:
    import wave

    values = np.array([0, 1, -1, 2**23 - 1, -(2**23)] * 100)
    with wave.open(str(tmp_path / "x.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(3)
        out.setframerate(RATE)
        out.writeframes(b"".join(int(v).to_bytes(3, "little", signed=True) for v in values))
    np.testing.assert_array_equal(WavFile(tmp_path / "x.wav").read(0, 500), (values / 2**23).astype(np.float32))
    ends = {np.uint8: (0, 255), np.int16: (-(2**15), 2**15 - 1), np.int32: (-(2**31), 2**31 - 1)}
    for dtype, (low, high) in ends.items():
        samples = read(write_wav(tmp_path / "w.wav", np.array([low, high] * 300, dtype)))[1]
        assert (samples.min(), samples.max()) == (-1.0, pytest.approx(1.0, abs=0.01))


# ---- real times


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.mpg"])
@pytest.mark.parametrize("offset", [0.5, 0.0, -0.4])
def test_sound_that_starts_late_or_early_is_at_its_time(tmp_path: Path, name: str, offset: float) -> None:
    """The click is 1.5 s after the first frame, however much later or earlier the sound begins."""
    codec, kind = ("mp2", "s16") if name == "x.mpg" else ("aac", "fltp")
    picture = max(0.0, -offset)
    x = click(3.0, 1.5 - offset, channels=2)
    write_sound(tmp_path / name, codec, x, sample_format=kind, start=picture + offset, picture=picture)
    times, samples = read(tmp_path / name)
    assert onset(times, samples) == pytest.approx(1.5, abs=0.045)  # 1024 samples of a codec's delay
    assert times[0] == pytest.approx(offset, abs=0.05)


def test_a_gap_in_the_stamps_stays_a_gap(tmp_path: Path) -> None:
    x = click(4.0, 3.0)
    write_sound(tmp_path / "x.mka", "flac", x, layout="mono", sample_format="s16", jumps={2.0: 0.7})
    times, samples = read(tmp_path / "x.mka")
    assert onset(times, samples) == pytest.approx(3.7, abs=0.002)
    steps = np.diff(times)
    assert np.sum(steps > 0.1) == 1
    assert steps.max() == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_a_lost_packet_leaves_its_gap_and_nothing_moves(tmp_path: Path, rate: int) -> None:
    x = click(4.0, 3.0, rate)
    for name, drop in (("whole.mka", slice(0, 0)), ("lost.mka", slice(10, 13))):
        write_sound(tmp_path / name, "flac", x, rate, layout="mono", sample_format="s16", drop=drop)
    (t0, x0), (t1, x1) = read(tmp_path / "whole.mka"), read(tmp_path / "lost.mka")
    assert onset(t1, x1) == pytest.approx(onset(t0, x0), abs=0.001)
    assert len(x0) - len(x1) > 0.05 * RATE


def test_stamps_that_begin_again_continue() -> None:
    pieces = [(t, np.full(4410, n, np.float32), RATE) for n, t in enumerate([0.0, 0.1, 0.2, 0.0, 0.1, 0.3])]
    pieces = [(t + (40 if n < 3 else 5), x, r) for n, (t, x, r) in enumerate(pieces)]
    placed = list(sound._placed(iter(pieces), []))
    # the stamps fall by 35 s after the third piece; before the last one 0.1 s is missing
    assert [None if t is None else round(t, 6) for t, _, _ in placed] == [40.0, None, None, None, None, 40.6]


def test_one_stray_stamp_is_ignored_and_overlaps_are_cut() -> None:
    stamps = [0.0, 0.1, 3600.0, 0.3, 0.4]
    placed = list(sound._placed(((t, np.zeros(4410, np.float32), RATE) for t in stamps), []))
    assert [t for t, _, _ in placed] == [0.0, None, None, None, None]
    stamps = [0.0, 0.1, 0.15, 0.25]
    placed = list(sound._placed(((t, np.zeros(4410, np.float32), RATE) for t in stamps), []))
    assert [len(x) for _, x, _ in placed] == [4410, 4410, 2205, 4410]


def test_joined_transport_streams_continue(shared_data: Path) -> None:
    path = shared_data.parent / "cases" / "video" / "concat_reset.ts"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    times, samples = read(path)
    assert times[-1] - times[0] == pytest.approx(len(samples) / RATE, abs=0.1)
    assert times[-1] > 15


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.floats(-5, 100)), st.integers(1, 300), st.sampled_from([8000, 44_100])),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_the_stamps_times_increase(pieces: list[tuple[float | None, int, int]]) -> None:
    end, count = -np.inf, 0
    for begins, x, rate in sound._placed(((t, np.zeros(n, np.float32), r) for t, n, r in pieces), []):
        if begins is not None:
            assert begins >= end - 1e-6
            end = begins
        end += len(x) / rate
        count += len(x)
    assert count <= sum(n for _, n, _ in pieces)


# ---- changes within a stream, damage, length


def test_a_rate_and_a_layout_that_change_within_the_stream(tmp_path: Path) -> None:
    for name, rate, layout in (("a", RATE, "stereo"), ("b", 32_000, "mono")):
        x = tones(1.0, rate, 2 if layout == "stereo" else 1) * (1 if layout == "stereo" else 0.5)
        write_sound(tmp_path / f"{name}.mp3", "libmp3lame", x, rate, layout=layout)
    (tmp_path / "x.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() + (tmp_path / "b.mp3").read_bytes())
    times, samples = read(tmp_path / "x.mp3")
    assert times[-1] == pytest.approx(2.0, abs=0.15)
    for first, frequency in ((0.3, 300), (1.4, 300)):
        part = samples[(times > first) & (times < first + 0.4)]
        peak = np.argmax(np.abs(np.fft.rfft(part))) / len(part) * RATE
        assert peak == pytest.approx(frequency, abs=5)


@pytest.mark.parametrize(("name", "codec", "kind"), [("x.mp3", "libmp3lame", "fltp"), ("x.flac", "flac", "s16")])
def test_a_file_cut_in_the_middle_is_read_to_there(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    x = np.random.default_rng(0).normal(0, 0.1, (2 * RATE, 2)).astype(np.float32)
    write_sound(tmp_path / name, codec, x, sample_format=kind)
    whole = read(tmp_path / name)[1]
    data = (tmp_path / name).read_bytes()
    (tmp_path / f"cut-{name}").write_bytes(data[: len(data) // 2])
    samples = read(tmp_path / f"cut-{name}")[1]
    assert 0.35 * len(whole) < len(samples) < 0.65 * len(whole)
    same = len(samples) - 5000
    np.testing.assert_array_equal(samples[:same], whole[:same])


def test_damage_in_the_middle_does_not_end_the_sound(tmp_path: Path) -> None:
    import av

    write_sound(tmp_path / "x.mka", "aac", click(4.0, 3.0, channels=2))
    with av.open(str(tmp_path / "x.mka")) as container:
        packets = [p for p in container.demux(audio=0) if p.size]
    data = bytearray((tmp_path / "x.mka").read_bytes())
    for packet in packets[60:64]:
        at = data.index(bytes(packet), packet.pos or 0)
        data[at : at + packet.size] = b"\xff" * packet.size
    (tmp_path / "bad.mka").write_bytes(data)
    times, samples = read(tmp_path / "bad.mka")
    assert times[-1] == pytest.approx(4.0, abs=0.05)
    assert onset(times, samples) == pytest.approx(onset(*read(tmp_path / "x.mka")), abs=0.001)


@pytest.mark.parametrize("make", ["nothing", "junk", "silent video", "empty wav"])
def test_no_sound_is_one_sentence(tmp_path: Path, make: str) -> None:
    path = tmp_path / ("x.wav" if make == "empty wav" else "x.mp4")
    if make == "empty wav":
        wavfile.write(path, RATE, np.empty(0, np.int16))
    elif make == "silent video":
        import cv2

        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 64))
        for _ in range(5):
            writer.write(np.zeros((64, 64, 3), np.uint8))
        writer.release()
    else:
        path.write_bytes(b"" if make == "nothing" else bytes(range(256)) * 50)
    with pytest.raises(SourceError, match=r"x\.(mp4|wav)") as caught:
        list(sound_blocks(path))
    assert "\n" not in str(caught.value) and ";" in str(caught.value)


def test_a_rate_that_no_sound_has_is_refused(tmp_path: Path) -> None:
    data = bytearray(write_wav(tmp_path / "x.wav", np.ones(2000, np.int16)).read_bytes())
    data[24:28] = (4_000_000_000).to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(data)
    with pytest.raises(SourceError, match="4000000000 Hz"):
        list(sound_blocks(tmp_path / "x.wav"))


@pytest.mark.parametrize("name", ["x.wav", "x.flac"])
def test_memory_does_not_grow_with_the_length(tmp_path: Path, name: str) -> None:
    x = np.zeros((300 * 48_000, 2), np.int16)  # five minutes: 53 MB as 44.1 kHz float
    if name == "x.wav":
        write_wav(tmp_path / name, x, 48_000)
    else:
        write_sound(tmp_path / name, "flac", x, 48_000, sample_format="s16")
    del x
    tracemalloc.start()
    source = SoundFile(tmp_path / name)
    source.open(0.0)
    heard = sum(len(source.read(float(t))) for t in range(302))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert heard == 300 * RATE
    assert peak < 6e6


# ---- the resampler


def resampled(x: np.ndarray, rate: int, cuts: list[int]) -> np.ndarray:
    resample = StreamResampler(rate)
    return np.concatenate([*(resample(part) for part in np.split(x, cuts)), resample.flush()])


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_resampler_agrees_with_scipy_and_gives_every_sample(rate: int) -> None:
    for n in (1, 7, rate // 3):
        x = np.random.default_rng(n).normal(size=n).astype(np.float32)
        ours = resampled(x, rate, [])
        assert len(ours) == -(-n * RATE // rate)
        np.testing.assert_allclose(ours, signal.resample_poly(x.astype(float), RATE, rate), atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_partition_gives_the_same_samples(data: st.DataObject) -> None:
    rate = data.draw(st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000, 96_000, 47_999]))
    n = data.draw(st.integers(1, 4000))
    x = np.random.default_rng(n).normal(size=n).astype(np.float32)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=12)))
    np.testing.assert_array_equal(resampled(x, rate, cuts), resampled(x, rate, []))


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_resampled_tone_is_the_same_tone(rate: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    ours = resampled(tone, rate, [])
    expected = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(ours[2000:-2000], expected[2000:-2000], atol=5e-3)


def test_a_tone_above_the_new_band_does_not_fold_back() -> None:
    tone = np.sin(2 * np.pi * 30_000 * np.arange(96_000) / 96_000).astype(np.float32)
    assert np.abs(resampled(tone, 96_000, [])[2000:-2000]).max() < 5e-3


@pytest.mark.parametrize("rate", [RATE, 48_000, 8_000])
def test_the_last_samples_arrive(tmp_path: Path, rate: int) -> None:
    n = rate + 17
    x = np.zeros(n, np.int16)
    x[-1] = 20_000
    for name in ("x.wav", "x.flac"):
        if name == "x.wav":
            write_wav(tmp_path / name, x, rate)
        else:
            write_sound(tmp_path / name, "flac", x[:, None], rate, layout="mono", sample_format="s16")
        _, samples = read(tmp_path / name)
        assert len(samples) == -(-n * RATE // rate)
        assert np.abs(samples[-20:]).max() > 0.3


# ---- in every room


@pytest.mark.parametrize("offset", [0.5, -0.4, 0.0])
def test_training_hears_a_click_when_live_does(tmp_path: Path, offset: float) -> None:
    from dataclasses import replace

    from jmt_edge.tasks import get_task
    from jmt_edge.training.clips import build_clips
    from jmt_edge.training.data import Cohort, Labels, Problems, Trial, cut_windows

    picture = max(0.0, -offset)
    path = tmp_path / "x.mp4"
    write_sound(path, "aac", click(3.0, 1.5 - offset, channels=2), start=picture + offset, picture=picture)
    end = 2.0
    labels = Labels(np.zeros(1), {"valence": np.zeros(1), "arousal": np.zeros(1)})
    trial = Trial("x", "s", {"voice": path}, 3.0, labels, ends=(end,))
    task = get_task("affect")
    voice = task.modality("voice")
    windows = cut_windows(Cohort("x", tmp_path, [trial], Problems()), replace(task, modalities=(voice,)))
    clip = build_clips(windows, tmp_path / "cache", Problems())["voice"].data[-1][0]
    level = clip.max(axis=0)
    loud = np.argmax(level > level.max() - 0.25 * np.ptp(level))  # column of the spectrogram, 10 ms each
    trained = windows.clips["voice"][-1][1] - voice.span + loud / 100
    source = SoundFile(path)
    source.open(0.0)
    chunk = source.read(10.0)
    assert onset(chunk.times, chunk.values) == pytest.approx(1.5, abs=0.045)
    assert trained == pytest.approx(onset(chunk.times, chunk.values), abs=0.03)


def test_a_video_of_speech_has_the_mean_of_its_channels(shared_data: Path) -> None:
    import av

    path = shared_data / "av" / "grid" / "bbaf2n.mpg"
    with av.open(str(path)) as container:
        raw = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert raw.dtype == np.int16 and raw.shape[0] == 2
    np.testing.assert_allclose(read(path)[1], raw.astype(float).mean(axis=0) / 2**15, atol=1e-7)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_channels_that_cancel_each_other_are_named(suffix: str, tmp_path: Path) -> None:
    """One side wired inverted: the mean of the channels is silence (m-bain/whisperX#750)."""
    soundfile = pytest.importorskip("soundfile")
    left = 0.2 * np.random.default_rng(0).standard_normal(3 * 44_100).clip(-4, 4)
    for name, right, fault in (
        ("inverted", -left, True), ("nearly", -0.9 * left, True), ("same", left, False),
        ("one side", 0 * left, False), ("apart", np.roll(left, 500), False),
    ):  # fmt: skip
        for length in (3 * 44_100, 22_050):
            path = tmp_path / f"{name}{suffix}"
            soundfile.write(path, np.stack([left, right], 1)[:length], 44_100)
            if fault:
                with pytest.raises(SourceError, match=r"antiphase stereo.*invert one"):
                    list(sound_blocks(path))
            else:
                assert sum(len(x) for _, x in sound_blocks(path)) == length
    quiet = tmp_path / f"quiet{suffix}"
    soundfile.write(quiet, np.stack([left, -left], 1) * 1e-4, 44_100)
    list(sound_blocks(quiet))  # noise of two channels, which need not be alike
