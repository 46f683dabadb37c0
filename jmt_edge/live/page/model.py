"""The page's view of the run: updated from `Feed` in the page's thread, returned as plain JSON values."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...controls import Controls
from ...engine.bundle import INTENDED_USE
from ...faults import Fault
from ...media.chunk import Chunk
from ...observer import Mark
from ...preprocessing.quality import EdaQuality
from ...recording.alarm_events import AlarmEvent, AlarmLog
from ...recording.gaps import result_gap
from ...recording.recorder import video_name
from ...result import Result
from ...summary import notice
from ..actions import in_words as actions_in_words
from ..advice import advice
from ..alarms import Alarms
from ..events import EventLog
from ..gate import NO_SOURCE
from ..judge import Judge
from ..ratings import Ratings
from ..rest import in_words
from .feed import Feed
from .frames import FPS, Frames
from .history import History
from .past import Past
from .traces import EDA_RATE, EDA_SECONDS, VOICE_RATE, Trace, VoiceLevel

HISTORY = 2400  # results kept for the history
MARKS = 200
PARTS = 200  # of the recordings of a run, the newest
RECENT = 600  # results over which latency percentiles are taken
EDA_STEP = EdaQuality.BIN
VOICE_POINTS = 3  # of the level that is shown


def short(t: float) -> float:
    return round(t, 3)


class Model:
    """`update` takes what the loop stored; everything else reads.

    session: whose session has begun and when, `{"subject": "P07", "began": Unix s}`; None before one.
    asks: whether a page opens the start of a session by itself, until one has begun.
    """

    def __init__(self, feed: Feed, controls: Controls, ask: int = 0) -> None:
        self.session: dict[str, Any] | None = None
        self.asks = False
        self.feed, self.controls = feed, controls
        self.judging = Judge(feed, controls)
        self.frames = Frames(feed)
        self.eda = Trace(EDA_RATE, EDA_SECONDS)
        self.voice = VoiceLevel()
        self.result: Result | None = None
        self.results: deque[Result] = deque(maxlen=HISTORY)
        self.trend: History | None = None  # of this run, by stream time
        self.earlier: History | None = None  # of the session before this run, by Unix time
        self.reading = False  # that is being read
        self.ratings = Ratings(ask)
        self.past: Past | None = None
        self._parts: deque[tuple[float, Path | None]] = deque(maxlen=PARTS)  # (s, what is recorded from then on)
        self.result_count = 0
        self.with_outputs = 0
        self.marks: deque[Mark] = deque(maxlen=MARKS)
        self.mark_count = 0
        self.scrs: list[tuple[float, float, float]] = []
        self.bad: deque[list[Any]] = deque(maxlen=40)  # [start, end, reason] of EDA that cannot be used
        self._latencies: deque[float] = deque(maxlen=RECENT)
        self._eda_quality = EdaQuality()
        self._eda_now: float | None = None  # µS
        self._eda_judged: float | None = None
        self._voice_now: float | None = None  # dBFS
        self.ended = False  # the run has ended, and everything that it stored has been taken
        self.stream = 0.0  # the newest stream time seen

    # --- taking ----------------------------------------------------------------------------------------------------
    def update(self, now: float) -> None:
        """Take what has arrived; `now` is `time.monotonic()`."""
        if self.feed.info is None:
            return
        self.judging.begin(now)
        if self.trend is None:
            task = self.feed.info.bundle.task
            self.trend, self.past = History(task.outputs), Past(task.outputs, task.names)
        if not self._parts or self._parts[-1][1] != self.part:
            self._parts.append((self.stream, self.part))
        ended = self.feed.ended  # read first: what the loop stored before it ended is taken below
        for kind, what in self.feed.take():
            if kind == "eda":
                self._take_eda(what)
            elif kind == "voice":
                self._take_voice(what)
            elif kind == "status":
                self.judging.statuses = what
            elif kind == "mark":
                self._take_mark(what)
            else:
                self._take_result(what, now)
        if self.frames.newest is not None:
            self.stream = max(self.stream, self.frames.newest)
        self.ended = ended

    def _take_eda(self, chunk: Chunk) -> None:
        values = np.asarray(chunk.values, np.float64)
        self.eda.add(chunk.times, values)
        if self.past is not None:
            self.past.eda.add(chunk.times, values)
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
        times, levels, count = self.voice.trace.since(self.voice.trace.count - VOICE_POINTS)
        self.stream = max(self.stream, float(chunk.times[-1]))
        if count:  # a gap is a point, too, and what was heard before it is not now
            recent = levels[(times > times[-1] - VOICE_POINTS / VOICE_RATE) & np.isfinite(levels)]
            self._voice_now = float(recent.max()) if len(recent) else None

    def _take_mark(self, mark: Mark) -> None:
        self.marks.append(mark)
        self.mark_count += 1
        self.ratings.add(mark, self.part)
        if self.trend is not None and (mark.rating is not None or mark.corrects is not None):
            self.trend.rate(mark.t, mark.rating, mark.corrects)

    def _take_result(self, result: Result, now: float) -> None:
        self.result = result
        self.results.append(result)
        if self.trend is not None:
            self.trend.add(result.t, result.outputs)
        if self.past is not None:
            self.past.add(result.t, result.outputs, result.attention)
        self.ratings.window(result.t, result.outputs.get("pain") if result.outputs else None)
        self.result_count += 1
        self.with_outputs += result.outputs is not None
        self.stream = max(self.stream, result.t)
        if (total := result.latency_ms.get("total")) is not None:
            self._latencies.append(total)
        self.judging.take(result, now)

    def judge(self, now: float) -> None:
        """Feed every alarm with what is known now."""
        self.judging.judge(now)

    @property
    def alarms(self) -> Alarms:
        return self.judging.alarms

    @property
    def events(self) -> EventLog:
        return self.judging.events

    @property
    def zero(self) -> float | None:
        """As `RunInfo.zero`; None before the run has begun."""
        return self.feed.info.zero if self.feed.info is not None else None

    @property
    def faults(self) -> dict[str, Fault]:
        """Parts of the program that failed and continued since the page was opened."""
        return self.judging.faults

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
        """As `History.values`; `now` is `time.monotonic()`. Empty before the run has begun.

        `reading`: what was recorded of the session before this run is still being read.
        """
        info, zero = self.feed.info, self.zero
        if self.trend is None or info is None:
            return {}
        end = now - info.origin if zero is not None and not self.ended else max(self.trend.end, 0.0)
        values = self.trend.values(seconds, end, zero or 0.0, self.earlier)
        return {**values, "reading": self.reading, "agreement": self._agreement()}

    def _agreement(self) -> dict[str, Any] | None:
        """The ratings of this run and the estimates before them; None where the task estimates no pain."""
        info = self.feed.info
        if info is None or "pain" not in info.bundle.task.outputs:
            return None
        found = self.ratings.agreement(AlarmLog(settings=self.events.settings).limits_at)
        return {**found, "smooth": info.smooth}

    def marks_values(self) -> list[dict[str, Any]]:
        return [mark_values(mark) for mark in self.marks]

    @property
    def part(self) -> Path | None:
        """The recording that is being written."""
        return self.controls.part

    def part_at(self, t: float) -> Path | None:
        """The recording that was written at stream time `t`, as far as that is known."""
        return next((folder for since, folder in reversed(self._parts) if since <= t), None)

    def around(self, event: AlarmEvent) -> dict[str, Any]:
        """`Past.around` of an event, the event itself, and in `recording` the one that has its `video`, else None."""
        assert self.past is not None and self.feed.info is not None
        begin, end = self.past.span(event.start, event.end, self.stream)
        folder = self.part_at(min(event.start, self.stream))
        unit = self.judging.statuses["eda"].unit if "eda" in self.judging.statuses else ""
        values = self.past.around(begin, end, self.feed.info.hop)
        filmed = folder is not None and (folder / video_name(1)).is_file()
        return {
            **values, "event": asdict(event), "eda": {**values["eda"], "unit": unit or "µS"},
            "recording": folder.name if folder is not None and filmed else None,
        }  # fmt: skip

    def sensors(self, now: float) -> dict[str, Any]:
        """State of every modality's sensor, with the reason in `lost` if it delivers nothing."""
        info = self.feed.info
        out: dict[str, Any] = {}
        for name in info.bundle.task.names if info else ():
            source = info.sources.get(name, "") if info else ""
            status = self.judging.statuses.get(name)
            lost = ", ".join(filter(None, self.judging.loss(name, now))) if source else NO_SOURCE
            quality = self.result.quality.get(name) if self.result else None
            out[name] = {
                "source": source,
                "state": status.state.value if status else ("connecting" if source else "none"),
                "lost": lost,
                "advice": advice(name, lost or (quality.reason if quality and not quality.ok else "")),
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
            "stale": self.judging.stale(now),
            "ended": self.ended,
            "failed": self.feed.failed,
            "faults": {name: str(fault) for name, fault in self.faults.items()},
            "sensors": sensors,
            "alarms": self.snapshot(now),
            "session": {"asks": self.asks and self.session is None, **(self.session or {"subject": "", "began": None})},
            "recording": {
                "available": recording is not None,
                "on": self.controls.is_recording,
                "state": str(getattr(recording, "state", "")),
            },
            "ask": self._question(),
            "eda": self._eda_values(sensors),
            "voice": self._voice_values(sensors),
        }

    def _question(self) -> dict[str, Any] | None:
        """What a person is to rate now, see `Ratings.question`."""
        if self.feed.info is None or not self.feed.info.realtime or self.ended:
            return None
        return self.ratings.question(self.stream, self.events.newest("physiological"))

    def snapshot(self, now: float) -> dict[str, Any]:
        """The alarms shown."""
        return self.judging.snapshot(now)

    def _eda_values(self, sensors: dict[str, Any]) -> dict[str, Any]:
        lost = sensors.get("eda", {}).get("lost", "no EDA in this task")
        status = self.judging.statuses.get("eda")
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
            lost = "the samples are not numbers" if self.voice.trace.count else self._none_yet
        return {"level": None if lost or self._voice_now is None else round(self._voice_now, 1), "reason": lost}

    @property
    def _none_yet(self) -> str:
        return "not in the recording" if self.feed.info and self.feed.info.replay else "no samples yet"


def mark_values(mark: Mark) -> dict[str, Any]:
    corrects = None if mark.corrects is None else short(mark.corrects)
    return {"t": short(mark.t), "text": mark.text, "rating": mark.rating, "corrects": corrects}
