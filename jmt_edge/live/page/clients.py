"""The connected browsers: one WebSocket each, each at the rate it can handle.

Signals are sent up to 30 times per second, pictures up to 12 times, the state four times. A client answers with the
number of the last binary message it has processed. Slow clients get no pictures and fewer, larger batches: half the
rate each second until they keep up. Nothing queues: signals wait in the model's bounded traces, and only the newest
picture exists. A client that does not answer for `DEAD` seconds is disconnected.

With a token, a connection counts as a client only once it has logged in, so those that never do keep nobody out.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ...faults import FAULTS
from .door import Door
from .frames import FPS, MODES, header
from .model import Model, mark_values
from .security import MAX_CLIENTS, Bucket, Guard
from .traces import pack

FAST, SLOWEST = 1 / 30, 1.0  # s between two batches
STATE_PERIOD, HIDDEN_PERIOD = 0.25, 0.5  # s between two states; the same for a hidden page
LAG, EASY, DEAD = 0.4, 0.15, 20.0  # s
LOGIN = 5.0  # s to send the token
CLOSE_NORMAL, CLOSE_POLICY, CLOSE_BUSY = 1000, 1008, 1013


def encode(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def parse(text: str) -> dict[str, Any] | None:
    """The JSON object in `text`; None where it is anything else."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


class Shared:
    """Messages that all clients get, encoded once."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._state: tuple[float, int, str] = (-1.0, -1, "")
        self._result: tuple[int, str] = (-1, "")

    def state(self, now: float) -> str:
        made, results, _ = self._state
        if now - made >= STATE_PERIOD / 2 or results != self._model.result_count or self._model.ended:
            self._state = (now, self._model.result_count, encode(self._model.state(now)))
        return self._state[2]

    def result(self) -> str:
        if self._model.result_count != self._result[0]:
            values = self._model.result_values()
            self._result = (self._model.result_count, encode({"type": "result", **(values or {})}))
        return self._result[1]


class Client:
    """One connection: what it shows, what it has been sent, how far it lags."""

    def __init__(self, socket: WebSocket, model: Model, shared: Shared, face: str) -> None:
        self._socket, self._model, self._shared = socket, model, shared
        self.face = face
        self.visible = True
        self.interval = FAST
        self._sequence = 0
        self._unanswered: deque[tuple[int, float]] = deque()
        self._cursors = {"eda": 0, "voice": 0}
        self._results = self._marks = 0
        self._zero: float | None = None  # of the run, as the client knows it
        self._frame_t: float | None = None
        self._frame_at = self._state_at = self._judged = 0.0
        self.sent_bytes = 0

    @property
    def looks(self) -> bool:
        """It wants pictures."""
        return self.visible and self.face != "hide"

    def lag(self, now: float) -> float:
        """Seconds for which the oldest unanswered message has been waiting."""
        return now - self._unanswered[0][1] if self._unanswered else 0.0

    # --- sending ---------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Send until the connection ends."""
        if not await self._hello():
            return
        while True:
            now = time.monotonic()
            if self._model.ended:
                await self._text(self._shared.state(now))
                await self._socket.close(CLOSE_NORMAL, "the run has ended")
                return
            lag = self.lag(now)
            if lag > DEAD:
                await self._socket.close(CLOSE_BUSY, "too slow")
                return
            self._adapt(lag, now)
            await self._send_due(now, lag)
            await asyncio.sleep(self.interval if self.visible else HIDDEN_PERIOD)

    async def _hello(self) -> bool:
        while (info := self._model.run_info()) is None:
            await self._text(encode({"type": "waiting"}))
            await asyncio.sleep(0.5)
        model = self._model
        self._results, self._marks, self._zero = model.result_count, model.mark_count, info["zero"]
        self._cursors = {"eda": 0, "voice": 0}
        hello = {"type": "hello", "run": info, "face": self.face, "history": model.history()}
        marks = {"marks": model.marks_values(), "ratings": model.ratings.values()}
        await self._text(encode({**hello, **marks, "result": model.result_values()}))
        return True

    def _adapt(self, lag: float, now: float) -> None:
        if now - self._judged < 1.0:
            return
        if lag > LAG:
            self.interval, self._judged = min(SLOWEST, self.interval * 2), now
        elif lag < EASY and self.interval > FAST:
            self.interval, self._judged = max(FAST, self.interval / 2), now

    async def _send_due(self, now: float, lag: float) -> None:
        model = self._model
        if model.zero != self._zero:  # the clock was set, so every time of day that is shown is another
            await self._hello()
        fresh = model.result_count != self._results  # its alarms go with it, so that the two never contradict
        if fresh or now - self._state_at >= (STATE_PERIOD if self.visible else HIDDEN_PERIOD) * 0.9:
            self._state_at = now
            await self._text(self._shared.state(now))
        if model.result_count != self._results:
            self._results = model.result_count
            await self._text(self._shared.result())
        if model.mark_count != self._marks:
            new = list(model.marks)[-(model.mark_count - self._marks) :]
            self._marks = model.mark_count
            fresh_marks = [mark_values(mark) for mark in new]
            await self._text(encode({"type": "marks", "marks": fresh_marks, "ratings": model.ratings.values()}))
        if not self.visible:
            return
        await self._send_traces()
        if self.face != "hide" and lag < LAG and now - self._frame_at >= 1 / FPS - FAST / 2:
            await self._send_frame(now)

    async def _send_traces(self) -> None:
        blocks = {}
        for name, trace in (("eda", self._model.eda), ("voice", self._model.voice.trace)):
            t, v, cursor = trace.since(self._cursors[name])
            if len(t):
                blocks[name] = (t, v)
                self._cursors[name] = cursor
        if blocks:
            await self._binary(pack(self._next(), blocks))

    async def _send_frame(self, now: float) -> None:
        newest = self._model.frames.newest
        if newest is None or newest == self._frame_t:
            return
        made = self._model.frames.get(self.face)
        if made is not None:
            self._frame_t, self._frame_at = newest, now
            await self._binary(header(self._next(), self.face == "blur") + made[1])

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) % 2**32
        self._unanswered.append((self._sequence, time.monotonic()))
        return self._sequence

    async def _text(self, text: str) -> None:
        self.sent_bytes += len(text)
        await self._socket.send_text(text)

    async def _binary(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        await self._socket.send_bytes(data)

    # --- receiving -------------------------------------------------------------------------------------------------
    def take(self, message: dict[str, Any]) -> bool:
        """Handle a message; False if it is invalid. It can only change what this client shows."""
        kind = message.get("type")
        if kind == "ack" and isinstance(message.get("n"), int):
            while self._unanswered and self._unanswered[0][0] <= message["n"]:
                self._unanswered.popleft()
        elif kind == "view" and message.get("face", "hide") in MODES and isinstance(message.get("visible", True), bool):
            self.face = message.get("face", self.face)
            self.visible = message.get("visible", self.visible)
            self._frame_t = None
        else:
            return False
        return True


class Clients:
    """All connections."""

    def __init__(self, model: Model, guard: Guard, face: str, door: Door) -> None:
        self._model, self._guard, self._face, self._door = model, guard, face, door
        self._shared = Shared(model)
        self._all: dict[Client, WebSocket] = {}
        self._sent = 0  # bytes to clients that are gone

    def __len__(self) -> int:
        return len(self._all)

    @property
    def looking(self) -> bool:
        return any(client.looks for client in self._all)

    @property
    def sent_bytes(self) -> int:
        return self._sent + sum(client.sent_bytes for client in self._all)

    async def serve(self, socket: WebSocket) -> None:
        """The WebSocket's endpoint."""
        headers = socket.headers
        if not self._guard.host_allowed(headers) or not self._guard.origin_allowed(headers, required=True):
            await socket.close(CLOSE_POLICY)  # before it is accepted: answered with 403
            return
        self._door.asked(socket.client)
        if self._guard.token is None and self._full:
            await socket.close(CLOSE_BUSY)
            return
        await socket.accept()
        if self._guard.token is not None and not await self._login(socket):
            return
        if self._full:
            await socket.close(CLOSE_BUSY, "all places are taken")
            return
        self._door.welcome(socket.client, streaming=True)
        await self._attend(socket)

    @property
    def _full(self) -> bool:
        return len(self._all) >= MAX_CLIENTS

    def sweep(self, now: float) -> None:
        """Cut off the clients that do not even take what is sent, so that `Client.run` waits in vain."""
        for client, socket in self._all.items():
            if client.lag(now) > DEAD + 1:
                self._door.shut(socket.client)

    async def _login(self, socket: WebSocket) -> bool:
        """The first message has the right token; anything else counts as a wrong one."""
        try:
            text = await asyncio.wait_for(socket.receive_text(), LOGIN)
        except (asyncio.TimeoutError, WebSocketDisconnect, RuntimeError):
            text = None  # nothing was sent
        except KeyError:
            text = ""  # bytes
        if text is not None:
            message = parse(text)
            given = message.get("token") if message else None
            if not isinstance(given, str):
                self._guard.count_wrong(socket.client)
            elif self._guard.token_allowed(given, socket.client):
                return True
        if socket.client_state is WebSocketState.CONNECTED:
            if self._guard.closed(socket.client):
                await socket.close(CLOSE_BUSY, "too many wrong tokens")  # the browser tries again
            else:
                await socket.close(CLOSE_POLICY, "wrong token")
        return False

    async def _attend(self, socket: WebSocket) -> None:
        client = Client(socket, self._model, self._shared, self._face)
        client.visible = socket.query_params.get("hidden") != "1"  # a program that never wants pictures
        self._all[client] = socket
        sending = asyncio.ensure_future(self._quietly(client.run()))
        receiving = asyncio.ensure_future(self._quietly(self._receive(socket, client)))
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._all.pop(client, None)
            self._sent += client.sent_bytes
            if not self.looking:
                self._model.frames.forget()
            for task in (sending, receiving):
                task.cancel()
            for error in await asyncio.gather(sending, receiving, return_exceptions=True):
                if isinstance(error, Exception):
                    FAULTS.add("page client", error)

    @staticmethod
    async def _quietly(work: Any) -> None:
        # a lost connection just ends the client
        with suppress(WebSocketDisconnect, RuntimeError, OSError, KeyError):  # KeyError: bytes instead of text
            await work

    @staticmethod
    async def _receive(socket: WebSocket, client: Client) -> None:
        bucket = Bucket(rate=40, burst=80)
        while True:
            message = parse(await socket.receive_text())
            if not bucket.take() or message is None or not client.take(message):
                await socket.close(CLOSE_POLICY, "unexpected message")
                return
