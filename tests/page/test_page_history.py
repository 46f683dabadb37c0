"""The trend: bins against NumPy on the same results, gaps, bounded memory, and a session that is continued."""
# ruff: noqa: E501

from __future__ import annotations

import itertools
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bedside import Bedside
from hypothesis import given, settings
from hypothesis import strategies as st
from page_fixture import Http, empty_bundle
from page_fixture import recorded as record

from jmt_edge.capture.base import State, Status
from jmt_edge.engine.bundle import Bundle
from jmt_edge.live import Controls, Mark, Quality, Result, RunInfo
from jmt_edge.live.page import server, start_page
from jmt_edge.live.page.history import LEVELS, History, Recorded, recorded
from jmt_edge.live.page.recordings import Recordings
from jmt_edge.recording.course import Thinned
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.summary import Summary
from jmt_edge.tasks import get_task

HOUR = 3600.0


def filled(seconds: float, hop: float = 0.5, start: float = 1.7e9) -> tuple[History, np.ndarray, np.ndarray]:
    t = start + np.arange(0, seconds, hop)
    p = np.random.default_rng(0).random(len(t))
    history = History(["pain"])
    for at, value in zip(t, p, strict=True):
        history.add(at, {"pain": value})
    return history, t, p


@pytest.mark.parametrize(("seconds", "width"), [(300, 4), (HOUR, 4), (8 * HOUR, 30), (40 * HOUR, 120), (None, 30)])
def test_bins_hold_the_lowest_mean_and_highest_value(seconds: float | None, width: float) -> None:
    history, t, p = filled(3 * HOUR)
    shown = history.values(seconds, t[-1])
    assert shown["bin"] == width
    assert len(shown["rows"]) <= 1500
    inside = 0
    for start, low, mean, high in shown["rows"]:
        one = p[(t >= start) & (t < start + width)]
        inside += len(one)
        assert (low, mean, high) == pytest.approx((one.min(), one.mean(), one.max()), abs=6e-5)
    assert inside >= np.sum(t > t[-1] - (seconds or 3 * HOUR))
    assert shown["gaps"] == []


def test_a_peak_of_one_result_is_seen_in_eight_hours() -> None:
    history = History(["pain"])
    for i in range(8 * 7200):
        history.add(i / 2, {"pain": 0.97 if i == 20_001 else 0.1})
    assert max(row[3] for row in history.values(8 * HOUR, 8 * HOUR)["rows"]) == 0.97


@given(st.lists(st.tuples(st.floats(0.1, 400), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_what_has_no_bin_is_a_gap_and_nothing_else(steps: list[tuple[float, bool]]) -> None:
    history, at = History(["pain"]), 0.0
    for step, known in steps:
        at += step
        history.add(at, {"pain": 0.5} if known else None)
    shown = history.values(None, at)
    width, begin = shown["bin"], history.begin
    covered = [(row[0], row[0] + width) for row in shown["rows"]]
    pieces = sorted([*covered, *map(tuple, shown["gaps"])])
    for (_, end), (start, _) in itertools.pairwise(pieces):
        assert abs(end - start) <= width / 2 + 1e-2, "every moment is in a bin or in a gap"
    for start, end in shown["gaps"]:
        assert begin is not None and start >= begin - 1e-2 and end <= at + 1e-2
        assert not any(a < end - 1e-2 and start + 1e-2 < b for a, b in covered)


def test_a_result_from_before_is_left_out() -> None:
    history, t, _ = filled(60)
    history.add(t[0] - 5, {"pain": 1.0})
    assert max(row[3] for row in history.values(None, t[-1])["rows"]) < 1.0


def test_memory_is_bounded() -> None:
    history = History(["pain", "valence", "arousal"])
    values = {"pain": 0.1, "valence": 0.2, "arousal": 0.3}

    def play(begin: float, hours: float) -> int:
        for i in range(int(hours * 1800)):
            history.add(begin + 2.0 * i, values)
            if not i % 10:
                history.rate(begin + 2.0 * i, 3)
        return sum(
            sys.getsizeof(one) + sum(map(sys.getsizeof, (one.low, one.total, one.high)))
            for level in history._levels for one in level
        )  # fmt: skip

    full = play(0.0, 60)
    assert play(60 * HOUR, 60) == pytest.approx(full, rel=0.01)
    assert full < 3e6
    assert all(len(level) == round(kept / width) for level, (width, kept) in zip(history._levels, LEVELS, strict=True))
    assert len(history.ratings) == 1000


def test_what_was_recorded_comes_before_what_is_new(tmp_path: Path) -> None:
    _, folder = record(tmp_path, marks={})
    manifest = Recording(folder).manifest
    assert manifest["origin"] is None, "a recording by hand has no clock"
    assert recorded(folder, manifest["outputs"]).history.begin is None
    older = History(["pain"])
    for t in range(0, 600):
        older.add(1000.0 + t, {"pain": 0.9})
    older.rate(1100.0, 8)
    new = History(["pain"])
    for t in range(0, 60):
        new.add(1500.0 + t, {"pain": 0.1})  # the parts overlap by 100 s
    new.rate(1510.0, 2)
    new.prepend(older)
    shown = new.values(HOUR, 1559.0)
    times = [row[0] for row in shown["rows"]]
    assert times == sorted(set(times)) and times[0] == 1000.0
    assert {row[2] for row in shown["rows"] if row[0] + 4 <= 1500} == {0.9}
    assert {row[2] for row in shown["rows"] if row[0] >= 1500} == {0.1}
    assert shown["ratings"] == [[1100.0, 8], [1510.0, 2]] and shown["gaps"] == []


def test_a_clock_that_was_ahead_before_a_restart_does_not_end_the_trend() -> None:
    """A board without a clock of its own: before the restart it was an hour ahead."""
    older, new = History(["pain"]), History(["pain"])
    for t in range(600):
        older.add(10_000.0 + 3600 + t, {"pain": 0.9})
    with pytest.raises(ValueError, match="no result yet"):
        new.prepend(older)
    new.add(10_000.0, {"pain": 0.1})
    new.prepend(older)
    for t in range(1, 60):
        new.add(10_000.0 + t, {"pain": 0.1})
    rows = new.values(HOUR, 10_059.0)["rows"]
    assert len(rows) == 15 and {row[2] for row in rows} == {0.1}


def test_prepending_to_a_full_history_keeps_the_newest() -> None:
    older, new = History(["pain"]), History(["pain"])
    width, kept = LEVELS[0]
    for i in range(round(kept / width) + 10):
        older.add(i * width, {"pain": 0.9})
        new.add(1e6 + i * width, {"pain": 0.1})
    new.prepend(older)
    assert [one.index for one in new._levels[0]] == sorted({one.index for one in new._levels[0]})
    assert new._levels[0][-1].index * width == 1e6 + (round(kept / width) + 9) * width


ORIGIN = "2026-03-01T10:00:00+00:00"


def part(folder: Path, bundle: Bundle, pain: float, windows: int = 20) -> Path:
    """A part of the session in `folder`, with one rating."""
    task = bundle.task
    recorder = Recorder(folder, bundle, resume=folder.exists())
    recorder.on_start(RunInfo(bundle, "hand", {}, 0.5, True, 0.0, dict.fromkeys(task.names, "by hand"), origin=1.0))
    quality = {name: Quality(True, "", 0.9) for name in task.names}
    for index in range(1, windows + 1):
        here = dict.fromkeys(task.names, 0.5)
        recorder.on_result(
            Result(index, index / 2, "pain", {"pain": pain}, "", quality, here, {"total": 3.0}, 0, bundle.id)
        )
    recorder.on_mark(Mark(5.0, "", 4))
    recorder.close()
    return recorder.folder


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set what the clock says at stream time 0 of the parts that follow."""
    return lambda at: monkeypatch.setattr("jmt_edge.recording.recorder._origin", lambda info: at)


@pytest.fixture
def pain_demo(tmp_path: Path) -> Bundle:
    return empty_bundle(get_task("pain", "demo"), tmp_path / "pain-demo.jmt")


def test_a_part_whose_clock_was_ahead_does_not_hide_the_parts_after_it(
    tmp_path: Path, pain_demo: Bundle, origin: Callable[[str], None]
) -> None:
    folder = tmp_path / "night"
    origin("2026-03-01T10:00:00+00:00")
    part(folder, pain_demo, 0.25)
    origin("2026-03-02T10:00:00+00:00")  # a day ahead
    part(folder, pain_demo, 0.5)
    origin("2026-03-01T10:10:00+00:00")
    history = recorded(part(folder, pain_demo, 0.75), ["pain"]).history
    assert history.end - (history.begin or 0) < 700
    assert [row[2] for row in history.values(HOUR, history.end)["rows"]] == [0.25] * 3 + [0.75] * 3
    assert len(history.ratings) == 2


def test_a_session_that_continues_itself_is_read_once(
    tmp_path: Path, pain_demo: Bundle, origin: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    origin(ORIGIN)
    monkeypatch.setattr("jmt_edge.recording.recorder._part", lambda folder: {"recording": "night"})
    assert len(recorded(part(tmp_path / "night", pain_demo, 0.5), ["pain"]).history.ratings) == 1


def test_a_long_session_fits_into_memory(tmp_path: Path, pain_demo: Bundle, origin: Callable[[str], None]) -> None:
    """A day has 172 800 results: what is kept of each while they are read must be small."""
    origin(ORIGIN)
    windows = 8000
    folder = part(tmp_path / "night", pain_demo, 0.5, windows)
    assert recorded(folder, ["pain"]).history.end > 0  # what the first call loads stays
    tracemalloc.start()
    recorded(folder, ["pain"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / windows < 1000


@pytest.mark.parametrize("what", ["view", "export"])
def test_a_day_is_opened_and_exported_in_little_memory(
    tmp_path: Path, pain_demo: Bundle, origin: Callable[[str], None], what: str
) -> None:
    origin(ORIGIN)
    windows = 16_000
    part(tmp_path / "night", pain_demo, 0.5, windows)
    recordings = Recordings(tmp_path)
    use = recordings.view if what == "view" else lambda id: recordings.export(id).close()
    use("night")
    tracemalloc.start()
    shown = use("night")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / windows < 1000, "a result is 4.5 kB"
    if shown is not None:
        times = [line["t"] for line in shown["results"]]
        assert len(times) == 2000 and times[0] == 0.5 and set(np.diff(times)) == {4.0}
        assert shown["gaps"]["results"] == []


def test_thinned_keeps_every_value_up_to_its_most_and_then_every_second() -> None:
    for count in (0, 1, 7, 8, 9, 16, 17, 100):
        thinned = Thinned[int](8)
        for value in range(count):
            thinned.add(value)
        step = next(2**k for k in range(9) if count <= 8 * 2**k)
        assert thinned.kept == list(range(0, count, step))


# ---- in a run


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bedside]:
    bed = Bedside(tmp_path, "trimodal")
    bed.warm_up()
    for _ in range(200):  # the page's thread takes what the run has stored
        if bed.page.model.mark_count == 3:
            break
        time.sleep(0.05)
    yield bed
    bed.close()


def test_the_interface_gives_the_trend(bed: Bedside) -> None:
    http = Http(bed.page)
    _, shown = http.json("GET", "/api/v1/trend?seconds=3600")
    assert shown["outputs"] == ["pain", "valence", "arousal"] and shown["bin"] == 4.0
    _, run = http.json("GET", "/api/v1/run")
    assert bed.page.info is not None
    began = time.time() - (time.monotonic() - bed.page.info.origin)
    assert abs(run["zero"] - began) < 0.5, "Unix time at stream time 0"
    low, mean, high = np.array([row[1:4] for row in shown["rows"]]).T
    assert np.all(low <= mean + 1e-4) and np.all(mean <= high + 1e-4)
    lost = next((a, b) for a, b in shown["gaps"] if 5 < b - a < 20)  # 13 s in which nothing came
    assert run["zero"] + 236 <= lost[0] and lost[1] <= run["zero"] + 260
    assert [rating for _, rating in shown["ratings"]] == [3, 7]
    for bad in ("0", "59", "1e9", "nan", "x"):
        assert http.json("GET", f"/api/v1/trend?seconds={bad}")[0] == 400
    assert http.json("GET", "/api/v1/trend")[1]["rows"][:-2] == shown["rows"][:-2]


def test_the_chart_shows_hours_and_keeps_its_choice(bed: Bedside, visit: Callable[..., Any]) -> None:
    page = visit(bed.url)
    chosen = "() => [document.getElementById('pain-chart').hidden, document.getElementById('pain-trend').hidden]"
    page.wait_for_function("() => document.getElementById('pain').textContent !== '—'")
    assert page.evaluate(chosen) == [False, True]
    first = "() => document.querySelector('#marks time').textContent"
    rated = page.evaluate("(at) => new Date(1000 * at).toLocaleTimeString('en-GB')", bed.page.model.zero + 300)
    assert page.evaluate(first) == rated, "a note has the time that the chart shows for it"
    with page.expect_response(lambda answer: "/api/v1/trend?seconds=28800" in answer.url):
        page.select_option("#pain-span", "28800")
    assert page.evaluate(chosen) == [True, False]
    before = len(bed.page.model.marks)
    page.focus("#pain-span")
    page.keyboard.press("8")  # chooses in the list, and is not a rating
    page.wait_for_timeout(500)
    assert len(bed.page.model.marks) == before
    with page.expect_response(lambda answer: "/api/v1/trend" in answer.url):
        page.reload()
    assert page.evaluate(chosen) == [True, False] and page.input_value("#pain-span") == "28800"
    page.select_option("#pain-span", "live")
    assert page.evaluate(chosen) == [False, True]


def test_valence_and_arousal_have_hours_of_their_own(bed: Bedside, visit: Callable[..., Any]) -> None:
    """Chosen apart from pain's, kept over a reload, and back at the present nothing is asked for any more."""
    page = visit(bed.url)
    shown = """() => ['circumplex', 'affect-trend', 'pain-trend'].map((id) => document.getElementById(id).checkVisibility())"""
    page.wait_for_function("() => document.getElementById('valence').textContent !== '—'")
    assert page.evaluate(shown) == [True, False, False] and page.input_value("#affect-span") == "live"
    for seconds in ("300", "28800"):
        with page.expect_response(lambda answer, s=seconds: f"/api/v1/trend?seconds={s}" in answer.url):
            page.select_option("#affect-span", seconds)
    assert page.evaluate(shown) == [False, True, False], "a card of this size has room for one of them"
    with page.expect_response(lambda answer: "/api/v1/trend?seconds=28800" in answer.url):
        page.reload()
    assert page.evaluate(shown) == [False, True, False]
    page.select_option("#affect-span", "live")
    page.wait_for_timeout(300)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(5000)
    assert not [url for url in asked if "trend" in url] and page.evaluate(shown) == [True, False, False]


def test_each_output_is_drawn_with_its_own_lowest_mean_and_highest_value(
    bed: Bedside, visit: Callable[..., Any]
) -> None:
    page = visit(bed.url)
    data, newest, stale, kept = page.evaluate("""async () => {
      const { Trend } = await import("/static/trend.js");
      const host = document.getElementById("affect-trend"), outputs = { valence: "--accent", arousal: "--accent-2" };
      const trend = new Trend(host, { outputs, range: [-1, 1], clock: () => true });
      const rows = [[0, .1, .2, .3, -.5, -.4, -.3, .7, .8, .9], [20, .11, .21, .31, -.51, -.41, -.31, .71, .81, .91]];
      const answer = { bin: 4, from: 0, to: 25, outputs: ["pain", "valence", "arousal"], rows, gaps: [[4, 20]], ratings: [[21, 7]] };
      const real = window.fetch;
      window.fetch = async () => new Response(JSON.stringify(answer));
      await trend.show(3600);
      clearTimeout(trend.timer);
      const ticks = trend.chart.parts.ticks(), rings = trend.chart.parts.rings();
      trend.data.to = 40;
      const found = [trend.chart.plot.data, [ticks, rings], trend.chart.parts.ticks()];
      trend.show(0);
      window.fetch = real;
      return [...found, trend.data];
    }""")
    t, *each = data
    assert t == [2, 12, 22]
    wanted = ([-0.5, -0.51], [-0.3, -0.31], [-0.4, -0.41], [0.7, 0.71], [0.9, 0.91], [0.8, 0.81])
    assert each == [[before, None, after] for before, after in wanted], "low, high, mean; the line breaks at the gap"
    assert newest == [[[-0.41, "V", "--accent"], [0.81, "A", "--accent-2"]], []], "a pain rating has no place here"
    assert kept is None, "hours of rows are not kept for nobody"
    assert stale == [], "no letter where the newest value is not of now"


def test_a_gap_without_an_answer_is_of_the_servers_clock(bed: Bedside, visit: Callable[..., Any]) -> None:
    """The tablet's clock is ten minutes ahead of the bed's: no answer for 20 s is a gap of 20 s."""
    page = visit(bed.url)
    data = page.evaluate("""async () => {
      const { Trend } = await import("/static/trend.js");
      const trend = new Trend(document.getElementById("pain-trend"), { outputs: { pain: "--accent" }, range: [0, 1], clock: () => true });
      const rows = [[4592, 0.1, 0.2, 0.3]], gaps = [[1000, 4592]];
      const answer = { bin: 4, from: 1000, to: 4600, outputs: ["pain"], rows, gaps, ratings: [] };
      const real = { fetch: window.fetch, now: Date.now };
      Date.now = () => 5_200_000;
      window.fetch = async () => new Response(JSON.stringify(answer));
      await trend.show(3600);
      window.fetch = async () => { throw new Error("gone"); };
      for (const passed of [8, 20]) {
        Date.now = () => 5_200_000 + 1000 * passed;
        await trend.show(3600);
      }
      const { data } = trend;
      trend.show(0);
      Object.assign(window, { fetch: real.fetch });
      Date.now = real.now;
      return data;
    }""")
    assert data["gaps"] == [[1000, 4592], [4600, 4620]] and (data["from"], data["to"]) == (1020, 4620)


def test_the_trend_and_the_recordings_do_not_wait_for_what_came_before(
    tmp_path: Path,
    pain_demo: Bundle,
    origin: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    faults: dict[str, int],
) -> None:
    """Days of a session take minutes to read; a part that cannot be read is read again."""
    origin(ORIGIN)
    faults["trend"] = 1
    folder = part(tmp_path / "runs" / "night", pain_demo, 0.5)
    gate, real, calls = threading.Event(), server.recorded, list[int]()

    def slow(*args: Any) -> Any:
        calls.append(1)
        assert gate.wait(60)
        if len(calls) == 1:
            return Recorded(History(["pain"]), ("it cannot be read",))
        if len(calls) == 2:
            raise MemoryError("once")
        return real(*args)

    monkeypatch.setattr(server, "recorded", slow)
    monkeypatch.setattr(server, "RETRIES", (0.05, 0.05, 0.05))
    page = start_page("127.0.0.1:0", Controls(), recordings=tmp_path / "runs", earlier=folder)
    try:
        names = dict.fromkeys(pain_demo.task.names, "by hand")
        page.on_start(RunInfo(pain_demo, "hand", {"fusion": "fp32"}, 0.5, True, 0.0, names, origin=time.monotonic()))
        for _ in range(100):
            _, shown = Http(page).json("GET", "/api/v1/trend")
            if shown:
                break
            time.sleep(0.05)
        assert shown["reading"] is True and shown["rows"] == []
        assert [one["id"] for one in Http(page).json("GET", "/api/v1/recordings")[1]["recordings"]] == ["night"]
        gate.set()
        for _ in range(200):
            _, shown = Http(page).json("GET", "/api/v1/trend")
            if not shown["reading"]:
                break
            time.sleep(0.05)
        assert len(calls) == 3 and page.model.earlier is not None and len(page.model.earlier.ratings) == 1
        assert Http(page).json("GET", "/api/v1/trend")[1]["reading"] is False
    finally:
        gate.set()
        page.close()


def test_a_session_that_continues_shows_what_came_before(tmp_path: Path) -> None:
    """A recording with a clock, and a page of the run that continues it."""
    task = get_task("pain", "demo")
    bundle = empty_bundle(task, tmp_path / "pain-demo.jmt")
    recorder = Recorder(tmp_path / "runs" / "night", bundle)
    began = time.monotonic() - 200
    sources = dict.fromkeys(task.names, "by hand")
    recorder.on_start(RunInfo(bundle, "hand", {"fusion": "fp32"}, 0.5, True, 0.0, sources, origin=began))
    quality = {name: Quality(True, "", 0.9) for name in task.names}
    here = dict.fromkeys(task.names, 0.5)
    for index in range(1, 201):
        recorder.on_status({name: Status(State.STREAMING) for name in task.names})
        outputs = {"pain": 0.75}
        recorder.on_result(Result(index, index / 2, "pain", outputs, "", quality, here, {"total": 3.0}, 0, bundle.id))
    recorder.on_mark(Mark(60.0, "", 8))
    recorder.on_end(Summary(bundle.id, True, True))
    page = start_page("127.0.0.1:0", Controls(), recordings=tmp_path / "runs", earlier=recorder.folder)
    try:
        page.on_start(RunInfo(bundle, "hand", {"fusion": "fp32"}, 0.5, True, 0.0, sources, origin=time.monotonic() - 4))
        page.on_result(Result(1, 3.9, "pain", {"pain": 0.25}, "", quality, here, {"total": 3.0}, 0, bundle.id))
        shown = {}
        for _ in range(100):
            _, shown = Http(page).json("GET", "/api/v1/trend?seconds=3600")
            if shown.get("rows") and shown["rows"][-1][2] == 0.25 and not shown["reading"]:
                break
            time.sleep(0.1)
        assert {row[2] for row in shown["rows"]} == {0.75, 0.25}
        assert [rating for _, rating in shown["ratings"]] == [8]
        ((lost, back),) = shown["gaps"]
        assert 80 < back - lost < 110, "nobody measured between the two parts"
    finally:
        page.close()
