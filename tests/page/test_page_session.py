"""The start of a session: its steps in Chromium, what the server makes of it, and that no alarm is hidden meanwhile."""
# ruff: noqa: E501

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bedside import Bedside, has
from page_fixture import CUT_OFF, Http, Stage, wait_for
from test_page_server import Hand

from jmt_edge.controls import SUBJECT, Controls, check_subject
from jmt_edge.errors import ConfigError
from jmt_edge.recording.reader import Recording
from jmt_edge.summary import Summary

Visit = Callable[..., Any]
DONE = {"baseline": {}, "difference": {"face": {"spreads": 0.4}, "eda": {"uS": 0.1, "spreads": 0.3}},
        "refused": {"voice": "usable in 19% of the rest: no speech"}}  # fmt: skip
REFUSED = {"baseline": {}, "difference": {}, "refused": {
    "face": "usable in 0% of the rest: no face", "voice": "usable in 3% of the rest: too quiet",
    "eda": "usable in 12% of the rest: no valid EDA value for 5.5 s or more"}}  # fmt: skip
SHOWN = "() => document.getElementById('session').checkVisibility()"


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bedside]:
    bed = Bedside(tmp_path, "trimodal")
    bed.warm_up()
    yield bed
    bed.close()


def opened(bed: Bedside, visit: Visit, expect: tuple[str, ...] = (), **options: Any) -> Any:
    page = visit(bed.url, reduced_motion="reduce", expect=(*CUT_OFF, *expect), **options)
    page.wait_for_function(has("#pain", "/[0-9]/.test(s)"))
    page.click("#session-open")
    page.wait_for_selector("#session-code:focus")
    return page


def to_rest(bed: Bedside, page: Any) -> None:
    for _ in range(1 + len(bed.task.names)):
        page.click("#session-skip")
    page.wait_for_function(has("#session-title", "s === 'Two minutes of rest'"))


def to_begin(bed: Bedside, page: Any) -> None:
    to_rest(bed, page)
    page.click("#session-skip")
    page.wait_for_function(has("#session-title", "s === 'Begin'"))


# --- the whole start ------------------------------------------------------------------------------------------------


def test_a_session_is_started_step_by_step(tmp_path: Path, visit: Visit) -> None:
    stage = Stage(tmp_path, session=True)
    try:
        page = visit(stage.url)
        page.wait_for_selector("#session:not([hidden])")  # by itself, because the run asks for it
        page.wait_for_function(has("#session-record-note", "s.startsWith('Recording starts')"))
        assert page.locator("#rec").is_hidden() and not (stage.recording / "manifest.json").exists()
        page.click("#session-next")
        page.wait_for_function(has("#session-error", "s.startsWith('Enter a code')"))
        for wrong in ("Jane Doe", "-7", "a/b", "ä"):
            page.fill("#session-code", wrong)
            page.press("#session-code", "Enter")
            page.wait_for_function(has("#session-error", "s.startsWith('A code has 1 to 32')"))
        page.fill("#session-code", "P07")
        page.press("#session-code", "Enter")
        for device in ("Camera (1 of 3)", "Microphone (2 of 3)", "EDA electrodes (3 of 3)"):
            page.wait_for_function(has("#session-title", f"s === '{device}'"))
            page.click("#session-next")  # enabled once the signal is good
        page.click("#session-rest")
        page.wait_for_function(has("#session-left", "/^(2:00|1:5[0-9])$/.test(s)"))
        first = page.text_content("#session-left")
        page.wait_for_function(has("#session-left", f"s !== {json.dumps(first)} && /^1:5[0-9]$/.test(s)"))
        assert page.locator("#session-next").is_disabled()
        page.click("#session-skip")
        page.wait_for_function(has("#session-summary", "s.includes('P07') && s.includes('no rest measured')"))
        assert page.locator("#session-steps li[data-how=skipped]").all_inner_texts() == ["3 Rest: no rest measured"]
        assert not (stage.recording / "manifest.json").exists()
        page.click("#session-next")
        page.wait_for_selector("#session", state="hidden")
        page.wait_for_selector("#rec:not([hidden])")
        page.wait_for_function(has("#rest-state", "s === 'P07: no rest measured'"))
        recording = wait_for(lambda: (stage.recording / "manifest.json").exists() and Recording(stage.recording))
        assert recording.recorded_subject == "P07" and recording.subject == ""
        wait_for(lambda: stage.page.model.result.rest is None)  # the rest that was begun and skipped is forgotten
        wait_for(lambda: [m.text for m in Recording(stage.recording).marks()] == ["session begins"])
        page.reload()
        page.wait_for_function(has("#pain", "/[0-9]/.test(s)"))
        page.wait_for_timeout(600)
        assert not page.evaluate(SHOWN)

        # another person: the recording before ends, theirs has another code
        status, answer = stage.client.json("POST", "/api/v1/session", {"subject": "P08", "record": True, "rest": False})
        assert status == 202 and answer["subject"] == "P08"
        second = wait_for(
            lambda: (stage.runs / "first-2" / "manifest.json").exists() and Recording(stage.runs / "first-2")
        )
        assert second.recorded_subject == "P08" and second.manifest["continues"] is None
        wait_for(lambda: Recording(stage.recording).complete)
        page.wait_for_function(has("#rest-state", "s.startsWith('P08: ')"))
        stage.client.json("POST", "/api/v1/session", {"subject": "", "record": False, "rest": False})
        page.wait_for_function(has("#rest-state", "s === 'no code: no rest measured, not recorded'"))
        page.wait_for_selector("#rec", state="hidden")
    finally:
        stage.close()
    actions = [json.loads(line) for line in (stage.runs / "page-audit.jsonl").read_text().splitlines()]
    begun = [a for a in actions if a["action"] == "session"]
    assert [(a["subject"], a["record"], a["rest"]) for a in begun] == [
        ("P07", True, False),
        ("P08", True, False),
        ("", False, False),
    ]


# --- alarms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844), (800, 480)])
def test_no_alarm_is_hidden_by_the_start(bed: Bedside, visit: Visit, width: int, height: int) -> None:
    page = opened(bed, visit, width=width, height=height)
    Http(bed.page).json("POST", "/api/v1/alarms/settings", {"delay": 0})
    page.evaluate("() => document.activeElement.blur()")
    bed.pain = 0.95
    page.wait_for_selector(".alarm[data-id=pain][data-state=active]")
    for end in ("0", "document.documentElement.scrollHeight"):
        page.evaluate(f"() => scrollTo(0, {end})")
        assert page.evaluate("""() => {
          const line = document.querySelector('.alarm[data-id=pain] .text').getBoundingClientRect();
          const at = document.elementFromPoint(line.left + 5, line.top + line.height / 2);
          return line.top >= 0 && line.bottom <= innerHeight && Boolean(at?.closest('#banner'));
        }""")
    before = len(bed.page.model.marks)
    for key in ("7", "t", "r", "e"):  # of cards that are not seen
        page.keyboard.press(key)
    page.keyboard.press("a")
    page.wait_for_selector(".alarm[data-id=pain][data-state=acknowledged]")
    assert len(bed.page.model.marks) == before and bed.controls.recording.active and bed.controls.take_rest() is None
    assert page.evaluate(SHOWN)
    page.keyboard.press("Escape")
    page.wait_for_selector("#session", state="hidden")


# --- sensors --------------------------------------------------------------------------------------------------------


def test_each_sensor_has_an_instruction_until_it_is_good(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit)
    bed.poor = {"face": "face too dark or without contrast in 5 of 9 frames", "voice": "microphone dead or muted",
                "eda": "no valid EDA value for 5.5 s or more: electrode open or saturated"}  # fmt: skip
    page.click("#session-skip")
    does = {
        "face": "Turn the lamp to the face",
        "voice": "Switch the microphone on: nothing is heard",
        "eda": "Press the electrodes on: no contact",
    }
    for name in bed.task.names:
        page.wait_for_function(has("#session-advice", f"s.startsWith({json.dumps(does[name])})"))
        assert (
            page.text_content("#session-why") == bed.poor[name] and page.text_content("#session-score") == "quality —"
        )
        assert page.locator("#session-next").is_disabled()
        bed.poor = {other: why for other, why in bed.poor.items() if other != name}
        page.wait_for_function(has("#session-advice", "s === 'Good'"))
        assert page.text_content("#session-score") == "quality 93%" and page.text_content("#session-why") == ""
        if name == "voice":
            assert page.text_content("#session-level").endswith(" dB")
        page.click("#session-skip" if name == "voice" else "#session-next")
    assert page.locator("#session-steps li").nth(1).inner_text() == "2 Signals: Voice not checked"


def test_the_views_of_the_signals_are_lent_and_given_back(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit)
    where = """() => ['.face-box', '#eda-chart'].map((s) => { const n = document.querySelector(s);
      return [n.closest('.card').id, n.nextElementSibling?.className, n.checkVisibility(), n.clientWidth > 100 && n.clientHeight > 50]; })"""
    page.click("#session-skip")
    page.wait_for_function(has("#session-title", "s.startsWith('Camera')"))
    assert page.evaluate(where)[0][0] == "session" and page.evaluate(where)[0][2:] == [True, True]
    page.click("#session-skip")
    page.click("#session-skip")
    page.wait_for_function(has("#session-title", "s.startsWith('EDA')"))
    assert [card for card, *_ in page.evaluate(where)] == ["face-card", "session"]
    page.click("#session-leave")
    page.wait_for_selector("#session", state="hidden")
    assert page.evaluate(where) == [["face-card", "segmented", True, True], ["eda-card", "side", True, True]]


# --- rest -----------------------------------------------------------------------------------------------------------


def test_a_rest_counts_down_and_says_what_it_gave(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit)
    to_rest(bed, page)
    with page.expect_request(lambda r: r.url.endswith("/api/v1/rest")) as asked:
        page.click("#session-rest")
    assert asked.value.post_data_json == {"seconds": 120}
    wait_for(lambda: bed.controls.take_rest() == 120, what="the request")
    for left, shown in ((119.5, "2:00"), (61.0, "1:01"), (0.5, "0:01")):
        bed.rest = {"left": left}
        page.wait_for_function(has("#session-left", f"s === '{shown}'"))
    bed.poor = {"voice": "no speech"}
    page.wait_for_function(
        has("#session-rest-notes", "s.includes('Voice cannot be used now: Let the person say a sentence')")
    )
    bed.poor, bed.rest = {}, DONE
    page.wait_for_function(has("#session-left", "s === 'done'"))
    notes = page.text_content("#session-rest-notes")
    assert notes == "Measured: Face, EDA.Voice has no rest: usable in 19% of the rest: no speech."
    page.click("#session-next")
    page.wait_for_function(has("#session-summary", "s.includes('measured: Face, EDA')"))
    with page.expect_request(lambda r: r.url.endswith("/api/v1/session")) as begun:
        page.click("#session-next")
    assert begun.value.post_data_json == {"subject": "", "record": True, "rest": True}
    page.wait_for_function(has("#rest-state", "s.startsWith('from rest: face')"))
    Http(bed.page).json("POST", "/api/v1/session", {"subject": "P07", "record": True, "rest": True})
    page.wait_for_function(has("#rest-state", "s.startsWith('P07: from rest: face')"))


def test_a_rest_without_a_usable_signal_is_refused_with_the_reason(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit)
    to_rest(bed, page)
    page.click("#session-rest")
    bed.rest = REFUSED
    page.wait_for_function(has("#session-left", "s === 'refused'"))
    notes = page.text_content("#session-rest-notes")
    for name, why in REFUSED["refused"].items():
        assert f"{ {'face': 'Face', 'voice': 'Voice', 'eda': 'EDA'}[name] } has no rest: {why}." in notes
    assert page.locator("#session-next").is_disabled() and page.text_content("#session-rest") == "Measure again"
    # and it does not even begin where nothing could come of it
    bed.poor = dict.fromkeys(bed.task.names, "test")
    page.wait_for_function(has("#session-rest-notes", "s.includes('No rest can begin: no signal can be used.')"))
    assert page.locator("#session-rest").is_disabled()


def test_a_rest_from_before_is_not_this_persons(bed: Bedside, visit: Visit) -> None:
    bed.rest = DONE
    page = opened(bed, visit)
    to_rest(bed, page)
    page.wait_for_function(has("#session-rest-notes", "s.includes('it may be another person')"))
    assert page.text_content("#session-left") == "—" and page.locator("#session-next").is_disabled()
    page.click("#session-skip")
    with page.expect_request(lambda r: r.url.endswith("/api/v1/session")) as begun:
        page.click("#session-next")
    assert begun.value.post_data_json["rest"] is False
    wait_for(lambda: bed.controls.take_rest() == 0.0, what="the rest to be forgotten")


def test_an_answer_from_before_the_rest_does_not_count(bed: Bedside, visit: Visit) -> None:
    """The results on their way when a second rest is asked for are still about the first."""
    page = opened(bed, visit)
    bed.rest = DONE
    to_rest(bed, page)
    page.wait_for_function(has("#session-rest-notes", "s.includes('it may be another person')"))
    with bed._lock:  # no result comes meanwhile
        page.click("#session-rest")
        page.wait_for_function(has("#session-left", "s === 'starting…'"))
        assert page.locator("#session-next").is_disabled()
    bed.rest = {"left": 120.0}
    page.wait_for_function(has("#session-left", "s === '2:00'"))


# --- what may happen meanwhile ---------------------------------------------------------------------------------------


def test_a_reload_loses_nothing(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit)
    page.uncheck("#session-record")
    page.fill("#session-code", "P07")
    page.click("#session-next")
    page.click("#session-skip")
    page.wait_for_function(has("#session-title", "s.startsWith('Microphone')"))
    page.reload()
    page.wait_for_function(has("#session-title", "s.startsWith('Microphone')"))
    for _ in range(len(bed.task.names)):  # two sensors and the rest
        page.click("#session-skip")
    page.wait_for_function(has("#session-summary", "s.includes('P07') && s.includes('not checked')"))
    with page.expect_request(lambda r: r.url.endswith("/api/v1/session")) as begun:
        page.click("#session-next")
    assert begun.value.post_data_json == {"subject": "P07", "record": False, "rest": False}


def test_nothing_begins_while_the_run_hangs(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit)
    to_begin(bed, page)
    assert page.locator("#session-next").is_enabled()
    bed.hang()
    page.wait_for_function(has("#session-error", "s.startsWith('no results for')"))
    assert page.locator("#session-next").is_disabled()
    page.wait_for_selector(".alarm[data-id=stale]")


def test_a_session_begun_on_another_screen_closes_this_one(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit)
    page.fill("#session-code", "P07")
    assert Http(bed.page).json("POST", "/api/v1/session", {"subject": "P09", "record": True, "rest": False})[0] == 202
    page.wait_for_selector("#session", state="hidden")
    page.wait_for_function(has("#action-note", "s === 'a session was begun on another screen'"))
    page.click("#session-open")
    page.wait_for_function(has("#session-before", "s === 'Before: the session of P09.'"))
    assert page.input_value("#session-code") == ""


def test_what_the_server_refuses_is_said_and_the_start_stays(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit, expect=("503",))
    to_begin(bed, page)
    page.route(
        "**/api/v1/session", lambda route: route.fulfill(status=503, json={"error": "the audit log cannot be written"})
    )
    page.click("#session-next")
    page.wait_for_function(has("#session-error", "s === 'the audit log cannot be written'"))
    assert page.evaluate(SHOWN) and page.locator("#session-next").is_enabled()


def test_a_replay_has_no_session(tmp_path: Path, visit: Visit) -> None:
    bed = Bedside(tmp_path, "pain", replay="night-3")
    try:
        bed.warm_up()
        page = visit(bed.url)
        page.wait_for_function(has("#pain", "/[0-9]/.test(s)"))
        assert page.locator("#session-open").is_hidden()
        body = {"subject": "P07", "record": False, "rest": False}
        status, answer = Http(bed.page).json("POST", "/api/v1/session", body)
        assert status == 409 and "not live" in answer["error"]
    finally:
        bed.close()


def test_the_pages_pattern_is_the_servers(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit)
    assert page.get_attribute("#session-code", "pattern").replace(r"\-", "-") == SUBJECT


# --- the server -----------------------------------------------------------------------------------------------------

GIVEN = {"subject": "P07", "record": False, "rest": False}


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "Jane Doe"}, {"subject": "x" * 33}, {"subject": "../x"}, {"subject": "P07\n"}, {"subject": 7},
        {"subject": None}, {"record": 1}, {"record": "yes"}, {"rest": 0.0}, {"rest": None}, {"name": "Jane"},
        {"subject": "\ud800"},
    ],
)  # fmt: skip
def test_wrong_starts_are_refused_in_one_sentence(hand: Callable[..., Hand], change: dict[str, Any]) -> None:
    one = hand()
    status, answer = one.http.json("POST", "/api/v1/session", {**GIVEN, **change})
    assert status == 400 and list(answer) == ["error"] and "\n" not in answer["error"]
    assert one.page.model.session is None and one.controls.take_marks() == [] and one.controls.take_rest() is None
    assert not one.audit.exists() or not one.audit.read_text()


@pytest.mark.parametrize("missing", ["subject", "record", "rest"])
def test_nothing_is_assumed_of_a_start(hand: Callable[..., Hand], missing: str) -> None:
    body = {name: value for name, value in GIVEN.items() if name != missing}
    status, answer = hand().http.json("POST", "/api/v1/session", body)
    assert status == 400 and missing in answer["error"]


def test_a_start_needs_what_it_asks_for(hand: Callable[..., Hand]) -> None:
    one = hand()
    wait_for(lambda: one.page.model.run_info())
    status, answer = one.http.json("POST", "/api/v1/session", {**GIVEN, "record": True})
    assert status == 409 and "--record DIR" in answer["error"]
    one.bundle.manifest["personal"] = {"subject": "P12"}
    status, answer = one.http.json("POST", "/api/v1/session", GIVEN)
    assert status == 409 and "personalised to P12" in answer["error"] and one.page.model.session is None
    assert one.http.json("POST", "/api/v1/session", {**GIVEN, "subject": "P12"})[0] == 202
    assert one.http.json("GET", "/api/v1/state")[1]["session"]["subject"] == "P12"
    assert [text for _, text, *_ in one.controls.take_marks()] == ["session begins"]


def test_a_start_that_cannot_be_logged_does_not_happen(
    hand: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = hand()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one.page.audit, "add", full)
    status, answer = one.http.json("POST", "/api/v1/session", GIVEN)
    assert status == 503 and "nothing was done" in answer["error"]
    assert one.page.model.session is None and one.controls.take_marks() == []


def test_codes() -> None:
    for code in ("P07", "7", "a.b_c-d", "x" * 32):
        check_subject(code)
    for code in ("", "-a", ".a", "Jane Doe", "a/b", "a\n", "x" * 33, "ä"):
        with pytest.raises(ConfigError, match="1 to 32 letters"):
            check_subject(code)
    with pytest.raises(ConfigError, match="--record DIR"):
        Controls().begin_session("P07", record=True, rest=False)


def test_a_run_that_ends_during_the_start_says_so(bed: Bedside, visit: Visit) -> None:
    page = opened(bed, visit)
    to_begin(bed, page)
    bed.page.on_end(Summary(bed._bundle.id, True, True))
    page.wait_for_selector("body[data-link=ended]")
    page.wait_for_function(has("#session-error", "s === 'the run has ended'"))
    assert page.locator("#session-next").is_disabled()
