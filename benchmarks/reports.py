"""Make the committed reports: `python -m benchmarks.reports`.

`jmt-edge bench --json` of the three demo bundles, predictions of full-size networks (random weights) for every device,
and this machine's own prediction beside what it measures; all under `benchmarks/results/`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jmt_edge.bench.machine import describe
from jmt_edge.bench.roofline import DEVICES, device, plot, prediction
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.tasks import TASK_NAMES, get_task

ROOT = Path(__file__).parent.parent
RESULTS, IMAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
HOP, DURATION = 0.5, 15


def cli(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "jmt_edge", "bench", *arguments], check=True, cwd=ROOT)


def main() -> None:
    RESULTS.mkdir(exist_ok=True)
    IMAGES.mkdir(exist_ok=True)
    for task in TASK_NAMES:
        cli("--task", task, "--duration", str(DURATION), "--json", str(RESULTS / f"bench-{task}.json"))
    from jmt_edge.engine.export import random_bundle

    report: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": "python -m benchmarks.reports",
        "machine": describe(),
        "label": "predictions by roofline, not measurements",
        "rows": [],
        "here": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for task in TASK_NAMES:
            path = Path(folder) / f"{task}.jmt"
            random_bundle(get_task(task), path)
            bundle = load_bundle(path)
            for name in DEVICES:
                for precision in ("fp16", "int8"):
                    # the fusion stays fp16: at batch 1 its weights are all there is, and they are small
                    table = dict.fromkeys(bundle.networks, precision) | {"fusion": "fp16"}
                    found = prediction(bundle, device(name), table, HOP)
                    if (task, name, precision) == ("affect", "orin-nano", "fp16"):
                        (IMAGES / "performance-roofline.png").write_bytes(plot(found))
                    found.pop("layers")
                    report["rows"].append({"task": task, "target": name, **found})
            here = Path(folder) / "here.json"
            cli(str(path), "--predict", "here", "--threads", str(len(os.sched_getaffinity(0))), "--json", str(here))
            found = json.loads(here.read_text())
            found.pop("layers")
            report["here"][task] = found
    (RESULTS / "predictions.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
