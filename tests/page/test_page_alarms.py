"""The alarms: every state meets every event, the document's table is the program's, and whole histories."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jmt_edge.errors import ConfigError
from jmt_edge.live.alarms import SIGNALS, Alarm, Alarms, AlarmSettings, Event, Priority, State, Threshold, transition

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "alarms.md"


def documented() -> dict[tuple[State, Event], str]:
    """The table of docs/reference/alarms.md: (state, event) -> cell."""
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in DOCUMENT.read_text().splitlines()
        if re.match(r"\| *(state|normal|pending|active|acknowledged|latched) *\|", line)
    ]
    head = [Event(name) for name in rows[0][1:]]
    return {(State(row[0]), event): cell for row in rows[1:] for event, cell in zip(head, row[1:])}


@pytest.mark.parametrize(("state", "event", "latching"), list(itertools.product(State, Event, (False, True))))
def test_transitions_are_those_of_the_document(state: State, event: Event, latching: bool) -> None:
    cell = documented()[state, event]
    options = re.findall(r"[a-z]+", cell.replace("(latching)", ""))
    expected = options[-1] if latching or len(options) == 1 else options[0]
    assert transition(state, event, latching=latching) is State(expected)


def test_document_covers_everything() -> None:
    assert set(documented()) == set(itertools.product(State, Event))


def test_every_state_can_be_reached_and_left() -> None:
    reached, frontier = {State.NORMAL}, [State.NORMAL]
    while frontier:
        here = frontier.pop()
        for event in Event:
            after = transition(here, event, latching=True)
            if after not in reached:
                reached.add(after)
                frontier.append(after)
    assert reached == set(State)
    for state in State:
        assert any(transition(state, event, latching=True) is not state for event in Event)


def test_signal_rates_are_the_usual_ones() -> None:
    assert SIGNALS[Priority.HIGH][0] == "red" and 1.4 <= SIGNALS[Priority.HIGH][1] <= 2.8
    assert SIGNALS[Priority.MEDIUM][0] == "yellow" and 0.4 <= SIGNALS[Priority.MEDIUM][1] <= 0.8
    assert SIGNALS[Priority.LOW] == ("cyan", 0.0)


def test_style_sheet_flashes_at_these_rates() -> None:
    style = (Path(__file__).parents[2] / "jmt_edge/live/page/static/style.css").read_text()
    for priority, name in ((Priority.HIGH, "flash-high"), (Priority.MEDIUM, "flash-medium")):
        period = re.search(rf"animation: {name} ([0-9.]+)s", style)
        assert period is not None
        assert 1 / float(period[1]) == pytest.approx(SIGNALS[priority][1], rel=1e-3)


def test_threshold_has_hysteresis() -> None:
    limit = Threshold(0.7, 0.1)
    said = [limit(v) for v in (0.69, 0.7, 0.65, 0.61, 0.59, 0.65, 0.7, None, 0.65)]
    on, off, unknown = Event.ON, Event.OFF, Event.UNKNOWN
    assert said == [off, on, on, on, off, off, on, unknown, off]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=60), st.floats(0.2, 1), st.floats(0, 0.15))
def test_threshold_never_lies(values: list[float | None], limit: float, hysteresis: float) -> None:
    judge = Threshold(limit, hysteresis)
    for value in values:
        said = judge(value)
        if value is None:
            assert said is Event.UNKNOWN
        elif value >= limit:
            assert said is Event.ON
        elif value < limit - hysteresis:
            assert said is Event.OFF


def high(delay: float = 3.0) -> Alarm:
    return Alarm("pain", "physiological", Priority.HIGH, delay)


def test_delay_must_pass_without_a_break() -> None:
    alarm = high()
    for t, event in ((0, Event.ON), (2, Event.ON), (2.5, Event.OFF), (3, Event.ON), (5.9, Event.ON)):
        alarm.feed(event, t)
        assert not alarm.signals
    assert alarm.feed(Event.ON, 6.0) and alarm.state is State.ACTIVE


def test_no_data_starts_the_delay_again() -> None:
    alarm = high()
    for t, event in ((0, Event.ON), (2, Event.UNKNOWN), (3, Event.ON), (5, Event.ON)):
        alarm.feed(event, t)
    assert alarm.state is State.PENDING


def test_high_latches_until_acknowledged() -> None:
    alarm = high(delay=0)
    alarm.feed(Event.ON, 0, "text")
    assert alarm.state is State.ACTIVE
    alarm.feed(Event.OFF, 1)
    assert alarm.state is State.LATCHED and alarm.signals and alarm.text == "text"
    alarm.acknowledge(2)
    assert alarm.state is State.NORMAL


@pytest.mark.parametrize("priority", [Priority.MEDIUM, Priority.LOW])
def test_lower_priorities_do_not_latch(priority: Priority) -> None:
    alarm = Alarm("a", "technical", priority)
    alarm.feed(Event.ON, 0)
    alarm.feed(Event.OFF, 1)
    assert alarm.state is State.NORMAL


def test_unplugging_does_not_silence_an_alarm() -> None:
    alarm = high(delay=0)
    alarm.feed(Event.ON, 0)
    alarm.feed(Event.UNKNOWN, 1)
    assert alarm.state is State.ACTIVE and alarm.no_data
    alarm.acknowledge(2)
    alarm.feed(Event.UNKNOWN, 3)
    assert alarm.state is State.NORMAL
    alarm.feed(Event.ON, 4)
    assert alarm.state is State.ACTIVE  # raised again: what was acknowledged was another episode


def test_latched_alarm_says_from_when_to_when_and_how_high() -> None:
    alarms = Alarms()
    alarms.add(high(delay=3))
    for t, value in ((0, 0.72), (1, 0.95), (4, 0.8), (5, 0.65), (6, 0.4)):
        event, lingers = Event.ON if value > 0.6 else Event.OFF, value < 0.7
        alarms.alarms["pain"].feed(event, t, "is", past="was", value=value, lingers=lingers)
    (shown,) = alarms.snapshot(60, epoch=1000)["alarms"]
    assert shown["text"] == "was" and shown["state"] == "latched"
    assert (shown["from"], shown["to"], shown["peak"], shown["times"]) == (1000, 1004, 0.95, 1)
    # a second episode that nobody has seen either: it speaks for itself while it lasts, then of both
    alarms.alarms["pain"].feed(Event.ON, 100, "is", past="was", value=0.75)
    (shown,) = alarms.snapshot(101, epoch=1000)["alarms"]
    assert (shown["text"], shown["from"], shown["to"]) == ("is", 1100, None)
    alarms.alarms["pain"].feed(Event.OFF, 110)
    (shown,) = alarms.snapshot(111, epoch=1000)["alarms"]
    assert (shown["from"], shown["to"], shown["peak"], shown["times"]) == (1000, 1100, 0.95, 2)
    alarms.acknowledge(112)
    alarms.alarms["pain"].feed(Event.ON, 200, "is", past="was", value=0.71)
    alarms.alarms["pain"].feed(Event.ON, 204, "is", past="was", value=0.71)
    (shown,) = alarms.snapshot(205)["alarms"]
    assert (shown["from"], shown["times"], shown["peak"]) == (200, 1, 0.71)  # what was seen is forgotten


@given(
    st.lists(
        st.tuples(st.sampled_from([Event.ON, Event.OFF, Event.UNKNOWN, Event.ACK]), st.floats(0.1, 5)), max_size=50
    )
)
def test_high_alarm_ends_only_by_acknowledgement(history: list[tuple[Event, float]]) -> None:
    alarm, now, unseen = high(delay=1.0), 0.0, False
    for event, step in history:
        now += step
        if event is Event.ACK:
            alarm.acknowledge(now)
            unseen = False
        else:
            alarm.feed(event, now)
        unseen |= alarm.state is State.ACTIVE
        assert alarm.signals == unseen


def test_pause_silences_but_hides_nothing() -> None:
    alarms = Alarms()
    alarms.add(high(delay=0))
    alarms.alarms["pain"].feed(Event.ON, 0, "pain")
    assert alarms.snapshot(0)["signal"] == {"priority": "high", "colour": "red", "flash_hz": 2.0, "sound": True}
    alarms.pause(120, 10)
    shown = alarms.snapshot(70)
    assert shown["pause_left"] == 60 and shown["signal"]["flash_hz"] == 0 and not shown["signal"]["sound"]
    assert [a["text"] for a in shown["alarms"]] == ["pain"]
    assert alarms.snapshot(130)["signal"]["sound"]  # over by itself
    alarms.pause(120, 140)
    alarms.resume()
    assert alarms.snapshot(141)["pause_left"] == 0


@pytest.mark.parametrize("seconds", [0, -1, 121, float("nan")])
def test_pause_is_bounded(seconds: float) -> None:
    with pytest.raises(ConfigError, match="paused for up to 120 s"):
        Alarms().pause(seconds, 0)


def test_gravest_alarm_comes_first() -> None:
    alarms = Alarms()
    for id, priority in (("low", Priority.LOW), ("high", Priority.HIGH), ("medium", Priority.MEDIUM)):
        alarms.add(Alarm(id, "technical", priority))
        alarms.alarms[id].feed(Event.ON, 0)
    assert [a["id"] for a in alarms.snapshot(0)["alarms"]] == ["high", "medium", "low"]
    assert alarms.acknowledge(1, "high") == ["high"]
    assert alarms.snapshot(1)["signal"]["priority"] == "medium"
    assert alarms.acknowledge(2) == ["low", "medium"]
    assert alarms.snapshot(2)["signal"]["priority"] == "" and len(alarms.snapshot(2)["alarms"]) == 3
    with pytest.raises(ConfigError, match="there is no alarm"):
        alarms.acknowledge(3, "none")


@pytest.mark.parametrize(
    "wrong",
    [{"limit": 0.0}, {"limit": 1.1}, {"hysteresis": 0.7}, {"hysteresis": -0.1}, {"delay": 61.0}, {"delay": -1.0}],
)
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        AlarmSettings(**wrong).check()
