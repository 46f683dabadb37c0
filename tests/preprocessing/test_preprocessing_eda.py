"""EDA from any device to the 512 Hz grid: parity with scipy, irregular times, gaps, no data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from jmt_edge.preprocessing.eda import normalise_eda, resample_eda
from jmt_edge.tasks import get_task

M = get_task("pain").modality("eda")
END = 20.0
GRID = END - np.arange(2815, -1, -1) / 512


def skin(t: np.ndarray) -> np.ndarray:
    """A slow level with two responses, µS."""
    x = 5 + 0.2 * np.sin(0.3 * t)
    for onset in (13.5, 16.8):
        u = np.maximum(t - onset, 0)
        x = x + 0.8 * (np.exp(-u / 2.5) - np.exp(-u / 0.7))
    return x


def sampled(rate: float, until: float = END, start: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    n = int((until - start) * rate)
    times = until - np.arange(n, -1, -1) / rate
    return times, skin(times).astype(np.float32)


@pytest.mark.parametrize("rate", [4, 8, 20, 100, 250, 256, 275.3, 512, 700, 1000, 1024, 2000, 4000])
def test_every_rate_gives_the_signal(rate: float) -> None:
    times, values = sampled(rate)
    out, valid = resample_eda(times, values, END, M)
    assert out.shape == (1, 2816) and out.dtype == np.float32 and valid == 1.0
    # a response starts with a corner of 0.82 µS/s, which falls between two samples
    np.testing.assert_allclose(out[0], skin(GRID), atol=0.82 / 4 / rate + 1e-3)


def test_the_native_rate_passes_through() -> None:
    values = np.random.default_rng(0).normal(5, 1, 2816).astype(np.float32)
    out, valid = resample_eda(GRID, values, END, M)
    np.testing.assert_allclose(out[0], values, atol=1e-5)
    assert valid == 1.0


@pytest.mark.parametrize("factor", [2, 4])
def test_scipy_decimates_to_the_same(factor: int) -> None:
    rate = 512 * factor
    times, clean = sampled(rate)
    noisy = clean + np.random.default_rng(1).normal(0, 0.02, len(clean))  # white: fills the band above 256 Hz
    out, _ = resample_eda(times, noisy.astype(np.float32), END, M)
    # scipy's own filter, with its phase aligned so that the last output is the last input
    start = (len(noisy) - 1) % factor
    expected = signal.resample_poly(noisy[start:], 1, factor, padtype="line")[-2816:]
    inner = slice(100, -100)
    band = signal.butter(6, 100, fs=512, output="sos")  # both filters are flat here; their edges differ
    a, b = (signal.sosfiltfilt(band, x)[inner] for x in (out[0].astype(float), expected))
    np.testing.assert_allclose(a, b, atol=2e-3)


def test_what_lies_above_the_new_band_does_not_fold_back() -> None:
    for rate, tone in ((2000, 500.0), (1000, 450.0), (2000, 700.0)):
        times, _ = sampled(rate)
        out, _ = resample_eda(times, (5 + np.sin(2 * np.pi * tone * times)).astype(np.float32), END, M)
        assert np.abs(out[0][64:-64] - 5).max() < 0.03, (rate, tone)


def test_interpolation_never_overshoots_a_step() -> None:
    times = END - np.arange(60, -1, -1) / 8
    values = np.where(times < 17.0, 2.0, 3.0).astype(np.float32)
    out, _ = resample_eda(times, values, END, M)
    assert out.min() == 2.0 and out.max() == 3.0


def test_jittered_times_are_trusted() -> None:
    rng = np.random.default_rng(2)
    times = np.sort(END - np.arange(2600, -1, -1) / 260 + rng.uniform(-0.0015, 0.0015, 2601))
    times = times[times <= END]
    out, valid = resample_eda(times, skin(times).astype(np.float32), END, M)
    np.testing.assert_allclose(out[0], skin(GRID), atol=1e-3)
    assert valid == 1.0


def test_a_gap_counts_and_stays_finite() -> None:
    times, values = sampled(250)
    hole = (times > 16.0) & (times < 17.1)
    out, valid = resample_eda(times[~hole], values[~hole], END, M)
    assert np.isfinite(out).all()
    assert valid == pytest.approx(1 - 1.1 / 5.5, abs=0.003)
    values[hole] = np.nan
    same, also = resample_eda(times, values, END, M)
    np.testing.assert_array_equal(out, same)
    assert also == valid


@pytest.mark.parametrize(("rate", "lost"), [(4, 1), (20, 4), (250, 50), (1000, 200)])
def test_a_short_loss_is_bridged(rate: int, lost: int) -> None:
    times, values = sampled(rate)
    middle = len(times) - int(3 * rate)
    out, valid = resample_eda(np.delete(times, np.s_[middle : middle + lost]),
                              np.delete(values, np.s_[middle : middle + lost]), END, M)  # fmt: skip
    assert valid == 1.0
    np.testing.assert_allclose(out[0], skin(GRID), atol=0.05)


def test_a_silent_sensor_is_not_extended() -> None:
    times, values = sampled(250, until=END - 2.0)
    out, valid = resample_eda(times, values, END, M)
    assert np.isfinite(out).all()
    assert valid == pytest.approx((5.5 - 2.0 + 0.25) / 5.5, abs=0.003)
    late, valid = resample_eda(*sampled(250, until=END, start=END - 1.0), END, M)
    assert np.isfinite(late).all()
    assert valid == pytest.approx(1.25 / 5.5, abs=0.003)


def test_no_data_is_zero_valid() -> None:
    for times, values in (
        (np.empty(0), np.empty(0, np.float32)),
        (np.arange(10, 20, 0.01), np.full(1000, np.nan, np.float32)),
        (np.arange(0, 5, 0.01), np.ones(500, np.float32)),  # long ago
        (np.array([25.0]), np.ones(1, np.float32)),  # later than the end
    ):
        out, valid = resample_eda(times, values, END, M)
        assert valid == 0.0 and not out.any() and out.shape == (1, 2816)
    out, valid = resample_eda(np.array([END]), np.array([3.0], np.float32), END, M)
    assert (out == 3).all() and valid < 0.2


def test_one_hertz_is_too_slow() -> None:
    times, values = sampled(1)
    assert resample_eda(times, values, END, M)[1] < 0.05


def test_samples_after_the_end_change_nothing() -> None:
    times, values = sampled(1000, until=25.0)
    a = resample_eda(times, values, END, M)
    keep = times <= END
    b = resample_eda(times[keep], values[keep], END, M)
    np.testing.assert_array_equal(a[0], b[0])


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_input_gives_finite_output_within_range(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 60))
    times = np.array(data.draw(st.lists(st.floats(0, 30), min_size=n, max_size=n)))
    values = np.array(data.draw(st.lists(st.one_of(st.just(np.nan), st.floats(0, 60)), min_size=n, max_size=n)))
    out, valid = resample_eda(times, values.astype(np.float32), END, M)
    assert np.isfinite(out).all() and 0 <= valid <= 1


def test_days_of_uptime_lose_no_resolution() -> None:
    shift = 5 * 86_400.0
    times, values = sampled(1000)
    a, _ = resample_eda(times, values, END, M)
    b, _ = resample_eda(times + shift, values, END + shift, M)
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_normalisation_is_the_modalitys() -> None:
    x = np.array([[1.0, 3.0]], np.float32)
    np.testing.assert_array_equal(normalise_eda(x, M), x)
    np.testing.assert_array_equal(normalise_eda(x, replace(M, mean=(2.0,), std=(0.5,))), [[-2.0, 2.0]])


def test_a_real_board_keeps_its_level(shared_data: Path) -> None:
    adc = np.loadtxt(shared_data / "eda" / "bitalino_eda_hot_surface.txt", usecols=5)
    values = (adc / 1024 * 3.3 / 0.132).astype(np.float32)
    times = np.arange(len(values)) / 1000
    out, valid = resample_eda(times, values, 20.0, M)
    assert valid == 1.0
    near = np.interp(np.linspace(14.6, 19.9, 50), times, signal.savgol_filter(values, 51, 2))
    ours = np.interp(np.linspace(14.6, 19.9, 50), GRID, signal.savgol_filter(out[0], 27, 2))
    np.testing.assert_allclose(ours, near, atol=0.03)
