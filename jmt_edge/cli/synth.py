"""`jmt-edge synth`: write a synthetic cohort in a real data set's layout."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, DataError
from ._command import subcommand

if TYPE_CHECKING:
    from ..training.synth import CohortPlan


@subcommand(
    "synth",
    examples=[
        ("jmt-edge synth biovid --subjects 24 --classes BL1,PA4 --seed 0 --out cohort", "24 people, BioVid's layout"),
    ],
)
@click.argument("kind", type=click.Choice(["biovid", "affwild2", "trimodal", "painmonit"]))
@click.option(
    "--subjects", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Number of people.", metavar="N"
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the cohort.", metavar="N"
)
@click.option("--out", type=click.Path(path_type=Path), help="A new or empty folder.", metavar="PATH")
@click.option(
    "--trials", type=click.IntRange(1, 1000), default=20, show_default=True, help="Per class and subject.", metavar="N"
)
@click.option(
    "--classes", default="BL1,PA1,PA2,PA3,PA4", show_default=True, help="BioVid classes to write.", metavar="LIST"
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    help="Length of an affwild2 video.",
    metavar="S",
)
@click.option(
    "--correlation",
    type=click.FloatRange(0, 0.99),
    default=0.0,
    show_default=True,
    help="Of the reactions of face and skin to a stimulus.",
    metavar="R",
)
@click.option(
    "--movement",
    type=click.FloatRange(0, 20),
    default=0.0,
    show_default=True,
    help="Movements a minute that look like pain in face and skin.",
    metavar="N",
)
@click.option(
    "--jobs", type=click.IntRange(1, 256), default=None, help="Number of processes.  [default: all cores]", metavar="N"
)
@click.option("--effects", is_flag=True, help="Print the mean effect of each class and write nothing.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def command(kind: str, subjects: int, seed: int, trials: int, **flags: Any) -> None:
    """Write a synthetic cohort, including its latent truth.

    The layouts are those of BioVid, of Affwild2, of BioVid with audio/ and valence_arousal/ (trimodal), and of
    PainMonit. The same --subjects, --seed, --trials and --classes give the same people and sessions in all of them but
    affwild2. Run the same command again to resume an interrupted cohort; nothing is overwritten.
    """
    from rich import progress as bars
    from rich.console import Console

    from ..capture.simulated.scenario import CLASS_NAMES
    from ..training.synth import CohortPlan, generate, prepare, total_samples

    out = flags["out"]
    names = tuple(name.strip() for name in flags["classes"].split(","))
    wrong = [name for name in names if name not in CLASS_NAMES]
    if wrong or len(set(names)) != len(names):
        raise ConfigError(f"--classes '{flags['classes']}' must name each of {', '.join(CLASS_NAMES)} at most once")
    plan = CohortPlan(
        kind, subjects, seed, trials, tuple(n for n in CLASS_NAMES if n in names), flags["seconds"],
        correlation=flags["correlation"], movement=flags["movement"],
    )  # fmt: skip
    if flags["effects"]:
        _print_effects(plan)
        return
    if out is None:
        raise ConfigError("--out is missing; give a new or empty folder, as in --out cohort")
    prepare(out, plan)
    columns = (
        bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )  # fmt: skip
    try:
        with bars.Progress(*columns, console=Console(stderr=True), disable=flags["quiet"]) as progress:
            bar = progress.add_task("videos" if kind == "affwild2" else "trials", total=total_samples(plan))
            for done in generate(out, plan, flags["jobs"] or os.cpu_count() or 1):
                progress.update(bar, completed=done)
    except KeyboardInterrupt:
        click.echo(f"jmt-edge: stopped; run the same command again to resume in {out}", err=True)
        sys.exit(130)
    except OSError as error:
        raise DataError(
            f"cannot write to {out} ({error.strerror or error}); fix this and run the command again"
        ) from None
    click.echo(f"{out}: synthetic {kind} cohort, {subjects} subjects, seed {seed}; truth in truth/")


def _print_effects(plan: CohortPlan) -> None:
    from ..markdown import table
    from ..training.synth import measure_effects

    if plan.kind == "affwild2":
        raise ConfigError("--effects compares BioVid's classes, which affwild2 lacks; use biovid or trimodal")
    header = (
        "class", "trials", "mean SCR (µS)", "SCR in", "largest rise (µS)", "face shows in", "PSPI", "PSPI maximum",
        "face with skin (φ)",
    )  # fmt: skip
    rows = [
        [e.class_name, str(e.trials), f"{e.scr:.3f}", f"{e.responds:.0%}", f"{e.rise:.3f}", f"{e.shows:.0%}",
         f"{e.pspi_mean:.2f}", f"{e.pspi_max:.2f}", "" if math.isnan(e.together) else f"{e.together:.2f}"]
        for e in measure_effects(plan)
    ]  # fmt: skip
    click.echo("\n".join(table(header, rows)))
