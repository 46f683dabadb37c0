"""Make the committed reports of `docs/reference/performance.md` and `benchmarks/NOTES.md`.

`python -m benchmarks.reports [STEP ...]`, all steps by default:

    bench        `jmt-edge bench --json` of the three demo bundles
    predictions  full-size networks (random weights) on every device of the roofline; nothing is measured
    here         this machine's own prediction beside what it measures
    cost         latency and memory against S, B, M, resolution and run length
    suite        `make bench`
    regression   false alarms of `bench --compare`, and slower stages found

Each step writes to `benchmarks/results/` and prints how long it took; at the end the tables of both pages are updated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import IMAGES, RESULTS, ROOT, stamp, write
from jmt_edge.bench.roofline import DEVICES, device, plot, prediction
from jmt_edge.engine.bundle import Bundle
from jmt_edge.tasks import TASK_NAMES, get_task

HOP, DURATION = 0.5, 15


def cli(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "jmt_edge", "bench", *arguments], check=True, cwd=ROOT)


@contextmanager
def full_size() -> Iterator[dict[str, Bundle]]:
    """Bundles of random weights at the papers' width."""
    from jmt_edge.compiler.export import random_bundle

    with tempfile.TemporaryDirectory() as folder:
        yield {task: random_bundle(get_task(task), Path(folder) / f"{task}.jmt") for task in TASK_NAMES}


def predictions(bundles: dict[str, Bundle]) -> list[dict[str, Any]]:
    """One row for each task, device and precision, without the single layers."""
    rows = []
    for task, bundle in bundles.items():
        for name in DEVICES:
            for precision in ("fp16", "int8"):
                # the fusion stays fp16: at batch 1 its weights are all there is, and they are small
                table = dict.fromkeys(bundle.networks, precision) | {"fusion": "fp16"}
                found = prediction(bundle, device(name), table, HOP)
                if (task, name, precision) == ("affect", "orin-nano", "fp16"):
                    (IMAGES / "performance-roofline.png").write_bytes(plot(found))
                found.pop("layers")
                rows.append({"task": task, "target": name, **found})
    return rows


def here(bundles: dict[str, Bundle]) -> dict[str, Any]:
    """Predicted and measured milliseconds of each network on this machine, all cores."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for task, bundle in bundles.items():
            path = Path(folder) / f"{task}.json"
            threads = str(len(os.sched_getaffinity(0)))
            cli(str(bundle.path), "--predict", "here", "--threads", threads, "--json", str(path))
            found[task] = json.loads(path.read_text())
            found[task].pop("layers")
    return found


def keep(name: str, label: str, **content: Any) -> None:
    write(RESULTS / f"{name}.json", {**stamp(f"python -m benchmarks.reports {name}"), "label": label, **content})


def module(name: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", f"benchmarks{name}", *arguments], cwd=ROOT).returncode


def make_bench() -> None:
    for task in TASK_NAMES:
        cli("--task", task, "--duration", str(DURATION), "--json", str(RESULTS / f"bench-{task}.json"))


def make_predictions() -> None:
    with full_size() as bundles:
        keep("predictions", "predictions by roofline, not measurements", rows=predictions(bundles))


def make_here() -> None:
    with full_size() as bundles:
        keep("here", "prediction beside measurement", here=here(bundles))


STEPS: dict[str, Callable[[], object]] = {
    "bench": make_bench,
    "predictions": make_predictions,
    "here": make_here,
    "cost": lambda: module(".cost"),
    "suite": lambda: module("", "--keep"),
    "regression": lambda: module(".no_false_regression", "--json", str(RESULTS / "no-false-regression.json")),
}


def main() -> None:
    wanted = sys.argv[1:] or list(STEPS)
    if unknown := set(wanted) - set(STEPS):
        sys.exit(f"no step {', '.join(sorted(unknown))}; choose from {', '.join(STEPS)}")
    RESULTS.mkdir(exist_ok=True)
    IMAGES.mkdir(exist_ok=True)
    failed = []
    for name in wanted:
        began = time.monotonic()
        if STEPS[name]():  # an exit code; the report is written anyway
            failed.append(name)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    module(".tables")
    sys.exit(f"{', '.join(failed)} ended with an error" if failed else 0)


if __name__ == "__main__":
    main()
