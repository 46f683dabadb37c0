"""What the terminal view shows of a run: as a screen of any size, and as one line a result."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from ..capture.base import State, Status
from ..languages import Language, language
from ..observer import RunInfo
from ..result import STAGES, Quality, Result
from ..summary import notice
from .actions import in_words as actions_in_words
from .letters import BARS, MINUS, Letters, Piece
from .rest import in_words

RANGES = {"pain": (0.0, 1.0), "valence": (-1.0, 1.0), "arousal": (-1.0, 1.0)}
EDA_RATE = 2.0  # points per second
MOST = 1200  # points of a chart: the columns of the widest terminals
NONE = "—"
_WIDE = 67  # columns from which source and attention are shown; a verdict that cannot be read is worse than no source
_URGENT = {"high": "!!! ", "medium": "!! ", "low": "! "}
_COLOURS = {"high": "red", "medium": "yellow", "low": "cyan"}


@dataclass
class View:
    """The newest that is known of a run.

    age: s since the loop was last active; stale: that is too long, so nothing of before may be shown as if it were now.
    losses: why a sensor delivers nothing, as `Judge.loss`. history: (index, outputs) of results. eda: (half second of
    stream time, mean). level: dBFS. alarms: `Judge.snapshot`. p95: of the total latency, ms.
    """

    info: RunInfo
    result: Result | None = None
    age: float = 0.0
    stale: bool = False
    statuses: Mapping[str, Status] = field(default_factory=dict)
    losses: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    history: Sequence[tuple[int, dict[str, float] | None]] = ()
    eda: Sequence[tuple[int, float | None]] = ()
    level: float | None = None
    alarms: Mapping[str, Any] = field(default_factory=dict)
    recording: bool = False
    message: str = ""
    bell: bool = False
    p95: float | None = None
    speech: Language = field(default_factory=lambda: language("en"))

    @property
    def now(self) -> Result | None:
        """The result whose values may be shown."""
        return None if self.stale else self.result

    @property
    def reason(self) -> str:
        """Why there are no values; empty where there are."""
        tr = self.speech.tr
        if self.stale:
            return tr("the run has stalled: no results for {n} s", n=f"{self.age:.0f}")
        return tr("waiting for the first window") if self.result is None else self.translated(self.result.reason)

    def translated(self, sentence: str) -> str:
        return self.speech.translated(sentence)

    def shown(self, output: str, value: float) -> str:
        return self.speech.local(shown(output, value))


def chart(values: Iterable[float | None], low: float, high: float, rows: int = 1) -> list[str]:
    """`rows` lines, top first, with one character per value, a space where it is None; `low` and `high` are the ends
    of the scale."""
    cells = rows * len(BARS)
    scale = (cells - 1) / (high - low) if high > low else 0.0
    levels = [0 if v is None else 1 + round(min(max(v - low, 0.0), high - low) * scale) for v in values]
    lines = []
    for base in range(cells - len(BARS), -1, -len(BARS)):
        filled = (min(max(level - base, 0), len(BARS)) for level in levels)
        lines.append("".join(BARS[n - 1] if n else " " for n in filled))
    return lines


def shown(output: str, value: float) -> str:
    """A number of an output, as it is shown."""
    return signed(value) if RANGES[output][0] < 0 else f"{value:.2f}"


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)


def origin(result: Result, promised: str, speech: Language | None = None) -> str:
    """What a result comes from and how sure it is: `from face + EDA; 90%: pain yes`.

    promised: `RunInfo.uncertainty`.
    """
    speech = speech or language("en")
    tr, local = speech.tr, speech.local
    used, outputs = _names(speech), _outputs_in_words(speech)
    sources = tr("from {what}", what=" + ".join(used[name] for name in result.used))
    known = dict(result.uncertainty or {})
    coverage = known.pop("coverage", None)
    if not known:
        what = speech.translated(promised) if promised.startswith("not known") else tr("not known")
        return f"{sources}; {tr('uncertainty {what}', what=what)}"
    spans = []
    for o, span in known.items():
        if o == "pain":
            words = f" {tr('or')} ".join(map(speech.translated, span))
        else:
            words = tr("{low} to {high}", low=local(shown(o, span[0])), high=local(shown(o, span[1])))
        spans.append(f"{outputs[o]} {words}")
    return f"{sources}; {local(f'{coverage:.0%}')}: {', '.join(spans)}"


def _names(speech: Language) -> dict[str, str]:
    return {"face": speech.tr("face"), "voice": speech.tr("voice"), "eda": speech.tr("EDA")}


def _outputs_in_words(speech: Language) -> dict[str, str]:
    return {"pain": speech.tr("pain"), "valence": speech.tr("valence"), "arousal": speech.tr("arousal")}


# --- alarms ----------------------------------------------------------------------------------------------------------


def _wall(at: float, seconds: bool) -> str:
    return time.strftime("%H:%M:%S" if seconds else "%H:%M", time.localtime(at))


def sentence(alarm: Mapping[str, Any], speech: Language | None = None) -> str:
    """An alarm of a snapshot in words, as on the page: `Pain probability was ≥ 70% from 13:02 to 13:03, peak 95%`."""
    speech = speech or language("en")
    begin, end, tr = alarm["from"], alarm["to"], speech.tr
    what = speech.translated(alarm["text"])
    if end is None:
        return tr("{what} since {time}", what=what, time=_wall(begin, False))
    same, once = _wall(begin, False) == _wall(end, False), _wall(begin, True) == _wall(end, True)
    if once:
        parts = [tr("{what} at {time}", what=what, time=_wall(end, True))]
    else:
        span = {"from": _wall(begin, same), "to": _wall(end, same)}
        parts = [tr("{what} from {from} to {to}", what=what, **span)]
    parts += [tr("{n} times", n=alarm["times"])] if alarm["times"] > 1 else []
    parts += [tr("peak {value}", value=speech.local(f"{alarm['peak']:.0%}"))] if alarm["peak"] is not None else []
    return ", ".join(parts)


def notes(alarm: Mapping[str, Any], speech: Language | None = None) -> str:
    """What a person did about an alarm, and what is known now: `over, not acknowledged`."""
    tr = (speech or language("en")).tr
    said = {"latched": tr("over, not acknowledged"), "acknowledged": tr("acknowledged")}.get(alarm["state"], "")
    return ", ".join(filter(None, [said, tr("no data now") if alarm["no_data"] else ""]))


def calm(info: RunInfo, speech: Language | None = None) -> str:
    """What is said where nothing alarms."""
    speech = speech or language("en")
    tr = speech.tr
    if info.replay and not info.realtime:
        return tr("REPLAY of {name}: not live, no alarms", name=info.replay)
    if not info.realtime:
        return tr("NOT LIVE: files at full speed, no alarms")
    if info.alarms_off and "pain" in info.bundle.task.outputs:
        return tr("DEMO: pain alarms off: {why}", why=speech.translated(info.alarms_off))
    return tr("DEMO: no alarms") if info.bundle.demo else tr("No alarms")


def _style(alarm: Mapping[str, Any]) -> str:
    colour = _COLOURS[alarm["priority"]]
    signals = alarm["state"] != "acknowledged"
    return f"bold reverse {colour}" if signals and alarm["priority"] == "high" else f"{'bold ' * signals}{colour}"


def _alarm_lines(view: View, width: int, most: int, letters: Letters) -> list[Text]:
    """The gravest first, in full where there is room; the end of the last line counts those that are not shown."""
    alarms = view.alarms.get("alarms", ())
    left = view.alarms.get("pause_left", 0)
    tr = view.speech.tr
    paused = tr("paused {time}", time=f"{math.ceil(left) // 60}:{math.ceil(left) % 60:02d}") if left else ""
    if not alarms:
        style = "dim" if view.info.realtime else "bold"
        return [letters.line([(calm(view.info, view.speech), style), (f"   {paused}" if paused else "", "")], width)]
    lines: list[tuple[str, str]] = []
    count = 0
    for alarm in alarms:
        if len(lines) >= most:
            break
        said = notes(alarm, view.speech)
        whole = f"{_URGENT[alarm['priority']]}{sentence(alarm, view.speech)}{f' ({said})' if said else ''}"
        if count == 0 and alarm["to"] is None and alarm["detail"]:
            whole += f": {view.translated(alarm['detail'])}"
        lines += [(part, _style(alarm)) for part in letters.wrap(whole, width, most if count == 0 else 1)]
        count += 1
    more = len(alarms) - count
    ends = letters("".join(f"  {end}" for end in (tr("{n} more", n=more) if more else "", paused) if end))
    out = []
    for i, (line, style) in enumerate(lines):
        end = ends if i == len(lines) - 1 else ""
        text = letters.line([(line, "")], width - len(end), style=style)
        out.append(text.append(end, "bold"))
    return out


# --- parts of the screen ---------------------------------------------------------------------------------------------


def _header(view: View, width: int, letters: Letters) -> Text:
    info, now = view.info, view.now
    precision = ", ".join(sorted(set(info.precision.values())))
    at = f"{view.speech.local(f'{now.t:8.1f}')} s" if now else f"{NONE:>8} s" if view.stale else ""
    rec = " ● REC " if view.recording else ""
    end = letters(f"{rec}  {at}" if rec else at)
    name = [("jmt-edge ", "bold"), (f"{info.bundle.id}  {info.backend} {precision}", "")]
    text = letters.line(name, max(0, width - len(end) - 1))  # the name gives way: REC and the time are never cut
    text.pad_right(max(0, width - len(end) - text.cell_len))
    text.append(end[: len(letters(rec))], "bold white on red" if rec else "")
    text.append(end[len(letters(rec)) :])
    return text


def _outputs(view: View, width: int, rows: Sequence[int], letters: Letters) -> tuple[list[Text], float]:
    """The lines, and how many seconds they span."""
    info, now = view.info, view.now
    past = dict(view.history)
    last = max(past, default=0) + (int(view.age / info.hop) if view.stale else 0)
    scaled, demo = max(rows) > 1, info.bundle.demo
    room = min(MOST, max(1, width - 16 - 5 * demo - 7 * scaled))
    values = [past.get(i) for i in range(last - room + 1, last + 1)]
    reduced = now is not None and len(now.used) < len(info.bundle.task.names)
    lines, words = [], _outputs_in_words(view.speech)
    for name, tall in zip(info.bundle.task.outputs, rows):
        value = now.outputs[name] if now and now.outputs else None
        low, high = RANGES[name]
        bars = chart([one[name] if one else None for one in values], low, high, tall)
        for row, bar in enumerate(bars):
            first = row == 0
            number = (NONE if value is None else view.shown(name, value)) if first else ""
            end = {0: f"{high:g}", tall - 1: f"{low:g}".replace("-", MINUS)}.get(row, "") if tall > 1 else ""
            lines.append(letters.line([
                (f"{words[name] if first else '':<8} ", ""), (f"{number:>6}", "dim" if reduced else "bold"),
                ((" DEMO" if first and value is not None else "     ") if demo else "", "bold yellow"),
                (f"{end:>6} " if scaled else "", "dim"), (f" {bar}" if not scaled else bar, ""),
            ], width))  # fmt: skip
    return lines, room * info.hop


def _why(view: View, width: int, letters: Letters) -> Text:
    now = view.now
    if now is not None and now.outputs:
        return letters.line([(origin(now, view.info.uncertainty, view.speech), "dim")], width)
    return letters.line([(view.reason, "yellow")], width)


def _verdict(view: View, name: str) -> list[Piece]:
    tr = view.speech.tr
    now, lost = view.now, tuple(map(view.translated, view.losses.get(name, ("", ""))))
    status = view.statuses.get(name)
    quality = now.quality[name] if now else None
    if view.stale:
        return [(NONE, "")]
    said: list[Piece] = []
    if lost[0] and not (quality and quality.ok):
        said.append((", ".join(filter(None, lost)), "red"))
    elif quality is not None:
        said += _judged(quality, view.speech)
        if lost[0]:
            said.append((f"  {lost[0]}", "yellow"))
    if now is not None and quality is not None:
        if quality.track > 1:
            said.append((f"  {tr('person {n}', n=quality.track)}", "bold yellow"))
        if quality.turn:
            said.append((f"  {tr('turned by {n}°', n=quality.turn)}", "dim"))
        if quality.novelty is not None:
            said.append((f"  {tr('novelty {n}', n=view.speech.local(f'{quality.novelty:.1f}'))}", "dim"))
        if without := (now.without or {}).get(name):
            values = ", ".join(view.shown(o, v) for o, v in without.items())
            said.append((f"  {tr('without it {values}', values=values)}", "dim"))
    if status is not None and (status.lost or status.reconnects):
        said.append((f"  {tr('lost {lost}, reconnected {n}', lost=status.lost, n=status.reconnects)}", "dim"))
    waits = status is not None and status.state not in (State.STREAMING, State.ENDED)
    if status is not None and waits and quality and quality.ok and not lost[0]:
        said.append((f"  {view.translated(status.state.value)}", "yellow"))
    return said


def _judged(quality: Quality, speech: Language) -> list[Piece]:
    reason = speech.translated(quality.reason)
    if not quality.ok:
        return [(reason, "red")]
    score = speech.local(f"{quality.score:.2f}")
    return [(f"ok  {score}", "green"), (f"  {reason}" if reason else "", "yellow")]


def _sensors(view: View, width: int, head: bool, letters: Letters) -> list[Text]:
    tr = view.speech.tr
    names, none = _names(view.speech), tr("none")
    wide = width >= _WIDE - 4
    longest = max(6, *(len(view.info.sources.get(name) or none) for name in view.info.bundle.task.names))
    source = min(longest, 40, max(18, width // 5)) if wide else 0
    lines = []
    if head:
        there = f"{tr('source'):<{source}}  {tr('attention'):<12}  " if wide else ""
        titles = f"{tr('sensor'):<7} {there}{tr('quality')}"
        lines.append(letters.line([(titles, "dim")], width))
    for name in view.info.bundle.task.names:
        pieces: list[Piece] = [(f"{names[name]:<7} ", "")]
        if wide:
            share = view.now.attention[name] if view.now else None
            drawn = NONE if share is None else f"{BARS[-1] * round(share * 6):<6} {view.speech.local(f'{share:4.0%}')}"
            given = letters.line([(view.info.sources.get(name) or none, "")], source).plain
            pieces.append((f"{given:<{source}}  {letters(drawn):<12}  ", ""))
        lines.append(letters.line([*pieces, *_verdict(view, name)], width))
    return lines


def _eda(view: View, width: int, rows: int, letters: Letters) -> list[Text]:
    slots = dict(view.eda)
    room = min(MOST, max(1, width - 16 - 7 * (rows > 1)))
    newest = view.eda[-1][0] if view.eda else 0
    last = newest
    if view.result is not None:  # a second on its way is usual; beyond that the line ends before now
        last = max(last, int((view.result.t - 1.0 + view.age * view.stale) * EDA_RATE))
    values = [slots.get(slot) for slot in range(last - room + 1, last + 1)]
    known = [v for v in values if v is not None]
    status = view.statuses.get("eda")
    unit = (status.unit if status else "") or "µS"
    lost = view.stale or view.losses.get("eda", ("", ""))[0]
    value = None if lost or last > newest else values[-1]
    now = f"{view.speech.local(f'{value:6.2f}')} {unit}" if value is not None else f"     {NONE} {unit}"
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    high = max(high, low + 0.1)
    lines = []
    for row, bar in enumerate(chart(values, low, high, rows)):
        end = {0: f"{high:.2f}", rows - 1: f"{low:.2f}"}.get(row, "") if rows > 1 and known else ""
        end = view.speech.local(end)
        head = f"EDA {now}" if row == 0 else ""
        lines.append(letters.line([(f"{head:<15} ", ""), (f"{end:>6} " if rows > 1 else "", "dim"), (bar, "")], width))
    return lines


def _voice(view: View, width: int, letters: Letters) -> Text:
    name = view.speech.tr("voice")
    level = None if view.stale or view.losses.get("voice", ("", ""))[0] else view.level
    if level is None:
        return letters.line([(f"{name}    {NONE} dBFS", "")], width)
    bar = BARS[-1] * round(min(1.0, max(0.0, level + 60) / 60) * min(60, max(10, width - 20)))
    return letters.line([(f"{name} {f'{level:.0f}'.replace('-', MINUS):>4} dBFS  {bar}", "")], width)


def _latency(view: View, width: int, letters: Letters) -> Text:
    result = view.now
    if result is None:
        return letters.line([(f"ms: {NONE}" if view.stale else "", "")], width)
    # 80 columns have room for the parts or the whole, so the parts where they were timed
    apart = any(result.latency_ms.get(stage) is not None for stage in ("backbones", "fusion"))
    stages = [stage for stage in STAGES if stage not in (("networks",) if apart else ("backbones", "fusion"))]
    times = {stage: result.latency_ms.get(stage) for stage in stages}
    said = [f"{stage} {NONE if ms is None else f'{ms:.0f}'}" for stage, ms in times.items()]
    spread = f" (p95 {view.p95:.0f})" if view.p95 is not None else ""
    dropped = (f"{view.speech.tr('dropped')} {result.dropped}  ", "bold red" if result.dropped else "")
    return letters.line([dropped, (f"ms: {'  '.join(said)}{spread}", "")], width)


def keys(view: View, width: int) -> str:
    """The longest list of keys that fits; the shortest where none does."""
    tr = view.speech.tr
    bell = tr("on") if view.bell else tr("off")
    said = [
        tr("q quit  m mark  0-9, t = 10 pain rating  u undo it  c correct the last  r record on/off  a acknowledge  "
           "p pause alarms  b bell (it is {bell})", bell=bell),
        tr("q quit  m mark  0-9, t=10 rate  u undo  c correct  r record  a acknowledge  p pause  b bell ({bell})",
           bell=bell),
        tr("q quit m mark 0-9,t rate u undo c fix r rec a acknowledge p pause b bell ({bell})", bell=bell),
        tr("q quit m mark 0-9,t rate u undo c fix r rec a ack p pause b"),
        tr("q quit m 0-9,t u undo c r a ack p b"),
    ]  # fmt: skip
    if not view.info.realtime:  # nothing to note or acknowledge
        said = [tr("q quit   r record on/off"), tr("q quit  r record")]
    return next((line for line in said if len(line) <= width), said[-1])


def _notice(view: View, width: int, letters: Letters) -> Text:
    bundle = view.info.bundle
    demo = "DEMO: " if bundle.demo else ""
    tr = view.speech.tr
    short = tr("not for clinical use")
    whose = tr("personalised to {who}; {notice}", who=bundle.subject, notice=short) if bundle.subject else short
    whole = view.translated(notice(bundle.demo, bundle.subject))
    options = [f"{demo}{said}" for said in (whole, whose, short)]
    said = next((line for line in options if len(line) <= width), options[-1])
    return letters.line([(said, "bold yellow" if demo else "yellow")], width)


def message(view: View) -> str:
    """How far the person is from rest, and what was last noted."""
    rested = view.translated(in_words(view.now.rest)) if view.now is not None else ""
    return "   ".join(filter(None, (rested, view.message)))


# --- the whole -------------------------------------------------------------------------------------------------------


def draw(view: View, width: int, height: int, letters: Letters) -> RenderableType:
    """The screen. What matters most always shows; what there is room for beyond that is added in the order below."""
    info, tr = view.info, view.speech.tr
    task, said = info.bundle.task, message(view)
    needs = 4 + len(task.outputs) + len(task.names)  # header, alarm, notice, keys
    needs += not (view.now and view.now.outputs)  # the reason why there are no values
    spare = height - needs

    def take(lines: int, wanted: bool = True) -> bool:
        """Use so many of the lines left, where they suffice."""
        nonlocal spare
        fits = wanted and spare >= lines
        spare -= lines * fits
        return fits

    crowded = len(_alarm_lines(view, width, 2, letters)) > 1
    alarms = 1 + take(1, crowded)
    noted = take(1, bool(said))
    why = not (view.now and view.now.outputs) or take(1)
    eda = take(1, "eda" in task.names)
    head = take(1)
    voice = take(1, "voice" in task.names)
    acted = [view.translated(line) for line in actions_in_words(view.now.actions if view.now else None) if line]
    acted = acted if take(2, info.actions) else []
    framed = take(4)
    latency = take(1)
    noted = noted or take(1)
    # the same number of lines with an alarm as without, so that nothing jumps when one begins
    room = alarms + take(1, alarms < 2) + take(1, height >= 30) + take(1, height >= 30)
    signals = eda or voice
    boxed = signals and framed and take(2)
    charts = len(task.outputs) + eda
    each, over = divmod(max(0, spare), charts)
    rows = [1 + each + (i < over) for i in range(charts)]

    inner = width - 4 * framed
    found = _alarm_lines(view, width, room, letters)
    blank = letters.line([("", "")], width)
    parts: list[RenderableType] = [_header(view, width, letters), *found, *[blank] * (room - len(found))]
    lines, span = _outputs(view, inner, rows[: len(task.outputs)], letters)
    lines += [_why(view, inner, letters)] if why else []
    parts += _block(tr("outputs, last {n} s", n=f"{span:.0f}"), lines, framed, letters)
    parts += _block(tr("sensors"), _sensors(view, inner, head, letters), framed, letters)
    inner = width - 4 * boxed
    lines = _eda(view, inner, rows[-1], letters) if eda else []
    lines += [_voice(view, inner, letters)] if voice else []
    parts += _block(tr("signals"), lines, boxed, letters) if lines else []
    parts += [letters.line([(line, "dim")], width) for line in acted]
    parts += [_latency(view, width, letters)] if latency else []
    parts += [letters.line([(said, "cyan")], width)] if noted else []
    last = [_notice(view, width, letters), letters.line([(keys(view, width), "dim")], width)]
    if spare < 0:  # fewer lines than anything needs: the end of the middle gives way
        parts = [*parts[: max(0, height - 3)], letters.line([("…", "")], width)]
    return Group(*parts, *last)


def _block(title: str, lines: list[Text], framed: bool, letters: Letters) -> list[RenderableType]:
    if not framed:
        return list(lines)
    edge = box.ROUNDED if letters.unicode else box.ASCII
    return [Panel(Group(*lines), title=title, title_align="left", padding=(0, 1), box=edge)]


def one_line(view: View) -> str:
    """A result on one line, for terminals that cannot move their cursor."""
    now, demo = view.now, " DEMO" if view.info.bundle.demo else ""
    values = now.outputs if now and now.outputs else {}
    outputs = view.info.bundle.task.outputs
    words = _outputs_in_words(view.speech)
    said = [
        f"{words[name]} {f'{view.shown(name, values[name])}{demo}' if name in values else NONE}" for name in outputs
    ]
    why = origin(now, view.info.uncertainty, view.speech) if now and values else view.reason
    names = _names(view.speech)
    sensors = [
        "".join(text for text, _ in [(f"{names[name]}: ", ""), *_verdict(view, name)]) for name in (now or _NO).quality
    ]
    at = f"{view.speech.local(f'{now.t:.1f}')} s" if now else NONE
    rested = view.translated(in_words(now.rest)) if now else ""
    acted = map(view.translated, actions_in_words(now.actions if now else None))
    return "; ".join(filter(None, [f"{at}  {', '.join(said)}", why, *sensors, rested, *acted]))


_NO = Result(0, 0.0, "", None, "", {}, {}, {}, 0, "")


def summed_eda(times: np.ndarray, values: np.ndarray) -> list[tuple[int, float, int]]:
    """(half second of stream time, sum of its finite samples, how many these are), in the order of time.

    times, values: (n,), s and the sensor's unit.
    """
    slots = np.floor(times * EDA_RATE).astype(int)
    finite = np.isfinite(values)
    return [
        (slot, float(np.sum(values[here], dtype=np.float64)), int(np.count_nonzero(here)))
        for slot in np.unique(slots).tolist()
        for here in [finite & (slots == slot)]
    ]


def means(sums: Iterable[tuple[int, float, int]]) -> list[tuple[int, float | None]]:
    """(half second, mean) of each of `summed_eda`, None where there is no finite sample."""
    return [(slot, total / count if count else None) for slot, total, count in sums]
