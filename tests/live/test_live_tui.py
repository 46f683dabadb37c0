"""The terminal view: what it shows at every size, its keys in a real pseudo-terminal, and what happens without one."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fixture import jmt_edge
from rich.console import Console

from jmt_edge.capture.base import State, Status
from jmt_edge.engine.bundle import Bundle
from jmt_edge.live import Controls, Mark, Quality, Result, RunInfo
from jmt_edge.live.actions import LABEL
from jmt_edge.live.judge import Watch
from jmt_edge.live.keys import Keys
from jmt_edge.live.ratings import UNDO
from jmt_edge.live.screen import MOST, chart
from jmt_edge.live.tui import Terminal
from jmt_edge.media.chunk import Chunk
from jmt_edge.preprocessing.actions import ACTIONS, INDEX
from jmt_edge.recording.reader import Recording

Bundles = Callable[[str], Bundle]


def test_a_chart_spans_its_scale_and_leaves_gaps() -> None:
    assert chart([0, 0.5, 1, None, 2, -1], 0, 1) == ["▁▅█ █▁"]
    assert chart([3.0, 3.0], 3.0, 3.0) == ["▁▁"]
    assert chart([0, 0.5, 1, None, 2, -1], 0, 1, 2) == [" ▁█ █ ", "▁██ █▁"]


def drawn(terminal: Terminal, console: Console) -> str:
    console.print(terminal.render())
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def view(bundles: Bundles, result: Result | None, controls: Controls | None = None) -> tuple[Terminal, Console]:
    bundle = bundles("trimodal")
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=False)
    controls = controls or Controls()
    terminal = Terminal(controls, Watch(controls).judge, console)
    precision = dict.fromkeys((*bundle.task.names, "fusion"), "fp32")
    terminal._info = RunInfo(
        bundle, "onnxruntime", precision, 0.5, True, 0.0, {"face": "/dev/video0", "voice": "", "eda": "sim:seed=0"}
    )
    terminal.judge.heard.info = terminal._info
    terminal.judge.begin(time.monotonic())
    terminal.on_chunk("eda", Chunk(np.arange(0, 30, 0.1), np.linspace(2, 8, 300).astype(np.float32), 10.0))
    terminal.on_chunk("voice", Chunk(np.arange(100) / 44100, np.full(100, 0.1, np.float32), 44100))
    terminal.on_status({"face": Status(State.STREAMING, lost=3), "eda": Status(State.STREAMING)})
    if result is not None:
        terminal.on_result(result)
    return terminal, console


class On:
    """A recorder that records."""

    active = True
    state = "recording to x"
    folder = Path("x")

    def start(self) -> None: ...

    def alarm(self, what: str, values: Any, *, lasts: bool = False) -> None: ...

    def begin_session(self, subject: str, *, record: bool) -> None: ...

    def stop(self) -> None: ...


def a_result(outputs: dict[str, float] | None, bundle: Bundle) -> Result:
    quality = {
        "face": Quality(True, "", 0.9),
        "voice": Quality(False, "no source"),
        "eda": Quality(outputs is not None, "" if outputs else "electrode open or saturated [5 s]", 0.8),
    }
    attention = {"face": 0.75 if outputs else None, "voice": None, "eda": 0.25 if outputs else None}
    latency = {"preprocess": 31.0, "backbones": 12.0, "fusion": 2.0, "total": 60.0}
    reason = "" if outputs else "no usable modality: face: no face; eda: electrode open"
    return Result(8, 4.0, "trimodal", outputs, reason, quality, attention, latency, 2, bundle.id)  # type: ignore[arg-type]


def test_everything_that_matters_fits_into_80_by_24(bundles: Bundles) -> None:
    controls = Controls()
    result = a_result({"pain": 0.73, "valence": -0.4, "arousal": 0.2}, bundles("trimodal"))
    terminal, console = view(bundles, result, controls)

    controls.recording = On()
    terminal.on_mark(Mark(3.5, rating=6))
    text = drawn(terminal, console)
    lines = text.splitlines()
    assert len(lines) <= 24 and all(len(line.rstrip()) <= 80 for line in lines)
    assert "weight" not in text.replace("demo weights", "")
    for piece in (
        bundles("trimodal").id, "onnxruntime fp32", "● REC", "0.73", "−0.40", "+0.20", "/dev/video0", "75%", "ok  0.90",
        "lost 3", "no source", " µS", "▁", "█", "preprocess 31", "total 60", "p95 60", "dropped 2",
        "rating 6 at 3.5 s", "q quit", "attention", "a acknowledge", "p pause", "b bell (off)",
        "demo weights, trained on synthetic data; not for clinical use",
    ):  # fmt: skip
        assert piece in text, piece


def test_uncalibrated_readings_are_not_called_microsiemens(bundles: Bundles) -> None:
    terminal, console = view(bundles, None)
    terminal.on_status({"eda": Status(State.STREAMING, unit="a.u.")})
    text = drawn(terminal, console)
    assert " a.u." in text and "µS" not in text


@pytest.mark.parametrize(
    ("width", "height"), [(40, 12), (40, 14), (60, 16), (66, 18), (67, 19), (80, 24), (100, 30), (200, 50), (250, 60)]
)
def test_a_terminal_of_any_size_keeps_the_verdicts_and_the_notice(bundles: Bundles, width: int, height: int) -> None:
    result = a_result({"pain": 0.4, "valence": 0.1, "arousal": 0.2}, bundles("trimodal"))
    result = replace(
        result, quality={**result.quality, "face": Quality(False, "mouth covered", track=2), "voice": Quality(True, "")}
    )
    controls = Controls()
    controls.recording = On()
    terminal, _ = view(bundles, result, controls)
    terminal._console = console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    lines = drawn(terminal, console).rstrip().splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    assert "● REC" in lines[0] and "4.0 s" in lines[0]
    assert any("face" in line and "mouth covered  person 2" in line for line in lines)
    assert all(any(name in line and value in line for line in lines) for name, value in
               (("pain", "0.40"), ("valence", "+0.10"), ("arousal", "+0.20")))  # fmt: skip
    assert any("not for clinical use" in line for line in lines)
    assert lines[-1].startswith("q quit") and all(f" {key} " in f"{lines[-1]} " for key in "mucrapb")


@pytest.mark.parametrize("reason", ["", "face turned away in 5 of 6 frames"])
@pytest.mark.parametrize(("width", "height"), [(40, 12), (67, 19), (80, 20), (80, 24), (200, 50)])
def test_facial_actions_fit_and_say_that_they_are_uncalibrated(
    bundles: Bundles, width: int, height: int, reason: str
) -> None:
    found = {
        "label": LABEL, "t": 3.5, "reason": reason, "pose": None, "measures": None,
        "strengths": None if reason else dict.fromkeys(ACTIONS, 1.3), INDEX: None if reason else 3.9,
    }  # fmt: skip
    result = a_result({"pain": 0.4, "valence": 0.1, "arousal": 0.2}, bundles("trimodal"))
    terminal, _ = view(bundles, replace(result, actions=found))
    assert terminal._info is not None
    terminal._info = replace(terminal._info, actions=True)
    terminal._console = console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    text = drawn(terminal, console)
    lines = text.rstrip().splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    assert all(name in text for name in ("pain", "valence", "not for clinical use"))
    if height >= 20:
        assert f"({LABEL}): —" in text if reason else f"({LABEL}): 3.9 of 16" in text
        assert reason in text
        assert reason or any("AU 6+7: 1.3, 9+10: 1.3" in line for line in lines)
        assert "3.9" not in text or not reason


def test_no_data_is_a_dash_with_the_reason(bundles: Bundles) -> None:
    terminal, console = view(bundles, a_result({"pain": 0.73, "valence": 0.0, "arousal": 0.0}, bundles("trimodal")))
    terminal.on_result(a_result(None, bundles("trimodal")))
    text = drawn(terminal, console)
    assert "0.73" not in text and text.count("—") >= 3
    assert "no usable modality" in text and "electrode open or saturated [5 s]" in text


def test_before_the_first_window(bundles: Bundles) -> None:
    assert "waiting for the first window" in drawn(*view(bundles, None))
    console = Console(file=io.StringIO(), width=80)
    assert "starting" in drawn(Terminal(Controls(), Watch(Controls()).judge, console), console)


def test_a_half_second_of_eda_in_several_chunks_is_one_mean(bundles: Bundles) -> None:
    terminal, console = view(bundles, None)
    for i, value in enumerate((1.0, 2.0, float("nan"), 6.0)):
        terminal.on_chunk("eda", Chunk(np.array([40.0 + i / 10]), np.array([value], np.float32), 10.0))
    assert "EDA   3.00" in drawn(terminal, console)
    terminal.on_chunk("eda", Chunk(np.array([40.6]), np.array([np.nan], np.float32), 10.0))
    assert terminal._view(time.monotonic()).eda[-1] == (81, None)


def test_the_loop_does_not_wait_while_drawing_waits_for_the_judge(bundles: Bundles) -> None:
    """The page's thread judges and writes events while the terminal draws: the loop waits for neither."""
    terminal, _ = view(bundles, None)
    result = Result(1, 0.5, "trimodal", None, "nothing usable", {}, {}, {"total": 3.0}, 0, "b")
    with terminal.judge._lock:
        drawing = threading.Thread(target=terminal.render, daemon=True)
        drawing.start()
        drawing.join(0.3)  # it waits for the judge
        loop = threading.Thread(target=terminal.on_result, args=(result,), daemon=True)
        loop.start()
        loop.join(5.0)
        assert drawing.is_alive() and not loop.is_alive()
    drawing.join(5.0)
    assert not drawing.is_alive()


def test_history_is_bounded(bundles: Bundles) -> None:
    terminal, _ = view(bundles, None)
    for i in range(3000):
        terminal.on_result(a_result({"pain": 0.5, "valence": 0.0, "arousal": 0.0}, bundles("trimodal")))
        terminal.on_chunk("eda", Chunk(np.array([i * 0.5]), np.array([5], np.float32)))
    assert len(terminal._history) <= MOST and len(terminal._eda) <= MOST + 2 < 3000


def run_in_terminal(
    args: list[str], keys: list[bytes], ready: bytes, size: tuple[int, int] = (80, 24), **environment: str | None
) -> tuple[int, bytes, bool]:
    """Run in a pseudo-terminal, press `keys` once `ready` was drawn; (exit code, output, echo restored).

    environment: what differs from the test's own; None unsets a variable.
    """
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    before = termios.tcgetattr(slave)
    wanted = {**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8", **environment}
    for name in ("COLUMNS", "LINES"):  # readline set these where pytest starts its workers; they count for more
        wanted.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "jmt_edge", *args], stdin=slave, stdout=slave, stderr=slave,
        env={name: value for name, value in wanted.items() if value is not None},
    )  # fmt: skip
    output, deadline, pressed = b"", time.monotonic() + 120, 0.0
    while process.poll() is None:
        assert time.monotonic() < deadline, output[-2000:]
        if select.select([master], [], [], 0.1)[0]:
            output += os.read(master, 65536)
        if ready in output and keys and time.monotonic() > pressed + 0.5:
            os.write(master, keys.pop(0))
            pressed = time.monotonic()
    while select.select([master], [], [], 0.2)[0]:
        output += os.read(master, 65536)
    restored = termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)
    return process.returncode, output, restored


def plain(output: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode(errors="replace"))


def of_pain(bundles: Bundles) -> list[str]:
    return ["live", "--bundle", str(bundles("pain").path), "--eda", "sim:", "--hop", "0.25"]


def test_keys_mark_rate_and_quit(bundles: Bundles) -> None:
    keys = [b"m", b"7", b"r", b"b", b"p", *[b"x"] * 9, b"q"]  # x: nothing, until the 5 s in which u undoes are over
    code, output, restored = run_in_terminal(of_pain(bundles), keys, b"warming up")
    assert code == 0 and restored
    text = plain(output)
    assert "mark key at" in text and "rating 7 at" in text and "not saved: recording is off" in text
    assert "start it with --record DIR" in text
    assert "the bell is on" in text and "b bell (on)" in text
    assert "alarms paused for 120 s" in text and re.search(r"paused [12]:", text)
    assert "results" in text and "peak memory" in text and "not for clinical use" in text
    assert "Traceback" not in text


class Rated:
    """A terminal view whose keys a test presses and whose clock it turns; the marks that it asks for are told to it."""

    def __init__(self, terminal: Terminal, controls: Controls, monkeypatch: pytest.MonkeyPatch) -> None:
        self.terminal, self.controls = terminal, controls
        self.now = time.monotonic()
        monkeypatch.setattr("jmt_edge.live.typed_ratings.time.monotonic", lambda: self.now)

    def press(self, *keys: str) -> str:
        for key in keys:
            self.terminal._press(key)
        return self.terminal._message

    def after(self, seconds: float, *, ending: bool = False) -> list[tuple[int | None, float | None]]:
        """(rating, what it corrects) of the marks that have been noted since the last call."""
        self.now += seconds
        self.terminal.on_ending() if ending else self.terminal._rate()
        marks = [Mark(when, text, rating, corrects) for when, text, rating, corrects in self.controls.take_marks()]
        for mark in marks:
            self.terminal.on_mark(mark)
        return [(mark.rating, mark.corrects) for mark in marks]


@pytest.fixture
def rated(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> Rated:
    controls = Controls()
    controls.recording = On()
    terminal, _ = view(bundles, None, controls)
    return Rated(terminal, controls, monkeypatch)


def test_a_typed_rating_waits_as_long_as_the_page_s_and_can_be_undone(rated: Rated) -> None:
    page = Path(__file__).parents[2] / "jmt_edge/live/page/static/ratings.js"
    assert f"UNDO = {UNDO:g};" in page.read_text()
    assert "rating 7 noted in 5 s" in rated.press("7") and rated.after(UNDO - 0.1) == []
    assert rated.press("u") == "rating 7 undone" and rated.after(60) == []
    assert "no rating waits" in rated.press("u")
    rated.press("3", "t")  # the right one, typed at once
    at = rated.now
    assert rated.after(UNDO) == [(10, None)]
    (noted,) = rated.terminal._ratings._ratings.given
    assert noted.t == pytest.approx(at)  # when it was typed
    assert "no rating waits" in rated.press("u")


def test_the_last_rating_is_corrected_or_withdrawn_in_the_terminal(rated: Rated) -> None:
    noted: list[tuple[str, dict[str, object]]] = []
    rated.terminal._log = lambda action, **details: noted.append((action, details))
    assert "no rating to correct" in rated.press("c") and "press c first" in rated.press("w")
    rated.press("7")
    rated.after(UNDO)
    (first,) = rated.terminal._ratings._ratings.given
    assert rated.press("c").startswith(f"instead of 7 at {first.t:.1f} s")
    assert "stays as it was" in rated.press("u") and "press c first" in rated.press("w")
    assert rated.press("c", "5") == "changed to 5 in 5 s; u undoes it" and noted == []
    assert "a rating waits" in rated.press("c")
    assert rated.after(UNDO) == [(5, first.t)]
    assert noted == [("correct rating", {"of": round(first.t, 3), "before": 7, "after": 5})]
    assert "stays as it was" in rated.press("c", "2", "u") and rated.after(UNDO) == []
    rated.press("c", "w")
    assert rated.after(UNDO) == [(None, first.t)] and rated.terminal._ratings._ratings.given == []
    assert "no rating to correct" in rated.press("c")


def test_a_correction_that_would_be_lost_is_refused_with_the_reason(rated: Rated, tmp_path: Path) -> None:
    """As the page's: by what holds the rating."""
    rated.press("7")
    rated.after(UNDO)
    assert rated.controls.recording is not None
    rated.press("c", "3")
    rated.controls.recording.folder = tmp_path / "later"  # type: ignore[misc]
    assert rated.after(UNDO) == [] and "in the recording x, which has ended" in rated.terminal._message
    assert "in the recording x, which has ended" in rated.press("c")

    def full(action: str, **details: object) -> None:
        raise OSError(28, "No space left on device")

    rated.terminal._log = full
    rated.press("4")
    rated.after(UNDO)
    rated.press("c", "3")
    assert rated.after(UNDO) == [] and "the audit log cannot be written" in rated.terminal._message


def test_a_rating_that_waits_when_the_run_ends_is_noted(rated: Rated) -> None:
    rated.press("7")
    assert rated.after(1, ending=True) == [(7, None)]


def test_the_recording_has_what_was_left_of_typed_ratings(bundles: Bundles, tmp_path: Path) -> None:
    """One undone, one corrected, and one that waits at the end, through a real run."""
    wait = [b"x"] * 12  # a key every half a second
    keys = [b"9", b"u", b"7", *wait, b"c", b"4", *wait, b"2", b"q"]
    args = [*of_pain(bundles), "--record", str(tmp_path / "night")]
    code, output, _ = run_in_terminal(args, keys, b"warming up")
    assert code == 0 and "Traceback" not in plain(output)
    marks = Recording(tmp_path / "night").marks()
    assert [(m.rating, m.corrects) for m in marks] == [(7, None), (4, marks[0].t), (2, None)]


@pytest.mark.parametrize(
    ("sent", "pressed"),
    [
        ([b"\x1b[3~"], ""),  # Delete
        ([b"\x1b[15~", b"\x1bOP", b"\x1b[[A", b"\x1b[1;5C", b"\x1b7"], ""),  # F5, F1 twice, Ctrl-right, Alt-7
        ([b"7\x1b[5~m"], "7m"),
        ([b"\x1b[1", b"5", b"~4"], "4"),  # a slow line
        ([b"\x1b", b"q"], "q"),
        ([b"\x1b[" + b"9" * 40, b"q"], "[" + "9" * 40 + "q"),  # no key sends that, and q must work
    ],
)
def test_the_digits_of_a_function_key_are_no_ratings(
    sent: list[bytes], pressed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = pty.openpty()
    found: list[str] = []
    with os.fdopen(slave) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        keys = Keys(found.append)
        try:
            for part in [*sent, b"!"]:
                os.write(master, part)
                time.sleep(0.1)  # each is read by itself
            for _ in range(100):
                if "!" in found:
                    break
                time.sleep(0.05)
        finally:
            keys.close()
            os.close(master)
    assert "".join(key for key in found if key.isprintable()) == f"{pressed}!"


def test_forty_columns_keep_the_key_line(bundles: Bundles) -> None:
    code, output, _ = run_in_terminal(of_pain(bundles), [b"q"], b"warming up", (40, 12))
    assert code == 0 and "q quit m 0-9,t u undo c r a ack p b" in plain(output)


@pytest.mark.parametrize(
    ("encoding", "environment"),
    [("latin-1", {"PYTHONIOENCODING": "latin-1"}), ("ascii", {"LC_ALL": None, "LC_CTYPE": None, "LANG": "C"}),
     ("ascii", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})],
)  # fmt: skip
def test_other_encodings_get_the_whole_view_in_their_letters(
    bundles: Bundles, encoding: str, environment: dict[str, str | None]
) -> None:
    code, output, _ = run_in_terminal(of_pain(bundles), [b"7", b"q"], b"warming up", **environment)
    screen = output[: output.index(b"\x1b[?1049l")].decode(encoding)  # what follows the screen is the summary
    assert code == 0 and "Traceback" not in screen and not set(screen) & set("\x81\x82\x83\xe2")
    text = plain(screen.encode())
    assert "+- sensors -" in text and "rating 7" in text and "q quit" in text and "0.00 uS" not in text
    assert re.search(r"pain +-", text) and re.search(r"EDA +[0-9.]+ [uµ]S", text)
    assert re.search(r"\| +(EDA +[0-9.]+ [uµ]S +)?[0-9.]+ +[.:=+*%#]+ +\|", text), "the bars of its chart"


def test_a_dumb_terminal_gets_a_line_for_each_result(bundles: Bundles) -> None:
    args = [*of_pain(bundles), "--duration", "4"]
    code, output, restored = run_in_terminal(args, [b"7", b"a"], b"warming up", TERM="dumb")
    lines = plain(output).replace("\r", "").splitlines()
    assert code == 0 and restored and b"\x1b" not in output
    results = [line for line in lines if re.match(r"[0-9.]+ s  pain ", line)]
    count = int(re.search(r"([0-9]+) results", plain(output))[1])  # type: ignore[index]
    assert len(results) == count and len(results) > 4
    assert all("—: " in line or "—; " in line or "pain 0." in line or "pain 1." in line for line in results)
    assert any(line.startswith("keys: q quit") for line in lines)
    assert any(line.startswith("rating 7 at") for line in lines) and "no alarm waits for acknowledgement" in lines


def test_without_a_terminal_it_says_so_and_writes_json(bundles: Bundles, tmp_path: Path) -> None:
    done = jmt_edge("live", "--bundle", str(bundles("pain").path), "--eda", "sim:", "--speed", "max", "--duration", "2")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4
    assert "standard output is not a terminal" in done.stderr


@pytest.mark.parametrize("width", [600, 1500])
def test_a_wide_terminal_is_full_of_what_was(bundles: Bundles, width: int) -> None:
    """20 minutes of results and EDA: a line fills its columns, or as many as are kept, and the title says how long."""
    terminal, console = view(bundles, None)
    console.width, console.height = width, 60
    whole = {"pain": 1.0, "valence": 1.0, "arousal": 1.0}
    for index in range(1, 2401):
        terminal.on_result(replace(a_result(whole, bundles("trimodal")), index=index, t=index / 2))
        terminal.on_chunk("eda", Chunk(np.array([index / 2 - 0.3]), np.array([5.0 + index % 3], np.float32), 10.0))
    lines = drawn(terminal, console).splitlines()
    widths = [sum(c in "▁▂▃▄▅▆▇█" for c in line) for line in lines]
    of_outputs, of_eda = min(1200, width - 4 - 16 - 5 - 7), min(1200, width - 4 - 16 - 7)
    assert widths.count(of_outputs) >= 3 and widths.count(of_eda) >= 1
    assert f"outputs, last {of_outputs / 2:.0f} s" in "\n".join(lines)
