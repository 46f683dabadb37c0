"""Timing of the whole product: the live loop on simulated sensors, and a fresh process up to its first result."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from ..capture import open_source
from ..engine.backends.base import Engine
from ..engine.bundle import Bundle
from ..live import Options, run
from ..observer import Observer
from ..result import Result
from .stages import Delay, quick

_SENSORS = "sim:seed=900001"


class _Collect(Observer):
    """Milliseconds of every result with a number, with and without the time spent waiting for a processor.

    The loop reports how long a result took, not how much of that was waiting, which is estimated from the share of
    waiting since the last result.
    """

    def __init__(self, delay: Delay) -> None:
        self.totals: list[float] = []
        self.net: list[float] = []
        self._delay = delay
        self._last = (time.thread_time(), delay.seconds())

    def on_result(self, result: Result) -> None:
        now = (time.thread_time(), self._delay.seconds())
        ran, waited = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        total = result.latency_ms.get("total")
        if result.outputs is not None and total is not None:
            self.totals.append(float(total))
            self.net.append(float(total) * ran / (ran + waited))


def live_loop(bundle: Bundle, engine: Engine, hop: float, seconds: float) -> dict[str, Any]:
    """From window end to result on simulated sensors at full speed: `seconds` of signal, at least twelve results.

    Milliseconds of every result in `calls`. Closes the engine.
    """
    sources = {m: s for m in bundle.task.names if (s := open_source(m, _SENSORS)) is not None}
    signal = max(bundle.task.window + 12 * hop, seconds)
    process, thread, began = time.process_time(), time.thread_time(), time.perf_counter()
    with Delay() as delay:
        seen = _Collect(delay)
        summary = run(bundle, engine, sources, Options(hop, False, signal), [seen])
    spent = time.process_time() - process
    return {
        "calls": seen.totals,
        "quick": quick(seen.net) if seen.net else None,
        "cores": max(1.0, spent / (time.thread_time() - thread)),
        "cpu_cores_busy": spent / (time.perf_counter() - began),
        "real_time_factor": summary.real_time_factor,
        "dropped": summary.dropped,
    }


def first_result(bundle: Bundle, backend: str, threads: int | None) -> float | None:
    """Seconds from process start to the first result with a number, simulated sensors at full speed.

    None where the process ended without one.
    """
    command = [
        sys.executable, "-m", "jmt_edge", "live", "--bundle", str(bundle.path), "--speed", "max", "--output", "jsonl",
        "--backend", backend, "--duration", str(bundle.task.window + 2),
    ]  # fmt: skip
    if threads:
        command += ["--threads", str(threads)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"outputs": {' in line:
                spent = time.perf_counter() - began
                process.terminate()
                return spent
    return None
