"""Settings in a source's specification: `PATH?key=value&...`, `sim:key=value&...`, `BOARD:PORT?key=value`."""

from __future__ import annotations

import stat
from collections.abc import Collection
from pathlib import Path
from urllib.parse import parse_qsl

from ..errors import SourceError
from ..media.units import number as number  # a setting's value


def kind_of(path: str) -> str:
    """`file`, `folder`, `device` or `pipe`: what is at `path`; "" where nothing is, or nothing may be seen."""
    try:
        mode = Path(path).expanduser().stat().st_mode
    except (OSError, ValueError, RuntimeError):  # RuntimeError: ~ of a user who does not exist
        return ""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "pipe" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else "device"


def names_file(spec: str) -> bool:
    """Whether `spec`, with or without settings, is a file or a folder that exists, whatever else it looks like."""
    return any(kind_of(path) in ("file", "folder") for path in (spec, spec.rpartition("?")[0]) if path)


def split_query(spec: str, *keys: str) -> tuple[str, dict[str, str]]:
    """`PATH?key=value&...` -> (PATH, {key: value}). A path that exists as given has no settings.

    Raises SourceError as `parse_settings` does.
    """
    path, mark, query = spec.rpartition("?")
    if not mark or kind_of(spec):
        return spec, {}
    return path, parse_settings(spec, query, keys)


def parse_settings(spec: str, query: str, keys: Collection[str]) -> dict[str, str]:
    """`key=value&...` -> {key: value}.

    Raises SourceError, quoting `spec`, for anything else, a key that is not in `keys` and a key given twice.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise SourceError(f"'{spec}' is malformed; join key=value pairs by &, as in seed=3&fps=25") from None
    given = dict(pairs)
    for key in given:
        if key not in keys:
            raise SourceError(f"'{spec}' has the unknown setting '{key}'; it takes {', '.join(keys) or 'none'}")
    if len(given) < len(pairs):
        raise SourceError(f"'{spec}' has a setting twice; give each setting once")
    return given
