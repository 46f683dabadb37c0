"""`jmt-edge report`: a recorded session as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ._command import subcommand
from ._shared import language_option
from ._signed import check_signed_recording, signed_option


@subcommand("report", examples=[("jmt-edge report session1", "session1-report.html, to read, send or print")])
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--out", type=click.Path(path_type=Path), help="The file.  [default: DIR-report.html]", metavar="FILE")
@language_option
@signed_option
def command(folder: Path, out: Path | None, language: str | None, require_signed: bool) -> None:
    """Write a recording's report: trend, events, ratings, quality, latency and settings, in one HTML file.

    It loads nothing from the network, runs no script and prints on A4. A research prototype; not for clinical use.
    """
    from ..languages import of_environment
    from ..recording.reader import Recording
    from ..recording.report import write_report

    recording = Recording(folder)
    if require_signed:
        check_signed_recording(recording)
    click.echo(write_report(recording, target_of({"folder": folder, "out": out}), language or of_environment()))
    for sentence in (*recording.remarks, *recording.damage):
        click.echo(f"jmt-edge: {sentence}", err=True)


def target_of(flags: Mapping[str, Any]) -> Path:
    """Where the report goes: --out, or beside the recording."""
    folder: Path = flags["folder"].resolve()
    return flags["out"] or flags["folder"].with_name(folder.name + "-report.html")
