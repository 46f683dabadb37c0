"""What a bed has said, in order, until the broker and everybody who listens have it.

Messages are numbered from 1. A message is sent when it is made or, where the broker is away, later and then marked
`late`. It is kept after the broker has taken it: a broker that dies may lose what it has taken, and a listener that
finds a number missing asks for it again. What is kept is bounded; the oldest messages go first, and those that nobody
has had by then are counted.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

KEEP = 16 << 20  # bytes: about two hours of results, two a second
LATE = 2.0  # s between a message's making and its sending after which it is late
AGAIN = 3.0  # s before a message is repeated once more


@dataclass
class Message:
    """kind: result or alarm, the last level of its topic. at: Unix time; made: `time.monotonic()`."""

    seq: int
    kind: str
    at: float
    made: float
    body: str  # JSON
    tries: int = 0
    taken: bool = False  # by the broker
    asked: float = float("-inf")  # when somebody last asked for it


class Journal:
    """The messages of one run; one thread's. keep: bytes of messages that are kept."""

    def __init__(self, run: str, keep: int = KEEP) -> None:
        self.run, self._keep = run, keep
        self._all: OrderedDict[int, Message] = OrderedDict()
        self._fresh: deque[Message] = deque()
        self._late: deque[Message] = deque()
        self._flying: set[int] = set()  # sent, not yet taken
        self._bytes = 0
        self.last = 0  # number of the newest message
        self.waiting = 0  # messages that the broker does not have yet
        self.lost = 0  # messages that had to go before the broker had them

    def add(self, kind: str, body: dict[str, Any], at: float, made: float) -> None:
        """at: Unix time; made: `time.monotonic()` then."""
        self.last += 1
        text = json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        message = Message(self.last, kind, at, made, text)
        self._all[message.seq] = message
        self._fresh.append(message)
        self._bytes += len(text)
        self.waiting += 1
        while self._bytes > self._keep and len(self._all) > 1:
            _, oldest = self._all.popitem(last=False)
            self._bytes -= len(oldest.body)
            self.lost += not oldest.taken
            self.waiting -= not oldest.taken
        for queue in (self._fresh, self._late):  # which a broker that is away for days must not fill
            while queue and queue[0].seq < self.first:
                queue.popleft()

    @property
    def first(self) -> int:
        """The lowest number that is still kept."""
        return next(iter(self._all), self.last + 1)

    @property
    def flying(self) -> int:
        return len(self._flying)

    def next(self, now: float) -> Message | None:
        """The message to be sent now; what has just been made goes before what is late. now: `time.monotonic()`."""
        while self._fresh and now - self._fresh[0].made > LATE:
            self._late.append(self._fresh.popleft())
        for queue in (self._fresh, self._late):
            while queue:
                message = queue.popleft()
                if message.seq in self._all and message.seq not in self._flying:
                    return message
        return None

    def encode(self, message: Message, now: float) -> bytes:
        """The message as it is sent now, and note that it is on its way."""
        late = message.tries > 0 or now - message.made > LATE
        message.tries += 1
        self._flying.add(message.seq)
        head = {"v": 1, "run": self.run, "seq": message.seq, "first": self.first, "at": round(message.at, 3)}
        return f'{json.dumps(head)[:-1]}, "late": {json.dumps(late)}, "{message.kind}": {message.body}}}'.encode()

    def taken(self, seq: int) -> None:
        """The broker has it."""
        self._flying.discard(seq)
        message = self._all.get(seq)
        if message is not None and not message.taken:
            message.taken = True
            self.waiting -= 1

    def disconnected(self) -> None:
        """What was on its way is sent again."""
        self._late.extendleft(self._all[seq] for seq in sorted(self._flying, reverse=True) if seq in self._all)
        self._flying.clear()

    def again(self, seqs: Iterable[int]) -> None:
        """Somebody misses these; those that are on their way or wait anyway are not queued twice."""
        now = time.monotonic()
        for seq in seqs:
            message = self._all.get(seq)
            if message is not None and message.taken and now - message.asked > AGAIN:
                message.asked = now
                self._late.append(message)
