"""Shimmer3 packets: golden vectors, layouts, wraps, faults of the line."""

from __future__ import annotations

import numpy as np
import pytest
from eda_streams import cut, decode, throughput
from hypothesis import given, settings
from hypothesis import strategies as st

from jmt_edge.capture.boards.firmware import Shimmer3Firmware
from jmt_edge.capture.eda.shimmer3 import Layout, Shimmer3Decoder
from jmt_edge.capture.reconnect import DeviceLost
from jmt_edge.media.units import shimmer3_us

LAYOUT = Layout(256, (0x12, 0x1C))


def stream(words: list[int], start: int = 0, divider: int = 256) -> bytes:
    return b"".join(
        b"\x00" + ((start + i * divider) % (1 << 24)).to_bytes(3, "little") + b"\x00\x08" + w.to_bytes(2, "little")
        for i, w in enumerate(words)
    )


def test_golden_values() -> None:
    words = np.array([0x0800, 0x4800, 0x8800, 0xC800, 0x0FFF])
    np.testing.assert_allclose(shimmer3_us(words), [49.769, 6.971, 2.001, 0.606, 124.4], rtol=5e-4)
    np.testing.assert_allclose(1000 / shimmer3_us(words)[:4], [20.093, 143.447, 499.817, 1649.4], rtol=1e-4)
    assert np.isnan(shimmer3_us(np.array([0x4258]))).all()


def test_open_disconnected_and_saturated_are_no_data() -> None:
    decoder = Shimmer3Decoder(LAYOUT)
    barely = 3 << 14 | 700  # 0.008 µS
    got = decode(decoder, [stream([0x4800, 0x4258, barely, 0x0FFF, 0x4800])])
    assert np.isnan(got.values).tolist() == [False, True, True, True, False]
    assert decoder.report.no_data == {"open electrode": 2, "saturated electrode": 1}


def test_layout_from_the_inquiry() -> None:
    answer = bytes([0x80, 0x02, 0, 0, 0, 0, 3, 1, 0x00, 0x1C, 0x12])
    assert Layout.from_inquiry(answer) == Layout(640, (0x00, 0x1C, 0x12))
    assert Layout.from_inquiry(answer).length == 10


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x80\x02", bytes([0, 1, 0, 0, 0, 0, 2, 1, 0x1C]), bytes([0, 1, 0, 0, 0, 0, 1, 1, 0x12]),
     bytes([0, 0, 0, 0, 0, 0, 1, 1, 0x1C]), bytes([0, 1, 0, 0, 0, 0, 2, 1, 0x1C, 0x80])],
)  # fmt: skip
def test_unusable_inquiries_are_one_sentence(answer: bytes) -> None:
    with pytest.raises(DeviceLost, match="Shimmer"):
        Layout.from_inquiry(answer)


@pytest.mark.parametrize("start", [0, (1 << 24) - 300, (1 << 24) - 100 * 256])
def test_timestamps_wrap(start: int) -> None:
    got = decode(Shimmer3Decoder(LAYOUT), [stream([0x4800] * 300, start)])
    np.testing.assert_array_equal(got.counts, start + 256 * np.arange(300))
    assert got.lost == 0


def test_lost_packets_are_counted_by_the_timestamp() -> None:
    raw = stream([0x4800] * 100)
    got = decode(Shimmer3Decoder(LAYOUT), [raw[: 8 * 40] + raw[8 * 57 :]])
    assert (len(got), got.lost) == (83, 17)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_realigns_after_lost_inserted_and_replaced_bytes(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.integers(0, 65535), min_size=60, max_size=60))
    raw = stream(words, data.draw(st.integers(0, (1 << 24) - 1)))
    at = data.draw(st.integers(80, 240))
    removed = data.draw(st.integers(0, 16))
    raw = raw[:at] + data.draw(st.binary(max_size=30)) + raw[at + removed :]
    decoder = Shimmer3Decoder(LAYOUT)
    got = decode(decoder, [raw])
    first = -(-(at + removed) // 8) + 1
    expected = decode(Shimmer3Decoder(LAYOUT), [stream(words[first:])])
    np.testing.assert_array_equal(got.values[len(got) - len(expected) :], expected.values)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(1, 40), max_size=60))
def test_never_raises_and_chunking_does_not_matter(noise: bytes, sizes: list[int]) -> None:
    data = noise[:50] + stream([0x4800 + i for i in range(50)]) + noise[50:] + stream([0x8800] * 30, 7000)
    whole = decode(Shimmer3Decoder(LAYOUT), [data])
    pieces = decode(Shimmer3Decoder(LAYOUT), cut(data, sizes))
    np.testing.assert_array_equal(whole.counts, pieces.counts)
    np.testing.assert_array_equal(whole.values, pieces.values)
    assert whole.lost == pieces.lost


def test_random_bytes_give_no_sample() -> None:
    random = np.random.default_rng(1)
    decoder = Shimmer3Decoder(LAYOUT)
    for _ in range(6):
        decoder.feed(random.bytes(1_000_000))
    assert decoder.report.samples == 0


def test_simulated_board_sends_what_the_decoder_reads() -> None:
    board = Shimmer3Firmware(rate=128)
    us = np.concatenate([np.geomspace(0.05, 60, 200), [np.nan]])
    raw = b"".join(board.sample(n, n / 128, float(v)) for n, v in enumerate(us))
    got = decode(Shimmer3Decoder(LAYOUT), [raw])
    np.testing.assert_allclose(got.values[:-1], us[:-1], rtol=0.03, atol=0.002)
    assert np.isnan(got.values[-1])


def test_throughput() -> None:
    n = 60_000
    assert throughput(Shimmer3Decoder(LAYOUT), stream([0x4800] * n), n, 128.0) > 50
