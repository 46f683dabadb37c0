"""What a bundle knows of people who were not trained on: novelty densities, the uncertainty of its results, and how far
noise that nobody can see moves them.

`python -m jmt_edge.training.limits BUNDLE...` finds all three for demo bundles, whose people can be simulated again;
bundles of other data get theirs when they are exported (`experiment.export_run`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..clips.plan import HOP
from ..engine.bundle import Bundle, load_bundle, write_bundle
from ..engine.novelty import FILE, Novelty, save_novelty
from ..engine.uncertainty import Uncertainty
from ..errors import ConfigError
from ..tasks import Task
from .clips import build_clips, default_cache
from .data import Cohort, cut_windows
from .novelty import fit_windows
from .streams import simulated_cohort
from .uncertainty import Subsets, fit_uncertainty, only, promised, subsets

if TYPE_CHECKING:
    from .sensitivity import Sensitivity

# training people, people of the limit, windows of each; a sequence's windows share their clips
PEOPLE = {"pain": (27, 40, 4), "affect": (40, 40, 1), "trimodal": (40, 40, 2)}
HELD_OUT_SEED = {"pain": 2, "affect": 1, "trimodal": 1}  # beside the training's: other people
# people and windows of each that the uncertainty comes from, and the seed beside the training's. Which people they are
# moves the coverage found for others: by about 0.02 for 150 people with 8 windows, 0.03 for 100 with one, 0.01 for 1200
CALIBRATION = {"pain": (150, 8), "affect": (1200, 1), "trimodal": (300, 2)}
CALIBRATION_SEED = 5
SENSITIVITY_SEED = 8


def add_to_demo(path: Path, *, cache: Path, workers: int = 1) -> Bundle:
    """Fit what a demo bundle knows of other people, and write the bundle with it.

    Raises ConfigError for a bundle whose people cannot be simulated again.
    """
    bundle = load_bundle(path)
    seed = _seed(bundle)
    densities = _densities(bundle, seed, cache, workers)
    cohort = other_people(bundle.task, seed + CALIBRATION_SEED)
    uncertainty = fit_uncertainty(predict_subsets(bundle, cohort, cache=cache, workers=workers))
    return with_limits(bundle, densities, uncertainty, _sensitivity(bundle, seed, cache, workers))


def other_people(task: Task, seed: int) -> Cohort:
    """The people of `CALIBRATION`, simulated from `seed`.

    Without windows that end on the grid of a live run: their clips would be cut after a live run up to there, which
    takes minutes for one window in 500.
    """
    people, windows = CALIBRATION[task.name]
    cohort = simulated_cohort(task, subjects=people, windows=windows, seed=seed)
    trials = [replace(t, ends=tuple(e for e in t.ends if abs(e / HOP - round(e / HOP)) > 1e-6)) for t in cohort.trials]
    return replace(cohort, trials=trials)


def _seed(bundle: Bundle) -> int:
    provenance = bundle.manifest["provenance"]
    if not bundle.demo or provenance.get("data", {}).get("layout") != "simulated":
        raise ConfigError(f"{bundle.path} was not trained on simulated people; export it again from its run")
    return int(provenance["seed"])


def _densities(bundle: Bundle, seed: int, cache: Path, workers: int) -> dict[str, Novelty]:
    from .demo import SIZE  # which trains, and so imports this module

    fitted, judged, windows = PEOPLE[bundle.task.name]
    everyone = simulated_cohort(bundle.task, subjects=SIZE[bundle.task.name][0], windows=windows, seed=seed)
    people = set(bundle.manifest["provenance"]["split"]["train_subjects"][:fitted])
    others = seed + HELD_OUT_SEED[bundle.task.name]
    cohorts = [
        replace(everyone, trials=[trial for trial in everyone.trials if trial.subject in people]),
        simulated_cohort(bundle.task, subjects=judged, windows=windows, seed=others),
    ]
    tables = [cut_windows(cohort, bundle.task) for cohort in cohorts]
    stores = [build_clips(t, cache, c.problems, workers=workers) for t, c in zip(tables, cohorts)]
    return fit_windows(bundle.task, tables[0], tables[1], (stores[0], stores[1]))


def _sensitivity(bundle: Bundle, seed: int, cache: Path, workers: int) -> Sensitivity:
    from . import sensitivity  # imports this module through `experiment`
    from .experiment import TrainingOptions

    cohort = simulated_cohort(
        bundle.task, subjects=sensitivity.PEOPLE, windows=sensitivity.WINDOWS, seed=seed + SENSITIVITY_SEED
    )
    return sensitivity.measure(bundle, cohort, TrainingOptions(cache=cache, workers=workers))


def predict_subsets(bundle: Bundle, cohort: Cohort, *, cache: Path, workers: int = 1) -> Subsets:
    """The bundle's predictions for a cohort from each set of modalities, by the engine that `live` uses, of the windows
    whose sets and intervals it shows.
    """
    from .evaluation import BundleScorer  # imports this module through `experiment`
    from .experiment import TrainingOptions

    scorer = BundleScorer(bundle, cohort, TrainingOptions(cache=cache, workers=workers))
    names, windows = bundle.task.names, scorer.windows
    found = {some: scorer.predict(windows, change=only(names, some)) for some in subsets(names)}
    return {some: promised(p, windows, scorer.stores, some) for some, p in found.items()}


def with_limits(
    bundle: Bundle,
    densities: Mapping[str, Novelty],
    uncertainty: Uncertainty | None,
    sensitivity: Sensitivity | None = None,
) -> Bundle:
    """Write `bundle` again with these densities, uncertainty and sensitivity; the networks stay as they are."""
    manifest = {k: v for k, v in bundle.manifest.items() if k not in ("novelty", "uncertainty", "sensitivity")}
    # in memory: `write_bundle` replaces the folder that they lie in
    files = {name: file.read() for name, file in bundle.files.items() if name != FILE}
    if densities:
        manifest["novelty"] = {"file": FILE}
        files[FILE] = save_novelty(densities)
    if uncertainty is not None:
        manifest["uncertainty"] = uncertainty.to_manifest()
    if sensitivity is not None and sensitivity.outputs:
        manifest["sensitivity"] = sensitivity.to_manifest()
    return write_bundle(bundle.path, manifest, files, overwrite=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Novelty densities, uncertainty and sensitivity of demo bundles.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="clips; default: $JMT_EDGE_CACHE")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    for path in given.bundles:
        print(add_to_demo(path, cache=given.cache, workers=given.workers).id)


if __name__ == "__main__":
    main()
