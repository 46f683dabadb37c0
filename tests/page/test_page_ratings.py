"""Ratings on the page: undone, corrected, withdrawn, asked for, never lost without a word; and their agreement."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_fixture import CUT_OFF, Http, Stage, wait_for
from test_page_browser import text, wait_text

from jmt_edge.live.ratings import ASKED, KEPT, RECENT, Ratings
from jmt_edge.observer import Mark
from jmt_edge.recording.agreement import agreement
from jmt_edge.recording.alarm_events import AlarmEvent
from jmt_edge.recording.reader import Recording

Visit = Callable[..., Any]
alone = pytest.mark.realtime


# ---- what the server holds


def filled(seed: int, seconds: float = 3600.0) -> tuple[Ratings, list[Mark], np.ndarray, np.ndarray]:
    """An hour of windows and ratings in the order in which they arrive: some late, some corrected or withdrawn."""
    rng = np.random.default_rng(seed)
    times = np.arange(1, 2 * seconds) / 2
    pain = np.clip(rng.normal(0.5, 0.25, len(times)), 0, 1)
    pain[rng.random(len(times)) < 0.2] = np.nan
    ratings, marks, arriving = Ratings(), [], []
    for at in np.sort(rng.uniform(20, seconds - 70, 30)):
        arriving.append((at + rng.uniform(0, 60), Mark(float(at), "", int(rng.integers(0, 11)))))
        if rng.random() < 0.4:
            later = float(at + 60 + rng.uniform(0, 9))
            new = None if rng.random() < 0.3 else int(rng.integers(0, 11))
            arriving.append((later, Mark(later, "", new, float(at))))
    arriving.sort(key=lambda one: one[0])
    for t, value in zip(times.tolist(), pain.tolist(), strict=True):
        while arriving and arriving[0][0] <= t:
            marks.append(arriving.pop(0)[1])
            ratings.add(marks[-1], None)
        ratings.window(t, None if np.isnan(value) else value)
    known = np.isfinite(pain)
    return ratings, marks, times[known], pain[known]


@pytest.mark.parametrize("seed", range(8))
def test_the_running_agreement_is_the_reports(seed: int) -> None:
    """Of all windows of the hour, although only those near ratings are kept."""
    ratings, marks, times, pain = filled(seed)
    found = agreement(marks, times, pain, np.full(len(times), 0.7))
    assert found.n > 10 and found.severe > 2
    shown = ratings.agreement(lambda times: np.full(len(times), 0.7))
    for name in ("ratings", "n", "rho", "interval", "severe", "seen", "blind", "limits", "reason"):
        assert shown[name] == getattr(found, name), name
    assert shown["lines"] == found.lines() and shown["enough"]
    assert len(ratings._about) + len(ratings._recent) < len(times) / 4


def test_too_few_ratings_are_said_and_no_number_is_given() -> None:
    ratings = Ratings()
    for i in range(4):
        for step in range(20):
            ratings.window(100 * i + step / 2, 0.1 * i)
        ratings.add(Mark(100 * i + 9.7, "", i), None)
    shown = ratings.agreement(lambda times: np.full(len(times), 0.7))
    assert (shown["n"], shown["rho"], shown["interval"], shown["enough"]) == (4, None, None, False)
    assert "it takes 5 ratings" in shown["lines"][1]


def test_what_is_kept_of_a_week_of_ratings_is_bounded() -> None:
    ratings = Ratings()
    for step in range(4 * 5 * KEPT):
        ratings.window(float(step), 0.5)
        if step % 5 == 0:
            ratings.add(Mark(float(step), "", 3), Path("night"))
    assert len(ratings.marks) == KEPT and len(ratings._parts) == KEPT
    assert len(ratings._recent) <= RECENT + 1 and len(ratings._about) <= 5 * KEPT + RECENT


def event(end: float | None) -> AlarmEvent:
    return AlarmEvent("pain-1", "pain", "physiological", "high", "Pain", 10.0, 13.0, 0.7, end)


def test_a_rating_is_asked_for_after_the_end_of_an_alarm_until_it_is_given() -> None:
    ratings = Ratings()
    ratings.window(1.0, 0.9)
    assert ratings.question(20.0, None) is None and ratings.question(20.0, event(None)) is None
    assert ratings.question(31.0, event(30.0)) == {"id": "pain-1", "why": "alarm", "since": 30.0}
    ratings.add(Mark(25.0, "", 6), None)  # given during the alarm
    assert ratings.question(31.0, event(30.0)) is not None
    assert ratings.question(30.0 + ASKED + 1, event(30.0)) is None, "nobody remembers by then"
    ratings.add(Mark(40.0, "", 3), None)
    assert ratings.question(41.0, event(30.0)) is None
    ratings.add(Mark(50.0, "", None, 40.0), None)  # withdrawn
    assert ratings.question(51.0, event(30.0)) is not None


def test_a_rating_is_asked_for_every_so_many_minutes() -> None:
    ratings = Ratings(10)
    assert ratings.question(5000.0, None) is None, "the run has no result yet"
    ratings.window(100.0, None)
    assert ratings.question(699.0, None) is None
    assert ratings.question(701.0, None) == {"id": "time-700", "why": "time", "since": 700.0, "minutes": 10}
    assert ratings.question(1299.0, None) == ratings.question(701.0, None), "the same question until it is asked again"
    again = ratings.question(1301.0, None)
    assert again is not None and again["id"] == "time-1300"
    ratings.add(Mark(1310.0, "", 2), None)
    assert ratings.question(1900.0, None) is None and ratings.question(1911.0, None) is not None
    assert Ratings().question(9e9, None) is None


# ---- the interface


def rate(http: Http, rating: int, **more: Any) -> tuple[int, Any]:
    return http.json("POST", "/api/v1/markers", {"rating": rating, **more})


def given(http: Http, count: int) -> list[dict[str, Any]]:
    markers = "/api/v1/markers"
    return wait_for(lambda: len(found := http.json("GET", markers)[1]["markers"]) == count and found)  # type: ignore[no-any-return]


def correct(http: Http, t: Any, **more: Any) -> tuple[int, Any]:
    return http.json("POST", "/api/v1/markers/correct", {"t": t, **more})


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    wait_for(lambda: stage.controls.is_recording)
    wait_for(lambda: stage.client.json("GET", "/api/v1/trend")[1])
    yield stage
    stage.close()


@alone
def test_corrected_and_withdrawn_through_the_interface(stage: Stage) -> None:
    http = stage.client
    wait_for(lambda: stage.page.model.stream > 4)
    assert rate(http, 7, age=3.0)[1]["recorded"]
    (first,) = given(http, 1)
    assert abs(stage.page.model.stream - 3.0 - first["t"]) < 2, "it was given 3 s ago"
    assert correct(http, first["t"], rating=4) == (202, {"t": first["t"], "rating": 4, "recorded": True})
    given(http, 2)
    zero = stage.page.model.zero
    assert zero is not None
    _, trend = http.json("GET", "/api/v1/trend")
    ((at, value),) = trend["ratings"]
    assert value == 4 and abs(at - zero - first["t"]) < 0.01
    assert correct(http, first["t"])[0] == 202
    given(http, 3)
    assert http.json("GET", "/api/v1/trend")[1]["ratings"] == []
    assert http.json("GET", "/api/v1/trend")[1]["agreement"]["ratings"] == 0
    assert correct(http, first["t"], rating=5)[0] == 404, "it was withdrawn"
    stage.close()
    marks = Recording(stage.recording).marks()
    assert [(m.rating, m.corrects == marks[0].t) for m in marks] == [(7, False), (4, True), (None, True)]
    log = [json.loads(line) for line in (stage.runs / "page-audit.jsonl").read_text().splitlines()]
    assert [(a["action"], a.get("before"), a.get("after")) for a in log] == [
        ("marker", None, None), ("correct rating", 7, 4), ("correct rating", 4, None),
    ]  # fmt: skip


@alone
def test_what_cannot_be_corrected_is_said(stage: Stage) -> None:
    http = stage.client
    rate(http, 7)
    (first,) = given(http, 1)
    for body in ({"t": 1e6}, {"t": first["t"] + 0.5}):
        status, answer = http.json("POST", "/api/v1/markers/correct", {**body, "rating": 3})
        assert status == 404 and "no such rating" in answer["error"]
    http.json("POST", "/api/v1/recording", {"on": False})
    wait_for(lambda: not stage.controls.is_recording)
    status, answer = correct(http, first["t"], rating=3)
    assert status == 409 and "in the recording first, which has ended" in answer["error"]
    assert not rate(http, 2)[1]["recorded"]
    second = given(http, 2)[1]
    assert correct(http, second["t"], rating=3)[1]["recorded"] is False, "on the page only, as the rating was"
    given(http, 3)
    http.json("POST", "/api/v1/recording", {"on": True})
    wait_for(lambda: stage.page.model.part is not None and stage.page.model.part.name == "first-2")
    status, answer = correct(http, second["t"], rating=1)
    assert status == 409 and "nothing was recorded" in answer["error"]
    assert correct(http, first["t"], rating=1)[0] == 409
    stage.close()
    assert [m.rating for m in Recording(stage.recording).marks()] == [7]
    assert Recording(stage.runs / "first-2").marks() == []


@alone
def test_a_wrong_token_corrects_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "pain", token="a-token-of-some-length")
    try:
        http = stage.client
        rate(http, 7)
        (first,) = given(http, 1)
        wrong = {"Authorization": "Bearer another-token-of-some-length"}
        for path, body in (("markers/correct", {"t": first["t"], "rating": 1}), ("markers", {"rating": 1, "age": 1})):
            assert http("POST", f"/api/v1/{path}", body, headers=wrong)[0] == 401
            assert http("POST", f"/api/v1/{path}", body, token=False)[0] == 401
        assert http("GET", "/api/v1/events/pain-1/signals", headers=wrong)[0] == 401
        assert len(given(http, 1)) == 1
    finally:
        stage.close()


# ---- the browser


def recording_page(stage: Stage, visit: Visit, **options: Any) -> Any:
    """The page, once it shows that it records; options: as `visit`'s."""
    page = visit(stage.url, **options)
    page.wait_for_selector("#rec:not([hidden])")
    return page


def marks_of(stage: Stage) -> list[tuple[int | None, bool]]:
    return [(m.rating, m.corrects is not None) for m in Recording(stage.recording).marks()]


@alone
def test_a_rating_is_stored_after_its_undo_time_and_not_before(stage: Stage, visit: Visit) -> None:
    page = recording_page(stage, visit)
    page.keyboard.press("7")
    wait_text(page, "#rating-now .words", "/^7 noted in [1-5] s$/.test(s)")
    assert page.get_attribute("#rating button >> nth=7", "aria-pressed") == "true"
    assert page.locator("#marker").is_hidden() and page.locator("#rating-undo").is_visible()
    page.keyboard.press("u")
    wait_text(page, "#action-note", "s === '7 undone'")
    page.click("#rating button >> nth=2")
    page.click("#rating button >> nth=3")  # the right one, at once
    wait_text(page, "#action-note", "s === '3 noted'")
    wait_text(page, "#marks", "s.includes('rating 3')")
    tapped = page.evaluate("() => document.querySelectorAll('#marks li').length")
    assert tapped == 1
    page.wait_for_selector("#marker:not([hidden])")  # the note's place again
    wait_for(lambda: marks_of(stage) == [(3, False)])
    first = Recording(stage.recording).marks()[0]
    assert stage.page.model.stream - first.t >= 4.9, "the time is that of the tap"


@alone
def test_the_last_rating_is_changed_and_withdrawn(stage: Stage, visit: Visit) -> None:
    page = recording_page(stage, visit)
    page.select_option("#pain-span", "all")
    wait_text(page, "#agreement", "s === 'No ratings yet'")
    rate(stage.client, 8)
    wait_text(page, "#marks", "s.includes('rating 8')")
    wait_text(page, "#agreement", "s.startsWith('too few ratings for a correlation (')")
    page.click("#marks .fix")
    page.wait_for_selector("#pad:not([hidden])")
    assert text(page, "#pad-last-words").startswith("Last: 8 at ")
    page.click("#pad-change")
    wait_text(page, "#pad-now .words", "s === 'Choose the right rating'")
    page.click("#pad-buttons button >> nth=2")
    wait_text(page, "#pad-now .words", "/^Changed to 2 in [1-5] s$/.test(s)")
    page.click("#pad-undo")
    wait_text(page, "#action-note", "s === 'undone'")
    assert [m["rating"] for m in given(stage.client, 1)] == [8]
    page.click("#pad-change")
    page.keyboard.press("2")
    wait_text(page, "#pad-last-words", "s.startsWith('Last: 2 at ')")
    with page.expect_response(lambda answer: "/api/v1/trend" in answer.url):
        pass
    assert [value for _, value in stage.client.json("GET", "/api/v1/trend")[1]["ratings"]] == [2]
    page.click("#pad-withdraw")
    wait_text(page, "#pad-now .words", "/^Rating withdrawn in [1-5] s$/.test(s)")
    page.wait_for_selector("#pad-last", state="hidden")
    wait_text(page, "#agreement", "s === 'No ratings yet'")
    page.keyboard.press("Escape")
    page.wait_for_selector("#pad", state="hidden")
    assert "withdrawn" in text(page, "#marks") and page.locator("#marks .corrected").count() == 1
    wait_for(lambda: marks_of(stage) == [(8, False), (2, True), (None, True)])


@alone
def test_with_recording_off_the_pad_asks_before_anything_is_noted(stage: Stage, visit: Visit) -> None:
    http = stage.client
    page = recording_page(stage, visit)
    page.keyboard.press("r")
    page.wait_for_selector("#rec", state="hidden")
    page.keyboard.press("6")
    wait_text(page, "#pad-question-words", "s === 'Recording is off: 6 would not be stored.'")
    page.wait_for_timeout(5500)  # longer than the undo time
    assert http.json("GET", "/api/v1/markers")[1]["markers"] == [] and "noted" not in text(page, "#rating-now")
    page.click("#pad-discard")
    page.keyboard.press("4")
    page.click("#pad-record")
    page.wait_for_selector("#rec:not([hidden])")
    wait_text(page, "#action-note", "s === '4 noted'")
    second = stage.runs / "first-2"
    wait_for(lambda: [m.rating for m in Recording(second).marks()] == [4])
    page.keyboard.press("r")
    page.wait_for_selector("#rec", state="hidden")
    page.keyboard.press("9")
    page.click("#pad-show-only")
    wait_text(page, "#rating-now .words", "s === '9 shown here but not saved: recording is off'")
    assert [m.rating for m in Recording(second).marks()] == [4]


@alone
def test_a_run_without_a_recorder_says_so(tmp_path: Path, visit: Visit) -> None:
    stage = Stage(tmp_path, "pain", record=False)
    try:
        page = visit(stage.url)
        wait_text(page, "#pain", "/^[0-9]+%$/.test(s)")
        page.keyboard.press("5")
        wait_text(page, "#pad-question-words", "s.startsWith('This run has no recorder (--record DIR): 5 would')")
        assert page.locator("#pad-record").is_hidden()
        page.click("#pad-show-only")
        wait_text(page, "#marks", "s.includes('rating 5')")
        assert "not saved" in text(page, "#rating-now")
    finally:
        stage.close()


@alone
def test_a_rating_waits_for_a_server_that_does_not_answer(stage: Stage, visit: Visit) -> None:
    page = recording_page(stage, visit, expect=(*CUT_OFF, "ERR_FAILED"))
    page.route("**/api/v1/markers", lambda route: route.abort())
    page.keyboard.press("7")
    wait_text(page, "#rating-now .words", "s === '7 not sent: no answer, trying again'")
    before = time.monotonic()
    page.unroute("**/api/v1/markers")
    wait_text(page, "#action-note", "s === '7 noted'")
    (mark,) = given(stage.client, 1)
    assert stage.page.model.stream - mark["t"] > 5 - (time.monotonic() - before), "the time is that of the tap"


@alone
def test_what_waits_is_sent_when_the_page_is_left(stage: Stage, visit: Visit) -> None:
    page = recording_page(stage, visit)
    page.keyboard.press("t")
    wait_text(page, "#rating-now .words", "s.startsWith('10 noted in ')")
    page.goto("about:blank")
    assert [m["rating"] for m in given(stage.client, 1)] == [10]


@alone
def test_a_note_can_be_written_while_a_rating_waits(stage: Stage, visit: Visit) -> None:
    """What is typed into it is no key of the page, and the rating can still be undone."""
    page = recording_page(stage, visit)
    page.keyboard.press("7")
    wait_text(page, "#rating-now .words", "s.startsWith('7 noted in ')")
    page.keyboard.press("m")
    page.keyboard.type("turned 3 times")
    assert page.locator("#rating-undo").is_visible() and page.locator("#tools").is_hidden()
    page.click("#rating-undo")
    page.focus("#marker-text")
    page.keyboard.press("Enter")
    wait_text(page, "#marks", "s.includes('turned 3 times')")
    page.evaluate("() => document.activeElement.blur()")
    page.wait_for_selector("#tools:not([hidden])")
    assert [(m["text"], m["rating"]) for m in given(stage.client, 1)] == [("turned 3 times", None)]


@alone
def test_a_rating_is_asked_for_after_an_alarm_and_not_while_a_note_is_written(stage: Stage, visit: Visit) -> None:
    http = stage.client
    http.json("POST", "/api/v1/alarms/settings", {"limit": 0.6, "delay": 0})
    page = recording_page(stage, visit)
    stage.engine.pain = 0.9
    page.wait_for_selector(".alarm[data-id=pain]")
    page.click("#marker-text")
    stage.engine.pain = 0.1
    wait_for(lambda: http.json("GET", "/api/v1/state")[1]["ask"])
    page.wait_for_timeout(600)
    assert page.locator("#marker").is_visible()
    page.evaluate("() => document.activeElement.blur()")
    wait_text(page, "#rating-now .words", "s.startsWith('Rate the pain: the alarm ended at ')")
    page.click("#rating-later")
    page.wait_for_selector("#rating-now", state="hidden")
    assert http.json("GET", "/api/v1/state")[1]["ask"] is not None
    rate(http, 3)
    wait_for(lambda: http.json("GET", "/api/v1/state")[1]["ask"] is None)
