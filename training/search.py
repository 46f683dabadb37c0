"""Folds, grids and seeds: many runs, resumable and spread over processes and machines, with one table at the end.

Trials of a grid are stored in an Optuna journal, which needs no service that keeps running. The same command
in several processes, or on machines with a common `--out` and `--cache`, divides the runs among them (`locks.py`).
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.bundle import load_bundle
from ..errors import ConfigError, DataError
from . import persons, run_folder, score_table
from .data import Cohort
from .experiment import (
    RUN_STATE,
    UNCALIBRATED,
    Prepared,
    Result,
    TrainingOptions,
    claim_run,
    export_run,
    exportable,
    known_parts,
    make_splits,
    prepare,
    require_fit,
    run_key,
    run_split,
    torch_device,
)
from .keys import claim, foresee, write
from .launch import helpers
from .locks import lock, share_out
from .published import published_lines
from .recipes import Grid, Recipe, from_dict, override, parse_grid
from .scores import Predictions, Scores, score
from .splits import Split

# patterns of what a later command would trust in the folder of a protocol
SPLITS_STATE = ("summary.json", *(f"{at}{pattern}" for at in ("", "fold*of*/", "loso-*/") for pattern in RUN_STATE))


@dataclass
class Protocol:
    """All splits of one recipe under a protocol, with their common scores and the lines to print."""

    recipe: Recipe
    results: list[Result]
    predictions: Predictions
    scores: Scores
    lines: list[str]


def run_protocol(
    cohort: Cohort,
    recipe: Recipe,
    out: Path,
    *,
    protocol: str,
    grid: Sequence[str],
    seed: int,
    options: TrainingOptions,
    overwrite: bool = False,
    processes: int = 1,
    bundle: bool = True,
) -> Protocol:
    """Every split of the protocol with the best setting of the grid. processes: how many run them on this machine.

    bundle: whether to export the first split's weights, if a live run can use the system.
    """
    require_fit(cohort, recipe)
    known = known_parts(recipe, seed=seed, device=options.device)
    if grid:  # chooses the recipe
        del known["recipe"]
    foresee(out / "splits.key.json", known, "runs", SPLITS_STATE)
    prepared = prepare(cohort, recipe, replace(options, processes=processes))
    splits = make_splits(cohort, protocol, seed=seed, windows=prepared.windows)
    lines: list[str] = []
    if grid:
        with _helpers(processes - 1, _grid_work, cohort, recipe, splits[0], list(grid), out, seed, options):
            recipe, lines = search_grid(prepared, splits[0], parse_grid(grid), out, seed=seed, options=options)
        prepared = _changed(prepared, recipe, options)
    with _helpers(min(processes, len(splits)) - 1, _split_work, cohort, recipe, splits, out, seed, options):
        results = run_splits(prepared, splits, out, seed=seed, options=options)
    joined = Predictions.join([r.predictions for r in results])
    pooled = score(joined)
    summary = {"recipe": recipe.name, "protocol": protocol, "seed": seed, "splits": len(results), **pooled.to_dict()}
    lines += [*prepared.notes, *table(recipe, results, pooled)]
    if prepared.shift:
        plain = score(Predictions.join([_loaded(prepared, r.folder / UNCALIBRATED) for r in results]))
        summary["uncalibrated"] = plain.to_dict()
        both = {"calibrated": pooled, "uncalibrated": plain}
        lines += score_table.score_lines(both, score_table.MAIN, "uncalibrated", "baseline")
    with lock(out / "summary.lock"):
        write(out / "summary.json", json.dumps(summary, indent=1) + "\n")
        if bundle:
            lines.append(_bundle(prepared, results, out, overwrite=overwrite, options=options))
    return Protocol(recipe, results, joined, pooled, lines)


def run_seeds(
    cohort: Cohort, recipe: Recipe, out: Path, *, seeds: Sequence[int], **how: Any
) -> Protocol:  # how: as for run_protocol
    """The protocol once per seed (`out/seed<N>`), and the mean of their predictions as another system.

    A seed also draws the validation subjects, so the spread of the scores is that of the whole procedure.
    Raises ConfigError for the hold-out, whose test subjects differ between seeds.
    """
    if how["protocol"] == "holdout":
        raise ConfigError("with the hold-out each of --seeds tests other people; give --folds or --loso")
    runs = [run_protocol(cohort, recipe, out / f"seed{seed}", seed=seed, **how) for seed in seeds]
    joined = Predictions.mean([r.predictions for r in runs])
    pooled = score(joined)
    lines = []
    for seed, run in zip(seeds, runs):
        lines += [f"seed {seed}", *(f"  {line}" for line in run.lines)]
    values = {m: np.array([r.scores.pooled[m] for r in runs]) for m in pooled.pooled}
    for m in score_table.MAIN:
        if m in values:
            lines.append(
                f"{m}: over {len(runs)} seeds mean {values[m].mean():.3f}, SD {values[m].std():.3f}, "
                f"{values[m].min():.3f} to {values[m].max():.3f}; mean of their predictions {pooled.pooled[m]:.3f}"
            )
    summary = {
        "recipe": recipe.name, "protocol": how["protocol"], "seeds": list(seeds),
        "each": {str(s): r.scores.to_dict()["pooled"] for s, r in zip(seeds, runs)},
        "mean_prediction": pooled.to_dict(),
    }  # fmt: skip
    (out / "seeds.json").write_text(json.dumps(summary, indent=1) + "\n")
    return Protocol(runs[0].recipe, [result for r in runs for result in r.results], joined, pooled, lines)


def _bundle(prepared: Prepared, results: list[Result], out: Path, *, overwrite: bool, options: TrainingOptions) -> str:
    recipe, cohort = prepared.recipe, prepared.cohort
    if recipe.calibrated:
        return "no bundle: calibrated = true needs each person's mean and SD, which a live run does not have"
    if not exportable(recipe, prepared.task):
        what = f"{recipe.fusion} with two backbones of one modality" if recipe.intra else recipe.fusion
        return f"no bundle: a live run needs jmt, vanilla or concat with several modalities, not {what}"
    path = out / f"{recipe.name}.jmt"
    if path.exists() and not overwrite:
        made = run_folder.read(results[0].folder, run_folder.SCORES)["key"]
        if load_bundle(path).manifest.get("provenance", {}).get("run") != made:
            raise ConfigError(f"{path} is the bundle of another run; pass --overwrite, or remove it")
    else:
        demo = cohort.layout == "simulated"
        how: dict[str, Any] = {"name": recipe.name, "demo": demo, "overwrite": overwrite, "options": options}
        export_run(results[0], path, prepared=prepared, **how)
    said = f"bundle: {path} (weights of {results[0].split.name})"
    if load_bundle(path).uncertainty is None:
        said += f"; uncertainty not known: too few people to validate ({len(results[0].split.validation)})"
    return said


def run_splits(
    prepared: Prepared, splits: Sequence[Split], out: Path, *, seed: int, options: TrainingOptions
) -> list[Result]:
    """Run each split in `out` (one) or `out/<split>` (several). Finished splits are read back, and splits that another
    process is running are waited for. Raises ConfigError where `out` holds other splits, or one of another key.
    """
    every = {s.name: s.to_dict() for s in splits}
    key = run_key(prepared, splits[0], seed=seed, device=options.device).also(split=every)
    claim(out / "splits.key.json", key, "runs", SPLITS_STATE)
    count = itertools.count(1)

    def work(split: Split, folder: Path) -> Result:
        result = run_split(prepared, split, folder, seed=seed, options=options)
        options.progress("splits here", next(count), len(splits))
        return result

    folders = [out if len(splits) == 1 else out / split.name for split in splits]
    return share_out(
        [
            (f / "run.lock", partial(_finished, prepared, s, f, seed, options), partial(work, s, f))
            for s, f in zip(splits, folders)
        ],
        wait=_say_waiting(options),
    )


def _say_waiting(options: TrainingOptions) -> Any:
    told: set[str] = set()

    def say(what: str) -> None:
        if what not in told:
            told.add(what)
            options.progress(f"waiting for {what}, which another process is running", 0, 1)

    return say


# ---- several processes -----------------------------------------------------------------------------------------


def _helpers(count: int, work: Any, *arguments: Any) -> AbstractContextManager[None]:
    """`count` more processes that run the same jobs until the block ends (`launch.helpers`)."""
    *rest, out, seed, options = arguments
    device = replace(options.device, quiet=True)
    quiet = TrainingOptions(options.cache, device, 1)
    gpus = torch_device(device) == "cuda"
    return helpers(options.launcher, count, work, (*rest, out, seed, quiet), out, gpus=gpus)


def _split_work(
    cohort: Cohort, recipe: Recipe, splits: Sequence[Split], out: Path, seed: int, options: TrainingOptions
) -> None:
    prepared = prepare(cohort, recipe, options, training=False)  # its parent has predicted the memory of all
    run_splits(prepared, list(reversed(splits)), out, seed=seed, options=options)


def _grid_work(
    cohort: Cohort, recipe: Recipe, split: Split, grid: Sequence[str], out: Path, seed: int, options: TrainingOptions
) -> None:
    prepared = prepare(cohort, recipe, options, training=False)
    search_grid(prepared, split, parse_grid(grid), out, seed=seed, options=options)


def _finished(prepared: Prepared, split: Split, folder: Path, seed: int, options: TrainingOptions) -> Result | None:
    """A split that has been run; None where it has not. Raises ConfigError where it was run under another key."""
    claim_run(folder, run_key(prepared, split, seed=seed, device=options.device))
    if not (folder / run_folder.SCORES).is_file():
        return None
    record = run_folder.read(folder, run_folder.SCORES)
    predictions = _loaded(prepared, folder / "predictions.npz")
    loss = record.get("validation_loss")
    return Result(
        split, predictions, score(predictions), record["seconds"], folder, float("nan") if loss is None else loss
    )


def _loaded(prepared: Prepared, file: Path) -> Predictions:
    """Predictions of a run, with the trials that are scored by their frames, which the file does not hold."""
    predictions = Predictions.load(file)
    known = set(predictions.trial.tolist())
    trials = prepared.windows.trials
    predictions.frames = {r.id: r for r in trials if r.kind == "affwild2" and r.id in known}
    return predictions


def search_grid(
    prepared: Prepared, split: Split, grid: Grid, out: Path, *, seed: int, options: TrainingOptions
) -> tuple[Recipe, list[str]]:
    """Every combination on one split; the best validation loss wins, and the test side is not used.

    `out/grid.journal` is an Optuna journal, shared with other processes; `optuna-dashboard` can show it.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").setLevel(logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    if not split.validation:
        raise ConfigError("a grid needs validation subjects to choose a setting; use more subjects")
    blind = replace(split, test=())
    key = run_key(prepared, blind, seed=seed, device=options.device)
    claim(out / "grid.key.json", key, "a grid", [f"grid/*/{pattern}" for pattern in RUN_STATE])
    with lock(out / "grid.lock"):
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(out / "grid.journal"))),
            study_name=f"{prepared.recipe.name}-{key.digest}", load_if_exists=True, direction="minimize",
        )  # fmt: skip
    kinds = {key: optuna.distributions.CategoricalDistribution(values) for key, values in grid.items()}

    def find(chosen: dict[str, str]) -> float | None:
        return next((float(t.value) for t in study.trials if t.params == chosen and t.value is not None), None)

    def work(chosen: dict[str, str], folder: Path) -> float:
        recipe = with_values(prepared.recipe, chosen)
        result = run_split(_changed(prepared, recipe, options), blind, folder, seed=seed, options=options)
        # a run that diverged is worse than any other
        loss = result.validation_loss if np.isfinite(result.validation_loss) else float("inf")
        study.add_trial(optuna.trial.create_trial(params=dict(chosen), distributions=dict(kinds), value=loss))
        return loss

    settings = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    jobs = []
    for chosen in settings:
        folder = out / "grid" / "_".join(f"{k}={v.replace('/', '_')}" for k, v in chosen.items())
        jobs.append((folder / "run.lock", partial(find, chosen), partial(work, chosen, folder)))
    values = share_out(jobs, wait=_say_waiting(options))
    if not np.isfinite(values).any():
        raise DataError("no setting of the grid gave a finite validation loss; lower the learning rates")
    rows = sorted(zip(values, settings), key=lambda row: row[0])
    lines = ["grid (validation loss):"]
    lines += [f"  {', '.join(f'{k}={v}' for k, v in chosen.items()):<40} {value:.4f}" for value, chosen in rows]
    return with_values(prepared.recipe, rows[0][1]), lines


def _changed(prepared: Prepared, recipe: Recipe, options: TrainingOptions) -> Prepared:
    """The same data for another setting, prepared again only where the setting changes the clips."""
    before = prepared.recipe
    if (recipe.resolve(), recipe.features, recipe.hop, recipe.calibrated, recipe.baseline, recipe.baseline_seconds) == (
        prepared.task, before.features, before.hop, before.calibrated, before.baseline, before.baseline_seconds,
    ):  # fmt: skip
        return replace(prepared, recipe=recipe)
    return prepare(prepared.source, recipe, options)


def with_values(recipe: Recipe, values: dict[str, str]) -> Recipe:
    data = recipe.to_dict()
    for key, value in values.items():
        override(data, f"{key}={value}")
    return from_dict(data)


def table(recipe: Recipe, results: Sequence[Result], pooled: Scores) -> list[str]:
    """One line per split, then the pooled score with its interval, the mean over subjects and the published number."""
    rows = {r.split.name: r.scores for r in results} | {"all, pooled": pooled}
    mode = [persons.NOTE] if recipe.calibrated else []
    return [
        *mode,
        *score_table.score_lines(rows, score_table.MAIN, "all, pooled", "split"),
        *published_lines(recipe.to_dict()),
    ]
