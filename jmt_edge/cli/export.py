"""`jmt-edge export`: a recording in other programs' formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ._command import subcommand
from ._signed import check_signed_recording, signed_option

EVENTS = ("alarms",)  # the tables of --events
SUFFIX = {"csv": "-csv", "parquet": "-parquet", "xdf": ".xdf", "fhir": "-fhir.json"}


@subcommand(
    "export",
    examples=[
        ("jmt-edge export session1 --to csv", "tables in session1-csv"),
        ("jmt-edge export session1 --events", "alarms and their labels, in session1-events/alarms.csv"),
        ("jmt-edge export session1 --to fhir --subject Patient/17", "FHIR R4 Observations in session1-fhir.json"),
    ],
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--to", "form", type=click.Choice(list(SUFFIX)), help="Tables, one XDF file, or FHIR R4.")
@click.option(
    "--events",
    is_flag=True,
    help="Only the table of alarms: start, end, peak, who acknowledged, true/false/unsure. As CSV, or --to parquet.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder or file.  [default: DIR-csv, DIR-parquet, DIR.xdf, DIR-fhir.json, DIR-events]",
    metavar="PATH",
)
@click.option("--subject", metavar="REFERENCE", help="Whom the Observations of --to fhir are about, as Patient/17.")
@signed_option
def command(
    folder: Path, form: str | None, events: bool, out: Path | None, subject: str | None, require_signed: bool
) -> None:
    """Convert a recording: results, EDA, marks and clocks.

    Raw video and sound are in the recording itself, as ordinary Matroska and WAV files.
    """
    from ..errors import ConfigError
    from ..recording.export import EXPORTERS
    from ..recording.reader import Recording

    recording = Recording(folder)
    if require_signed:
        check_signed_recording(recording)
    target = target_of({"folder": folder, "form": form, "events": events, "out": out})
    try:
        more = {"subject": subject} if subject else {"only": EVENTS} if events else {}
        written = EXPORTERS[form or "csv"](recording, target, **more)
    except OSError as error:
        raise ConfigError(f"cannot write to {target} ({error.strerror}); choose another --out") from None
    for path in written:
        click.echo(path)
    for sentence in (*recording.remarks, *recording.damage):
        click.echo(f"jmt-edge: {sentence}", err=True)


def target_of(flags: Mapping[str, Any]) -> Path:
    """Where the export goes: --out, or beside the recording."""
    folder: Path = flags["folder"]
    suffix = "-events" if flags["events"] else SUFFIX[flags["form"]]
    return flags["out"] or folder.with_name(folder.name + suffix)
