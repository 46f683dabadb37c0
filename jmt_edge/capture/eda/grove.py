"""Seeed Grove GSR on any microcontroller: 9600 baud, one reading (0 to 1023) a line, sometimes `GSR : n`.

Lines carry neither number nor check: a lost line shows only in the clock's fit, a corrupted digit not at all.
"""

from __future__ import annotations

import re

import numpy as np

from ...errors import SourceError
from ...media.units import NOMINAL_CAL, grove_us
from .base import DISCONNECTED, Report, Samples
from .lines import LineSplitter
from .port import Port

LINE = re.compile(rb"(?:GSR\s*:\s*)?(\d{1,4})", re.IGNORECASE)


class GroveDecoder:
    """`counts` number the lines. Without `cal`, the reading of the open electrode, values are not µS but a.u."""

    tick = 0.0
    cycle = 0
    rate = 0.0
    prior_ppm = 1e5
    repeats = False

    def __init__(self, cal: int | None = None) -> None:
        self.unit = "a.u." if cal is None else "µS"
        self.report = Report()
        self._cal = NOMINAL_CAL if cal is None else cal
        self._lines = LineSplitter()
        self._next = 0

    def feed(self, data: bytes) -> Samples:
        self.report.bytes += len(data)
        counts, readings, lost = [], [], 0
        for line, partial in self._lines.feed(data):
            if partial:
                continue
            match = LINE.fullmatch(line)
            if match and int(match[1]) <= 1023:
                counts.append(self._next)
                readings.append(int(match[1]))
            else:
                self.report.unread.append(line)
                lost += 1
            self._next += 1
        self.report.rejected += lost
        x = np.array(readings, np.int64)
        values = grove_us(x, self._cal)
        reasons = np.where(x == 0, 2, np.where(values >= DISCONNECTED, 0, 1)).astype(np.uint8)
        values[reasons > 0] = np.nan
        return self.report.count(Samples(np.array(counts, np.int64), values.astype(np.float32), lost), reasons)


class Grove:
    """Driver. cal: the reading with open electrodes (turn the board's knob to 512); without it values are a.u."""

    name = "grove"
    settle = 4.0  # many boards boot when their port opens

    def __init__(self, cal: int | None = None, baud: int = 9600) -> None:
        if cal is not None and not 1 <= cal <= 1023:
            raise SourceError(f"grove: cal={cal} is not a reading; give the open electrode's reading, 1 to 1023")
        self.cal, self.baudrate = cal, baud

    def start(self, port: Port) -> GroveDecoder:
        port.set_baudrate(self.baudrate)
        return GroveDecoder(self.cal)

    def stop(self, port: Port) -> None:
        """The board knows no commands."""

    def identify(self, port: Port) -> str:
        """Known only by what it sends: see `identify.text_protocol`."""
        return ""
