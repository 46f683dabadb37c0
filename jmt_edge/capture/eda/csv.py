"""Arduino sketches that print text: lines `t_ms,uS` (with or without that header), or one µS number a line.

Lines carry no check: strict patterns reject what is not a number, a corrupted digit passes.
"""

from __future__ import annotations

import math
import re
from collections import deque

import numpy as np

from .base import DISCONNECTED, Report, Samples
from .lines import LineSplitter
from .port import Port

MODULUS = 1 << 32  # ms: millis() wraps after 49.7 days
AGREE = 3  # lines in a row of one shape decide what the board sends
_HEADERS = {b"t_ms,us": 2, b"us": 1}
_NUMBER = rb"([-+]?(?:\d{1,7}(?:\.\d{0,9})?|nan|ovf|inf))"
_SHAPES = {
    1: re.compile(_NUMBER, re.IGNORECASE),
    2: re.compile(rb"(\d{1,10})(?:\.0*)?\s*,\s*" + _NUMBER, re.IGNORECASE),
}


class CsvDecoder:
    """`counts` are milliseconds (`tick` 0.001) with timestamps, else line numbers (`tick` 0).

    A header, or three lines in a row of the same shape, decide the shape; the first line may be cut and is dropped
    unless it is a header. A partial line or one of the other shape is rejected and counted as lost.
    """

    cycle = 0
    unit = "µS"
    repeats = True

    def __init__(self, rate: float = 0.0) -> None:
        self.rate = rate
        self.report = Report()
        self._lines = LineSplitter()
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._shape = 0
        self._held: list[tuple[int, float]] = []  # lines of the other shape, until there are enough to believe it
        self._held_shape = 0
        self._line = 0
        self._millis: int | None = None

    @property
    def tick(self) -> float:
        return 1e-3 if self._shape == 2 else 1.0 / self.rate if self.rate else 0.0

    @property
    def prior_ppm(self) -> float:
        return 5000.0 if self._shape == 2 else 1e5  # a ceramic resonator; a loop with a delay in it

    def feed(self, data: bytes) -> Samples:
        """Samples of one shape: what follows a change of shape comes with the next call (`feed(b"")` will do)."""
        self.report.bytes += len(data)
        self._queue += self._lines.feed(data)
        rows: list[tuple[int, float]] = []
        lost = 0
        while self._queue:
            line, partial = self._queue.popleft()
            header = _HEADERS.get(line.lower().replace(b" ", b""), 0)
            shape, row = (header, (0, 0.0)) if header else self._parse(line)
            decides = header or (shape == self._held_shape and len(self._held) == AGREE - 1)
            if rows and decides and shape != self._shape:
                self._queue.appendleft((line, partial))
                break
            if header:
                lost += self._forget_held(header)
                self._change(header)
                continue
            if partial:
                continue
            self._line += 1
            lost += self._forget_held(shape)
            if not shape:
                lost += 1
            elif shape == self._shape:
                rows.append((row[0] if shape == 2 else self._line, row[1]))
            else:
                self._held.append((row[0] if shape == 2 else self._line, row[1]))
                if len(self._held) == AGREE:
                    self._change(shape)
                    rows, self._held = self._held, []
        self.report.rejected += lost
        counts = [row[0] for row in rows]
        if self._shape == 2:
            counts = self._unwrapped(counts)
        values = np.array([row[1] for row in rows], np.float32)
        reasons = np.where(np.isnan(values), 3, np.where(values >= DISCONNECTED, 0, 1)).astype(np.uint8)
        values[reasons > 0] = np.nan
        return self.report.count(Samples(np.array(counts, np.int64), values, lost), reasons)

    def _forget_held(self, shape: int) -> int:
        """Lines held of a shape that `shape` does not confirm are lost; returns how many."""
        lost = 0 if shape == self._held_shape and shape else len(self._held)
        if lost or not self._held:
            self._held, self._held_shape = [], shape
        return lost

    def _change(self, shape: int) -> None:
        if shape != self._shape:
            self._shape, self._millis = shape, None

    def _parse(self, line: bytes) -> tuple[int, tuple[int, float]]:
        """(shape, (milliseconds or 0, µS)); shape 0 where the line is neither."""
        for shape, pattern in _SHAPES.items():
            if match := pattern.fullmatch(line):
                value = math.nan if match[shape][-1:].isalpha() else float(match[shape])
                millis = int(match[1]) if shape == 2 else 0
                return (shape, (millis, value)) if millis < MODULUS else (0, (0, 0.0))
        return 0, (0, 0.0)

    def _unwrapped(self, millis: list[int]) -> list[int]:
        last = self._millis
        out = []
        for ms in millis:
            last = ms if last is None else last + (ms - last + MODULUS // 2) % MODULUS - MODULUS // 2
            out.append(last)
        self._millis = last
        return out


class Csv:
    """Driver. baud: what the sketch gives to `Serial.begin`; rate: nominal samples per second, where known."""

    name = "csv"
    settle = 4.0  # many boards boot for about 2 s when their port opens

    def __init__(self, baud: int = 115200, rate: float = 0.0) -> None:
        self.baudrate, self.rate = baud, rate

    def start(self, port: Port) -> CsvDecoder:
        port.set_baudrate(self.baudrate)
        return CsvDecoder(self.rate)

    def stop(self, port: Port) -> None:
        """A sketch knows no commands."""

    def identify(self, port: Port) -> str:
        """Known only by what it sends: see `identify.text_protocol`."""
        return ""


def is_line(line: bytes) -> bool:
    """Whether a sketch of this protocol may have printed `line`."""
    return any(pattern.fullmatch(line) for pattern in _SHAPES.values())
