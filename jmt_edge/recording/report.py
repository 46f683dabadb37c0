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
from ..languages import Language, language
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
MOST_REASONS, MOST_GAPS = 4, 20
_STYLE = """
.notice { border: 2px solid #b3261e; padding: .5rem .8rem; font-weight: 600; }
.demo { background: #fff3cd; } svg { width: 100%; height: auto; display: block; }
.wide td { overflow-wrap: anywhere; } li { overflow-wrap: anywhere; }
"""


def write_report(recording: Recording, out: Path, code: str = "en") -> Path:
    """Write the report of a recording to `out`, in the language `code`.

    Raises ConfigError where `out` exists or cannot be written, and for an unknown language.
    """
    text = report(recording, code)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{out} exists and is not overwritten; choose another --out") from None
    except OSError as error:
        raise ConfigError(f"cannot write to {out} ({error.strerror}); choose another --out") from None
    return out


def report(recording: Recording, code: str = "en") -> str:
    """The whole page. Raises SourceError for files of the recording that cannot be read."""
    return _Report(recording, language(code)).page()


class _Report:
    """All that is read of the recording, once; each method writes a section."""

    def __init__(self, recording: Recording, speech: Language) -> None:
        self.speech, self.tr, self.translated = speech, speech.tr, speech.translated
        self.recording, self.manifest = recording, recording.manifest
        self.results = read_course(recording.each_result(), self.manifest["outputs"], self.manifest["modalities"])
        self.marks = sorted(recording.marks(), key=lambda mark: mark.t)
        self.log = recording.alarms()
        self.hop = float(self.manifest["hop"])
        self.clock = _Clock(recording.origin, speech)
        times, self.shown, self.outputs = self.results.times, self.results.shown, self.results.outputs
        self.start = float(times[0]) - self.hop if len(times) else 0.0
        self.end = float(times[-1]) if len(times) else 0.0

    def page(self) -> str:
        title = self.tr("Session report: {name}", name=_text(self.recording.folder.resolve().name))
        demo = bool(self.manifest["bundle"]["demo"])
        said = self.translated(notice(demo, self.recording.subject))
        parts = [
            f"<h1>{html.escape(title)}</h1>",
            f'<p class="notice{" demo" if demo else ""}">{_safe(said[:1].upper() + said[1:])}.</p>',
            f"<p>{_safe(self.translated(INTENDED_USE))}</p>",
            self._about(), self._missing(), *self._trends(), self._gaps(), self._events(), self._ratings(),
            self._quality(), self._latency(), self._made_with(),
        ]  # fmt: skip
        return page(title, "\n".join(part for part in parts if part), _STYLE, self.speech.code)

    def _about(self) -> str:
        origin, tr = self.recording.origin, self.tr
        unknown = tr("not known: the run was not live, or did not say")
        rows = [
            (tr("Task"), self.manifest["task"]),
            (tr("Stream time 0"), self.clock.day(origin) if origin else unknown),
            (tr("Results"), tr("{n}, {some} of them with a number", n=len(self.results), some=len(self.shown))),
        ]
        if len(self.results):
            begin, end, lasts = self.clock(self.start), self.clock(self.end), _duration(self.end - self.start)
            span = tr("{begin} to {end}, {lasts}", begin=begin, end=end, lasts=lasts)
            rows.insert(2, (tr("Span of the results"), span))
        for step in self.manifest.get("clock", []):
            how, at = self.translated(in_words(step["step"])), self.clock(step["t"])
            said = tr("was {how} at {at}; all times are by the clock as it was set last", how=how, at=at)
            rows.append((tr("The system's clock"), said))
        if code := self.recording.recorded_subject:
            rows.insert(1, (tr("Person"), code))
        before = self.manifest.get("continues")
        if before:
            gap = before.get("gap")
            known = isinstance(gap, (int, float)) and math.isfinite(gap)
            lost = tr(", after {gap} without recording", gap=_duration(gap)) if known else ""
            about = tr("{name}{lost}; this report is about this part alone", name=before.get("recording"), lost=lost)
            rows.append((tr("Continues"), about))
        return _pairs("about", rows)

    def _missing(self) -> str:
        said = [*self.recording.remarks, *self.recording.damage]
        if not said:
            return ""
        lines = "".join(f"<li>{_safe(self.translated(one))}</li>" for one in said)
        return f"{self._head(self.tr('What is missing'))}<ul>{lines}</ul>"

    @staticmethod
    def _head(title: str) -> str:
        return f"<h2>{_safe(title)}</h2>"

    def _none(self, file: str, said: str) -> str:
        """`said` of a file without a line, unless damaged lines of it were left out: they may have said otherwise."""
        n = self.recording.unread.get(file, 0)
        if not n:
            return said
        return self.speech.trn(
            "{n} damaged line of {file} left out, and there are no others",
            "{n} damaged lines of {file} left out, and there are no others",
            n, file=file,
        )  # fmt: skip

    # --- outputs over time -----------------------------------------------------------------------------------------
    def _trends(self) -> list[str]:
        if not len(self.shown):
            none = self.tr("the recording has no results")
            why = self.tr("no result has a number") if self.results else self._none("results.jsonl", none)
            return [f"{self._head(self.tr('Trend'))}<p>{_safe(self.tr('No trend: {why}.', why=why))}</p>"]
        return [self._trend(name) for name in self.manifest["outputs"]]

    def _title(self, name: str) -> str:
        tr = self.tr
        titles = {"pain": tr("Pain probability"), "valence": tr("Valence"), "arousal": tr("Arousal")}
        return titles.get(name, _text(name))

    def _trend(self, name: str) -> str:
        pain, tr = name == "pain", self.tr
        title = self._title(name)
        limits = self._limits() if pain and self._alarmed else []
        rated = [
            (m.t, m.rating, f"{self.clock(m.t)}: {tr('rating {rating}', rating=m.rating)}")
            for m in uncorrected(self.marks)
        ]
        dots = [(t, rating, said) for t, rating, said in rated if rating is not None] if pain else []
        chart = Chart(
            re.sub(r"\W", "", name) or "output", tr("{what} over time", what=title), self.start, self.end, self.shown,
            self.outputs[name], 0.0 if pain else -1.0, 1.0,
            {at: self._percent(at) for at in (0.0, 0.5, 1.0)} if pain else {-1.0: "−1", 0.0: "0", 1.0: "1"},
            result_gap(self.hop), self.clock.label(self.end - self.start), self.clock.zero,
            limits=limits, gaps=self._stretches(), dots=dots,
            spans=[self._span(number, event) for number, event in enumerate(self.log.events, 1)] if pain else (),
        )  # fmt: skip
        key = [tr("line: mean"), tr("band: lowest to highest"), tr("hatched: no number")]
        key += [tr("dashed: the alarm's threshold, {limits}", limits=self._in_words(limits))] if limits else []
        key += [tr("dots: ratings 0–10, axis on the right")] if dots else []
        key += [tr("bars: events (red: the person; grey: the equipment)")] if chart.spans else []
        return (
            f'<h2>{html.escape(title)}</h2><figure class="wide">{chart.svg()}'
            f"<figcaption>{html.escape('; '.join(key))}. {self.clock.note}</figcaption></figure>"
        )

    def _span(self, number: int, event: AlarmEvent) -> tuple[float, float, int, str]:
        lane = 0 if event.kind == "physiological" else 1
        return (
            event.start,
            self.end if event.end is None else event.end,
            lane,
            f"{number}: {_text(self.translated(event.text))}",
        )

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
        left, tr = len(found) - MOST_GAPS, self.tr
        more = f"<p>{tr('And {n} more.', n=left)}</p>" if left > 0 else ""
        return self._head(tr("Without a number")) + _table((tr("from"), tr("to"), tr("for"), tr("why")), rows) + more

    def _why(self, begin: float, end: float) -> str:
        reasons = self.results.why(begin + self.hop / 2, end + self.hop / 2)
        if not reasons:
            return self.tr("no results were recorded")
        return "; ".join(self.translated(reason) for reason, _ in reasons.most_common(MOST_REASONS))

    # --- events and ratings ----------------------------------------------------------------------------------------
    def _events(self) -> str:
        tr = self.tr
        head = self._head(tr("Events"))
        log, about = self.log, ""
        if not log.judged and not log.events:
            return f"{head}<p>{_safe(tr('Not known: {why}.', why=self._not_judged()))}</p>"
        if log.off:
            off = self.translated(log.off)
            about = f"<p>{_safe(tr('No alarms about the person in this run: {why}.', why=off))}</p>"
        if not log.events:
            return f"{head}{about}<p>{self._none('alarms.jsonl', tr('No alarm signalled'))}.</p>"
        rows = [self._event_row(number, event) for number, event in enumerate(log.events, 1)]
        names = (
            "", tr("event"), tr("onset"), tr("end"), tr("peak"), tr("threshold"), tr("acknowledged"), tr("label"),
        )  # fmt: skip
        counts = Counter(event.label for event in log.events if event.label)
        labelled = ", ".join(f"{counts[label]} {self._label(label)}" for label in counts) or tr("none")
        said = tr("Labels: {labels}, of {n}.", labels=labelled, n=len(log.events))
        return f"{head}{about}{_table(names, rows)}<p>{_safe(said)}</p>"

    def _label(self, label: str) -> str:
        tr = self.tr
        return {"true": tr("true"), "false": tr("false"), "unsure": tr("unsure")}.get(label, label)

    def _event_row(self, number: int, event: AlarmEvent) -> tuple[str, ...]:
        seen = NONE if event.acknowledged is None else self.clock(event.acknowledged)
        over = (
            self.tr("on at the end")
            if event.end is None
            else f"{self.clock(event.end)} ({_duration(event.end - event.start)})"
        )
        return (
            str(number), self.translated(event.text), self.clock(event.start), over, self._percent(event.peak),
            self._percent(event.limit), f"{seen} ({event.by})" if event.by and event.acknowledged is not None else seen,
            self._label(event.label) if event.label else NONE,
        )  # fmt: skip

    def _not_judged(self) -> str:
        recording = self.recording
        if not (recording.folder / "alarms.jsonl").exists():
            if "alarms.jsonl" in recording.seal.listed:
                return self.tr("the record of the alarms, alarms.jsonl, was removed from the recording")
            if recording.seal.closed:
                return self.tr("the recording was made by a version that did not record events")
            return self.tr(
                "there is no alarms.jsonl: it was removed, or the recording was made by a version without it"
            )
        if recording.unread.get("alarms.jsonl"):
            return self.tr("the record of the alarms is damaged")
        return self.tr("nothing judged alarms in this run")

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
        said = [self.tr("off") if math.isnan(limit) else self._percent(limit) for _, limit in limits]
        return ", ".join(
            text if not i else self.tr("{limit} from {at}", limit=text, at=self.clock(t))
            for i, (text, (t, _)) in enumerate(zip(said, limits))
        )

    def _pain_alarm(self) -> str:
        if "pain" not in self.outputs:
            return self.tr("none: the task estimates no pain")
        if self.log.off:
            return self.tr("off: {why}", why=self.translated(self.log.off))
        if not self.log.settings:
            return self.tr("not known: {why}", why=self._not_judged())
        first, *later = self.log.settings
        said = [self._alarm(first[1])]
        for t, settings in later:
            words = self._alarm(settings)
            at = self.tr("later") if t is None else self.tr("from {time}", time=self.clock(t))
            said.append(f"{at}: {words}")
        return ". ".join(said)

    def _ratings(self) -> str:
        tr = self.tr
        head = self._head(tr("Ratings and notes"))
        if not self.marks:
            return f"{head}<p>{self._none('events.jsonl', tr('None were recorded'))}.</p>"
        kept, estimates = {mark.t for mark in uncorrected(self.marks)}, self._estimates()
        values = {mark.t: mark.rating for mark in final(self.marks) if mark.rating is not None}
        rows = []
        for mark in self.marks:
            rating, about = NONE, NONE
            if mark.corrects is not None:
                rating = tr("withdrawn") if mark.rating is None else str(mark.rating)
                about = tr("for the rating of {time}", time=self.clock(mark.corrects))
            elif mark.rating is not None:
                last = values.get(mark.t)
                rating = f"{mark.rating}"
                if last != mark.rating:
                    after = tr("withdrawn") if last is None else last
                    rating = tr("{rating}, later {after}", rating=mark.rating, after=after)
                about = estimates(mark.t) if mark.t in kept else NONE if last is None else tr("corrected at once")
            rows.append((self.clock(mark.t), rating, about, mark.text or NONE))
        estimate = tr("estimate since the last rating, at most {n} s", n=f"{SPAN:g}")
        table = _table((tr("time"), tr("rating"), estimate, tr("note")), rows)
        return f"{head}{self._agreement()}{table}"

    def _agreement(self) -> str:
        if "pain" not in self.outputs:
            return f"<p>{_safe(self.tr('No agreement: the task estimates no pain.'))}</p>"
        limits = self.log.limits_at(self.shown)
        found: Agreement = agreement(self.marks, self.shown, self.outputs["pain"], limits)
        said = [self.translated(line) for line in found.lines()]
        if self.manifest["smooth"]:
            smooth = self._number(self.manifest["smooth"])
            said.append(self.tr("Estimates are means over {n} s (--smooth).", n=smooth))
        if found.interval is not None:
            said.append(
                self.tr("Ratings of one person in one session are not independent, so the interval is too narrow.")
            )
        return f"<p>{_safe(' '.join(said))}</p>"

    def _estimates(self) -> Callable[[float], str]:
        """The estimate before the rating at a time: of the windows that the agreement counts."""
        if "pain" not in self.outputs:
            return lambda t: NONE
        pain = self.outputs["pain"]
        rated = about(self.marks, self.shown)
        words = {
            mark.t: self.tr(
                "{mean} (highest {high})", mean=self._percent(pain[at].mean()), high=self._percent(pain[at].max())
            )
            for mark, at in rated
        }
        return lambda t: words.get(t, self.tr("no number"))

    # --- quality, latency, versions --------------------------------------------------------------------------------
    def _quality(self) -> str:
        tr = self.tr
        head = self._head(tr("Time in quality"))
        names = {"face": tr("face"), "voice": tr("voice"), "eda": tr("EDA")}
        if not self.results:
            none = self._none("results.jsonl", tr("the recording has no results"))
            return f"{head}<p>{_safe(tr('Not known: {why}.', why=none))}</p>"
        whole = max(round((self.end - self.start) / self.hop), len(self.results))
        rows = []
        for name in self.manifest["modalities"]:
            source = self.manifest["sources"].get(name) or ""
            verdicts = self.results.verdicts[name]
            good, why = verdicts.good, verdicts.why
            common = why.most_common(MOST_REASONS)
            reasons = [f"{self.translated(reason)} {_duration(n * self.hop)}" for reason, n in common]
            reasons += [self.translated(OTHER)] if len(why) > MOST_REASONS else []
            counts = (good, verdicts.total - good, whole - verdicts.total)
            shares = [f"{_duration(n * self.hop)} ({self._percent(n / whole)})" for n in counts]
            usable = [*shares, "; ".join(reasons) or NONE] if source else [tr("no source"), NONE, NONE, NONE]
            rows.append((names.get(name, name), source or NONE, *usable))
        titles = (tr("sensor"), tr("source"), tr("usable"), tr("not usable"), tr("no result"), tr("why not usable"))
        return head + _table(titles, rows)

    def _latency(self) -> str:
        rows = []
        for stage, found in self.results.latency.items():
            if found.size:
                parts = [self.speech.local(f"{value:.1f}") for value in np.percentile(found, (50, 95, 99))]
                rows.append((stage, *parts, str(found.size)))
        tr = self.tr
        head = self._head(tr("Latency"))
        if not rows:
            return f"{head}<p>{self._none('results.jsonl', tr('Not recorded'))}.</p>"
        live = tr("The total counts from the window's end.")
        files = tr("The total is computing time, because the run was not live.")
        what = live if self.manifest.get("realtime") else files
        return f"{head}{_table(('ms', 'p50', 'p95', 'p99', tr('results')), rows)}<p>{_safe(what)}</p>"

    def _made_with(self) -> str:
        manifest, bundle = self.manifest, self.manifest["bundle"]
        known = manifest.get("host")
        host: dict[str, Any] = known if isinstance(known, dict) else {}
        tr = self.tr
        unknown, none = tr("not known"), tr("none")
        weights = tr("demo, trained on simulated people") if bundle["demo"] else tr("not a demo")
        promised = self.translated(manifest.get("uncertainty", "not known"))
        rows = [
            (tr("Recorded by"), f"jmt-edge {host.get('jmt_edge', tr('of an unknown version'))}"),
            (tr("Python, machine"), f"{host.get('python', unknown)}, {host.get('machine', unknown)}"),
            (tr("Report by"), f"jmt-edge {__version__}"),
            (tr("Bundle"), bundle["id"]),
            (tr("Bundle's sha256"), bundle.get("sha256") or tr("not recorded")),
            (tr("Weights"), weights),
            (tr("Back-end, precision"), f"{manifest['backend']}, {self._values(manifest.get('precision'))}"),
            (tr("Threads"), manifest["threads"] or tr("all cores")),
            (tr("Sources"), self._values(manifest["sources"])),
            (tr("Raw data kept"), ", ".join(manifest["raw"]) or none),
            (tr("Hop, smoothing"), f"{self._number(self.hop)} s, {self._number(manifest['smooth'])} s"),
            (tr("Novelty, person"), f"{manifest.get('novelty', unknown)}, {manifest.get('person', unknown)}"),
            (tr("Uncertainty"), self.speech.local(promised)),
            (tr("Facial actions"), tr("measured") if manifest.get("actions") else tr("not measured")),
            (tr("Pain alarm"), self._pain_alarm()),
        ]
        return self._head(tr("Made with")) + _pairs("about", rows)

    # --- words -----------------------------------------------------------------------------------------------------
    def _number(self, value: float) -> str:
        return self.speech.local(f"{value:g}")

    def _percent(self, value: float | None) -> str:
        return NONE if value is None else self.speech.local(f"{value:.0%}")

    def _values(self, values: Any) -> str:
        none = self.tr("none")
        if not isinstance(values, dict):
            return self.tr("not known")
        return ", ".join(f"{name} {value if value != '' else none}" for name, value in values.items()) or none

    def _alarm(self, settings: Mapping[str, Any]) -> str:
        limit, hysteresis = self._percent(settings["limit"]), self._percent(settings["hysteresis"])
        words = self.tr(
            "threshold {limit}, hysteresis {hysteresis}, delay {n} s",
            limit=limit, hysteresis=hysteresis, n=self._number(settings["delay"]),
        )  # fmt: skip
        return words if settings["enabled"] else self.tr("{words}; switched off", words=words)


class _Clock:
    """Stream times as words: of the local clock where it is known when the run was, else since its start."""

    def __init__(self, origin: datetime | None, speech: Language) -> None:
        self._origin: datetime | None = None
        self.tr = tr = speech.tr
        self.note = tr("Times are since the run's start.")
        self.zero = 0.0
        try:
            if origin is not None:
                self._origin = origin.astimezone()
                shift = self._origin.utcoffset() or timedelta()
                self.zero = (self._origin - datetime(1970, 1, 1, tzinfo=timezone.utc) + shift).total_seconds() % 86400
                self.note = tr(
                    "Times are local, {zone} (UTC{shift}).", zone=f"{self._origin:%Z}", shift=f"{self._origin:%z}"
                )
        except (OverflowError, ValueError, OSError):
            self._origin = None

    def __call__(self, t: float) -> str:
        return self._at(t, "%H:%M:%S")

    def label(self, span: float) -> Callable[[float], str]:
        """How an axis of `span` s names a time."""
        form = "%H:%M:%S" if span < 480 else "%H:%M" if span < 86400 else self.tr("%d %H:%M")
        return lambda t: self._at(t, form)

    def day(self, origin: datetime) -> str:
        form = self.tr("%Y-%m-%d %H:%M:%S")
        return f"{self._at(0.0, form)}. {self.note}" if self._origin else str(origin)

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
