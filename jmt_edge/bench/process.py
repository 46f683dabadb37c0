"""One fresh process's part of a measurement: `python -m jmt_edge.bench.process`, job and answer as JSON.

Much of the difference between two runs of one build is decided when a process starts: its memory layout, the cores its
threads run on, the processor's clock. Rounds within one process do not show this variation; several processes do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.backends import open_engine
from ..engine.bundle import load_bundle
from ..errors import BackendError
from ..machine import PowerMeter, cpu_busy_seconds
from ..summary import peak_memory_mb
from .live import live_loop
from .stages import Stage, make_references, make_stages

ROUNDS = 4
STAGES, LIVE = 0.6, 0.4  # shares of the time: stages and references, live loop


@dataclass(frozen=True)
class Job:
    """What to measure, for how many seconds, plus `energy` seconds where the board has power rails (else 0)."""

    bundle: str
    backend: str
    batch: int
    threads: int
    hop: float
    seconds: float
    seed: int
    energy: float
    root: str


def fresh(job: Job) -> dict[str, Any]:
    """The answer of a new process to `job`. Raises BackendError if it ended without one."""
    command = [sys.executable, "-m", "jmt_edge.bench.process"]
    done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"a measuring process failed with code {done.returncode} ({last}); run the command again")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(job: Job) -> dict[str, Any]:
    """Every stage and reference in turn, round after round, then the live loop."""
    root = Path(job.root)
    bundle = load_bundle(Path(job.bundle))
    engine = open_engine(bundle, job.backend, job.threads)
    stages = make_stages(bundle.task, engine, job.batch, np.random.default_rng(job.seed))
    references = make_references(job.threads)
    everything = {**references, **stages}
    for stage in everything.values():
        for _ in range(3):
            stage.work()
    span = Span(root)
    for _ in range(ROUNDS):
        for stage in everything.values():
            stage.measure(STAGES * job.seconds / ROUNDS / len(everything))
    busy, others = span.end()
    energy = spend(stages["networks"], job.batch, job.energy, root) if job.energy else None
    return {
        "precision": dict(engine.precision),
        "stages": {name: _answer(stage) for name, stage in stages.items()},
        "references": {name: _answer(stage) for name, stage in references.items()},
        "cpu_cores_busy": busy,
        "other_cores_busy": others,
        "energy": energy,
        "end_to_end": live_loop(bundle, engine, job.hop, LIVE * job.seconds),
        "gpu_memory_mb": _gpu_memory(),
        "peak_rss_mb": peak_memory_mb(),
    }


def _answer(stage: Stage) -> dict[str, Any]:
    return {"rounds": stage.rounds, "quick": stage.quick(), "items": stage.items, "cores": stage.cores()}


class Span:
    """Cores kept busy from now to `end`: by this process, and by all others (None where that is unknown)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mine, self._all, self._began = time.process_time(), cpu_busy_seconds(root), time.perf_counter()

    def end(self) -> tuple[float, float | None]:
        seconds = time.perf_counter() - self._began
        mine, everybody = time.process_time() - self._mine, cpu_busy_seconds(self._root)
        if everybody is None or self._all is None:
            return mine / seconds, None
        return mine / seconds, max(0.0, everybody - self._all - mine) / seconds


def spend(networks: Stage, batch: int, seconds: float, root: Path) -> dict[str, Any]:
    """Joules of one window's inference: the networks of a hop, back to back and alone, after a second of idling."""
    with PowerMeter(root) as resting:
        time.sleep(min(1.0, seconds))
    count, until = 0, time.perf_counter() + seconds
    with PowerMeter(root) as meter:
        while count < 3 or time.perf_counter() < until:
            networks.work()
            count += batch
    power, rest = meter.result(), resting.result()
    joules = power.joules_per(count)
    above = None
    if joules is not None and rest.total is not None:
        above = joules - rest.total * power.seconds / count
    return {"inferences": count, "joules_per_inference": joules, "above_rest": above,
            "rest_watts": rest.total, "power": asdict(power)}  # fmt: skip


def _gpu_memory() -> float | None:
    """MB of GPU memory in use by all processes; None without a GPU."""
    try:
        from cuda.bindings import runtime

        status, free, total = runtime.cudaMemGetInfo()
    except (ImportError, RuntimeError):
        return None
    return (total - free) / 1e6 if int(status) == 0 else None


def main() -> None:
    answer = measure(Job(**json.load(sys.stdin)))
    print("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
