"""Measure one bundle on one backend: every stage in turn, round after round, so that drift hits all alike.

Two reference workloads run in every round, on one core and on all. What they gain or lose between two runs is the
machine, not the program, and `compare` takes it into account.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.backends import choose_engine
from ..engine.bundle import Bundle
from ..errors import ConfigError
from ..live.summary import peak_memory_mb
from .live import first_result, live_loop
from .machine import PowerMeter, cpu_busy_seconds, describe, rails
from .stages import Stage, make_references, make_stages, quick

SCHEMA = 2
ROUNDS = 20
NOISY = 0.10  # relative spread of the rounds of a reference workload
OTHERS = 0.25  # cores that other programs kept busy
ENERGY = 0.15  # share of the duration for the energy of the networks, where there are power rails


def bench(
    bundle: Bundle,
    *,
    backend: str = "auto",
    batch: int = 1,
    duration: float = 30.0,
    hop: float = 0.5,
    threads: int | None = None,
    seed: int = 0,
    root: Path = Path("/"),
    on_step: Callable[[str, float], None] = lambda what, fraction: None,
) -> dict[str, Any]:
    """The report, as `--json` writes it. `duration` (s) is shared out over stages, live loop and rounds.

    root: where the machine's state is read from. Raises BackendError where the backend cannot run here, ConfigError
    for a batch or duration out of range.
    """
    if not 1 <= batch <= 1024:
        raise ConfigError(f"a batch of {batch} is out of range; choose 1 to 1024")
    if not 2 <= duration <= 3600:
        raise ConfigError(f"a duration of {duration:g} s is out of range; choose 2 to 3600 s")
    machine = describe(root)  # before our own work shows in the load
    on_step("first result of a fresh process", 0.0)
    first = first_result(bundle, backend, threads)
    engine, why = choose_engine(bundle, backend, threads)
    precision, name = dict(engine.precision), engine.name
    cores = threads or machine["cores"]
    stages = make_stages(bundle.task, engine, batch, np.random.default_rng(seed))
    references = make_references(cores)
    everything = {**references, **stages}
    for stage in everything.values():
        for _ in range(3):
            stage.work()
    share = 0.6 * duration / ROUNDS / len(everything)
    span = _Span(root)
    with PowerMeter(root) as meter:
        for number in range(ROUNDS):
            for what, stage in everything.items():
                on_step(what, number / ROUNDS)
                stage.measure(share)
    busy, others = span.end()
    board = meter.result()
    energy = None
    if rails(root):
        on_step("energy", 1.0)
        energy = _energy(stages["networks"], batch, ENERGY * duration, root)
    on_step("live loop", 1.0)
    live = _live(bundle, engine, hop, 0.4 * duration, references, share)
    per_hop = live["busy_ms_per_hop"]
    spreads = {key: _spread(stage.rounds[:ROUNDS]) for key, stage in references.items()}
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "bundle": bundle.id,
        "task": bundle.task.name,
        "variant": bundle.task.variant,
        "backend": name,
        "why": why,
        "precision": precision,
        "batch": batch,
        "hop": hop,
        "threads": cores,
        "duration": duration,
        "seed": seed,
        "stages": {key: stage.summary() for key, stage in stages.items()},
        "end_to_end": live,
        "streams": int(hop * 1e3 // per_hop) if per_hop > 0 else 0,
        "cpu_cores_busy": busy,
        "other_cores_busy": others,
        "peak_rss_mb": peak_memory_mb(),
        "gpu_memory_mb": _gpu_memory(),
        "first_result_s": first,
        "board": board.to_dict(),
        "energy": energy,
        "references": {key: quick(stage.rounds[:ROUNDS]) for key, stage in references.items()},
        "noise": {"reference_spread": spreads, "noisy": _noise(spreads, others, machine, board.throttled)},
    }


class _Span:
    """Cores kept busy from now to `end`: by this process, and by all others (None where the system does not say)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mine, self._all, self._began = _cpu_seconds(), cpu_busy_seconds(root), time.perf_counter()

    def end(self) -> tuple[float, float | None]:
        seconds = time.perf_counter() - self._began
        mine, everybody = _cpu_seconds() - self._mine, cpu_busy_seconds(self._root)
        if everybody is None or self._all is None:
            return mine / seconds, None
        return mine / seconds, max(0.0, everybody - self._all - mine) / seconds


def _live(
    bundle: Bundle, engine: Any, hop: float, seconds: float, references: dict[str, Stage], share: float
) -> dict[str, Any]:
    """`live_loop` between two rounds of the references, which stand for the machine during all of it."""
    for stage in references.values():
        stage.measure(share)
    span = _Span(Path("/"))
    live = live_loop(bundle, engine, hop, seconds)
    live["cpu_cores_busy"], _ = span.end()
    for stage in references.values():
        stage.measure(share)
    live["references"] = {key: float(np.mean(quick(stage.rounds[-2:]))) for key, stage in references.items()}
    return live


def _energy(networks: Stage, batch: int, seconds: float, root: Path) -> dict[str, Any]:
    """Joules of one window's inference: the networks of a hop, back to back and alone, after a second of rest."""
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
            "rest_watts": rest.total, "power": power.to_dict()}  # fmt: skip


def _spread(rounds: list[list[float]]) -> float:
    """Median absolute deviation of the rounds, over their median."""
    values = np.asarray(quick(rounds))
    middle = float(np.median(values))
    return float(np.median(np.abs(values - middle)) / middle) if middle else 0.0


def _noise(spreads: dict[str, float], others: float | None, machine: dict[str, Any], throttled: list[str]) -> list[str]:
    """One clause for each thing that makes this run's numbers doubtful."""
    reasons = [
        f"the reference workload on {key} varied by {spread:.0%} between rounds"
        for key, spread in spreads.items()
        if spread > NOISY
    ]
    if others is not None and others > OTHERS:
        reasons.append(f"other programs kept {others:.2f} of {machine['cores']} cores busy")
    if machine["load"] is not None and machine["load"] > machine["cores"] + 0.5:
        reasons.append(f"load average {machine['load']:.1f} on {machine['cores']} cores before the run")
    if machine["governor"] not in ("performance", "not readable"):
        reasons.append(f"CPU governor is '{machine['governor']}'; set it to performance")
    if throttled:
        reasons.append(f"the board throttled itself ({', '.join(throttled)}); cool it")
    return reasons


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _gpu_memory() -> float | None:
    """MB in use on the GPU, by the whole machine; None without one."""
    try:
        from cuda.bindings import runtime

        status, free, total = runtime.cudaMemGetInfo()
    except (ImportError, RuntimeError):
        return None
    return (total - free) / 1e6 if int(status) == 0 else None
