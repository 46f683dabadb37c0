"""What the page shows is true: no line without data, nothing old, no alarm for a replay, one value for a quantity."""
# ruff: noqa: E501

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bedside import NUMBERS, Bedside, has
from page_fixture import CUT_OFF, Dial, Http, Stage, empty_bundle, recorded, wait_for

from jmt_edge.capture import open_source
from jmt_edge.errors import ConfigError
from jmt_edge.live import Controls, Options, Result, RunInfo, judge, run
from jmt_edge.live.page import clients, model, recordings, start_page
from jmt_edge.live.page.feed import Feed
from jmt_edge.live.page.model import Model
from jmt_edge.live.pipeline import Pipeline
from jmt_edge.observer import Observer
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.replay import replay
from jmt_edge.summary import Summary
from jmt_edge.tasks import Task, get_task

pytestmark = pytest.mark.realtime

Visit = Callable[..., Any]

# runs of columns of a canvas without a pixel of the given colour, as parts of the drawn line's width
HOLES = """([selector, name]) => {
  const canvas = document.querySelector(selector + " canvas"), probe = document.createElement("i");
  probe.style.color = `var(${name})`; document.body.append(probe);
  const want = getComputedStyle(probe).color.match(/[0-9]+/g).map(Number); probe.remove();
  const { width, height } = canvas, data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const hit = Array.from({ length: width }, (_, x) => { for (let y = 0; y < height; y++) { const i = 4 * (y * width + x);
    if (data[i + 3] > 200 && want.every((v, c) => Math.abs(v - data[i + c]) < 40)) return true; } return false; });
  const from = hit.indexOf(true), to = hit.lastIndexOf(true), holes = [];
  for (let x = from, start = -1; x <= to; x++) { if (!hit[x] && start < 0) start = x;
    if (hit[x] && start >= 0) { holes.push((x - start) / (to - from)); start = -1; } }
  return holes.filter((part) => part > 0.01); }"""

SOUNDS = """window.tones = 0; const make = AudioContext.prototype.createOscillator;
AudioContext.prototype.createOscillator = function () { window.tones++; return make.call(this); };"""


@pytest.fixture
def bed(tmp_path: Path) -> Any:
    made: list[Bedside] = []

    def make(task: str, name: str = "one", **options: Any) -> Bedside:
        folder = tmp_path / name
        folder.mkdir()
        made.append(Bedside(folder, task, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def warm(bed: Bedside, visit: Visit, **options: Any) -> Any:
    bed.warm_up()
    page = visit(bed.url, **options)
    number = "#pain" if "pain" in bed.task.outputs else "#valence"
    page.wait_for_function(has(number, "/[0-9]/.test(s)"))
    return page


# --- no line where there is no data -----------------------------------------------------------------------------------


def test_live_chart_is_broken_where_the_run_hung(bed: Any, visit: Visit) -> None:
    page = warm(bed("pain"), visit)  # it hung for 13 s, and the chart spans 300 s
    page.wait_for_timeout(300)
    holes = page.evaluate(HOLES, ["#pain-chart", "--accent"])
    assert len(holes) == 1 and holes[0] == pytest.approx(13 / 300, abs=0.01)


def test_a_result_between_two_gaps_is_a_point(bed: Any, visit: Visit) -> None:
    run = bed("pain")
    run.single(6, every=10.0)
    page = warm(run, visit)
    page.wait_for_timeout(300)
    # six points on their own before the line: a hole after each, and the one in the line
    assert len(page.evaluate(HOLES, ["#pain-chart", "--accent"])) == 7


def test_recordings_charts_are_broken_where_samples_are_missing(tmp_path: Path, visit: Visit) -> None:
    recorded(tmp_path)
    stage = Stage(tmp_path, "pain", record=False)
    try:
        page = visit(stage.url)
        page.wait_for_function(has("#clock", "s !== '—'"))
        page.click("#recordings")
        page.click('.recording[data-id="gappy"]')
        page.wait_for_selector("#viewer:not([hidden])")
        page.wait_for_timeout(300)
        for selector, colour in (("#viewer-chart", "--red"), ("#viewer-eda", "--accent")):
            holes = page.evaluate(HOLES, [selector, colour])
            assert len(holes) == 1 and holes[0] == pytest.approx(25 / 60, abs=0.03), selector
    finally:
        stage.close()


@pytest.mark.parametrize("points", [3000, 12])
def test_gaps_survive_thinning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: int) -> None:
    _, folder = recorded(tmp_path)
    monkeypatch.setattr(recordings, "MAX_POINTS", points)
    view = recordings.Recordings(folder.parent).view("gappy")
    assert view["gaps"]["results"] == [[20.0, 45.5]]
    assert view["gaps"]["eda"] == [[pytest.approx(20.0, abs=0.02), pytest.approx(45.0, abs=0.02)]]
    assert len(view["results"]) <= points


def test_a_dropped_window_does_not_break_the_line() -> None:
    assert model.result_gap(0.25) >= 1.0 and model.result_gap(2.0) > 2 * 2.0


# --- nothing old ------------------------------------------------------------------------------------------------------


def test_a_hang_leaves_no_value_and_says_why(bed: Any, visit: Visit) -> None:
    for task in ("trimodal", "affect"):
        run = bed(task, task)
        page = warm(run, visit)
        page.wait_for_function("() => document.getElementById('face').dataset.box === 'true'")
        assert page.text_content("#link") == "live" and page.evaluate(NUMBERS) and page.locator("#rec").is_visible()
        run.hang()
        page.wait_for_selector(".alarm[data-id=stale]")
        page.wait_for_function("() => document.body.dataset.off === 'true'")
        assert page.evaluate(NUMBERS) == []
        reasons = ["#face-off", "#affect-reason", *[f"#modality-{name} .verdict" for name in run.task.names]]
        reasons += ["#pain-reason", "#eda-reason"] if task == "trimodal" else []
        for selector in reasons:
            assert "no results for" in page.text_content(selector), selector
        assert page.text_content("#link") == "stalled" and page.locator("#rec").is_hidden()
        assert page.evaluate("() => document.body.dataset.trust") == "none"
        inked = """() => { const c = document.getElementById('face'); return c.getContext('2d')
          .getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); }"""
        assert not page.evaluate(inked)
        assert page.get_attribute("#face", "data-box") == "false"


def test_nothing_old_is_shown_for_two_seconds() -> None:
    """The server's limit, the next state message, and half of a message's period for the way and the drawing."""
    assert judge.STALE + 1.5 * clients.STATE_PERIOD < 2.0
    feed = Feed()
    feed.on_start(RunInfo(_bundle(), "hand", {}, 0.5, True, 0.0, {}))
    page = Model(feed, Controls())
    page.update(feed.active)
    assert not page.state(feed.active + 1.4)["stale"] and page.state(feed.active + 1.6)["stale"]


def test_a_modality_that_the_page_cannot_show_is_refused_at_the_start() -> None:
    task = get_task("pain", "demo")
    other = replace(task, modalities=(task.modalities[0], replace(task.modalities[1], name="gesture")))
    with pytest.raises(ConfigError, match="cannot show the modality 'gesture'"):
        Feed().on_start(RunInfo(_bundle(other), "hand", {}, 0.5, True, 0.0, {}))


def _bundle(shown: Task | None = None) -> Any:
    class Empty:
        task, id, demo = shown or get_task("pain", "demo"), "empty", True

    return Empty()


def test_a_run_that_is_being_started_shows_nothing_of_the_one_before(bed: Any, visit: Visit, tmp_path: Path) -> None:
    first = bed("pain")
    page = warm(first, visit, expect=CUT_OFF)
    address = first.url.partition("://")[2].strip("/")
    first.close()
    page.wait_for_selector("body[data-link=lost]")
    second = start_page(address, Controls(), recordings=tmp_path / "second")
    try:
        page.wait_for_selector("body[data-link=waiting]")
        assert page.text_content("#veil-title") == "Starting" and page.evaluate(NUMBERS) == []
    finally:
        second.close()


# --- a replay ---------------------------------------------------------------------------------------------------------


def test_a_replay_says_so_and_alarms_nobody(bed: Any, visit: Visit) -> None:
    run = bed("pain", replay="night-3")
    run.warm_up()
    page = visit("about:blank", expect=(*CUT_OFF, "409"))
    page.add_init_script(SOUNDS)
    page.goto(run.url)
    run.pain = 0.95
    page.wait_for_function(has("#pain", "s === '95%'"))
    page.keyboard.press("s")  # sound on
    assert page.text_content("#link") == "REPLAY" and "Replay" in page.title()
    assert "REPLAY of night-3" in page.text_content("#banner-list")
    run.hang()
    page.wait_for_function(has("#pain-reason", "s.startsWith('nothing in the recording for')"))
    assert page.get_attribute("#banner", "data-signal") == "" and page.locator("#banner .alarm").count() == 0
    assert page.locator("#rating button:enabled, #marker :enabled").count() == 0
    assert "nothing can be noted" in page.text_content("#action-off")
    http = Http(run.page)
    assert http.json("GET", "/api/v1/alarms")[1]["alarms"] == []
    for path, body in (("markers", {"rating": 3}), ("alarms/settings", {"limit": 0.5})):
        status, answer = http.json("POST", f"/api/v1/{path}", body)
        assert status == 409 and "night-3" in answer["error"]
    run.close()
    page.wait_for_selector("body[data-link=lost]")
    page.wait_for_timeout(600)
    assert page.evaluate("() => window.tones") == 0


def test_replay_tells_its_observers(tmp_path: Path) -> None:
    bundle, folder = recorded(tmp_path)
    seen: list[RunInfo] = []

    class Watch(Observer):
        def on_start(self, info: RunInfo) -> None:
            seen.append(info)

    replay(Recording(folder), bundle, None, Pipeline, observers=[Watch()])
    assert seen[0].replay == "gappy" and not seen[0].realtime


# --- one quantity, one channel ----------------------------------------------------------------------------------------


def test_banner_and_number_never_contradict_each_other(bed: Any, visit: Visit) -> None:
    run = bed("pain")
    page = warm(run, visit)
    Http(run.page).json("POST", "/api/v1/alarms/settings", {"delay": 0})
    # what is painted: the same contradiction in two frames, one after another
    page.evaluate(
        """() => { window.wrong = []; window.seen = new Set(); let before = "";
          const look = () => { const number = parseInt(document.getElementById('pain').textContent), said = document.querySelector('.alarm[data-id=pain]')?.textContent ?? '';
            window.seen.add(said.replace(/[0-9]{2}:[0-9]{2}(:[0-9]{2})?/g, 'T')); const now = said.includes('probability ≥ 70%') && number < 70 || said.includes('was ≥') && number >= 70 ? `${number}: ${said}` : '';
            if (now && now === before) window.wrong.push(now); before = now; requestAnimationFrame(look); }; look(); }"""
    )
    for pain in (0.83, 0.92, 0.65, 0.75, 0.95, 0.25):
        run.pain = pain
        page.wait_for_function(has("#pain", f"s === '{pain:.0%}'"))
    page.wait_for_selector(".alarm[data-id=pain][data-state=latched]")
    assert page.evaluate("() => window.wrong") == []
    said = " | ".join(page.evaluate("() => [...window.seen]"))
    assert "Pain probability ≥ 70% since T" in said and "was ≥ 70% since Tnot below 60% yet" in said
    assert "83%" not in said and "92%" not in said
    latched = page.text_content(".alarm[data-id=pain] .text")
    assert re.fullmatch(r"Pain probability was ≥ 70% from (\d\d:\d\d) to \d\d:\d\d, peak 95%|"
                        r"Pain probability was ≥ 70% from (\d\d:\d\d:\d\d) to \d\d:\d\d:\d\d, peak 95%", latched), latched  # fmt: skip
    alarm = Http(run.page).json("GET", "/api/v1/alarms")[1]["alarms"][0]
    for when in ("from", "to"):
        assert time.strftime("%H:%M", time.localtime(alarm[when])) == re.search(f"{when} (..:..)", latched)[1]  # type: ignore[index]


# --- what the number is made of ---------------------------------------------------------------------------------------


def test_a_number_says_what_it_lacks_and_is_grey(bed: Any, visit: Visit) -> None:
    """And the values without each signal stand beside the curve, with a letter each, also where they are equal."""
    run, page = bed("trimodal"), visit("about:blank", reduced_motion="reduce")
    page.add_init_script(path=Path(__file__).parent / "canvas_text.js")
    run.warm_up()
    page.goto(run.url)
    grey = "() => ['pain', 'valence', 'arousal'].map((id) => getComputedStyle(document.getElementById(id)).color)"
    page.wait_for_function(has("#pain-from", "s.startsWith('from face + voice + EDA; 90%: ')"))
    whole = page.evaluate(grey)
    letters = """(wanted) => { const w = document.querySelector('#pain-chart canvas').written ?? [];
      return w.map((x) => x.words).filter((x) => 'FVE'.includes(x)).sort().join('') === wanted; }"""
    page.wait_for_function(letters, arg="EFV")
    run._lost = {"eda"}
    for card in ("pain", "affect"):
        page.wait_for_function(has(f"#{card}-from", "s.startsWith('from face + voice, without EDA; 90%: ')"))
    page.wait_for_function(letters, arg="FV")
    reduced, dim = page.evaluate(grey), page.evaluate("() => getComputedStyle(document.querySelector('.from')).color")
    assert set(reduced) == {dim} and dim not in whole
    run._lost = {"eda", "voice"}
    page.wait_for_function(has("#pain-from", "s.startsWith('from face, without voice and EDA; 90%: ')"))
    run._lost = set()
    page.wait_for_function(has("#pain-from", "s.startsWith('from face + voice + EDA; 90%: ')"))
    assert page.evaluate(grey) == whole


# --- an end, a token, a reason ----------------------------------------------------------------------------------------


def test_an_orderly_end_is_no_loss(bed: Any, visit: Visit) -> None:
    first = bed("pain")
    first.warm_up()
    page = visit("about:blank", expect=CUT_OFF)
    page.add_init_script(SOUNDS)
    page.goto(first.url)
    page.wait_for_function(has("#pain", "/[0-9]/.test(s)"))
    page.keyboard.press("s")
    first.end()
    page.wait_for_selector("body[data-link=ended]")
    page.wait_for_timeout(2500)  # longer than the page waits before it calls a silence a loss
    assert page.text_content("#veil-title") == "The run has ended"
    assert "Trying again" not in page.text_content("#veil") and page.evaluate(NUMBERS) == []
    assert page.text_content("#pain-reason") == "the run has ended"
    assert page.evaluate("() => [document.body.dataset.link, window.tones]") == ["ended", 0]
    second = bed("pain", "two", address=first.url.partition("://")[2].strip("/"))
    second.warm_up()
    page.wait_for_selector("body[data-link=live]")
    page.wait_for_function(has("#pain", "/[0-9]/.test(s)"))


def test_a_failure_is_not_an_orderly_end(bed: Any, visit: Visit) -> None:
    run = bed("pain")
    page = warm(run, visit, expect=CUT_OFF)
    page.add_init_script(SOUNDS)
    page.reload()
    page.wait_for_function(has("#pain", "/[0-9]/.test(s)"))
    page.keyboard.press("s")
    run.end(failed="the engine is gone")
    page.wait_for_selector("body[data-link=lost]")
    assert page.text_content("#veil-title") == "The run has failed"
    assert "the engine is gone" in page.text_content("#veil-text")
    page.wait_for_function("() => window.tones > 0")


def test_before_the_first_state_the_page_does_not_deny_alarms(bed: Any, visit: Visit) -> None:
    run, page = bed("pain"), visit("about:blank")
    run.warm_up()

    def without_states(socket: Any) -> None:
        server = socket.connect_to_server()
        server.on_message(
            lambda message: (
                None if isinstance(message, str) and json.loads(message)["type"] == "state" else socket.send(message)
            )
        )

    page.route_web_socket("**/ws", without_states)
    page.goto(run.url)
    page.wait_for_function(has("#pain", "/[0-9]/.test(s)"))
    assert page.text_content("#banner-list") == "Alarms unknown: connecting"


def test_a_run_that_breaks_off_tells_its_observers_why(tmp_path: Path) -> None:
    task = get_task("pain", "demo")
    engine, told = Dial(task), []

    class Watch(Observer):
        def on_result(self, result: Result) -> None:
            raise ValueError("a fault")

        def on_end(self, summary: Summary) -> None:
            told.append(summary.failed)

    sources = {"eda": open_source("eda", "sim:seed=1")}
    with pytest.raises(ValueError, match="a fault"):
        run(empty_bundle(task, tmp_path / "b.jmt"), engine, sources, Options(realtime=False, duration=3.0), [Watch()])  # type: ignore[arg-type]
    assert told == ["a fault"]


def test_a_wrong_token_is_answered(tmp_path: Path, visit: Visit) -> None:
    token = "a-token-of-some-length"
    stage = Stage(tmp_path, "pain", record=False, token=token)
    try:
        page = visit(stage.url)
        page.wait_for_selector("#token-dialog[open]")
        assert page.text_content("#token-error") == "" and page.locator("#veil").is_hidden()
        page.keyboard.press("Escape")
        assert page.locator("#token-dialog").is_visible()
        page.fill("#token", "not-this-one-at-all")
        page.press("#token", "Enter")
        page.wait_for_function(has("#token-error", "s.includes('not accepted')"))
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token", token)
        page.press("#token", "Enter")
        page.wait_for_function(has("#pain", "/^[0-9]+%$/.test(s)"))
        assert page.locator("#token-dialog").is_hidden()
    finally:
        stage.close()


def test_record_that_cannot_be_pressed_says_why(bed: Any, visit: Visit) -> None:
    run = bed("pain", record=False)
    page = warm(run, visit)
    assert page.locator("#record").is_disabled() and page.locator("#record-off").is_visible()
    assert "--record DIR" in page.text_content("#record-off")
    assert page.get_attribute("#record", "aria-describedby") == "record-off"
    page.keyboard.press("4")
    page.wait_for_function(
        has("#pad-question-words", "s.startsWith('This run has no recorder (--record DIR): 4 would')")
    )
    page.click("#pad-show-only")
    page.wait_for_function(has("#rating-now .words", "s.includes('not saved')"))


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_flashing_heeds_reduced_motion(bed: Any, visit: Visit, motion: str) -> None:
    run = bed("pain")
    page = warm(run, visit, reduced_motion=motion)
    run.show("alarm", page, Http(run.page).json)
    style = json.loads(page.evaluate("() => { const s = getComputedStyle(document.getElementById('banner'));"
                                     "return JSON.stringify([s.animationName, s.backgroundColor, s.color]); }"))  # fmt: skip
    if motion == "reduce":
        assert style == ["none", "rgb(200, 16, 46)", "rgb(255, 255, 255)"]  # steady, and filled
    else:
        assert style[0] == "flash-high"
    wait_for(lambda: page.locator("#ack").is_visible())
    page.click("#ack")
    page.wait_for_selector(".alarm[data-id=pain][data-state=acknowledged]")
    calm = page.evaluate(
        "() => { const s = getComputedStyle(document.getElementById('banner')); return [s.animationName, s.backgroundColor]; }"
    )
    assert calm[0] == "none" and calm[1] != "rgb(200, 16, 46)"
