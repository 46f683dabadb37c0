"""The filters against SciPy's, and that a live run does without SciPy."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from math import gcd
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import interpolate, signal

from jmt_edge.preprocessing.eda import _pchip
from jmt_edge.preprocessing.filters import Polyphase, hann, low_pass
from jmt_edge.preprocessing.resample import StreamResampler

RATES = [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000]


@pytest.mark.parametrize("n", [2, 100, 882, 1764])
def test_hann_is_scipys(n: int) -> None:
    assert np.array_equal(hann(n), signal.windows.hann(n, sym=False))


@pytest.mark.parametrize(("taps", "cutoff", "beta"), [(8821, 1 / 441, 5.0), (129, 0.9 / 4, 8.0), (3, 0.5, 0.0)])
def test_low_pass_is_scipys(taps: int, cutoff: float, beta: float) -> None:
    reference = signal.firwin(taps, cutoff, window=("kaiser", beta))
    np.testing.assert_allclose(low_pass(taps, cutoff, beta), reference, rtol=0, atol=1e-15)


def bank(up: int, down: int) -> np.ndarray:
    return (low_pass(20 * max(up, down) + 1, 1 / max(up, down), 5.0) * up).astype(np.float32)


@pytest.mark.parametrize("rate", [*RATES, 44099])
@pytest.mark.parametrize("to", [44100, 16000])
def test_polyphase_is_upfirdn_and_any_part_is_the_whole(rate: int, to: int) -> None:
    """Of standard rates by matrices, of odd ones output by output."""
    up, down = to // gcd(rate, to), rate // gcd(rate, to)
    rng = np.random.default_rng(rate)
    x = rng.normal(0, 0.2, 6000).astype(np.float32)
    whole = Polyphase(bank(up, down), up, down)
    assert (whole._matrix is None) == (rate == 44099)
    reference = signal.upfirdn(bank(up, down).astype(np.float64), x.astype(np.float64), up, down)
    found = whole(x, 0, len(reference))  # past the end: zeros follow
    np.testing.assert_allclose(found, reference, rtol=0, atol=2e-6)
    cuts = sorted({0, len(found), *rng.integers(0, len(found), 40).tolist()})
    assert np.array_equal(np.concatenate([whole(x, a, b) for a, b in pairwise(cuts)]), found)
    assert whole(x, 5, 5).shape == (0,)


def test_a_sample_that_is_not_a_number_reaches_as_far_as_the_filter() -> None:
    x = np.zeros(4410, np.float32)
    x[2000] = np.nan
    out = Polyphase(bank(160, 441), 160, 441)(x, 0, 1600)
    reference = signal.upfirdn(bank(160, 441), x, 160, 441)[:1600]
    assert np.array_equal(np.isnan(out), np.isnan(reference)) and 15 < np.isnan(out).sum() < 40


def test_the_stream_resampler_is_resample_poly() -> None:
    rng = np.random.default_rng(1)
    for rate in RATES:
        x = rng.normal(0, 0.2, rate // 2).astype(np.float32)
        stream = StreamResampler(rate)
        pieces = [stream(part) for part in np.split(x, np.sort(rng.integers(0, len(x), 9)))]
        out = np.concatenate([*pieces, stream.flush()])
        up, down = 44100 // gcd(rate, 44100), rate // gcd(rate, 44100)
        reference = x if up == down else signal.resample_poly(x.astype(np.float64), up, down)
        n = min(len(out), len(reference))
        assert n >= 22040
        np.testing.assert_allclose(out[:n], reference[:n], rtol=0, atol=2e-6)


values = st.floats(0.0625, 60).map(lambda x: round(x, 2))  # steps of a converter: equal neighbours happen


@given(st.lists(st.tuples(st.floats(1e-3, 1.0), values), min_size=2, max_size=60))
@settings(max_examples=300, deadline=None)
def test_pchip_is_scipys(samples: list[tuple[float, float]]) -> None:
    times = np.cumsum([step for step, _ in samples])
    times -= times[0]
    levels = np.array([value for _, value in samples])
    at = np.concatenate([np.linspace(0, times[-1], 200), times])
    found = _pchip(times, levels, at.clip(0, times[-1]))
    reference = interpolate.PchipInterpolator(times, levels)(at.clip(0, times[-1]))
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-9)
    assert found.min() >= levels.min() - 1e-9 and found.max() <= levels.max() + 1e-9


LIVE = """
import sys
sys.argv = ["jmt-edge", "live", "--duration", "5", "--speed", "max", "--output", "none", *sys.argv[1:]]
from jmt_edge.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(sorted(name for name in sys.modules if name.split(".")[0] in ("scipy", "torch", "pandas", "matplotlib")))
"""


@pytest.mark.parametrize(
    "arguments",
    [("--task", "pain", "--record", "r"), ("--task", "affect", "--camera", "sim:", "--microphone", "v.wav")],
    ids=["pain", "affect"],
)
def test_a_live_run_imports_no_scipy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """It would take half of the start's time, and 40 MB. A simulated voice alone needs it."""
    sound = np.random.default_rng(0).normal(0, 0.05, 6 * 48_000).astype(np.float32)
    soundfile.write(tmp_path / "v.wav", sound, 48_000)
    command = [sys.executable, "-c", LIVE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
