"""Measures one bundle on one backend in several fresh processes, and combines their answers.

Reference workloads run in every round of every process. Changes in their speed between two runs come from the machine,
not the program, and `compare` takes them into account.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.backends import choose_engine
from ..engine.bundle import Bundle
from ..errors import ConfigError
from ..machine import PowerMeter, describe, rails
from .live import first_result
from .process import Job, fresh
from .stages import percentiles

SCHEMA = 3
PROCESSES = 5
NOISY = 0.10  # relative spread of the rounds of a reference workload
OTHERS = 0.25  # cores that other programs kept busy
ENERGY = 0.15  # share of the duration for the energy of the networks, where there are power rails


def head(schema: int, bundle: Bundle, machine: dict[str, Any]) -> dict[str, Any]:
    """The first entries of a report: its format, when and where it was made, and of what."""
    return {
        "schema": schema,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "bundle": bundle.id,
        "task": bundle.task.name,
        "variant": bundle.task.variant,
    }


def bench(
    bundle: Bundle,
    *,
    backend: str = "auto",
    batch: int = 1,
    duration: float = 20.0,
    hop: float = 0.5,
    threads: int | None = None,
    seed: int = 0,
    processes: int = PROCESSES,
    root: Path = Path("/"),
    on_step: Callable[[str, float], None] = lambda what, fraction: None,
) -> dict[str, Any]:
    """The report, as `--json` writes it. `duration` (s) is divided among processes, stages, live loop and rounds.

    root: where the machine's state is read from. Raises BackendError where the backend cannot run here, ConfigError
    for a setting out of range.
    """
    if not 1 <= batch <= 1024:
        raise ConfigError(f"a batch of {batch} is out of range; choose 1 to 1024")
    if not 2 <= duration <= 3600:
        raise ConfigError(f"a duration of {duration:g} s is out of range; choose 2 to 3600 s")
    if not 1 <= processes <= 100:
        raise ConfigError(f"{processes} processes are out of range; choose 1 to 100")
    machine = describe(root)  # before this measurement itself shows in the load
    on_step("first result of a fresh process", 0.0)
    first = first_result(bundle, backend, threads)
    engine, why = choose_engine(bundle, backend, threads)
    name = engine.name
    engine.close()
    cores = threads or machine["cores"]
    answers = []
    with PowerMeter(root) as meter:
        for number in range(processes):
            on_step(f"process {number + 1} of {processes}", number / processes)
            energy = ENERGY * duration if rails(root) and number == 0 else 0.0
            job = Job(str(bundle.path), name, batch, cores, hop, duration / processes, seed, energy, str(root))
            answers.append(fresh(job))
    board = meter.result()
    others = _mean([a["other_cores_busy"] for a in answers])
    spreads = {key: _spread([a["references"][key] for a in answers]) for key in answers[0]["references"]}
    live = _end_to_end([a["end_to_end"] for a in answers])
    per_hop = live["busy_ms_per_hop"]
    return {
        **head(SCHEMA, bundle, machine),
        "backend": name,
        "why": why,
        "precision": answers[0]["precision"],
        "batch": batch,
        "hop": hop,
        "threads": cores,
        "duration": duration,
        "processes": processes,
        "seed": seed,
        "stages": {key: _stage([a["stages"][key] for a in answers]) for key in answers[0]["stages"]},
        "end_to_end": live,
        "streams": int(hop * 1e3 // per_hop) if per_hop > 0 else 0,
        "cpu_cores_busy": _mean([a["cpu_cores_busy"] for a in answers]),
        "other_cores_busy": others,
        "peak_rss_mb": max(a["peak_rss_mb"] for a in answers),
        "gpu_memory_mb": answers[-1]["gpu_memory_mb"],
        "first_result_s": first,
        "board": asdict(board),
        "energy": answers[0]["energy"],
        "references": {key: [a["references"][key]["quick"] for a in answers] for key in spreads},
        "noise": {"reference_spread": spreads, "noisy": _noise(spreads, others, machine, board.throttled)},
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _stage(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Percentiles over all calls, results per second at the median, cores, and one quick value per process to compare
    by."""
    calls = [ms for part in parts for of_round in part["rounds"] for ms in of_round]
    return {
        "n": len(calls),
        **percentiles(calls),
        "per_second": float(parts[0]["items"] * 1e3 / np.median(calls)),
        "cores": float(np.median([part["cores"] for part in parts])),
        "processes": [part["quick"] for part in parts],
    }


def _end_to_end(parts: list[dict[str, Any]]) -> dict[str, Any]:
    calls = [ms for part in parts for ms in part["calls"]]
    return {
        "n": len(calls),
        **percentiles(calls or [np.nan]),
        "cores": float(np.median([part["cores"] for part in parts])),
        "processes": [part["quick"] for part in parts if part["calls"]],
        "real_time_factor": _mean([part["real_time_factor"] for part in parts]),
        "busy_ms_per_hop": float(np.mean(calls or [np.nan])),
        "cpu_cores_busy": _mean([part["cpu_cores_busy"] for part in parts]),
        "dropped": sum(part["dropped"] for part in parts),
        "from": "window end to result, computing time, simulated sensors",
    }


def _spread(parts: list[dict[str, Any]]) -> float:
    """Median absolute deviation of the rounds' medians, over their median."""
    values = np.array([np.median(calls) for part in parts for calls in part["rounds"]])
    middle = float(np.median(values))
    return float(np.median(np.abs(values - middle)) / middle) if middle else 0.0


def _noise(spreads: dict[str, float], others: float | None, machine: dict[str, Any], throttled: list[str]) -> list[str]:
    """One clause for each thing that makes this run's numbers unreliable."""
    reasons = [
        f"the reference workload '{key}' varied by {spread:.0%} between rounds"
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
        reasons.append(f"the board was throttled ({', '.join(throttled)}); cool it")
    return reasons
