"""The live view in a terminal of 40 x 12 characters and more: over SSH, in any encoding, and on dumb terminals."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from ..capture.base import Status
from ..controls import Controls
from ..errors import ConfigError
from ..faults import Steady, one_item
from ..languages import Language, language
from ..media.chunk import Chunk
from ..observer import Mark, Observer, RunInfo
from ..result import Result
from ..summary import Percentiles, Summary, notice
from .alarms import MAX_PAUSE
from .judge import Judge
from .keys import Keys
from .letters import Letters, encoding_of
from .screen import MOST, View, calm, draw, keys, means, notes, one_line, sentence, summed_eda
from .typed_ratings import KEYS as RATING_KEYS
from .typed_ratings import TypedRatings

PERIOD = 0.25  # s between two drawings
BELLS = {"high": 4.0, "medium": 8.0, "low": 20.0}  # s between two bells, as between the page's sounds


class Terminal(Observer):
    """Redraws four times per second in its own thread; the loop only stores its latest values here.

    judge: the run's, so that whatever shows alarms shows the same and a person acknowledges for all; who owns it comes
    before this observer. log: writes what a person does about alarms, and corrects, to the page's audit log, before it
    is done. speech: the language of the person; the audit log is English.
    """

    def __init__(
        self,
        controls: Controls,
        judge: Judge,
        console: Console | None = None,
        log: Callable[..., None] | None = None,
        speech: Language | None = None,
    ) -> None:
        self._speech = speech or language("en")
        self._controls = controls
        self._console = console or Console()
        self._letters = Letters(encoding_of(self._console.encoding, os.environ))
        self.judge = judge
        self._log = log
        self._ratings = TypedRatings(controls, self._note)
        self._lock = threading.Lock()
        self._info: RunInfo | None = None
        self._result: Result | None = None
        self._statuses: Mapping[str, Status] = {}
        self._history: deque[tuple[int, dict[str, float] | None]] = deque(maxlen=MOST)
        self._eda: deque[tuple[int, float, int]] = deque()  # as `summed_eda`
        self._level: float | None = None
        self._total = Percentiles()
        self._message = ""
        self._bell, self._rung = False, 0.0
        self._live: Live | None = None
        self._lines: _Lines | None = None
        self._keys: Keys | None = None
        self._ended = threading.Event()
        self._thread = Steady(self._showing, "terminal", self._ended)

    # --- the loop's side -------------------------------------------------------------------------------------------
    def on_start(self, info: RunInfo) -> None:
        self._info = info
        if self._console.is_dumb_terminal or not os.environ.get("TERM"):
            self._lines = _Lines(self._console, self._letters)
        else:
            self._live = Live(
                self.render(), console=self._console, screen=True, auto_refresh=False, redirect_stderr=False,
                redirect_stdout=False,
            )  # fmt: skip
            self._live.start()
        self._thread.start()
        if sys.stdin.isatty():
            self._keys = Keys(self._press)

    def on_chunk(self, modality: str, chunk: Chunk) -> None:
        if modality == "eda" and len(chunk):
            with self._lock:
                self._note_eda(chunk)
        elif modality == "voice" and len(chunk):
            power = float(np.mean(np.square(chunk.values, dtype=np.float64)))
            self._level = 10 * float(np.log10(max(power, 1e-10)))

    def on_mark(self, mark: Mark) -> None:
        self._ratings.add(mark)
        tr, local = self._speech.tr, self._speech.local
        if mark.rating is not None or mark.corrects is not None:
            what = self._speech.translated(mark.label)
        else:
            what = tr("mark {text}", text=mark.text).rstrip()
        kept = "" if self._controls.is_recording else tr(", not saved: recording is off")
        self._message = tr("{what} at {n} s", what=what, n=local(f"{mark.t:.1f}")) + kept

    def on_status(self, statuses: Mapping[str, Status]) -> None:
        self._statuses = dict(statuses)

    def on_result(self, result: Result) -> None:
        with self._lock:
            self._result = result
            self._history.append((result.index, result.outputs))
            if result.latency_ms["total"] is not None:
                self._total.add(result.latency_ms["total"])
            if self._lines is not None:
                self._lines.waiting.append(result)

    def on_ending(self) -> None:
        self._rate(ending=True)

    def on_end(self, summary: Summary) -> None:
        self._ended.set()
        if self._keys is not None:
            self._keys.close()
        if self._thread.is_alive():
            self._thread.join(1.0)
        if self._live is not None:
            self._live.stop()

    def _note_eda(self, chunk: Chunk) -> None:
        for slot, total, count in summed_eda(chunk.times, chunk.values):
            if self._eda and self._eda[-1][0] == slot:  # it began in the chunk before
                _, before, counted = self._eda.pop()
                total, count = total + before, count + counted
            self._eda.append((slot, total, count))
        while self._eda[0][0] < self._eda[-1][0] - MOST:
            self._eda.popleft()

    # --- keys ------------------------------------------------------------------------------------------------------
    def _press(self, key: str) -> None:
        try:
            if key == "q":
                self._controls.stop()
            elif key == "r":
                on = self._controls.is_recording
                self._controls.stop_recording() if on else self._controls.start_recording()
            elif key == "m":
                self._demand_live("it takes no notes")
                self._controls.mark("key")
            elif key in RATING_KEYS:
                self._demand_live("it takes no ratings")
                self._message = self._speech.translated(self._ratings.press(key))
            elif key in ("a", "p", "b"):
                self._demand_live("it has no alarms")
                self._message = {"a": self._acknowledge, "p": self._pause, "b": self._switch_bell}[key]()
        except ConfigError as error:
            self._message = self._speech.translated(str(error))

    def _rate(self, *, ending: bool = False) -> None:
        try:
            self._ratings.turn(ending=ending)
        except ConfigError as error:
            self._message = self._speech.translated(str(error))

    def _demand_live(self, what: str) -> None:
        if self._info is not None and (said := self._info.refusal(what)):
            raise ConfigError(said)

    def _acknowledge(self) -> str:
        if not any(a["state"] != "acknowledged" for a in self.judge.snapshot(time.monotonic())["alarms"]):
            return self._speech.tr("no alarm waits for acknowledgement")
        self._note("acknowledge", id="all")
        self.judge.acknowledge(time.monotonic(), by="terminal")
        return self._speech.tr("acknowledged")

    def _pause(self) -> str:
        now = time.monotonic()
        seconds = 0.0 if self.judge.snapshot(now)["pause_left"] else MAX_PAUSE
        self._note("pause alarms" if seconds else "resume alarms", seconds=seconds)
        self.judge.pause(seconds, now)
        tr = self._speech.tr
        return tr("alarms paused for {n} s", n=f"{seconds:.0f}") if seconds else tr("alarms resumed")

    def _switch_bell(self) -> str:
        self._bell, self._rung = not self._bell, 0.0
        tr = self._speech.tr
        return tr("the bell is on") if self._bell else tr("the bell is off")

    def _note(self, action: str, **details: object) -> None:
        """Raises ConfigError where the audit log cannot be written: then nothing may be done."""
        if self._log is not None:
            try:
                self._log(action, **details)
            except OSError as error:
                raise ConfigError(
                    f"the audit log cannot be written ({error.strerror}), so nothing was done; make room"
                ) from None

    # --- showing ---------------------------------------------------------------------------------------------------
    def _showing(self) -> None:
        while not self._ended.wait(PERIOD):
            with one_item("terminal"):
                self._show()
        if self._lines is not None:
            self._lines.show(self._view(time.monotonic()))

    def _show(self) -> None:
        self._rate()
        now = time.monotonic()
        if self._live is not None:
            self._live.update(self.render(), refresh=True)
        elif self._lines is not None:
            self._lines.show(self._view(now))
        signal = self.judge.snapshot(now)["signal"]
        if self._bell and signal["sound"] and now - self._rung >= BELLS[signal["priority"]]:
            self._rung = now
            self._console.file.write("\a")
            self._console.file.flush()

    def render(self) -> RenderableType:
        """The whole view."""
        if self._info is None:
            return Text(self._speech.tr("starting"))
        return draw(self._view(time.monotonic()), self._console.width, self._console.height, self._letters)

    def _view(self, now: float) -> View:
        info, judge = self._info, self.judge
        assert info is not None
        with self._lock:  # the loop waits for it: what takes time is below
            result, level, p95 = self._result, self._level, self._total(95)
            history, eda = list(self._history), list(self._eda)
        recording = self._controls.recording
        problem = recording.state if recording is not None and not recording.active else ""
        problem = self._speech.translated(problem)
        return View(
            info, result, age=now - judge.heard.active, stale=judge.stale(now), statuses=self._statuses,
            losses={name: judge.loss(name, now) for name in info.bundle.task.names if info.sources.get(name)},
            history=history, eda=means(eda), level=level, alarms=judge.snapshot(now),
            recording=self._controls.is_recording, message=self._message or problem, bell=self._bell, p95=p95,
            speech=self._speech,
        )  # fmt: skip


class _Lines:
    """The view where the cursor cannot be moved: one line a result, an alarm that changed, or a message."""

    def __init__(self, console: Console, letters: Letters) -> None:
        self.waiting: deque[Result] = deque(maxlen=1000)
        self._console, self._letters = console, letters
        self._alarms: dict[str, str] = {}  # id -> what was said last
        self._message = ""
        self._stale = self._begun = False

    def show(self, view: View) -> None:
        """Write what is new."""
        for line in self._new(view):
            self._console.print(Text(self._letters(line)), soft_wrap=True)

    def _new(self, view: View) -> list[str]:
        lines = []
        if not self._begun:
            self._begun = True
            bundle = view.info.bundle
            said = view.translated(notice(bundle.demo, bundle.subject))
            shown = view.speech.tr("keys: {keys}", keys=keys(view, 1000))
            lines += [bundle.id, said, calm(view.info, view.speech), shown]
        lines += self._changed(view)
        if view.stale and not self._stale:
            lines.append(one_line(view))
        self._stale = view.stale
        while self.waiting:
            result = self.waiting.popleft()
            lines.append(one_line(View(
                view.info, result, statuses=view.statuses, losses={} if self.waiting else view.losses,
                speech=view.speech,
            )))  # fmt: skip
        if view.message != self._message:
            self._message = view.message
            lines += [view.message] if view.message else []
        return lines

    def _changed(self, view: View) -> list[str]:
        """The alarms that began, ended or were acknowledged."""
        now = {}
        tr = view.speech.tr
        how = {"high": tr("high priority"), "medium": tr("medium priority"), "low": tr("low priority")}
        for alarm in view.alarms["alarms"]:
            said = notes(alarm, view.speech)
            words = f"{sentence(alarm, view.speech)}{f' ({said})' if said else ''}"
            now[alarm["id"]] = f"{how[alarm['priority']]}: {words}"
        lines = [tr("ALARM, {what}", what=line) for id, line in now.items() if line != self._alarms.get(id)]
        lines += [tr("over: {what}", what=line) for id, line in self._alarms.items() if id not in now]
        self._alarms = now
        return lines
