"""Beds that a station reads from their own pages, without a broker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from beds_fixture import free_port, result, wait_for

pytest.importorskip("uvicorn", reason="the page's packages are not installed")

from page_fixture import empty_bundle

from jmt_edge.beds.direct import BedPage, DirectReader, Visit, parse_beds
from jmt_edge.beds.ward import QUIET, Ward
from jmt_edge.controls import Controls
from jmt_edge.errors import ConfigError
from jmt_edge.live.page import start_page
from jmt_edge.observer import Observer, RunInfo
from jmt_edge.summary import Summary
from jmt_edge.tasks import get_task

TOKEN = "a-token-of-the-ward=="
SIMULATED = ("--task", "pain", "--camera", "sim:fps=8&size=320x240&seed=3", "--eda", "sim:seed=3", "--threads", "1")
COUNTS = ("results", "edges", "late", "missing", "gone", "repeated", "heard")


class Bed:
    """The page of a run whose results are made by hand; a thread sends them until `end` or `die`."""

    def __init__(
        self, folder: Path, port: int = 0, *, realtime: bool = True,
        more: Callable[[Any], list[Observer]] | None = None, **page: Any,
    ) -> None:  # fmt: skip
        folder.mkdir(exist_ok=True)
        controls = Controls()
        self.bundle = empty_bundle(get_task("pain", "demo"), folder / f"{time.monotonic_ns()}.jmt")
        self.page = start_page(f"127.0.0.1:{port}", controls, recordings=folder / "runs", **page)
        self.pain: float | None = 0.3
        self._observers = [self.page, *(more(self.page.model) if more else [])]
        info = RunInfo(
            self.bundle, "hand", {}, 0.5, realtime, 0.0, dict.fromkeys(self.bundle.task.names, "sim:"),
        )  # fmt: skip
        for observer in self._observers:
            observer.on_start(info)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        return self.page.url.rstrip("/")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _run(self) -> None:
        index = 0
        while not self._stop.wait(0.1):
            index += 1
            for observer in self._observers:
                observer.on_result(result(index, self.pain))

    def die(self) -> None:
        """Without a word."""
        self._stop.set()
        self._thread.join()
        self.page.close()

    def end(self, failed: str = "") -> None:
        self._stop.set()
        self._thread.join()
        for observer in self._observers:
            observer.on_end(Summary(self.bundle.id, not failed, not failed, failed=failed))


class Direct:
    """A station of the pages `beds` (name=URL)."""

    def __init__(self, *beds: str, **options: Any) -> None:
        options.setdefault("environment", {})
        self.ward = Ward("")
        self.reader = DirectReader(parse_beds(beds, **options), self.ward)
        self.reader.start()

    def tile(self, bed: str = "1") -> dict[str, Any]:
        with self.reader.lock:
            found = [one for one in self.ward.snapshot(time.monotonic())["beds"] if one["name"] == bed]
        return found[0] if found else {"state": "unknown", "lost": ""}

    def alarms(self) -> list[str]:
        """The ids of the station's own alarms that signal."""
        with self.reader.lock:
            return [alarm.id for alarm in self.ward.alarms.alarms.values() if alarm.signals]


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Callable[..., Bed]]:
    made: list[Bed] = []

    def make(*args: Any, **options: Any) -> Bed:
        made.append(Bed(tmp_path / "bed", *args, **options))
        return made[-1]

    yield make
    for one in made:
        one.die()


@pytest.fixture
def direct() -> Iterator[Callable[..., Direct]]:
    made: list[Direct] = []

    def make(*args: Any, **options: Any) -> Direct:
        made.append(Direct(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.reader.close()


def live(station: Direct, bed: str = "1") -> dict[str, Any]:
    return wait_for(lambda: (found := station.tile(bed))["state"] == "live" and found, what="a live bed")  # type: ignore[no-any-return]


def lost(station: Direct, why: str, bed: str = "1") -> dict[str, Any]:
    def holds() -> Any:
        found = station.tile(bed)
        return found["state"] == "lost" and why in found["lost"] and found

    return wait_for(holds, what=f"a bed lost for '{why}', {station.tile(bed)}")  # type: ignore[no-any-return]


# ---- what is asked for


@pytest.mark.parametrize(
    ("beds", "options", "says"),
    [
        (["12"], {}, "names no bed with its page"),
        (["12=bed-12:8765"], {}, "not the address of a page"),
        (["12=mqtt://bed-12/ward"], {}, "not the address of a page"),
        (["12=http://bed-12/some/where"], {}, "not the address of a page"),
        (["12=http://bed-12:99999"], {}, "not the address of a page"),
        (["1/2=http://bed-12"], {}, "cannot name a bed"),
        (["1=http://a", "1=http://b"], {}, "two beds are named '1'"),
        ([f"{i}=http://a" for i in range(501)], {}, "at most 500 beds"),
        ([f"1=http://a/#token={TOKEN}"], {}, "put it into a file"),
        ([f"1=http://x:{TOKEN}@a"], {}, "put it into a file"),
        (["1=http://a"], {"ca": "cert.pem"}, "encrypted connections"),
        (["1=https://a"], {"ca": "missing.pem"}, "cannot be used"),
        (["1=http://a"], {"token_file": "missing"}, "cannot be read"),
        (["1=http://a"], {"token_file": "empty"}, "empty or too long"),
        (["1=http://a", "2=http://b"], {"token_file": "strange"}, "line 2 of"),
        (["bed-12=http://a", "bed-2=http://b"], {"token_file": "mistyped"}, "line 1 of .* fix the name"),
        (["bed-12=http://a"], {"token_file": "mistyped"}, "line 1 of .* fix the name"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    beds: list[str], options: dict[str, str], says: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "strange").write_text(f"1={TOKEN}\n3={TOKEN}\n")
    (tmp_path / "mistyped").write_text(f"bed-21={TOKEN}\n")
    with pytest.raises(ConfigError, match=says) as refused:
        parse_beds(beds, **{name: tmp_path / file for name, file in options.items()}, environment={})  # type: ignore[arg-type]
    assert "\n" not in str(refused.value) and TOKEN not in str(refused.value)


def test_tokens_of_all_beds_or_of_each(tmp_path: Path) -> None:
    beds = ["1=http://a", "bed 2=https://[::1]:8765"]
    (tmp_path / "one").write_text(f"{TOKEN}\n")
    (tmp_path / "each").write_text(f"bed 2={TOKEN}\n\n1=other\n")
    assert [bed.token for bed in parse_beds(beds, environment={})] == ["", ""]
    assert [bed.token for bed in parse_beds(beds, environment={"JMT_EDGE_BED_TOKEN": TOKEN})] == [TOKEN, TOKEN]
    assert [bed.token for bed in parse_beds(beds, tmp_path / "one", environment={})] == [TOKEN, TOKEN]
    with pytest.raises(ConfigError, match="line 1 of JMT_EDGE_BED_TOKEN"):
        parse_beds(beds, environment={"JMT_EDGE_BED_TOKEN": f"bed2={TOKEN}"})
    pages = parse_beds(beds, tmp_path / "each", environment={})
    assert [bed.token for bed in pages] == ["other", TOKEN] and TOKEN not in repr(pages)
    assert pages[1].socket == "wss://[::1]:8765/ws?hidden=1" and pages[0].origin == "http://a"
    assert "without encryption" in pages[0].warning and not pages[1].warning


# ---- what a page says


def test_a_station_shows_the_same_over_the_page_and_over_a_broker(
    bed: Callable[..., Bed], direct: Callable[..., Direct], start_broker: Callable[..., Any]
) -> None:
    """One run, its alarm included, as two stations see it."""
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    from jmt_edge.beds.broker import parse_broker
    from jmt_edge.beds.listener import Listener
    from jmt_edge.beds.unit import BedUnit

    broker = parse_broker(start_broker().url(), environment={})
    one = bed(more=lambda model: [BedUnit(broker, "1", model.judging)])
    over_page, over_broker = direct(f"1={one.url}"), Listener(broker, Ward(broker.prefix))
    over_broker.start()
    try:

        def agree(shows: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
            def both() -> Any:
                with over_broker.lock:
                    beds = over_broker.ward.snapshot(time.monotonic())["beds"]
                tiles = [over_page.tile(), *beds]
                shown = [{key: value for key, value in tile.items() if key not in COUNTS} for tile in tiles]
                return len(shown) == 2 and shown[0] == shown[1] and shows(shown[0]) and shown[0]

            return wait_for(both, what=f"two tiles that agree, {over_page.tile()}")  # type: ignore[no-any-return]

        tile = agree(lambda tile: tile["outputs"] == {"pain": 0.3})
        assert tile["state"] == "live" and tile["demo"] is True and tile["quality"]["eda"]["ok"] is True
        one.pain = 0.9
        assert agree(lambda tile: tile["alarms"])["alarms"][0]["priority"] == "high"
        one.pain = None
        assert agree(lambda tile: tile["reason"])["outputs"] is None
        one.end("the disk is full")
        assert agree(lambda tile: tile["state"] == "lost")["lost"] == "the run broke off (the disk is full)"
    finally:
        over_broker.close()


def test_files_at_full_speed_are_not_a_watched_bed(bed: Callable[..., Bed], direct: Callable[..., Direct]) -> None:
    station = direct(f"1={bed(realtime=False).url}")
    tile = wait_for(lambda: (found := station.tile())["state"] == "files" and found)
    assert tile["alarms_off"] == "not live, but files at full speed" and not station.alarms()


def test_a_bed_that_restarts_is_lost_and_comes_back(bed: Callable[..., Bed], direct: Callable[..., Direct]) -> None:
    first = bed()
    station = direct(f"1={first.url}")
    seen = live(station)
    first.die()
    tile = wait_for(lambda: (found := station.tile())["state"] == "lost" and found)
    assert tile["outputs"] is None and tile["alarms"] == []
    wait_for(lambda: station.alarms() == ["lost 1"])
    second = bed(first.port)
    again = live(station)
    assert again["results"] > seen["results"] and not station.alarms()
    second.end()
    wait_for(lambda: station.tile()["state"] == "ended")
    time.sleep(3)  # it is visited in vain meanwhile
    assert station.tile()["state"] == "ended" and not station.alarms()
    bed(first.port)
    live(station)


def test_nothing_but_results_and_states_is_sent_to_a_station(
    bed: Callable[..., Bed], direct: Callable[..., Direct], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No picture and no signal leaves the bed, also before the station has said anything."""
    kinds: list[str] = []
    take = Visit.take

    def noted(self: Visit, text: str | bytes, now: float) -> None:
        kinds.append("binary" if isinstance(text, bytes) else json.loads(text)["type"])
        take(self, text, now)

    monkeypatch.setattr(Visit, "take", noted)
    one = bed()
    station = direct(f"1={one.url}")
    live(station)
    wait_for(lambda: kinds.count("result") > 5)
    assert set(kinds) == {"hello", "state", "result"}
    assert not one.page.clients.looking  # type: ignore[union-attr]


# ---- what does not answer as it should


def test_a_wrong_token_a_missing_one_and_one_too_many(bed: Callable[..., Bed], direct: Callable[..., Direct]) -> None:
    closed, opened = bed(token=TOKEN), bed()
    beds = [f"1={closed.url}", f"2={opened.url}"]
    lost(direct(*beds, environment={"JMT_EDGE_BED_TOKEN": "wrong"}), "refuses the token")
    lost(direct(*beds), "asks for a token")
    right = direct(*beds, environment={"JMT_EDGE_BED_TOKEN": TOKEN})
    live(right)
    lost(right, "asks for no token", "2")


def test_certificates(bed: Callable[..., Bed], direct: Callable[..., Direct], tmp_path: Path) -> None:
    for name, subject in (("good", "IP:127.0.0.1"), ("other", "DNS:elsewhere.ward")):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / f"{name}.key", "-out",
             tmp_path / f"{name}.pem", "-days", "2", "-subj", "/CN=bed", "-addext", f"subjectAltName={subject}"],
            check=True, capture_output=True,
        )  # fmt: skip
    good, other = tmp_path / "good.pem", tmp_path / "other.pem"
    one = bed(certfile=good, keyfile=tmp_path / "good.key")
    two = bed(certfile=other, keyfile=tmp_path / "other.key")
    live(direct(f"1={one.url}", ca=good))
    lost(direct(f"1={one.url}"), "certificate is not trusted")
    lost(direct(f"1={one.url}", ca=other), "certificate is not trusted")
    lost(direct(f"1={two.url}", ca=other), "certificate is not trusted")  # of another host
    lost(direct(f"1={one.url.replace('https', 'http')}"), "not a page of jmt-edge")
    lost(direct(f"1={bed().url.replace('http', 'https')}", ca=good), "TLS failed")


def test_what_is_not_a_bed(direct: Callable[..., Direct], tmp_path: Path) -> None:
    station = direct(f"1=http://127.0.0.1:{free_port()}")
    lost(station, "connection refused")
    lost(direct("1=http://no-such-bed.invalid"), "name")
    wait_for(lambda: station.alarms() == ["lost 1"])
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]
        lost(direct(f"1=http://127.0.0.1:{port}"), "not a page of jmt-edge")
        server.kill()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system accepts, and nothing is ever said
        lost(direct(f"1=http://127.0.0.1:{silent.getsockname()[1]}"), "does not answer")


def test_a_stranger_s_messages_are_counted_and_dropped() -> None:
    ward = Ward("")
    visit = Visit(BedPage("1", "http", "a", 80), ward, "18c0000000-00000001")
    run = {
        "hop": 0.5, "task": "pain", "notice": "", "demo": True, "bundle": "b", "alarms_off": "", "outputs": ["pain"],
        "realtime": True,
    }  # fmt: skip
    state = {"alarms": {"alarms": [], "settings": {"limit": 0.7}}, "ended": False, "failed": ""}
    good = {"outputs": {"pain": 0.4}, "reason": "", "quality": {}}
    for text in (b"\xff", "nonsense", "[]", "{}", '{"type": 3}', '{"type": "hello"}', "[" * 100_000):
        visit.take(text, 1.0)
    assert not ward.beds
    visit.take(json.dumps({"type": "hello", "run": run}), 1.0)
    visit.take(json.dumps({"type": "result", **good}), 1.0)  # what its run is has not been said yet
    visit.take(json.dumps({"type": "state", **state}), 1.0)
    assert ward.beds["1"].result is None
    refused = ward.refused
    for outputs in ({"pain": 1.5}, {"pain": True}, {"pain": "0.4"}, {"pain": float("nan")}, []):
        visit.take(json.dumps({"type": "result", **good, "outputs": outputs}), 1.0)
    assert ward.beds["1"].result is None and ward.refused == refused + 5
    visit.take(json.dumps({"type": "result", **good}), 2.0)
    assert ward.beds["1"].result == {"outputs": {"pain": 0.4}, "reason": ""}
    for broken in ({"alarms": {}}, {"alarms": {"alarms": [{"id": 3}], "settings": {"limit": 0.7}}}):
        visit.take(json.dumps({"type": "state", **state, **broken}), 2.0)
    assert ward.refused == refused + 7 and ward.beds["1"].status["state"] == "live"


# ---- by the command line


class Command:
    """A `jmt-edge` that serves a page. said: its standard error, in a file."""

    def __init__(self, said: Path, *words: str, **environment: str) -> None:
        self.said = said
        with said.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jmt_edge", *words], stdout=log, stderr=log, env={**os.environ, **environment}
            )

    @property
    def url(self) -> str:
        """The page's address, without its token."""

        def found() -> str | None:
            assert self.process.poll() is None, self.said.read_text()
            lines = [line for line in self.said.read_text().splitlines() if line.startswith("page: http")]
            return lines[0].split()[1].partition("#")[0].rstrip("/") if lines else None

        return wait_for(found, 120, "the page")  # type: ignore[no-any-return]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


def test_two_beds_by_the_command_line(tmp_path: Path) -> None:
    """Runs and a station as people start them: one bed hangs and goes on, is killed, and the other one ends."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"left={TOKEN}-left\nright={TOKEN}-right\n")
    running = [
        Command(
            tmp_path / f"{name}.log", "live", *SIMULATED, "--output", "none", "--page", "127.0.0.1:0",
            JMT_EDGE_PAGE_TOKEN=f"{TOKEN}-{name}",
        )
        for name in ("left", "right")
    ]  # fmt: skip
    try:
        left, right = running
        beds = [word for bed, name in zip(running, ("left", "right")) for word in ("--bed", f"{name}={bed.url}")]
        station = Command(
            tmp_path / "station.log", "station", *beds, "--bed-token-file", str(tokens), "--page", "127.0.0.1:0"
        )
        running.append(station)

        def read(path: str) -> str:
            with urllib.request.urlopen(f"{station.url}/{path}", timeout=20) as answer:
                return answer.read().decode()  # type: ignore[no-any-return]

        def tiles() -> dict[str, dict[str, Any]]:
            return {tile["name"]: tile for tile in json.loads(read("api/v1/beds"))["beds"]}

        def states(*wanted: str) -> bool:
            return [tile["state"] for tile in tiles().values()] == list(wanted)

        wait_for(lambda: states("live", "live"), 120)
        for name in ("left", "right"):
            shown = wait_for(lambda name=name: tiles()[name]["outputs"], 120)
            assert 0 <= shown["pain"] <= 1
        assert tiles()["left"]["demo"] is True
        text = read("metrics")
        assert 'jmt_edge_bed_up{bed="left"} 1' in text and "broker" not in text
        left.send(signal.SIGSTOP)
        seen = []
        wait_for(lambda: seen.append(tiles()["left"]) or seen[-1]["state"] == "lost")  # type: ignore[func-returns-value]
        # by the ward's rule, as over MQTT: a number until then, none from then on
        assert seen[-1]["outputs"] is None and seen[-1]["heard"] >= QUIET and "5 s" in seen[-1]["lost"]
        assert all(tile["heard"] <= QUIET + 0.5 for tile in seen if tile["state"] == "live")
        left.send(signal.SIGCONT)
        wait_for(lambda: states("live", "live"))
        left.send(signal.SIGKILL)
        wait_for(lambda: states("lost", "live"))
        right.send(signal.SIGTERM)
        wait_for(lambda: states("lost", "ended"))
        station.send(signal.SIGTERM)
        assert station.process.wait(30) == 0
        said = station.said.read_text()
        assert "bed right: its run has ended" in said and "bed left: lost:" in said
        assert TOKEN not in said and "Traceback" not in said
    finally:
        for one in running:
            one.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "the station needs beds"),
        (("--mqtt", "mqtt://a/w", "--bed", "1=http://a"), "not both"),
        (("--mqtt", "mqtt://a/w", "--bed-token-file", "x"), "--bed NAME=URL"),
        (("--bed", "1=http://a", "--mqtt-ca", "x"), "--mqtt URL"),
        (("--bed", "1"), "names no bed"),
    ],
)
def test_options_that_do_not_belong_together(words: tuple[str, ...], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jmt_edge", "station", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_beds_in_a_configuration_and_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "station.toml"
    file.write_text('[station]\nbed = ["1=http://a", "bed 2=http://b"]\n')

    def show(**environment: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "jmt_edge", "config", "show", str(file)], capture_output=True, text=True,
            env={**os.environ, **environment}, timeout=120,
        ).stdout  # fmt: skip

    assert f'bed = ["1=http://a", "bed 2=http://b"]  # {file}' in show()
    assert 'bed = ["3=http://c", "4=http://d"]' in show(JMT_EDGE_STATION_BED="3=http://c 4=http://d")
    file.write_text('[station]\nbed = "1=http://a"\n')
    done = subprocess.run(
        [sys.executable, "-m", "jmt_edge", "config", "check", str(file)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "give a list of texts" in done.stderr
