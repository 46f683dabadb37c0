"""`jmt-edge export`: a recording in other programs' formats."""

from __future__ import annotations

from pathlib import Path

import click

from ._signed import check_signed_recording, signed_option

SUFFIX = {"csv": "-csv", "parquet": "-parquet", "xdf": ".xdf"}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--to", "form", type=click.Choice(list(SUFFIX)), required=True, help="Tables, or one XDF file.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder or file.  [default: DIR-csv, DIR-parquet, DIR.xdf]"
)
@signed_option
def command(folder: Path, form: str, out: Path | None, require_signed: bool) -> None:
    """Convert a recording: results, EDA, marks and clocks.

    Raw video and sound are in the recording itself, as ordinary Matroska and WAV files.
    """
    from ..errors import ConfigError
    from ..recording.export import EXPORTERS
    from ..recording.reader import Recording

    recording = Recording(folder)
    if require_signed:
        check_signed_recording(recording)
    target = out or folder.with_name(folder.name + SUFFIX[form])
    try:
        written = EXPORTERS[form](recording, target)
    except OSError as error:
        raise ConfigError(f"cannot write to {target} ({error.strerror}); choose another --out") from None
    for path in written:
        click.echo(path)
    for sentence in (*recording.remarks, *recording.damage):
        click.echo(f"jmt-edge: {sentence}", err=True)
