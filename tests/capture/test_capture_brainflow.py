"""BrainFlow's synthetic board as an EDA source."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from jmt_edge.capture import open_source
from jmt_edge.capture.base import State
from jmt_edge.capture.brainflow import BrainFlowEda
from jmt_edge.capture.queue import SampleQueue
from jmt_edge.errors import SourceError


def test_the_synthetic_board_streams_in_real_time() -> None:
    pytest.importorskip("brainflow")
    source = open_source("eda", "brainflow:synthetic?unit=uS")
    assert isinstance(source, BrainFlowEda) and source.realtime
    origin = time.monotonic()
    source.open(origin)
    times, values = np.empty(0), np.empty(0)
    end = time.monotonic() + 30
    while len(times) < 500 and time.monotonic() < end:
        chunk = source.read(1e9)
        times, values = np.concatenate([times, chunk.times]), np.concatenate([values, chunk.values])
        time.sleep(0.05)
    status = source.status()
    source.close()
    assert len(times) >= 500 and status.state is State.STREAMING and status.unit == "µS"
    assert np.all(np.diff(times) > 0) and np.isfinite(values).all()
    assert times[0] >= 0 and times[-1] <= time.monotonic() - origin
    assert (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(250, rel=0.2)
    assert source.status().state is State.ENDED


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("brainflow:synthetic", "unit of its EDA"),
        ("brainflow:?unit=uS", "needs a board"),
        ("brainflow:toaster?unit=uS", "no board 'toaster'; those with EDA are emotibit, galea, shimmer3, synthetic"),
        ("brainflow:cyton?unit=uS", "has no EDA channel"),
        ("brainflow:synthetic?unit=uS&channel=2", "1 EDA channels"),
        ("brainflow:shimmer3?unit=uS&serial_port=/dev/nowhere", "does not open"),
        ("brainflow:synthetic?unit=uS&ip_port=x", "ip_port is 'x'"),
    ],
)
def test_each_fault_is_one_sentence(spec: str, says: str) -> None:
    pytest.importorskip("brainflow")

    def opened() -> None:
        source = open_source("eda", spec)
        assert source is not None
        source.open(time.monotonic())

    with pytest.raises(SourceError) as caught:
        opened()
    assert says in str(caught.value) and ";" in str(caught.value) and "\n" not in str(caught.value)


def test_without_brainflow_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brainflow", None)
    source = open_source("eda", "brainflow:synthetic?unit=uS")
    assert source is not None
    with pytest.raises(SourceError, match=r"jmt-edge\[brainflow\]"):
        source.open(0.0)


def test_stamps_that_do_not_advance_and_gaps_are_counted() -> None:
    queue = SampleQueue()
    for times in ([0.0, 0.1, 0.2], [0.15, 0.2, 0.3], [0.6, 0.7], [0.5]):
        queue.put_advancing(np.array(times), np.array(times, np.float32), 0.1, 100)
    times, values, lost = queue.take(1e9)
    np.testing.assert_allclose(times, [0.0, 0.1, 0.2, 0.3, 0.6, 0.7])
    np.testing.assert_allclose(values, times, rtol=1e-6)
    assert lost == queue.lost == 2 + 2 + 1  # two that step back, two missing, one late
