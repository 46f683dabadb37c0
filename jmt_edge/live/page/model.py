"""The page's view of the run: updated from `Feed` in the page's thread, returned as plain JSON values."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import asdict
from typing import Any

import numpy as np

from ... import __version__
from ...capture.base import State as SourceState
from ...capture.base import Status
from ...clips.presence import WARMING_UP
from ...controls import Controls
from ...engine.bundle import INTENDED_USE
from ...faults import FAULTS, Fault
from ...media.chunk import Chunk
from ...observer import Mark
from ...preprocessing.quality import EdaQuality
from ...result import Result
from ...summary import notice
from ..actions import in_words as actions_in_words
from ..alarms import Alarm, Alarms, Event, Priority, State, Threshold
from ..rest import in_words
from .feed import Feed
from .frames import FPS, Frames
from .history import History
from .traces import EDA_RATE, EDA_SECONDS, Trace, VoiceLevel, result_gap

HISTORY = 2400  # results kept for the history
MARKS = 200
RECENT = 600  # results over which latency percentiles are taken
SILENT = 1.0  # s without a sample from a sensor
CONNECT = 5.0  # s that a sensor may take to deliver its first sample
STALE = 1.5  # s without activity of the loop; with the time to the browser, nothing old is shown for more than 2 s
LATE = 10.0  # s for which a dropped window is reported
EDA_STEP = EdaQuality.BIN
LABEL = {"face": "Camera", "voice": "Microphone", "eda": "EDA sensor"}
SIGNAL = {"face": "Face", "voice": "Voice", "eda": "EDA"}


def short(t: float) -> float:
    return round(t, 3)


def _on(condition: object) -> Event:
    return Event.ON if condition else Event.OFF


class Model:
    """`update` takes what the loop stored; everything else reads."""

    def __init__(self, feed: Feed, controls: Controls) -> None:
        self.feed, self.controls = feed, controls
        self.alarms = Alarms()
        self.frames = Frames(feed)
        self.eda = Trace(EDA_RATE, EDA_SECONDS)
        self.voice = VoiceLevel()
        self.result: Result | None = None
        self.results: deque[Result] = deque(maxlen=HISTORY)
        self.trend: History | None = None
        self.result_count = 0
        self.with_outputs = 0
        self.marks: deque[Mark] = deque(maxlen=MARKS)
        self.mark_count = 0
        self.statuses: dict[str, Status] = {}
        self.scrs: list[tuple[float, float, float]] = []
        self.bad: deque[list[Any]] = deque(maxlen=40)  # [start, end, reason] of EDA that cannot be used
        self._latencies: deque[float] = deque(maxlen=RECENT)
        self._eda_quality = EdaQuality()
        self._eda_now: float | None = None  # µS
        self._eda_judged: float | None = None
        self._voice_now: float | None = None  # dBFS
        self._limit: Threshold | None = None
        self._lowest = 1.0  # limit during the pain alarm's episode; the lowest if it was changed
        self._dropped_at = -math.inf
        self._faults_before = FAULTS.counts()
        self._faults_seen = 0
        self._fault_at = -math.inf
        self._started = 0.0
        self._epoch = time.time() - time.monotonic()
        self.ended = False  # the run has ended, and everything that it stored has been taken
        self.stream = 0.0  # the newest stream time seen

    # --- taking ----------------------------------------------------------------------------------------------------
    def update(self, now: float) -> None:
        """Take what has arrived; `now` is `time.monotonic()`."""
        if self.feed.info is None:
            return
        if not self._started:
            self._begin(now)
        ended = self.feed.ended  # read first: what the loop stored before it ended is taken below
        for kind, what in self.feed.take():
            if kind == "eda":
                self._take_eda(what)
            elif kind == "voice":
                self._take_voice(what)
            elif kind == "status":
                self.statuses = what
            elif kind == "mark":
                self._take_mark(what)
            else:
                self._take_result(what, now)
        if self.frames.newest is not None:
            self.stream = max(self.stream, self.frames.newest)
        self.ended = ended

    def _begin(self, now: float) -> None:
        assert self.feed.info is not None
        self._started = now
        self.trend = History(self.feed.info.bundle.task.outputs)
        if not self.feed.info.realtime:
            return  # what is shown happened at another time, so there are no alarms
        task = self.feed.info.bundle.task
        if "pain" in task.outputs and not self.feed.info.alarms_off:
            self.alarms.add(Alarm("pain", "physiological", Priority.HIGH))
            self.set_alarm()
        for name in task.names:
            if self.feed.info.sources.get(name):
                self.alarms.add(Alarm(f"sensor-{name}", "technical", Priority.MEDIUM))
                self.alarms.add(Alarm(f"signal-{name}", "technical", Priority.LOW, delay=2.0))
        self.alarms.add(Alarm("stale", "technical", Priority.HIGH))
        self.alarms.add(Alarm("nodata", "technical", Priority.MEDIUM))
        self.alarms.add(Alarm("late", "technical", Priority.LOW))
        self.alarms.add(Alarm("recording", "technical", Priority.MEDIUM))
        self.alarms.add(Alarm("fault", "technical", Priority.LOW))

    def set_alarm(self) -> None:
        """Apply the settings to the pain alarm."""
        if "pain" in self.alarms.alarms:
            settings = self.alarms.settings
            self.alarms.alarms["pain"].delay = settings.delay
            self._limit = Threshold(settings.limit, settings.hysteresis)

    def _take_eda(self, chunk: Chunk) -> None:
        values = np.asarray(chunk.values, np.float64)
        self.eda.add(chunk.times, values)
        self._eda_quality.update(chunk.times, np.asarray(chunk.values, np.float32))
        end = float(chunk.times[-1])
        self.stream = max(self.stream, end)
        recent = values[chunk.times > end - EDA_STEP]
        finite = recent[np.isfinite(recent)]
        self._eda_now = float(finite.mean()) if len(finite) else None
        if self._eda_judged is None:
            self._eda_judged = math.floor(float(chunk.times[0]) / EDA_STEP) * EDA_STEP
        while self._eda_judged + EDA_STEP <= end:
            if end - self._eda_judged > EDA_SECONDS:
                self._eda_judged = end - EDA_SECONDS
            self._eda_judged += EDA_STEP
            self._judge_eda(self._eda_judged)
        self.scrs = [(short(s.onset), short(s.peak), round(s.amplitude, 3)) for s in self._eda_quality.scrs()]

    def _judge_eda(self, end: float) -> None:
        verdict = self._eda_quality.verdict(end, EDA_STEP)
        if verdict.ok:
            return
        start = end - EDA_STEP
        if "missing" not in verdict.reason and "silent" not in verdict.reason:
            start = max(0.0, start - EdaQuality.MARGIN)  # the rule applies in both directions
        if self.bad and self.bad[-1][1] >= start - 1e-6:
            self.bad[-1][1] = end
        else:
            self.bad.append([start, end, verdict.reason.partition(":")[0]])

    def _take_voice(self, chunk: Chunk) -> None:
        self.voice.add(chunk.times, np.asarray(chunk.values, np.float32))
        _, levels, count = self.voice.trace.since(self.voice.trace.count - 3)
        self.stream = max(self.stream, float(chunk.times[-1]))
        if count:
            self._voice_now = float(np.max(levels))

    def _take_mark(self, mark: Mark) -> None:
        self.marks.append(mark)
        self.mark_count += 1
        if mark.rating is not None and self.trend is not None:
            self.trend.rate((self.zero or 0.0) + mark.t, mark.rating)

    def _take_result(self, result: Result, now: float) -> None:
        if self.result is not None and result.dropped > self.result.dropped:
            self._dropped_at = now
        self.result = result
        self.results.append(result)
        if self.trend is not None:
            self.trend.add((self.zero or 0.0) + result.t, result.outputs)
        self.result_count += 1
        self.with_outputs += result.outputs is not None
        self.stream = max(self.stream, result.t)
        if (total := result.latency_ms.get("total")) is not None:
            self._latencies.append(total)
        # here too and not only periodically, so that no value in between is missed
        if self._limit is not None:
            self._judge_pain(now, stale=False)

    # --- alarms ----------------------------------------------------------------------------------------------------
    def judge(self, now: float) -> None:
        """Feed every alarm with what is known now."""
        info = self.feed.info
        if info is None or not self._started or not self.alarms.alarms:
            return
        alarm = self.alarms.alarms
        stale = self._stale(now)
        alarm["stale"].feed(_on(stale), now, "The run has stalled: no results", past="The run had stalled: no results")
        result = self.result
        for name in info.bundle.task.names:
            if f"sensor-{name}" not in alarm:
                continue
            lost, why = self._loss(name, now)
            alarm[f"sensor-{name}"].feed(_on(lost), now, f"{LABEL[name]} {lost}", detail=why)
            quality = result.quality.get(name) if result else None
            poor = quality is not None and not quality.ok and not lost and WARMING_UP not in quality.reason
            reason = quality.reason if quality else ""
            alarm[f"signal-{name}"].feed(_on(poor), now, f"{SIGNAL[name]} cannot be used", detail=reason)
        none = result is not None and result.outputs is None and not result.reason.startswith(WARMING_UP)
        alarm["nodata"].feed(_on(none), now, "No result: no modality can be used")
        dropped = f"{result.dropped if result else 0} windows dropped so far"
        alarm["late"].feed(_on(now - self._dropped_at < LATE), now, "Engine late", detail=dropped)
        problem = str(getattr(self.controls.recording, "problem", "") or "")
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
        alarm, settings, result = self.alarms.alarms["pain"], self.alarms.settings, self.result
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

    def _stale(self, now: float) -> bool:
        """The loop is not active, and has not ended."""
        return now - self.feed.active > STALE and not self.feed.ended

    def _loss(self, name: str, now: float) -> tuple[str, str]:
        """Why the sensor of `name` delivers nothing: a few words that stay the same while it lasts, and details; both
        empty while it delivers samples."""
        status = self.statuses.get(name)
        if status is not None and status.state in (SourceState.STALLED, SourceState.LOST, SourceState.BACKOFF):
            return status.state.value, status.reason
        if status is not None and status.state is SourceState.ENDED:
            return "ended", status.reason or "the recording has ended"
        if self.feed.info is None or not self.feed.info.realtime:
            return "", ""  # stream time is not wall time
        arrived = self.feed.arrived.get(name)
        if arrived is None:
            waited = now - self._started
            return ("silent", f"no samples since the start {waited:.0f} s ago") if waited > CONNECT else ("", "")
        # measured by the loop's calls, so that a stalled loop is not blamed on the sensor
        age = self.feed.active - arrived
        return ("silent", f"no samples for {age:.1f} s") if age > SILENT else ("", "")

    @property
    def zero(self) -> float | None:
        """Unix time at stream time 0; None where stream time is not the time of a clock."""
        info = self.feed.info
        return self._epoch + info.origin if info is not None and info.realtime and info.origin else None

    @property
    def faults(self) -> dict[str, Fault]:
        """Parts of the program that failed and continued since the page was opened."""
        return FAULTS.since(self._faults_before)

    # --- handing out -----------------------------------------------------------------------------------------------
    def percentiles(self) -> tuple[float, float] | None:
        """(p50, p95) of the total latency in ms over the last results."""
        if not self._latencies:
            return None
        p50, p95 = np.percentile(np.array(self._latencies), (50, 95))
        return round(float(p50), 2), round(float(p95), 2)

    def run_info(self) -> dict[str, Any] | None:
        """What does not change during the run; None before it has begun."""
        info = self.feed.info
        if info is None:
            return None
        task = info.bundle.task
        return {
            "version": __version__,
            "bundle": info.bundle.id,
            "demo": info.bundle.demo,
            "alarms_off": info.alarms_off,
            "novelty": info.novelty,
            "uncertainty": info.uncertainty,
            "actions": info.actions,
            "notice": notice(info.bundle.demo, info.bundle.subject),
            "intended_use": INTENDED_USE,
            "task": task.name,
            "outputs": list(task.outputs),
            "modalities": list(task.names),
            "sources": info.sources,
            "backend": info.backend,
            "precision": info.precision,
            "hop": info.hop,
            "gap": result_gap(info.hop),
            "smooth": info.smooth,
            "realtime": info.realtime,
            "zero": self.zero,
            "replay": info.replay,
            "frame_rate": FPS,
        }

    def result_values(self) -> dict[str, Any] | None:
        """The newest result with latency percentiles; None before the first."""
        result = self.result
        if result is None:
            return None
        return {
            **result.to_dict(),
            "index": result.index,
            "quality": {
                n: {
                    **asdict(q), "score": round(q.score, 3),
                    "novelty": None if q.novelty is None else round(q.novelty, 2),
                }
                for n, q in result.quality.items()
            },
            "latency_p50_p95_ms": self.percentiles(),
            "rest_words": in_words(result.rest),
            "actions_words": actions_in_words(result.actions),
        }  # fmt: skip

    def history(self, points: int = 1200) -> list[list[Any]]:
        """[t, output, output, ...] of the newest results, None where there was no output."""
        info = self.feed.info
        if info is None:
            return []
        names = info.bundle.task.outputs
        past = list(self.results)[-points:]
        return [[short(r.t), *(round(r.outputs[n], 4) if r.outputs else None for n in names)] for r in past]

    def trend_values(self, seconds: float | None, now: float) -> dict[str, Any]:
        """See `History.values`; `now` is `time.monotonic()`. Empty before the run has begun."""
        if self.trend is None:
            return {}
        running = self.zero is not None and not self.ended
        return self.trend.values(seconds, self._epoch + now if running else max(self.trend.end, 0.0))

    def marks_values(self) -> list[dict[str, Any]]:
        return [mark_values(mark) for mark in self.marks]

    def sensors(self, now: float) -> dict[str, Any]:
        """State of every modality's sensor, with the reason in `lost` if it delivers nothing."""
        info = self.feed.info
        out: dict[str, Any] = {}
        for name in info.bundle.task.names if info else ():
            source = info.sources.get(name, "") if info else ""
            status = self.statuses.get(name)
            out[name] = {
                "source": source,
                "state": status.state.value if status else ("connecting" if source else "none"),
                "lost": ", ".join(filter(None, self._loss(name, now))) if source else "no source",
                "lost_samples": status.lost if status else 0,
                "reconnects": status.reconnects if status else 0,
            }
        return out

    def state(self, now: float) -> dict[str, Any]:
        """What may change at any moment."""
        sensors = self.sensors(now)
        recording = self.controls.recording
        return {
            "type": "state",
            "t": short(self.stream),
            "age": round(now - self.feed.active, 2),
            "stale": self._stale(now),
            "ended": self.ended,
            "failed": self.feed.failed,
            "faults": {name: str(fault) for name, fault in self.faults.items()},
            "sensors": sensors,
            "alarms": self.snapshot(now),
            "recording": {
                "available": recording is not None,
                "on": self.controls.is_recording,
                "state": str(getattr(recording, "state", "")),
            },
            "eda": self._eda_values(sensors),
            "voice": self._voice_values(sensors),
        }

    def snapshot(self, now: float) -> dict[str, Any]:
        """The alarms shown."""
        return self.alarms.snapshot(now, self._epoch)

    def _eda_values(self, sensors: dict[str, Any]) -> dict[str, Any]:
        lost = sensors.get("eda", {}).get("lost", "no EDA in this task")
        status = self.statuses.get("eda")
        values: dict[str, Any] = {
            "unit": (status.unit if status else "") or "µS",
            "scrs": self.scrs,
            "bad": [[short(a), short(b), why] for a, b, why in self.bad if b > self.stream - EDA_SECONDS],
        }
        if not lost and self._eda_now is None:
            lost = "electrode open or saturated" if self.eda.count else self._none_yet
        value = None if lost or self._eda_now is None else round(self._eda_now, 3)
        return {**values, "value": value, "reason": lost}

    def _voice_values(self, sensors: dict[str, Any]) -> dict[str, Any]:
        lost = sensors.get("voice", {}).get("lost", "no voice in this task")
        if not lost and self._voice_now is None:
            lost = self._none_yet
        return {"level": None if lost or self._voice_now is None else round(self._voice_now, 1), "reason": lost}

    @property
    def _none_yet(self) -> str:
        return "not in the recording" if self.feed.info and self.feed.info.replay else "no samples yet"


def mark_values(mark: Mark) -> dict[str, Any]:
    return {"t": short(mark.t), "text": mark.text, "rating": mark.rating}
