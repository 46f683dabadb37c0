"""Alarms of a run: a state machine for each condition, and one pause for all.

The tables are in `docs/reference/alarms.md`.

Physiological alarms speak of the person (an output beyond its threshold), technical ones of the equipment (a sensor,
the engine, the recorder). Priorities, colours and flash rates follow the usage of bedside monitors; nothing here
claims compliance with a standard. Times are seconds of any monotonic clock that the caller hands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from ..errors import ConfigError


class State(str, Enum):
    NORMAL = "normal"
    PENDING = "pending"  # the condition holds, its delay is running
    ACTIVE = "active"  # signals
    ACKNOWLEDGED = "acknowledged"  # the condition still holds, but a person has seen it: shown, steady and silent
    LATCHED = "latched"  # the condition is over, but nobody has seen it: still signals


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
    """The next state. Total: every state answers every event."""
    if state is State.ACTIVE and event is Event.OFF and latching:
        return State.LATCHED
    return _TABLE[state][_EVENTS.index(event)]


class Threshold:
    """A limit with hysteresis: on at `limit` and above, off below `limit` - `hysteresis`, unchanged in between."""

    def __init__(self, limit: float, hysteresis: float) -> None:
        self.limit, self.hysteresis = limit, hysteresis
        self._on = False

    def __call__(self, value: float | None) -> Event:
        """The event for a value; None (no data) is unknown, and forgets which side the last value lay on."""
        if value is None:
            self._on = False
            return Event.UNKNOWN
        self._on = value >= self.limit or (self._on and value >= self.limit - self.hysteresis)
        return Event.ON if self._on else Event.OFF


@dataclass
class Alarm:
    """One condition. High priority latches; `delay` (s) passes between the condition and the signal."""

    id: str
    kind: str  # "physiological" or "technical"
    priority: Priority
    delay: float = 0.0
    text: str = ""
    state: State = State.NORMAL
    since: float = 0.0  # when `state` began
    no_data: bool = False  # the alarm stands, but its condition cannot be judged any more

    @property
    def latching(self) -> bool:
        return self.priority is Priority.HIGH

    @property
    def signals(self) -> bool:
        return self.state in (State.ACTIVE, State.LATCHED)

    @property
    def shown(self) -> bool:
        return self.signals or self.state is State.ACKNOWLEDGED

    def feed(self, event: Event, now: float, text: str = "") -> bool:
        """Take what is known now; True where the state changed."""
        before = self.state
        self._step(event, now)
        if self.state is State.PENDING and now - self.since >= self.delay:
            self._step(Event.ELAPSED, now)
        self.no_data = event is Event.UNKNOWN and self.shown
        if text and event is Event.ON:
            self.text = text
        return self.state is not before

    def acknowledge(self, now: float) -> bool:
        before = self.state
        self._step(Event.ACK, now)
        return self.state is not before

    def _step(self, event: Event, now: float) -> None:
        after = transition(self.state, event, latching=self.latching)
        if after is not self.state:
            self.state, self.since = after, now


@dataclass(frozen=True)
class AlarmSettings:
    """What a person may set. limit, hysteresis: pain probability; delay: s; enabled: the physiological alarm."""

    limit: float = 0.7
    hysteresis: float = 0.1
    delay: float = 3.0
    enabled: bool = True

    def check(self) -> None:
        """Raises ConfigError for what makes no sense."""
        if not 0.05 <= self.limit <= 1.0:
            raise ConfigError(f"an alarm threshold of {self.limit:g} is out of range; choose 0.05 to 1")
        if not 0 <= self.hysteresis < self.limit:
            raise ConfigError(f"a hysteresis of {self.hysteresis:g} must be at least 0 and below the threshold")
        if not 0 <= self.delay <= 60:
            raise ConfigError(f"an alarm delay of {self.delay:g} s is out of range; choose 0 to 60 s")


MAX_PAUSE = 120.0


@dataclass
class Alarms:
    """All alarms of a run. `feed` what is known, `acknowledge`, `pause`; `snapshot` is what a screen shows."""

    settings: AlarmSettings = field(default_factory=AlarmSettings)
    alarms: dict[str, Alarm] = field(default_factory=dict)
    paused_until: float | None = None

    def add(self, alarm: Alarm) -> None:
        self.alarms[alarm.id] = alarm

    def feed(self, id: str, event: Event, now: float, text: str = "") -> bool:
        return self.alarms[id].feed(event, now, text)

    def acknowledge(self, now: float, id: str | None = None) -> list[str]:
        """Acknowledge one alarm or, without an id, all; the ids that changed. Raises ConfigError for an unknown id."""
        if id is not None and id not in self.alarms:
            raise ConfigError(f"there is no alarm '{id[:40]}'; choose one of {', '.join(self.alarms)}")
        chosen = self.alarms.values() if id is None else [self.alarms[id]]
        return [alarm.id for alarm in chosen if alarm.acknowledge(now)]

    def pause(self, seconds: float, now: float) -> None:
        """No flashing and no sound for `seconds`; alarms go on being judged and shown. Raises ConfigError."""
        if not 0 < seconds <= MAX_PAUSE:
            raise ConfigError(f"alarms can be paused for up to {MAX_PAUSE:.0f} s, not {seconds:g} s")
        self.paused_until = now + seconds

    def resume(self) -> None:
        self.paused_until = None

    def pause_left(self, now: float) -> float:
        """Seconds until the pause ends, 0 where there is none. A pause that is over ends here."""
        if self.paused_until is not None and now >= self.paused_until:
            self.paused_until = None
        return 0.0 if self.paused_until is None else self.paused_until - now

    def snapshot(self, now: float) -> dict[str, Any]:
        """Plain JSON values: alarms that are shown, the gravest and newest first, and how to signal them."""
        shown = [a for a in self.alarms.values() if a.shown]
        shown.sort(key=lambda a: (_ORDER.index(a.priority), not a.signals, -a.since))
        signalling = next((a.priority for a in shown if a.signals), None)
        left = self.pause_left(now)
        colour, flash = SIGNALS[signalling] if signalling else ("", 0.0)
        return {
            "alarms": [
                {
                    "id": a.id, "kind": a.kind, "priority": a.priority.value, "state": a.state.value, "text": a.text,
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
