"""What the page sends of signals with any gaps and samples: JSON that a browser reads, and no value without samples."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from page_fixture import empty_bundle

from jmt_edge.capture.base import State, Status
from jmt_edge.controls import Controls
from jmt_edge.live.page.clients import encode
from jmt_edge.live.page.feed import Feed
from jmt_edge.live.page.metrics import prometheus
from jmt_edge.live.page.model import Model
from jmt_edge.media.chunk import Chunk
from jmt_edge.observer import RunInfo
from jmt_edge.tasks import get_task

RATES = {"eda": 64.0, "voice": 4410.0}


@pytest.fixture
def info(tmp_path: Path) -> RunInfo:
    task = get_task("trimodal", "demo")
    bundle = empty_bundle(task, tmp_path / "model.jmt")
    return RunInfo(bundle, "none", {}, 0.5, False, 0.0, dict.fromkeys(task.names, "test"))


def begun(info: RunInfo) -> tuple[Feed, Model]:
    feed = Feed()
    model = Model(feed, Controls())
    feed.on_start(info)
    feed.on_status({name: Status(State.STREAMING, unit="µS") for name in info.bundle.task.names})
    return feed, model


def sent(feed: Feed, model: Model, modality: str, begin: float, values: list[float]) -> dict[str, Any]:
    times = begin + np.arange(len(values)) / RATES[modality]
    feed.on_chunk(modality, Chunk(times, np.array(values, np.float32), RATES[modality]))
    model.update(0.0)
    state: dict[str, Any] = json.loads(encode(model.state(0.0)))
    return state


numbers = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([math.nan, math.inf, -math.inf, 3e38, -3e38, 0.0]))
pieces = st.tuples(st.sampled_from(["eda", "voice"]), st.sampled_from([0.0, 0.01, 0.3, 3.0, 100.0]),
                   st.lists(numbers, min_size=1, max_size=3), st.integers(1, 400))  # fmt: skip


@given(st.lists(pieces, min_size=1, max_size=8))
@example([("voice", 0.0, [0.1], 170)])  # a single point of the level
@example([("voice", 0.0, [0.1], 400), ("voice", 3.0, [0.1], 400)])  # a microphone that comes back
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_signal_can_be_sent(info: RunInfo, signal: list[tuple[str, float, list[float], int]]) -> None:
    feed, model = begun(info)
    ends = {"eda": 0.0, "voice": 0.0}
    for modality, gap, values, times in signal:
        begin = ends[modality] + gap
        samples = (values * times)[:400]
        state = sent(feed, model, modality, begin, samples)
        ends[modality] = begin + len(samples) / RATES[modality]
        for shown, value in (("eda", "value"), ("voice", "level")):
            number, reason = state[shown][value], state[shown]["reason"]
            assert (number is None) == bool(reason)
    json.dumps(model.trend_values(None, 0.0), allow_nan=False)
    assert not {"nan", "inf", "-inf"} & {
        line.split()[-1].lower() for line in prometheus(model, 0, 0).splitlines() if line
    }


def test_the_level_after_a_gap_is_not_of_before_it(info: RunInfo) -> None:
    feed, model = begun(info)
    loud, quiet = [0.5] * 441, [0.005] * 300
    assert sent(feed, model, "voice", 0.0, loud)["voice"]["level"] == -6.0
    assert sent(feed, model, "voice", 2.0, quiet)["voice"]["level"] == -46.0


def test_samples_that_are_no_numbers_have_no_level(info: RunInfo) -> None:
    feed, model = begun(info)
    assert sent(feed, model, "voice", 0.0, [0.5] * 2000)["voice"]["level"] == -6.0
    state = sent(feed, model, "voice", 2000 / RATES["voice"], [math.nan] * 2000)
    assert state["voice"]["level"] is None and "not numbers" in state["voice"]["reason"]
