"""Folds and grids: many runs, resumable, spread over processes through Optuna's storage, one table at the end.

Optuna rather than Ray: a grid of independent runs needs a list of trials that several processes (or machines that
share a folder) take from, and nothing that must keep running between them. `--out` on a shared folder and the same
command on each machine is all there is to it. Each trial's own work is found again from the run's folder.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from .data import Cohort
from .experiment import Options, Prepared, Result, export_run, exportable, make_splits, prepare, run_split
from .published import beside
from .recipes import Recipe, from_dict
from .scores import Predictions, Scores, score
from .splits import Split

Grid = dict[str, list[str]]


def parse_grid(texts: Sequence[str]) -> Grid:
    """`lr=1e-3,1e-4` -> {"lr": ["1e-3", "1e-4"]}. Raises ConfigError where it is not that."""
    grid: Grid = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key or not all(v.strip() for v in values.split(",")):
            raise ConfigError(f"--grid '{text}' is not key=value,value; write for example lr=8e-4,6e-4,3e-4")
        grid[key] = [v.strip() for v in values.split(",")]
    return grid


def run_protocol(
    cohort: Cohort,
    recipe: Recipe,
    out: Path,
    *,
    protocol: str,
    grid: Sequence[str],
    seed: int,
    options: Options,
    overwrite: bool = False,
) -> list[str]:
    """Every split of the protocol with the best setting of the grid; the lines of the final table."""
    prepared = prepare(cohort, recipe, options)
    splits = make_splits(cohort, protocol, seed=seed, windows=prepared.windows)
    lines: list[str] = []
    if grid:
        recipe, lines = search_grid(prepared, splits[0], parse_grid(grid), out, seed=seed, options=options)
        prepared = replace(prepared, recipe=recipe, task=recipe.resolve())
    results = run_splits(prepared, splits, out, seed=seed, options=options)
    pooled = score(Predictions.join([r.predictions for r in results])) if len(results) > 1 else results[0].scores
    summary = {"recipe": recipe.name, "protocol": protocol, "seed": seed, "splits": len(results), **pooled.to_dict()}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    lines += table(recipe, results, pooled)
    if exportable(recipe, prepared.task):
        path = out / f"{recipe.name}.jmt"
        if overwrite or not path.exists():
            demo = cohort.layout == "simulated"
            export_run(results[0], path, cohort=cohort, name=recipe.name, demo=demo, overwrite=overwrite)
        lines.append(f"bundle: {path} (weights of {results[0].split.name})")
    else:
        lines.append(f"no bundle: live runs jmt, vanilla and concat of several modalities, not {recipe.fusion}")
    return lines


def run_splits(prepared: Prepared, splits: Sequence[Split], out: Path, *, seed: int, options: Options) -> list[Result]:
    """Each split in `out` (one) or `out/<split>` (several); finished ones are read back."""
    results = []
    for number, split in enumerate(splits):
        folder = out if len(splits) == 1 else out / split.name
        options.progress("splits", number, len(splits))
        results.append(
            _finished(prepared, split, folder, seed) or run_split(prepared, split, folder, seed=seed, options=options)
        )
    return results


def _finished(prepared: Prepared, split: Split, folder: Path, seed: int) -> Result | None:
    """A split that was run before with the same recipe, subjects and seed."""
    files = [folder / name for name in ("scores.json", "recipe.json", "split.json", "predictions.npz")]
    if not all(f.is_file() for f in files):
        return None
    record, recipe, kept = (json.loads(f.read_text()) for f in files[:3])
    if recipe != prepared.recipe.to_dict() or kept != split.to_dict() or record["seed"] != seed:
        raise ConfigError(f"{folder} holds a run of another recipe, split or seed; choose another --out or remove it")
    predictions = Predictions.load(files[3])
    windows = prepared.windows
    predictions.frames = {
        r.id: r for r in windows.recordings if r.kind == "affwild2" and r.id in set(predictions.recording.tolist())
    }
    return Result(split, predictions, score(predictions), record["seconds"], folder)


def search_grid(
    prepared: Prepared, split: Split, grid: Grid, out: Path, *, seed: int, options: Options
) -> tuple[Recipe, list[str]]:
    """Every combination on one split; the best validation score wins (the test side is not looked at)."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").setLevel(logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    if not split.validation:
        raise ConfigError("a grid needs validation subjects to choose by; use more subjects")
    storage = JournalStorage(JournalFileBackend(str(out / "grid.journal")))
    study = optuna.create_study(
        storage=storage, study_name=prepared.recipe.name, load_if_exists=True, direction="minimize",
        sampler=optuna.samplers.GridSampler(grid, seed=seed),
    )  # fmt: skip
    blind = replace(split, test=())

    def objective(trial: Any) -> float:
        chosen = {key: trial.suggest_categorical(key, values) for key, values in grid.items()}
        recipe = with_values(prepared.recipe, chosen)
        folder = out / "grid" / "_".join(f"{k}={v}" for k, v in chosen.items())
        run_split(replace(prepared, recipe=recipe, task=recipe.resolve()), blind, folder, seed=seed, options=options)
        stage = prepared.task.names[0] if recipe.fusion == "unimodal" else "fusion"
        file = folder / stage / "finished.json"
        return float(json.loads(file.read_text())["best"]) if file.is_file() else float("nan")

    left = len(list(itertools.product(*grid.values()))) - sum(t.state.is_finished() for t in study.trials)
    if left > 0:
        study.optimize(objective, n_trials=left)
    rows = sorted((t for t in study.trials if t.value is not None), key=lambda t: float(t.value or 0))
    lines = ["grid (validation loss):"]
    lines += [f"  {', '.join(f'{k}={v}' for k, v in t.params.items()):<40} {t.value:.4f}" for t in rows]
    return with_values(prepared.recipe, dict(rows[0].params)), lines


def with_values(recipe: Recipe, values: dict[str, str]) -> Recipe:
    from .recipes import override

    data = recipe.to_dict()
    for key, value in values.items():
        override(data, f"{key}={value}")
    return from_dict(data)


def table(recipe: Recipe, results: Sequence[Result], pooled: Scores) -> list[str]:
    """One line a split, then the pooled score with interval, the mean over subjects and the published number."""
    names = [
        m
        for m in ("accuracy", "balanced_accuracy", "auc", "ccc_valence", "ccc_arousal", "ccc_mean")
        if m in pooled.pooled
    ]
    lines = ["split                 windows " + " ".join(f"{n:>18}" for n in names)]
    for r in results:
        row = " ".join(f"{r.scores.pooled.get(n, np.nan):>18.3f}" for n in names)
        lines.append(f"{r.split.name:<21} {r.scores.windows:>7} {row}")
    lines.append(f"{'all, pooled':<21} {pooled.windows:>7} " + " ".join(f"{pooled.pooled[n]:>18.3f}" for n in names))
    intervals = [pooled.interval.get(n) for n in names]
    lines.append(
        f"{'95 % by subject':<29} " + " ".join(f"{f'[{i[0]:.3f}, {i[1]:.3f}]' if i else '':>18}" for i in intervals)
    )
    means = [pooled.mean_sd(n) for n in names]
    lines.append(
        f"{'subjects mean (SD)':<29} "
        + " ".join(f"{'' if np.isnan(a) else f'{a:.3f} ({b:.3f})':>18}" for a, b in means)
    )
    return lines + beside(recipe)
