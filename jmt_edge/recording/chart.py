"""A line over time as SVG, for a page without scripts: band and mean, gaps hatched, events, limit and ratings."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .gaps import F64, bands

WIDE, LEFT, RIGHT, TOP, HIGH, LANE = 960, 60, 44, 12, 210, 16  # px
COLUMNS = 480  # bins at most, over the whole width
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)  # s between labels
TICKS = 8
_LINE, _RATING, _GRID, _TEXT, _LIMIT = "#1b5e8c", "#9a4d00", "#ccc", "#333", "#b3261e"


@dataclass(frozen=True)
class Chart:
    """name: a word, unlike that of any other chart of the page. start, end: s. times: (n,) s, ascending, and values:
    (n,); longest: s between two values that are still one line. low, high: of the axis, with `labels`, {value: text}.

    gaps: [from, to] without values. dots: (s, 0-10, title) on an axis of their own. spans: (from, to, lane, title)
    below, lane 0 red, 1 grey. limits: (time from which it applied, limit), NaN for none. clock: label of a time; zero:
    s that labels are counted from, so that they fall on whole minutes.
    """

    name: str
    title: str
    start: float
    end: float
    times: F64
    values: F64
    low: float
    high: float
    labels: dict[float, str]
    longest: float
    clock: Callable[[float], str]
    zero: float = 0.0
    limits: Sequence[tuple[float, float]] = ()
    gaps: Sequence[Sequence[float]] = ()
    dots: Sequence[tuple[float, int, str]] = ()
    spans: Sequence[tuple[float, float, int, str]] = field(default=())

    def svg(self) -> str:
        """One `svg` element. Raises nothing for values out of the axis: they are drawn at its edge."""
        lanes = 2 if self.spans else 0
        height = TOP + HIGH + lanes * LANE + 26
        parts = [
            f'<svg viewBox="0 0 {WIDE} {height}" role="img" aria-label="{html.escape(self.title)}" '
            f'font-family="system-ui, sans-serif" font-size="14" fill="{_TEXT}">',
            f"<title>{html.escape(self.title)}</title>",
            f'<defs><pattern id="hatch-{self.name}" width="7" height="7" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><rect width="7" height="7" fill="#f3f3f3"/>'
            '<path d="M0 0V7" stroke="#999" stroke-width="1.5"/></pattern></defs>',
            *(self._gap(*gap) for gap in self.gaps),
            *self._axes(height),
            *self._band(),
        ]
        if line := self._steps():
            parts.append(f'<path d="{line}" stroke="{_LIMIT}" stroke-width="1.5" stroke-dasharray="7 5" fill="none"/>')
        parts += [self._span(*span) for span in self.spans]
        for t, rating, title in self.dots:
            y = TOP + HIGH * (1 - min(max(rating, 0), 10) / 10)
            parts.append(
                f'<circle cx="{self._x(t):.1f}" cy="{y:.1f}" r="5" fill="{_RATING}" stroke="#fff" stroke-width="1.5">'
                f"<title>{html.escape(title)}</title></circle>"
            )
        return "\n".join([*parts, "</svg>"])

    def _x(self, t: float) -> float:
        share = (t - self.start) / max(self.end - self.start, 1e-9)
        return LEFT + (WIDE - LEFT - RIGHT) * min(max(share, 0.0), 1.0)

    def _y(self, value: float) -> float:
        return TOP + HIGH * (1 - min(max((value - self.low) / (self.high - self.low), 0.0), 1.0))

    def _gap(self, begin: float, end: float) -> str:
        left, right = self._x(begin), self._x(end)
        place = f'x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HIGH}"'
        return f'<rect {place} fill="url(#hatch-{self.name})"/>'

    def _axes(self, height: int) -> list[str]:
        parts = []
        for value, text in self.labels.items():
            y = self._y(value)
            parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDE - RIGHT}" stroke="{_GRID}"/>')
            parts.append(f'<text x="{LEFT - 7}" y="{y + 5:.1f}" text-anchor="end">{html.escape(text)}</text>')
        if self.dots:
            for rating in (0, 5, 10):
                y = TOP + HIGH * (1 - rating / 10)
                parts.append(f'<text x="{WIDE - RIGHT + 8}" y="{y + 5:.1f}" fill="{_RATING}">{rating}</text>')
        for t in self._ticks():
            x = self._x(t)
            parts.append(f'<path d="M{x:.1f} {TOP + HIGH}v5" stroke="{_TEXT}"/>')
            parts.append(f'<text x="{x:.1f}" y="{height - 4}" text-anchor="middle">{html.escape(self.clock(t))}</text>')
        return parts

    def _ticks(self) -> list[float]:
        span = self.end - self.start
        step = next((step for step in STEPS if span / step <= TICKS), 86400 * math.ceil(span / 86400 / TICKS))
        first = math.ceil((self.start + self.zero) / step) * step - self.zero
        return [t for i in range(TICKS + 1) if (t := first + i * step) <= self.end]

    def _band(self) -> list[str]:
        """Each run of values without a gap: the range as an area, the mean as a line; a value alone is a point."""
        width = max((self.end - self.start) / COLUMNS, 1e-9)
        parts = []
        breaks = np.flatnonzero(np.diff(self.times) > self.longest) + 1
        for times, values in zip(np.split(self.times, breaks), np.split(self.values, breaks)):
            if not times.size:
                continue
            t, low, mean, high = bands(times, values, width)
            if t.size == 1:
                parts.append(f'<circle cx="{self._x(t[0]):.1f}" cy="{self._y(mean[0]):.1f}" r="2.5" fill="{_LINE}"/>')
                continue
            there = " ".join(self._points(t, high))
            back = " ".join(reversed(self._points(t, low)))
            parts.append(f'<polygon points="{there} {back}" fill="{_LINE}" fill-opacity=".25"/>')
            parts.append(
                f'<polyline points="{" ".join(self._points(t, mean))}" fill="none" stroke="{_LINE}" stroke-width="2" '
                'stroke-linejoin="round"/>'
            )
        return parts

    def _points(self, times: F64, values: F64) -> list[str]:
        return [f"{self._x(t):.1f},{self._y(v):.1f}" for t, v in zip(times.tolist(), values.tolist())]

    def _steps(self) -> str:
        """The path of the limits, a step where one changed."""
        ends = [t for t, _ in self.limits[1:]] + [self.end]
        parts = [
            f"M{self._x(begin):.1f} {self._y(limit):.1f}H{self._x(end):.1f}"
            for (begin, limit), end in zip(self.limits, ends)
            if not math.isnan(limit) and end > self.start
        ]
        return "".join(parts)

    def _span(self, begin: float, end: float, lane: int, title: str) -> str:
        left, right = self._x(begin), self._x(end)
        y = TOP + HIGH + 7 + lane * LANE
        fill = (_LIMIT, "#777")[lane]
        return (
            f'<rect x="{left:.1f}" y="{y}" width="{max(right - left, 3):.1f}" height="{LANE - 5}" fill="{fill}">'
            f"<title>{html.escape(title)}</title></rect>"
        )
