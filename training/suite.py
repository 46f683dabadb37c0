"""The ablation suite: every fusion, clean and disturbed, with all and with fewer subjects, and its cost.

Backbones are trained once per split and share of the subjects and used by all systems, so only the fusions differ.
Finished splits are read back: the same command then scores and reports without training.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from . import suite_report
from .comparison import paired
from .data import Cohort, re_paired
from .evaluation import RunScorer, disturbances, write_csv
from .experiment import Prepared, Result, TrainingOptions, make_splits, prepare, require_fit
from .networks import fusion_of
from .recipes import Recipe
from .scores import Predictions, Scores, score
from .search import run_splits
from .splits import fraction
from .suite_costs import measure
from .suite_findings import Findings, Table

SYSTEMS = ("concat", "vanilla", "jmt_no_joint", "jmt_no_joint_wide", "jmt", "jca", "rjcma")


def systems_of(recipe: Recipe) -> dict[str, Recipe]:
    """System name -> recipe: each modality alone, JMT on each pair of three, then every fusion on all of them."""
    names = recipe.modalities or recipe.resolve().names
    found = {m: _on(recipe, m, "unimodal", (m,)) for m in names}
    if len(names) > 2:
        for pair in itertools.combinations(names, 2):
            found[f"jmt_{'+'.join(pair)}"] = _on(recipe, f"jmt_{'+'.join(pair)}", "jmt", pair)
    for fusion in SYSTEMS:
        found[fusion] = _on(recipe, fusion, fusion, tuple(names))
    return found


def _on(recipe: Recipe, name: str, fusion: str, modalities: tuple[str, ...]) -> Recipe:
    stages = {k: v for k, v in recipe.stages.items() if k in modalities or k == "fusion"}
    backbone = {k: v for k, v in recipe.backbone.items() if k in modalities}
    return replace(
        recipe, name=f"{recipe.name}-{name}", fusion=fusion, modalities=modalities, stages=stages, backbone=backbone
    )


def run_suite(
    cohort: Cohort,
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    fractions: Sequence[float],
    systems: Sequence[str] = (),
    protocol: str = "holdout",
    command: str = "",
    re_pair: bool = False,
    options: TrainingOptions,
) -> Path:
    """Train and score all systems, reusing finished parts; returns the report's path.

    protocol: as in training; with folds, each subject is scored by the weights of the fold that tests it.
    re_pair: train and score on windows whose face and EDA are of different moments (`data.re_paired`), as a control.
    command: named in the report. Writes `report.html` and `.md` with plots, `suite.json` and `suite.csv`.
    """
    wanted = systems_of(recipe)
    unknown = [s for s in systems if s not in wanted]
    if unknown:
        raise ConfigError(f"unknown system '{unknown[0]}': choose among {', '.join(wanted)}")
    if not fractions or not all(0 < f <= 1 for f in fractions):
        raise ConfigError(f"--fractions {','.join(map(str, fractions))}: each must lie in (0, 1]")
    chosen = {k: v for k, v in wanted.items() if not systems or k in systems}
    for system in chosen.values():
        require_fit(cohort, system)
    splits = make_splits(cohort, protocol, seed=seed)
    results: dict[str, dict[str, Table]] = {}
    clean: dict[str, Predictions] = {}  # of the largest share
    trained: dict[str, tuple[int, int]] = {}
    total, done = len(fractions) * len(chosen), 0
    for share in fractions:
        parts = [fraction(s, share, seed=seed) if share < 1 else s for s in splits]
        trained[f"{share:g}"] = _fewest_most(len(s.train) for s in parts)
        for name, system in chosen.items():
            prepared = prepare(cohort, system, options)
            if re_pair and len(prepared.task.names) > 1:
                prepared = replace(prepared, windows=re_paired(prepared.windows))
            runs = run_splits(prepared, parts, out / f"{share:g}" / name, seed=seed, options=options)
            predictions = Predictions.join([r.predictions for r in runs])
            table = {"clean": score(predictions)} | _disturbed(prepared, runs, options)
            results.setdefault(f"{share:g}", {})[name] = table
            if share == max(fractions):
                clean[name] = predictions
            done += 1
            options.progress("suite", done, total)
    costs = {k: measure(fusion_of(r, r.resolve(), 0.0).eval(), r.resolve()) for k, r in chosen.items()}
    some = next(iter(clean.values()))
    found = Findings(
        recipe, chosen, results, {}, {}, costs, protocol, seed, len(set(some.subject.tolist())), len(some.end), trained,
        _fewest_most(len(s.validation) for s in splits),
        f"{cohort.root.name} ({cohort.layout}): {len(cohort.trials)} trials of {len(cohort.subjects)} subjects"
        + (", face and EDA re-paired within person and class" if re_pair else ""),
    )  # fmt: skip
    for metric in found.metrics():
        found.interval[metric], found.above[metric] = paired(
            clean, metric, [r for r in (found.best_single(metric), "jmt") if r in clean], seed=seed
        )
    _write(out, found, [s.to_dict() for s in splits])
    return suite_report.write(out, found, command)


def _fewest_most(counts: Iterable[int]) -> tuple[int, int]:
    values = list(counts)
    return min(values), max(values)


def _disturbed(prepared: Prepared, runs: Sequence[Result], options: TrainingOptions) -> Table:
    """Noise on each modality, and each modality missing, all folds together."""
    scorers = [(RunScorer(prepared, r.folder, options), r.split.test) for r in runs]

    def under(**change: Any) -> Scores:
        return score(Predictions.join([s.predict(s.windows.of(test), **change) for s, test in scorers]), draws=200)

    return {name: under(**change) for name, change in disturbances(prepared.task).items()}


def _plain(scores: Scores, condition: str) -> dict[str, Any]:
    """Scores for suite.json; those of single subjects for clean input only, to keep the file small."""
    data = scores.to_dict()
    return data if condition == "clean" else {k: v for k, v in data.items() if not k.startswith("subject")}


def _write(out: Path, found: Findings, splits: list[dict[str, Any]]) -> None:
    """suite.json (everything) and suite.csv (share, system, condition, metric, value, interval)."""
    data = {
        "recipe": found.recipe.to_dict(), "seed": found.seed, "protocol": found.protocol, "splits": splits,
        "training_subjects": found.trained, "validation_subjects": found.selected,
        "results": {
            f: {s: {c: _plain(v, c) for c, v in t.items()} for s, t in r.items()} for f, r in found.results.items()
        },
        "interval95": found.interval, "differences": found.above, "costs": {k: vars(c) for k, c in found.costs.items()},
    }  # fmt: skip
    (out / "suite.json").write_text(json.dumps(data, indent=1) + "\n")
    rows = (
        [share, system, condition, metric, value, *scores.interval.get(metric, ("", ""))]
        for share, systems in found.results.items()
        for system, table in systems.items()
        for condition, scores in table.items()
        for metric, value in scores.pooled.items()
    )
    write_csv(out / "suite.csv", ["share", "system", "condition", "metric", "value", "low95", "high95"], rows)
