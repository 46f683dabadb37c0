"""`jmt-edge bundle`: the bundles of a unit; which one is in use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._command import Command
from ._signed import load_signed, signed_option

if TYPE_CHECKING:
    from ..engine.store import Store


@click.group("bundle")
def command() -> None:
    """Keep a unit's bundles: add one, use one, go back to the one before.

    `jmt-edge live --bundle current` runs the one in use. A bundle is checked when it is added and again when it is
    used; with --require-signed somebody in the trust store must have signed it.
    """


def _command(name: str, *examples: tuple[str, str]) -> Callable[[Any], Command]:
    def wrap(function: Any) -> Command:
        option = click.option(
            "--store", "store", type=click.Path(path_type=Path), metavar="DIR",
            help="Where the bundles are.  [default: $JMT_EDGE_BUNDLES, else ~/.local/share/jmt-edge/bundles]",
        )  # fmt: skip
        made = click.command(name, cls=Command, examples=examples)(option(function))
        command.add_command(made)
        return made

    return wrap


def open_store(folder: Path | None, *, signed: bool = False) -> Store:
    from ..engine.bundle import load_bundle
    from ..engine.store import Store, default_store

    return Store(folder or default_store(), load_signed if signed else load_bundle)


@_command("add", ("jmt-edge bundle add pain.jmt --require-signed --use", "check it, copy it, use it from now on"))
@click.argument("path", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--use", "use_it", is_flag=True, help="Also use it from now on.")
@signed_option
def add(path: Path, use_it: bool, require_signed: bool, store: Path | None) -> None:
    """Check a bundle and copy it into the store, whole or not at all."""
    opened = open_store(store, signed=require_signed)
    name, new = opened.add(path)
    click.echo(f"{name} added" if new else f"{name} is there already")
    if use_it:
        opened.use(name)
        click.echo(f"{name} is in use")


@_command("use", ("jmt-edge bundle use pain-demo", "the one whose id begins so"))
@click.argument("name", metavar="NAME")
@signed_option
def use(name: str, require_signed: bool, store: Path | None) -> None:
    """Use a bundle from the next start of `live` on. NAME: its id, or a beginning of it."""
    click.echo(f"{open_store(store, signed=require_signed).use(name)} is in use")


@_command("rollback")
@signed_option
def rollback(require_signed: bool, store: Path | None) -> None:
    """Use the bundle that was in use before the current one."""
    click.echo(f"{open_store(store, signed=require_signed).rollback()} is in use again")


@_command("list")
def show(store: Path | None) -> None:
    """List the bundles of the store."""
    opened = open_store(store)
    marks = {opened.previous: "before", opened.current: "in use"}
    for name in opened.names():
        click.echo(f"{name}  {marks.get(name, '')}".rstrip())
    if not opened.names():
        click.echo(f"no bundles in {opened.folder}", err=True)
