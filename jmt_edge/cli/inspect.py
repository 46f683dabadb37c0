"""`jmt-edge inspect`: what a file is, and the source string to use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._command import subcommand

if TYPE_CHECKING:
    from ..capture.inspection import Inspection, Stretch

_SHOWN = 5  # gaps, notes and stretches


@subcommand(
    "inspect",
    examples=[
        ("jmt-edge inspect eda.csv", "what the file is, and how to give it to live"),
        ("jmt-edge inspect 'eda.csv?unit=kohm' --plot eda.png", "with a setting, and drawn"),
    ],
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the signals, and where they fail.")
def command(files: tuple[str, ...], as_json: bool, plot: Path | None) -> None:
    """Say what each FILE is: format, rate, unit, duration, gaps, quality over time, and how to give it to `live`.

    A file may carry the settings of a source: 'eda.csv?unit=kohm'. Exits with 2 where one is refused.
    """
    import json

    from ..capture.inspection import inspect_file

    refused = False
    seen = []
    for file in files:
        seen.append(found := inspect_file(file))
        refused = refused or bool(found.error)
        if as_json:
            click.echo(json.dumps(found.to_dict(), ensure_ascii=False))
        else:
            click.echo("\n".join(lines(found)))
    if plot is not None:
        from ..capture.inspection_plot import plot_inspections

        plot_inspections(seen, plot)
        click.echo(f"{plot} written", err=True)
    if refused:
        sys.exit(2)


def lines(found: Inspection) -> list[str]:
    """The inspection as a person reads it."""
    out = [found.file]
    if found.error:
        return [*out, f"  refused   {found.error}"]
    out.append(f"  what      {found.what}" + (f", column '{found.column}' in {found.unit}" if found.column else ""))
    counts = [f"{found.samples} samples"] if found.samples else []
    counts += [f"{found.rate:.4g} Hz"] if found.rate else []
    counts += [f"{found.seconds:.2f} s"] if found.seconds else []
    out.append("  signal    " + ", ".join(counts))
    if found.unit:
        out.append(f"  values    {found.low:.4g} to {found.high:.4g} {found.unit}, median {found.middle:.4g}")
    gaps = [f"{g.end - g.start:.2f} s at {g.start:.2f} s" for g in found.gaps]
    out.append("  gaps      " + (_some(gaps) or "none"))
    if found.lost or found.altered:
        out.append(f"  lost      {found.lost}, moved in time {found.altered}")
    out += [f"  note      {note}" for note in found.notes[:_SHOWN]]
    if found.judged:
        out.append(f"  quality   {found.usable:.0%} of the windows usable")
    out += [f"            {_stretch(s)}" for s in found.unusable[:_SHOWN]]
    return [*out, f"  use       {found.use}"]


def _stretch(s: Stretch) -> str:
    return f"{s.start:.1f} to {s.end:.1f} s: {s.what}"


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")
