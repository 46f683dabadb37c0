"""`jmt-edge evaluate`: score a run or a bundle next to the published numbers."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from .train import require_folder


@click.command("evaluate")
@click.argument("target", type=click.Path(path_type=Path), required=False)
@click.option("--data", type=click.Path(path_type=Path), help="The data set's folder.")
@click.option(
    "--protocol", default="", help="all, all67, test, official; of --suite kfold:K.  [default: test of a run]"
)
@click.option("--suite", is_flag=True, help="Train and score all fusions with noise, missing modalities and less data.")
@click.option("--recipe", help="With --suite: the recipe whose task and stages are used.")
@click.option("--variant", type=click.Choice(["full", "demo"]), help="With --suite: demo uses small networks.")
@click.option("--fractions", default="0.1,0.25,0.5,1", show_default=True, help="With --suite: shares of the subjects.")
@click.option("--systems", help="With --suite: some of its systems, separated by commas.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of tables and plots.  [default: TARGET/evaluation]"
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With --suite: change the recipe.")
@click.option("--no-robustness", is_flag=True, help="Score clean input only.")
@click.option("--published-handling", is_flag=True, help="Also score unlabelled frames as the published code does.")
@click.option("--trained-too", is_flag=True, help="Also score subjects that were trained on.")
@click.option("--channel", default="Eda_RB", show_default=True, help="PainMonit: the EDA channel.")
@click.option("--rate", type=float, default=250.0, show_default=True, help="PainMonit: samples per second of X.npy.")
@click.option("--skip-bad", is_flag=True, help="Skip bad samples; they are counted and listed.")
@click.option("--cache", type=click.Path(path_type=Path), help="Clips and features.  [default: $JMT_EDGE_CACHE]")
@click.option("--workers", type=click.IntRange(1, 256), help="Preprocessing processes.  [default: all cores]")
@click.option("--threads", type=click.IntRange(1, 256), help="CPU threads of torch.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def command(**flags: Any) -> None:
    """Score TARGET, a run's folder (with folds or without) or a bundle NAME.jmt, on a data set.

    Prints mean, SD over subjects and 95 % intervals by subject next to the published numbers, and writes
    results.json, CSV files and plots. With --suite it trains every fusion of the papers and writes one report.
    """
    if flags["data"] is None:
        raise ConfigError("evaluate needs --data, the data set's folder")
    import torch

    from ..training.clips import default_cache
    from ..training.experiment import Options, console_progress
    from ..training.trainer import Device

    if flags["threads"]:
        torch.set_num_threads(flags["threads"])
    device = Device(quiet=flags["quiet"])
    options = Options(flags["cache"] or default_cache(), device, flags["workers"] or os.cpu_count() or 1)
    if not flags["quiet"]:
        options = replace(options, progress=console_progress())
    if flags["out"] is not None:
        require_folder(flags["out"])
    if flags["suite"]:
        return _suite(flags, options)
    if flags["target"] is None:
        raise ConfigError("evaluate needs a run's folder or a bundle NAME.jmt (or --suite)")
    from ..training.evaluation import evaluate

    out = flags["out"] or _beside(flags["target"])
    cohort = _cohort(flags, _classes(flags["target"]))
    lines = evaluate(
        flags["target"], cohort, out, protocol=flags["protocol"], options=options,
        robustness=not flags["no_robustness"], published=flags["published_handling"],
        allow_trained=flags["trained_too"],
    )  # fmt: skip
    for line in [*lines, *cohort.problems.lines(), f"written to {out}"]:
        click.echo(line)


def _beside(target: Path) -> Path:
    """A bundle is sealed by its hashes, so its evaluation is written next to it; a run's is written inside it."""
    return target.with_name(f"{target.stem}-evaluation") if target.suffix == ".jmt" else target / "evaluation"


def _classes(target: Path) -> tuple[str, ...]:
    """The classes that a run was trained on; for a bundle, which does not say, the first and the last."""
    from ..training.evaluation import run_folders
    from ..training.experiment import load_run

    folders = [target] if (target / "recipe.json").is_file() else run_folders(target)
    return load_run(folders[0])[0].classes if folders else ("BL1", "PA4")


def _cohort(flags: dict[str, Any], classes: tuple[str, ...]) -> Any:
    from ..training.readers import open_cohort

    return open_cohort(
        flags["data"], classes=classes, channel=flags["channel"], rate=flags["rate"], skip_bad=flags["skip_bad"]
    )


def _suite(flags: dict[str, Any], options: Any) -> None:
    from ..training.recipes import load_recipe
    from ..training.suite import run_suite

    if flags["out"] is None or not flags["recipe"]:
        raise ConfigError("evaluate --suite needs --recipe and --out")
    recipe = load_recipe(flags["recipe"], flags["overrides"], variant=flags["variant"] or "")
    try:
        fractions = tuple(float(f) for f in flags["fractions"].split(","))
    except ValueError:
        raise ConfigError(f"--fractions '{flags['fractions']}' is not a list of numbers like 0.1,0.5,1") from None
    systems = tuple(flags["systems"].split(",")) if flags["systems"] else ()
    report = run_suite(
        _cohort(flags, recipe.classes), recipe, flags["out"], seed=flags["seed"], fractions=fractions, systems=systems,
        protocol=flags["protocol"] or "holdout", command=_suite_command(flags), options=options,
    )  # fmt: skip
    click.echo(f"report: {report}")


def _suite_command(flags: dict[str, Any]) -> str:
    """The command that repeats the suite, with DATA and OUT in place of this machine's folders."""
    words = ["jmt-edge", "evaluate", "--suite", "--recipe", flags["recipe"], "--data", "DATA", "--out", "OUT"]
    for name in ("variant", "protocol", "fractions", "systems", "seed"):
        if flags[name]:
            words += [f"--{name}", str(flags[name])]
    for change in flags["overrides"]:
        words += ["--set", change]
    return shlex.join(words)
