"""systemd's part, for tests: the notify socket, the watchdog, SIGABRT, the restart.

`python tests/live/supervisor.py --json FILE` hangs the loop of a real `jmt-edge live` and measures how long the session
and its recording were interrupted; then it does so with a whole bedside unit, which is killed and stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# The loop hangs at its window 12, once: the file says that it has.
HANG = """
import os, sys, time
from pathlib import Path
from jmt_edge.live import pipeline
infer = pipeline.Pipeline.infer
def hang(self, index, *args, **options):
    if index >= 12 and not Path(os.environ["HUNG"]).exists():
        Path(os.environ["HUNG"]).touch()
        time.sleep(1e6)
    return infer(self, index, *args, **options)
pipeline.Pipeline.infer = hang
from jmt_edge.cli import main
sys.exit(main())
"""
CONTINUES = 5.0  # s from the end of a process that hung until the next one records
SIMULATED = ("--task", "pain", "--camera", "sim:fps=8&size=320x240&seed=3", "--eda", "sim:seed=3", "--threads", "1")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Supervisor:
    """Runs `command` as `Type=notify` with `Restart=on-failure` does. `events`: (s since the start, life, what)."""

    def __init__(
        self, command: list[str], folder: Path, *, watchdog: float, abstract: bool = False,
        environment: Mapping[str, str] = {},
    ) -> None:  # fmt: skip
        self.command, self.folder, self.watchdog = command, folder, watchdog
        address = f"@jmt-edge-test-{os.getpid()}-{time.monotonic_ns()}" if abstract else str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if abstract else address)
        self._socket.settimeout(0.05)
        self.environment = {
            **os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(round(watchdog * 1e6)), **environment,
        }  # fmt: skip
        self.events: list[tuple[float, int, str]] = []
        self.codes: list[int] = []
        self.cpu_to_ready: list[float] = []  # s of processor time of each life until READY
        self.pings = 0
        self.life = 0
        self._began = time.monotonic()
        self._start()

    def _start(self) -> None:
        self.life += 1
        self._fed = float("inf")  # no watchdog before READY
        self._log = (self.folder / f"life-{self.life}.log").open("wb")
        environment = {k: v for k, v in self.environment.items() if k != "WATCHDOG_PID"}
        self.process = subprocess.Popen(self.command, env=environment, stdout=self._log, stderr=self._log)
        self._note("started")

    def _note(self, what: str) -> None:
        self.events.append((time.monotonic() - self._began, self.life, what))

    def log(self, life: int) -> str:
        return (self.folder / f"life-{life}.log").read_text()

    def at(self, life: int, what: str) -> float | None:
        """When `what` happened first in this life."""
        return next((t for t, n, text in self.events if n == life and text.startswith(what)), None)

    def step(self) -> None:
        """Take what has been said, and do what systemd does about it."""
        try:
            for line in self._socket.recv(4096).decode().split("\n"):
                if line in ("WATCHDOG=1", "READY=1"):
                    self._fed = time.monotonic()
                if line == "READY=1":
                    self.cpu_to_ready.append(cpu_seconds(self.process.pid))
                self.pings += line == "WATCHDOG=1"
                if line != "WATCHDOG=1":
                    self._note(line)
        except TimeoutError:
            pass
        if time.monotonic() - self._fed > self.watchdog:
            self._fed = float("inf")
            self._note("aborted")
            self.process.send_signal(signal.SIGABRT)
            self.process.send_signal(signal.SIGCONT)  # systemd sends both: one that is stopped takes no other signal
        code = self.process.poll()
        if code is not None:
            self._log.close()
            self.codes.append(code)
            self._note(f"exited {code}")
            if code:
                self._start()

    def until(self, condition: Any, timeout: float = 120.0) -> None:
        end = time.monotonic() + timeout
        while not condition():
            said = self.log(self.life)[-2000:] + str(self.events[-12:])
            assert time.monotonic() < end and (not self.codes or self.codes[-1] != 0), said
            self.step()

    def stop(self) -> int:
        """End the service as `systemctl stop` does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            with suppress(TimeoutError):
                self._note(self._socket.recv(4096).decode())
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()
        self._socket.close()


@contextmanager
def interruption(folder: Path, watchdog: float) -> Iterator[tuple[Supervisor, dict[str, Any]]]:
    """A session whose loop hangs, restarted, and what happened then; the service ends with the block."""
    session = folder / "night"
    service = Supervisor(
        [sys.executable, "-c", HANG, "live", *SIMULATED, "--output", "none", "--record", str(session), "--resume"],
        folder, watchdog=watchdog, environment={"HUNG": str(folder / "hung")},
    )  # fmt: skip
    try:
        second = folder / "night-2"
        service.until(lambda: service.at(1, "READY") is not None)
        service.until(lambda: service.at(2, "READY") is not None)
        service.until(lambda: (second / "eda.csv").exists() and len((second / "eda.csv").read_bytes()) > 20)
        recorded = time.monotonic() - service._began
        service.until(lambda: (second / "results.jsonl").exists() and (second / "results.jsonl").read_bytes())
        first_result = time.monotonic() - service._began
        aborted = service.at(1, "aborted") or 0.0
        hung = (folder / "hung").stat().st_mtime - time.time() + time.monotonic() - service._began
        figures = {
            "watchdog_s": watchdog,
            "cold_start_to_ready_s": round((service.at(1, "READY") or 0.0) - (service.at(1, "started") or 0.0), 2),
            "hang_to_abort_s": round(aborted - hung, 2),
            "processor_s_to_ready": [round(s, 2) for s in service.cpu_to_ready[:2]],
            "abort_to_ready_s": round((service.at(2, "READY") or 0.0) - aborted, 2),
            "abort_to_recording_s": round(recorded - aborted, 2),
            "abort_to_first_result_s": round(first_result - aborted, 2),
        }  # fmt: skip
        yield service, figures
    finally:
        service.close()


DEPLOY = Path(__file__).parents[2] / "deploy" / "systemd"


def unit_command(folder: Path) -> list[str]:
    """What the unit of `deploy/systemd` starts, with its example of a configuration: simulated devices in place of the
    camera and the board, the test's folder in place of /var/lib and /etc, and a free port."""
    text = (DEPLOY / "jmt-edge.toml").read_text()
    for theirs, ours in (
        (r"^camera = 0 .*$", f'camera = "{SIMULATED[3]}"'), (r'^eda = "auto:.*$', f'eda = "{SIMULATED[5]}"'),
        (r"127\.0\.0\.1:8765", "127.0.0.1:0"), (r"/var/lib/jmt-edge", str(folder)),
    ):  # fmt: skip
        text, count = re.subn(theirs, ours, text, flags=re.M)
        assert count == 1, theirs
    (folder / "jmt-edge.toml").write_text(text)
    (line,) = re.findall(r"^ExecStart=(.*)$", (DEPLOY / "jmt-edge.service").read_text(), re.M)
    program, *words = shlex.split(line)
    assert program == "/opt/jmt-edge/bin/jmt-edge" and words.pop() == "$JMT_EDGE_OPTIONS"
    words = [str(folder / "jmt-edge.toml") if word == "/etc/jmt-edge/jmt-edge.toml" else word for word in words]
    return [sys.executable, "-m", "jmt_edge", *words]


class Bedside:
    """A whole bedside unit from its configuration alone, as systemd would run it."""

    def __init__(self, folder: Path, *, watchdog: float) -> None:
        self.folder = folder
        self.service = Supervisor(
            unit_command(folder), folder, watchdog=watchdog, environment={"JMT_EDGE_LIVE_THREADS": "1"}
        )

    def part(self, life: int) -> Path:
        """The recording of this life."""
        return self.folder / ("session" if life == 1 else f"session-{life}")

    def until_it_works(self, life: int) -> dict[str, float]:
        """Wait for this life's recording, page and first results: when each was there, in s since the start."""
        service, part, when = self.service, self.part(life), {}
        service.until(lambda: (part / "eda.csv").exists() and len((part / "eda.csv").read_bytes()) > 20)
        when["recording"] = time.monotonic() - service._began
        service.until(lambda: self.page("/healthz", life) is not None)
        when["page"] = time.monotonic() - service._began
        service.until(lambda: (part / "results.jsonl").exists() and (part / "results.jsonl").read_bytes())
        when["first_result"] = time.monotonic() - service._began
        return when

    def page(self, path: str, life: int) -> Any:
        """The JSON of the unit's page, None where it does not answer."""
        found = re.findall(r"page: (http://\S+?)/?$", self.service.log(life), re.M)
        try:
            with urllib.request.urlopen(found[-1] + path, timeout=30) as answer:
                return json.loads(answer.read())
        except (IndexError, OSError):
            return None

    def interrupt(self, life: int, number: signal.Signals) -> dict[str, float]:
        """Send the signal, and wait until the next life works: the seconds from the end of this process on."""
        os.kill(self.service.process.pid, number)
        self.service.until(lambda: self.service.life > life)
        ended = self.service.at(life, "aborted") or self.service.at(life, "exited") or 0.0
        return {name: round(t - ended, 2) for name, t in self.until_it_works(life + 1).items()}


def restart_unit(kills: int, stops: int, watchdog: float, file: Path | None) -> bool:
    """Kill a whole unit `kills` times (SIGKILL) and stop it `stops` times (SIGSTOP; the watchdog ends it): whether one
    recorded later than `CONTINUES` after its predecessor's end. Seconds from that end, and in `hang_to_abort` until
    it."""
    from jmt_edge.machine import describe

    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        unit = Bedside(Path(folder), watchdog=watchdog)
        service = unit.service
        try:
            cold = {name: round(t, 2) for name, t in unit.until_it_works(1).items()}
            for number in [signal.SIGKILL] * kills + [signal.SIGSTOP] * stops:
                life, sent = service.life, time.monotonic() - service._began
                after = unit.interrupt(life, number)
                ended = service.at(life, "aborted") or service.at(life, "exited") or 0.0
                started, ready = service.at(life + 1, "started") or 0.0, service.at(life + 1, "READY") or 0.0
                runs.append({
                    "signal": number.name, "hang_to_abort_s": round(ended - sent, 2),
                    "to_start_s": round(started - ended, 2), "start_to_ready_s": round(ready - started, 2),
                    "processor_s_to_ready": round(service.cpu_to_ready[-1], 2),
                    **{f"to_{name}_s": t for name, t in after.items()}, "load": round(os.getloadavg()[0], 2),
                })  # fmt: skip
                print(runs[-1], flush=True)
            service.stop()
        finally:
            service.close()
    if file:
        result = {
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "machine": describe(), "priority": os.nice(0),
            "command": f"python tests/live/supervisor.py --unit --times {kills} --watchdog {watchdog:g} --json FILE",
            "watchdog_s": watchdog, "restart_sec_of_the_unit_s": 0.1, "cold_start": cold, "runs": runs,
        }  # fmt: skip
        file.write_text(json.dumps(result, indent=1) + "\n")
    return max(run["to_recording_s"] for run in runs) > CONTINUES


def main() -> None:
    from jmt_edge.machine import describe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--unit", action="store_true", help="a whole unit alone: --times kills, half as many stops")
    parser.add_argument("--watchdog", type=float, default=5.0, metavar="S", help="WatchdogSec of the unit")
    args = parser.parse_args()
    if args.unit:
        sys.exit(restart_unit(args.times, args.times // 2, args.watchdog, args.json))
    all_figures = []
    for _ in range(args.times):
        with tempfile.TemporaryDirectory() as folder:
            with interruption(Path(folder), watchdog=5.0) as (service, figures):
                service.stop()
            print(figures, flush=True)
            all_figures.append({**figures, "load": os.getloadavg()[0]})
    whole: list[dict[str, Any]] = []
    for _ in range(args.times):
        with tempfile.TemporaryDirectory() as folder:
            bedside = Bedside(Path(folder), watchdog=5.0)
            try:
                bedside.until_it_works(1)
                killed = bedside.interrupt(1, signal.SIGKILL)
                stopped = bedside.interrupt(2, signal.SIGSTOP)
                bedside.service.stop()
            finally:
                bedside.service.close()
            whole.append({"after_sigkill_s": killed, "after_sigabrt_s": stopped, "load": os.getloadavg()[0]})
            print(whole[-1], flush=True)
    if args.json:
        result = {
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
            "machine": describe(),
            "priority": os.nice(0),
            "runs": all_figures,
            "whole_unit": whole,
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    longest = [f["abort_to_recording_s"] for f in all_figures]
    longest += [f[how]["recording"] for f in whole for how in ("after_sigkill_s", "after_sigabrt_s")]
    sys.exit(max(longest) > CONTINUES)


if __name__ == "__main__":
    main()
