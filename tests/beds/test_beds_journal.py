"""Numbers without a network: what a bed sends and sends again, and what a station makes of what arrives."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmt_edge.beds.broker import check_bed, parse_broker
from jmt_edge.beds.journal import LATE, Journal
from jmt_edge.beds.ward import FORGET, MAX_BEDS, QUIET, Track, Ward
from jmt_edge.errors import ConfigError

RUN = "0123456789a-00000001"
LATER = "0123456789b-00000002"


def sent(journal: Journal, now: float) -> dict[str, Any] | None:
    """What the journal would send now, as it arrives."""
    message = journal.next(now)
    if message is None:
        return None
    got: dict[str, Any] = json.loads(journal.encode(message, now))
    return got


# ---- the bed's half


def test_what_is_new_goes_before_what_is_late() -> None:
    journal = Journal(RUN)
    for i in range(5):
        journal.add("result", {"i": i}, 100.0 + i, float(i))
    journal.add("result", {"i": 5}, 160.0, 60.0)
    got = [sent(journal, 60.0) for _ in range(7)]
    assert [m and m["seq"] for m in got] == [6, 1, 2, 3, 4, 5, None]
    assert [m["late"] for m in got if m] == [False, *[True] * 5]
    assert got[1] == {"v": 1, "run": RUN, "seq": 1, "first": 1, "at": 100.0, "late": True, "result": {"i": 0}}


def test_what_the_broker_did_not_confirm_is_sent_again_and_says_so() -> None:
    journal = Journal(RUN)
    for i in range(3):
        journal.add("alarm", {"i": i}, 0.0, 0.0)
    first = [sent(journal, 0.1) for _ in range(3)]
    assert [m["late"] for m in first if m] == [False] * 3
    journal.taken(2)
    journal.disconnected()
    again = [sent(journal, 0.2) for _ in range(3)]
    assert [(m["seq"], m["late"]) if m else None for m in again] == [(1, True), (3, True), None]


def test_what_somebody_misses_is_repeated_once() -> None:
    journal = Journal(RUN)
    for _ in range(3):
        journal.add("result", {}, 0.0, 0.0)
    while (m := sent(journal, 0.0)) is not None:
        if m["seq"] < 3:
            journal.taken(m["seq"])
    journal.again([1, 1, 3, 99])  # 3 is on its way, and there is no 99
    journal.again([1])
    m = sent(journal, 0.0)
    assert m is not None and (m["seq"], m["late"]) == (1, True)
    assert sent(journal, 0.0) is None


def test_a_full_journal_loses_the_oldest_and_counts_what_nobody_had() -> None:
    journal, taken = Journal(RUN, keep=1000), 0
    for i in range(100):
        journal.add("result", {"text": "x" * 80}, 0.0, 0.0)
        while i == 49 and (m := sent(journal, 0.0)) is not None:
            journal.taken(m["seq"])
            taken += 1
    assert journal.last == 100 and journal.first > 85 and taken > 5
    assert journal.lost + journal.waiting == 100 - taken
    m = sent(journal, LATE + 1)
    assert m is not None and m["seq"] == m["first"] == journal.first


def test_a_broker_that_is_away_for_days_costs_no_more_memory_than_one_for_an_hour() -> None:
    journal = Journal(RUN, keep=10_000)
    for i in range(20_000):
        journal.add("result", {"i": i}, 0.0, 0.0)
        if i == 5000:
            sent(journal, 100.0)  # it was there for a moment
            journal.disconnected()
    assert len(journal._all) < 2000 and len(journal._fresh) + len(journal._late) <= len(journal._all) + 1


# ---- the station's half


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_each_number_counts_once_however_it_arrives(seed: int) -> None:
    """A lossy, repeating, reordering way, and a bed that is asked again: an independent set says what arrived."""
    rng = random.Random(seed)
    track, journal, now = Track(), Journal(RUN), 0.0
    arrived: list[int] = []
    way: list[dict[str, Any]] = []

    def deliver(m: dict[str, Any]) -> None:
        if track.take(m["seq"], m["first"], now):
            arrived.append(m["seq"])

    journal.add("result", {}, 0.0, now)
    deliver(sent(journal, now) or {})  # the listener is there from the first
    journal.taken(1)
    for step in range(60):
        now += 1.0
        journal.add("result", {"step": step}, 0.0, now)
        while (m := sent(journal, now)) is not None:
            way.append(m)
            journal.taken(m["seq"])
        rng.shuffle(way)
        for m in way[: rng.randrange(len(way) + 1)]:
            way.remove(m)
            for _ in range(rng.choice((0, 1, 1, 2))):  # lost, once, twice
                deliver(m)
    for m in way:
        deliver(m)
    for _ in range(50):
        now += 20.0
        track.expect(journal.last, now)
        for message in (journal._all[seq] for seq in track.to_ask(now + 5)):
            deliver(json.loads(journal.encode(message, now)))
    assert sorted(arrived) == list(range(1, 62))
    assert not track.missing and track.lost == 0


def test_what_a_bed_no_longer_has_is_lost_not_waited_for() -> None:
    track = Track()
    assert track.take(1, 1, 0.0) and track.take(10, 1, 0.0)
    assert track.to_ask(0.5) == [] and track.to_ask(4.0) == list(range(2, 10)) and track.to_ask(5.0) == []
    assert track.take(4, 4, 6.0) and not track.take(4, 4, 6.0)
    assert (track.lost, track.repeated, list(track.missing)) == (2, 1, [5, 6, 7, 8, 9])


def envelope(kind: str, body: dict[str, Any], seq: int = 1, run: str = RUN, late: bool = False) -> bytes:
    head = {"v": 1, "run": run, "seq": seq, "first": 1, "at": time.time(), "late": late}
    return json.dumps({**head, kind: body}).encode()


def status(state: str, run: str = RUN, **more: Any) -> bytes:
    return json.dumps({"state": state, "reason": "why", "run": run, "at": time.time(), **more}).encode()


PAIN = {"outputs": {"pain": 0.42}, "reason": ""}


def tile(ward: Ward, now: float, bed: str = "1") -> dict[str, Any]:
    ward.judge(now)
    (found,) = [one for one in ward.snapshot(now)["beds"] if one["name"] == bed]
    return dict(found)


def test_a_bed_that_falls_silent_is_an_alarm_and_its_number_goes() -> None:
    ward = Ward("w")
    ward.take("w/1/status", status("live"), 0.0)
    assert tile(ward, 0.1)["state"] == "starting"
    ward.take("w/1/result", envelope("result", PAIN), 1.0)
    seen = tile(ward, 1.1)
    assert (seen["state"], seen["outputs"], seen["own"]) == ("live", {"pain": 0.42}, [])
    seen = tile(ward, 1.0 + QUIET + 0.1)
    assert (seen["state"], seen["outputs"], seen["own"], seen["signals"]) == ("lost", None, ["lost"], True)
    assert ward.acknowledge(7.0, "1") == ["lost 1"] and not tile(ward, 7.1)["signals"]
    ward.take("w/1/result", envelope("result", PAIN, 2), 8.0)
    assert tile(ward, 8.1)["state"] == "live" and tile(ward, 8.1)["own"] == []


def test_the_last_will_of_a_bed_is_heard_at_once_unless_it_is_there_again() -> None:
    ward = Ward("w")
    ward.take("w/1/result", envelope("result", PAIN), 1.0)
    ward.take("w/1/status", status("lost", at=None), 1.2)
    assert tile(ward, 1.3)["lost"] == "why"
    ward.take("w/1/status", status("live", run=LATER), 2.0)
    ward.take("w/1/result", envelope("result", PAIN, 1, LATER), 2.1)
    ward.take("w/1/status", status("lost", at=None), 2.2)  # of the run before
    assert tile(ward, 2.3)["state"] == "live"


def test_late_results_are_counted_and_never_shown_as_new() -> None:
    ward = Ward("w")
    ward.take("w/1/result", envelope("result", PAIN, 5), 1.0)
    ward.take("w/1/result", envelope("result", {"outputs": {"pain": 0.9}, "reason": ""}, 6, late=True), 20.0)
    seen = tile(ward, 20.1)
    assert (seen["state"], seen["outputs"], seen["late"], seen["results"]) == ("lost", None, 1, 2)


def test_a_run_that_ended_in_order_is_not_an_alarm_and_is_forgotten() -> None:
    ward = Ward("w")
    ward.take("w/1/result", envelope("result", PAIN), 1.0)
    ward.take("w/1/status", status("ended", last=3), 2.0)
    seen = tile(ward, 60.0)
    assert (seen["state"], seen["own"], seen["missing"]) == ("ended", [], 2)
    assert ward.to_ask(60.0) == {"w/1/again": {"run": RUN, "seqs": [2, 3]}}
    ward.judge(3.0 + FORGET)
    assert ward.beds == {} and set(ward.alarms.alarms) == {"broker"}
    long_ago = status("ended", at=time.time() - FORGET - 1)
    ward.take("w/2/status", long_ago, time.monotonic())  # retained
    assert ward.beds == {}
    ward.take("w/3/result", envelope("result", PAIN), 1.0)
    ward.take("w/3/status", b"", 2.0)  # somebody removed it
    assert ward.beds == {}


def test_two_units_of_one_name_are_an_alarm() -> None:
    ward = Ward("w")
    for seq in (1, 2):
        for run in (RUN, LATER):
            ward.take("w/1/result", envelope("result", PAIN, seq, run), float(seq))
    assert "two" in tile(ward, 2.5)["own"]


@pytest.mark.parametrize("state", ["ended", "failed", "lost", "silent"])
def test_a_run_of_an_earlier_clock_is_shown_once_the_newest_has_ended(state: str) -> None:
    """The unit's clock was ahead and was set right: its next run has the smaller name."""
    ward = Ward("w")
    ward.take("w/1/result", envelope("result", PAIN, 1, LATER), 1.0)
    if state != "silent":
        ward.take("w/1/status", status(state, run=LATER), 2.0)
    now = 3.0 + QUIET
    ward.take("w/1/result", envelope("result", {"outputs": {"pain": 0.95}, "reason": ""}), now)
    seen = tile(ward, now + 0.1)
    assert (seen["state"], seen["outputs"], seen["own"]) == ("live", {"pain": 0.95}, [])
    ward.take("w/1/status", status("lost", run=RUN), now + 0.2)
    assert tile(ward, now + 0.3)["own"] == ["lost"]


def test_a_run_that_broke_off_stays_an_alarm() -> None:
    ward = Ward("w")
    ward.take("w/1/result", envelope("result", PAIN), 1.0)
    ward.take("w/1/status", status("failed"), 2.0)
    assert "broke off" in tile(ward, 10 * FORGET)["lost"] and ward.beds["1"].over()
    ward.take("w/2/status", status("failed", at=time.time() - 2 * FORGET), time.monotonic())  # before this station
    assert "2" in ward.beds


def test_a_bed_lost_without_a_reason_is_lost() -> None:
    ward = Ward("w")
    ward.take("w/1/result", envelope("result", PAIN), 1.0)
    ward.take("w/1/status", json.dumps({"state": "lost", "reason": "", "run": RUN, "at": None}).encode(), 1.2)
    assert (tile(ward, 1.3)["state"], tile(ward, 1e5)["outputs"]) == ("lost", None)


def test_one_alarm_says_that_the_broker_is_away() -> None:
    ward = Ward("w")
    for bed in "123":
        ward.take(f"w/{bed}/result", envelope("result", PAIN), 1.0)
    ward.judge(1.5)
    ward.broker = "connection refused"
    ward.judge(60.0)
    seen = ward.snapshot(60.0)
    assert [alarm["id"] for alarm in seen["alarms"]] == ["broker"]
    assert all(bed["state"] == "lost" and bed["outputs"] is None for bed in seen["beds"])


# Numbered: with the time of their making in it, the names would differ from process to process.
@pytest.mark.parametrize("payload", [
    b"x", b"[]", b"null", b"\xff", b"9" * 5000, b"[" * 90_000, b"{}", status("fine"), status("live", run="x"),
    envelope("result", {"outputs": {"pain": "high"}, "reason": ""}), envelope("result", {"outputs": {"pain": 1e999}}),
    envelope("result", {"outputs": {"pain": 57}, "reason": ""}), envelope("result", {"outputs": {"valence": -1.1}}),
    envelope("result", {"outputs": {"pain": 10**400}, "reason": ""}),
    envelope("result", PAIN, seq=0), envelope("result", PAIN, run=7), b'{"result": 1' + b" " * (1 << 18) + b"}",
], ids=(f"{i}" for i in range(17)))  # fmt: skip
@pytest.mark.parametrize("topic", ["result", "alarm", "alarms", "config", "status", "quality"])
def test_bytes_of_strangers_change_nothing(topic: str, payload: bytes) -> None:
    ward = Ward("w")
    ward.take("w/1/result", envelope("result", PAIN), 1.0)
    before = tile(ward, 1.1)
    ward.take(f"w/1/{topic}", payload, 1.1)
    ward.take(f"w/9/{topic}", payload, 1.1)
    assert tile(ward, 1.1) == before and list(ward.beds) == ["1"]
    assert ward.refused == (0 if (topic, payload) == ("quality", b"{}") else 2)


def config(**more: Any) -> bytes:
    known = {"hop": 0.5, "task": "pain", "notice": "n", "demo": True, "bundle": "b", "alarms_off": "", "limit": 0.7}
    return json.dumps({**known, "outputs": ["pain"], **more}).encode()


def test_files_at_full_speed_are_not_shown_as_a_bed_that_is_watched() -> None:
    ward = Ward("w")
    ward.take("w/1/config", config(realtime=False), 0.9)
    ward.take("w/1/result", envelope("result", PAIN), 1.0)
    seen = tile(ward, 1.1)
    assert (seen["state"], seen["alarms_off"]) == ("files", "not live, but files at full speed")
    ward.take("w/1/config", config(realtime=True), 1.2)
    assert (tile(ward, 1.3)["state"], tile(ward, 1.3)["alarms_off"]) == ("live", "")


def test_what_ended_long_ago_takes_no_place() -> None:
    ward = Ward("w")
    now, long_ago = time.monotonic(), time.time() - FORGET - 1
    for i in range(MAX_BEDS):
        ward.take(f"w/old {i}/config", config(), now)
        ward.take(f"w/old {i}/status", status("ended", at=long_ago), now)
    ward.take("w/12/result", envelope("result", PAIN), now)
    assert list(ward.beds) == ["12"] and ward.refused == 0


def test_the_number_of_beds_is_bounded() -> None:
    ward = Ward("w")
    for i in range(MAX_BEDS + 5):
        ward.take(f"w/{i}/result", envelope("result", PAIN), 1.0)
    assert (len(ward.beds), ward.refused) == (MAX_BEDS, 5)
    assert list(ward.beds)[:12] == [str(i) for i in range(12)]  # bed 2 before bed 10


# ---- addresses


def test_addresses() -> None:
    broker = parse_broker("mqtt://unit@broker.ward/ward%203/east", environment={"JMT_EDGE_MQTT_PASSWORD": "s"})
    assert (broker.host, broker.port, broker.prefix, broker.user, broker.password) == (
        "broker.ward", 1883, "ward 3/east", "unit", "s")  # fmt: skip
    assert "password" not in repr(broker) and "without encryption" in broker.warning
    assert parse_broker("mqtts://[::1]", environment={}).port == 8883
    assert parse_broker("mqtt://127.0.0.1", environment={}).warning == ""


@pytest.mark.parametrize(("url", "why"), [
    ("broker.ward", "not an MQTT address"), ("http://a", "not an MQTT address"), ("mqtt://", "not an MQTT address"),
    ("mqtt://a:99999", "not an MQTT address"), ("mqtt://a:b@c", "seen by every user"), ("mqtt://a/b/+", "no +"),
    ("mqtt://a/b#c", "not an MQTT address"), ("mqtt://a/$SYS", "leading"),
])  # fmt: skip
def test_bad_addresses_are_one_sentence_without_a_password(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why.replace("+", r"\+")) as error:
        parse_broker(url, environment={})
    assert "b@c" not in str(error.value)


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", " 1", "x" * 49, "a\nb"])
def test_bad_names_of_beds(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a bed"):
        check_bed(name)


def test_passwords_of_a_file(tmp_path: Any) -> None:
    (tmp_path / "p").write_text("secret\n")
    assert parse_broker("mqtt://u@a", tmp_path / "p", environment={}).password == "secret"
    (tmp_path / "empty").write_text("\n")
    for name, why in (("none", "cannot be read"), ("empty", "is empty")):
        with pytest.raises(ConfigError, match=why):
            parse_broker("mqtt://u@a", tmp_path / name, environment={})
    with pytest.raises(ConfigError, match="needs a user name"):
        parse_broker("mqtt://a", tmp_path / "p", environment={})
    with pytest.raises(ConfigError, match="mqtts://"):
        parse_broker("mqtt://a", None, tmp_path / "ca.pem", environment={})
    with pytest.raises(ConfigError, match="certificates"):
        parse_broker("mqtts://a", None, tmp_path / "ca.pem", environment={})
