"""What a live run costs, beside an earlier build: latency in real time, and processor time per second of signal.

    python -m benchmarks.live_limit [--beside PYTHON] [--seconds 120] [--json FILE]

PYTHON is the interpreter of an environment with another build. Each case runs `jmt-edge live` for so many seconds of
signal, the builds one after the other: the demo bundles on simulations in real time, and on the same simulations
recorded as files. Full-size `pain` and `affect` with random weights run with this build alone, by `--backend auto`.
Takes a quarter of an hour with two builds; only the ratios within one file compare.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import stamp, write
from jmt_edge.tasks import OPTIONS

EXPORT = """
from jmt_edge.compiler.export import random_bundle
from jmt_edge.tasks import get_task
random_bundle(get_task("{0}"), "{0}.jmt")
"""


def run(python: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """One `jmt-edge live`: latencies of its windows (ms), processor time, memory (MB), and what it dropped."""
    command = [python, "-m", "jmt_edge", "live", "--output", "jsonl", *arguments]
    began = time.monotonic()
    with (folder / "out.jsonl").open("wb") as out, (folder / "err.txt").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
    said = (folder / "err.txt").read_text()
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}: {said}")
    results = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    total = np.array([r["latency_ms"]["total"] for r in results])
    percentiles = {f"p{q}": round(float(np.percentile(total, q)), 1) for q in (50, 95, 99)}
    return {
        **percentiles, "results": len(results), "with_outputs": sum(r["outputs"] is not None for r in results),
        "dropped": results[-1]["dropped"], "cpu_s_per_s": round((used.ru_utime + used.ru_stime) / results[-1]["t"], 3),
        "peak_mb": used.ru_maxrss // 1024, "seconds": round(time.monotonic() - began, 1),
        "engine": said.splitlines()[0],
    }  # fmt: skip


def files(folder: Path, seconds: float) -> dict[str, str]:
    """The trimodal simulation, recorded: modality -> file."""
    record = folder / "recorded"
    run(sys.executable, [
        "--task", "trimodal", "--duration", str(seconds), "--speed", "max", "--record", str(record),
        "--record-raw", "face,voice,eda",
    ], folder)  # fmt: skip
    found = {"voice": record / "voice.wav", "eda": record / "eda.csv"}
    found["face"] = next(path for path in sorted(record.iterdir()) if path.suffix in (".mkv", ".mp4", ".avi"))
    return {name: str(path) for name, path in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", metavar="PYTHON", help="the interpreter of another build's environment")
    parser.add_argument("--seconds", type=float, default=120.0, help="of signal in each run")
    parser.add_argument("--json", type=Path, default=Path("live-limit.json"))
    args = parser.parse_args()
    report = stamp("python -m benchmarks.live_limit")
    builds = {"this": sys.executable} | ({"beside": args.beside} if args.beside else {})
    cases: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recorded = files(folder, args.seconds)
        given = [part for name, file in recorded.items() for part in ("--" + OPTIONS[name], file)]
        length = ["--duration", str(args.seconds)]
        for case, arguments in {
            "trimodal, simulated": ["--task", "trimodal", *length],
            "trimodal, files": ["--task", "trimodal", *given, *length],
            "pain, simulated": ["--task", "pain", *length],
        }.items():
            cases[case] = {build: run(python, arguments, folder) for build, python in builds.items()}
            print(case, json.dumps(cases[case]), flush=True)
        for task in ("pain", "affect"):
            subprocess.run([sys.executable, "-c", EXPORT.format(task)], check=True, cwd=folder, capture_output=True)
            arguments = ["--bundle", f"{task}.jmt", "--duration", str(args.seconds / 2)]
            run(sys.executable, arguments[:2] + ["--duration", "6"], folder)  # `auto` chooses
            cases[f"{task}, full size"] = {"this": run(sys.executable, arguments, folder)}
            print(task, json.dumps(cases[f"{task}, full size"]), flush=True)
    write(args.json, {**report, "seconds": args.seconds, "cases": cases})


if __name__ == "__main__":
    main()
