"""Latency and memory against the size of the problem: `python -m benchmarks.cost [--hours H] [--only sweeps|length]`.

Latency and memory of the fusion against S, B and M, of the backbones against B and resolution (full size, random
weights, onnxruntime, one thread, each point in a fresh process without torch), and of the live loop against the
length of the run. Writes `benchmarks/results/cost.json` and `docs/images/performance-*.png`.

The long run is the pain demo with both sensors simulated, as fast as possible. So that an hour takes minutes, the
camera delivers 5 frames of 320x240 per second and the hop is 5 s; every part of the loop is used all the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import IMAGES, RESULTS, ROOT, stamp, write

S, B, M, SIZES = (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16), (2, 3), (64, 80, 112, 160)
MODALITIES = ("face", "voice", "eda")
HOP, CAMERA = 5.0, "sim:seed=900001&fps=5&size=320x240"


def point(path: str, shapes: dict[str, list[int]]) -> dict[str, float]:
    """In a fresh process: median milliseconds of a graph on random inputs, and the memory that it added (MB)."""
    from jmt_edge.bench.stages import Stage
    from jmt_edge.engine.session import session
    from jmt_edge.summary import peak_memory_mb

    rng = np.random.default_rng(0)
    before = peak_memory_mb()
    run = session(Path(path).read_bytes(), 1)
    feeds = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    if "present" in feeds:
        feeds["present"] = np.ones_like(feeds["present"])
    stage = Stage(lambda: run.run(None, feeds))
    stage.work()
    stage.measure(1.0)
    times = stage.rounds[0]
    q25, median, q75 = np.percentile(times, [25, 50, 75])
    return {"ms": float(median), "iqr_ms": float(q75 - q25), "mb": peak_memory_mb() - before, "n": len(times)}


def _fresh(path: Path, shapes: dict[str, list[int]]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.cost", "--point", str(path), json.dumps(shapes)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def sweeps(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every point of every sweep; the parent only exports graphs."""
    import onnx
    import torch

    from jmt_edge.compiler.export import backbone_graph
    from jmt_edge.models import build_model
    from jmt_edge.models.folding import fold
    from jmt_edge.models.fusion import JMT
    from jmt_edge.models.fusion_onnx import fusion_graph
    from jmt_edge.tasks import get_task

    torch.manual_seed(0)
    fusions = {}
    for m in M:
        fusions[m] = folder / f"fusion-{m}.onnx"
        onnx.save(fusion_graph(fold(JMT(MODALITIES[:m], 512, ("valence", "arousal")).eval())), str(fusions[m]))

    def fuse(m: int, b: int, s: int) -> dict[str, Any]:
        shapes = {name: [b, s, 512] for name in MODALITIES[:m]} | {"present": [b, s, m]}
        return {"M": m, "B": b, "S": s, **_fresh(fusions[m], shapes)}

    found = {"fusion against S": [fuse(m, 1, s) for m in M for s in S], "fusion against B": [fuse(2, b, 16) for b in B]}
    task = get_task("affect")
    model = build_model(task).eval()
    face, voice = task.modality("face"), task.modality("voice")
    against_size, graphs = [], {}
    for size in SIZES:
        shape = (*face.shape[:2], size, size)
        graphs[size] = folder / f"face-{size}.onnx"
        onnx.save(backbone_graph(model.backbones["face"], shape), str(graphs[size]))
        against_size.append({"size": size, "B": 1, **_fresh(graphs[size], {"clip": [1, *shape]})})
    found["face against resolution"] = against_size
    onnx.save(backbone_graph(model.backbones["voice"], voice.shape), str(folder / "voice.onnx"))
    found["face against B"] = [{"B": b, **_fresh(graphs[112], {"clip": [b, *face.shape]})} for b in B[:4]]
    found["voice against B"] = [{"B": b, **_fresh(folder / "voice.onnx", {"clip": [b, *voice.shape]})} for b in B]
    return found


def run_length(hours: float) -> dict[str, Any]:
    """Latency and resident memory of each simulated minute of one run of the live loop."""
    from jmt_edge.capture import open_source
    from jmt_edge.cli.live import demo_bundle
    from jmt_edge.engine.backends import open_engine
    from jmt_edge.engine.bundle import load_bundle
    from jmt_edge.live import Options, run
    from jmt_edge.observer import Observer
    from jmt_edge.result import Result

    minutes: list[dict[str, float]] = []
    totals: list[float] = []

    class Watch(Observer):
        def on_result(self, result: Result) -> None:
            if result.outputs is not None:
                totals.append(float(result.latency_ms["total"] or 0.0))
            if totals and result.t >= 60 * (len(minutes) + 1):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                minutes.append({
                    "minute": len(minutes) + 1, "p50": float(np.median(totals)),
                    "p25": float(np.percentile(totals, 25)), "rss_mb": pages * 4096 / 1e6, "n": len(totals),
                })  # fmt: skip
                totals.clear()

    bundle = load_bundle(demo_bundle("pain"))
    sources = {"face": open_source("face", CAMERA), "eda": open_source("eda", "sim:seed=900001")}
    began = time.perf_counter()
    summary = run(
        bundle, open_engine(bundle, "onnxruntime", 1), {k: v for k, v in sources.items() if v is not None},
        Options(HOP, False, hours * 3600), [Watch()],
    )  # fmt: skip
    return {
        "bundle": bundle.id, "hop": HOP, "camera": CAMERA, "hours": hours, "results": summary.results,
        "with_outputs": summary.with_outputs, "seconds": time.perf_counter() - began, "minutes": minutes,
        "flat": flat(minutes),
    }  # fmt: skip


def flat(minutes: list[dict[str, float]]) -> dict[str, float]:
    """Last third over second third of the run, for latency and memory: 1 is flat (the first third warms up)."""
    third = max(1, len(minutes) // 3)
    middle, last = minutes[third : 2 * third] or minutes, minutes[-third:]
    return {
        key: float(np.median([m[key] for m in last]) / np.median([m[key] for m in middle])) for key in ("p50", "rss_mb")
    }


def plot_sweeps(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    from matplotlib.figure import Figure

    axis = {"fusion against S": "S", "fusion against B": "B", "face against resolution": "size",
            "face against B": "B", "voice against B": "B"}  # fmt: skip
    figure = Figure(figsize=(3 * len(axis), 5), layout="constrained")
    panels = figure.subplots(2, len(axis))
    for column, (name, x) in enumerate(axis.items()):
        for row, (y, unit) in enumerate((("ms", "ms"), ("mb", "MB"))):
            for m in sorted({p.get("M", 0) for p in found[name]}):
                points = [p for p in found[name] if p.get("M", 0) == m]
                label = f"M = {m}" if m else None
                panels[row][column].plot([p[x] for p in points], [p[y] for p in points], "o-", label=label)
            panels[row][column].set(ylabel=unit, xlabel=x, ylim=(0, None))
            if any(p.get("M") for p in found[name]):
                panels[row][column].legend()
        panels[0][column].set_title(name, fontsize=10)
    figure.savefig(path, dpi=90)


def plot_length(found: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = [m["minute"] for m in found["minutes"]]
    left.plot(x, [m["p50"] for m in found["minutes"]])
    left.set(xlabel="minute of signal", ylabel="ms per window, median", ylim=(0, None))
    right.plot(x, [m["rss_mb"] for m in found["minutes"]])
    right.set(xlabel="minute of signal", ylabel="resident memory, MB", ylim=(0, None))
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--only", choices=["sweeps", "length"])
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(point(options.point[0], json.loads(options.point[1]))))
        return
    RESULTS.mkdir(exist_ok=True)
    IMAGES.mkdir(exist_ok=True)
    path = RESULTS / "cost.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for what in (options.only,) if options.only else ("sweeps", "length"):
        stamped = stamp(f"python -m benchmarks.cost --only {what}")
        if what == "sweeps":
            with tempfile.TemporaryDirectory() as folder:
                report[what] = {**stamped, "points": sweeps(Path(folder))}
            plot_sweeps(report[what]["points"], IMAGES / "performance-cost.png")
        else:
            report[what] = {**stamped, **run_length(options.hours)}
            plot_length(report[what], IMAGES / "performance-run-length.png")
        write(path, report)
        print(f"wrote {what} to {path}")


if __name__ == "__main__":
    main()
