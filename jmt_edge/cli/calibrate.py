"""`jmt-edge calibrate`: INT8 on representative windows."""

from __future__ import annotations

from pathlib import Path

import click

from ._command import subcommand
from ._signed import load_signed, signed_option


@subcommand(
    "calibrate",
    examples=[
        ("jmt-edge calibrate pain.jmt --data cohort --out pain-calibrated.jmt", "on a data set"),
        ("jmt-edge calibrate pain.jmt", "on simulated people"),
    ],
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path),
    help="Data set, recording with raw samples, or saved windows (.npz) [default: simulated people].", metavar="PATH",
)  # fmt: skip
@click.option("--windows", "count", type=click.IntRange(4), default=128, show_default=True, metavar="N")
@click.option(
    "--method", type=click.Choice(["minmax", "percentile", "entropy", "mse"]), help="[default: the best of all]"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="New bundle [default: NAME-calibrated.jmt beside it].",
    metavar="PATH",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@signed_option
def command(
    bundle: Path, data: Path | None, count: int, method: str | None, out: Path | None, seed: int, require_signed: bool
) -> None:  # fmt: skip
    """Quantise the networks of BUNDLE to INT8 (explicit Q/DQ), keeping as few layers as possible in FP16.

    Half of the windows give the ranges, the other half the scores. Runs on the CPU.
    """
    from rich.console import Console

    from ..calibration.run import quantise_bundle
    from ..calibration.sources import load_windows
    from ..compiler.report import score_rows
    from ..engine.bundle import load_bundle
    from ._progress import step_bar

    source = load_signed(bundle) if require_signed else load_bundle(bundle)
    with step_bar(Console(stderr=True)) as on_step:
        on_step("choosing windows", 0.0)
        windows = load_windows(source, data, count, seed=seed)
        done = quantise_bundle(
            source,
            out or bundle.with_name(f"{source.name}-calibrated.jmt"),
            windows,
            method=method,  # type: ignore[arg-type]
            seed=seed,
            on_step=on_step,
        )
    for name, network in done.report["networks"].items():
        total = len(network["int8"]) + len(network["fp16"])
        click.echo(f"{name}: {len(network['int8'])} of {total} layers INT8, ranges by {network['method']}")
    click.echo("\n".join(score_rows(done.report["fidelity"], "INT8")))
    click.echo(f"wrote {done.bundle.path} ({done.bundle.id})")
    if not done.fidelity.holds:
        click.echo("INT8 changes the scores beyond the limit; use FP16 instead", err=True)
        raise click.exceptions.Exit(1)
