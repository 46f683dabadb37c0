"""Events: each time an alarm signalled, from its onset to its end, and what a person said of it afterwards.

A line of `alarms.jsonl` holds all that is known of an event when it is written, so that the last line of an event
counts and a damaged one costs an update. The format is described in `docs/reference/recordings.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .gaps import F64

LABELS = ("true", "false", "unsure")
Settings = tuple[tuple[float | None, Mapping[str, Any]], ...]  # as `AlarmLog.settings`


@dataclass(frozen=True)
class AlarmEvent:
    """One event. Times are s of stream time; None where that has not happened, or is not known.

    id: unique among all runs. alarm: the alarm's id, such as `pain`; kind, priority: see `live.alarms.Alarm`. text: the
    condition in words. limit: the pain probability that was set, the lower one where it was changed; None for an alarm
    without one. start: when the condition began, before the alarm's delay; signalled: when the delay was over; end:
    when the condition last held in full. peak: the highest value, known from the end on. acknowledged, by: when, and
    from which address or terminal. label: one of `LABELS`, empty without one.
    """

    id: str
    alarm: str
    kind: str
    priority: str
    text: str
    start: float
    signalled: float
    limit: float | None = None
    end: float | None = None
    peak: float | None = None
    acknowledged: float | None = None
    by: str = ""
    label: str = ""

    def to_line(self) -> dict[str, Any]:
        """Plain JSON values: all but the label, which is a line of its own."""
        values = asdict(self)
        del values["label"]
        return {"event": values.pop("id"), **values}


@dataclass(frozen=True)
class AlarmLog:
    """What a recording says of alarms.

    judged: somebody judged the alarms, so that no event means no alarm. settings: (stream time s from which they
    applied, threshold (`limit`), `hysteresis`, `delay` (s) and `enabled` of the pain alarm), in the order of time; the
    time is -inf for the first, and None where an earlier version did not write it. off: why there were no physiological
    alarms.
    """

    events: tuple[AlarmEvent, ...] = ()
    judged: bool = False
    settings: Settings = ()
    off: str = ""

    @property
    def limits_known(self) -> bool:
        """Whether the threshold of every moment is known."""
        return bool(self.settings) and all(t is not None for t, _ in self.settings)

    def limits_at(self, times: F64) -> F64 | None:
        """The threshold that was set at each of `times` (n,) s; None where that is not known."""
        if not self.limits_known:
            return None
        begins = np.maximum.accumulate(np.array([t for t, _ in self.settings], np.float64))
        limits = np.array([settings["limit"] for _, settings in self.settings], np.float64)
        return limits[np.maximum(np.searchsorted(begins, times, side="right") - 1, 0)]


def settings_line(settings: Mapping[str, Any], off: str, t: float) -> dict[str, Any]:
    """The line that says that alarms are judged from `t` (s) on, and how."""
    return {"settings": dict(settings), "off": off, "t": t}


def label_line(event: str, label: str, t: float, by: str) -> dict[str, Any]:
    """The line of a label that was given at `t` (s)."""
    return {"event": event, "label": label, "t": t, "by": by}


def read_log(lines: Iterable[Mapping[str, Any]]) -> AlarmLog:
    """The log of checked lines: events by their start, each with its last label.

    A label whose event has no line left (it was damaged) is lost with it.
    """
    events: dict[str, AlarmEvent] = {}
    labels: dict[str, str] = {}
    log = AlarmLog()
    for line in lines:
        if "settings" in line:
            log = replace(log, judged=True, settings=then(log.settings, line), off=line["off"])
        elif "label" in line:
            labels[line["event"]] = line["label"]
        else:
            known = {name: line[name] for name in AlarmEvent.__dataclass_fields__ if name in line}
            events[line["event"]] = AlarmEvent(id=line["event"], **known)
    labelled = [replace(event, label=labels.get(event.id, "")) for event in events.values()]
    return replace(log, events=tuple(sorted(labelled, key=lambda event: (event.start, event.signalled))))


def then(before: Settings, line: Mapping[str, Any]) -> Settings:
    """The settings with those of a line after them, where they are others."""
    if not before:
        return ((-math.inf, line["settings"]),)
    return before if before[-1][1] == line["settings"] else (*before, (line.get("t"), line["settings"]))
