"""Whether prediction sets and intervals keep their promise, what the what-ifs cost, and how right the bundles are.

    python -m benchmarks.uncertainty coverage OUT.json [BUNDLE...]    # demo bundles; about 10 min of a core each
    python -m benchmarks.uncertainty cost OUT.json [BUNDLE...]
    python -m benchmarks.uncertainty scores OUT.json [BUNDLE...]      # of the same people as the coverage

Coverage is measured on simulated people who were used for nothing before: not for training, not for the novelty limit,
not for the limits of the sets and intervals. `cost` runs each hop of the same signals twice, with novelty gate, sets,
intervals and what-ifs, and without any of these, in alternating order.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jmt_edge.capture import open_source
from jmt_edge.capture.base import State, Status
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import Bundle, load_bundle
from jmt_edge.live import Pipeline
from jmt_edge.media.chunk import Chunk
from jmt_edge.training.clips import default_cache
from jmt_edge.training.evaluation import BundleScorer
from jmt_edge.training.experiment import TrainingOptions
from jmt_edge.training.limits import CALIBRATION, other_people, predict_subsets
from jmt_edge.training.scores import score
from jmt_edge.training.uncertainty import coverage

from .common import ROOT, stamp, write

DEMOS = [ROOT / "jmt_edge" / "engine" / "bundles" / f"{name}-demo.jmt" for name in ("pain", "affect", "trimodal")]
TEST_SEED = 6  # beside the bundle's
PROMISED = (0.87, 0.93)
SECONDS, HOP = 40.0, 0.5
REPEATS = 3
MOST = 1.15  # p95 with, of that without


def measure_coverage(bundle: Bundle) -> list[dict[str, Any]]:
    known = bundle.uncertainty
    if known is None:
        raise SystemExit(f"{bundle.path} knows no uncertainty; run python -m jmt_edge.training.limits on it")
    cohort = other_people(bundle.task, int(bundle.manifest["provenance"]["seed"]) + TEST_SEED)
    found = predict_subsets(bundle, cohort, cache=default_cache())
    return [asdict(row) for row in coverage(known, found)]


def report_coverage(bundles: Sequence[Bundle]) -> dict[str, Any]:
    report: dict[str, Any] = {"promised": 0.9, "wanted": PROMISED}
    for bundle in bundles:
        rows = measure_coverage(bundle)
        people, windows = CALIBRATION[bundle.task.name]
        report[bundle.task.name] = {"bundle": bundle.id, "people": people, "windows_each": windows, "rows": rows}
        for row in rows:
            inside = PROMISED[0] <= row["found"] <= PROMISED[1]
            print(
                f"{bundle.task.name:<9} {'+'.join(row['present']):<15} {row['output']:<10} {row['found']:.3f} "
                f"({row['low']:.3f} to {row['high']:.3f}) size {row['size']:.2f}{'' if inside else '  OUTSIDE'}"
            )
    return report


def report_scores(bundles: Sequence[Bundle]) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for bundle in bundles:
        cohort = other_people(bundle.task, int(bundle.manifest["provenance"]["seed"]) + TEST_SEED)
        scorer = BundleScorer(bundle, cohort, TrainingOptions(cache=default_cache(), workers=1))
        found = score(scorer.predict(scorer.windows))
        report[bundle.task.name] = {"bundle": bundle.id, "windows": found.windows, **found.to_dict()}
        print(bundle.id, found.windows, found.pooled, found.interval)
    return report


class _Plain(Pipeline):
    """Without sets and intervals, and without what-ifs."""

    def _promise(self, *_: Any) -> None:
        return None

    def _leave_out(self, *_: Any) -> dict[str, dict[str, float]]:
        return {}


def report_cost(bundles: Sequence[Bundle]) -> dict[str, Any]:
    report: dict[str, Any] = {"seconds": SECONDS, "hop": HOP, "repeats": REPEATS, "wanted": MOST}
    for bundle in bundles:
        engine = open_engine(bundle, "onnxruntime", 1)
        signals = _signals(bundle)
        times: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}  # ms, ms of the processor
        hops = int(SECONDS / HOP) - 1
        for count in range(REPEATS * hops):
            i = count % hops + 1
            if i == 1:
                at, both = -1.0, {
                    "with": Pipeline(bundle, engine, HOP, signals, novelty="gate"),
                    "without": _Plain(bundle, engine, HOP, signals, novelty="off"),
                }  # fmt: skip
            t = i * HOP
            order = list(both) if count % 2 else list(both)[::-1]
            for name in order:
                busy = time.process_time()
                for modality, chunk in signals.items():
                    both[name].push(modality, _part(chunk, at, t))
                result = both[name].infer(i, dict.fromkeys(signals, Status(State.STREAMING)))
                busy = 1e3 * (time.process_time() - busy)
                if len(result.used) == len(bundle.task.names):
                    times[name].append((float(result.latency_ms["total"] or 0.0), busy))
            at = t
        engine.close()
        known = sorted({"uncertainty": bundle.uncertainty is not None, "novelty": bundle.has_novelty}.items())
        found: dict[str, Any] = {"bundle": bundle.id, "hops": len(times["with"]), **dict(known)}
        for column, clock in enumerate(("wall", "processor")):
            p = {name: np.percentile(np.array(ms)[:, column], (50, 95)) for name, ms in times.items()}
            ratio = (p["with"] / p["without"]).round(4).tolist()
            found[clock] = {**{f"{n}_ms": v.round(3).tolist() for n, v in p.items()}, "ratio": ratio}
            print(f"{bundle.task.name:<9} {clock}: p50, p95 in ms {found[clock]}", flush=True)
        report[bundle.task.name] = found
    return report


def _signals(bundle: Bundle) -> Mapping[str, Chunk]:
    """SECONDS of a simulated person, rendered before anything is timed."""
    found = {}
    for name in bundle.task.names:
        source = open_source(name, "sim:seed=3&size=320x240" if name == "face" else "sim:seed=3")
        assert source is not None
        source.open(0.0)
        chunk = source.read(SECONDS)
        values: Any = list(chunk.values) if name == "face" else chunk.values
        found[name] = Chunk(chunk.times, values, chunk.rate)
        source.close()
    return found


def _part(chunk: Chunk, start: float, stop: float) -> Chunk:
    first, last = np.searchsorted(chunk.times, (start, stop), side="right")
    return Chunk(chunk.times[first:last], chunk.values[first:last], chunk.rate)


def main(arguments: Sequence[str]) -> None:
    what, out, *paths = arguments
    measure = {"coverage": report_coverage, "cost": report_cost, "scores": report_scores}[what]
    started = stamp(f"python -m benchmarks.uncertainty {what}")
    bundles = [load_bundle(path) for path in paths or DEMOS]
    write(Path(out), {**started, **measure(bundles)})


if __name__ == "__main__":
    main(sys.argv[1:])
