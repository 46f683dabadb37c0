"""What is alarming about a run, and since when: judged once, for the page, the terminal and the broker alike.

The conditions are in `docs/reference/alarms.md`. `Heard` notes when the loop was last active, `Judge` feeds the alarms,
and `Watch` does both in its own thread where there is no page.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..capture.base import State as SourceState
from ..capture.base import Status
from ..clips.presence import WARMING_UP
from ..controls import Controls
from ..faults import FAULTS, Fault, Steady
from ..media.chunk import Chunk
from ..observer import Observer, RunInfo
from ..result import Result
from ..summary import Summary
from .alarms import Alarm, Alarms, AlarmSettings, Event, Priority, State, Threshold
from .events import EventLog

SILENT = 1.0  # s without a sample from a sensor
CONNECT = 5.0  # s that a sensor may take to deliver its first sample
STALE = 1.5  # s without activity of the loop; with the time to the screen, nothing old is shown for more than 2 s
LATE = 10.0  # s for which a dropped window is reported
PERIOD = 0.2  # s between two judgements
INBOX = 2000  # results waiting to be judged
LABEL = {"face": "Camera", "voice": "Microphone", "eda": "EDA sensor"}
SIGNAL = {"face": "Face", "voice": "Voice", "eda": "EDA"}


def _on(condition: object) -> Event:
    return Event.ON if condition else Event.OFF


class Heard(Observer):
    """When the loop, and each sensor through it, was last heard; all times are `time.monotonic()`."""

    def __init__(self) -> None:
        self.info: RunInfo | None = None
        self.active = time.monotonic()  # when the loop last called
        self.arrived: dict[str, float] = {}  # modality -> when its last sample arrived
        self.ended = False
        self.failed = ""  # the error that ended the run

    def on_start(self, info: RunInfo) -> None:
        self.info = info
        self.active = time.monotonic()

    def on_chunk(self, modality: str, chunk: Chunk) -> None:
        self.active = time.monotonic()
        if len(chunk):
            self.arrived[modality] = self.active

    def on_status(self, statuses: Mapping[str, Status]) -> None:
        self.active = time.monotonic()

    def on_result(self, result: Result) -> None:
        self.active = time.monotonic()

    def on_end(self, summary: Summary) -> None:
        self.failed = summary.failed
        self.ended = True


class Judge:
    """The alarms of a run. One thread calls `begin`, `take` and `judge`; the rest may be called from any thread.

    heard: when the loop was last active; statuses: the newest of each source; alarms: read them by `snapshot`;
    events: each time one signalled; on_settings: called with the settings of the pain alarm each time they change.
    """

    def __init__(self, heard: Heard, controls: Controls) -> None:
        self.heard = heard
        self.alarms = Alarms()
        self.statuses: Mapping[str, Status] = {}
        self.events = EventLog(self.alarms, heard, controls)
        self.on_settings: list[Callable[[AlarmSettings], None]] = []
        self._controls = controls
        self._lock = threading.RLock()  # reentrant: a listener may call `snapshot`
        self._result: Result | None = None
        self._limit: Threshold | None = None
        self._lowest = 1.0  # limit during the pain alarm's episode; the lowest if it was changed
        self._dropped_at = -math.inf
        self._faults_before = FAULTS.counts()
        self._faults_seen = 0
        self._fault_at = -math.inf
        self._started = 0.0

    def begin(self, now: float) -> None:
        """The run has begun; later calls change nothing."""
        info = self.heard.info
        if self._started or info is None:
            return
        self._started = now
        if not info.realtime:
            return  # what is shown happened at another time, so there are no alarms
        with self._lock:
            task = info.bundle.task
            if "pain" in task.outputs and not info.alarms_off:
                self.alarms.add(Alarm("pain", "physiological", Priority.HIGH))
                self._apply()
            for name in task.names:
                if info.sources.get(name):
                    self.alarms.add(Alarm(f"sensor-{name}", "technical", Priority.MEDIUM))
                    self.alarms.add(Alarm(f"signal-{name}", "technical", Priority.LOW, delay=2.0))
            self.alarms.add(Alarm("stale", "technical", Priority.HIGH))
            self.alarms.add(Alarm("nodata", "technical", Priority.MEDIUM))
            self.alarms.add(Alarm("late", "technical", Priority.LOW))
            self.alarms.add(Alarm("recording", "technical", Priority.MEDIUM))
            self.alarms.add(Alarm("fault", "technical", Priority.LOW))
            self.events.note_settings()

    # --- what a person does ----------------------------------------------------------------------------------------
    def set(self, settings: AlarmSettings) -> None:
        """Use these settings from now on."""
        with self._lock:
            self.alarms.settings = settings
            self._apply()
            if self._started:
                self.events.note_settings()
        for listener in self.on_settings:
            listener(settings)

    def _apply(self) -> None:
        if "pain" in self.alarms.alarms:
            settings = self.alarms.settings
            self.alarms.alarms["pain"].delay = settings.delay
            self._limit = Threshold(settings.limit, settings.hysteresis)

    def acknowledge(self, now: float, id: str | None = None, by: str = "") -> list[str]:
        """As `Alarms.acknowledge`."""
        with self._lock:
            return self.alarms.acknowledge(now, id, by)

    def pause(self, seconds: float, now: float) -> None:
        """As `Alarms.pause`; 0 s ends the pause."""
        with self._lock:
            self.alarms.pause(seconds, now) if seconds else self.alarms.resume()

    # --- judging ---------------------------------------------------------------------------------------------------
    def take(self, result: Result, now: float) -> None:
        """A result. Its pain is judged here too and not only periodically, so that no value in between is missed."""
        with self._lock:
            if self._result is not None and result.dropped > self._result.dropped:
                self._dropped_at = now
            self._result = result
            if self._limit is not None:
                self._judge_pain(now, stale=False)

    def judge(self, now: float) -> None:
        """Feed every alarm with what is known now."""
        info = self.heard.info
        if info is None or not self._started or not self.alarms.alarms:
            return
        with self._lock:
            self._judge(info, now)

    def _judge(self, info: RunInfo, now: float) -> None:
        alarm = self.alarms.alarms
        stale = self.stale(now)
        alarm["stale"].feed(_on(stale), now, "The run has stalled: no results", past="The run had stalled: no results")
        result = self._result
        for name in info.bundle.task.names:
            if f"sensor-{name}" not in alarm:
                continue
            lost, why = self.loss(name, now)
            alarm[f"sensor-{name}"].feed(_on(lost), now, f"{LABEL[name]} {lost}", detail=why)
            quality = result.quality.get(name) if result else None
            poor = quality is not None and not quality.ok and not lost and WARMING_UP not in quality.reason
            reason = quality.reason if quality else ""
            alarm[f"signal-{name}"].feed(_on(poor), now, f"{SIGNAL[name]} cannot be used", detail=reason)
        none = result is not None and result.outputs is None and not result.reason.startswith(WARMING_UP)
        alarm["nodata"].feed(_on(none), now, "No result: no modality can be used")
        dropped = f"{result.dropped if result else 0} windows dropped so far"
        alarm["late"].feed(_on(now - self._dropped_at < LATE), now, "Engine late", detail=dropped)
        problem = str(getattr(self._controls.recording, "problem", "") or "")
        alarm["recording"].feed(_on(problem), now, "Recorder stopped", detail=problem)
        faults = self.faults
        if (count := sum(fault.count for fault in faults.values())) != self._faults_seen:
            self._faults_seen, self._fault_at = count, now
        which = "; ".join(f"{name} {fault}" for name, fault in faults.items())
        alarm["fault"].feed(_on(now - self._fault_at < LATE), now, "A part failed and continues", detail=which)
        if self._limit is not None:
            self._judge_pain(now, stale)

    def _judge_pain(self, now: float, stale: bool) -> None:
        assert self._limit is not None
        alarm, settings, result = self.alarms.alarms["pain"], self.alarms.settings, self._result
        if not settings.enabled:
            alarm.feed(Event.OFF, now)
            return
        value = result.outputs["pain"] if result and result.outputs and not stale else None
        event = self._limit(value)
        self._lowest = settings.limit if alarm.state is State.NORMAL else min(self._lowest, settings.limit)
        lingers = value is not None and value < settings.limit
        present, past = f"Pain probability ≥ {self._lowest:.0%}", f"Pain probability was ≥ {self._lowest:.0%}"
        ends = f"not below {settings.limit - settings.hysteresis:.0%} yet" if lingers else ""
        alarm.feed(event, now, past if lingers else present, past=past, detail=ends, value=value, lingers=lingers)

    # --- what is known ---------------------------------------------------------------------------------------------
    def stale(self, now: float) -> bool:
        """The loop is not active, and has not ended."""
        return now - self.heard.active > STALE and not self.heard.ended

    def loss(self, name: str, now: float) -> tuple[str, str]:
        """Why the sensor of `name` delivers nothing: a few words that stay the same while it lasts, and details; both
        empty while it delivers samples."""
        heard, status = self.heard, self.statuses.get(name)
        if status is not None and status.state in (SourceState.STALLED, SourceState.LOST, SourceState.BACKOFF):
            return status.state.value, status.reason
        if status is not None and status.state is SourceState.ENDED:
            return "ended", status.reason or "the recording has ended"
        if heard.info is None or not heard.info.realtime:
            return "", ""  # stream time is not wall time
        arrived = heard.arrived.get(name)
        if arrived is None:
            waited = now - self._started
            return ("silent", f"no samples since the start {waited:.0f} s ago") if waited > CONNECT else ("", "")
        # measured by the loop's calls, so that a stalled loop is not blamed on the sensor
        age = heard.active - arrived
        return ("silent", f"no samples for {age:.1f} s") if age > SILENT else ("", "")

    @property
    def faults(self) -> dict[str, Fault]:
        """Parts of the program that failed and continued since this judge exists."""
        return FAULTS.since(self._faults_before)

    def snapshot(self, now: float) -> dict[str, Any]:
        """The alarms shown, as `Alarms.snapshot`, with Unix times."""
        with self._lock:
            return self.alarms.snapshot(now, info.clock.offset if (info := self.heard.info) is not None else 0.0)


class Watch(Heard):
    """Judges a run in its own thread. judge: what it finds; its alarms are there once the run has begun."""

    def __init__(self, controls: Controls) -> None:
        super().__init__()
        self.judge = Judge(self, controls)
        self._inbox: deque[Result] = deque(maxlen=INBOX)
        self._ended = threading.Event()
        self._thread = Steady(self._judging, "alarms", self._ended)

    def on_start(self, info: RunInfo) -> None:
        super().on_start(info)
        self.judge.begin(self.active)
        self._thread.start()

    def on_status(self, statuses: Mapping[str, Status]) -> None:
        super().on_status(statuses)
        self.judge.statuses = dict(statuses)

    def on_result(self, result: Result) -> None:
        super().on_result(result)
        self._inbox.append(result)

    def on_end(self, summary: Summary) -> None:
        super().on_end(summary)
        self._ended.set()
        self._thread.join(5.0)

    def _judging(self) -> None:
        while not self._ended.wait(PERIOD):
            self.update(time.monotonic())
        self._take(time.monotonic())

    def update(self, now: float) -> None:
        """Judge what has arrived; `now` is `time.monotonic()`."""
        self._take(now)
        self.judge.judge(now)

    def _take(self, now: float) -> None:
        while self._inbox:
            self.judge.take(self._inbox.popleft(), now)
