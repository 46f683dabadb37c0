"""`jmt-edge train`: from a data set and a recipe to a scored run and a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from ._command import subcommand
from ._training import cohort_of, data_options, require_folder, training_options


@subcommand(
    "train",
    examples=[
        ("jmt-edge train --check cohort", "what a data folder holds"),
        ("jmt-edge train --recipe biovid-jmt --data cohort --variant demo --folds 5 --out runs/jmt", "five folds"),
        ("jmt-edge train --demo all --out bundles", "the demo bundles"),
    ],
)
@click.option(
    "--check", type=click.Path(path_type=Path), help="Report what a data folder holds and what is used.", metavar="PATH"
)
@click.option("--list", "list_recipes", is_flag=True, help="List the built-in recipes.")
@click.option("--recipe", help="A recipe's name or a .json file; several with commas are compared.", metavar="NAME")
@click.option("--variant", type=click.Choice(["full", "demo"]), help="demo: small networks.  [default: the recipe's]")
@click.option("--data", type=click.Path(path_type=Path), help="The data set's folder.", metavar="PATH")
@click.option("--demo", type=click.Choice(["pain", "affect", "trimodal", "all"]), help="Train the demo bundle(s).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the run; an interrupted run resumes there.",
    metavar="PATH",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, metavar="N")
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Repeat with so many seeds.",
    metavar="N",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe: fusion.lr=1e-4.")
@click.option("--protocol", help="holdout, kfold:K, loso, loso67 or official.  [default: the recipe's]", metavar="NAME")
@click.option(
    "--folds", type=click.IntRange(2, 1000), help="Subject-exclusive folds; short for --protocol kfold:K.", metavar="K"
)
@click.option("--loso", is_flag=True, help="Leave one subject out; short for --protocol loso.")
@click.option("--grid", multiple=True, metavar="KEY=V1,V2", help="Try all values; the best validation loss wins.")
@click.option("--weights", multiple=True, metavar="MODALITY=FILE", help="Initial weights: a file, or torchvision.")
@click.option(
    "--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="For folds and grids.", metavar="N"
)
@click.option(
    "--launcher",
    type=click.Choice(["local", "slurm", "ray"]),
    default="local",
    show_default=True,
    help="Who starts the other --processes.",
)
@click.option("--slurm", multiple=True, metavar="KEY=VALUE", help="An option of sbatch: partition=gpu, time=600 (min).")
@click.option(
    "--logger",
    default="csv,tensorboard",
    show_default=True,
    help="csv, tensorboard, mlflow, wandb, or none.",
    metavar="LIST",
)
@click.option("--accelerator", default="auto", show_default=True, help="auto, cpu or gpu.", metavar="NAME")
@click.option(
    "--devices", type=click.IntRange(1, 64), default=1, show_default=True, help="More than 1 uses DDP.", metavar="N"
)
@click.option("--precision", help="32-true, bf16-mixed or 16-mixed.  [default: the recipe's]", metavar="NAME")
@click.option("--no-bundle", is_flag=True, help="Write weights and scores only.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@data_options
def command(**flags: Any) -> None:
    """Train one of the papers' systems.

    A run writes its resolved recipe, split, weights, predictions and scores, and a bundle for `jmt-edge live`.
    Validation subjects select the epoch; test subjects are scored once.
    """
    if flags["list_recipes"]:
        return _list()
    if flags["check"] is not None:
        return _check(flags)
    if flags["out"] is None:
        raise ConfigError("train needs --out, the folder of the run")
    require_folder(flags["out"])
    if flags["demo"]:
        return _demo(flags)
    if not flags["recipe"] or flags["data"] is None:
        raise ConfigError("train needs --recipe and --data (or --demo, --check or --list)")
    _train(flags)


def _list() -> None:
    from ..training.recipes import load_recipe, names

    for name in names():
        recipe = load_recipe(name)
        click.echo(f"{name:<28} {recipe.title}")


def _recipe(flags: dict[str, Any], name: str) -> Any:
    from ..training.recipes import key_value, load_recipe

    overrides = list(flags["overrides"])
    for weight in flags["weights"]:
        modality, file = key_value(weight, "--weights", "face=torchvision")
        overrides.append(f'weights.{modality}="{file}"')
    if flags["precision"]:
        overrides.append(f'precision="{flags["precision"]}"')
    return load_recipe(name, overrides, variant=flags["variant"] or "")


def _require_use_of_weights(weights: tuple[str, ...], recipes: list[Any]) -> None:
    """Raises ConfigError for --weights of a network that no recipe has, which would be ignored."""
    known = {name for r in recipes for name in (*r.resolve().names, *(["second"] if r.second else []))}
    for modality in (w.partition("=")[0] for w in weights):
        if modality not in known:
            raise ConfigError(
                f"--weights {modality}=...: no recipe has that network; choose from {', '.join(sorted(known))}"
            )


def _check(flags: dict[str, Any]) -> None:
    from ..engine.backends.onnxruntime import cpu_threads
    from ..training.biosignals import check_biosignals
    from ..training.clips import default_cache
    from ..training.data import PAIN_CLASSES, cut_windows, describe
    from ..training.frame_features import with_features
    from ..training.matching import require_window, retrain_remedy
    from ..training.memory import predict_memory
    from ..training.readers import default_task

    recipe = _recipe(flags, flags["recipe"]) if flags["recipe"] else None
    cohort = cohort_of(flags, flags["check"], recipe.classes if recipe else PAIN_CLASSES)
    task = recipe.resolve() if recipe else default_task(cohort)
    workers = flags["workers"] or cpu_threads()
    signals = check_biosignals(cohort, workers=workers, cache=flags["cache"] or default_cache())
    cohort = with_features(cohort, recipe.features if recipe else {})
    windows = cut_windows(cohort, task)
    for line in [*describe(cohort, windows), *signals]:
        click.echo(line)
    if recipe:
        predicted = predict_memory(windows, recipe, workers=workers, processes=flags["processes"])
        click.echo(predicted.line())
    require_window(cohort, task, retrain_remedy(cohort, task))


def _demo(flags: dict[str, Any]) -> None:
    from ..tasks import TASK_NAMES
    from ..training.demo import train_demo

    options = training_options(flags, flags["accelerator"], flags["devices"])
    for name in TASK_NAMES if flags["demo"] == "all" else (flags["demo"],):
        bundle = train_demo(name, flags["out"], seed=flags["seed"], options=options, overrides=flags["overrides"])
        scores = bundle.manifest["provenance"]["scores"]
        shown = ", ".join(f"{k} {v:.3f}" for k, v in scores.items() if isinstance(v, float))
        click.echo(f"{bundle.path}: {shown} (on people held out)")


def _train(flags: dict[str, Any]) -> None:
    from ..training.comparison import compare
    from ..training.experiment import require_fit
    from ..training.search import run_protocol, run_seeds

    recipes = [_recipe(flags, name.strip()) for name in flags["recipe"].split(",")]
    _require_use_of_weights(flags["weights"], recipes)
    if len({r.classes for r in recipes}) > 1 or len({r.name for r in recipes}) < len(recipes):
        raise ConfigError("compared recipes need the same pair of classes and different names; train them separately")
    if flags["processes"] > 1 and flags["devices"] > 1:
        raise ConfigError("--processes distributes whole runs and --devices splits each run; give only one of them")
    short = f"kfold:{flags['folds']}" if flags["folds"] else "loso" if flags["loso"] else flags["protocol"]
    cohort = cohort_of(flags, flags["data"], recipes[0].classes)
    for recipe in recipes:
        require_fit(cohort, recipe)  # for all of them, before hours go into the first
    done = []
    for recipe in recipes:
        options = training_options(flags, flags["accelerator"], flags["devices"], recipe.precision)
        out = flags["out"] if len(recipes) == 1 else flags["out"] / recipe.name
        how: dict[str, Any] = {
            "protocol": short or recipe.protocol, "grid": flags["grid"], "options": options,
            "overwrite": flags["overwrite"], "processes": flags["processes"], "bundle": not flags["no_bundle"],
        }  # fmt: skip
        if flags["seeds"] > 1:
            seeds = range(flags["seed"], flags["seed"] + flags["seeds"])
            done.append(run_seeds(cohort, recipe, out, seeds=seeds, **how))
        else:
            done.append(run_protocol(cohort, recipe, out, seed=flags["seed"], **how))
        for line in [*([recipe.name] if len(recipes) > 1 else []), *done[-1].lines]:
            click.echo(line)
    for line in [*(compare(done, flags["out"]) if len(done) > 1 else []), *cohort.problems.lines()]:
        click.echo(line)
