"""`jmt-edge sim-board`: an EDA board without hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from ._command import subcommand


class _Span(click.ParamType):
    name = "AT:FOR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        at, _, span = str(value).partition(":")
        try:
            return float(at), float(span)
        except ValueError:
            self.fail(f"'{value}' is not AT:FOR in seconds, such as 10:3", param, ctx)


@subcommand(
    "sim-board",
    examples=[
        ("jmt-edge sim-board bitalino", "prints the path to give to live --eda"),
        ("jmt-edge sim-board csv --unplug 10:3 --link /tmp/board", "unplugged for 3 s after 10 s"),
    ],
)
@click.argument("protocol", type=click.Choice(["bitalino", "shimmer3", "grove", "csv"]))
@click.option(
    "--rate",
    type=click.FloatRange(0.5, 4000),
    help="Samples per second until the host sets another rate.",
    metavar="HZ",
)
@click.option(
    "--channel", type=click.IntRange(1, 6), default=3, show_default=True, help="BITalino's EDA channel.", metavar="N"
)
@click.option(
    "--cal",
    type=click.IntRange(1, 1023),
    default=512,
    show_default=True,
    help="Grove's open-circuit reading.",
    metavar="N",
)
@click.option(
    "--signal",
    default="sine",
    show_default=True,
    help="sine, sim (the simulated person) or a recording.",
    metavar="NAME",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the faults and of --signal sim.", metavar="N"
)
@click.option(
    "--drop", type=click.FloatRange(0, 1), default=0.0, help="Share of frames or lines lost.", metavar="SHARE"
)
@click.option("--corrupt", type=click.FloatRange(0, 1), default=0.0, help="Share of bytes corrupted.", metavar="SHARE")
@click.option(
    "--stall", type=_Span(), multiple=True, help="Fall silent AT seconds FOR seconds; repeatable.", metavar="AT:FOR"
)
@click.option(
    "--unplug", type=_Span(), multiple=True, help="Vanish AT seconds FOR seconds; repeatable.", metavar="AT:FOR"
)
@click.option("--drift", type=float, default=0.0, help="Drift of the board's clock, ppm.", metavar="PPM")
@click.option(
    "--jitter",
    type=click.FloatRange(0),
    default=0.0,
    help="Mean extra delay of a burst, ms (exponential).",
    metavar="MS",
)
@click.option(
    "--link", type=click.Path(path_type=Path), help="Keep this symbolic link on the pseudo-terminal.", metavar="PATH"
)
@click.option("--duration", type=click.FloatRange(0), help="Seconds to run.  [default: until Ctrl-C]", metavar="S")
def command(
    protocol: str, rate: float | None, channel: int, cal: int, signal: str, seed: int, drop: float, corrupt: float,
    stall: tuple[tuple[float, float], ...], unplug: tuple[tuple[float, float], ...], drift: float, jitter: float,
    link: Path | None, duration: float | None,
) -> None:  # fmt: skip
    """Simulate an EDA board on a pseudo-terminal and print its path.

    Open it with `jmt-edge live --eda PROTOCOL:PATH`.
    """
    from ..capture.boards import FIRMWARE, Faults, SimulatedBoard, open_signal

    if link and link.exists() and not link.is_symlink():
        raise ConfigError(f"--link {link} exists and is not a symbolic link; choose another path")
    if unplug and not link:
        raise ConfigError("--unplug needs --link, so that the board comes back at the same path; add --link PATH")
    options: dict[str, Any] = {} if rate is None else {"rate": rate}
    if protocol == "bitalino":
        if rate not in (None, 1, 10, 100, 1000):
            raise ConfigError(f"--rate {rate:g}: a BITalino samples at 1, 10, 100 or 1000 Hz; choose one")
        options["channel"] = channel
    elif protocol == "grove":
        options["cal"] = cal
    faults = Faults(drop, corrupt, drift, jitter / 1000, stall, unplug)
    board = SimulatedBoard(FIRMWARE[protocol](**options), open_signal(signal, seed), faults, seed=seed, link=link)
    click.echo(board.path)
    try:
        board.run(float("inf") if duration is None else duration)
    except KeyboardInterrupt:
        click.echo(f"{board.sent} samples sent, {board.dropped} dropped, {board.corrupted} bytes corrupted", err=True)
