"""The events of a run: each time an alarm signalled, kept for the screens and written into the recording at once.

`EventLog` listens to the alarms where they are judged, so an event is the same on the page, on the broker and in the
recording.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, replace
from typing import Any, Protocol

from ..controls import Controls
from ..errors import ConfigError
from ..observer import RunInfo
from ..recording.alarm_events import AlarmEvent, Settings, label_line, settings_line, then
from .alarms import Alarm, Alarms, State

MOST = 1000  # events kept of a run
NOT_RECORDED = "nothing is being recorded, so the label would be lost; start a recording, then label again"


class _Run(Protocol):
    info: RunInfo | None


class EventLog:
    """The newest `MOST` events and those that are not over, oldest first in `values`. May be called from any thread.

    run: whatever knows the run's `info`; controls: where the recorder is, if there is one.
    """

    def __init__(self, alarms: Alarms, run: _Run, controls: Controls) -> None:
        self._alarms, self._run, self._controls = alarms, run, controls
        self.settings: Settings = ()  # of the pain alarm, since when; the newest
        self._events: dict[str, AlarmEvent] = {}
        self._current: dict[str, str] = {}  # alarm -> its event that is not over
        self._unseen: dict[str, deque[str]] = {}  # alarm -> its events that nobody has acknowledged
        self._lock = threading.RLock()
        alarms.listeners.append(self._changed)

    def note_settings(self) -> None:
        """Write into the recording that alarms are judged, and with which settings; again after each change."""
        info = self._run.info
        off = info.alarms_off if info else ""
        line = settings_line(asdict(self._alarms.settings), off, self._stream(time.monotonic()))
        self.settings = then(self.settings, line)[-MOST:]
        if self._controls.recording is not None:
            self._controls.recording.alarm("settings", line, lasts=True)
        with self._lock:
            for id in self._current.values():
                event, limit = self._events[id], self._alarms.settings.limit
                if event.limit is not None and limit < event.limit:
                    self._keep(replace(event, limit=limit))

    def values(self) -> list[dict[str, Any]]:
        """Plain JSON values of each event, as `AlarmEvent`; the peak of one that is not over is the highest so far."""
        with self._lock:
            over = {event.id: asdict(event) for event in self._events.values()}
            for alarm, id in self._current.items():
                if id in over:
                    over[id]["peak"] = self._alarms.alarms[alarm].top
            return list(over.values())

    def __contains__(self, id: str) -> bool:
        return id in self._events

    def find(self, id: str) -> AlarmEvent | None:
        """The event as `values` has it, but for the peak of one that is not over."""
        return self._events.get(id)

    def newest(self, kind: str) -> AlarmEvent | None:
        """The event of this kind that began last."""
        with self._lock:
            return next((event for event in reversed(self._events.values()) if event.kind == kind), None)

    def label(self, id: str, label: str, by: str) -> AlarmEvent:
        """Write into the recording what a person says of an event.

        label: one of `LABELS`. Raises ConfigError for an unknown event, and where nothing is being recorded.
        """
        recorder = self._controls.recording
        with self._lock:
            if (event := self._events.get(id)) is None:
                raise ConfigError(f"there is no event '{id[:80]}' in this run")
            if recorder is None or not recorder.active:
                raise ConfigError(NOT_RECORDED)
            event = self._events[id] = replace(event, label=label)
            self._write(event)  # it may have been before this recording
            recorder.alarm(f"label {id}", label_line(id, label, self._stream(time.monotonic()), by), lasts=False)
            return event

    def _stream(self, now: float) -> float:
        info = self._run.info
        return round(now - (info.origin if info is not None else 0.0), 3)

    def _changed(self, alarm: Alarm, before: State) -> None:
        with self._lock:
            if alarm.state is State.ACTIVE:
                self._begin(alarm)
            elif before in (State.ACTIVE, State.ACKNOWLEDGED) and alarm.state is not State.ACKNOWLEDGED:
                self._end(alarm)
            elif alarm.state is State.ACKNOWLEDGED or before is State.LATCHED:
                self._acknowledge(alarm)

    def _begin(self, alarm: Alarm) -> None:
        settings, info = self._alarms.settings, self._run.info
        began = alarm.began if info is None else info.clock.at(alarm.began)
        event = AlarmEvent(
            f"{alarm.id}-{round(1000 * began)}", alarm.id, alarm.kind, alarm.priority.value,
            alarm.text, self._stream(alarm.began), self._stream(alarm.since),
            limit=settings.limit if alarm.kind == "physiological" else None,
        )  # fmt: skip
        self._current[alarm.id] = event.id
        self._unseen.setdefault(alarm.id, deque(maxlen=MOST)).append(event.id)
        self._keep(event)

    def _end(self, alarm: Alarm) -> None:
        if alarm.state is State.NORMAL:  # it does not latch, or was acknowledged: nothing is left to acknowledge
            self._unseen.pop(alarm.id, None)
        event = self._events.get(self._current.pop(alarm.id, ""))
        if event is not None:
            self._keep(replace(event, end=self._stream(alarm.held), peak=alarm.top))

    def _acknowledge(self, alarm: Alarm) -> None:
        for id in self._unseen.pop(alarm.id, ()):
            if (event := self._events.get(id)) is not None:
                self._keep(replace(event, acknowledged=self._stream(alarm.since), by=alarm.by))

    def _keep(self, event: AlarmEvent) -> None:
        self._events[event.id] = event
        lasting = set(self._current.values())  # their ends are still to be recorded
        while len(self._events) > MOST and (oldest := next((id for id in self._events if id not in lasting), None)):
            del self._events[oldest]
        self._write(event)

    def _write(self, event: AlarmEvent) -> None:
        if self._controls.recording is not None:
            self._controls.recording.alarm(event.id, event.to_line(), lasts=event.end is None)
