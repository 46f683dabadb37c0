"""What a station knows of each bed, from the messages of a broker, or of its page (`direct`). No network here: messages
and times come in.

Everything in a message is a stranger's until it was checked: what is not as `docs/reference/mqtt.md` says is counted
and dropped.
"""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..live.alarms import Alarm, Alarms, Event, Priority
from ..wall_clock import WallClock
from .publisher import ENDED, FAILED, LIVE, LOST, MAX_ASKED

TOPICS = ("result", "alarm", "alarms", "quality", "config", "status")
MAX_BEDS = 500
MAX_PAYLOAD = 1 << 17  # bytes
MAX_MISSING = 20_000  # numbers of a run that are waited for
RUNS = 3  # of a bed, whose numbers are remembered
QUIET = 5.0  # s without a result before a bed is lost; with a long hop, four hops
ASK, REPEAT = 1.0, 5.0  # s after which a missing number is asked for: at first, and again
FORGET = 900.0  # s for which a bed that has ended is shown
NOT_LIVE = "not live, but files at full speed"
TWO = 10.0  # s for which two units of one name are reported
RANGES = {"pain": (0.0, 1.0), "valence": (-1.0, 1.0), "arousal": (-1.0, 1.0)}  # of outputs
_RUN = re.compile(r"[0-9a-f]{8,16}-[0-9a-f]{8}")


class MessageError(Exception):
    """Bytes that no bed of ours sends."""


@dataclass
class Track:
    """The numbers of one run: which came, which are missing. `first` is where this listener began."""

    first: int = 0
    highest: int = 0
    missing: OrderedDict[int, float] = field(default_factory=OrderedDict)  # number -> when to ask for it next
    repeated: int = 0  # came once more, and were dropped
    lost: int = 0  # neither came nor can come

    def take(self, seq: int, kept: int, now: float) -> bool:
        """Whether the message `seq` is new. kept: the lowest number that the bed still has."""
        if not self.highest:
            self.first, self.highest = seq, seq
            return True
        new = seq > self.highest or seq in self.missing
        if seq > self.highest:
            self.expect(seq - 1, now)
            self.highest = seq
        self.missing.pop(seq, None)
        self.repeated += not new and seq >= self.first
        while self.missing and next(iter(self.missing)) < kept:  # in ascending order
            self._lose(next(iter(self.missing)))
        return new

    def expect(self, last: int, now: float) -> None:
        """Every number up to `last` was sent."""
        if not self.highest:
            return
        for number in range(max(self.highest + 1, last - MAX_MISSING), last + 1):
            self.missing[number] = now + ASK
        self.lost += max(0, last - MAX_MISSING - self.highest - 1)
        self.highest = max(self.highest, last)
        while len(self.missing) > MAX_MISSING:
            self._lose(next(iter(self.missing)))

    def to_ask(self, now: float) -> list[int]:
        """The missing numbers that are due to be asked for."""
        due = [number for number, when in self.missing.items() if when <= now][:MAX_ASKED]
        for number in due:
            self.missing[number] = now + REPEAT
        return due

    def _lose(self, number: int) -> None:
        del self.missing[number]
        self.lost += 1


@dataclass
class Bed:
    """One bed. heard: `time.monotonic()` of its last result that was not late."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    alarms: list[dict[str, Any]] = field(default_factory=list)
    quality: dict[str, dict[str, Any]] = field(default_factory=dict)
    tracks: OrderedDict[str, Track] = field(default_factory=OrderedDict)
    run: str = ""
    began: float = 0.0
    heard: float = -math.inf
    two: float = -math.inf  # when an older run was heard beside this one
    results: int = 0
    edges: int = 0
    late: int = 0

    @property
    def quiet(self) -> float:
        """Seconds without a result after which it is lost."""
        return max(QUIET, 4 * self.config.get("hop", 0.0))

    @property
    def going(self) -> str:
        """The state of a bed that is neither lost nor over; `files`: nothing is watched, the run reads files."""
        if self.config.get("alarms_off") == NOT_LIVE:
            return "files"
        return "live" if self.result else "starting"

    def over(self) -> bool:
        return self.status.get("state") in (ENDED, FAILED)


class Ward:
    """All beds below one prefix; an empty one where there is no broker. `on_message`: called with (bed, kind, message,
    late) for each that is new."""

    def __init__(self, prefix: str, on_message: Callable[[Bed, str, dict[str, Any], bool], None] | None = None) -> None:
        self.prefix, self._on_message = prefix, on_message
        self.beds: dict[str, Bed] = {}
        self._announced: dict[str, Bed] = {}  # of which only retained topics came yet
        self.alarms = Alarms()
        self.alarms.add(Alarm("broker", "technical", Priority.HIGH))
        self.refused = 0  # messages that were not as they should be, or of too many beds
        self.broker = ""  # why the broker is away; empty while it is there
        self._clock = WallClock()

    # --- taking ----------------------------------------------------------------------------------------------------
    def take(self, topic: str, payload: bytes, now: float) -> None:
        """A message of the broker; now: `time.monotonic()`."""
        name, _, kind = topic.removeprefix(f"{self.prefix}/").rpartition("/")
        if not payload:
            if kind == "status":
                self._forget(name)  # somebody removed the bed from the broker
            return
        try:
            if kind not in TOPICS or not name or "/" in name or not name.isprintable() or len(name) > 60:
                raise MessageError
            if len(payload) > MAX_PAYLOAD or (name not in self.beds and self._full):
                raise MessageError
            message = json.loads(payload)
            if not isinstance(message, dict):
                raise MessageError
            bed = self.beds.get(name) or self._announced.get(name) or Bed(name, began=now)
            shown = getattr(self, f"_take_{kind}")(bed, message, now)
            if shown is False:
                self._announced.pop(name, None)  # its run ended long ago
            if name in self.beds or shown is False:
                return
            if kind in ("result", "alarm", "status"):
                self._welcome(bed)
            else:
                self._announced[name] = bed
        except (MessageError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            self.refused += 1

    @property
    def _full(self) -> bool:
        return len(self.beds) >= MAX_BEDS or len(self._announced) >= MAX_BEDS

    def _welcome(self, bed: Bed) -> None:
        self._announced.pop(bed.name, None)
        self.beds[bed.name] = bed
        self.beds = dict(sorted(self.beds.items(), key=lambda item: _natural(item[0])))
        self.alarms.add(Alarm(f"lost {bed.name}", "technical", Priority.MEDIUM))
        self.alarms.add(Alarm(f"two {bed.name}", "technical", Priority.MEDIUM))

    def _forget(self, name: str) -> None:
        if self.beds.pop(name, None) is not None:
            for what in ("lost", "two"):
                del self.alarms.alarms[f"{what} {name}"]

    def _numbered(self, bed: Bed, message: dict[str, Any], now: float) -> tuple[bool, bool]:
        """(is it new, is it late) of a numbered message."""
        run, seq, kept, late = _run(message), message["seq"], message["first"], message["late"]
        if type(seq) is not int or type(kept) is not int or type(late) is not bool or not 0 < kept <= seq < 2**53:
            raise MessageError
        self._hear(bed, run, now, late)
        new = bed.tracks[run].take(seq, kept, now)
        bed.late += new and late
        return new, late

    def _hear(self, bed: Bed, run: str, now: float, late: bool) -> None:
        """A message of `run`: the bed's newest run, or one before it.

        Runs are ordered by their units' clocks, and a clock may have been ahead: what sends now, while the newest run
        is over or lost, is the bed's run.
        """
        if run > bed.run or (run < bed.run and not late and self._away(bed, now)):
            if run < bed.run:
                bed.status = {"state": LIVE, "reason": "", "since": now}
            bed.run, bed.result, bed.two = run, None, -math.inf
            bed.began = now
        elif run < bed.run and not late:
            bed.two = now
        if run not in bed.tracks:
            bed.tracks[run] = Track()
            while len(bed.tracks) > RUNS:
                bed.tracks.popitem(last=False)

    def _away(self, bed: Bed, now: float) -> bool:
        return bed.over() or bool(self.loss(bed, now))

    def _take_result(self, bed: Bed, message: dict[str, Any], now: float) -> None:
        result = _result(message["result"])
        new, late = self._numbered(bed, message, now)
        if not new:
            return
        bed.results += 1
        if message["run"] == bed.run and not late:
            bed.heard = now
            bed.result = result
        self._pass_on(bed, "result", message, late)

    def _take_alarm(self, bed: Bed, message: dict[str, Any], now: float) -> None:
        _alarm(message["alarm"])
        new, late = self._numbered(bed, message, now)
        if new:
            bed.edges += 1
            self._pass_on(bed, "alarm", message, late)

    def _pass_on(self, bed: Bed, kind: str, message: dict[str, Any], late: bool) -> None:
        if self._on_message is not None:
            self._on_message(bed, kind, message, late)

    def _take_alarms(self, bed: Bed, message: dict[str, Any], now: float) -> None:
        bed.alarms = [_alarm(entry) for entry in message["alarms"][:50]]

    def _take_quality(self, bed: Bed, message: dict[str, Any], now: float) -> None:
        bed.quality = {
            _text(name, 20): {"ok": one["ok"] is True, "reason": _text(one["reason"], 200)}
            for name, one in list(message.items())[:10]
        }

    def _take_config(self, bed: Bed, message: dict[str, Any], now: float) -> None:
        hop, off = _number(message["hop"]), _text(message["alarms_off"])
        bed.config = {
            "hop": min(max(hop, 0.0), 3600.0), "task": _text(message["task"], 40), "notice": _text(message["notice"]),
            "demo": message["demo"] is not False, "bundle": _text(message["bundle"]),
            "alarms_off": NOT_LIVE if message.get("realtime") is False else off, "limit": _number(message["limit"]),
            "outputs": [_text(name, 20) for name in message["outputs"][:10]],
        }  # fmt: skip

    def _take_status(self, bed: Bed, message: dict[str, Any], now: float) -> bool | None:
        run, state = _run(message), message["state"]
        if state not in (LIVE, LOST, ENDED, FAILED):
            raise MessageError
        if run < bed.run and not (state == LIVE and self._away(bed, now)):
            return None  # the last will of a run whose successor is there
        at = message["at"] if message["at"] is None else _number(message["at"])
        if bed.name not in self.beds and state == ENDED and self._unix(now) - (at or 0.0) > FORGET:
            return False  # ended before this station began
        self._hear(bed, run, now, late=state != LIVE)
        bed.status = {"state": state, "reason": _text(message["reason"]), "since": now}
        if type(message.get("last")) is int and message["last"] < 2**53:
            bed.tracks[run].expect(message["last"], now)
        return None

    # --- what follows ----------------------------------------------------------------------------------------------
    def to_ask(self, now: float) -> dict[str, dict[str, Any]]:
        """Topic -> request, for the numbers that are missing."""
        return {
            f"{self.prefix}/{bed.name}/again": {"run": bed.run, "seqs": seqs}
            for bed in self.beds.values()
            if bed.run in bed.tracks and (seqs := bed.tracks[bed.run].to_ask(now))
        }

    def judge(self, now: float) -> None:
        """Feed every alarm with what is known now."""
        self._clock.reread()
        away = bool(self.broker)
        self.alarms.alarms["broker"].feed(
            _on(away), now, "No connection to the broker: no bed is shown",
            past="There was no connection to the broker", detail=self.broker,
        )  # fmt: skip
        for bed in list(self.beds.values()):
            if bed.status.get("state") == ENDED and now - bed.status["since"] > FORGET:
                self._forget(bed.name)
                continue
            why = self.loss(bed, now)
            # one alarm says that the broker is away
            event = Event.UNKNOWN if away else _on(why)
            text = f"{bed.name} is lost"
            self.alarms.alarms[f"lost {bed.name}"].feed(event, now, text, detail=why)
            two = _on(now - bed.two < TWO)
            self.alarms.alarms[f"two {bed.name}"].feed(two, now, f"Two units send as {bed.name}", detail="rename one")

    def loss(self, bed: Bed, now: float) -> str:
        """Why nothing is known of a bed; empty where it is, or has ended in order."""
        state = bed.status.get("state")
        if state == ENDED:
            return ""
        if state == FAILED:
            return f"the run broke off ({bed.status['reason']})"
        silent = now - max(bed.heard, bed.began)
        if state == LOST and bed.heard < bed.status["since"]:
            return bed.status["reason"] or "its connection was lost"
        return f"no result for {silent:.0f} s" if silent > bed.quiet else ""

    def acknowledge(self, now: float, bed: str | None = None) -> list[str]:
        """Acknowledge the station's alarms of one bed, or all: the ids that changed. Beds' alarms stay as they are."""
        if bed is None:
            return self.alarms.acknowledge(now)
        return [id for what in ("lost", "two") for id in self.alarms.acknowledge(now, f"{what} {bed}")]

    # --- handing out -----------------------------------------------------------------------------------------------
    def snapshot(self, now: float) -> dict[str, Any]:
        """Plain JSON values: what the station's page shows."""
        own = self.alarms.snapshot(now, self._clock.offset)
        beds = [self._tile(bed, now) for bed in self.beds.values()]
        return {
            "at": round(self._unix(now), 3), "prefix": self.prefix, "broker": self.broker, "refused": self.refused,
            "beds": beds, "alarms": own["alarms"], "signal": own["signal"],
        }  # fmt: skip

    def _tile(self, bed: Bed, now: float) -> dict[str, Any]:
        lost = self.broker or self.loss(bed, now)
        result = None if lost or bed.over() else bed.result
        shown = [] if lost or bed.over() else bed.alarms
        heard = None if bed.heard == -math.inf else round(now - bed.heard, 1)
        return {
            "name": bed.name,
            "state": "lost" if lost else "ended" if bed.over() else bed.going,
            "lost": lost,
            "task": bed.config.get("task", ""),
            "demo": bed.config.get("demo", True),
            "notice": bed.config.get("notice", "not for clinical use"),
            "alarms_off": bed.config.get("alarms_off", ""),
            "limit": bed.config.get("limit"),
            "outputs": result["outputs"] if result else None,
            "reason": result["reason"] if result else "",
            "quality": bed.quality if result else {},
            "alarms": shown,
            "own": [a.id.split()[0] for a in self._of(bed.name) if a.shown],
            "signals": any(a.signals for a in self._of(bed.name)),
            "heard": heard,
            "results": bed.results, "edges": bed.edges, "late": bed.late,
            "missing": sum(len(track.missing) for track in bed.tracks.values()),
            "gone": sum(track.lost for track in bed.tracks.values()),
            "repeated": sum(track.repeated for track in bed.tracks.values()),
        }  # fmt: skip

    def _of(self, bed: str) -> list[Alarm]:
        return [self.alarms.alarms[f"{what} {bed}"] for what in ("lost", "two")]

    def _unix(self, now: float) -> float:
        return self._clock.at(now)


def _on(condition: object) -> Event:
    return Event.ON if condition else Event.OFF


def _natural(name: str) -> list[Any]:
    """Bed 2 before bed 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in re.split(r"(\d+)", name)]


def _run(message: dict[str, Any]) -> str:
    run = message["run"]
    if not isinstance(run, str) or not _RUN.fullmatch(run):
        raise MessageError
    return run


def _text(value: Any, most: int = 300) -> str:
    if not isinstance(value, str):
        raise MessageError
    return "".join(c if c.isprintable() else " " for c in value[:most])


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise MessageError
    return float(value)


def _output(name: str, value: Any) -> float:
    low, high = RANGES.get(name, (-math.inf, math.inf))
    if not low <= _number(value) <= high:
        raise MessageError
    return float(value)


def _result(value: Any) -> dict[str, Any]:
    outputs = value["outputs"]
    if outputs is not None:
        outputs = {_text(name, 20): _output(name, number) for name, number in list(outputs.items())[:10]}
    return {"outputs": outputs, "reason": _text(value["reason"])}


def _alarm(value: Any) -> dict[str, Any]:
    shown = {name: _text(value[name]) for name in ("id", "kind", "priority", "state", "text", "detail")}
    if shown["priority"] not in [priority.value for priority in Priority]:
        raise MessageError
    return shown
