"""Arduino sketches that print text: lines `t_ms,uS` (with or without that header), or one µS number a line.

Lines carry no check: strict patterns reject what is not a number, a corrupted digit passes. What could be something
else than a time and µS is not taken: whole numbers (counts of a converter), pairs whose first number does not advance
like a clock (`GSR,Temp`, a decimal comma), stamps that may be micros(). A header or a setting decides.
"""

from __future__ import annotations

import math
import re
from collections import deque

import numpy as np

from ...errors import SourceError
from ...media.units import Conversion, written_unit
from .base import DISCONNECTED, Report, Samples
from .lines import LineSplitter
from .port import Port

MODULUS = 1 << 32  # ms: millis() wraps after 49.7 days
AGREE = 3  # lines in a row of one shape decide what the board sends
AMBIGUOUS = 500  # stamps this far apart are milliseconds of a slow sketch or microseconds of a usual one
BACKWARD = 4  # of the last 20 pairs whose first number goes back: it is no time
_HEADERS = {b"t_ms,us": (2, 1e-3), b"t_us,us": (2, 1e-6), b"us": (1, 0.0)}
_COUNTS = (
    "whole numbers, like the counts of a converter; say what they are by ?unit=adc (with bits=, vcc=, gain= or cal=) "
    "or ?unit=uS"
)
_NO_TIME = "the first of two numbers does not advance like a time; print `t_ms,uS`, or one number a line"
_COUNTER = (
    "the first of two numbers counts up by one, like a counter of lines; print `t_ms,uS`, or say by ?time=ms that it "
    "is milliseconds"
)
_OTHER_UNIT = "its header says {0}, and how that becomes µS depends on the sensor; write ?unit={0} with {1}"
TIMES = {"ms": 1e-3, "us": 1e-6}
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

    def __init__(self, rate: float = 0.0, unit: Conversion | None = None, time: str | None = None) -> None:
        self.rate = rate
        self.report = Report()
        self._conversion = unit or Conversion()
        self._asked = unit is not None
        self._known_unit = self._asked  # by a setting, a header or a number with a decimal point
        self._unit = self._conversion.unit  # of the values that come now
        self._header_unit = ""  # one that only a setting makes µS
        self._whole: set[float] = set()  # the whole numbers seen while the unit is not known; at most two
        self._scale, self._known_time = TIMES[time or "ms"], time is not None
        self._backward: deque[bool] = deque(maxlen=20)
        self._lines = LineSplitter()
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._shape = 0
        self._held: list[tuple[int, float]] = []  # lines of the other shape, until there are enough to believe it
        self._held_shape = 0
        self._held_lines: deque[bytes] = deque(maxlen=AGREE)
        self._revoked = False  # the shape is given up with the next line
        self._pairs = False  # pairs of numbers that do not begin with a time
        self._line = 0
        self._millis: int | None = None

    @property
    def tick(self) -> float:
        return self._scale if self._shape == 2 else 1.0 / self.rate if self.rate else 0.0

    @property
    def prior_ppm(self) -> float:
        return 5000.0 if self._shape == 2 else 1e5  # a ceramic resonator; a loop with a delay in it

    def feed(self, data: bytes) -> Samples:
        """Samples of one shape and unit: what follows a change comes with the next call (`feed(b"")` will do)."""
        self.report.bytes += len(data)
        self._queue += self._lines.feed(data)
        rows: list[tuple[int, float]] = []
        lost = 0
        while self._queue:
            line, partial = self._queue.popleft()
            header, scale = _HEADERS.get(line.lower().replace(b" ", b""), (0, 0.0))
            shape, row = (header, (0, 0.0)) if header else self._parse(line)
            unit = "" if self._asked else "uS" if header else "" if shape or partial else _unit_of(line)
            renamed = unit not in ("", self._unit)
            decides = header or (shape == self._held_shape and len(self._held) == AGREE - 1)
            if rows and (renamed or (decides and shape != self._shape)):
                self._queue.appendleft((line, partial))
                break
            if renamed:
                lost += self._forget_held(0)
            if unit:
                self._take_unit(unit)
            if header:
                lost += self._forget_held(header)
                if scale and scale != self._scale:
                    self._scale, self._millis = scale, None
                self._known_unit, self._known_time = True, self._known_time or header == 2
                self._change(header)
                continue
            if partial:
                continue
            self._line += 1
            lost += self._forget_held(shape)
            if shape and not self._known_unit:
                self._known_unit = not (math.isnan(row[1]) or row[1].is_integer())  # 512.00 is a count too
                if not self._known_unit and len(self._whole) < 2 and not math.isnan(row[1]):
                    self._whole.add(row[1])
            if not shape:
                self.report.unread.append(line)
                lost += 1
            elif shape == self._shape:
                if self._revoked or self._distrusted(shape, row[0], rows):
                    self._revoked = bool(rows)
                    if rows:  # first what was taken before
                        self._line -= 1
                        self._queue.appendleft((line, partial))
                        break
                    self._shape, self._millis = 0, None
                    self.report.unread.append(line)
                    lost += 1
                    continue
                rows.append((row[0] if shape == 2 else self._line, row[1]))
            else:
                self._held.append((row[0] if shape == 2 else self._line, row[1]))
                self._held_lines.append(line)
                if len(self._held) == AGREE:
                    if problem := self._doubt(shape):
                        self.report.problem = problem
                        self.report.unread.extend(self._held_lines)
                        lost += len(self._held)
                        self._held = []
                        continue
                    self._change(shape)
                    rows, self._held = self._held, []
        self.report.rejected += lost
        counts = [row[0] for row in rows]
        if self._shape == 2:
            counts = self._unwrapped(counts)
        if rows and not self._revoked:
            self.report.problem = ""
        values = self._conversion(np.array([row[1] for row in rows], np.float64)).astype(np.float32)
        reasons = np.where(np.isnan(values), 3, np.where(values >= DISCONNECTED, 0, 1)).astype(np.uint8)
        values[reasons > 0] = np.nan
        return self.report.count(Samples(np.array(counts, np.int64), values, lost), reasons)

    def _doubt(self, shape: int) -> str:
        """Why the held lines, all of one shape, are not believed; empty where they are."""
        if self._header_unit:
            extra = "bits=, vcc= and gain=" if self._header_unit == "adc" else "gain="
            return _OTHER_UNIT.format(self._header_unit, extra)
        if self._counts:
            return _COUNTS
        if shape == 2 and not self._known_time:
            steps = np.diff([row[0] for row in self._held])
            if self._pairs or not (steps > 0).all():
                self._pairs = True
                return _NO_TIME
            if (steps == 1).all():
                return _COUNTER
            if float(np.median(steps)) >= AMBIGUOUS:
                return "its time stamps may be millis() or micros(); say which by ?time=ms or ?time=us"
        return ""

    def _take_unit(self, unit: str) -> None:
        """The unit that a header gives to what follows it."""
        self._unit = unit
        if unit in ("V", "mV", "adc"):
            self._header_unit, self._shape, self._millis = unit, 0, None  # nothing is believed until a setting says how
        else:
            self._conversion, self._known_unit, self._header_unit = Conversion(unit), True, ""

    @property
    def _counts(self) -> bool:
        """Different whole numbers and none with a decimal point: not µS, as far as anybody said."""
        return not self._known_unit and len(self._whole) > 1

    def _distrusted(self, shape: int, stamp: int, rows: list[tuple[int, float]]) -> bool:
        """Whether lines without a header have turned out not to be what they were taken for."""
        if self._counts:
            self.report.problem = _COUNTS
            return True
        if shape != 2 or self._known_time:
            return False
        last = rows[-1][0] if rows else None if self._millis is None else self._millis % MODULUS
        self._backward.append(last is not None and stamp < last)
        if sum(self._backward) < BACKWARD:
            return False
        self._pairs = True
        self.report.problem = _NO_TIME
        self._backward.clear()
        return True

    def _forget_held(self, shape: int) -> int:
        """Lines held of a shape that `shape` does not confirm are lost; returns how many."""
        lost = 0 if shape == self._held_shape and shape else len(self._held)
        if lost or not self._held:
            self._held, self._held_shape = [], shape
            self._held_lines.clear()
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


def _unit_of(line: bytes) -> str:
    """The unit of a header such as `t_ms,kohm`; "" for any other line."""
    *before, last = line.decode("latin-1").lower().replace(" ", "").split(",")
    return written_unit(last.rpartition("_")[2]) if len(before) < 2 and not last.startswith("t_") else ""


class Csv:
    """Driver. baud: what the sketch gives to `Serial.begin`; rate: nominal samples per second, where known; unit: what
    it prints, where that is not µS; time: `ms` or `us`, of its time stamps."""

    name = "csv"
    settle = 4.0  # many boards boot for about 2 s when their port opens

    def __init__(
        self, baud: int = 115200, rate: float = 0.0, unit: Conversion | None = None, time: str | None = None
    ) -> None:
        if time not in (None, *TIMES):
            raise SourceError(f"csv: time is '{time}'; give ms for millis() or us for micros()")
        self.baudrate, self.rate, self.unit, self.time = baud, rate, unit, time

    def start(self, port: Port) -> CsvDecoder:
        port.set_baudrate(self.baudrate)
        return CsvDecoder(self.rate, self.unit, self.time)

    def stop(self, port: Port) -> None:
        """A sketch knows no commands."""

    def identify(self, port: Port) -> str:
        """Known only by what it sends: see `identify.text_protocol`."""
        return ""


def is_line(line: bytes) -> bool:
    """Whether a sketch of this protocol may have printed `line`."""
    return any(pattern.fullmatch(line) for pattern in _SHAPES.values())
