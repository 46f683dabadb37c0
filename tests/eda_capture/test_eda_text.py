"""Grove and Arduino lines: golden values, strictness, shapes, faults of the line."""

from __future__ import annotations

import numpy as np
import pytest
from eda_streams import cut, decode, throughput
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jmt_edge.capture.eda import csv, grove
from jmt_edge.capture.eda.csv import CsvDecoder
from jmt_edge.capture.eda.grove import GroveDecoder
from jmt_edge.capture.eda.identify import text_protocol
from jmt_edge.media.units import Conversion, grove_us

PARTIAL = b"rest of a line\n"


def test_grove_golden_values() -> None:
    x = np.array([0, 100, 256, 400, 511])
    np.testing.assert_allclose(grove_us(x), [50.0, 33.66, 16.667, 6.140, 0.049], atol=5e-3)
    assert np.isnan(grove_us(np.array([512, 1023]))).all()


def test_grove_lines() -> None:
    decoder = GroveDecoder(cal=512)
    got = decode(decoder, [PARTIAL + b"256\r\nGSR : 100\n  400 \n512\n0\n1024\n-3\n12.5\nGSR : \n25600000\n256\n"])
    np.testing.assert_allclose(got.values, [16.667, 33.66, 6.140, np.nan, np.nan, 16.667], atol=5e-3)
    assert got.counts.tolist() == [0, 1, 2, 3, 4, 10]
    assert got.lost == 5
    assert decoder.report.no_data == {"open electrode": 1, "saturated electrode": 1}


def test_grove_without_calibration_is_not_microsiemens() -> None:
    assert (GroveDecoder().unit, GroveDecoder(cal=505).unit) == ("a.u.", "µS")


def test_csv_with_header() -> None:
    decoder = CsvDecoder()
    got = decode(decoder, [b"t_ms,uS\r\n0,1.25\r\n4, 1.5\r\n8,nan\r\n12,0.001\r\n16,-2\r\n20,3\r\n"])
    assert decoder.tick == 1e-3
    assert got.counts.tolist() == [0, 4, 8, 12, 16, 20]
    np.testing.assert_array_equal(got.values, np.float32([1.25, 1.5, np.nan, np.nan, np.nan, 3]))
    assert decoder.report.no_data == {"the board sent no number": 1, "open electrode": 2}


def test_csv_joined_midway_is_recognised_and_its_first_line_dropped() -> None:
    decoder = CsvDecoder()
    got = decode(decoder, [b"9,1.25\n100,1.5\n104,1.6\n108,1.7\n112,1.8\n"])
    assert got.counts.tolist() == [100, 104, 108, 112]
    assert got.lost == 0


def test_csv_one_number_a_line() -> None:
    decoder = CsvDecoder()
    got = decode(decoder, [PARTIAL + b"1.5\n1.6\n1.7\nx\n1.8\n"])
    assert decoder.tick == 0
    assert got.counts.tolist() == [1, 2, 3, 5]
    assert got.lost == 1


@pytest.mark.parametrize(
    "line",
    [b"12", b"1,2,3", b",1", b"1,", b"1.5,2", b"1;2", b"0x10,1", b"1e3,1", b"5000000000,1", b"7,1e9", b"7,1_0", b"7,+",
     b"\xff\xfe", b"7,1.0\x00", b"7,1" * 40],
)  # fmt: skip
def test_csv_rejects_and_counts(line: bytes) -> None:
    decoder = CsvDecoder()
    got = decode(decoder, [b"t_ms,uS\n0,1\n4,1\n" + line + b"\n8,1\n"])
    assert got.counts.tolist() == [0, 4, 8]
    assert got.lost == decoder.report.rejected == 1


def test_csv_changes_shape_after_three_lines_only() -> None:
    decoder = CsvDecoder()
    got = decode(decoder, [b"t_ms,uS\n0,1\n4,1\n", b"2\n2\n8,1\n", b"12,1\n"])
    assert (got.counts.tolist(), got.lost, decoder.tick) == ([0, 4, 8, 12], 2, 1e-3)
    got = decode(decoder, [b"3\n3\n3\n3\n"])
    assert (got.values.tolist(), decoder.tick) == ([3, 3, 3, 3], 0)


def test_millis_wraps() -> None:
    decoder = CsvDecoder()
    got = decode(decoder, [b"t_ms,uS\n4294967290,1\n4294967294,1\n2,1\n6,1\n"])
    assert np.diff(got.counts).tolist() == [4, 4, 4]


NOT_TAKEN = {
    "counts": ([b"512", b"513", b"511", b"512"], "like the counts of a converter; say what they are by ?unit=adc"),
    "counts with stamps": ([b"%d,%d" % (20 * i, 30 + i % 3) for i in range(9)], "whole numbers"),
    "GSR,Temp": ([b"512,32.5", b"511,32.5", b"513,32.6", b"512,32.6"], "does not advance like a time"),
    "5,12 with a decimal comma": ([b"5,12", b"5,13", b"5,12", b"5,11"], "whole numbers"),
    "micros() without a header": ([b"%d,5.1" % (4000 * i) for i in range(9)], "?time=ms or ?time=us"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_lines_that_may_be_something_else_are_not_taken(name: str) -> None:
    lines, reason = NOT_TAKEN[name]
    decoder = CsvDecoder()
    got = decode(decoder, [PARTIAL + b"\n".join([*lines, b""]), b"", b"\n".join([*lines, b""])])
    assert reason in decoder.report.problem
    assert len(got) <= 4  # what came before the first that differed
    assert list(decoder.report.unread) and set(decoder.report.unread) <= set(lines)
    assert 2 * len(lines) - 2 <= got.lost + len(got) <= 2 * len(lines)  # two may be held


def sent(lines: list[str]) -> tuple[CsvDecoder, np.ndarray]:
    decoder = CsvDecoder()
    data = "\r\n".join(["", *lines, ""]).encode()
    return decoder, decode(decoder, [data[:100], data[100:]]).values


def test_what_sketches_print_that_is_not_microsiemens() -> None:
    """Counts with `.00`, another unit in the header, a counter before the value: all were taken as µS in time."""
    decoder, values = sent([f"{20 + i % 7}.00" for i in range(60)])
    assert "whole numbers" in decoder.report.problem and not len(values)
    for header, factor in (("t_ms,kohm", 1000.0), ("t_ms, GSR_kOhm", 1000.0), ("nS", 0.001)):
        row = "{0}" if header == "nS" else "{1},{0}"
        decoder, values = sent([header, *(row.format(f"{200 + i / 8}", 20 * i) for i in range(60))])
        x = 200 + np.arange(60) / 8
        np.testing.assert_allclose(values, factor / x if factor > 1 else factor * x, rtol=1e-6)
    for header in ("t_ms,V", "volts", "t_ms,adc", "raw"):
        row = "{1},{0}" if "," in header else "{0}"
        decoder, values = sent([header, *(row.format(f"{2 + i / 80}", 20 * i) for i in range(60))])
        assert "its header says" in decoder.report.problem and "?unit=" in decoder.report.problem and not len(values)
    decoder, values = sent([f"{i},{5 + i / 80}" for i in range(60)])
    assert "counter" in decoder.report.problem and not len(values)


@pytest.mark.parametrize("size", [1, 7, 60, 10_000])
def test_a_header_in_the_stream_gives_its_unit_to_what_follows_it_alone(size: int) -> None:
    """A sketch that is changed and restarted: in pieces of any size, no sample is converted by the other's unit."""
    rows = [b"%d,%.1f\r\n" % (20 * i, 20 + i / 10) for i in range(1, 12)]
    data = b"t_ms,uS\r\n" + b"".join(rows) + b"t_ms,kohm\r\n" + b"".join(rows) + b"t_ms,uS\r\n" + b"".join(rows)
    got = decode(CsvDecoder(), [data[i : i + size] for i in range(0, len(data), size)] + [b""])
    x = 20 + np.arange(1, 12) / 10
    np.testing.assert_allclose(got.values, np.concatenate([x, 1e3 / x, x]), rtol=1e-6)
    decoder = CsvDecoder()
    got = decode(decoder, [b"t_ms,uS\n", *rows, b"t_ms,V\n", *rows, b""])
    assert len(got.values) == len(rows) and "its header says V" in decoder.report.problem


def test_pairs_that_begin_like_a_time_are_given_up() -> None:
    rows = [300 + 5 * i if i < 6 else 330 - i % 7 for i in range(80)]
    decoder = CsvDecoder()
    got = decode(decoder, [PARTIAL, *(b"%d,32.5\n" % x for x in rows)])
    assert "does not advance" in decoder.report.problem
    assert len(got) < 40


def test_settings_and_headers_say_what_lines_are() -> None:
    got = decode(CsvDecoder(unit=Conversion("adc")), [PARTIAL + b"%d\n%d\n%d\n" % (204, 205, 206)])
    np.testing.assert_allclose(got.values, np.array([204, 205, 206]) / 1024 * 25, rtol=1e-6)
    got = decode(CsvDecoder(unit=Conversion("kohm")), [PARTIAL + b"200\n250\n0\n"])
    np.testing.assert_array_equal(got.values, np.float32([5, 4, np.nan]))
    for decoder, head in ((CsvDecoder(time="us"), PARTIAL), (CsvDecoder(), b"t_us,uS\n")):
        got = decode(decoder, [head, b"4000,5.1\n8000,5.2\n12000,5.3\n16000,5.4\n"])
        assert (decoder.tick, got.counts.tolist()) == (1e-6, [4000, 8000, 12000, 16000])


LINES = st.sampled_from([b"t_ms,uS", b"10,1.5", b"14,2.5", b"3.5", b"77", b"GSR : 300", b"nan", b"", b"9" * 70, b"12,"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(LINES, st.binary(max_size=12)), max_size=40), st.lists(st.integers(1, 30), max_size=40))
@example([b"1,1", b"1,1", b"1,1", b"1,1", b"1", b"2", b"3", b"4"], [5, 9])
def test_never_raises_and_chunking_does_not_matter(lines: list[bytes], sizes: list[int]) -> None:
    data = b"\n".join(lines) + b"\n"
    for make in (CsvDecoder, lambda: GroveDecoder(500)):
        first, second = make(), make()
        whole = decode(first, [data, b"", b"", b"", b"", b"", b"", b"", b"", b"", b"", b"", b""])
        pieces = decode(second, [*cut(data, sizes), b"", b"", b"", b"", b"", b"", b"", b"", b"", b"", b"", b""])
        np.testing.assert_array_equal(whole.counts, pieces.counts)
        np.testing.assert_array_equal(whole.values, pieces.values)
        assert whole.lost == pieces.lost


def test_long_random_run_neither_raises_nor_grows() -> None:
    random = np.random.default_rng(2)
    for decoder in (CsvDecoder(), GroveDecoder(512)):
        for _ in range(3):
            decoder.feed(random.bytes(1_000_000))
        decoder.feed(b"5" * 10_000_000)
        assert len(decoder._lines._carry) < 100


def test_text_is_told_apart() -> None:
    assert isinstance(text_protocol(PARTIAL + b"301\n302\n303\nGSR : 300\n", 9600), grove.Grove)
    assert isinstance(text_protocol(PARTIAL + b"1,3.5\n2,3.5\n3,3.5\n4,3.5\n", 9600), csv.Csv)
    assert isinstance(text_protocol(PARTIAL + b"3.5\n3.5\n3.5\n3.5\n", 9600), csv.Csv)
    assert text_protocol(b"hello\nworld\nthis\nis\nit\nand\n", 9600) is None


def test_throughput() -> None:
    n = 30_000
    lines = b"t_ms,uS\r\n" + b"".join(b"%d,%.3f\r\n" % (4 * i, 5 + i % 7) for i in range(n))
    assert throughput(CsvDecoder(), lines, n, 250.0) > 50
    assert throughput(GroveDecoder(), b"".join(b"%d\r\n" % (300 + i % 9) for i in range(n)), n, 20.0) > 50
