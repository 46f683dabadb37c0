"""One run of `jmt-edge live` under attack, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from chaos_verdict import Fault, Sent

HERE = Path(__file__).resolve().parent
ENDS = ("sigint", "kill", "sighup", "closed stdout", "sigterm", "disk full", "stdout EIO", "disk EIO")
WARM = 10.0  # s before the first attack
PAUSE = 6.0  # s between two


class Run:
    """devices: name -> device, with `modes` and `fault(mode)`. folder: of the recording."""

    def __init__(
        self, devices: dict[str, Any], folder: Path, seed: int, seconds: float, end: str, env: dict[str, str]
    ) -> None:
        self.devices, self.folder, self.end = devices, folder, end
        self._random = random.Random(seed)
        self._seconds = seconds
        self.sent = Sent(full=end in ("disk full", "disk EIO"))
        self.attacks: list[str] = []
        self._done = threading.Event()
        command = [
            sys.executable, str(HERE / "chaos_live.py"), "live", "--task", "trimodal", "--hop", "0.5",
            "--camera", "/dev/video99?width=320&height=240&fps=12",
            "--microphone", "default" if "microphone" in devices else "none",
            "--eda", f"shimmer3:{devices['board'].path}?rate=128", "--output", "jsonl", "--record", str(folder),
            "--record-raw", "face,voice,eda" if "microphone" in devices else "face,eda", "--mark",
            "--page", "127.0.0.1:0", "--threads", "1",
        ]  # fmt: skip
        self._terminal = -1
        out: Any = subprocess.PIPE
        if end == "stdout EIO":
            self._terminal, out = pty.openpty()
        environment = {**os.environ, **env, "CHAOS_CAMERA": str(devices["camera"].path), "OMP_NUM_THREADS": "1"}
        self._wall = folder.with_suffix(".wall")  # s that are added to the wall clock
        self._wall.write_text("0")
        environment["CHAOS_WALL"] = str(self._wall)
        self.errors = folder.with_suffix(".stderr")
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=errors, env=environment, start_new_session=True
            )
        if self._terminal >= 0:
            os.close(out)
        self.results: list[dict[str, Any]] = []
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._mark)]
        for thread in self._threads:
            thread.start()

    # ---- what goes on all the time

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            lines = os.fdopen(self._terminal, "rb") if self._terminal >= 0 else self.process.stdout
            assert lines is not None
            for line in lines:
                with suppress(ValueError):
                    self.results.append(json.loads(line))

    def _mark(self) -> None:
        number = 0
        assert self.process.stdin is not None
        while not self._done.wait(0.5):
            if not self.results:
                continue
            text = f"mark-{number:04d}"
            at = time.monotonic()
            try:
                self.process.stdin.write(f"mark {text}\n".encode())
                self.process.stdin.flush()
            except (OSError, ValueError):
                return
            if self._done.is_set():
                return
            self.sent.marks.append((text, at))
            number += 1

    @property
    def port(self) -> int:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.errors.read_text(errors="replace"))
        return int(found[1]) if found else 0

    # ---- attacks

    def play(self) -> None:
        """Attack until the time is over, then end the run in its way."""
        self._wait_for_results()
        end = time.monotonic() + self._seconds
        time.sleep(WARM)
        while time.monotonic() < end - 8 and self.process.poll() is None:
            kind = self._random.choice(("device",) * 5 + ("stop", "starve", "clients", "two devices", "wall clock"))
            self.attacks.append(kind)
            if kind == "device":
                self._break(1)
            elif kind == "two devices":
                self._break(2)
            elif kind == "stop":
                self._stopped(self._random.uniform(0.5, 4.0))
            elif kind == "starve":
                self._starved(4.0)
            elif kind == "wall clock":
                self._wall_clock(self._random.choice((-86400, -3600, -2, 2, 3600, 86400)))
            else:
                self._clients(3.0)
            time.sleep(PAUSE)
        self._finish()

    def _wait_for_results(self) -> None:
        until = time.monotonic() + 90
        while not self.results and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)

    def _break(self, count: int) -> None:
        chosen = self._random.sample(sorted(self.devices), count)
        faults = []
        for name in chosen:
            device = self.devices[name]
            mode = self._random.choice(device.modes)
            self.attacks.append(f"{name}: {mode}")
            device.fault(mode)
            faults.append(Fault(name, mode, time.monotonic()))
        time.sleep(self._random.uniform(1.5, 7.0))
        for fault in faults:
            self.devices[fault.device].fault("")
            fault.ends = time.monotonic()
        self.sent.faults += faults

    def _stopped(self, seconds: float) -> None:
        began = time.monotonic()
        os.kill(self.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.process.pid, signal.SIGCONT)
        self.sent.disturbed.append((began, time.monotonic() + 2))

    def _starved(self, seconds: float) -> None:
        """The run gets a twentieth of the time."""
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            os.kill(self.process.pid, signal.SIGSTOP)
            time.sleep(0.19)
            os.kill(self.process.pid, signal.SIGCONT)
            time.sleep(0.01)
        self.sent.disturbed.append((began, time.monotonic() + 2))

    def _wall_clock(self, by: int) -> None:
        """Set by `by` s for 4 s and back, as by NTP, by hand, or where summer time ends. Nothing may come of it."""
        self.attacks[-1] = f"wall clock: {by:+d} s"
        began = time.monotonic()
        self._wall.write_text(str(by))
        time.sleep(4.0)
        self._wall.write_text("0")
        self.sent.jumps.append((began, time.monotonic()))

    def _clients(self, seconds: float) -> None:
        """Idle and half-open connections, nonsense, and a WebSocket that never reads."""
        port, kept = self.port, []
        requests = (
            b"", b"GET / HT", b"POST /api/v1/markers HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n{",
            self._random.randbytes(3000), b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            .encode(),
        )  # fmt: skip
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(OSError):
                s = socket.create_connection(("127.0.0.1", port), timeout=1)
                kept.append(s)
                s.sendall(self._random.choice(requests))
            time.sleep(0.03)
        for s in kept:
            s.close()

    # ---- the end

    def _finish(self) -> None:
        process = self.process
        if self.end == "disk EIO":
            self._failing_disk(3.0)
        if self.end == "closed stdout" and process.stdout is not None:
            process.stdout.close()
        elif self.end == "stdout EIO":
            os.close(self._terminal)
        else:
            number = {"kill": signal.SIGKILL, "sighup": signal.SIGHUP, "sigterm": signal.SIGTERM}.get(self.end)
            if self.end == "kill":
                self.sent.killed = time.monotonic()
                self._done.set()
            process.send_signal(number or signal.SIGINT)
        self._done.set()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.attacks.append("did not end within 20 s")

    def _failing_disk(self, seconds: float) -> None:
        """The kernel answers EIO to whatever is written to the recording; the results must keep coming."""
        files = [part for path in sorted(self.folder.iterdir()) for part in ("-P", str(path))]
        inject = ["-e", "trace=write,writev,pwrite64", "-e", "inject=write,writev,pwrite64:error=EIO"]
        command = ["strace", "-f", "-o", "/dev/null", *inject, *files, "-p", str(self.process.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._wait_for_tracer(15.0)
        before = len(self.results)
        time.sleep(seconds)
        self.sent.after_eio = len(self.results) - before
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)

    def _wait_for_tracer(self, seconds: float) -> None:
        """Each thread is stopped while it is attached to, which takes a while on a busy machine."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(OSError):
                threads = Path(f"/proc/{self.process.pid}/task").iterdir()
                if not any("TracerPid:\t0\n" in (thread / "status").read_text() for thread in threads):
                    return
            time.sleep(0.1)

    def faults_of_process(self) -> list[str]:
        """What the process itself did wrong."""
        text = self.errors.read_text(errors="replace")
        wrong = [f"standard error: {line}" for line in text.splitlines() if "Traceback" in line][:1]
        if self.attacks[-1:] == ["did not end within 20 s"]:
            wrong.append(f"it did not end after {self.end}")
        code = self.process.returncode
        expected = {"kill": (-9,), "closed stdout": (0,), "stdout EIO": (2,)}.get(self.end, (0, 130))
        if code not in expected:
            wrong.append(f"exit code {code} after {self.end}: {text.splitlines()[-1:]}")
        if not self.results:
            wrong.append(f"no result: {text[-300:]}")
        return wrong
