"""A station's connection to the broker: a thread that keeps a `Ward` up to date."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time

from ..faults import FAULTS, Steady
from .broker import Broker, BrokerLostError, Connection
from .ward import TOPICS, Ward

log = logging.getLogger(__name__)

TURN = 0.2  # s between two judgements of the alarms
PAUSE, LONGEST = 0.5, 2.0  # s between two attempts to connect


class Listener:
    """Subscribes to every bed below the broker's prefix, and asks for what is missing.

    `lock` guards the ward: hold it to read. The beds keep what was missed while this listener or the broker was away.
    """

    def __init__(self, broker: Broker, ward: Ward) -> None:
        self.broker, self.ward = broker, ward
        self.lock = threading.Lock()
        self.connections = 0
        self._id = f"jmt-edge-station-{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._said = ""
        self._thread = Steady(self._work, "mqtt station", self._stopping)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._connection is not None:
            self._connection.wake()
        self._thread.join(10.0)

    def _work(self) -> None:
        pause = PAUSE
        while not self._stopping.is_set():
            try:
                self._connect()
                pause = PAUSE
                self._serve()
            except BrokerLostError as error:
                self._say(f"mqtt: {self.broker.name} is away: {error}")
                with self.lock:
                    self.ward.broker = str(error)
            finally:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            until = time.monotonic() + pause
            while time.monotonic() < until and not self._stopping.wait(TURN):
                with self.lock:
                    self.ward.judge(time.monotonic())
            pause = min(LONGEST, pause * 2)

    def _connect(self) -> None:
        self._connection = Connection(self.broker, self._id, on_message=self._on_message)
        self._connection.subscribe(f"{self.broker.prefix}/+/{topic}" for topic in TOPICS)
        self.connections += 1
        with self.lock:
            self.ward.broker = ""
            for bed in self.ward.beds.values():  # as long as for a bed that has just been seen first
                bed.began = time.monotonic()
        self._say(f"mqtt: connected to {self.broker.name}")

    def _serve(self) -> None:
        assert self._connection is not None
        judged = 0.0
        while not self._stopping.is_set():
            self._connection.turn(TURN)
            now = time.monotonic()
            if now - judged < TURN:
                continue
            judged = now
            with self.lock:
                self.ward.judge(now)
                asked = self.ward.to_ask(now)
            for topic, request in asked.items():
                self._connection.publish(topic, json.dumps(request).encode())

    def _on_message(self, topic: str, payload: bytes) -> None:
        try:
            with self.lock:
                self.ward.take(topic, payload, time.monotonic())
        except Exception as error:  # costs this message
            FAULTS.add("mqtt station", error)

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            log.info(sentence)
