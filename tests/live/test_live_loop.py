"""The loop with sources that behave badly, engines that are slow, and people who interfere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from live_fixture import FakeEngine, ListSource

from jmt_edge.capture.base import State, Status
from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import ConfigError, SourceError
from jmt_edge.live import Controls, Observer, Options, Pipeline, Result, run
from jmt_edge.live.loop import MAX_PENDING
from jmt_edge.media.chunk import Chunk, empty_chunk
from jmt_edge.summary import Percentiles

Bundles = Callable[[str], Bundle]


class Log(Observer):
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.results: list[Result] = []
        self.lag: list[float] = []
        self.began = 0.0

    def on_start(self, info: Any) -> None:
        self.began = time.monotonic()
        self.calls.append(("start", info))

    def on_chunk(self, modality: str, chunk: Chunk) -> None:
        self.calls.append(("chunk", (modality, chunk)))

    def on_mark(self, mark: Any) -> None:
        self.calls.append(("mark", mark))

    def on_status(self, statuses: Mapping[str, Status]) -> None:
        self.calls.append(("status", dict(statuses)))

    def on_result(self, result: Result) -> None:
        self.results.append(result)
        self.lag.append(time.monotonic() - self.began - result.t)
        self.calls.append(("result", result))

    def on_end(self, summary: Any) -> None:
        self.calls.append(("end", summary))


def eda_source(seconds: float = 12.0, rate: float = 64.0) -> ListSource:
    times = np.arange(0, seconds + 1e-9, 1 / rate)
    return ListSource("eda", times, (5 + 0.1 * np.sin(times)).astype(np.float32), rate)


def test_one_result_a_hop_until_the_sources_end(bundles: Bundles) -> None:
    bundle, log, source = bundles("pain"), Log(), eda_source(12.0)
    engine = FakeEngine(bundle.task)
    summary = run(bundle, engine, {"eda": source}, Options(0.5, realtime=False), [log])
    assert [r.t for r in log.results] == [0.5 * i for i in range(1, 25)]
    assert summary.results == 24 and summary.with_outputs == 14 and summary.dropped == 0
    assert summary.first_output == 5.5 and summary.stream == 12.0
    assert engine.closed and source.opened == source.closed == 1
    kinds = [kind for kind, _ in log.calls]
    assert kinds[0] == "start" and kinds[-1] == "end" and kinds.count("status") == 24
    for i, kind in enumerate(kinds):
        assert kind != "result" or kinds[i - 1] == "status"


def test_the_recorded_order_of_calls_gives_the_same_results(bundles: Bundles) -> None:
    bundle, log = bundles("pain"), Log()
    run(bundle, FakeEngine(bundle.task), {"eda": eda_source()}, Options(0.3, realtime=False, smooth=1.0), [log])
    pipeline, again = Pipeline(bundle, FakeEngine(bundle.task), 0.3, ["eda"], smooth=1.0), []
    statuses: dict[str, Status] = {}
    for kind, what in log.calls:
        if kind == "chunk":
            pipeline.push(*what)
        elif kind == "status":
            statuses = what
        elif kind == "result":
            again.append(pipeline.infer(what.index, statuses, dropped=what.dropped))
    strip = [{k: v for k, v in r.to_dict().items() if k != "latency_ms"} for r in (*log.results, *again)]
    assert strip[: len(log.results)] == strip[len(log.results) :]


def test_duration_ends_an_endless_run(bundles: Bundles) -> None:
    bundle, log = bundles("pain"), Log()
    run(bundle, FakeEngine(bundle.task), {"eda": eda_source(60)}, Options(1.0, False, duration=7.0), [log])
    assert [r.t for r in log.results] == [1, 2, 3, 4, 5, 6, 7]


def test_a_recording_shorter_than_a_hop_gives_no_result_and_ends(bundles: Bundles) -> None:
    summary = run(bundles("pain"), FakeEngine(bundles("pain").task), {"eda": eda_source(0.2)}, Options(1.0, False))
    assert summary.results == 0 and "0 results" in summary.lines()[0]


def test_a_slow_engine_drops_the_oldest_windows_and_counts_them(bundles: Bundles) -> None:
    bundle, log = bundles("pain"), Log()
    hop = 0.1
    # the EDA must have a history of a window: the stream starts in the past
    times = np.arange(-6, 4, 1 / 64)
    source = ListSource("eda", times, np.full(len(times), 5, np.float32), 64.0)
    engine = FakeEngine(bundle.task, delay=lambda: time.sleep(0.25))
    summary = run(bundle, engine, {"eda": source}, Options(hop, True, duration=2.5), [log])
    indices = [r.index for r in log.results]
    assert indices == sorted(set(indices)) and summary.dropped > 5
    assert log.results[-1].dropped == indices[-1] - indices[0] + 1 - len(indices)
    # never queues without bound: a result is late by the waiting windows and its own computing at most
    slack = 1.0  # s of a busy machine
    assert max(log.lag) < MAX_PENDING * hop + 0.25 + slack
    late = [r.latency_ms["total"] for r in log.results]
    assert min(ms for ms in late if ms is not None) >= 250


def test_in_real_time_results_come_at_their_time_and_not_before(bundles: Bundles) -> None:
    bundle, log = bundles("pain"), Log()
    run(bundle, FakeEngine(bundle.task), {"eda": eda_source()}, Options(0.2, True, duration=1.2), [log])
    assert len(log.results) + log.results[-1].dropped == 6
    assert min(log.lag) > -0.05
    chunks = [w for k, w in log.calls if k == "chunk"]
    assert len(chunks) > len(log.results), "samples are collected between two windows too"


class Deaf(ListSource):
    """A device that never delivers."""

    def __init__(self) -> None:
        super().__init__("eda", np.empty(0), np.empty(0, np.float32))
        self.realtime = True
        self.state = State.CONNECTING

    def read(self, until: float) -> Chunk:
        return empty_chunk("eda")

    def status(self) -> Status:
        return Status(self.state, "nothing answers on the port")


def test_a_dead_source_never_hangs_the_loop(bundles: Bundles) -> None:
    bundle, log = bundles("pain"), Log()
    summary = run(bundle, FakeEngine(bundle.task), {"eda": Deaf()}, Options(0.1, True, duration=0.5), [log])
    assert summary.results + summary.dropped == 5 and summary.with_outputs == 0
    assert "sensor connecting: nothing answers on the port" in log.results[-1].reason


class Late(ListSource):
    """A device whose samples arrive 30 ms after they were taken."""

    realtime = True

    def open(self, origin: float) -> None:
        self._origin = origin

    def read(self, until: float) -> Chunk:
        return super().read(min(until, time.monotonic() - self._origin - 0.03))


def test_a_window_waits_a_moment_for_samples_on_their_way(bundles: Bundles) -> None:
    bundle, log = bundles("pain"), Log()
    times = np.arange(0, 20, 1 / 100)
    source = Late("eda", times, np.full(len(times), 5, np.float32), 100.0)
    run(bundle, FakeEngine(bundle.task), {"eda": source}, Options(0.25, True, duration=1.0), [log])
    newest, gaps = -1.0, []
    for kind, what in log.calls:
        if kind == "chunk":
            newest = float(what[1].times[-1])
        elif kind == "result":
            gaps.append(what.t - newest)
    assert np.median(gaps) < 0.0201 and min(gaps) > -1e-6, "complete up to the last sample, and none of the next window"


def test_stop_marks_and_calls_from_another_thread(bundles: Bundles) -> None:
    bundle, log, controls = bundles("pain"), Log(), Controls()
    done: list[str] = []

    def person() -> None:
        time.sleep(0.3)
        controls.mark("cuff", rating=4)
        controls.rate(7)
        controls.call(lambda: done.append(threading.current_thread().name))
        time.sleep(0.2)
        controls.stop()

    thread = threading.Thread(target=person)
    thread.start()
    run(bundle, FakeEngine(bundle.task), {"eda": eda_source(600)}, Options(0.1, True), [log], controls)
    thread.join()
    marks = [w for k, w in log.calls if k == "mark"]
    assert [(m.text, m.rating) for m in marks] == [("cuff", 4), ("", 7)]
    assert 0.1 < marks[0].t < 5 and done == [threading.main_thread().name]
    assert log.calls[-1][0] == "end"
    with pytest.raises(ConfigError, match="0 to 10"):
        controls.rate(11)
    with pytest.raises(ConfigError, match="--record"):
        controls.start_recording()


def test_recording_is_switched_in_the_loops_thread(bundles: Bundles) -> None:
    class Switch:
        active = False
        threads: list[str] = []  # noqa: RUF012

        def start(self) -> None:
            self.active = True
            self.threads.append(threading.current_thread().name)

        def stop(self) -> None:
            self.active = False

        def begin_session(self, subject: str, *, record: bool) -> None:
            self.stop()
            self.sessions.append((subject, threading.current_thread().name))
            if record:
                self.start()

        def alarm(self, key: str, line: object, *, lasts: bool) -> None: ...

        state = "off"
        sessions: list[tuple[str, str]] = []  # noqa: RUF012

    controls, switch = Controls(), Switch()
    controls.recording = switch
    assert not controls.is_recording
    controls.start_recording()
    assert not controls.is_recording, "not before the loop serves it"
    run(bundles("pain"), FakeEngine(bundles("pain").task), {"eda": eda_source(2)}, Options(1.0, False), [], controls)
    assert controls.is_recording and switch.threads == [threading.main_thread().name]
    log = Log()
    controls.begin_session("P07", record=True, rest=True)
    assert switch.sessions == [], "not before the loop serves it"
    run(bundles("pain"), FakeEngine(bundles("pain").task), {"eda": eda_source(2)}, Options(1.0, False), [log], controls)
    assert controls.is_recording and switch.sessions == [("P07", threading.main_thread().name)]
    assert [mark.text for kind, mark in log.calls if kind == "mark"] == ["session begins"]
    controls.begin_session("", record=False, rest=True)
    run(bundles("pain"), FakeEngine(bundles("pain").task), {"eda": eda_source(2)}, Options(1.0, False), [], controls)
    assert not controls.is_recording and len(switch.sessions) == 2


def test_everything_is_closed_when_a_source_does_not_open(bundles: Bundles) -> None:
    class Absent(ListSource):
        def open(self, origin: float) -> None:
            raise SourceError("no such port")

    engine, good = FakeEngine(bundles("pain").task), eda_source()
    bad = Absent("face", np.empty(0), [])
    with pytest.raises(SourceError, match="no such port"):
        run(bundles("pain"), engine, {"eda": good, "face": bad}, Options())
    assert engine.closed and good.closed == bad.closed == 1


def test_observers_hear_the_end_when_a_source_fails_in_the_middle(bundles: Bundles) -> None:
    class Breaks(ListSource):
        def read(self, until: float) -> Chunk:
            if until > 3:
                raise SourceError("the disk went away")
            return super().read(until)

    log, whole = Log(), eda_source()
    source = Breaks("eda", whole._times, whole._values)
    with pytest.raises(SourceError):
        run(bundles("pain"), FakeEngine(bundles("pain").task), {"eda": source}, Options(0.5, False), [log])
    assert log.calls[-1][0] == "end" and len(log.results) >= 5 and source.closed == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (Options(hop=0.0), "hop"),
        (Options(hop=float("nan")), "hop"),
        (Options(hop=600), "hop"),
        (Options(duration=0), "duration"),
        (Options(smooth=-1), "smoothing"),
    ],
)
def test_options_out_of_range_are_one_sentence(bundles: Bundles, options: Options, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        run(bundles("pain"), FakeEngine(bundles("pain").task), {"eda": eda_source()}, options)


def test_max_speed_needs_sources_that_can_be_read_at_any_speed(bundles: Bundles) -> None:
    with pytest.raises(ConfigError, match="--speed 1"):
        run(bundles("pain"), FakeEngine(bundles("pain").task), {"eda": Deaf()}, Options(realtime=False))
    with pytest.raises(ConfigError, match="none"):
        run(bundles("pain"), FakeEngine(bundles("pain").task), {}, Options())


def test_percentiles_agree_with_numpy_within_one_percent() -> None:
    values = np.random.default_rng(0).lognormal(1, 2, 5000)
    percentiles = Percentiles()
    assert percentiles(50) is None
    for value in values:
        percentiles.add(float(value))
    for p in (1, 50, 95, 99):
        assert percentiles(p) == pytest.approx(np.percentile(values, p, method="inverted_cdf"), rel=0.011)
    percentiles.add(0.0)
    percentiles.add(1e12)
    assert percentiles(100) is not None


def test_a_mark_that_utf8_cannot_hold_is_kept_readable() -> None:
    """Half of a surrogate pair, as a browser may send it, used to end the whole recording."""
    controls = Controls()
    controls.mark("cuff \ud800 inflated")
    ((_, text, _, _),) = controls.take_marks()
    assert text == "cuff ? inflated"
