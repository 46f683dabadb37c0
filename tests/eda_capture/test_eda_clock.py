"""Device clocks fitted to the host's under drift, jitter, loss, wraps, repeats and restarts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from jmt_edge.capture.boards import open_signal
from jmt_edge.capture.boards.firmware import BitalinoFirmware, CsvFirmware, Firmware, Shimmer3Firmware
from jmt_edge.capture.clock import ClockFit, Timeline, unwrap
from jmt_edge.capture.eda.base import Decoder
from jmt_edge.capture.eda.bitalino import BitalinoDecoder
from jmt_edge.capture.eda.csv import CsvDecoder
from jmt_edge.capture.eda.shimmer3 import Layout, Shimmer3Decoder

Delays = Callable[[np.random.Generator, int], NDArray[np.float64]]
DELAYS: dict[str, Delays] = {
    "uniform": lambda g, n: g.uniform(0, 0.02, n),
    "exponential": lambda g, n: g.exponential(0.02, n),
    "half-normal": lambda g, n: np.abs(g.normal(0, 0.02, n)),
}


def test_unwrap_takes_the_shortest_step() -> None:
    assert unwrap(np.array([10, 5, 250, 1]), 260, 256).tolist() == [266, 261, 250, 257]
    assert unwrap(np.array([], np.int64), 3, 16).tolist() == []


@given(st.lists(st.integers(0, 127), min_size=1, max_size=50), st.integers(0, 10**9))
def test_unwrap_inverts_wrapping(steps: list[int], last: int) -> None:
    true = last + np.cumsum(steps)
    np.testing.assert_array_equal(unwrap(true % 256, last, 256), true)


def play(
    timeline: Timeline, counts: NDArray[np.int64], arrivals: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Feed single arrivals; returns the stamped times and the indices of their samples."""
    out = [timeline.push(counts[i : i + 1], np.array([i]), arrivals[i]) for i in range(len(counts))]
    out.append(timeline.push(counts[:0], np.array([], int), arrivals[-1] + 10))
    return np.concatenate([t for t, _ in out]), np.concatenate([i for _, i in out])


@pytest.mark.parametrize("kind", DELAYS)
def test_an_hour_with_drift_jitter_and_loss(kind: str) -> None:
    """100 ppm, 20 ms, 2 %: within 10 ms of the truth from the first sample on, and far closer after a minute."""
    random = np.random.default_rng(5)
    n = np.flatnonzero(random.random(3600 * 10) > 0.02)
    truth = 1000.0 + n / 10 / (1 + 100e-6)
    arrivals = np.maximum.accumulate(truth + DELAYS[kind](random, len(n)))
    timeline = Timeline(1 / 10)
    times, index = play(timeline, n, arrivals)
    error = times - truth[index]
    assert len(times) == len(n)
    assert np.all(np.diff(times) > 0)
    assert np.abs(error).max() < 0.010
    assert np.abs(error[60 * 10 :]).max() < 0.003
    assert timeline.fit.drift_ppm == pytest.approx(100, abs=1)
    assert timeline.fit.jitter == pytest.approx(np.std(arrivals - truth), rel=0.35)
    assert timeline.fit.error < 0.003
    assert timeline.missing == 0


BOARDS: list[tuple[Callable[[], Firmware], Callable[[], Decoder], float]] = [
    (lambda: started(BitalinoFirmware(100.0)), lambda: BitalinoDecoder(rate=100), 100.0),
    (lambda: Shimmer3Firmware(128.0), lambda: Shimmer3Decoder(Layout(256, (0x12, 0x1C))), 128.0),
    (lambda: CsvFirmware(100.0), CsvDecoder, 100.0),
]


def started(board: BitalinoFirmware) -> BitalinoFirmware:
    board.receive(b"\x43\x11")
    return board


@pytest.mark.parametrize(("firmware", "decoder", "rate"), BOARDS, ids=["bitalino", "shimmer3", "csv"])
def test_boards_over_a_jittery_lossy_line(
    firmware: Callable[[], Firmware], decoder: Callable[[], Decoder], rate: float
) -> None:
    """Bytes of 2 simulated minutes, read in bursts of 40 ms, 2 % of the frames lost: decoded and stamped."""
    board, device = firmware(), decoder()
    random = np.random.default_rng(6)
    timeline: Timeline | None = None
    n = np.arange(int(120 * rate))
    values = 3 + n % 500 / 100  # tells the sample's number, modulo 500
    kept = random.random(len(n)) > 0.02
    truth = 50.0 + n / rate / (1 + 100e-6)
    burst = max(int(0.04 * rate), 1)
    error, seen, lost, newest = [], 0, 0, 0.0
    for first in range(0, len(n), burst):
        part = n[first : first + burst]
        raw = b"".join(board.sample(int(i), i / rate, float(values[i])) for i in part if kept[i])
        newest = max(newest, truth[part[-1]] + random.exponential(0.02))
        samples = device.feed(raw)
        lost += samples.lost
        if timeline is None:
            if not len(samples):
                continue
            timeline = Timeline(device.tick, prior_ppm=device.prior_ppm, cycle=device.cycle, period=1 / rate)
        times, us = timeline.push(samples.counts, samples.values, newest, samples.ahead)
        seen += len(times)
        if len(times):
            near = np.searchsorted(truth, times)  # the samples around, and which of them has this value
            around = np.clip(near[:, None] + np.arange(-50, 50), 0, len(n) - 1)
            match = np.abs(values[around] - us[:, None]) < 0.016 * values[around]
            distance = np.where(match, np.abs(truth[around] - times[:, None]), np.inf).min(axis=1)
            error.append(distance)
    worst = np.concatenate(error)
    assert seen > 0.96 * len(n)
    assert worst.max() < 0.010
    assert timeline is not None
    assert timeline.slipped == 0
    if not isinstance(device, CsvDecoder):  # lines without a number: their loss leaves no trace
        assert seen + lost == pytest.approx(len(n), abs=2)
        assert lost <= 1.2 * (~kept).sum()  # a frame alone between two losses stands in no run


def test_late_repeated_and_impossible_counters_are_dropped() -> None:
    n = np.arange(2000)
    arrivals = n / 100 + 0.001
    counts = n.copy()
    counts[500] = 499  # repeated
    counts[600] = 590  # late
    counts[700] = 700 + 50_000  # a flipped bit, ahead
    counts[800] = 800 - 60_000
    counts[900] = 907  # a little ahead: within what the fit cannot exclude
    timeline = Timeline(0.01)
    times, index = play(timeline, counts, arrivals)
    wrong = [500, 600, 700, 800]
    assert set(range(2000)) - set(index.tolist()) <= {*wrong, *range(900, 908)}
    assert not {*wrong} & set(index.tolist())
    assert timeline.dropped == 2000 - len(index)
    keep = np.abs(index - 900) > 20
    assert np.abs(times - index / 100)[keep].max() < 0.003
    assert np.all(np.diff(times) > 0)


def test_a_restarted_device_clock_is_believed_after_five_samples() -> None:
    """An Arduino that resets: millis() starts at 0 again, 1.5 s pass."""
    counts = np.r_[500_000 + 10 * np.arange(1000), 10 * np.arange(1000)]
    arrivals = np.r_[np.arange(1000) / 100, 11.5 + np.arange(1000) / 100] + 0.002
    timeline = Timeline(1e-3, period=0.01)
    times, index = play(timeline, counts, arrivals)
    assert len(times) == 2000
    assert np.abs(times - arrivals[index]).max() < 0.010
    assert np.all(np.diff(times) > 0)


def test_a_loss_that_the_sequence_number_hides_is_found_by_the_host_clock() -> None:
    """48 frames of a BITalino vanish at once: 4 bits cannot tell, the counter goes on as if nothing were lost."""
    random = np.random.default_rng(7)
    true = np.r_[0:20_000, 20_048:60_048]
    arrivals = true / 1000 + random.exponential(0.004, len(true)) * (true % 10 == 0)
    arrivals = np.maximum.accumulate(arrivals)
    timeline = Timeline(1e-3, cycle=16)
    out = [timeline.push(np.arange(i, i + 10), true[i : i + 10], arrivals[i + 9]) for i in range(0, len(true), 10)]
    times = np.concatenate([t for t, _ in out])
    which = np.concatenate([v for _, v in out])
    error = np.abs(times - which / 1000)
    assert timeline.slipped == 48
    assert error[which > 23_000].max() < 0.005
    assert error.max() < 0.055


@pytest.mark.parametrize("backlog", [True, False])
def test_a_hiccup_is_told_from_a_loss(backlog: bool) -> None:
    """Nothing for 1 s; then either everything that was waiting, or only what is new."""
    true = np.arange(20_000) if backlog else np.r_[0:10_000, 11_008:20_000]
    counts = np.arange(len(true))
    arrivals = true / 1000 + 0.002
    arrivals[(true >= 10_000) & (true < 11_000)] = 11.0
    timeline = Timeline(1e-3, cycle=16)
    out = [timeline.push(counts[i : i + 8], true[i : i + 8], arrivals[i + 7]) for i in range(0, len(true), 8)]
    times = np.concatenate([t for t, _ in out])
    which = np.concatenate([v for _, v in out])
    assert timeline.slipped == (0 if backlog else 1008)
    assert np.abs(times - which / 1000).max() < 0.010


def test_a_lasting_change_of_the_delay_is_followed() -> None:
    n = np.arange(6000)
    for change in (0.15, -0.15):
        arrivals = np.maximum.accumulate(n / 100 + 0.2 + change * (n >= 3000))
        timeline = Timeline(0.01)
        times, index = play(timeline, n, arrivals)
        settled = index > 3300
        assert np.abs(times - arrivals[index])[settled].max() < 0.02


def test_unknown_rate_is_measured() -> None:
    random = np.random.default_rng(8)
    n = np.arange(6000)
    arrivals = np.maximum.accumulate(n / 273.0 + random.exponential(0.003, 6000))
    timeline = Timeline(0.0, prior_ppm=1e5)
    times, _ = play(timeline, n, arrivals)
    assert len(times) == 6000
    assert np.abs(times - n / 273.0).max() < 0.010
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(273.0, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**40), 2**40), st.floats(0, 3)), max_size=60), st.sampled_from([0, 16]))
def test_any_counters_give_increasing_finite_times(rows: list[tuple[int, float]], cycle: int) -> None:
    timeline = Timeline(0.01, cycle=cycle, hold=0.5)
    now, stamped, last = 0.0, 0, -np.inf
    for count, wait in rows:
        now += wait
        for batch in (np.array([count, count + 1]), np.arange(int(now * 100), int(now * 100) + 3)):
            times, values = timeline.push(batch, batch.astype(float), now)
            assert len(times) == len(values)
            if len(times):
                assert np.all(np.isfinite(times))
                assert np.all(np.diff(times, prepend=last) > 0)
                last = times[-1]
                stamped += len(times)
    held = sum(len(c) for c, _ in timeline._held) + len(timeline._odd)
    assert stamped + timeline.dropped + held == 5 * len(rows)


def test_memory_is_bounded() -> None:
    fit = ClockFit()
    for i in range(20_000):
        fit.add(i * 2.0, i * 2.0 + 100)
    assert len(fit._bins) <= 128
    assert fit.span < 1100


@pytest.mark.parametrize("stamped", [True, False], ids=["t_ms,uS", "one number a line"])
@pytest.mark.parametrize(
    "name",
    ["P11_C_Hard_1675946420_83677", "P11_baseline_1675943915_070305", "P12_C_Hard_1675946416_297296",
     "P12_baseline_1675943910_462031"],
)  # fmt: skip
def test_true_rate_of_real_recordings(shared_data: Path, name: str, stamped: bool) -> None:
    """An Arduino meant for 250 Hz ran at 259 to 275 Hz: played at its own timestamps, recovered within 0.1 %."""
    signal = open_signal(str(shared_data / "eda" / "physiokit" / f"{name}.csv.gz"))
    assert signal.times is not None
    t = signal.times
    us = signal.at(t)
    board, decoder = CsvFirmware(), CsvDecoder()
    random = np.random.default_rng(9)
    timeline: Timeline | None = None
    edges = np.searchsorted(t, np.arange(0.0, t[-1] + 0.1, 0.05))
    times, values, newest = [], [], 0.0
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist()):
        raw = b"".join(board.sample(n, float(t[n]), float(us[n])) for n in range(first, last))
        if not stamped:
            raw = b"".join(line.split(b",")[-1] + b"\n" for line in raw.splitlines())
        newest = max(newest, float(t[last - 1]) + random.exponential(0.01))
        samples = decoder.feed(raw)
        if timeline is None and len(samples):
            timeline = Timeline(decoder.tick, prior_ppm=decoder.prior_ppm, repeats=True)
        if timeline is not None:
            x, v = timeline.push(samples.counts, samples.values, newest)
            times.append(x)
            values.append(v)
    got, heard = np.concatenate(times), np.concatenate(values)
    # one number a line: the first three lines may be cut or await a fourth, as may the last ones
    first = len(t[: edges[-1]]) - len(got)
    assert 0 <= first <= 1
    truth = t[first : first + len(got)]
    np.testing.assert_allclose(heard, us[first : first + len(got)], atol=6e-4)
    rate, true_rate = (len(x) / (x[-1] - x[0]) for x in (got, truth))
    assert rate == pytest.approx(true_rate, rel=1e-3)
    if stamped:
        assert np.abs(got - truth).max() < 0.010
