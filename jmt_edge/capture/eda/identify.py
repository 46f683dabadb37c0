"""`auto:/dev/...`: which board is at a port, or what was seen there."""

from __future__ import annotations

import time

from ...errors import SourceError
from . import csv, grove
from .base import Driver
from .bitalino import Bitalino
from .csv import Csv
from .grove import Grove
from .lines import LineSplitter
from .port import Port
from .shimmer3 import Shimmer3

_LISTEN = 2.5  # s: an Arduino boots for about 2 s when its port opens
_ENOUGH = 4  # whole lines


def identify(port: Port) -> tuple[Driver, str]:
    """The driver for what answers or prints at `port`, and its name.

    Listens for text at 115200 baud, asks for a BITalino and a Shimmer, then listens at 9600 baud. Raises SourceError
    saying what was seen.
    """
    heard = _listen(port)
    if driver := text_protocol(heard, 115200):
        return driver, driver.name
    asked: Driver
    for asked in (Bitalino(), Shimmer3()):
        if answer := asked.identify(port):
            return asked, answer
    port.set_baudrate(9600)
    slow = _listen(port)
    if driver := text_protocol(slow, 9600):
        return driver, driver.name
    raise SourceError(
        f"no known EDA board at {port.path}: it sent {_seen(heard)} at 115200 baud and {_seen(slow)} at 9600 baud, and "
        "answered neither as BITalino nor as Shimmer3; name the protocol, for example csv:"
        f"{port.path}?baud=57600"
    )


def text_protocol(data: bytes, baud: int) -> Driver | None:
    """The driver for text: whole numbers 0 to 1023 or `GSR : n` a line are a Grove, other numbers a CSV sketch."""
    lines = [line for line, partial in LineSplitter().feed(data) if not partial]
    if len(lines) < _ENOUGH:
        return None
    if _share(lines, lambda x: (m := grove.LINE.fullmatch(x)) is not None and int(m[1]) <= 1023):
        return Grove(baud=baud)
    if _share(lines, lambda x: csv.is_line(x)):
        return Csv(baud=baud)
    return None


def _share(lines: list[bytes], fits) -> bool:  # type: ignore[no-untyped-def]
    return sum(map(bool, map(fits, lines))) >= 0.75 * len(lines)


def _listen(port: Port) -> bytes:
    end = time.monotonic() + _LISTEN
    data = b""
    while (left := end - time.monotonic()) > 0 and len(data) < 4096:
        data += port.read(min(left, 0.1))
        if text_protocol(data, 0):
            break
    return data


def _seen(data: bytes) -> str:
    if not data:
        return "nothing"
    text = data[:24]
    plain = all(32 <= byte < 127 or byte in b"\r\n\t" for byte in text)
    shown = " ".join(text.decode("ascii").split()) if plain else text.hex(" ")
    return f"{len(data)} bytes ({shown}...)" if len(data) > 24 else f"{len(data)} bytes ({shown})"
