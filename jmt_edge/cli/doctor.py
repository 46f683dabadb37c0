"""`jmt-edge doctor`: is this machine ready for a live run?"""

from __future__ import annotations

import sys

import click

from ._command import subcommand


@subcommand(
    "doctor",
    examples=[
        ("jmt-edge doctor", "what is connected, what is wrong, and the remedy"),
        ("jmt-edge doctor --identify", "also ask which board is at each serial port"),
    ],
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--identify", is_flag=True, help="Open each serial port and ask which board it is (resets an Arduino).")
def command(as_json: bool, identify: bool) -> None:
    """List sensors, engines and the state of this machine, with a remedy for each problem.

    Exits with 0 if `jmt-edge live` can run (at least with simulated sensors), else with 1.
    """
    import json

    from ..doctor import examine, lines

    report = examine(identify=identify)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
    else:
        for line in lines(report):
            click.echo(line)
        click.echo("`jmt-edge inspect FILE` says what a recording is and how to give it to `live`.")
    if not report.can_run:
        sys.exit(1)
