"""The demo bundles: small networks trained on simulated people, reproducibly, by one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .experiment import TrainingOptions, export_run, foresee_run, make_splits, prepare, run_split
from .recipes import Recipe, load_recipe
from .streams import simulated_cohort

SIZE = {"pain": (36, 60), "affect": (64, 64), "trimodal": (96, 48)}  # people, windows of each


def train_demo(
    task_name: str, out: Path, *, seed: int, options: TrainingOptions, overrides: tuple[str, ...] = ()
) -> Any:
    """Simulate people, train, score on held-out people, and write `out/<task>-demo.jmt`; returns the bundle."""
    recipe: Recipe = load_recipe(f"demo-{task_name}", overrides)
    run = out / f"{task_name}-run"
    foresee_run(run, recipe, seed=seed, device=options.device)
    people, windows = SIZE[task_name]
    cohort = simulated_cohort(recipe.resolve(), subjects=people, windows=windows, seed=seed)
    prepared = prepare(cohort, recipe, options)
    (split,) = make_splits(cohort, "holdout", seed=seed)
    result = run_split(prepared, split, run, seed=seed, options=options)
    return export_run(
        result, out / f"{task_name}-demo.jmt", prepared=prepared, name=f"{task_name}-demo", demo=True, overwrite=True,
        options=options,
    )  # fmt: skip
