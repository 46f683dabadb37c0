"""`jmt-edge config`: check a configuration file, show the settings that hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ._config import configurable, effective, read_config


@click.group("config")
def command() -> None:
    """Check and show the settings of `jmt-edge live` from a file and the environment.

    \b
    A file holds the flags without their dashes:
      [live]
      task = "pain"
      camera = 0
      page = "127.0.0.1:8765"
    """


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Refuse FILE, with every fault, unless each of its tables, keys and values is known."""
    found = read_config(file, configurable())
    for name, settings in found.items():
        click.echo(f"{file}: {len(settings)} settings of `jmt-edge {name}`, all known")
    if not found:
        click.echo(f"{file}: no settings")


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path), required=False)
def show(file: Path | None) -> None:
    """Print the settings that hold with FILE and this environment, and where each is from, as TOML."""
    for name, one in configurable().items():
        click.echo(f"[{name}]")
        for key, value, where in effective(one, file):
            if value is None or value == ():
                click.echo(f"# {key} is not set")
            else:
                click.echo(f"{key} = {_toml(value)}  # {where}")


def _toml(value: Any) -> str:
    """A bool, a number, a text or a list of texts; JSON's are TOML's."""
    if isinstance(value, tuple):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value if isinstance(value, (bool, int, float)) else str(value), ensure_ascii=False)
