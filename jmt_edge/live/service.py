"""What a service manager is told: that the run has begun, that its loop advances, what it does, that it ends.

The protocol is systemd's `sd_notify(3)`: lines `NAME=VALUE` in a datagram to the Unix socket that `NOTIFY_SOCKET`
names.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from ..capture.base import Status
from ..errors import ConfigError
from ..faults import FAULTS
from ..observer import Observer, RunInfo
from ..result import Result
from ..summary import Summary

STATUS_PERIOD = 2.0  # s between two lines for `systemctl status`


class Service(Observer):
    """Tells the service manager. Its watchdog is fed from the loop alone: a loop that hangs is killed and restarted.

    No value of a result is passed on: status lines end up in the system's journal.
    """

    def __init__(self, address: str, watchdog: float | None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._period = watchdog / 4 if watchdog else None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._fed = self._said = 0.0
        self._statuses: Mapping[str, Status] = {}

    def send(self, *lines: str) -> None:
        try:
            with suppress(BlockingIOError):  # its queue is full; the next line will do
                self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            FAULTS.add("service manager", error)

    def on_start(self, info: RunInfo) -> None:
        self.begin()

    def begin(self) -> None:
        """The run has begun: of one person with `on_start`, of several before their loops."""
        if self._period:
            faulthandler.enable()  # its SIGABRT then writes where each thread hung
        self._fed = time.monotonic()
        self.send("READY=1", "STATUS=waiting for the first result")

    def on_turn(self) -> None:
        now = time.monotonic()
        if self._period and now - self._fed >= self._period:
            self._fed = now
            self.send("WATCHDOG=1")

    def on_status(self, statuses: Mapping[str, Status]) -> None:
        self._statuses = statuses

    def on_result(self, result: Result) -> None:
        now = time.monotonic()
        if now - self._said >= STATUS_PERIOD:
            self._said = now
            sensors = ", ".join(f"{name} {status.state.value}" for name, status in self._statuses.items())
            self.send(f"STATUS=window {result.index}, {result.dropped} dropped; {sensors}")

    def on_end(self, summary: Summary) -> None:
        self.send("STOPPING=1", f"STATUS={'failed' if summary.failed else 'ended'} after {summary.results} results")
        self._socket.close()


def open_service(environment: Mapping[str, str] = os.environ) -> Service | None:
    """The service manager that started this process; None where there is none.

    Raises ConfigError for a NOTIFY_SOCKET or WATCHDOG_USEC that cannot be used.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return None
    if address[0] not in "/@" or len(address) < 2:
        raise ConfigError(f"NOTIFY_SOCKET is '{address}', which is not a Unix socket; start without it")
    wanted = environment.get("WATCHDOG_USEC", "")
    if not wanted or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return Service(address, None)
    if not wanted.isdecimal() or not 0 < int(wanted) < 10**13:
        raise ConfigError(f"WATCHDOG_USEC is '{wanted}', which is not a number of microseconds; set WatchdogSec=")
    return Service(address, int(wanted) / 1e6)
