"""Keep a device streaming: one state machine for the camera, the microphone and the EDA port.

    CONNECTING -> STREAMING        the first data arrived
    CONNECTING, STREAMING -> STALLED   data arrives that is not understood
    CONNECTING -> LOST             the device did not open, or no data arrived within `Timing.first`
    STREAMING  -> STALLED          silence for `Timing.stall`
    STALLED    -> STREAMING        data again
    STALLED    -> LOST             silence for `Timing.lost`
    STREAMING, STALLED -> LOST     the device failed
    LOST       -> BACKOFF          the connection is closed
    BACKOFF    -> CONNECTING       after a wait that doubles up to `Timing.backoff_max`

`Link` is the machine (no thread, injectable clock); `Supervisor` is the thread that drives it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..errors import UserError
from ..faults import FAULTS, Steady
from .base import State

log = logging.getLogger(__name__)


class DeviceLost(Exception):
    """An open device stopped working; the message is one sentence for the user."""


@dataclass(frozen=True)
class Timing:
    """Seconds. The defaults notice a fault within 2 s and retry at least every 2 s."""

    first: float = 3.0  # wait for the first data after connecting
    stall: float = 1.0  # silence that counts as a stall
    lost: float = 2.5  # silence after which the connection is closed and reopened
    backoff: float = 0.1  # first wait before the next attempt
    backoff_max: float = 0.8


class Connection(Protocol):
    """An open device."""

    symptom: str  # why there is no data, as far as is known ("no bytes arrive")

    def pump(self) -> bool:
        """Wait briefly (at most about 0.1 s) for data and deliver it; True where usable data arrived.

        Raises DeviceLost or OSError when the device is gone.
        """

    def close(self) -> None: ...


class Link:
    """The state of one device. Written by one thread, read by any.

    `state` and `reason` are computed when read, so that a stall shows even while the writing thread hangs inside a
    driver. `history` keeps the last transitions as (time, state, reason).
    """

    def __init__(self, timing: Timing | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.timing = timing or Timing()
        self.now = now
        self.reconnects = 0
        self.history: deque[tuple[float, State, str]] = deque(maxlen=64)
        self._lock = threading.Lock()
        self._state = State.CONNECTING
        self._reason = "not started"
        self._since = now()  # of the last data, or of the connection before any
        self._wait = self.timing.backoff
        self._streamed = False
        self._new = True  # no data came since the device was opened

    @property
    def state(self) -> State:
        return self._judge()[0]

    @property
    def reason(self) -> str:
        """One sentence; empty while streaming."""
        return self._judge()[1]

    @property
    def silence(self) -> float:
        """Seconds since the last data, or since the connection was made."""
        return self.now() - self._since

    def connecting(self) -> None:
        """The device is about to be opened."""
        self._enter(State.CONNECTING, self._reason if self._streamed else "opening the device")

    def connected(self) -> None:
        """The device is open; data is awaited."""
        self._since = self.now()
        self._new = True

    def data(self) -> None:
        """Usable data arrived."""
        self._since = self.now()
        if self._state is State.STREAMING:
            return
        if self._new:
            self.reconnects += self._streamed
            self._streamed, self._new = True, False
        self._wait = self.timing.backoff
        self._enter(State.STREAMING, "")

    def overdue(self, symptom: str = "no data arrives") -> str:
        """Why the connection should be closed; empty while it should stay open."""
        silence = self.silence
        if self._state is State.CONNECTING:
            return f"{symptom} ({silence:.1f} s after connecting)" if silence > self.timing.first else ""
        if self._state is State.STREAMING and silence > self.timing.stall:
            self._enter(State.STALLED, f"{symptom} for {silence:.1f} s")
        return f"{symptom} for {silence:.1f} s" if silence > self.timing.lost else ""

    def unreadable(self, reason: str) -> None:
        """Data came that is not understood: the device is there, and opening it again would not help."""
        self._since = self.now()
        self._enter(State.STALLED, reason)

    def failed(self, reason: str) -> None:
        """The attempt or the connection failed."""
        self._enter(State.LOST, reason)

    def backoff(self) -> float:
        """Seconds to wait before the next attempt."""
        wait = self._wait
        self._wait = min(2 * wait, self.timing.backoff_max)
        self._enter(State.BACKOFF, self._reason or "the connection was closed")
        return wait

    def ended(self, reason: str = "") -> None:
        """The stream has ended, or was closed."""
        self._enter(State.ENDED, reason)

    def _enter(self, state: State, reason: str) -> None:
        with self._lock:
            if state is not self._state or not self.history:
                self.history.append((self.now(), state, reason))
            self._state, self._reason = state, reason

    def _judge(self) -> tuple[State, str]:
        with self._lock:
            state, reason = self._state, self._reason
        silence = self.silence
        if state in (State.STREAMING, State.STALLED) and silence > self.timing.stall:
            return State.STALLED, reason or f"no data for {silence:.1f} s"
        return state, reason


class Supervisor:
    """A thread that connects, pumps and reconnects until `stop`.

    `connect` opens the device and raises UserError, DeviceLost or OSError where it cannot.
    """

    def __init__(self, connect: Callable[[], Connection], link: Link, name: str) -> None:
        self._connect = connect
        self.link = link
        self._stop = threading.Event()
        self._first: Connection | None = None
        self._thread = Steady(self._run, name, self._stop)

    def start(self, connection: Connection | None = None) -> None:
        """Start; `connection`: the device, if the caller has opened it already (so that a failure is raised there)."""
        self._first = connection
        self._thread.start()

    def stop(self, timeout: float = 3.0) -> bool:
        """End the thread and close the device; False: the driver does not let it end. Safe to call twice, and before
        `start`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
            if self._thread.is_alive():
                log.warning("%s hangs in its driver; its thread is abandoned", self._thread.name)
        self.link.ended()
        return not self._thread.is_alive()

    def _run(self) -> None:
        connection = self._first
        self._first = None
        while not self._stop.is_set():
            try:
                if connection is None:
                    self.link.connecting()
                    connection = self._connect()
                self.link.connected()
                self._pump(connection)
            except (UserError, DeviceLost, OSError) as error:
                self.link.failed(str(error))
            except Exception as error:  # a driver's own exception must not end the stream for good
                FAULTS.add(self._thread.name, error)
                self.link.failed(f"{type(error).__name__}: {error}")
            finally:
                if connection is not None:
                    self._close(connection)
                    connection = None
            if not self._stop.is_set():
                self._stop.wait(self.link.backoff())

    def _pump(self, connection: Connection) -> None:
        while not self._stop.is_set():
            if connection.pump():
                self.link.data()
            elif unreadable := getattr(connection, "unreadable", ""):
                connection.unreadable = ""  # type: ignore[attr-defined]
                self.link.unreadable(unreadable)
            elif reason := self.link.overdue(connection.symptom):
                raise DeviceLost(reason)

    def _close(self, connection: Connection) -> None:
        try:
            connection.close()
        except (UserError, DeviceLost, OSError) as error:
            log.debug("closing a lost device: %s", error)
        except Exception as error:
            FAULTS.add(self._thread.name, error)
