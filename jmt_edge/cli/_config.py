"""Options of a command from a file or the environment: made from the declarations of its flags, so they cannot drift.

`--camera 0` of `jmt-edge live`, `JMT_EDGE_LIVE_CAMERA=0` and `camera = 0` under `[live]` in the file of `--config` are
one option. What is said later in this list holds: the default, the file, the environment, the flag.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError, short
from ..plain_files import printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MOST = 1 << 20  # bytes of a file
_APART = ("help", "config")  # options that are not settings


def settings_of(command: click.Command) -> dict[str, click.Option]:
    """A command's options by their key in the file: the flag without its dashes."""
    found = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            key = max(parameter.opts, key=len).lstrip("-")
            if key not in _APART:
                found[key] = parameter
    return found


def variable_of(command: str, key: str) -> str:
    """The environment variable of a setting: `JMT_EDGE_LIVE_PAGE_FACE`."""
    return f"JMT_EDGE_{command}_{key}".replace("-", "_").upper()


def refuse_unknown_variables(command: click.Command, environment: Mapping[str, str]) -> None:
    """Raises ConfigError for a variable that looks like a setting of the command and is none."""
    prefix = variable_of(command.name or "", "")
    known = [variable_of(command.name or "", key) for key in (*settings_of(command), "config")]
    for name in environment:
        if name.startswith(prefix) and name not in known:
            raise ConfigError(f"{printable(name)} is not a setting of `jmt-edge {command.name}`{_nearest(name, known)}")


def read_config(path: Path, commands: Mapping[str, click.Command]) -> dict[str, dict[str, Any]]:
    """Command -> parameter name -> value, of a TOML file with a table for each command.

    Raises ConfigError with every fault of the file in one sentence: unreadable, not TOML, an unknown table or key (with
    the nearest that is known), a value that its option refuses.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST + 1)
    except OSError as error:
        raise ConfigError(f"{name_of(path)} cannot be read ({error.strerror}); check its name") from None
    if len(raw) > _MOST:
        raise ConfigError(f"{name_of(path)} is larger than 1 MB; give a TOML file")
    try:
        tables = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:  # of TOML, or of UTF-8
        raise ConfigError(f"{name_of(path)} is not TOML ({short(error)}); fix the file") from None
    faults: list[str] = []
    found: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        if name not in commands or not isinstance(table, dict):
            what = f"[{name}] has no settings" if isinstance(table, dict) else f"'{name}' is outside a table"
            faults.append(what + _nearest(name, [f"[{c}]" for c in commands]))
            continue
        settings = settings_of(commands[name])
        found[name] = {}
        for key, value in table.items():
            if key not in settings:
                faults.append(f"[{name}] has no '{key}'{_nearest(key, list(settings))}")
                continue
            option = settings[key]
            try:
                found[name][option.name or key] = _checked(commands[name], option, value)
            except (click.BadParameter, ValueError) as error:
                why = error.message if isinstance(error, click.ClickException) else str(error)
                faults.append(f"[{name}] {key} = {_shown(value)}: {why.rstrip('.').splitlines()[0]}")
    if faults:
        raise ConfigError(f"{name_of(path)}: {'; '.join(faults)}")
    return found


def name_of(path: Path) -> str:
    return f"configuration {printable(path)}"


def _checked(command: click.Command, option: click.Option, value: Any) -> Any:
    """The value as the command line would give it, once the option has accepted it. Raises ValueError, BadParameter."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError("it is on or off; give true or false")
        return value
    if option.multiple:
        if isinstance(value, dict) and (option.metavar or "").startswith("NAME:"):
            value = [f"{name}:{_joined(name, table)}" for name, table in value.items()]
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ValueError("give a list of texts in quotes")
        return value
    if value is True and option.flag_value not in (None, True):  # --page without an address
        value = option.flag_value
    if isinstance(value, list) and (option.metavar or "") == "LIST" and all(isinstance(v, str) for v in value):
        value = ",".join(value)
    wants_number = isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType))
    if isinstance(value, bool) or not isinstance(value, (int, float) if wants_number else (str, int)):
        raise ValueError("give a number" if wants_number else "give a text in quotes")
    text = str(value)
    option.type_cast_value(click.Context(command), text)
    return text


def _joined(name: str, table: Any) -> str:
    """`[live.person.NAME]` as the command line gives it: `key=value,key=value`. Raises ValueError."""
    good = isinstance(table, dict) and all(type(value) in (str, int, float) for value in table.values())
    if not good:
        raise ValueError(f"write a table of texts and numbers for {name}")
    return ",".join(f"{key}={value}" for key, value in table.items())


def _shown(value: Any) -> str:
    text = printable(str(value).lower() if isinstance(value, bool) else repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"


def config_option(function: Any) -> Any:
    """Adds `--config FILE` to a command."""

    def load(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
        if value is not None:
            name = ctx.command.name or ""
            table = read_config(value, configurable())
            if name not in table:
                raise ConfigError(f"{name_of(value)} has no table [{name}]; write one, or leave --config out")
            ctx.default_map = {**(ctx.default_map or {}), **table[name]}
        return value

    return click.option(
        "--config", type=click.Path(path_type=Path), metavar="FILE", is_eager=True, expose_value=False, callback=load,
        help="Settings from this TOML file; flags and environment override them (jmt-edge config).",
    )(function)  # fmt: skip


def configurable() -> dict[str, click.Command]:
    """The commands that take a configuration."""
    from .live import command as live
    from .station import command as station

    return {"live": live, "station": station}


def effective(command: click.Command, file: Path | None) -> list[tuple[str, Any, str]]:
    """(key, value, where it is from) of every setting, from defaults, the file and the environment."""
    name = command.name or ""
    if file is not None and name not in read_config(file, configurable()):
        file = None  # it is about other commands
    context = command.make_context(name, [] if file is None else ["--config", str(file)])
    named = str(file or os.environ.get(variable_of(name, "config"), ""))
    rows = []
    for key, option in settings_of(command).items():
        source = context.get_parameter_source(option.name or "")
        where = {
            click.core.ParameterSource.ENVIRONMENT: variable_of(name, key),
            click.core.ParameterSource.DEFAULT_MAP: named,
        }.get(source or click.core.ParameterSource.DEFAULT, "default")  # fmt: skip
        rows.append((key, context.params[option.name or ""], where))
    return rows
