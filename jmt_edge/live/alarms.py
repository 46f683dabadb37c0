"""Alarms of a run: a state machine for each condition, and one pause for all.

The tables are in `docs/reference/alarms.md`.

Physiological alarms concern the person (an output beyond its threshold), technical ones the equipment (a sensor, the
engine, the recorder). Priorities, colours and flash rates follow the conventions of bedside monitors; no compliance
with a standard is claimed. Times are seconds of any monotonic clock that the caller passes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from ..errors import ConfigError


class State(str, Enum):
    NORMAL = "normal"
    PENDING = "pending"  # the condition holds, its delay is running
    ACTIVE = "active"  # signalling
    ACKNOWLEDGED = "acknowledged"  # the condition still holds, but a person has seen it: shown, steady and silent
    LATCHED = "latched"  # the condition is over, but not acknowledged: still signalling


class Event(str, Enum):
    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"  # no data, so the condition cannot be judged
    ELAPSED = "elapsed"  # the delay is over
    ACK = "ack"


class Priority(str, Enum):
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


# colour and flashes per second; the usual ranges are 1.4-2.8 Hz for high and 0.4-0.8 Hz for medium
SIGNALS: Mapping[Priority, tuple[str, float]] = {
    Priority.HIGH: ("red", 2.0),
    Priority.MEDIUM: ("yellow", 0.6),
    Priority.LOW: ("cyan", 0.0),
}
_ORDER = list(Priority)

_N, _P, _A, _K, _L = State.NORMAL, State.PENDING, State.ACTIVE, State.ACKNOWLEDGED, State.LATCHED

# state -> next state for (on, off, unknown, elapsed, ack); an alarm that latches goes to LATCHED instead of NORMAL
# where ACTIVE meets `off`
_TABLE: Mapping[State, tuple[State, State, State, State, State]] = {
    _N: (_P, _N, _N, _N, _N),
    _P: (_P, _N, _N, _A, _P),
    _A: (_A, _N, _A, _A, _K),
    _K: (_K, _N, _N, _K, _K),
    _L: (_A, _L, _L, _L, _N),
}
_EVENTS = list(Event)


def transition(state: State, event: Event, *, latching: bool) -> State:
    """The next state. Total: defined for every state and event."""
    if state is State.ACTIVE and event is Event.OFF and latching:
        return State.LATCHED
    return _TABLE[state][_EVENTS.index(event)]


class Threshold:
    """A limit with hysteresis: on at `limit` and above, off below `limit` - `hysteresis`, unchanged in between."""

    def __init__(self, limit: float, hysteresis: float) -> None:
        self.limit, self.hysteresis = limit, hysteresis
        self._on = False

    def __call__(self, value: float | None) -> Event:
        """The event for a value; None (no data) is UNKNOWN and resets the hysteresis."""
        if value is None:
            self._on = False
            return Event.UNKNOWN
        self._on = value >= self.limit or (self._on and value >= self.limit - self.hysteresis)
        return Event.ON if self._on else Event.OFF


@dataclass
class Alarm:
    """One condition. High priority latches; `delay` (s) passes between the condition and the signal.

    text: the condition in the present tense, without a changing value; past: the same in the past tense, for a latched
        alarm; detail: further information.
    """

    id: str
    kind: str  # "physiological" or "technical"
    priority: Priority
    delay: float = 0.0
    text: str = ""
    past: str = ""
    detail: str = ""
    state: State = State.NORMAL
    since: float = 0.0  # when `state` began
    no_data: bool = False  # the alarm persists, but its condition can no longer be judged
    # Of the episodes not yet acknowledged: when the first began, when the newest began, when the condition last held in
    # full, how many there are, and the highest value.
    first: float = 0.0
    began: float = 0.0
    held: float = 0.0
    times: int = 0
    peak: float | None = None
    top: float | None = None  # the highest value of the newest episode alone
    by: str = ""  # who acknowledged last
    changed: Callable[[Alarm, State], None] | None = field(default=None, repr=False)  # called with the state before

    @property
    def latching(self) -> bool:
        return self.priority is Priority.HIGH

    @property
    def signals(self) -> bool:
        return self.state in (State.ACTIVE, State.LATCHED)

    @property
    def shown(self) -> bool:
        return self.signals or self.state is State.ACKNOWLEDGED

    def feed(
        self,
        event: Event,
        now: float,
        text: str = "",
        *,
        past: str = "",
        detail: str = "",
        value: float | None = None,
        lingers: bool = False,
    ) -> bool:
        """Update with what is known now; True if the state changed.

        value: what the condition is judged by; lingers: only the hysteresis keeps the condition on.
        """
        before = self.state
        self._step(event, now)
        if event is Event.ON:
            self._hold(before, now, value, lingers)
            self.text, self.past, self.detail = text or self.text, past or self.past, detail
        if self.state is State.PENDING and now - self.since >= self.delay:
            self._step(Event.ELAPSED, now)
        self.no_data = event is Event.UNKNOWN and self.shown
        return self._report(before)

    def acknowledge(self, now: float, by: str = "") -> bool:
        before, self.by = self.state, by
        self._step(Event.ACK, now)
        return self._report(before)

    def _report(self, before: State) -> bool:
        if self.state is before:
            return False
        if self.changed is not None:
            self.changed(self, before)
        return True

    def _hold(self, before: State, now: float, value: float | None, lingers: bool) -> None:
        if before is State.NORMAL:
            self.first, self.times, self.peak = now, 0, None
        if before in (State.NORMAL, State.LATCHED):
            self.began, self.top = now, None
            self.times += 1
        if not lingers:
            self.held = now
        if value is not None:
            self.peak = value if self.peak is None else max(self.peak, value)
            self.top = value if self.top is None else max(self.top, value)

    def _step(self, event: Event, now: float) -> None:
        after = transition(self.state, event, latching=self.latching)
        if after is not self.state:
            self.state, self.since = after, now


@dataclass(frozen=True)
class AlarmSettings:
    """The user's settings. limit, hysteresis: pain probability; delay: s; enabled: the physiological alarm."""

    limit: float = 0.7
    hysteresis: float = 0.1
    delay: float = 3.0
    enabled: bool = True

    def check(self) -> None:
        """Raises ConfigError for values that make no sense."""
        if not 0.05 <= self.limit <= 1.0:
            raise ConfigError(f"an alarm threshold of {self.limit:g} is out of range; choose 0.05 to 1")
        if not 0 <= self.hysteresis < self.limit:
            raise ConfigError(f"a hysteresis of {self.hysteresis:g} is out of range; choose 0 to below the threshold")
        if not 0 <= self.delay <= 60:
            raise ConfigError(f"an alarm delay of {self.delay:g} s is out of range; choose 0 to 60 s")


MAX_PAUSE = 120.0


@dataclass
class Alarms:
    """All alarms of a run, by id. `snapshot` is what a screen shows.

    listeners: called for each change of an alarm's state, with the alarm and its state before, where it is judged.
    """

    settings: AlarmSettings = field(default_factory=AlarmSettings)
    alarms: dict[str, Alarm] = field(default_factory=dict)
    paused_until: float | None = None
    listeners: list[Callable[[Alarm, State], None]] = field(default_factory=list)

    def add(self, alarm: Alarm) -> None:
        alarm.changed = self._tell
        self.alarms[alarm.id] = alarm

    def _tell(self, alarm: Alarm, before: State) -> None:
        for listener in self.listeners:
            listener(alarm, before)

    def acknowledge(self, now: float, id: str | None = None, by: str = "") -> list[str]:
        """Acknowledge one alarm or, without an id, all; the ids that changed. Raises ConfigError for an unknown id.

        by: an address or a terminal, for the recording.
        """
        if id is not None and id not in self.alarms:
            raise ConfigError(f"there is no alarm '{id[:40]}'; choose one of {', '.join(self.alarms)}")
        chosen = self.alarms.values() if id is None else [self.alarms[id]]
        return [alarm.id for alarm in chosen if alarm.acknowledge(now, by)]

    def pause(self, seconds: float, now: float) -> None:
        """No flashing and no sound for `seconds`; alarms are still judged and shown. Raises ConfigError."""
        if not 0 < seconds <= MAX_PAUSE:
            raise ConfigError(f"alarms can be paused for up to {MAX_PAUSE:.0f} s, not {seconds:g} s")
        self.paused_until = now + seconds

    def resume(self) -> None:
        self.paused_until = None

    def pause_left(self, now: float) -> float:
        """Seconds until the pause ends, 0 without one. A pause whose time is over ends here."""
        if self.paused_until is not None and now >= self.paused_until:
            self.paused_until = None
        return 0.0 if self.paused_until is None else self.paused_until - now

    def snapshot(self, now: float, epoch: float = 0.0) -> dict[str, Any]:
        """Plain JSON values: the alarms shown, the gravest and newest first, and how to signal them.

        epoch: Unix time at which the caller's clock reads 0. `from` and `to` are Unix times: for a latched alarm, from
        the start of its first unacknowledged episode to when the condition last held; for any other, `from` is when the
        condition began and `to` is None.
        """
        shown = [a for a in self.alarms.values() if a.shown]
        shown.sort(key=lambda a: (_ORDER.index(a.priority), not a.signals, -a.since))
        signalling = next((a.priority for a in shown if a.signals), None)
        left = self.pause_left(now)
        colour, flash = SIGNALS[signalling] if signalling else ("", 0.0)
        return {
            "alarms": [
                {
                    "id": a.id, "kind": a.kind, "priority": a.priority.value, "state": a.state.value,
                    "text": a.past if a.state is State.LATCHED and a.past else a.text, "detail": a.detail,
                    "from": round(epoch + (a.first if a.state is State.LATCHED else a.began), 3),
                    "to": round(epoch + a.held, 3) if a.state is State.LATCHED else None,
                    "times": a.times, "peak": a.peak,
                    "seconds": round(now - a.since, 1), "no_data": a.no_data,
                }
                for a in shown
            ],
            "signal": {
                "priority": signalling.value if signalling else "", "colour": colour,
                "flash_hz": 0.0 if left else flash, "sound": bool(signalling) and not left,
            },
            "pause_left": round(left, 1),
            "settings": asdict(self.settings),
        }  # fmt: skip
