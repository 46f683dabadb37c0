"""BITalino frames: golden vectors, an independent encoder, faults of the line."""

from __future__ import annotations

import os
import threading
import tty
from pathlib import Path

import numpy as np
import pytest
from eda_streams import cut, decode, throughput
from hypothesis import given, settings
from hypothesis import strategies as st

from jmt_edge.capture.boards.firmware import bitalino_frame
from jmt_edge.capture.eda.bitalino import RUN, BitalinoDecoder, frame_length, syndromes, unpack
from jmt_edge.capture.eda.port import Port
from jmt_edge.media.units import bitalino_us

GOLDEN = [
    ("00 88 50", 5, 0b1000, [512]),
    ("00 4b 00 00 00 fd", 15, 0, [0, 0, 300]),
    ("30 80 00 01 fc ff 03", 0, 0b1111, [1023, 1, 2, 3]),
    ("55 08 19 4b c8 90 51 73", 7, 0b0101, [100, 200, 300, 400, 33, 21]),
]


@pytest.mark.parametrize(("text", "sequence", "digital", "analog"), GOLDEN)
def test_golden_frames(text: str, sequence: int, digital: int, analog: list[int]) -> None:
    raw = bytes.fromhex(text)
    assert bitalino_frame(sequence, digital, analog) == raw
    frame = np.frombuffer(raw, np.uint8)
    assert syndromes(frame, len(frame)) == 0
    s, d, a = unpack(frame[None], len(analog))
    assert (s.item(), d.item(), a[0].tolist()) == (sequence, digital, analog)


def test_frame_lengths() -> None:
    assert [frame_length(n) for n in range(1, 7)] == [3, 4, 6, 7, 8, 8]


@given(st.integers(0, 15), st.integers(0, 15), st.lists(st.integers(0, 1023), min_size=1, max_size=6))
def test_decoding_inverts_the_encoder(sequence: int, digital: int, analog: list[int]) -> None:
    analog = [a & (1023 if i < 4 else 63) for i, a in enumerate(analog)]
    raw = bitalino_frame(sequence, digital, analog)
    s, d, a = unpack(np.frombuffer(raw, np.uint8)[None], len(analog))
    assert (s.item(), d.item(), a[0].tolist()) == (sequence, digital, analog)


def test_crc_finds_every_single_bit_error() -> None:
    for _, s, d, a in GOLDEN:
        raw = np.frombuffer(bitalino_frame(s, d, a), np.uint8)
        for bit in range(8 * len(raw)):
            broken = raw.copy()
            broken[bit // 8] ^= 1 << bit % 8
            assert syndromes(broken, len(raw)) != 0


def test_microsiemens() -> None:
    adc = np.array([0, 100, 512, 1023])
    np.testing.assert_allclose(bitalino_us(adc), [0, 2.441, 12.5, 24.976], atol=5e-4)
    np.testing.assert_allclose(bitalino_us(adc, generation="original"), 1 / (1 - adc / 1024))


def stream(values: list[int], start: int = 0, channels: int = 1) -> bytes:
    return b"".join(bitalino_frame((start + i) % 16, 0, [v] + [0] * (channels - 1)) for i, v in enumerate(values))


def test_clean_stream_loses_nothing_whatever_the_signal() -> None:
    values = np.random.default_rng(0).integers(2, 1023, 5000).tolist()
    got = decode(BitalinoDecoder(), [stream(values), bitalino_frame(5000 % 16, 0, [500])])
    assert got.lost == 0
    np.testing.assert_array_equal(got.counts, np.arange(5000))
    np.testing.assert_array_equal(got.values, bitalino_us(np.array(values)).astype(np.float32))


def test_open_and_saturated_electrodes_are_no_data() -> None:
    decoder = BitalinoDecoder(rate=10)
    got = decode(decoder, [stream([500, 0, 1, 2, 1023, 500])])
    assert np.isnan(got.values).tolist() == [False, True, True, False, True, False]
    assert decoder.report.no_data == {"open electrode": 2, "saturated electrode": 1}
    assert decoder.report.trouble == ""


@pytest.mark.parametrize("lost", [1, 5, 14, 15, 16, 17, 40, 200])
def test_corrupted_frames_are_counted_through_the_sequence_number(lost: int) -> None:
    """Also more than 15 of them: their bytes were there."""
    raw = bytearray(stream([300] * 1000))
    raw[300 : 300 + 3 * lost] = b"\xaa" * (3 * lost)
    got = decode(BitalinoDecoder(rate=10), [bytes(raw)])
    assert got.lost == lost
    assert len(got) == 1000 - lost
    np.testing.assert_array_equal(got.counts, np.r_[0:100, 100 + lost : 1000])


def test_a_run_that_is_too_short_gives_nothing() -> None:
    assert len(decode(BitalinoDecoder(rate=10), [b"\x13" + stream([300] * (RUN - 1)) + b"\x37" * 30])) == 0
    assert len(decode(BitalinoDecoder(rate=10), [b"\x13" + stream([300] * RUN) + b"\x37" * 30])) == RUN


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_realigns_after_lost_inserted_and_replaced_bytes(data: st.DataObject) -> None:
    """All frames but the first two behind the fault come out, right and once."""
    channels = data.draw(st.integers(1, 6))
    values = data.draw(st.lists(st.integers(2, 1022), min_size=60, max_size=60))
    raw = stream(values, channels=channels)
    length = frame_length(channels)
    at = data.draw(st.integers(10 * length, 30 * length))
    removed = data.draw(st.integers(0, 2 * length))
    raw = raw[:at] + data.draw(st.binary(max_size=30)) + raw[at + removed :]
    got = decode(BitalinoDecoder(channels, rate=10), [raw])
    first = -(-(at + removed) // length)
    expected = bitalino_us(np.array(values[first + 2 :])).astype(np.float32)
    np.testing.assert_array_equal(got.values[len(got) - len(expected) :], expected)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=400), st.lists(st.integers(1, 40), max_size=60), st.integers(1, 6), st.sampled_from([10, 1000])
)
def test_never_raises_and_chunking_does_not_matter(noise: bytes, sizes: list[int], channels: int, rate: int) -> None:
    data = noise[:50] + stream([400 + i % 7 for i in range(80)], 3, channels) + noise[50:]
    data += stream([600] * 30, 9, channels)
    whole = decode(BitalinoDecoder(channels, rate=rate), [data])
    pieces = decode(BitalinoDecoder(channels, rate=rate), cut(data, sizes))
    np.testing.assert_array_equal(whole.counts, pieces.counts)
    np.testing.assert_array_equal(whole.values, pieces.values)
    assert whole.lost == pieces.lost


def test_hours_of_random_bytes_give_no_sample() -> None:
    """14 MB are 20 minutes of noise at the full 115200 baud."""
    random = np.random.default_rng(1)
    decoder = BitalinoDecoder()
    for _ in range(14):
        decoder.feed(random.bytes(1_000_000))
    assert decoder.report.samples == 0


@pytest.fixture(scope="module")
def recording(shared_data: Path) -> list[int]:
    rows = (shared_data / "eda" / "bitalino_eda_hot_surface.txt").read_text().splitlines()
    return [int(row.split()[5]) for row in rows if not row.startswith("#")]


def test_recording_over_a_pty_with_corrupted_bytes(recording: list[int]) -> None:
    clean = np.frombuffer(stream(recording), np.uint8)
    random = np.random.default_rng(3)
    hit = random.random(len(clean)) < 0.01
    sent = clean.copy()
    sent[hit] ^= random.integers(1, 256, int(hit.sum()), dtype=np.uint8)

    master, slave = os.openpty()
    tty.setraw(slave)
    port = Port(os.ttyname(slave), 115200)
    feeder = threading.Thread(target=_write_all, args=(master, sent.tobytes()))
    feeder.start()
    decoder = BitalinoDecoder()
    parts = []
    while data := port.read(1.0):
        parts.append(decoder.feed(data))
    feeder.join()
    port.close()
    os.close(master)
    os.close(slave)

    assert decoder.report.bytes == len(sent)
    counts = np.concatenate([p.counts for p in parts])
    values = np.concatenate([p.values for p in parts])
    truth = bitalino_us(np.array(recording)).astype(np.float32)
    assert np.all(np.diff(counts) > 0)
    np.testing.assert_array_equal(values, truth[counts])
    missing = counts[-1] + 1 - len(counts)
    assert sum(p.lost for p in parts) == pytest.approx(missing, abs=1)  # one frame waits for its successor
    assert len(counts) > 0.95 * len(recording)


def _write_all(fd: int, data: bytes) -> None:
    for at in range(0, len(data), 512):
        os.write(fd, data[at : at + 512])


def test_corrupted_bytes_hardly_ever_pass(recording: list[int]) -> None:
    """Random replacement of 1 % of the bytes: of a million samples at most ten are wrong (CRC-4 alone: 1300)."""
    clean = np.frombuffer(stream(recording), np.uint8)
    truth = bitalino_us(np.array(recording)).astype(np.float32)
    wrong = total = 0
    for seed in range(12):
        random = np.random.default_rng(100 + seed)
        hit = random.random(len(clean)) < 0.01
        sent = clean.copy()
        sent[hit] ^= random.integers(1, 256, int(hit.sum()), dtype=np.uint8)
        got = decode(BitalinoDecoder(), [sent.tobytes()])
        wrong += int((got.values != truth[got.counts]).sum())
        total += len(got)
    assert wrong <= 1e-5 * total


@pytest.mark.parametrize("channels", [1, 6])
def test_throughput(channels: int) -> None:
    n = 60_000
    data = stream([400 + i % 9 for i in range(n)], channels=channels)
    assert throughput(BitalinoDecoder(channels), data, n, 1000.0) > 50
