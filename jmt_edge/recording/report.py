"""A recorded session as one HTML file: trend, events, ratings, quality, latency, and with what it was made.

Whatever is missing is said with its reason. Text that came with the recording is shown, never interpreted.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..engine.bundle import INTENDED_USE
from ..errors import ConfigError
from ..html_page import page
from ..plain_files import visible
from ..summary import notice
from ..wall_clock import in_words
from .agreement import Agreement, agreement
from .alarm_events import AlarmEvent
from .chart import Chart
from .course import OTHER, read_course
from .gaps import result_gap
from .ratings import SPAN, about, final, uncorrected
from .reader import Recording

NONE = "—"
NAMES = {"face": "face", "voice": "voice", "eda": "EDA"}
TITLES = {"pain": "Pain probability", "valence": "Valence", "arousal": "Arousal"}
MOST_REASONS, MOST_GAPS = 4, 20
_STYLE = """
.notice { border: 2px solid #b3261e; padding: .5rem .8rem; font-weight: 600; }
.demo { background: #fff3cd; } svg { width: 100%; height: auto; display: block; }
.wide td { overflow-wrap: anywhere; } li { overflow-wrap: anywhere; }
"""


def write_report(recording: Recording, out: Path) -> Path:
    """Write the report of a recording to `out`. Raises ConfigError where it exists or cannot be written."""
    text = report(recording)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{out} exists and is not overwritten; choose another --out") from None
    except OSError as error:
        raise ConfigError(f"cannot write to {out} ({error.strerror}); choose another --out") from None
    return out


def report(recording: Recording) -> str:
    """The whole page. Raises SourceError for files of the recording that cannot be read."""
    return _Report(recording).page()


class _Report:
    """All that is read of the recording, once; each method writes a section."""

    def __init__(self, recording: Recording) -> None:
        self.recording, self.manifest = recording, recording.manifest
        self.results = read_course(recording.each_result(), self.manifest["outputs"], self.manifest["modalities"])
        self.marks = sorted(recording.marks(), key=lambda mark: mark.t)
        self.log = recording.alarms()
        self.hop = float(self.manifest["hop"])
        self.clock = _Clock(recording.origin)
        times, self.shown, self.outputs = self.results.times, self.results.shown, self.results.outputs
        self.start = float(times[0]) - self.hop if len(times) else 0.0
        self.end = float(times[-1]) if len(times) else 0.0

    def page(self) -> str:
        title = f"Session report: {_text(self.recording.folder.resolve().name)}"
        demo = bool(self.manifest["bundle"]["demo"])
        said = notice(demo, self.recording.subject)
        parts = [
            f"<h1>{html.escape(title)}</h1>",
            f'<p class="notice{" demo" if demo else ""}">{_safe(said[:1].upper() + said[1:])}.</p>',
            f"<p>{_safe(INTENDED_USE)}</p>",
            self._about(), self._missing(), *self._trends(), self._gaps(), self._events(), self._ratings(),
            self._quality(), self._latency(), self._made_with(),
        ]  # fmt: skip
        return page(title, "\n".join(part for part in parts if part), _STYLE)

    def _about(self) -> str:
        origin = self.recording.origin
        rows = [
            ("Task", self.manifest["task"]),
            ("Stream time 0", self.clock.day(origin) if origin else "not known: the run was not live, or did not say"),
            ("Results", f"{len(self.results)}, {len(self.shown)} of them with a number"),
        ]
        if len(self.results):
            span = f"{self.clock(self.start)} to {self.clock(self.end)}, {_duration(self.end - self.start)}"
            rows.insert(2, ("Span of the results", span))
        for step in self.manifest.get("clock", []):
            after = "; all times are by the clock as it was set last"
            rows.append(("The system's clock", f"was {in_words(step['step'])} at {self.clock(step['t'])}{after}"))
        if code := self.recording.recorded_subject:
            rows.insert(1, ("Person", code))
        before = self.manifest.get("continues")
        if before:
            gap = before.get("gap")
            known = isinstance(gap, (int, float)) and math.isfinite(gap)
            lost = f", after {_duration(gap)} without recording" if known else ""
            rows.append(("Continues", f"{before.get('recording')}{lost}; this report is about this part alone"))
        return _pairs("about", rows)

    def _missing(self) -> str:
        said = [*self.recording.remarks, *self.recording.damage]
        if not said:
            return ""
        return "<h2>What is missing</h2><ul>" + "".join(f"<li>{_safe(one)}</li>" for one in said) + "</ul>"

    def _none(self, file: str, said: str) -> str:
        """`said` of a file without a line, unless damaged lines of it were left out: they may have said otherwise."""
        n = self.recording.unread.get(file, 0)
        return f"{n} damaged line{'s' if n > 1 else ''} of {file} left out, and there are no others" if n else said

    # --- outputs over time -----------------------------------------------------------------------------------------
    def _trends(self) -> list[str]:
        if not len(self.shown):
            why = (
                "no result has a number"
                if self.results
                else self._none("results.jsonl", "the recording has no results")
            )
            return [f"<h2>Trend</h2><p>No trend: {why}.</p>"]
        return [self._trend(name) for name in self.manifest["outputs"]]

    def _trend(self, name: str) -> str:
        pain = name == "pain"
        title = TITLES.get(name, _text(name))
        limits = self._limits() if pain and self._alarmed else []
        rated = [(m.t, m.rating, f"{self.clock(m.t)}: rating {m.rating}") for m in uncorrected(self.marks)]
        dots = [(t, rating, said) for t, rating, said in rated if rating is not None] if pain else []
        chart = Chart(
            re.sub(r"\W", "", name) or "output", f"{title} over time", self.start, self.end, self.shown,
            self.outputs[name], 0.0 if pain else -1.0, 1.0,
            {0.0: "0%", 0.5: "50%", 1.0: "100%"} if pain else {-1.0: "−1", 0.0: "0", 1.0: "1"},
            result_gap(self.hop), self.clock.label(self.end - self.start), self.clock.zero,
            limits=limits, gaps=self._stretches(), dots=dots,
            spans=[self._span(number, event) for number, event in enumerate(self.log.events, 1)] if pain else (),
        )  # fmt: skip
        key = ["line: mean", "band: lowest to highest", "hatched: no number"]
        key += [f"dashed: the alarm's threshold, {self._in_words(limits)}"] if limits else []
        key += ["dots: ratings 0–10, axis on the right"] if dots else []
        key += ["bars: events (red: the person; grey: the equipment)"] if chart.spans else []
        return (
            f'<h2>{html.escape(title)}</h2><figure class="wide">{chart.svg()}'
            f"<figcaption>{html.escape('; '.join(key))}. {self.clock.note}</figcaption></figure>"
        )

    def _span(self, number: int, event: AlarmEvent) -> tuple[float, float, int, str]:
        lane = 0 if event.kind == "physiological" else 1
        return event.start, self.end if event.end is None else event.end, lane, f"{number}: {_text(event.text)}"

    def _stretches(self) -> list[list[float]]:
        """[from, to] of every stretch without a number, the start and the end included. A result is about the hop
        before it."""
        edges = np.concatenate([[self.start], self.shown, [self.end + self.hop]])
        at = np.flatnonzero(np.diff(edges) > result_gap(self.hop))
        return [[float(edges[i]), float(edges[i + 1]) - self.hop] for i in at]

    def _gaps(self) -> str:
        found = self._stretches()
        if not found:
            return ""
        rows = [(self.clock(a), self.clock(b), _duration(b - a), self._why(a, b)) for a, b in found[:MOST_GAPS]]
        more = f"<p>And {len(found) - MOST_GAPS} more.</p>" if len(found) > MOST_GAPS else ""
        return "<h2>Without a number</h2>" + _table(("from", "to", "for", "why"), rows) + more

    def _why(self, begin: float, end: float) -> str:
        reasons = self.results.why(begin + self.hop / 2, end + self.hop / 2)
        if not reasons:
            return "no results were recorded"
        return "; ".join(reason for reason, _ in reasons.most_common(MOST_REASONS))

    # --- events and ratings ----------------------------------------------------------------------------------------
    def _events(self) -> str:
        head = "<h2>Events</h2>"
        log, about = self.log, ""
        if not log.judged and not log.events:
            return f"{head}<p>Not known: {self._not_judged()}.</p>"
        if log.off:
            about = f"<p>No alarms about the person in this run: {_safe(log.off)}.</p>"
        if not log.events:
            return f"{head}{about}<p>{self._none('alarms.jsonl', 'No alarm signalled')}.</p>"
        rows = [self._event_row(number, event) for number, event in enumerate(log.events, 1)]
        names = ("", "event", "onset", "end", "peak", "threshold", "acknowledged", "label")
        counts = Counter(event.label for event in log.events if event.label)
        labelled = ", ".join(f"{counts[label]} {label}" for label in counts) or "none"
        return f"{head}{about}{_table(names, rows)}<p>Labels: {labelled}, of {len(log.events)}.</p>"

    def _event_row(self, number: int, event: AlarmEvent) -> tuple[str, ...]:
        seen = NONE if event.acknowledged is None else self.clock(event.acknowledged)
        over = (
            "on at the end" if event.end is None else f"{self.clock(event.end)} ({_duration(event.end - event.start)})"
        )
        return (
            str(number), event.text, self.clock(event.start), over, _percent(event.peak), _percent(event.limit),
            f"{seen} ({event.by})" if event.by and event.acknowledged is not None else seen, event.label or NONE,
        )  # fmt: skip

    def _not_judged(self) -> str:
        recording = self.recording
        if not (recording.folder / "alarms.jsonl").exists():
            if "alarms.jsonl" in recording.seal.listed:
                return "the record of the alarms, alarms.jsonl, was removed from the recording"
            if recording.seal.closed:
                return "the recording was made by a version that did not record events"
            return "there is no alarms.jsonl: it was removed, or the recording was made by a version without it"
        if recording.unread.get("alarms.jsonl"):
            return "the record of the alarms is damaged"
        return "nothing judged alarms in this run"

    @property
    def _alarmed(self) -> bool:
        """Whether there was a pain alarm at any time."""
        return any(settings["enabled"] for _, settings in self.log.settings) and not self.log.off

    def _limits(self) -> list[tuple[float, float]]:
        """(stream time s from which it applied, threshold of the pain alarm), NaN while it was switched off; empty
        where that is not known.
        """
        if not self.log.limits_known:
            return []
        found: list[tuple[float, float]] = []
        for t, settings in self.log.settings:
            limit = float(settings["limit"]) if settings["enabled"] else math.nan
            if t is not None and not (found and np.array_equal(found[-1][1], limit, equal_nan=True)):
                found.append((t, limit))
        return found

    def _in_words(self, limits: Sequence[tuple[float, float]]) -> str:
        said = ["off" if math.isnan(limit) else f"{limit:.0%}" for _, limit in limits]
        return ", ".join(
            text if not i else f"{text} from {self.clock(t)}" for i, (text, (t, _)) in enumerate(zip(said, limits))
        )

    def _pain_alarm(self) -> str:
        if "pain" not in self.outputs:
            return "none: the task estimates no pain"
        if self.log.off:
            return f"off: {self.log.off}"
        if not self.log.settings:
            return f"not known: {self._not_judged()}"
        first, *later = self.log.settings
        said = [_alarm(first[1])]
        for t, settings in later:
            said.append(f"from {self.clock(t)}: {_alarm(settings)}" if t is not None else f"later: {_alarm(settings)}")
        return ". ".join(said)

    def _ratings(self) -> str:
        head = "<h2>Ratings and notes</h2>"
        if not self.marks:
            return f"{head}<p>{self._none('events.jsonl', 'None were recorded')}.</p>"
        kept, estimates = {mark.t for mark in uncorrected(self.marks)}, self._estimates()
        values = {mark.t: mark.rating for mark in final(self.marks) if mark.rating is not None}
        rows = []
        for mark in self.marks:
            rating, about = NONE, NONE
            if mark.corrects is not None:
                rating = "withdrawn" if mark.rating is None else str(mark.rating)
                about = f"for the rating of {self.clock(mark.corrects)}"
            elif mark.rating is not None:
                last = values.get(mark.t)
                rating = (
                    f"{mark.rating}"
                    if last == mark.rating
                    else f"{mark.rating}, later {'withdrawn' if last is None else last}"
                )
                about = estimates(mark.t) if mark.t in kept else NONE if last is None else "corrected at once"
            rows.append((self.clock(mark.t), rating, about, mark.text or NONE))
        table = _table(("time", "rating", f"estimate since the last rating, at most {SPAN:g} s", "note"), rows)
        return f"{head}{self._agreement()}{table}"

    def _agreement(self) -> str:
        if "pain" not in self.outputs:
            return "<p>No agreement: the task estimates no pain.</p>"
        limits = self.log.limits_at(self.shown)
        found: Agreement = agreement(self.marks, self.shown, self.outputs["pain"], limits)
        said = found.lines()
        if self.manifest["smooth"]:
            said.append(f"Estimates are means over {self.manifest['smooth']:g} s (--smooth).")
        if found.interval is not None:
            said.append("Ratings of one person in one session are not independent, so the interval is too narrow.")
        return f"<p>{_safe(' '.join(said))}</p>"

    def _estimates(self) -> Callable[[float], str]:
        """The estimate before the rating at a time: of the windows that the agreement counts."""
        if "pain" not in self.outputs:
            return lambda t: NONE
        pain = self.outputs["pain"]
        rated = about(self.marks, self.shown)
        words = {mark.t: f"{pain[at].mean():.0%} (highest {pain[at].max():.0%})" for mark, at in rated}
        return lambda t: words.get(t, "no number")

    # --- quality, latency, versions --------------------------------------------------------------------------------
    def _quality(self) -> str:
        head = "<h2>Time in quality</h2>"
        if not self.results:
            return f"{head}<p>Not known: {self._none('results.jsonl', 'the recording has no results')}.</p>"
        whole = max(round((self.end - self.start) / self.hop), len(self.results))
        rows = []
        for name in self.manifest["modalities"]:
            source = self.manifest["sources"].get(name) or ""
            verdicts = self.results.verdicts[name]
            good, why = verdicts.good, verdicts.why
            reasons = [f"{reason} {_duration(n * self.hop)}" for reason, n in why.most_common(MOST_REASONS)]
            reasons += [OTHER] if len(why) > MOST_REASONS else []
            counts = (good, verdicts.total - good, whole - verdicts.total)
            shares = [_share(n, whole, self.hop) for n in counts]
            usable = [*shares, "; ".join(reasons) or NONE] if source else ["no source", NONE, NONE, NONE]
            rows.append((NAMES.get(name, name), source or NONE, *usable))
        return head + _table(("sensor", "source", "usable", "not usable", "no result", "why not usable"), rows)

    def _latency(self) -> str:
        rows = []
        for stage, found in self.results.latency.items():
            if found.size:
                parts = [f"{value:.1f}" for value in np.percentile(found, (50, 95, 99))]
                rows.append((stage, *parts, str(found.size)))
        head = "<h2>Latency</h2>"
        if not rows:
            return f"{head}<p>{self._none('results.jsonl', 'Not recorded')}.</p>"
        live = self.manifest.get("realtime")
        what = "counts from the window's end" if live else "is computing time, because the run was not live"
        return f"{head}{_table(('ms', 'p50', 'p95', 'p99', 'results'), rows)}<p>The total {what}.</p>"

    def _made_with(self) -> str:
        manifest, bundle = self.manifest, self.manifest["bundle"]
        known = manifest.get("host")
        host: dict[str, Any] = known if isinstance(known, dict) else {}
        rows = [
            ("Recorded by", f"jmt-edge {host.get('jmt_edge', 'of an unknown version')}"),
            ("Python, machine", f"{host.get('python', 'not known')}, {host.get('machine', 'not known')}"),
            ("Report by", f"jmt-edge {__version__}"),
            ("Bundle", bundle["id"]),
            ("Bundle's sha256", bundle.get("sha256") or "not recorded"),
            ("Weights", "demo, trained on simulated people" if bundle["demo"] else "not a demo"),
            ("Back-end, precision", f"{manifest['backend']}, {_values(manifest.get('precision'))}"),
            ("Threads", manifest["threads"] or "all cores"),
            ("Sources", _values(manifest["sources"])),
            ("Raw data kept", ", ".join(manifest["raw"]) or "none"),
            ("Hop, smoothing", f"{self.hop:g} s, {manifest['smooth']:g} s"),
            ("Novelty, person", f"{manifest.get('novelty', 'not known')}, {manifest.get('person', 'not known')}"),
            ("Uncertainty", manifest.get("uncertainty", "not known")),
            ("Facial actions", "measured" if manifest.get("actions") else "not measured"),
            ("Pain alarm", self._pain_alarm()),
        ]
        return "<h2>Made with</h2>" + _pairs("about", rows)


class _Clock:
    """Stream times as words: of the local clock where it is known when the run was, else since its start."""

    def __init__(self, origin: datetime | None) -> None:
        self._origin: datetime | None = None
        self.note = "Times are since the run's start."
        self.zero = 0.0
        try:
            if origin is not None:
                self._origin = origin.astimezone()
                shift = self._origin.utcoffset() or timedelta()
                self.zero = (self._origin - datetime(1970, 1, 1, tzinfo=timezone.utc) + shift).total_seconds() % 86400
                self.note = f"Times are local, {self._origin:%Z} (UTC{self._origin:%z})."
        except (OverflowError, ValueError, OSError):
            self._origin = None

    def __call__(self, t: float) -> str:
        return self._at(t, "%H:%M:%S")

    def label(self, span: float) -> Callable[[float], str]:
        """How an axis of `span` s names a time."""
        form = "%H:%M:%S" if span < 480 else "%H:%M" if span < 86400 else "%d %H:%M"
        return lambda t: self._at(t, form)

    def day(self, origin: datetime) -> str:
        return f"{self._at(0.0, '%Y-%m-%d %H:%M:%S')}. {self.note}" if self._origin else str(origin)

    def _at(self, t: float, form: str) -> str:
        try:
            if self._origin is not None:
                return (self._origin + timedelta(seconds=t)).strftime(form)
        except OverflowError:
            pass
        return _duration(t)


def _duration(seconds: float) -> str:
    """`0:05`, `12:30` or `1:02:03`."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _share(n: int, whole: int, hop: float) -> str:
    return f"{_duration(n * hop)} ({n / whole:.0%})"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"


def _values(values: Any) -> str:
    if not isinstance(values, dict):
        return "not known"
    return ", ".join(f"{name} {value if value != '' else 'none'}" for name, value in values.items()) or "none"


def _alarm(settings: Mapping[str, Any]) -> str:
    words = f"threshold {settings['limit']:.0%}, hysteresis {settings['hysteresis']:.0%}, delay {settings['delay']:g} s"
    return words if settings["enabled"] else f"{words}; switched off"


def _text(value: object) -> str:
    return visible(str(value))


def _safe(value: object) -> str:
    return html.escape(_text(value))


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in names)
    body = "".join("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="table"><table class="wide"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _pairs(kind: str, rows: Iterable[tuple[str, object]]) -> str:
    body = "".join(f'<tr><th scope="row">{_safe(name)}</th><td>{_safe(value)}</td></tr>\n' for name, value in rows)
    return f'<div class="table"><table class="{kind}"><tbody>\n{body}</tbody></table></div>'
