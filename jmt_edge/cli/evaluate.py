"""`jmt-edge evaluate`: score a run or a bundle next to the published numbers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from ._command import subcommand
from ._training import cohort_of, data_options, require_folder, training_options


@subcommand(
    "evaluate",
    examples=[
        ("jmt-edge evaluate runs/jmt --data cohort", "a run on its data set"),
        ("jmt-edge evaluate --suite --recipe biovid-jmt --data cohort --out suite", "all fusions of the papers"),
    ],
)
@click.argument("target", type=click.Path(path_type=Path), required=False)
@click.option("--data", type=click.Path(path_type=Path), help="The data set's folder.", metavar="PATH")
@click.option(
    "--protocol",
    default="",
    help="all, all67, test, official; of --suite kfold:K.  [default: test of a run]",
    metavar="NAME",
)
@click.option("--suite", is_flag=True, help="Train and score all fusions with noise, missing modalities and less data.")
@click.option("--recipe", help="With --suite: the recipe whose task and stages are used.", metavar="NAME")
@click.option("--variant", type=click.Choice(["full", "demo"]), help="With --suite: demo uses small networks.")
@click.option(
    "--fractions",
    default="0.1,0.25,0.5,1",
    show_default=True,
    help="With --suite: shares of the subjects.",
    metavar="LIST",
)
@click.option("--systems", help="With --suite: only these systems, separated by commas.", metavar="LIST")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of tables and plots.  [default: TARGET/evaluation]",
    metavar="PATH",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, metavar="N")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With --suite: change the recipe.")
@click.option(
    "--seeds",
    type=click.IntRange(2, 1000),
    help="With --suite: the claims over so many seeds of each fusion.",
    metavar="N",
)
@click.option("--cross-fit", is_flag=True, help="With --seeds: also fusions trained on out-of-fold features.")
@click.option("--re-pair", is_flag=True, help="With --suite: a control whose face and EDA are of different moments.")
@click.option("--faces", is_flag=True, help="Show the person's face in the figure of one trial (S >= 4).")
@click.option("--no-robustness", is_flag=True, help="Score clean input only.")
@click.option("--published-handling", is_flag=True, help="Also score unlabelled frames as the published code does.")
@click.option("--cross", is_flag=True, help="DATA is another data set: cut the model's window, print what differs.")
@click.option("--window-end", type=float, metavar="S", help="With --cross: where the window ends in each trial.")
@click.option("--trained-too", is_flag=True, help="Also score subjects that were trained on.")
@data_options
def command(**flags: Any) -> None:
    """Score TARGET, a run's folder (with or without folds) or a bundle NAME.jmt, on a data set.

    Prints scores with 95 % intervals by subject, mean and SD over subjects, and the published numbers, and writes
    results.json, CSV files and plots. Data with other windows, sensors, rates or classes than the model's is refused;
    --cross makes equal what can be made equal and prints what differs. With --suite, trains every fusion of the papers
    and writes one report.
    """
    if flags["data"] is None:
        raise ConfigError("evaluate needs --data, the data set's folder")
    options = training_options(flags)
    if flags["out"] is not None:
        require_folder(flags["out"])
    if flags["re_pair"] and not flags["suite"]:
        raise ConfigError("--re-pair is a control of --suite; give both")
    if flags["seeds"] and not flags["suite"]:
        raise ConfigError("--seeds repeats the fusions of --suite; give both")
    if flags["cross_fit"] and not flags["seeds"]:
        raise ConfigError("--cross-fit is a part of --suite --seeds N; give all three")
    if flags["suite"]:
        return _suite(flags, options)
    if flags["target"] is None:
        raise ConfigError("evaluate needs a run's folder or a bundle NAME.jmt (or --suite)")
    if flags["window_end"] is not None and not flags["cross"]:
        raise ConfigError("--window-end says where --cross cuts the model's window; give both")
    from ..training.evaluation import classes_of, evaluate

    out = flags["out"] or _beside(flags["target"])
    cohort = cohort_of(flags, flags["data"], classes_of(flags["target"]))
    lines = evaluate(
        flags["target"], cohort, out, protocol=flags["protocol"], options=options,
        robustness=not flags["no_robustness"], published=flags["published_handling"],
        allow_trained=flags["trained_too"], cross=flags["cross"], window_end=flags["window_end"],
        faces=flags["faces"],
    )  # fmt: skip
    for line in [*lines, *cohort.problems.lines(), f"written to {out}"]:
        click.echo(line)


def _beside(target: Path) -> Path:
    """The evaluation of a bundle is written beside it, because its hashes seal it; that of a run, inside it."""
    return target.with_name(f"{target.stem}-evaluation") if target.suffix == ".jmt" else target / "evaluation"


def _suite(flags: dict[str, Any], options: Any) -> None:
    from ..training.recipes import load_recipe
    from ..training.suite import run_suite
    from ..training.suite_seeds import run_seeded_suite

    if flags["out"] is None or not flags["recipe"]:
        raise ConfigError("evaluate --suite needs --recipe and --out")
    recipe = load_recipe(flags["recipe"], flags["overrides"], variant=flags["variant"] or "")
    try:
        fractions = tuple(float(f) for f in flags["fractions"].split(","))
    except ValueError:
        raise ConfigError(f"--fractions '{flags['fractions']}' is not a list of numbers like 0.1,0.5,1") from None
    systems = tuple(flags["systems"].split(",")) if flags["systems"] else ()
    cohort = cohort_of(flags, flags["data"], recipe.classes)
    how: dict[str, Any] = {
        "seed": flags["seed"], "fractions": fractions, "systems": systems, "command": _suite_command(flags),
        "re_pair": flags["re_pair"], "options": options,
    }  # fmt: skip
    if flags["seeds"]:
        report = run_seeded_suite(
            cohort, recipe, flags["out"], seeds=flags["seeds"], protocol=flags["protocol"] or "kfold:5",
            cross_fit=flags["cross_fit"], **how,
        )  # fmt: skip
    else:
        report = run_suite(cohort, recipe, flags["out"], protocol=flags["protocol"] or "holdout", **how)
    click.echo(f"report: {report}")


def _suite_command(flags: dict[str, Any]) -> str:
    """The command that repeats the suite, with DATA and OUT in place of this machine's folders."""
    words = ["jmt-edge", "evaluate", "--suite", "--recipe", flags["recipe"], "--data", "DATA", "--out", "OUT"]
    for name in ("variant", "protocol", "fractions", "systems", "seed", "seeds"):
        if flags[name]:
            words += [f"--{name}", str(flags[name])]
    words += [f"--{name}" for name in ("re-pair", "cross-fit") if flags[name.replace("-", "_")]]
    for change in flags["overrides"]:
        words += ["--set", change]
    return shlex.join(words)
