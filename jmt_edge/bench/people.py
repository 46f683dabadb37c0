"""How many people one process sustains here: `jmt-edge live` in real time, with one person more each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.bundle import Bundle
from ..errors import ConfigError, UserError
from ..live.loop import MAX_HOP, MIN_HOP
from ..machine import describe
from ..tasks import OPTIONS
from .measure import head

SCHEMA = 1
SEED = 900001  # of the first simulated person, as in the other measurements


def count_people(
    bundle: Bundle,
    most: int,
    *,
    seconds: float = 60.0,
    backend: str = "auto",
    hop: float = 0.5,
    threads: int | None = None,
    on_step: Callable[[str, float], None] = lambda what, fraction: None,
) -> dict[str, Any]:
    """The report, as `--json` writes it: rows for 1, 2, ... people, up to `most` or the first that dropped a window.

    `sustained` is the last number of people without a dropped window. Each row is a fresh process that runs `seconds`
    of signal in real time, with every sensor simulated. Raises ConfigError for a setting out of range, UserError where
    a run failed.
    """
    if not MIN_HOP <= hop <= MAX_HOP:
        raise ConfigError(f"a hop of {hop:g} s is out of range; choose {MIN_HOP:g} to {MAX_HOP:g} s")
    shortest = bundle.task.window + 4 * hop
    if not shortest <= seconds <= 3600:
        raise ConfigError(f"{seconds:g} seconds are out of range; choose {shortest:g} to 3600 for '{bundle.task.name}'")
    machine = describe()  # before this measurement itself shows in the load
    rows: list[dict[str, Any]] = []
    engine = ""
    for n in range(1, most + 1):
        on_step(f"{n} of at most {most} people", (n - 1) / most)
        row, engine = run_people(bundle, n, seconds, backend, hop, threads)
        rows.append(row)
        if row["dropped"]:
            break
    return {
        **head(SCHEMA, bundle, machine),
        "engine": engine,
        "hop": hop,
        "threads": threads or machine["cores"],
        "seconds": seconds,
        "most": most,
        "people": rows,
        "sustained": max((row["people"] for row in rows if not row["dropped"]), default=0),
    }


def people_flags(bundle: Bundle, n: int) -> list[str]:
    """`--person` of `n` people whose every sensor is simulated."""
    flags = []
    for i in range(n):
        sources = ",".join(f"{OPTIONS[name]}=sim:seed={SEED + i}" for name in bundle.task.names)
        flags += ["--person", f"p{i + 1}:{sources}"]
    return flags


def run_people(
    bundle: Bundle, n: int, seconds: float, backend: str, hop: float, threads: int | None
) -> tuple[dict[str, Any], str]:
    """One run of `n` people: (its row, the line that names the engine)."""
    command = [
        sys.executable, "-m", "jmt_edge", "live", "--bundle", str(bundle.path), "--output", "jsonl", "--backend",
        backend, "--hop", str(hop), "--duration", str(seconds), *people_flags(bundle, n),
    ]  # fmt: skip
    if threads:
        command += ["--threads", str(threads)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JMT_EDGE_LIVE_")}
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out.jsonl", Path(folder) / "err.txt"
        began = time.monotonic()
        with out.open("wb") as results, err.open("wb") as said:
            process = subprocess.Popen(command, stdout=results, stderr=said, env=clean)
            try:
                _, status, used = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
        lines = err.read_text(errors="replace").splitlines()
        if process.returncode:
            raise UserError(
                f"the run of {n} people failed ({lines[-1] if lines else process.returncode}); run it alone"
            )
        busy = (used.ru_utime + used.ru_stime) / wall
        return row_of(out.read_text().splitlines(), n, busy, used.ru_maxrss), lines[0].rpartition(", ")[0]


def row_of(results: list[str], n: int, busy: float, rss: int) -> dict[str, Any]:
    """A row of the report from a run's JSON lines: latencies in ms over all results, `worst_p95` of the person with the
    highest.

    busy: cores. rss: KiB.
    """
    totals: dict[str, list[float]] = {}
    dropped: dict[str, int] = {}
    with_outputs = 0
    for line in results:
        result = json.loads(line)
        totals.setdefault(result["person"], []).append(result["latency_ms"]["total"])
        dropped[result["person"]] = result["dropped"]
        with_outputs += result["outputs"] is not None
    if len(totals) != n:
        raise UserError(f"{n - len(totals)} of {n} people have no result; give more --seconds, or fewer --people")
    everything = np.concatenate([np.array(values) for values in totals.values()])
    return {
        "people": n,
        "results": len(results),
        "with_outputs": with_outputs,
        "dropped": sum(dropped.values()),
        **{f"p{q}": round(float(np.percentile(everything, q)), 1) for q in (50, 95, 99)},
        "worst_p95": round(max(float(np.percentile(values, 95)) for values in totals.values()), 1),
        "cpu_cores_busy": round(busy, 2),
        "peak_rss_mb": round(rss * 1024 / 1e6),
    }
