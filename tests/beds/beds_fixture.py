"""A Mosquitto of the test's own, which can be killed and started again, and results made by hand."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jmt_edge.result import Quality, Result


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def mosquitto() -> str:
    """The program. Skips where it is missing."""
    found = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("no MQTT broker on this machine (apt install mosquitto)")
    return found


class Mosquitto:
    """A broker on a port of its own. extra: more lines of its configuration."""

    def __init__(self, folder: Path, *extra: str) -> None:
        self.port = free_port()
        self._program = mosquitto()
        self._file = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", *(extra or ("allow_anonymous true",))]
        if os.geteuid() == 0:
            lines.append("user root")  # else it becomes a user who may not read the test's files
        self._file.write_text("\n".join(lines) + "\n")
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, path: str = "ward", user: str = "", scheme: str = "mqtt") -> str:
        return f"{scheme}://{user and user + '@'}127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(self._file)], stdout=log, stderr=log)
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < until, self._log.read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        """As a machine that loses its power: nothing is said, nothing is saved."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


def result(index: int, pain: float | None = 0.3, hop: float = 0.5) -> Result:
    here = pain is not None
    quality = {name: Quality(here, "" if here else "no samples", 0.9) for name in ("face", "eda")}
    share = dict.fromkeys(quality, 0.5 if here else None)
    outputs = {"pain": pain} if pain is not None else None
    why = "" if here else "no modality can be used"
    return Result(index, index * hop, "pain", outputs, why, quality, share, {"total": 3.0}, 0, "hand@12345678", True)


def wait_for(condition: Callable[[], Any], timeout: float = 40.0, what: str = "") -> Any:
    """Poll until `condition` holds; a machine shared with others may take its time."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what or condition}"
        time.sleep(0.05)
    return value
