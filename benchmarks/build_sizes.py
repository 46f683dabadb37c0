"""Time, memory and plan sizes of `calibrate` and `build`: full-size bundles, and INT8 of the demo bundles.

    python -m benchmarks.build_sizes --json build.json [--keep FOLDER]

Full-size `pain` and `affect` with random weights are calibrated on noise and built by TensorRT-RTX for another GPU;
`--precision auto` chooses for this CPU; each demo bundle is calibrated on simulated persons. Every step is the user's
command, in its own process. Exits 1 if INT8 plans take more than 30 % of float32's size, a build takes three minutes
or more, or a demo bundle's INT8 exceeds the limits. Takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.common import stamp, write
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.machine import versions
from jmt_edge.tasks import TASK_NAMES

FULL, TARGET = ("pain", "affect"), "sm_86"
SHARE, SECONDS = 0.30, 180.0
LIBRARIES = ("tensorrt-rtx", "onnxruntime", "openvino", "onnx", "torch")
# In a separate process, because the peak memory of this one would count as the commands'
EXPORT = """
from jmt_edge.compiler.export import random_bundle
from jmt_edge.machine import versions
from jmt_edge.tasks import get_task
random_bundle(get_task("{0}"), "{0}.jmt")
"""


class Commands:
    """Runs the command line as users do, and keeps each command, its time and its peak memory."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.ran = folder, dict[str, dict[str, Any]]()

    def __call__(self, name: str, *arguments: str) -> None:
        """Raises SystemExit with the command's message if it fails; exit code 1, beyond the limits, is a result."""
        words = [str(Path(a).relative_to(Path.cwd())) if a.startswith(str(Path.cwd())) else a for a in arguments]
        print(f"jmt-edge {' '.join(words)}", flush=True)
        began = time.perf_counter()
        cache = {"XDG_CACHE_HOME": str(self._folder / "cache")}  # without plans from earlier builds
        with subprocess.Popen(
            [sys.executable, "-m", "jmt_edge", *arguments],
            cwd=self._folder, env=os.environ | cache, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            said = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1) or "error:" in said:
            sys.exit(f"{' '.join(words)}: {said.strip()}")
        self.ran[name] = {
            "command": f"jmt-edge {' '.join(words)}",
            "exit": process.returncode,
            "seconds": round(time.perf_counter() - began, 1),
            "peak_memory_mb": round(used.ru_maxrss / 1024),
        }


def full_size(run: Commands, folder: Path, task: str) -> dict[str, Any]:
    """Plans in three precisions, and what this CPU's runtimes choose."""
    subprocess.run([sys.executable, "-c", EXPORT.format(task)], cwd=folder, check=True)
    run(f"calibrate {task}", "calibrate", f"{task}.jmt", "--windows", "16", "--out", f"{task}-cal.jmt")
    plans: dict[str, Any] = {}
    for precision in ("fp32", "fp16", "int8"):
        out = f"{task}-{precision}.jmt"
        how = ("--precision", precision, "--builder", "tensorrt-rtx", "--target", TARGET, "--windows", "1")
        run(f"build {precision} {task}", "build", f"{task}-cal.jmt", *how, "--out", out)
        engine = load_bundle(folder / out).manifest["engines"][f"tensorrt-rtx-{TARGET}"]["networks"]
        plans[precision] = {name: entry["bytes"] for name, entry in engine.items()}
        plans[precision]["all"] = sum(plans[precision].values())
    how = ("--precision", "auto", "--builder", "onnxruntime", "--windows", "4")
    run(f"auto {task}", "build", f"{task}-cal.jmt", *how, "--out", f"{task}-auto.jmt")
    chosen = load_bundle(folder / f"{task}-auto.jmt").manifest["engines"]["onnxruntime"]["timings"]
    share = plans["int8"]["all"] / plans["fp32"]["all"]
    return {"plan_bytes": plans, "int8_share_of_fp32": round(share, 4), "auto": _rounded(chosen)}


def demo(run: Commands, folder: Path, task: str) -> dict[str, Any]:
    """Scores in float32 and INT8 on simulated persons that no demo bundle was trained on."""
    out = f"{task}-demo-cal.jmt"
    run(f"calibrate demo {task}", "calibrate", str(demo_bundle(task)), "--windows", "1024", "--out", out)
    bundle = load_bundle(folder / out)
    report = json.loads(bundle.read("reports/calibration/calibration.json"))
    wanted = ("output", "score", "reference", "converted", "change", "low", "high", "limit")
    return {
        "scores": _rounded([{key: score[key] for key in wanted} for score in report["fidelity"]["scores"]]),
        "layers": {
            name: {"int8": len(network["int8"]), "given_back": len(network["given_back"])}
            for name, network in report["networks"].items()
        },
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def missed(result: dict[str, Any]) -> list[str]:
    """One sentence for each limit that was exceeded."""
    found = [
        f"{task}: INT8 plans take {100 * entry['int8_share_of_fp32']:.1f} % of float32's, {100 * SHARE:.0f} allowed"
        for task, entry in result["full_size"].items()
        if entry["int8_share_of_fp32"] > SHARE
    ]
    for name, entry in result["commands"].items():
        if name.startswith("build") and entry["seconds"] >= SECONDS:
            found.append(f"{name} took {entry['seconds']} s, {SECONDS:.0f} allowed")
        if name.startswith("calibrate demo") and entry["exit"]:
            found.append(f"{name}: INT8 is beyond the limits")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="a new folder for the bundles; removed at the end if not given")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True)
    stamped = stamp("python -m benchmarks.build_sizes")
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        run = Commands(folder)
        result = {
            **stamped,
            "what": "calibrate and build of full-size bundles with random weights, and INT8 of the demo bundles",
            "versions": versions(*LIBRARIES),
            "full_size": {task: full_size(run, folder, task) for task in FULL},
            "demo": {task: demo(run, folder, task) for task in TASK_NAMES},
            "commands": run.ran,
        }
    write(options.json, result)
    for sentence in missed(result):
        print(sentence)
    return 1 if missed(result) else 0


if __name__ == "__main__":
    sys.exit(main())
