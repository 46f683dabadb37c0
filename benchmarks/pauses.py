"""How right a bundle is in windows that end in a pause in speech, against the others, on drawn people.

    python -m benchmarks.pauses OUT.json [BUNDLE...]    # demo bundles with a voice

Ten people of no training, 300 s each, steps as in a live run. The same windows in three ways: with what was heard
before a pause held (`clips.presence.held`), with the pause's step absent, and with the whole voice absent.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jmt_edge.clips.plan import HOP, plan_clips
from jmt_edge.engine.bundle import Bundle, load_bundle
from jmt_edge.training.clips import default_cache
from jmt_edge.training.data import cut_windows
from jmt_edge.training.evaluation import BundleScorer
from jmt_edge.training.experiment import TrainingOptions
from jmt_edge.training.sets import hash_seed
from jmt_edge.training.streams import simulated_cohort
from jmt_edge.training.uncertainty import Change, only, shown

from .common import ROOT, stamp, write

DEMOS = [ROOT / "jmt_edge" / "engine" / "bundles" / f"{name}-demo.jmt" for name in ("affect", "trimodal")]
PEOPLE, SECONDS = 10, 300.0
LEAD = 20.0  # s of these before the first window ends: the longest window
SEED = 9  # beside the bundle's
WANTED = 1.5  # times the error of the other windows


def report_pauses(bundle: Bundle) -> dict[str, Any]:
    plans = plan_clips(bundle.task, HOP)
    steps = tuple(replace(plan.m, pause="hold" if name == "voice" else plan.m.pause) for name, plan in plans.items())
    task = replace(bundle.task, modalities=steps)
    count = round((SECONDS - LEAD) / max(m.stride for m in task.modalities))
    seed = int(bundle.manifest["provenance"]["seed"]) + SEED
    cohort = simulated_cohort(task, subjects=PEOPLE, windows=count, seed=seed)
    windows = cut_windows(cohort, task)
    scorer = BundleScorer(bundle, cohort, TrainingOptions(cache=default_cache()), windows=windows)
    voice, newest = scorer.stores["voice"], windows.rows["voice"][:, -1]
    pause, usable = voice.pause[newest] & (newest >= 0), voice.present[newest] & (newest >= 0)
    report: dict[str, Any] = {
        "bundle": bundle.id,
        "people": PEOPLE,
        "pauses": int(pause.sum()),
        "others": int(usable.sum()),
    }
    everything = only(task.names, frozenset(task.names))
    for name, held, change in (
        ("held", True, everything), ("step absent", False, _as_it_is), ("voice absent", False, everything)
    ):  # fmt: skip
        scorer.stores["voice"] = voice if held else replace(voice, pause=np.zeros_like(voice.pause))
        p = scorer.predict(windows, change=change)
        report[name] = {}
        for o in ("valence", "arousal"):
            error = np.abs(shown(p, o) - p.labels[o][:, -1])
            found = _ratio(error, pause, usable, p.subject)
            report[name][o] = found
            print(f"{bundle.task.name:<9} {name:<13} {o:<8} {found}", flush=True)
    return report


_as_it_is: Change = lambda features, present: (features, present)  # noqa: E731


def _ratio(
    error: NDArray[np.float64], pause: NDArray[np.bool_], usable: NDArray[np.bool_], person: NDArray[np.str_]
) -> Mapping[str, float]:
    """Mean errors, and their ratio with its 95 % interval by subject."""
    own = [person == name for name in np.unique(person)]
    sums = np.array(
        [[error[w & k].sum() for k in (pause, usable)] + [(w & k).sum() for k in (pause, usable)] for w in own]
    )

    def ratio(rows: NDArray[np.float64]) -> float:
        total = rows.sum(0)
        return float((total[0] / total[2]) / (total[1] / total[3]))

    rng = np.random.default_rng(hash_seed(0))
    draws = [ratio(sums[rng.integers(0, len(sums), len(sums))]) for _ in range(1000)]
    low, high = np.percentile(draws, (2.5, 97.5))
    found = {
        "pause": error[pause].mean(), "others": error[usable].mean(), "ratio": ratio(sums), "low": low, "high": high,
    }  # fmt: skip
    return {key: round(float(value), 4) for key, value in found.items()}


def main(arguments: Sequence[str]) -> None:
    out, *paths = arguments
    started = stamp("python -m benchmarks.pauses")
    bundles = [load_bundle(path) for path in paths or DEMOS]
    write(Path(out), {**started, "wanted": WANTED, **{b.task.name: report_pauses(b) for b in bundles}})


if __name__ == "__main__":
    main(sys.argv[1:])
