"""A bed's half of MQTT: numbered messages and retained topics, sent by a thread of their own.

Topics below `PREFIX/BED/`, all QoS 1: `result` and `alarm` (numbered, see `journal`), `alarms`, `quality`, `config` and
`status` (retained: the newest only), and `again`, on which a listener asks for numbers that it misses.
`docs/reference/mqtt.md` has their contents.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..faults import FAULTS, Steady
from .broker import Broker, BrokerLostError, Connection, check_bed
from .journal import KEEP, Journal

log = logging.getLogger(__name__)

IN_FLIGHT = 50  # messages sent that the broker has not confirmed
INBOX = 20_000  # messages that the thread has not seen, while it waits for a broker that does not answer
PAUSE, LONGEST = 0.5, 5.0  # s between two attempts to connect: the first, and at most
FAREWELL = 5.0  # s to send at the end what the broker does not have yet
STAY, REUNION = 2.0, 6.0  # s for which what somebody misses can still be asked for: after the end, after a reconnection
GRACE = 10.0  # s beyond all these for the thread to end
MAX_ASKED = 1000  # numbers that one request may name
LIVE, LOST, ENDED, FAILED = "live", "lost", "ended", "failed"


class Publisher:
    """Publishes as `bed`. `add` and `keep` may be called from any thread, never wait, and raise nothing."""

    def __init__(self, broker: Broker, bed: str, *, keep: int = KEEP) -> None:
        self.bed, self.broker = check_bed(bed), broker
        self.run = f"{int(time.time() * 1000):x}-{secrets.token_hex(4)}"  # sorts by when it began
        self.connections = 0
        self._base = f"{broker.prefix}/{bed}"
        self._journal = Journal(self.run, keep)
        self._inbox: deque[tuple[str, Any, float, float]] = deque()
        self._gate = threading.Lock()  # of the inbox, held for a moment only
        self._overrun = 0  # numbered messages that a full inbox had no room for
        self._kept: dict[str, str] = {}  # topic -> its payload as JSON
        self._changed: set[str] = set()
        self._numbers: dict[int, int] = {}  # paho's number -> ours
        self._connection: Connection | None = None
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._said = ""
        self._until = 0.0  # somebody may still miss something: `time.monotonic()`
        self._thread = Steady(self._work, "mqtt", self._stopping)

    @property
    def status(self) -> str:
        return f"{self._base}/status"

    def start(self) -> None:
        self._state(LIVE)
        self._thread.start()

    def add(self, kind: str, body: Mapping[str, Any]) -> None:
        """A numbered message: `result` or `alarm`."""
        self._put((kind, body, time.time(), time.monotonic()))

    def keep(self, topic: str, body: Any) -> None:
        """The newest content of a retained topic: `alarms`, `quality`, `config`, or a whole topic with slashes."""
        self._put((topic if "/" in topic else f"{self._base}/{topic}", body, 0.0, 0.0))

    def _put(self, entry: tuple[str, Any, float, float]) -> None:
        """made (the last) is 0 for what is only kept: its newest content replaces it, so that nothing is lost."""
        with self._gate:
            self._inbox.append(entry)
            if len(self._inbox) > INBOX:
                self._overrun += self._inbox.popleft()[3] > 0
        self._wake()

    def close(self, failed: str = "") -> int:
        """Send what waits, say that the run has ended, and disconnect: messages that the broker never got."""
        self._deadline = time.monotonic() + FAREWELL
        self._state(FAILED if failed else ENDED, failed)
        self._stopping.set()
        self._wake()
        self._thread.join(FAREWELL + STAY + REUNION + GRACE)
        with self._gate:  # a thread that hangs in a connection may have left something there
            unseen = sum(made > 0 for *_, made in self._inbox)
        return self._journal.lost + self._journal.waiting + unseen + self._overrun

    def _state(self, state: str, reason: str = "") -> None:
        self.keep("status", {"state": state, "reason": reason, "run": self.run, "at": round(time.time(), 3)})

    def _wake(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.wake()

    # --- the thread ------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        pause = PAUSE
        while True:
            try:
                self._connect()
                pause = PAUSE
                self._serve()
                return
            except BrokerLostError as error:
                self._say(f"mqtt: {self.broker.name} is away: {error}; results are kept and sent later")
            finally:
                self._disconnect()
            self._collect()
            if time.monotonic() + pause > self._deadline:
                return
            self._stopping.wait(pause) if not self._stopping.is_set() else time.sleep(min(pause, 0.2))
            pause = min(LONGEST, pause * 2)

    def _connect(self) -> None:
        will = {"state": LOST, "reason": "its connection to the broker was lost", "run": self.run, "at": None}
        self._connection = Connection(
            self.broker, f"jmt-edge-{self.run}", will=(self.status, _json(will).encode()),
            on_message=self._on_message, on_accepted=self._on_accepted,
        )  # fmt: skip
        self.connections += 1
        self._until = time.monotonic() + (REUNION if self.connections > 1 else 0.0)
        self._connection.subscribe([f"{self._base}/again"])
        self._collect()
        self._changed.update(self._kept)
        self._say(f"mqtt: connected to {self.broker.name} as {self.bed}")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._numbers.clear()
        self._journal.disconnected()

    def _serve(self) -> None:
        """Send and receive until the run has ended and everything is sent. Raises BrokerLostError."""
        assert self._connection is not None
        while True:
            ending = self._stopping.is_set()  # read before what was said until then is collected
            self._collect()
            self._send()
            now = time.monotonic()
            done = not (self._inbox or self._changed or self._numbers or self._journal.waiting)
            if ending and not done:
                self._until = max(self._until, now + STAY)
            if ending and (now > self._until if done else now > self._deadline):
                return
            self._connection.turn(0.1 if ending else 1.0)

    def _collect(self) -> None:
        while self._inbox:
            with self._gate:
                where, body, at, made = self._inbox.popleft()
            try:
                if made:
                    self._journal.add(where, body, at, made)
                elif (text := _json(body)) != self._kept.get(where):
                    self._kept[where] = text
                    self._changed.add(where)
            except (TypeError, ValueError) as error:  # not JSON: costs this message
                FAULTS.add("mqtt message", error)

    def _send(self) -> None:
        connection = self._connection
        assert connection is not None
        for topic in sorted(self._changed, key=lambda name: name == self.status):  # the status last
            if topic == self.status and self._stopping.is_set() and not self._last_word:
                break
            payload = json.loads(self._kept[topic])
            if topic == self.status:
                payload["last"] = self._journal.last
            self._numbers[connection.publish(topic, _json(payload).encode(), retain=True)] = 0
            self._changed.discard(topic)
        while self._journal.flying < IN_FLIGHT and (message := self._journal.next(time.monotonic())) is not None:
            payload = self._journal.encode(message, time.monotonic())
            self._numbers[connection.publish(f"{self._base}/{message.kind}", payload)] = message.seq

    @property
    def _last_word(self) -> bool:
        """The end may be said: all that it ends has been sent, or there is no time left."""
        return not self._journal.waiting or time.monotonic() > self._deadline - 1.0

    def _on_accepted(self, mid: int) -> None:
        seq = self._numbers.pop(mid, 0)
        if seq:
            self._journal.taken(seq)

    def _on_message(self, topic: str, payload: bytes) -> None:
        """A listener misses messages of this run."""
        try:
            asked = json.loads(payload)
            if asked["run"] == self.run:
                self._until = min(max(self._until, time.monotonic() + STAY), self._deadline + REUNION)
                self._journal.again([int(seq) for seq in asked["seqs"][:MAX_ASKED]])
        except (ValueError, TypeError, KeyError, RecursionError):
            pass  # a stranger's bytes

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            log.info(sentence)


def _json(body: Any) -> str:
    return json.dumps(body, allow_nan=False, ensure_ascii=False)
