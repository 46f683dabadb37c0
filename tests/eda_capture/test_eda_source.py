"""EDA boards end to end: simulated hardware on a pseudo-terminal, opened as a user would."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from eda_streams import wait_until

from jmt_edge.capture.base import State
from jmt_edge.capture.boards import FIRMWARE, Faults, SimulatedBoard, open_signal
from jmt_edge.capture.eda import EDA_PROTOCOLS, SerialEda, open_eda
from jmt_edge.capture.eda.csv import Csv
from jmt_edge.capture.eda.port import Port
from jmt_edge.capture.reconnect import DeviceLost, Timing
from jmt_edge.errors import SourceError
from jmt_edge.media.chunk import Chunk
from jmt_edge.media.units import Conversion

SPECS = {
    "bitalino": "channel=3&rate=1000",
    "shimmer3": "rate=128",
    "grove": "cal=512",
    "csv": "",
}
RATES = {"bitalino": 1000, "shimmer3": 128, "grove": 20, "csv": 250}


def sine(t: np.ndarray) -> np.ndarray:
    return 5.0 + 3.0 * np.sin(2 * np.pi * t / 10.0)


def collect(source: SerialEda, origin: float, samples: int) -> Chunk:
    """At least `samples` samples."""
    chunks: list[Chunk] = []

    def enough() -> bool:
        chunks.append(source.read(time.monotonic() - origin))
        return sum(map(len, chunks)) >= samples

    wait_until(enough)
    return Chunk(
        np.concatenate([c.times for c in chunks]),
        np.concatenate([c.values for c in chunks]),
        chunks[-1].rate,
        sum(c.lost for c in chunks),
    )


@pytest.mark.parametrize("protocol", SPECS)
def test_streams_in_time(protocol: str) -> None:
    rate = RATES[protocol]
    with SimulatedBoard(FIRMWARE[protocol](), open_signal("sine")) as board:
        origin = time.monotonic()
        source = open_eda(f"{protocol}:{board.path}?{SPECS[protocol]}")
        source.open(origin)
        chunk = collect(source, origin, 2 * rate)
        status = source.status()
        source.close()
    assert (status.state, status.unit, status.reason) == (State.STREAMING, "µS", "")
    assert np.all(np.diff(chunk.times) > 0)
    assert chunk.lost == status.lost == 0
    wanted = sine(chunk.times + origin - board.stream_start)
    # a shared machine may read late: 25 ms of the signal's steepest slope, plus the coarsest converter's step
    assert np.median(np.abs(chunk.values - wanted)) < 0.025 * 1.9 + 0.05
    assert len(chunk) / (chunk.times[-1] - chunk.times[0]) == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize(("protocol", "board_name"), [("bitalino", "BITalino_v5.2"), ("shimmer3", "Shimmer3"),
                                                      ("grove", "grove"), ("csv", "csv")])  # fmt: skip
def test_auto_identifies(protocol: str, board_name: str) -> None:
    with SimulatedBoard(FIRMWARE[protocol](), open_signal("sine")) as board:
        source = open_eda(f"auto:{board.path}")
        source.open(time.monotonic())
        assert collect(source, time.monotonic() - 100, 5).values.min() > 1
        status = source.status()
        source.close()
    assert status.detail["board"] == board_name
    assert source.name == f"{protocol}:{board.path}"
    assert status.unit == ("a.u." if protocol == "grove" else "µS")


@pytest.fixture
def pty() -> Iterator[tuple[int, str]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    for fd in (master, slave):
        os.close(fd)


def test_auto_says_what_it_saw(pty: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jmt_edge.capture.eda.identify._LISTEN", 0.2)
    with pytest.raises(SourceError, match=r"it sent nothing at 115200 .* neither as BITalino nor as Shimmer3"):
        open_eda(f"auto:{pty[1]}").open(0.0)
    heard = threading.Event()

    def talk() -> None:
        while not heard.wait(0.02):
            os.write(pty[0], b"hello\n")

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        with pytest.raises(SourceError, match=r"hello"):
            open_eda(f"auto:{pty[1]}").open(0.0)
    finally:
        heard.set()
        talker.join()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("bitalino:", "names no port"),
        ("bitalino:/dev/x?channel=7", "no channel 7"),
        ("bitalino:/dev/x?rate=500", "choose one of 1, 10, 100, 1000"),
        ("bitalino:/dev/x?generation=3", "generation '3'"),
        ("bitalino:/dev/x?speed=3", "unknown setting .speed."),
        ("bitalino:/dev/x?rate=fast", "rate is .fast."),
        ("shimmer3:/dev/x?rate=99999", "0.5 to 1024"),
        ("grove:/dev/x?cal=0", "cal=0"),
        ("auto:/dev/x?rate=1", "auto takes no settings"),
        ("csv:/dev/x?unit=furlong", "unit 'furlong' is unknown"),
        ("csv:/dev/x?bits=12", "belongs to a unit"),
        ("csv:/dev/x?time=s", "ms for millis"),
        ("lsl:/dev/x", "names no EDA board"),
        ("", "names no EDA board"),
    ],
)
def test_malformed_specifications(spec: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_eda(spec)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([b"GSR,Temp\n", b"sensor ready\n"], "'GSR,Temp' and 'sensor ready': not understood"),
        ([b"512\n", b"513\n"], "whole numbers, like the counts of a converter"),
    ],
)
def test_lines_not_understood_are_quoted_and_the_board_is_not_opened_again(
    pty: tuple[int, str], lines: list[bytes], words: str
) -> None:
    quick = Timing(first=0.3, stall=0.2, lost=0.4, backoff=0.002, backoff_max=0.01)
    source = SerialEda(Csv(), pty[1], timing=quick)
    source.open(time.monotonic())
    began = time.monotonic()

    def quoted() -> bool:
        for line in lines:
            os.write(pty[0], line)
        return words in source.status().reason

    wait_until(quoted)
    while time.monotonic() - began < 1.0:  # well over `first` and `lost`
        quoted()
        time.sleep(0.01)
    states = [state for _, state, _ in source.link.history]
    assert words in source.status().reason and source.status().state is State.STALLED
    assert State.LOST not in states and State.BACKOFF not in states
    for i in range(20):
        os.write(pty[0], b"t_ms,uS\n" if i == 0 else b"%d,5.5\n" % (4 * i))
    wait_until(lambda: source.status().state is State.STREAMING)
    source.close()


def test_protocol_names() -> None:
    assert EDA_PROTOCOLS == ("bitalino", "shimmer3", "grove", "csv", "auto")
    assert open_eda("/dev/ttyUSB0").name == "csv:/dev/ttyUSB0"


def test_absent_busy_and_wrong_ports_are_one_sentence(pty: tuple[int, str], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no serial port /dev/ttyNONE; plug"):
        open_eda("csv:/dev/ttyNONE").open(0.0)
    file = tmp_path / "file"
    file.write_text("1,2\n")
    with pytest.raises(SourceError, match="not a serial port"):
        open_eda(f"csv:{file}").open(0.0)
    port = Port(pty[1], 9600)
    with pytest.raises(SourceError, match="in use by another program"):
        open_eda(f"csv:{pty[1]}").open(0.0)
    port.close()


@pytest.mark.parametrize("protocol", ["bitalino", "shimmer3"])
def test_a_board_that_does_not_answer(pty: tuple[int, str], protocol: str) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SourceError, match="answers at"):
        open_eda(f"{protocol}:{pty[1]}").open(0.0)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_unplugged_port_says_so() -> None:
    board = SimulatedBoard(FIRMWARE["csv"](), open_signal("sine"))
    port = Port(board.path, 9600)
    board.unplug()
    with pytest.raises(DeviceLost, match="is gone: unplugged, or its port is read by a second program"):
        port.read(0.5)
    port.close()


def test_unplug_and_stall_are_seen_and_mended(tmp_path: Path) -> None:
    """At the default time constants: noticed within 2 s, samples again within 2 s of the return, no restart."""
    faults = Faults(unplug=((1.5, 1.5),), stall=((6.0, 3.5),))
    protocols = ("bitalino", "shimmer3", "csv")
    boards = [SimulatedBoard(FIRMWARE[p](), open_signal("sine"), faults, link=tmp_path / p) for p in protocols]
    for board in boards:
        board.__enter__()
    sources = [open_eda(f"{p}:{tmp_path / p}?{SPECS[p]}") for p in protocols]
    starts = [board._start for board in boards]
    times: list[list[np.ndarray]] = [[] for _ in protocols]
    for source, start in zip(sources, starts):
        source.open(start)
    while time.monotonic() - starts[0] < 12.5:
        for source, start, got in zip(sources, starts, times):
            got.append(source.read(time.monotonic() - start).times)
        time.sleep(0.02)
    for protocol, source, start, got in zip(protocols, sources, starts, times):
        history = [(t - start, state, reason) for t, state, reason in source.link.history]
        status = source.status()
        source.close()
        _check_faults(np.concatenate(got), history)
        assert status.state is State.STREAMING
        assert status.reconnects >= 1 + (protocol != "csv")
    for board in boards:
        board.__exit__()


def _check_faults(t: np.ndarray, history: list[tuple[float, State, str]]) -> None:
    def first(after: float, state: State) -> tuple[float, str]:
        return next((when, reason) for when, entered, reason in history if when > after and entered is state)

    slow = 0.5  # s for a busy machine
    gone, reason = first(1.5, State.LOST)
    assert gone < 3.5 + slow
    assert "is gone: unplugged" in reason
    assert not np.any((t > 1.6) & (t < 2.9))
    assert t[t > 3.0].min() < 5.0 + slow
    stalled, reason = first(6.0, State.STALLED)
    assert stalled < 8.0 + slow
    assert "sends nothing" in reason
    assert t[t > 9.4].min() < 11.5 + slow
    assert np.all(np.diff(t) > 0)


def test_garbage_is_a_stall_with_its_reason(pty: tuple[int, str]) -> None:
    stop = threading.Event()

    def babble() -> None:
        while not stop.wait(0.01):
            os.write(pty[0], b"1,2\n" if time.monotonic() - begin < 0.5 else b"~~~ rubbish ~~~\n")

    begin = time.monotonic()
    talker = threading.Thread(target=babble)
    talker.start()
    source = SerialEda(Csv(), pty[1], timing=Timing(first=2, stall=0.3, lost=5))
    source.open(begin)
    wait_until(lambda: source.link.state is State.STALLED and "none of them are samples" in source.link.reason)
    source.close()
    stop.set()
    talker.join()


def test_electrode_off_is_no_data_with_a_reason() -> None:
    signal = open_signal("sine")
    signal.at = lambda t: np.where(t < 0.5, 5.0, np.nan)
    with SimulatedBoard(FIRMWARE["shimmer3"](), signal) as board:
        source = open_eda(f"shimmer3:{board.path}")
        origin = time.monotonic()
        source.open(origin)
        chunk = collect(source, origin, 200)
        status = source.status()
        source.close()
    assert np.isnan(chunk.values[-50:]).all()
    assert chunk.values[0] == pytest.approx(5.0, rel=0.02)
    assert (status.state, status.reason) == (State.STREAMING, "open electrode")


def test_a_noisy_lossy_line_gives_right_values_and_counts_the_loss() -> None:
    faults = Faults(drop=0.02, corrupt=0.01, jitter=0.02, drift=100)
    with SimulatedBoard(FIRMWARE["bitalino"](), open_signal("sine"), faults, seed=4) as board:
        origin = time.monotonic()
        source = open_eda(f"bitalino:{board.path}?channel=3&rate=1000")
        source.open(origin)
        chunk = collect(source, origin, 3000)
        source.close()
    wanted = sine(chunk.times + origin - board.stream_start)
    assert np.quantile(np.abs(chunk.values - wanted), 0.99) < 0.2
    assert 0.02 * len(chunk) < chunk.lost < 0.15 * len(chunk)


def test_slow_reader_loses_the_oldest_and_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jmt_edge.capture.queue.QueuedEda.KEPT", 0.3)
    with SimulatedBoard(FIRMWARE["csv"](), open_signal("sine")) as board:
        origin = time.monotonic()
        source = open_eda(f"csv:{board.path}")
        source.open(origin)
        wait_until(lambda: source.status().detail["overflowed"] > 100)
        chunk = source.read(time.monotonic() - origin)
        source.close()
    assert chunk.lost > 100
    assert 0 < len(chunk) < 200
    assert time.monotonic() - origin - chunk.times[-1] < 2.0


def test_read_hands_over_each_sample_once_and_not_before_its_time() -> None:
    with SimulatedBoard(FIRMWARE["csv"](), open_signal("sine")) as board:
        origin = time.monotonic()
        source = open_eda(f"csv:{board.path}")
        source.open(origin)
        wait_until(lambda: source._queue.waiting > 300)
        early = source.read(source._queue._parts[0][0][0] + 0.2)
        late = source.read(1e9)
        source.close()
    assert 0 < len(early) < len(early) + len(late)
    assert early.times[-1] < late.times[0]
    assert early.times[-1] - early.times[0] <= 0.2


def test_200_unplugs_leak_neither_threads_nor_descriptors(tmp_path: Path) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    link = tmp_path / "board"
    quick = Timing(first=1.0, stall=0.5, lost=1.0, backoff=0.002, backoff_max=0.01)
    source: SerialEda | None = None
    for cycle in range(201):
        master, slave = os.openpty()
        tty.setraw(slave)
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(slave))
        if source is None:
            source = SerialEda(Csv(), str(link), timing=quick)
            source.open(time.monotonic())
        line = 0

        def streaming(master: int = master, source: SerialEda = source, cycle: int = cycle) -> bool:
            nonlocal line
            os.write(master, b"%d,5.25\n" % (line := line + 4))
            return source.link.state is State.STREAMING and source.link.reconnects == cycle

        wait_until(streaming)
        link.unlink()
        os.close(master)
        os.close(slave)
        wait_until(lambda source=source: source.link.state is not State.STREAMING)
    assert source is not None
    assert threading.active_count() == threads + 1
    source.close()
    assert source.link.reconnects == 200
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_real_recording_through_a_simulated_arduino(shared_data: Path) -> None:
    """A board meant for 250 Hz, in ten times real time over a pty: its true rate within 0.1 %."""
    signal = open_signal(str(shared_data / "eda" / "physiokit" / "P12_C_Hard_1675946416_297296.csv.gz"))
    start, speed = time.monotonic(), 10.0
    with SimulatedBoard(FIRMWARE["csv"](), signal, speed=speed) as board:
        source = SerialEda(Csv(unit=Conversion()), board.path, now=lambda: (time.monotonic() - start) * speed)
        source.open(0.0)
        times = []
        while time.monotonic() - start < 6.0:
            times.append(source.read(1e9).times)
            time.sleep(0.05)
        source.close()
    got = np.concatenate(times)
    assert signal.times is not None
    truth = signal.times[: len(got)]
    assert len(got) > 40 * 250
    rate, true_rate = (len(x) / (x[-1] - x[0]) for x in (got, truth))
    assert abs(true_rate - 250) > 5
    assert rate == pytest.approx(true_rate, rel=1e-3)
