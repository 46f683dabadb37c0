"""The person's own baseline: what a rest gives, when it is refused, and that the numbers do not depend on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fixture import FakeEngine, ListSource, hand_bundle

from jmt_edge.capture.base import State, Status
from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import ConfigError
from jmt_edge.live import Controls, Options, Pipeline, Result, run
from jmt_edge.live.rest import Rest, in_words
from jmt_edge.media.chunk import Chunk
from jmt_edge.observer import Observer
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.recording.replay import replay
from jmt_edge.result import Quality
from jmt_edge.tasks import get_task

GOOD = Quality(True, "", 0.9)
TIMES = np.arange(0, 80, 1 / 16)
STEP = 50.0  # s, when the level rises
LEVEL = (5 + 0.05 * np.sin(TIMES) + 1.5 * np.clip((TIMES - STEP) / 3, 0, 1)).astype(np.float32)

BASELINE = {"baseline": {"mode": "rest", "seconds": 40.0, "modalities": ["eda"]}}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return hand_bundle(get_task("pain"), tmp_path_factory.mktemp("rest") / "hand.jmt")


def play(
    bundle: Bundle, rest_at: dict[int, float | None], values: np.ndarray = LEVEL, windows: int = 156, unit: str = "µS"
) -> list[Result]:
    """rest_at: window -> s of the rest that is begun before it; None: the rest is forgotten."""
    pipeline = Pipeline(bundle, FakeEngine(bundle.task), 0.5, ["eda"])
    results, at = [], -1.0
    for i in range(1, windows + 1):
        if i in rest_at:
            seconds = rest_at[i]
            pipeline.forget_rest() if seconds is None else pipeline.begin_rest(seconds)
        keep = (at < TIMES) & (i * 0.5 >= TIMES)
        pipeline.push("eda", Chunk(TIMES[keep], values[keep], 16.0))
        at = i * 0.5
        results.append(replace(pipeline.infer(i, {"eda": Status(State.STREAMING, unit=unit)}), latency_ms={}))
    return results


def test_a_rest_gives_the_level_and_what_follows_the_difference(bundle: Bundle) -> None:
    results = play(bundle, {1: 40.0})
    lasting = [r.rest for r in results if r.t < 40]
    assert [rest["left"] for rest in lasting if rest] == [pytest.approx(40 - r.t) for r in results if r.t < 40]
    assert in_words(lasting[0]) == "rest: 0:40 left" and in_words({"left": 79.6}) == "rest: 1:20 left"
    at_rest = next(r.rest for r in results if r.t == 45)
    risen = next(r.rest for r in results if r.t == 65)
    assert at_rest is not None and risen is not None
    assert at_rest["baseline"]["eda"]["uS"] == pytest.approx(5.0, abs=0.02)
    assert abs(at_rest["difference"]["eda"]["uS"]) < 0.05
    assert risen["difference"]["eda"]["uS"] == pytest.approx(1.5, abs=0.06)
    spread = at_rest["baseline"]["eda"]["spread"]
    assert 0 < spread < 0.06
    assert risen["difference"]["eda"]["spreads"] == pytest.approx(risen["difference"]["eda"]["uS"] / spread)
    assert in_words(risen).startswith("from rest: EDA +1.")


def test_readings_not_in_microsiemens_have_no_rest(bundle: Bundle) -> None:
    last = play(bundle, {1: 40.0}, unit="a.u.")[-1].rest
    assert last is not None and not last["baseline"] and "uncalibrated" in last["refused"]["eda"]


def test_the_numbers_are_bit_equal_with_and_without_a_rest(bundle: Bundle) -> None:
    with_rest, plain = play(bundle, {20: 30.0}), play(bundle, {})
    assert all(r.rest is None for r in plain) and [r.rest is not None for r in with_rest] == [r.t >= 10 for r in plain]
    assert [replace(r, rest=None) for r in with_rest] == plain
    assert any(r.outputs for r in plain)


def test_a_rest_without_a_usable_signal_is_refused_with_the_reason(bundle: Bundle) -> None:
    open_electrode = np.where(TIMES < 25, np.nan, LEVEL).astype(np.float32)
    rest = play(bundle, {1: 40.0}, open_electrode)[-1].rest
    assert rest is not None and rest["difference"] == {} and rest["baseline"] == {}
    assert rest["refused"]["eda"] == "usable in 19% of the rest: no valid EDA value for 5.5 s or more"
    assert in_words(rest).startswith("rest refused: EDA usable in ")


def test_a_rest_that_is_forgotten_leaves_no_trace(bundle: Bundle) -> None:
    """After it, while it lasts, and where there was none; another one may follow."""
    plain = play(bundle, {})
    for rest_at in ({1: 40.0, 100: None}, {1: 40.0, 20: None}, {100: None}):
        found = play(bundle, rest_at)
        at = next(window for window, seconds in rest_at.items() if seconds is None)
        assert found[at - 1 :] == plain[at - 1 :]
    again = play(bundle, {1: 40.0, 20: None, 60: 30.0})
    assert again == play(bundle, {1: 40.0, 20: None, 60: 30.0}) and again[-1].rest == play(bundle, {60: 30.0})[-1].rest


def test_the_run_forgets_a_rest_on_request(bundle: Bundle) -> None:
    controls, seen = Controls(), []

    class Watch(Observer):
        def on_rest(self, seconds: float) -> None:
            seen.append(seconds)

        def on_result(self, result: Result) -> None:
            seen.append(result.rest is not None)
            if result.t == 3.0:
                controls.begin_session("P08", record=False, rest=True)
            if result.t == 5.0:
                controls.begin_session("P09", record=False, rest=False)

    source = ListSource("eda", TIMES, LEVEL, 16.0)
    run(bundle, FakeEngine(bundle.task), {"eda": source}, Options(0.5, False, 8.0, rest=30.0), [Watch()], controls)
    assert seen == [30.0, *[True] * 10, *[False] * 6]


def test_another_rest_replaces_the_first(bundle: Bundle) -> None:
    results = play(bundle, {1: 30.0, 112: 20.0 + 10.0}, windows=156)
    before, during = results[110].rest, results[111].rest
    assert before is not None and "difference" in before and during is not None and "left" in during


def test_a_face_is_compared_with_the_same_person_only() -> None:
    rest = Rest(30.0)
    rng = np.random.default_rng(0)
    rest.begin(0.0)
    for i in range(1, 61):
        rest.add(i * 0.5, "face", replace(GOOD, track=1), rng.normal(0, 1, 8))
    rest.add(31.0, "face", replace(GOOD, track=1), np.full(8, 3.0))
    state = rest.state(31.0)
    assert state["difference"]["face"]["spreads"] == pytest.approx(3.0, rel=0.2)  # 3 SD in each of 8 dimensions
    assert set(state["baseline"]["face"]) == {"spread"}  # the face itself is written nowhere
    rest.add(31.5, "face", replace(GOOD, track=1), np.full(8, np.nan))
    assert rest.state(31.5)["difference"]["face"] is None  # JSON has no NaN
    rest.add(31.5, "face", replace(GOOD, track=2), np.full(8, 3.0))
    assert rest.state(31.5)["difference"]["face"] is None
    two = Rest(30.0)
    two.begin(0.0)
    for i in range(1, 61):
        two.add(i * 0.5, "face", replace(GOOD, track=1 + i // 31), rng.normal(0, 1, 8))
    assert two.state(30.0)["refused"] == {"face": "more than one person was followed"}


@pytest.mark.parametrize("seconds", [-1.0, 5.0, 601.0, float("nan")])
def test_a_rest_of_no_use_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="choose 30 to 600 s"):
        Controls().rest(seconds)
    with pytest.raises(ConfigError, match="choose 30 to 600 s"):
        Options(rest=seconds).check({"eda": ListSource("eda", TIMES, LEVEL, 16.0)})


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("by", ["option", "request"])
def test_a_recorded_rest_replays_bit_equal(bundle: Bundle, tmp_path: Path, by: str, own: bool) -> None:
    if own:  # the numbers themselves depend on the rest
        bundle = hand_bundle(bundle.task, tmp_path / "own.jmt", extra=BASELINE)
    recorder, controls = Recorder(tmp_path / "run", bundle, raw=("eda",)), Controls()
    if by == "request":
        controls.rest(30.0)
    sources: Any = {"eda": ListSource("eda", TIMES, LEVEL, 16.0, "µS")}
    options = Options(0.5, False, 60.0, rest=30.0 if by == "option" else 0.0)
    run(bundle, FakeEngine(bundle.task), sources, options, [recorder], controls)
    recording = Recording(tmp_path / "run")
    rests = [r.get("rest") for r in recording.results()]
    assert rests[-1]["difference"]["eda"]["uS"] > 1
    assert rests[-1].get("calibrated") == (["eda"] if own else None)
    outcome = replay(recording, bundle, FakeEngine(bundle.task), Pipeline)
    assert outcome.equal == outcome.recomputed == len(rests), outcome.line()


def test_weights_with_baselines_take_the_rest_once_it_is_over(tmp_path: Path) -> None:
    task = get_task("pain")
    own = hand_bundle(task, tmp_path / "own.jmt", extra=BASELINE)
    plain, rested = play(own, {}), play(own, {1: 40.0})
    for a, b in zip(plain, rested):  # a clip's feature is its mean, and pain a function of it
        if a.t <= 40 or a.outputs is None or b.outputs is None:
            assert a.outputs == b.outputs
        assert a.rest == {"calibrated": []} and in_words(a.rest) == "uncalibrated: no rest"
        assert b.rest is not None and b.rest["calibrated"] == (["eda"] if b.t > 40 and b.quality["eda"].ok else [])
    at_rest = next(r for r in rested if r.t == 45)
    assert at_rest.outputs is not None and in_words(at_rest.rest).startswith("calibrated: EDA; from rest: ")
    assert np.log(at_rest.outputs["pain"] / (1 - at_rest.outputs["pain"])) == pytest.approx(5.0, abs=0.3)
    lifted = play(own, {1: 40.0}, values=LEVEL + np.float32(2))  # another person's level, the same responses
    assert [r.outputs for r in lifted if r.t <= 40] != [r.outputs for r in rested if r.t <= 40]
    for a, b in zip(rested, lifted):
        if a.t > 40 and a.outputs and b.outputs:
            assert a.outputs["pain"] == pytest.approx(b.outputs["pain"], abs=1e-3)
