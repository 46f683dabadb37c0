"""Several people in one process: the same numbers as alone, and nobody held up by anybody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fixture import FakeEngine, ListSource, invoke, json_lines

from jmt_edge.capture import open_source
from jmt_edge.capture.ahead import ReadAhead
from jmt_edge.capture.boards import SimulatedBoard, open_signal
from jmt_edge.capture.boards.firmware import CsvFirmware
from jmt_edge.cli._people import Asked, device_of, parse_people, parse_person
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import Bundle, load_bundle
from jmt_edge.engine.shared import Turns
from jmt_edge.errors import ConfigError, SourceError
from jmt_edge.live import Observer, Options, Result, run
from jmt_edge.live.people import Everyone, Person, run_people
from jmt_edge.media.chunk import Chunk

Bundles = Callable[[str], Bundle]


class Kept(Observer):
    """Results without what a clock says. each: called with every result."""

    def __init__(self, each: Callable[[Result], None] = lambda result: None) -> None:
        self.results: list[dict[str, Any]] = []
        self._each = each

    def on_result(self, result: Result) -> None:
        self.results.append({k: v for k, v in result.to_dict().items() if k != "latency_ms"})
        self._each(result)


def eda(seconds: float = 12.0, level: float = 5.0) -> ListSource:
    times = np.arange(0, seconds + 1e-9, 1 / 64)
    return ListSource("eda", times, (level + 0.1 * np.sin(times)).astype(np.float32), 64.0)


def together(bundle: Bundle, engine: Any, people: list[Person], options: Options) -> dict[str, str]:
    return run_people(bundle, engine, people, options, Everyone(people))


# --- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_each_persons_results_are_those_of_a_run_alone_bit_for_bit(threads: int) -> None:
    bundle = load_bundle(demo_bundle("trimodal"))
    options = Options(0.5, realtime=False, duration=5.0)

    def sources(seed: int) -> dict[str, Any]:
        names = bundle.task.names if seed else ("voice", "eda")
        found = {name: open_source(name, f"sim:seed={seed}") for name in names}
        return {name: ReadAhead(source) for name, source in found.items() if source is not None}

    alone = []
    for seed in (0, 1, 2):
        kept = Kept()
        run(bundle, open_engine(bundle, "onnxruntime", threads), sources(seed), options, [kept])
        alone.append(kept.results)
    seen = [Kept() for _ in alone]
    people = [Person(f"bed{i}", sources(i), observers=[seen[i]]) for i in range(3)]
    together(bundle, open_engine(bundle, "onnxruntime", threads), people, options)
    assert [kept.results for kept in seen] == alone
    assert all(any(r["outputs"] for r in results) for results in alone) and alone[1] != alone[2]


def test_waiting_calls_come_in_their_order() -> None:
    turns, order = Turns(), []
    threads = []
    with turns:
        for number in range(8):

            def call(number: int = number) -> None:
                with turns:
                    order.append(number)

            threads.append(threading.Thread(target=call))
            threads[-1].start()
            while len(turns._waiting) <= number:
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))
    with turns:
        order.append(8)


def test_the_engine_closes_after_the_last_loop_and_never_runs_two_calls_at_once(bundles: Bundles) -> None:
    bundle = bundles("pain")
    inside: list[int] = []

    def busy() -> None:
        inside.append(threading.get_ident())
        time.sleep(0.002)
        assert inside.pop() == threading.get_ident() and not inside and not engine.closed

    engine = FakeEngine(bundle.task, busy)
    people = [Person(f"bed{i}", {"eda": eda(6.0 + i)}) for i in range(4)]
    together(bundle, engine, people, Options(0.5, realtime=False))
    assert engine.closed and [p.failed for p in people] == [""] * 4
    assert [p.summary.results for p in people if p.summary] == [12, 14, 16, 18]


# --- one person's trouble ---------------------------------------------------------------------------------------------


class Blocking(ListSource):
    """A decoder that does not return before it is let go."""

    def __init__(self) -> None:
        super().__init__("eda", np.empty(0), np.empty(0, np.float32))
        self.go = threading.Event()

    def read(self, until: float) -> Chunk:
        assert self.go.wait(60), "nobody let the decoder go"
        return super().read(until)


def test_a_decoder_that_blocks_holds_up_nobody_else(bundles: Bundles) -> None:
    bundle = bundles("pain")
    stuck = Blocking()
    alone, seen = Kept(), Kept(lambda result: stuck.go.set() if result.index == 20 else None)
    options = Options(0.5, realtime=False)
    run(bundle, FakeEngine(bundle.task), {"eda": eda()}, options, [alone])
    people = [Person("stuck", {"eda": stuck}), Person("free", {"eda": eda()}, observers=[seen])]
    together(bundle, FakeEngine(bundle.task), people, options)
    assert seen.results == alone.results and stuck.closed == 1


class Dying(ListSource):
    """Fails at 3 s."""

    def read(self, until: float) -> Chunk:
        if until > 3:
            raise SourceError("the file cannot be read on; copy it again")
        return super().read(until)


@pytest.mark.parametrize("kind", ["read", "open", "unforeseen"])
def test_a_person_whose_loop_fails_ends_alone(
    kind: str, bundles: Bundles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundles("pain")
    dying = Dying("eda", np.arange(0, 12, 1 / 64), np.full(768, 5, np.float32), 64.0)
    if kind == "open":
        monkeypatch.setattr(dying, "open", lambda origin: (_ for _ in ()).throw(SourceError("permission denied; ask")))
    elif kind == "unforeseen":
        monkeypatch.setattr(dying, "read", lambda until: 1 / 0)
    alone, seen = Kept(), Kept()
    options = Options(0.5, realtime=False)
    run(bundle, FakeEngine(bundle.task), {"eda": eda()}, options, [alone])
    people = [Person("a", {"eda": dying}), Person("b", {"eda": eda()}, observers=[seen])]
    together(bundle, FakeEngine(bundle.task), people, options)
    said = {"read": "the file cannot be read on; copy it again", "open": "permission denied; ask"}
    assert people[0].failed == said.get(kind, "ZeroDivisionError: division by zero")
    assert people[1].failed == "" and seen.results == alone.results and dying.closed == 1
    assert any(f"a ended early: {people[0].failed}" in record.getMessage() for record in caplog.records)
    assert bool([r for r in caplog.records if r.exc_info]) == (kind == "unforeseen")


@pytest.mark.realtime
def test_a_killed_board_and_a_file_that_ends_leave_the_others_results_as_they_were(
    bundles: Bundles, tmp_path: Path
) -> None:
    bundle = bundles("pain")
    alone = Kept()
    run(bundle, FakeEngine(bundle.task), {"eda": eda()}, Options(0.25, False, duration=8.0), [alone])
    board = SimulatedBoard(CsvFirmware(), open_signal("sine"), link=tmp_path / "board").__enter__()
    killed: list[float] = []

    def kill(result: Result) -> None:
        if result.t >= 3 and not killed:
            killed.append(result.t)
            board.__exit__(None, None, None)

    lost, seen = Kept(kill), Kept()
    device = open_source("eda", f"csv:{tmp_path / 'board'}?unit=uS")
    assert device is not None
    people = [
        Person("board", {"eda": device}, observers=[lost]), Person("file", {"eda": eda(3.0)}),
        Person("other", {"eda": eda()}, observers=[seen]),
    ]  # fmt: skip
    together(bundle, FakeEngine(bundle.task), people, Options(0.25, True, duration=8.0))
    assert killed and lost.results[-1]["outputs"] is None and "no serial port" in lost.results[-1]["reason"]
    assert people[1].summary is not None and people[1].summary.stream < 5
    strip = [{k: v for k, v in r.items() if k != "dropped"} for r in seen.results]
    wanted = {r["t"]: {k: v for k, v in r.items() if k != "dropped"} for r in alone.results}
    assert len(strip) > 20 and strip == [wanted[r["t"]] for r in strip]


def test_stop_ends_every_loop(bundles: Bundles) -> None:
    bundle = bundles("pain")
    people = [Person(f"bed{i}", {"eda": eda(1e3 if i else 5.0)}) for i in range(3)]
    everyone = Everyone(people)
    people[0].observers.append(Kept(lambda result: everyone.stop() if result.index == 3 else None))
    run_people(bundle, FakeEngine(bundle.task), people, Options(0.5, realtime=False), everyone)
    assert everyone.stopped and all(p.summary is not None and not p.failed for p in people)
    assert people[1].summary is not None and people[1].summary.results < 1900


def test_the_service_manager_hears_of_the_loops_while_one_is_stuck(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One hung decoder is said, and the others are not restarted because of it."""
    from jmt_edge.live import people as module

    monkeypatch.setattr(module, "STALLED", 0.3)
    caplog.set_level("INFO", "jmt_edge")
    bundle, stuck = bundles("pain"), eda(60)
    turned: list[int] = []
    reads = stuck.read

    def read(until: float) -> Chunk:
        end = time.monotonic() + 30
        while until > 0.5 and time.monotonic() < end and "stuck has stalled" not in caplog.text:
            time.sleep(0.01)
        if until > 0.5 and -1 not in turned:
            turned.append(-1)
        return reads(until)

    monkeypatch.setattr(stuck, "read", read)
    people = [Person("stuck", {"eda": stuck}), Person("free", {"eda": eda(60)})]
    everyone = Everyone(people)
    people[0].observers.append(Kept(lambda result: everyone.stop() if -1 in turned and result.index > 3 else None))
    options = Options(0.25, True)
    run_people(bundle, FakeEngine(bundle.task), people, options, everyone, lambda: turned.append(1))
    assert turned.count(1) and turned.index(1) < turned.index(-1)
    assert "stuck has stalled: no turn of its loop for" in caplog.text and "free has stalled" not in caplog.text


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("bed 1:camera=0,eda=bitalino:/dev/ttyUSB0", Asked("bed 1", {"face": "0", "eda": "bitalino:/dev/ttyUSB0"}, {})),
        (
            "b:eda-delay=0.25,camera=v4l2src ! video/x-raw,format=BGR,width=640 ! appsink,microphone=none",
            Asked(
                "b", {"face": "v4l2src ! video/x-raw,format=BGR,width=640 ! appsink", "voice": "none"}, {"eda": 0.25}
            ),
        ),
        (
            "c:camera=rtsp://u:p@host:554/a,b?x=1&camera=2,audio-delay=-1,microphone=talk, part 2.wav",
            Asked("c", {"face": "rtsp://u:p@host:554/a,b?x=1&camera=2", "voice": "talk, part 2.wav"}, {"voice": -1.0}),
        ),
    ],
)
def test_a_source_may_hold_commas_and_colons(text: str, wanted: Asked) -> None:
    assert parse_person(text) == wanted


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["bed1"], "has no source; write NAME:camera=SRC,eda=SRC"),
        (["bed1:"], "has no source"),
        (["bed1:eda-delay=1"], "has no source"),
        (["bed1:camera=none"], "has no source"),
        (["bed1:camera="], "has nothing after camera="),
        (["bed1:0"], "has no '0'"),
        (["bed1:camra=0"], "has no 'camra', did you mean camera?"),
        (["bed1:camera=0,microfone=1"], "has no 'microfone', did you mean microphone?"),
        (["bed1:camera=0,camera=1"], "has camera twice"),
        (["bed1:eda=sim:,eda-delay=soon"], "eda-delay=soon is not a number of seconds"),
        (["a/b:camera=0"], "'a/b' cannot name a bed"),
        (["..:camera=0"], "'..' cannot name a person"),
        ([":camera=0"], "cannot name a bed"),
        (["a:camera=0", "A:camera=1"], "two people are named 'A'"),
        (["a:eda=sim:", "a-2:eda=sim:"], "'a-2' is what the next recording of 'a' would be called"),
        (["a:camera=0", "b:camera=/dev/video0?fps=30"], "'a' and 'b' have the same device, /dev/video0?fps=30"),
        (["a:eda=bitalino:/dev/ttyUSB0", "b:eda=auto:/dev/ttyUSB0?rate=10"], "have the same device"),
        (["a:camera=rtsp://h/1", "b:camera=rtsp://h/1"], "have the same device"),
        (["a:microphone=1", "b:microphone=1"], "have the same device"),
        ([f"p{i}:eda=sim:" for i in range(65)], "65 people are more than one process takes"),
    ],
)
def test_people_that_cannot_be_used_are_one_sentence(texts: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_people(texts)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_device_is_the_same_by_every_name(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    assert device_of("face", str(tmp_path / "clip.mp4")) == device_of("eda", "sim:seed=3") == ""
    assert device_of("face", "2?width=640") == device_of("face", "/dev/video2")
    assert device_of("face", "1") != device_of("voice", "1")
    assert parse_people(["a:camera=sim:,eda=sim:", "b:camera=sim:"])[1].name == "b"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--camera", "0"], "--camera is for one person; leave it out, or leave --person out, such as --person NAME:"),
        (["--eda-delay", "1"], "--eda-delay is for one person"),
        (["--mqtt", "mqtt://h", "--bed", "1"], "since each person's bed has their name"),
        (["--mark"], "--mark is for one person"),
        (["--page"], "--page is for one person"),
        (["--task", "pain", "--duration", "-1"], "a duration of -1 s is not positive"),
    ],
)
def test_what_does_not_go_with_people_is_refused(
    words: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    done = invoke(capfd, "live", "--person", "a:eda=sim:", *words)
    assert done.returncode == 2 and done.stdout == "" and says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_bundle_of_one_person_is_not_used_for_several(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Bundle, "subject", "p17")
    done = invoke(capfd, "live", *SHORT, *TWO)
    assert done.returncode == 2 and "is personalised to p17, and there are 2 people" in done.stderr
    done = invoke(capfd, "live", *SHORT, *TWO[:2])
    assert done.returncode == 0 and "personalised to p17: no number for anybody else" in done.stderr


def test_json_summaries_recordings_and_the_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two good people and a video that is none: its person ends alone, and the exit code says so."""
    (tmp_path / "cut.mp4").write_bytes(b"\0" * 4096)
    common = ("--threads", "1", "--duration", "6", "--speed", "max", "--output", "jsonl")
    done = invoke(
        capfd, "live", *common, "--record", str(tmp_path / "night"), "--person", "bed 1:eda=sim:seed=1",
        "--person", "b:eda=sim:seed=2", "--person", f"c:camera={tmp_path / 'cut.mp4'}",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("jmt-edge: c ended early: ") and "Traceback" not in done.stderr
    assert "bed 1: pain-demo@" in done.stderr and "\nb: pain-demo@" in done.stderr and "people: 3" in done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith('{"person": "') for line in lines)
    for name, seed in (("bed 1", 1), ("b", 2)):
        alone = invoke(capfd, "live", *common, "--eda", f"sim:seed={seed}")
        mine = [result for result in json_lines("\n".join(lines)) if result["person"] == name]
        wanted = json_lines(alone.stdout)
        for result in (*mine, *wanted):
            result.pop("latency_ms")
        assert [{k: v for k, v in r.items() if k != "person"} for r in mine] == wanted and len(wanted) == 12
        manifest = json.loads((tmp_path / "night" / name / "manifest.json").read_text())
        assert manifest["closed"]["complete"] and manifest["sources"]["eda"] == f"sim:seed={seed}"


@pytest.mark.realtime
def test_ctrl_c_ends_everybody_with_their_summaries() -> None:
    command = [
        sys.executable, "-m", "jmt_edge", "live", "--output", "jsonl", "--threads", "1", "--person", "a:eda=sim:seed=1",
        "--person", "b:eda=sim:seed=2",
    ]  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        seen = {json.loads(process.stdout.readline())["person"] for _ in range(4)}
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert seen == {"a", "b"} and process.returncode == 0, err
    assert "\na: pain-demo@" in err and "\nb: pain-demo@" in err and "Traceback" not in err


SHORT = ("--threads", "1", "--duration", "6", "--speed", "max", "--output", "none")
TWO = ("--person", "bed 1:eda=sim:seed=1", "--person", "b:eda=sim:seed=2")


def test_each_person_is_a_bed_of_the_broker(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from beds_fixture import Mosquitto, wait_for
    from paho.mqtt import client as paho

    broker = Mosquitto(tmp_path)
    heard: dict[str, list[Any]] = {}
    reader = paho.Client(paho.CallbackAPIVersion.VERSION2)
    reader.on_message = lambda _client, _data, message: heard.setdefault(message.topic, []).append(message.payload)
    try:
        reader.connect("127.0.0.1", broker.port)
        reader.subscribe("ward/#", 1)
        reader.loop_start()
        done = invoke(capfd, "live", *SHORT, *TWO, "--mqtt", broker.url())
        assert done.returncode == 0, done.stderr
        for name in ("bed 1", "b"):
            results = wait_for(lambda n=name: [t for t in heard if t.startswith(f"ward/{n}/") and "result" in t])  # type: ignore[misc]
            (topic,) = results
            wait_for(lambda t=topic: len(heard[t]) == 12, what=f"{topic}, which has {len(heard[topic])}")  # type: ignore[misc]
        last = [json.loads(heard[f"ward/{name}/result"][-1])["result"] for name in ("bed 1", "b")]
        assert last[0]["outputs"]["pain"] != last[1]["outputs"]["pain"]
    finally:
        reader.loop_stop()
        broker.close()


def test_each_person_has_lsl_streams_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from jmt_edge.live import lsl

    made: dict[str, int] = {}

    class Outlets(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_result(self, result: Result) -> None:
            made[self.name] = made.get(self.name, 0) + 1

    monkeypatch.setattr(lsl, "LslOutlets", Outlets)
    assert invoke(capfd, "live", *SHORT, *TWO, "--lsl", "ward").returncode == 0
    assert made == {"ward-bed 1": 12, "ward-b": 12}


def test_what_a_run_of_one_says_is_said_of_several(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """That a broker hears results without encryption, and why a run was too short: once, and by name."""
    from jmt_edge.beds import unit

    class Unit(Observer):
        def __init__(self, broker: Any, bed: str, judge: Any, *, discovery: str) -> None: ...

    monkeypatch.setattr(unit, "BedUnit", Unit)
    words = ["--duration", "2", "--mqtt", "mqtt://broker.ward/ward-3", *TWO]
    said = invoke(capfd, "live", *SHORT, *words).stderr
    alone = invoke(capfd, "live", *SHORT, *words[:4], "--bed", "b", "--eda", "sim:").stderr
    (warning,) = [line for line in alone.splitlines() if "without encryption" in line or "not encrypted" in line]
    (short,) = [line for line in alone.splitlines() if line.startswith("no result: there were 2.0 s")]
    assert said.splitlines().count(warning) == 1 and "alarms are neither" not in said
    assert invoke(capfd, "live", *SHORT, *TWO).stderr.count("alarms are neither shown nor heard here") == 1
    assert {f"bed 1: {short}", f"b: {short}"} <= set(said.splitlines())


def test_a_session_of_each_person_is_continued(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "night"
    for _ in range(2):
        done = invoke(capfd, "live", *SHORT, *TWO, "--record", str(folder), "--resume")
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["b", "b-2", "bed 1", "bed 1-2"]
    for name in ("b", "bed 1"):
        assert json.loads((folder / f"{name}-2" / "manifest.json").read_text())["continues"]["recording"] == name
        assert f"{name}: the session of {folder / name} continues in {folder / name}-2" in done.stderr


def test_the_service_manager_hears_one_beginning_and_one_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "40000000")
        assert invoke(capfd, "live", *SHORT, *TWO).returncode == 0
        said = []
        while not said or "STOPPING=1" not in said[-1]:
            said.append(manager.recv(4096).decode())
    assert said[0].startswith("READY=1") and said[-1] == "STOPPING=1\nSTATUS=ended after 24 results"
    assert len([line for line in said if "READY" in line]) == 1


def test_a_reader_that_closes_the_pipe_ends_everybody() -> None:
    command = [sys.executable, "-m", "jmt_edge", "live", "--output", "jsonl", "--threads", "1", "--speed", "max", *TWO]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith('{"person": ')
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(60) == 0, err
    assert "Traceback" not in err and "\nb: pain-demo@" in err
