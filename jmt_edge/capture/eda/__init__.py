"""EDA boards on a serial line: `open_eda` turns a specification into a source.

| specification | board |
|---|---|
| `bitalino:PORT?channel=3&rate=1000&generation=revolution` | BITalino (r)evolution or original |
| `shimmer3:PORT?rate=128` | Shimmer3 GSR+ |
| `grove:PORT?cal=512&baud=9600` | Grove GSR; without `cal` values are a.u. |
| `csv:PORT?baud=115200&rate=250`, or a plain `/dev/...` | Arduino printing `t_ms,uS`, or one number a line; `unit=` |
| `auto:PORT` | whichever of these it is |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import SourceError
from ...media.units import conversion
from ..spec import number, parse_settings
from .base import Driver
from .bitalino import Bitalino
from .csv import Csv
from .grove import Grove
from .shimmer3 import Shimmer3
from .source import SerialEda

__all__ = ["EDA_PROTOCOLS", "SerialEda", "open_eda"]

_DRIVERS: dict[str, tuple[Callable[..., Driver], dict[str, type]]] = {
    "bitalino": (Bitalino, {"channel": int, "rate": int, "generation": str}),
    "shimmer3": (Shimmer3, {"rate": float}),
    "grove": (Grove, {"cal": int, "baud": int}),
    "csv": (
        Csv,
        {"baud": int, "rate": float, "time": str, "unit": str, "bits": str, "vcc": str, "gain": str, "cal": str},
    ),
}
EDA_PROTOCOLS = (*_DRIVERS, "auto")


def open_eda(spec: str) -> SerialEda:
    """The unopened source for `spec`. Raises SourceError for a malformed specification."""
    protocol, colon, rest = spec.partition(":")
    if not colon or protocol not in EDA_PROTOCOLS:
        if not spec.startswith("/dev/"):
            raise SourceError(f"'{spec}' names no EDA board; write one of {', '.join(EDA_PROTOCOLS)} and :/dev/...")
        protocol, rest = "csv", spec
    path, _, query = rest.partition("?")
    if not path:
        raise SourceError(f"'{spec}' names no port; write {protocol}:/dev/...")
    if protocol == "auto":
        if query:
            raise SourceError(f"'{spec}': auto takes no settings; name the protocol to give {query}")
        return SerialEda(None, path)
    build, accepted = _DRIVERS[protocol]
    given = parse_settings(spec, query, accepted)
    options: dict[str, Any] = dict(given)
    if protocol == "csv":
        options = {key: value for key, value in given.items() if key not in ("unit", "bits", "vcc", "gain", "cal")}
        options["unit"] = conversion(given, spec)
    for key in options:
        if (kind := accepted[key]) is not str:
            options[key] = kind(number(spec, given, key, whole=kind is int))
    return SerialEda(build(**options), path)
