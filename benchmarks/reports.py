"""Make the committed reports: `python -m benchmarks.reports [bench] [predictions] [here]` (all three by default).

bench: `jmt-edge bench --json` of the three demo bundles. predictions: full-size networks (random weights) on every
device of the roofline; nothing is measured. here: this machine's own prediction beside what it measures. All under
`benchmarks/results/`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jmt_edge.bench.machine import describe
from jmt_edge.bench.roofline import DEVICES, device, plot, prediction
from jmt_edge.engine.bundle import Bundle
from jmt_edge.tasks import TASK_NAMES, get_task

ROOT = Path(__file__).parent.parent
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
HOP, DURATION = 0.5, 15


def cli(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "jmt_edge", "bench", *arguments], check=True, cwd=ROOT)


@contextmanager
def full_size() -> Iterator[dict[str, Bundle]]:
    """Bundles of random weights at the papers' width."""
    from jmt_edge.engine.export import random_bundle

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
    stamp = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": describe(),
             "command": f"python -m benchmarks.reports {name}", "label": label}  # fmt: skip
    (RESULTS / f"{name}.json").write_text(json.dumps(stamp | content, indent=1) + "\n")


def main() -> None:
    wanted = sys.argv[1:] or ["bench", "predictions", "here"]
    RESULTS.mkdir(exist_ok=True)
    IMAGES.mkdir(exist_ok=True)
    if "bench" in wanted:
        for task in TASK_NAMES:
            cli("--task", task, "--duration", str(DURATION), "--json", str(RESULTS / f"bench-{task}.json"))
    if {"predictions", "here"} & set(wanted):
        with full_size() as bundles:
            if "predictions" in wanted:
                keep("predictions", "predictions by roofline, not measurements", rows=predictions(bundles))
            if "here" in wanted:
                keep("here", "prediction beside measurement", here=here(bundles))


if __name__ == "__main__":
    main()
