"""`jmt-edge personalise`: refit one person's few parameters to the ratings in their recordings."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..controls import SUBJECT
from ..errors import ConfigError
from ._command import subcommand
from ._signed import check_signed_recording, load_signed, signed_option

if TYPE_CHECKING:
    from ..recording.personalise import Refit


@subcommand(
    "personalise",
    examples=[
        (
            "jmt-edge personalise day1 day2 --bundle pain.jmt --subject P07 --out pain-P07.jmt",
            "two recordings",
        ),
        ("jmt-edge personalise --undo --bundle pain-P07.jmt --out pain.jmt", "the bundle as it was before"),
    ],
)
@click.argument("recordings", nargs=-1, type=click.Path(path_type=Path), metavar="RECORDING...")
@click.option("--bundle", "bundle_path", required=True, type=click.Path(path_type=Path), metavar="PATH",
              help="The bundle that they were recorded with.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="PATH", help="The new bundle, NAME.jmt.")
@click.option("--subject", default="", metavar="CODE", help="A code for the person, never a name: shown on the screen.")
@click.option("--painful-from", default=4, show_default=True, type=click.IntRange(1, 10), metavar="N",
              help="The lowest rating that counts as pain.")  # fmt: skip
@click.option("--undo", is_flag=True, help="Write the bundle as it was before it was personalised.")
@signed_option
def command(
    recordings: tuple[Path, ...], bundle_path: Path, out: Path, subject: str, painful_from: int, undo: bool,
    require_signed: bool,
) -> None:  # fmt: skip
    """Fit a bundle's pain output to one person, by the ratings (0 to 10) in that person's RECORDINGs.

    Fitted to the first half of the ratings, by time, and judged by the other half: without a gain in both nothing is
    written, and the exit code is 1. The networks stay as they are. A research prototype; not for clinical use.
    """
    _check(recordings, subject, undo)

    from ..engine.bundle import load_bundle
    from ..recording.personalise import refit, require_pain, undo_personal, write_personal
    from ..recording.ratings import read_ratings
    from ..recording.reader import Recording

    bundle = (load_signed if require_signed else load_bundle)(bundle_path)
    if undo:
        general = undo_personal(bundle, out)
        same = general.sha256 == bundle.manifest["personal"]["before"][0]["sha256"]
        click.echo(f"{out}: {general.id}" + (", the very bundle that was personalised" if same else ", built since"))
        return
    require_pain(bundle)
    opened = [Recording(folder) for folder in recordings]
    for recording in opened if require_signed else ():
        check_signed_recording(recording)
    for recording in opened:
        if recording.recorded_subject not in ("", subject):
            raise ConfigError(
                f"{recording.folder} is of {recording.recorded_subject}, not of {subject}; give the recordings of one "
                "person, with that person's --subject"
            )
    read = [read_ratings(recording, bundle) for recording in opened]
    for recording, found in zip(opened, read):
        for sentence in (*recording.remarks, *recording.damage):
            click.echo(sentence, err=True)
        if not found.what_ifs:
            click.echo(f"{recording.folder} has no what-ifs: scale and bias alone are fitted", err=True)
    fitted = refit(bundle, read, subject, painful=painful_from)
    for line in _lines(fitted, len(read)):
        click.echo(line)
    if fitted.judged is None:
        click.echo(f"nothing written: no change is worth making; {bundle.id} stays as it is", err=True)
        sys.exit(1)
    if fitted.judged.gain <= 0:
        click.echo(f"nothing written: {bundle.id} meets the later ratings no worse as it is", err=True)
        sys.exit(1)
    new = write_personal(bundle, fitted, read, out)
    click.echo(f"{out}: {new.id}; undo with `jmt-edge personalise --undo --bundle {out} --out PATH`")


def _check(recordings: tuple[Path, ...], subject: str, undo: bool) -> None:
    if undo and (recordings or subject):
        raise ConfigError("--undo takes a bundle alone; leave the recordings and --subject out")
    if undo:
        return
    if not recordings:
        raise ConfigError("personalise needs recordings with ratings; give the folders that `live --record` wrote")
    if not re.fullmatch(SUBJECT, subject):
        raise ConfigError(
            "personalise needs --subject CODE, which says whom the bundle is for: 1 to 32 letters, digits, `.`, `_` "
            "or `-`, and no name"
        )


def _lines(found: Refit, recordings: int) -> list[str]:
    from ..recording.personalise import SURE

    j, d, p = found.judged, found.decided, found.decided.personal
    ratings = found.support + found.test
    first = (
        f"{found.subject}: {ratings} ratings in {recordings} recording{'s' if recordings > 1 else ''}; pain from "
        f"{found.painful} on; fitted to the first {found.support}, judged by the last {found.test}"
    )
    own = (
        f"among the first {found.support}, blocks in time that were left out of the fit: gain {d.gain:+.3f} "
        f"({SURE:.0%}: {d.interval[0]:+.3f} to {d.interval[1]:+.3f})"
    )
    if j is None:
        return [first, f"{own}: no change is worth making"]
    low, high = j.interval
    sure = "" if low > 0 else "; it may be chance"
    weights = [f"{name} counts for {'less' if w > 0 else 'more'} by {abs(w):.0%}" for name, w in p.weights.items()]
    return [
        first,
        own,
        f"held-out Brier score {j.brier[0]:.3f} before, {j.brier[1]:.3f} after: gain {j.gain:+.3f} "
        f"(95 %: {low:+.3f} to {high:+.3f}){sure}",
        f"held-out windows on the wrong side: {j.wrong[0]:.0%} before, {j.wrong[1]:.0%} after",
        f"scale {p.scale:.2f}, bias {p.bias:+.2f}" + "".join(f", {said}" for said in weights),
    ]
