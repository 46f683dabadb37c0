"""Beds, a real broker and a station, in this process and from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from beds_fixture import Mosquitto, result, wait_for

from jmt_edge.beds import publisher
from jmt_edge.beds.broker import Broker, parse_broker
from jmt_edge.beds.listener import Listener
from jmt_edge.beds.publisher import Publisher
from jmt_edge.beds.ward import Bed, Ward

pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")

NONE: dict[str, Any] = {"alarms": []}
Start = Callable[..., Mosquitto]
SIMULATED = ("--task", "pain", "--camera", "sim:fps=8&size=320x240&seed=3", "--eda", "sim:seed=3", "--threads", "1")


class Station:
    """A listener, and everything that it passed on: (bed, kind, seq, late)."""

    def __init__(self, broker: Broker) -> None:
        self.got: list[tuple[str, str, int, bool]] = []
        self.alarms: list[tuple[str, dict[str, Any]]] = []
        self.ward = Ward(broker.prefix, self._on_message)
        self.listener = Listener(broker, self.ward)
        self.listener.start()

    def _on_message(self, bed: Bed, kind: str, message: dict[str, Any], late: bool) -> None:
        self.got.append((bed.name, kind, message["seq"], late))
        if kind == "alarm":
            self.alarms.append((bed.name, message))

    def tile(self, bed: str) -> dict[str, Any] | None:
        with self.listener.lock:
            found = [one for one in self.ward.snapshot(time.monotonic())["beds"] if one["name"] == bed]
        return found[0] if found else None


@pytest.fixture
def station_of() -> Iterator[Callable[[Broker], Station]]:
    made: list[Station] = []

    def make(broker: Broker) -> Station:
        made.append(Station(broker))
        return made[-1]

    yield make
    for one in made:
        one.listener.close()


def alarm(state: str) -> dict[str, str]:
    return {"id": "pain", "kind": "physiological", "priority": "high", "state": state, "text": "Pain", "detail": ""}


def test_nothing_is_lost_or_doubled_while_the_broker_dies_twice(
    start_broker: Start, station_of: Callable[[Broker], Station]
) -> None:
    """The broker keeps nothing on disk, so what it had taken and not passed on is gone with it."""
    mosquitto = start_broker()
    broker = parse_broker(mosquitto.url(), environment={})
    station = station_of(broker)
    beds = [Publisher(broker, f"bed {i}") for i in range(3)]
    for bed in beds:
        bed.start()
    wait_for(lambda: all(station.tile(bed.bed) for bed in beds), what="the beds")
    stop = threading.Event()
    made = 0

    def work() -> None:
        nonlocal made
        while not stop.wait(0.02):
            made += 1
            for bed in beds:
                bed.add("result", {"index": made, **result(made).to_dict()})
                if made % 5 == 0:
                    bed.add("alarm", alarm("active" if made % 10 else "normal"))

    thread = threading.Thread(target=work)
    thread.start()
    for down in (0.3, 3.0):
        wait_for(lambda: not station.ward.broker and time.sleep(1.5) is None)
        mosquitto.kill()
        wait_for(lambda: station.ward.broker, what="the station to notice")
        time.sleep(down)
        mosquitto.start()
        wait_for(lambda: not station.ward.broker, what="the station's connection")
    time.sleep(1.0)
    stop.set()
    thread.join()
    assert [bed.close() for bed in beds] == [0, 0, 0]
    wanted = made + made // 5
    wait_for(lambda: all((station.tile(bed.bed) or {})["state"] == "ended" for bed in beds))
    wait_for(lambda: len(station.got) >= 3 * wanted)
    for bed in beds:
        seqs = [seq for name, _, seq, _ in station.got if name == bed.bed]
        assert sorted(seqs) == list(range(1, wanted + 1))  # each once
        assert bed.connections == 3
        seen = station.tile(bed.bed) or {}
        assert (seen["missing"], seen["gone"], seen["edges"]) == (0, 0, made // 5)
    late = [entry for entry in station.got if entry[3]]
    assert 0 < len(late) < len(station.got)


def test_what_a_hanging_connection_left_in_the_inbox_was_not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor was what a full inbox dropped; a retained topic's content is no message that anybody misses."""
    for name, value in (("FAREWELL", 0.1), ("STAY", 0.0), ("REUNION", 0.0), ("GRACE", 0.0), ("INBOX", 30)):
        monkeypatch.setattr(publisher, name, value)
    hangs = threading.Event()
    monkeypatch.setattr(Publisher, "_connect", lambda self: hangs.wait())
    monkeypatch.setattr(Publisher, "_serve", lambda self: None)
    bed = Publisher(parse_broker("mqtt://127.0.0.1:1", environment={}), "7")
    bed.start()
    for i in range(1, 41):
        bed.add("result", {"index": i})
        bed.keep("quality", {"index": i})
    assert len(bed._inbox) == 30 and bed.close() == 40
    hangs.set()


def test_a_unit_that_dies_is_reported_by_the_broker_and_one_that_ends_says_so(
    start_broker: Start, station_of: Callable[[Broker], Station]
) -> None:
    mosquitto = start_broker()
    broker = parse_broker(mosquitto.url(), environment={})
    station = station_of(broker)
    code = (
        "import sys, time\n"
        "from jmt_edge.beds.publisher import Publisher; from jmt_edge.beds.broker import parse_broker\n"
        "bed = Publisher(parse_broker(sys.argv[1]), '7'); bed.start(); bed.keep('alarms', {'alarms': []})\n"
        "sys.path.insert(0, sys.argv[2]); from beds_fixture import result\n"
        "for i in range(1, 10**6):\n"
        "    bed.add('result', {'index': i, **result(i).to_dict()}); time.sleep(0.1)\n"
    )
    unit = subprocess.Popen([sys.executable, "-c", code, mosquitto.url(), str(Path(__file__).parent)])
    try:
        wait_for(lambda: (station.tile("7") or {}).get("state") == "live", what="the bed")
    finally:
        unit.kill()
        unit.wait()
    seen = wait_for(lambda: (tile := station.tile("7")) and tile["own"] and tile, what="the alarm")
    assert (seen["state"], seen["own"], seen["outputs"]) == ("lost", ["lost"], None)
    assert "connection to the broker" in seen["lost"]  # the broker said it, before its silence did


def test_tls_and_a_password(tmp_path: Path, start_broker: Start, station_of: Callable[[Broker], Station]) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True,
    )  # fmt: skip
    passwords = tmp_path / "passwords"
    passwords.touch(0o600)
    subprocess.run(["mosquitto_passwd", "-b", passwords, "unit", "secret"], check=True, capture_output=True)
    mosquitto = start_broker(
        f"certfile {cert}", f"keyfile {key}", "allow_anonymous false", f"password_file {passwords}"
    )
    (tmp_path / "secret").write_text("secret\n")
    broker = parse_broker(mosquitto.url("w", "unit", "mqtts"), tmp_path / "secret", cert)
    station = station_of(broker)
    bed = Publisher(broker, "1")
    bed.start()
    wait_for(lambda: station.tile("1"), what="the subscription")  # who comes later does not ask for what was before
    for i in range(300):  # more than one TLS record holds
        bed.add("result", {"index": i, **result(i).to_dict()})
    wait_for(lambda: len(station.got) == 300)
    assert bed.close() == 0
    wrong = station_of(parse_broker(mosquitto.url("w", "unit", "mqtts"), None, cert, {"JMT_EDGE_MQTT_PASSWORD": "no"}))
    wait_for(lambda: "not authori" in wrong.ward.broker)
    stranger = station_of(parse_broker(mosquitto.url("w", "unit", "mqtts"), tmp_path / "secret"))
    wait_for(lambda: "certificate" in stranger.ward.broker.lower())


def test_a_listener_that_comes_later_knows_what_there_is(
    start_broker: Start, station_of: Callable[[Broker], Station]
) -> None:
    mosquitto = start_broker()
    broker = parse_broker(mosquitto.url(), environment={})
    bed = Publisher(broker, "4")
    bed.keep("alarms", {"alarms": [alarm("active")], "signal": "high"})
    bed.keep("quality", {"face": {"ok": True, "reason": ""}, "eda": {"ok": False, "reason": "open"}})
    bed.start()
    bed.add("result", {"index": 1, **result(1).to_dict()})
    station = station_of(broker)
    wait_for(lambda: station.tile("4"))
    bed.add("result", {"index": 2, **result(2, 0.8).to_dict()})
    seen = wait_for(lambda: (tile := station.tile("4")) and tile["outputs"] == {"pain": 0.8} and tile)
    assert seen["alarms"][0]["id"] == "pain"
    assert not seen["quality"]["eda"]["ok"] and seen["gone"] == 0
    bed.close()


# ---- the commands


def run_live(*more: str, environment: dict[str, str] | None = None, timeout: float = 120) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "jmt_edge", "live", *SIMULATED, "--output", "none", *more], capture_output=True,
        text=True, timeout=timeout, env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )  # fmt: skip


def listen(mosquitto: Mosquitto, topic: str, retained: bool = False) -> subprocess.Popen[str]:
    """What an independent program receives: `topic payload` lines."""
    command = ["mosquitto_sub", "-p", str(mosquitto.port), "-t", topic, "-v", "-q", "1"]
    return subprocess.Popen([*command, *(["--retained-only"] if retained else [])], stdout=subprocess.PIPE, text=True)


def test_a_live_run_publishes_what_it_is_and_what_it_finds(start_broker: Start, tmp_path: Path) -> None:
    """Read by another program: every result of the run once, in order; alarms; retained topics; the end."""
    mosquitto = start_broker()
    heard = listen(mosquitto, "#")
    time.sleep(1.0)
    done = run_live(
        "--duration", "9", "--mqtt", mosquitto.url("hospital/ward-3"), "--bed", "Bed 12", "--mqtt-discovery",
        "--record", str(tmp_path / "r"), "--novelty", "off",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mqtt: connected to mqtt://127.0.0.1" in done.stderr
    time.sleep(1.0)
    heard.terminate()
    lines = [line.partition("} ")[0] for line in (heard.stdout or []) if line.strip()]
    got: dict[str, list[Any]] = {}
    for line in lines:
        topic, payload = line.split(" {", 1) if " {" in line else (line, "")
        got.setdefault(topic.strip(), []).append(json.loads("{" + payload))
    base = "hospital/ward-3/Bed 12"
    results = [m["result"] for m in got[f"{base}/result"]]
    recorded = [json.loads(line) for line in (tmp_path / "r" / "results.jsonl").read_text().splitlines()]
    assert [m["t"] for m in results] == [m["t"] for m in recorded if "t" in m]
    assert not any(m["late"] for m in got[f"{base}/result"])
    seqs = [m["seq"] for kind in ("result", "alarm") for m in got.get(f"{base}/{kind}", [])]
    assert sorted(seqs) == list(range(1, len(seqs) + 1))
    assert [m["state"] for m in got[f"{base}/status"]] == ["live", "ended"]
    assert got[f"{base}/status"][-1]["last"] == len(seqs)
    (config,) = got[f"{base}/config"]
    assert config["demo"] is True and "not for clinical use" in config["notice"] and config["outputs"] == ["pain"]
    sensor = next(v[0] for k, v in got.items() if k.startswith("homeassistant/sensor/") and "/pain/" in k)
    assert sensor["state_topic"] == f"{base}/result" and sensor["availability_topic"] == f"{base}/status"
    kept = listen(mosquitto, "#", retained=True)
    time.sleep(1.0)
    kept.terminate()
    topics = {line.split(" {")[0] for line in kept.stdout or []}
    assert {f"{base}/{name}" for name in ("status", "config", "alarms", "quality")} <= topics
    assert not any(topic.endswith(("/result", "/alarm")) for topic in topics)


def test_a_run_without_its_broker_works_and_says_what_was_not_delivered(tmp_path: Path) -> None:
    done = run_live("--duration", "7", "--mqtt", "mqtt://127.0.0.1:9/w", "--bed", "1", "--speed", "max")
    assert done.returncode == 0, done.stderr
    assert "is away: connection refused; results are kept" in done.stderr.lower()
    assert "messages were not delivered" in done.stderr and "results" in done.stderr


def test_the_station_command_serves_what_it_hears(start_broker: Start) -> None:
    mosquitto = start_broker()
    bed = Publisher(parse_broker(mosquitto.url(), environment={}), "9")
    bed.start()
    station = subprocess.Popen(
        [sys.executable, "-m", "jmt_edge", "station", "--mqtt", mosquitto.url(), "--page", "127.0.0.1:0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert station.stderr is not None
        url = next(line for line in station.stderr if line.startswith("page: ")).split()[1]

        def read(path: str) -> str:
            return urllib.request.urlopen(url + path, timeout=10).read().decode()  # type: ignore[no-any-return]

        wait_for(lambda: '"9"' in read("api/v1/beds"))
        bed.add("result", {"index": 1, **result(1, 0.61).to_dict()})
        seen = wait_for(lambda: [b for b in json.loads(read("api/v1/beds"))["beds"] if b["outputs"]])
        assert seen[0]["outputs"] == {"pain": 0.61}
        text = read("metrics")
        assert 'jmt_edge_bed_up{bed="9"} 1' in text and 'jmt_edge_bed_output{bed="9",name="pain"} 0.61' in text
        assert "not for clinical use" in read("")
    finally:
        station.send_signal(signal.SIGTERM)
    assert station.wait(20) == 0
    bed.close()


# ---- a unit's alarms


def edges_of(station: Station, bed: str) -> list[tuple[str, str, str]]:
    """(alarm, state before, state) in the order of their numbers, of the pain alarm."""
    found = {m["seq"]: m["alarm"] for name, m in station.alarms if name == bed and m["alarm"]["id"] == "pain"}
    return [(alarm["id"], alarm["before"], alarm["state"]) for _, alarm in sorted(found.items())]


def test_alarms_are_judged_and_sent_where_there_is_no_page(
    start_broker: Start, station_of: Callable[[Broker], Station], tmp_path: Path
) -> None:
    from live_fixture import Watched
    from page_fixture import empty_bundle

    from jmt_edge.beds.unit import BedUnit
    from jmt_edge.live import Controls, RunInfo
    from jmt_edge.summary import Summary
    from jmt_edge.tasks import get_task

    mosquitto = start_broker()
    broker = parse_broker(mosquitto.url(), environment={})
    station = station_of(broker)
    bundle = empty_bundle(get_task("pain", "demo"), tmp_path / "b.jmt")
    unit = Watched(Controls(), lambda judge: BedUnit(broker, "1", judge))
    sources = dict.fromkeys(bundle.task.names, "sim:")
    unit.on_start(RunInfo(bundle, "hand", {}, 0.5, True, 0.0, sources, origin=time.monotonic()))
    count = 0

    def until(pain: float, state: str) -> None:
        nonlocal count
        end = time.monotonic() + 60
        while not any((one["id"], one["state"]) == ("pain", state) for one in (station.tile("1") or NONE)["alarms"]):
            count += 1
            unit.on_result(result(count, pain))
            assert time.monotonic() < end, state
            time.sleep(0.1)

    until(0.9, "active")
    until(0.1, "latched")  # of high priority: it stays until a person has seen it
    unit.on_end(Summary(bundle.id, True, True))
    wait_for(lambda: (station.tile("1") or {})["state"] == "ended")
    assert edges_of(station, "1") == [("pain", "pending", "active"), ("pain", "active", "latched")]
    results = [seq for _, kind, seq, _ in station.got if kind == "result"]
    assert len(results) == count


def test_with_a_page_both_have_one_set_of_alarms(
    start_broker: Start, station_of: Callable[[Broker], Station], tmp_path: Path
) -> None:
    """A person who acknowledges on the bedside page acknowledges for the station."""
    from page_fixture import Http, empty_bundle

    from jmt_edge.beds.unit import BedUnit
    from jmt_edge.live import Controls, RunInfo
    from jmt_edge.live.page import start_page
    from jmt_edge.summary import Summary
    from jmt_edge.tasks import get_task

    pytest.importorskip("uvicorn", reason="the page's packages are not installed")
    mosquitto = start_broker()
    broker = parse_broker(mosquitto.url(), environment={})
    station = station_of(broker)
    bundle = empty_bundle(get_task("pain", "demo"), tmp_path / "b.jmt")
    controls = Controls()
    page = start_page("127.0.0.1:0", controls, recordings=tmp_path / "runs")
    observers = [page, BedUnit(broker, "1", page.model.judging)]
    info = RunInfo(bundle, "hand", {}, 0.5, True, 0.0, dict.fromkeys(bundle.task.names, "sim:"))
    for observer in observers:
        observer.on_start(info)
    stop = threading.Event()

    def run() -> None:
        count = 0
        while not stop.wait(0.1):
            count += 1
            for observer in observers:
                observer.on_result(result(count, 0.9))

    thread = threading.Thread(target=run)
    thread.start()
    http = Http(page)
    wait_for(lambda: ("pain", "pending", "active") in edges_of(station, "1"), 60)
    assert http.json("POST", "/api/v1/alarms/acknowledge", {"id": "pain"})[0] == 200
    wait_for(lambda: edges_of(station, "1")[-1] == ("pain", "active", "acknowledged"))
    stop.set()
    thread.join()
    for observer in observers:
        observer.on_end(Summary(bundle.id, True, True))
