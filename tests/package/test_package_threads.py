"""Every thread of the product has a supervisor: it is listed here, killed once, and works on."""

from __future__ import annotations

import ast
import io
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jmt_edge
from jmt_edge import faults
from jmt_edge.capture import ahead, reconnect
from jmt_edge.capture.base import State, Status
from jmt_edge.capture.boards import SimulatedBoard, open_signal
from jmt_edge.capture.boards.firmware import CsvFirmware
from jmt_edge.clips import frame_worker
from jmt_edge.controls import Controls
from jmt_edge.faults import FAULTS, Fault, Faults, Steady
from jmt_edge.live.outputs import read_marks
from jmt_edge.machine import PowerMeter
from jmt_edge.media.chunk import Chunk
from jmt_edge.trace import Trace

ROOT = Path(jmt_edge.__file__).parent
STARTS = {"Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "Process", "start_new_thread", "Pool"}
# Pools whose callers take every result, so that an exception reaches them; none of them runs in `live`.
POOLS = {
    "bench/stages.py", "training/synth.py", "training/clips.py", "training/biosignals.py", "training/search.py",
    "training/launch.py",  # a job that fails there is done by this process, which reports it
}  # fmt: skip


class Boom(RuntimeError):
    """The injected exception: nothing in the product expects it."""


def once(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, which raises the first time."""
    left = [Boom("injected")]

    def wrapped(*args: Any, **options: Any) -> Any:
        if left:
            raise left.pop()
        return call(*args, **options)

    return wrapped


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 40
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


class Kill:
    """`with Kill("marks")`: in the block, a part of this name fails once or more, and nothing else does."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.before = FAULTS.counts()

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            new = FAULTS.since(self.before)
            assert set(new) == {self.name} and "Boom: injected" in new[self.name].last, new


# --- one scenario a file ----------------------------------------------------------------------------------------------


def kill_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    controls = Controls()
    monkeypatch.setattr(controls, "mark", once(controls.mark))
    with Kill("marks"):
        read_marks(io.StringIO("mark lost\nmark kept\n7\n"), controls).join(20)
    assert [(text, rating) for _, text, rating, _ in controls.take_marks()] == [("kept", None), ("", 7)]


def kill_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jmt_edge.live import keys as module

    master, slave = pty.openpty()
    pressed: list[str] = []
    with open(slave, "r+b", buffering=0) as terminal:
        monkeypatch.setattr(module.sys, "stdin", terminal)
        with Kill("keys"):
            keys = module.Keys(once(pressed.append))
            os.write(master, b"x7q")
            wait_for(lambda: pressed == ["7", "q"], "the other keys")
        monkeypatch.setattr(module.os, "read", once(os.read))  # the thread itself
        before = FAULTS.counts().get("keys", 0)
        os.write(master, b"8")
        wait_for(lambda: FAULTS.counts()["keys"] > before and pressed[-1] == "8", "the thread's next life")
        keys.close()
    os.close(master)


def kill_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        symptom = "silence"

        def pump(self) -> bool:
            time.sleep(0.01)
            return True

        def close(self) -> None: ...

    for target in ("pump", "close", "data"):
        device, link = Device(), reconnect.Link()
        thread = reconnect.Supervisor(lambda d=device: d, link, "a device")  # type: ignore[misc]
        with Kill("a device"):
            if target == "close":
                monkeypatch.setattr(device, "pump", once(device.pump))
            monkeypatch.setattr(
                link if target == "data" else device,
                target,
                once(getattr(link if target == "data" else device, target)),
            )
            thread.start()
            wait_for(lambda n=link: n.history and n.state is State.STREAMING, f"data after {target}")  # type: ignore[misc]
            thread.stop()


def kill_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class File:
        modality, name, realtime = "eda", "a file", False

        def open(self, origin: float) -> None: ...

        def read(self, until: float) -> Chunk:
            return Chunk(np.array([until]), np.ones(1, np.float32), 4.0)

        def status(self) -> Status:
            return Status(State.STREAMING)

        def close(self) -> None: ...

    file = File()
    monkeypatch.setattr(file, "read", once(file.read))
    source = ahead.ReadAhead(file)  # type: ignore[arg-type]
    source.open(0.0)
    with pytest.raises(Boom):  # the caller gets it: a run that cannot read its file ends with it
        source.read(1.0)
    assert len(source.read(2.0)) == 39  # of 40 pieces, without the one that was lost
    source.close()


def kill_face_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = frame_worker.FrameWorker(once(lambda image, t: image), "face search")
    for t in range(3):
        search.hand(float(t), ["a", "b", "c"], t)
    with pytest.raises(Boom):  # the loop gets it, as if it had searched that frame itself
        list(search.take(2.0))
    assert list(search.take(2.0)) == ["b", "c"]
    monkeypatch.setattr(search, "_one", once(search._one))  # the thread itself
    monkeypatch.setattr(frame_worker, "IDLE", 0.01)
    wait_for(lambda: not search._runs, "the thread's end")
    with Kill("face search"):
        search.hand(3.0, ["d"], 0)
        assert list(search.take(3.0)) == ["d"]


def kill_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace()
    monkeypatch.setattr(trace, "_write_waiting", once(trace._write_waiting))
    with Kill("trace"), trace.into(tmp_path / "t.json"), trace.span("work"):
        wait_for(lambda: FAULTS.counts().get("trace"), "the fault")
    assert [e["name"] for e in json.loads((tmp_path / "t.json").read_text()) if e["ph"] == "X"] == ["work"]


def kill_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = SimulatedBoard(CsvFirmware(), open_signal("sine"), link=tmp_path / "board")
    monkeypatch.setattr(board, "_step", once(board._step))
    with Kill("simulated board"), board:
        wait_for(lambda: FAULTS.counts().get("simulated board") and (tmp_path / "board").exists(), "the board")
        with open(tmp_path / "board", "rb", buffering=0) as port:
            assert wait_for(lambda: port.read(1), "a byte")


def kill_power_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jmt_edge import machine

    monkeypatch.setattr(machine, "temperatures", once(machine.temperatures))
    with Kill("power-meter"), PowerMeter(tmp_path) as meter:
        wait_for(lambda: FAULTS.counts().get("power-meter") and meter._thread.is_alive(), "the thread")
        time.sleep(0.3)
        assert meter._thread.is_alive()


def kill_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from page_fixture import empty_bundle

    from jmt_edge.observer import RunInfo
    from jmt_edge.recording import recorder
    from jmt_edge.recording.chain import read_chain
    from jmt_edge.summary import Summary
    from jmt_edge.tasks import get_task

    monkeypatch.setattr(recorder, "RESTART", 0.2)
    task = get_task("pain", "demo")
    bundle = empty_bundle(task, tmp_path / "empty.jmt")
    recording = recorder.Recorder(tmp_path / "night", bundle)
    monkeypatch.setattr(recorder._Files, "chunk", once(recorder._Files.chunk))
    recording.on_start(RunInfo(bundle, "none", {}, 0.5, True, 0.0, dict.fromkeys(task.names, "test")))
    with Kill("recorder"):
        for n in range(2000):
            recording.on_chunk("eda", Chunk(np.array([n / 4.0]), np.ones(1, np.float32), 4.0))
            time.sleep(0.01)
            if (tmp_path / "night-2" / "eda.csv").exists():
                break
        recording.on_chunk("eda", Chunk(np.array([9999.0]), np.ones(1, np.float32), 4.0))
        recording.on_end(Summary("b", True, True))
    first, second = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("night", "night-2"))
    assert first["continues"] is None and not first["closed"]["complete"] and "injected" in first["closed"]["problem"]
    linked = second["continues"]
    assert linked["recording"] == "night" and linked["created"] == first["created"] and linked["gap"] > 0
    assert linked["chain"] == read_chain(tmp_path / "night").head != ""
    assert second["closed"]["complete"]
    assert not second["whole"] and "9999.0" in (tmp_path / "night-2" / "eda.csv").read_text()


def kill_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn
    from page_fixture import Http

    from jmt_edge.live.page import start_page

    page = start_page("127.0.0.1:0", Controls(), recordings=tmp_path)
    http = Http(page)
    wait_for(lambda: http("GET", "/healthz")[0] in (200, 503), "the page")
    monkeypatch.setattr(uvicorn.Server, "on_tick", once(uvicorn.Server.on_tick))
    with Kill("page"):
        wait_for(lambda: FAULTS.counts().get("page"), "the fault")
        state = http.json("GET", "/api/v1/state")[1]
        assert list(state["faults"]) == ["page"] and "continued (Boom: injected)" in state["faults"]["page"]
        assert http.metric('faults_total{part="page"}') == 1
        page.close()


def kill_trend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from page_fixture import recorded

    from jmt_edge.live.page import server

    _, earlier = recorded(tmp_path)
    monkeypatch.setattr(server, "RETRIES", (0.01,))
    monkeypatch.setattr(server, "recorded", once(server.recorded))
    page = server.start_page("127.0.0.1:0", Controls(), recordings=tmp_path, earlier=earlier)
    with Kill("trend"):
        page.on_start(_pain_run(tmp_path))
        wait_for(lambda: FAULTS.counts().get("trend"), "the fault")
        wait_for(lambda: page.model.earlier is not None and not page.model.reading, "what was recorded before")
        page.close()


def nobody() -> Any:
    """A broker that does not answer: the threads try again and again."""
    pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
    from jmt_edge.beds.broker import parse_broker

    return parse_broker("mqtt://127.0.0.1:1/ward")


def kill_publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jmt_edge.beds import publisher

    monkeypatch.setattr(publisher, "FAREWELL", 0.2)
    sender = publisher.Publisher(nobody(), "1")
    monkeypatch.setattr(sender, "_collect", once(sender._collect))
    with Kill("mqtt"):
        sender.start()
        wait_for(lambda: FAULTS.counts().get("mqtt"), "the fault")
        sender.add("result", {"pain": 0.5})
        wait_for(lambda: sender._journal.last == 1, "the message to be taken")
        assert sender.close() == 1


def kill_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jmt_edge.beds.listener import Listener
    from jmt_edge.beds.ward import Ward

    ward = Ward("ward")
    listener = Listener(nobody(), ward)
    monkeypatch.setattr(ward, "judge", once(ward.judge))
    with Kill("mqtt station"):
        listener.start()
        wait_for(lambda: FAULTS.counts().get("mqtt station"), "the fault")
        wait_for(lambda: ward.alarms.alarms["broker"].shown, "the alarm that the broker is away")
        listener.close()


def _pain_run(tmp_path: Path) -> Any:
    from page_fixture import empty_bundle

    from jmt_edge.observer import RunInfo
    from jmt_edge.tasks import get_task

    task = get_task("pain", "demo")
    bundle = empty_bundle(task, tmp_path / "empty.jmt")
    return RunInfo(bundle, "none", {}, 0.5, True, 0.0, dict.fromkeys(task.names, "test"))


def kill_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jmt_edge.live.judge import Watch
    from jmt_edge.summary import Summary

    watch, judged = Watch(Controls()), []
    judge = watch.judge.judge
    monkeypatch.setattr(watch.judge, "judge", once(lambda now: judged.append(judge(now))))
    with Kill("alarms"):
        watch.on_start(_pain_run(tmp_path))
        wait_for(lambda: FAULTS.counts().get("alarms"), "the fault")
        wait_for(lambda: len(judged) > 1, "further judgements")
        watch.on_end(Summary("b", True, True))


def kill_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from jmt_edge.live.judge import Watch
    from jmt_edge.live.tui import Terminal
    from jmt_edge.summary import Summary

    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    terminal = Terminal(
        Controls(), Watch(Controls()).judge, Console(file=screen, force_terminal=True, width=80, height=24)
    )
    info = _pain_run(tmp_path)
    with Kill("terminal"):
        terminal.on_start(info)
        monkeypatch.setattr(terminal, "render", once(terminal.render))
        wait_for(lambda: FAULTS.counts().get("terminal"), "the fault")
        before = len(screen.getvalue())
        wait_for(lambda: len(screen.getvalue()) > before, "the next picture")
        terminal.on_end(Summary("b", True, True))


def kill_direct_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jmt_edge.beds.direct import DirectReader, parse_beds
    from jmt_edge.beds.ward import Ward

    ward, judged = Ward(""), []
    reader = DirectReader(parse_beds(["1=http://127.0.0.1:1"], environment={}), ward)
    judge = ward.judge
    monkeypatch.setattr(ward, "judge", once(lambda now: judged.append(judge(now))))
    with Kill("station beds"):
        reader.start()
        wait_for(lambda: FAULTS.counts().get("station beds"), "the fault")
        wait_for(lambda: len(judged) > 1, "further judgements")
        reader.close()


def kill_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of a person ends with its error, which is reported, and nobody else's does."""
    from live_fixture import FakeEngine, ListSource, hand_bundle

    from jmt_edge.live import Options
    from jmt_edge.live.people import Everyone, Person, run_people
    from jmt_edge.tasks import get_task

    bundle = hand_bundle(get_task("pain", "demo"), tmp_path / "hand.jmt")
    times = np.arange(0, 8, 1 / 64)
    made = [ListSource("eda", times, np.full(len(times), 5, np.float32), 64.0) for _ in range(2)]
    monkeypatch.setattr(made[0], "read", once(made[0].read))
    people = [Person(name, {"eda": source}) for name, source in zip("ab", made)]
    run_people(bundle, FakeEngine(bundle.task), people, Options(0.5, realtime=False), Everyone(people))
    assert [person.failed for person in people] == ["Boom: injected", ""]
    assert people[1].summary is not None and people[1].summary.with_outputs == 6


SCENARIOS = {
    "live/people.py": [kill_person],
    "beds/publisher.py": [kill_publisher],
    "beds/listener.py": [kill_listener],
    "beds/direct.py": [kill_direct_reader],
    "live/outputs.py": [kill_marks],
    "live/keys.py": [kill_keys],
    "live/judge.py": [kill_watch],
    "live/tui.py": [kill_terminal],
    "live/page/server.py": [kill_page, kill_trend],
    "capture/reconnect.py": [kill_reader],
    "capture/ahead.py": [kill_read_ahead],
    "clips/frame_worker.py": [kill_face_search],
    "trace.py": [kill_trace],
    "capture/boards/board.py": [kill_board],
    "machine.py": [kill_power_meter],
    "recording/recorder.py": [kill_recorder],
}


def _calls(names: set[str]) -> dict[str, list[str]]:
    """File -> the calls of these names in it, in the whole product."""
    found: dict[str, list[str]] = {}
    folders = {ROOT}
    for name in ("kernels", "calibration", "training"):
        folders.add(Path(__import__(f"jmt_edge.{name}", fromlist=["x"]).__file__).parent)  # type: ignore[arg-type]
    for folder in folders:
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    if called in names:
                        where = path.relative_to(folder).as_posix()
                        found.setdefault(where if folder == ROOT else f"{folder.name}/{where}", []).append(called)
    return found


def test_every_thread_is_started_by_the_supervisor() -> None:
    others = set(_calls(STARTS)) - POOLS
    assert not others, "start it with faults.Steady"
    assert _calls({"Steady"}) == {where: ["Steady"] * len(kills) for where, kills in SCENARIOS.items()}, (
        "a scenario for each thread, please"
    )


@pytest.mark.parametrize(
    "kill", [kill for kills in SCENARIOS.values() for kill in kills], ids=lambda kill: kill.__name__
)
def test_a_killed_thread_works_on(kill: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "PAUSE", 0.01)
    kill(tmp_path, monkeypatch)


# --- the supervisor itself --------------------------------------------------------------------------------------------


def test_the_wait_doubles_and_ends_with_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return len(waits) == 9

    def fail() -> None:
        raise Boom("injected")

    with Kill("test"):
        thread = Steady(fail, "test", Stopping())
        thread.run()
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_a_fault_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    counted = Faults()
    before = counted.counts()
    for number in range(1000):
        counted.add("part", Boom(f"number\n{number}"))
    counted.add("part", ValueError("another"))
    assert len(caplog.records) == 2
    assert counted.since(before) == {"part": Fault(1001, "ValueError: another")}
    assert counted.since(counted.counts()) == {}
    assert str(Fault(1, "Boom: x")) == "failed 1 time and continued (Boom: x)"


@pytest.mark.parametrize("lines", [io.TextIOWrapper(io.BytesIO(b"\xff\xfe\nmark kept\n"), "utf-8"), "closed"])
def test_marks_that_cannot_be_read_end_with_a_sentence(lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    if lines == "closed":
        lines = io.StringIO("mark x\n")
        lines.close()
        thread = read_marks(lines, Controls())
        thread.join(20)
        assert not thread.is_alive() and "no more marks: I/O operation on closed file" in capsys.readouterr().err
        return
    before = FAULTS.counts()
    thread = read_marks(lines, Controls())
    thread.join(20)
    assert not thread.is_alive() and FAULTS.since(before)["marks"].count >= 1


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("2", 2)])
def test_linear_algebra_of_a_live_run_has_one_thread_unless_asked(asked: str | None, threads: int) -> None:
    """OpenBLAS starts its threads when NumPy is imported, and idle ones wait at full speed."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir() or (os.cpu_count() or 1) < 2:
        pytest.skip("needs /proc and two cores")
    code = "import os; from jmt_edge.cli import cli; cli.get_command(None, 'live'); import numpy; "
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    environment |= {} if asked is None else {"OPENBLAS_NUM_THREADS": asked}
    code += "print(len(os.listdir('/proc/self/task')), 'openblas' in str(numpy.show_config('dicts')).lower())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    count, openblas = done.stdout.split()
    if openblas == "False":
        pytest.skip("this NumPy has no OpenBLAS")
    assert int(count) == threads
