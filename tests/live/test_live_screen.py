"""The terminal's alarms, staleness, sizes and letters."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from live_fixture import Watched
from rich.console import Console

from jmt_edge.capture.base import State, Status
from jmt_edge.engine.bundle import Bundle
from jmt_edge.faults import FAULTS
from jmt_edge.languages import Language, language
from jmt_edge.live import Controls, Quality, Result, RunInfo, judge, screen, tui
from jmt_edge.live.judge import Watch
from jmt_edge.live.letters import Letters, encoding_of
from jmt_edge.live.page.feed import Feed
from jmt_edge.live.page.model import Model
from jmt_edge.live.tui import Terminal
from jmt_edge.summary import Summary

Bundles = Callable[[str], Bundle]
DEVICE = "/dev/serial/by-id/usb-PLUX_BITalino_20-17-09"
SIZES = ((40, 12), (80, 24), (100, 30), (200, 50), (250, 60))


def a_result(bundle: Bundle, index: int, pain: float | None = 0.4, **other: Any) -> Result:
    names = bundle.task.names
    outputs = None if pain is None else {"pain": pain, "valence": -0.4, "arousal": 0.2}
    return Result(
        index, index * 0.5, "trimodal", outputs, "" if outputs else "no usable modality: eda: electrode open",
        {name: Quality(outputs is not None, "" if outputs else "electrode open", 0.9) for name in names},
        dict.fromkeys(names, 1 / 3 if outputs else None), {"preprocess": 31.0, "total": 60.0}, 0, bundle.id, **other,
    )  # fmt: skip


def info_of(bundle: Bundle, **other: Any) -> RunInfo:
    sources = dict.fromkeys(bundle.task.names, "sim:")
    given = {"realtime": True, "smooth": 0.0, "sources": sources, **other}
    return RunInfo(bundle, "onnxruntime", {"fusion": "fp32"}, 0.5, **given)


class Bed:
    """A terminal that judges by itself, fed by hand as if its results had come in the last ten seconds."""

    def __init__(
        self, bundle: Bundle, size: tuple[int, int] = (80, 24), speech: Language | None = None, **other: Any
    ) -> None:
        self.bundle = bundle
        self.console = Console(
            file=io.StringIO(), width=size[0], height=size[1], force_terminal=True, color_system="standard"
        )
        self.controls = Controls()
        self.watch = Watch(self.controls)
        self.terminal = Terminal(self.controls, self.watch.judge, self.console, speech=speech)
        self.now = time.monotonic() - 60
        self.index = 0
        self.terminal._info = self.watch.info = info_of(bundle, **other)
        self.watch.judge.begin(self.now)

    def feed(self, pain: float | None, seconds: float = 4.0) -> None:
        for _ in range(int(seconds / 0.5)):
            self.index += 1
            self.now += 0.5
            self.watch.arrived = dict.fromkeys(self.bundle.task.names, time.monotonic())
            for observer in (self.watch, self.terminal):
                observer.on_result(a_result(self.bundle, self.index, pain))
            self.watch.active = self.now
            self.watch.arrived = dict.fromkeys(self.bundle.task.names, self.now)
            self.watch.update(self.now)
        self.watch.active = time.monotonic()
        self.watch.arrived = dict.fromkeys(self.bundle.task.names, self.watch.active)

    def drawn(self) -> list[str]:
        """The lines with their styles as escape sequences."""
        self.console.file = io.StringIO()
        self.console.print(self.terminal.render())
        return str(self.console.file.getvalue()).splitlines()

    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(self.drawn()))


def test_an_alarm_is_on_top_in_reverse_until_acknowledged(bundles: Bundles) -> None:
    bed = Bed(bundles("trimodal"))
    bed.feed(0.3)
    assert "alarms" in bed.drawn()[1] and "Pain probability" not in bed.text()
    bed.feed(0.95, 2.0)
    assert "Pain probability" not in bed.text()  # the delay of 3 s runs, as on the page
    bed.feed(0.95)
    line = bed.drawn()[1]
    assert re.search(r"Pain probability ≥ 70% since [0-2]\d:[0-5]\d", line) and line.startswith("\x1b[1;7;31m")
    bed.terminal._press("a")
    line = bed.drawn()[1]
    assert "≥ 70%" in line and "(acknowledged)" in line and ";7;" not in line
    bed.feed(0.1)
    assert "Pain probability" not in bed.text()
    bed.terminal._press("a")
    assert "no alarm waits for acknowledgement" in bed.text()


def test_a_latched_alarm_says_from_when_to_when_and_how_high(bundles: Bundles) -> None:
    bed = Bed(bundles("trimodal"), (100, 30))
    bed.feed(0.8)
    bed.feed(0.95, 1.0)
    bed.feed(0.1)
    said = (
        r"Pain probability was ≥ 70% from \d\d:\d\d(:\d\d)? to \d\d:\d\d(:\d\d)?, peak 95% \(over, not acknowledged\)"
    )
    assert re.search(said, bed.drawn()[1]) and ";7;" in bed.drawn()[1]
    bed.terminal._press("a")
    assert "Pain probability" not in bed.text()


def test_the_alarms_are_those_of_the_page(bundles: Bundles) -> None:
    """One judge: a person who acknowledges or pauses at either does it for both, and the audit log has it first."""
    bundle = bundles("trimodal")
    feed = Feed()
    model = Model(feed, Controls())
    feed.on_start(info_of(bundle))
    logged: list[Any] = []
    terminal = Terminal(
        Controls(), model.judging, Console(file=io.StringIO(), width=80, height=24), lambda *a, **k: logged.append(a)
    )
    terminal._info = feed.info
    now = time.monotonic() - 60
    for index in range(1, 20):
        feed.on_result(a_result(bundle, index, 0.9))
        now += 0.5
        model.update(now)
        model.judge(now)
    assert [a["state"] for a in model.snapshot(now)["alarms"] if a["id"] == "pain"] == ["active"]
    console = terminal._console
    console.print(terminal.render())
    assert "Pain probability ≥ 70%" in console.file.getvalue()  # type: ignore[attr-defined]
    terminal._press("p")
    assert model.snapshot(time.monotonic())["pause_left"] > 60
    terminal._press("p")
    assert model.snapshot(time.monotonic())["pause_left"] == 0
    terminal._press("a")
    assert [a["state"] for a in model.snapshot(now)["alarms"] if a["id"] == "pain"] == ["acknowledged"]
    assert [entry[0] for entry in logged] == ["pause alarms", "resume alarms", "acknowledge"]


def test_nothing_is_acknowledged_that_cannot_be_logged(bundles: Bundles) -> None:
    def full(*args: Any, **details: Any) -> None:
        raise OSError(28, "No space left on device")

    bed = Bed(bundles("trimodal"))
    bed.terminal._log = full
    bed.feed(0.95, 5.0)
    bed.terminal._press("a")
    assert "the audit log cannot be written (No space left on device)" in bed.text() and ";7;" in bed.drawn()[1]


def test_the_bell_is_off_unless_asked(bundles: Bundles) -> None:
    bed = Bed(bundles("trimodal"))
    bed.feed(0.95, 5.0)
    bells = bed.console.file = io.StringIO()
    bed.terminal._show()
    assert "\a" not in bells.getvalue() and "b bell (off)" in bed.text()
    bed.terminal._press("b")
    bells = bed.console.file = io.StringIO()
    bed.terminal._show()
    bed.terminal._show()
    assert bells.getvalue().count("\a") == 1  # every 4 s
    assert "b bell (on)" in bed.text()
    bed.terminal._press("p")
    bed.terminal._rung = 0.0
    bells = bed.console.file = io.StringIO()
    bed.terminal._show()
    assert "\a" not in bells.getvalue()
    assert re.search(r"paused (2:00|1:5\d)", bed.text())


@pytest.mark.parametrize(("replay", "said"), [("session1", "REPLAY of session1: not live"), ("", "NOT LIVE: files at")])
def test_what_is_not_live_says_so_and_alarms_nobody(bundles: Bundles, replay: str, said: str) -> None:
    bed = Bed(bundles("trimodal"), realtime=False, replay=replay)
    bed.feed(0.99, 8.0)
    text = bed.text()
    assert said in text and "no alarms" in text and "Pain probability" not in text and "q quit" in text
    for key in "m7apb":
        bed.terminal._message = ""
        bed.terminal._press(key)
        assert "this run is not live" in bed.text()
    assert not bed.controls.take_marks()


def test_a_stalled_loop_leaves_no_value(bundles: Bundles) -> None:
    bundle = bundles("trimodal")
    bed = Bed(bundle)
    bed.feed(0.83)
    bed.terminal.on_status({"eda": Status(State.STREAMING)})
    assert "0.83" in bed.text() and "ok  0.90" in bed.text() and "33%" in bed.text() and "total 60" in bed.text()
    bed.watch.active -= judge.STALE + 0.1
    bed.watch.update(time.monotonic())
    text = bed.text()
    assert "the run has stalled: no results for 2 s" in text and "The run has stalled: no results since" in text
    for old in ("0.83", "−0.40", "+0.20", "ok  ", "33%", "total 60", "from face"):
        assert old not in text, old
    assert judge.STALE + tui.PERIOD < 2.0


def test_a_hanging_loop_and_a_fault_do_not_stop_the_drawing(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal's own thread draws; the loop's thread is this one, which only waits."""
    monkeypatch.setenv("TERM", "xterm")
    before = FAULTS.counts()
    failed = threading.Event()
    draw = tui.draw

    def broken(view: Any, *args: Any) -> Any:
        if view.result is not None and not failed.is_set():
            failed.set()
            raise ValueError("once")
        return draw(view, *args)

    monkeypatch.setattr(tui, "draw", broken)
    bundle = bundles("trimodal")
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    terminal = Watched(Controls(), lambda judge: Terminal(Controls(), judge, console))
    terminal.on_start(info_of(bundle))
    try:
        terminal.on_result(a_result(bundle, 1, 0.83))
        end = time.monotonic() + 60
        while "the run has stalled" not in console.file.getvalue():  # type: ignore[attr-defined]
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        terminal.on_end(Summary(bundle.id, True, True))
    assert failed.is_set() and FAULTS.since(before)["terminal"].count == 1


def test_a_lost_sensor_says_why_and_has_no_value(bundles: Bundles) -> None:
    bed = Bed(bundles("trimodal"))
    bed.feed(0.4)
    for observer in (bed.watch, bed.terminal):
        observer.on_status({"voice": Status(State.LOST, reason="unplugged: hw:1,0")})
    bed.terminal._level = -20.0
    bed.terminal.on_result(
        replace(a_result(bed.bundle, 9), quality={**a_result(bed.bundle, 9).quality, "voice": Quality(False, "gone")})
    )
    bed.watch.update(time.monotonic())
    text = bed.text()
    assert "Microphone lost since" in text and "lost, unplugged: hw:1,0" in text and "voice    — dBFS" in text


def states(bundle: Bundle) -> dict[str, screen.View]:
    """Views with as much to say as there can be."""
    info = info_of(bundle, uncertainty="90%", sources=dict.fromkeys(bundle.task.names, DEVICE))
    rest = {"baseline": {}, "difference": {"eda": {"uS": -1.3, "spreads": -2.1}}, "refused": {"voice": "no samples"}}
    result = a_result(
        bundle, 400, 0.94, rest=rest, uncertainty={"coverage": 0.9, "pain": ["no", "yes"], "valence": [-0.5, 0.1]},
        without={name: {"pain": 0.1, "valence": -0.2, "arousal": 0.3} for name in bundle.task.names},
    )  # fmt: skip
    history = [(i, None if i % 50 < 5 else {"pain": i / 400, "valence": -i / 400, "arousal": 0.1}) for i in range(400)]
    alarm = {
        "id": "pain", "kind": "physiological", "priority": "high", "state": "latched", "no_data": True, "detail": "",
        "text": "Pain probability was ≥ 70%", "from": time.time() - 200, "to": time.time() - 100, "times": 3,
        "peak": 0.95,
    }  # fmt: skip
    late = {
        **alarm,
        "priority": "low",
        "state": "active",
        "text": "Engine late",
        "to": None,
        "detail": "7 dropped so far",
    }
    steady = screen.View(
        info, result, history=history, eda=[(i, 5 + i / 100) for i in range(800)], level=-20.0,
        alarms={"alarms": [], "pause_left": 0}, message="rating 7 at 199.2 s, not saved: recording is off", p95=71.0,
    )  # fmt: skip
    return {
        "steady": steady,
        "alarm": replace(steady, alarms={"alarms": [alarm, late, late], "pause_left": 83.0}, recording=True),
        "stalled": replace(steady, stale=True, age=7.0),
        "replay": replace(steady, info=replace(info, realtime=False, replay="a-session-with-a-name-of-some-length")),
        "nothing": replace(steady, result=a_result(bundle, 400, None)),
        "start": screen.View(info, alarms=steady.alarms),
    }


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize("size", [*SIZES, (40, 10), (30, 8), (20, 6)])
def test_every_state_fits_every_size_and_keeps_the_keys(bundles: Bundles, size: tuple[int, int], encoding: str) -> None:
    width, height = size
    letters = Letters(encoding)
    for task in ("pain", "affect", "trimodal"):
        for name, view in states(bundles(task)).items():
            console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
            console.print(screen.draw(view, width, height, letters))
            text = console.file.getvalue()  # type: ignore[attr-defined]
            lines = text.splitlines()
            text.encode(encoding)
            assert len(lines) <= height and max(map(len, lines)) <= width, (task, name)
            assert lines[-1].startswith("q quit") and ("clinical use" in lines[-2] or width < 30), (task, name)
            assert width < 40 or letters.ellipsis not in lines[-1], "the key line is shortened, not cut"
            for whole in (view.info.bundle.id, DEVICE, view.reason, view.message):
                begin = letters(whole)[:8].rstrip()
                for line in lines if begin else ():
                    assert begin not in line or letters(whole) in line or letters.ellipsis in line, (task, name, line)
            if height >= 24:
                assert len(lines) == height, "large terminals are used"


def test_large_terminals_show_a_longer_and_taller_history(bundles: Bundles) -> None:
    view = states(bundles("trimodal"))["steady"]

    def bars(size: tuple[int, int]) -> tuple[int, int]:
        console = Console(file=io.StringIO(), width=size[0], height=size[1], force_terminal=False)
        console.print(screen.draw(view, *size, Letters("utf-8")))
        rows = [re.findall("[▁-█]", line) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
        return max(map(len, rows)), sum(bool(row) for row in rows)

    found = [bars(size) for size in SIZES]
    assert found == sorted(found) and len({wide for wide, _ in found}) == len(SIZES)
    assert found[3][0] > 150 and found[3][1] >= 25


def test_dropped_windows_leave_a_hole(bundles: Bundles) -> None:
    bundle = bundles("pain")
    past = [(i, {"pain": 1.0}) for i in (1, 2, 3, 6, 7)]
    view = screen.View(info_of(bundle), a_result(bundle, 7), history=past, alarms={"alarms": [], "pause_left": 0})
    console = Console(file=io.StringIO(), width=40, height=12, force_terminal=False)
    console.print(screen.draw(view, 40, 12, Letters("utf-8")))
    assert any(line.rstrip(" │").endswith(" ███  ██") for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [("utf-8", {}, "utf-8"), ("utf-8", {"LANG": "de_DE.UTF-8"}, "utf-8"), ("iso8859-1", {"LANG": "C"}, "iso8859-1"),
     ("utf-8", {"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "ascii"), ("utf-8", {"LC_ALL": "POSIX", "LANG": "x"}, "ascii"),
     ("utf-8", {"LC_CTYPE": "C.UTF-8"}, "utf-8"), ("utf-8", {"LC_ALL": "C.UTF-8", "LANG": "C"}, "utf-8"),
     ("utf-8", {"LANG": "C", "PYTHONIOENCODING": "utf-8"}, "utf-8")],
)  # fmt: skip
def test_the_c_locale_is_ascii_whatever_python_makes_of_it(stream: str, environ: dict[str, str], expected: str) -> None:
    assert encoding_of(stream, environ) == expected


def test_letters_are_those_of_the_encoding() -> None:
    assert Letters("ascii")("−0.40 ≥ 5 µS — … ● ▁█ 90° 木\x1b[2J") == "-0.40 >= 5 uS - ... * .# 90 deg ??[2J"
    assert Letters("latin-1")("−0.40 5 µS 90°") == "-0.40 5 µS 90°"
    assert Letters("utf-8")("−0.40 ≥ 5 µS 木") == "−0.40 ≥ 5 µS 木"
    assert Letters("no-such-encoding")("µ") == "u"
    assert Letters("ascii").line([("a long sentence", "")], 9).plain == "a long..."
    assert Letters("utf-8").line([("a long sentence", "")], 9).plain == "a long s…"


ENGLISH = re.compile(
    r"\b(pain|voice|face|from|with|without|alarms?|acknowledge|record|probability|since|quality|attention|dropped|rating|"
    r"clinical|the|of|outputs|sensors|last)\b"
)


@pytest.mark.parametrize("size", SIZES)
def test_a_screen_in_german(bundles: Bundles, size: tuple[int, int]) -> None:
    """Every part of it, with an alarm over, a lost sensor, a rest and a message; each line fits."""
    bed = Bed(bundles("trimodal"), size, language("de"))
    bed.feed(0.3)
    bed.feed(0.95, 5.0)
    bed.feed(0.1, 2.0)
    bed.terminal._statuses = {"eda": Status(State.STREAMING, lost=3, reconnects=1)}
    bed.terminal._result = a_result(
        bed.bundle, bed.index, 0.4, uncertainty={"coverage": 0.9, "pain": ["no", "yes"], "valence": [-0.5, 0.25]},
        rest={"difference": {"eda": {"uS": 1.3, "spreads": 2.1}}, "refused": {}},
    )  # fmt: skip
    text = bed.text()
    assert all(len(line) <= size[0] for line in text.splitlines()) and len(text.splitlines()) <= size[1]
    assert "Schmerzwahrscheinlichkeit war ≥ 70 %"[: size[0] - 8] in text
    assert "q Ende" in text and "nicht für den klinischen Einsatz" in text and "Valenz" in text and "−0,40" in text
    assert sorted(set(ENGLISH.findall(text))) == []
    if size[0] >= 100:
        for words in ("Qualität", "EDA +1,30 µS (2,1 SD)", "3 verloren, 1-mal neu verbunden", "Werte, letzte"):
            assert words in text, words
    bed.terminal._press("b")
    bed.terminal._press("5")
    bed.terminal._press("a")
    assert "quitt" in bed.text()
    bed.feed(None, 2.0)
    assert "kein Signal verwendbar: EDA: electrode open" in bed.text().replace("\n", " ") or size[0] < 80


def test_german_in_ascii() -> None:
    letters = Letters("ascii")
    assert letters("Größe für Überprüfung: „nein“, 70\u00a0%") == 'Groesse fuer Ueberpruefung: "nein", 70 %'
    assert Letters("utf-8")("70\u00a0% für") == "70 % für"
