"""The live view in a terminal of at least 80 x 24 characters; works over SSH."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections import deque
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..capture.base import State, Status
from ..controls import Controls
from ..errors import ConfigError
from ..faults import FAULTS, Steady, one_item
from ..media.chunk import Chunk
from ..observer import Mark, Observer, RunInfo
from ..result import STAGES, Result
from ..summary import Percentiles, Summary, notice
from .actions import in_words as actions_in_words
from .rest import in_words

BARS = "▁▂▃▄▅▆▇█"
RANGES = {"pain": (0.0, 1.0), "valence": (-1.0, 1.0), "arousal": (-1.0, 1.0)}
HISTORY = 240  # results
EDA_SECONDS = 60.0
KEYS = "q quit   m mark   0-9, t pain rating (t = 10)   r record on/off"
_ROOMY = (67, 19)  # columns and lines that everything needs; with fewer, verdicts and values remain


def sparkline(values: Iterable[float | None], low: float, high: float) -> str:
    """One character per value, a space where it is None; `low` and `high` are the ends of the scale."""
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if v is None else BARS[round(min(max(v - low, 0.0), high - low) * scale)] for v in values)


def shown(output: str, value: float) -> str:
    """A number of an output, as it is shown."""
    return f"{value:+.2f}" if RANGES[output][0] < 0 else f"{value:.2f}"


def origin(result: Result, promised: str) -> str:
    """What a result comes from and how sure it is: `from face + EDA; 90%: pain yes`.

    promised: `RunInfo.uncertainty`.
    """
    sources = "from " + " + ".join("EDA" if name == "eda" else name for name in result.used)
    known = dict(result.uncertainty or {})
    coverage = known.pop("coverage", None)
    if not known:
        return f"{sources}; uncertainty {promised if promised.startswith('not known') else 'not known'}"
    spans = [
        f"{o} {' or '.join(span)}" if o == "pain" else f"{o} {shown(o, span[0])} to {shown(o, span[1])}"
        for o, span in known.items()
    ]
    return f"{sources}; {coverage:.0%}: {', '.join(spans)}"


def _block(title: str, content: RenderableType, framed: bool) -> RenderableType:
    return Panel(content, title=title, title_align="left", padding=(0, 1)) if framed else content


class Terminal(Observer):
    """Redraws four times per second in its own thread; the loop only stores its latest values here."""

    def __init__(self, controls: Controls, console: Console | None = None) -> None:
        self._controls = controls
        self._console = console or Console()
        self._lock = threading.Lock()
        self._info: RunInfo | None = None
        self._result: Result | None = None
        self._statuses: Mapping[str, Status] = {}
        self._history: deque[dict[str, float] | None] = deque(maxlen=HISTORY)
        self._eda: deque[tuple[int, float | None]] = deque()  # (half second of stream time, mean µS)
        self._level: float | None = None
        self._total = Percentiles()
        self._message = ""
        self._live: Live | None = None
        self._keys: _Keys | None = None

    # --- the loop's side -------------------------------------------------------------------------------------------
    def on_start(self, info: RunInfo) -> None:
        self._info = info
        self._live = Live(
            get_renderable=self.render, console=self._console, screen=True, refresh_per_second=4,
            redirect_stderr=False, redirect_stdout=False,
        )  # fmt: skip
        self._live.start()
        if sys.stdin.isatty():
            self._keys = _Keys(self._press)

    def on_chunk(self, modality: str, chunk: Chunk) -> None:
        if modality == "eda" and len(chunk):
            with self._lock:
                self._note_eda(chunk)
        elif modality == "voice" and len(chunk):
            power = float(np.mean(np.square(chunk.values, dtype=np.float64)))
            self._level = 10 * float(np.log10(max(power, 1e-10)))

    def on_mark(self, mark: Mark) -> None:
        what = f"rating {mark.rating}" if mark.rating is not None else f"mark {mark.text}".rstrip()
        self._message = f"{what} at {mark.t:.1f} s"

    def on_status(self, statuses: Mapping[str, Status]) -> None:
        self._statuses = dict(statuses)

    def on_result(self, result: Result) -> None:
        with self._lock:
            self._result = result
            self._history.append(result.outputs)
            if result.latency_ms["total"] is not None:
                self._total.add(result.latency_ms["total"])

    def on_end(self, summary: Summary) -> None:
        if self._keys is not None:
            self._keys.close()
        if self._live is not None:
            self._live.stop()

    def _note_eda(self, chunk: Chunk) -> None:
        slots = np.floor(chunk.times * 2).astype(int)
        for slot in np.unique(slots).tolist():
            values = np.asarray(chunk.values)[slots == slot]
            finite = values[np.isfinite(values)]
            mean = float(finite.mean()) if len(finite) else None
            if self._eda and self._eda[-1][0] == slot:
                self._eda.pop()
            self._eda.append((slot, mean))
        while self._eda[0][0] < self._eda[-1][0] - EDA_SECONDS * 2:
            self._eda.popleft()

    # --- keys ------------------------------------------------------------------------------------------------------
    def _press(self, key: str) -> None:
        try:
            if key == "q":
                self._controls.stop()
            elif key == "m":
                self._controls.mark("key")
            elif key == "t" or key.isdecimal():
                self._controls.rate(10 if key == "t" else int(key))
            elif key == "r":
                on = self._controls.is_recording
                self._controls.stop_recording() if on else self._controls.start_recording()
        except ConfigError as error:
            self._message = str(error)

    # --- drawing ---------------------------------------------------------------------------------------------------
    def render(self) -> RenderableType:
        """The whole view."""
        info, result = self._info, self._result
        if info is None:
            return Text("starting")
        width = max(40, self._console.width)
        recording = self._controls.recording
        problem = recording.state if recording is not None and not recording.active else ""
        rested = in_words(result.rest) if result is not None else ""
        message = "   ".join(part for part in (rested, self._message or problem) if part)
        task = info.bundle.task
        acted = [line for line in actions_in_words(result.actions if result is not None else None) if line]
        roomy = self._console.height >= _ROOMY[1] + 2 * info.actions
        # rows besides the header, the outputs, the verdicts with their head lines, and the notice, which always show
        spare = self._console.height - 4 - len(task.outputs) - len(task.names) - bool(message)
        framed = spare >= 4
        spare -= 4 * framed
        with self._lock:
            parts = [
                self._header(info, result), _block("outputs", self._outputs(info, result, width), framed),
                _block("sensors", self._modalities(info, result), framed),
            ]  # fmt: skip
            lines = [self._eda_line(width)] if "eda" in task.names else []
            lines += [self._voice_line()] if "voice" in task.names else []
            lines += [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in acted]
            parts += lines[: max(spare, 0)]
            if roomy:
                parts.append(self._latency(result))
        if roomy or message:
            parts.append(Text(message or " ", style="cyan", no_wrap=True, overflow="ellipsis"))
        if roomy:
            parts.append(Text(KEYS, style="dim"))
        said = notice(info.bundle.demo, info.bundle.subject) if roomy else "not for clinical use"
        said = f"DEMO: {said}" if info.bundle.demo else said
        parts.append(Text(said, style="bold yellow" if info.bundle.demo else "yellow"))
        return Group(*parts)

    def _header(self, info: RunInfo, result: Result | None) -> RenderableType:
        grid = Table.grid(expand=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)  # gives way: REC and the time are never cut
        grid.add_column(justify="right", no_wrap=True)
        precision = ", ".join(sorted(set(info.precision.values())))
        badge = "[bold white on red] ● REC [/]  " if self._controls.is_recording else ""
        at = f"{result.t:8.1f} s" if result else ""
        grid.add_row(f"[bold]jmt-edge[/] {escape(info.bundle.id)}  {info.backend} {precision}", badge + at)
        return grid

    def _outputs(self, info: RunInfo, result: Result | None, width: int) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        reduced = result is not None and len(result.used) < len(info.bundle.task.names)
        for name in info.bundle.task.outputs:
            value = result.outputs[name] if result and result.outputs else None
            low, high = RANGES[name]
            room = max(10, width - (29 if info.bundle.demo else 24))
            past = [outputs[name] if outputs else None for outputs in self._history][-room:]
            cell = Text(f"{'—' if value is None else shown(name, value):>6}", style="dim" if reduced else "bold")
            if info.bundle.demo and value is not None:
                cell.append(" DEMO", style="bold yellow")
            grid.add_row(f"{name:<8}", cell, sparkline(past, low, high))
        reason = "waiting for the first window" if result is None else result.reason
        why = Text(reason or " ", style="yellow", no_wrap=True, overflow="ellipsis")
        if result is not None and result.outputs:
            why = Text(origin(result, info.uncertainty), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(grid, why)

    def _modalities(self, info: RunInfo, result: Result | None) -> RenderableType:
        table = Table(expand=True, box=None, padding=(0, 1), pad_edge=False)
        table.add_column("sensor", width=6, header_style="dim")
        wide = self._console.width >= _ROOMY[0]  # a verdict that cannot be read is worse than no source
        if wide:
            table.add_column("source", max_width=18, no_wrap=True, overflow="ellipsis", header_style="dim")
            table.add_column("weight", width=12, no_wrap=True, header_style="dim")
        table.add_column("quality", ratio=1, no_wrap=True, overflow="ellipsis", header_style="dim")
        for name in info.bundle.task.names:
            quality = result.quality[name] if result else None
            weight = result.attention[name] if result else None
            share = "—" if weight is None else f"{'█' * round(weight * 6):<6} {weight:4.0%}"
            if quality is None:
                verdict = Text("")
            elif quality.ok:
                verdict = Text(f"ok  {quality.score:.2f}", style="green")
                if quality.reason:
                    verdict.append(f"  {quality.reason}", style="yellow")
            else:
                verdict = Text(quality.reason, style="red")
            if quality is not None and quality.track > 1:
                verdict.append(f"  person {quality.track}", style="bold yellow")
            if quality is not None and quality.turn:
                verdict.append(f"  turned by {quality.turn}°", style="dim")
            if quality is not None and quality.novelty is not None:
                verdict.append(f"  novelty {quality.novelty:.1f}", style="dim")
            if result is not None and (without := (result.without or {}).get(name)):
                verdict.append(f"  without it {', '.join(shown(o, v) for o, v in without.items())}", style="dim")
            status = self._statuses.get(name)
            if status is not None and (status.lost or status.reconnects):
                verdict.append(f"  lost {status.lost}, reconnected {status.reconnects}", style="dim")
            if status is not None and status.state not in (State.STREAMING, State.ENDED) and quality and quality.ok:
                verdict.append(f"  {status.state.value}", style="yellow")
            row = (escape(info.sources.get(name) or "none"), share) if wide else ()
            table.add_row(name, *row, verdict)
        return table

    def _eda_line(self, width: int) -> RenderableType:
        slots = dict(self._eda)
        room = min(round(EDA_SECONDS * 2), max(10, width - 22))
        last = self._eda[-1][0] if self._eda else 0
        values = [slots.get(slot) for slot in range(last - room + 1, last + 1)]
        known = [v for v in values if v is not None]
        status = self._statuses.get("eda")
        unit = (status.unit if status else "") or "µS"
        now = f"{values[-1]:6.2f} {unit}" if values[-1] is not None else f"     — {unit}"
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        return Text(f"EDA {now}  {sparkline(values, low, max(high, low + 0.1))}", no_wrap=True)

    def _voice_line(self) -> RenderableType:
        if self._level is None:
            return Text("voice    — dBFS")
        return Text(f"voice {self._level:5.0f} dBFS  {'█' * round(max(0.0, self._level + 60) / 60 * 30)}", no_wrap=True)

    def _latency(self, result: Result | None) -> RenderableType:
        if result is None:
            return Text(" ")
        # 80 columns have room for the parts or the whole, so the parts where they were timed
        apart = any(result.latency_ms.get(stage) is not None for stage in ("backbones", "fusion"))
        shown = [stage for stage in STAGES if stage not in (("networks",) if apart else ("backbones", "fusion"))]
        times = {stage: result.latency_ms.get(stage) for stage in shown}
        stages = [f"{stage} {'—' if ms is None else f'{ms:.0f}'}" for stage, ms in times.items()]
        p95 = self._total(95)
        spread = f" (p95 {p95:.0f})" if p95 is not None else ""
        dropped = Text(f"dropped {result.dropped}  ", style="bold red" if result.dropped else "", no_wrap=True)
        return dropped.append(f"ms: {'  '.join(stages)}{spread}", style="default")


class _Keys:
    """Single key presses from the terminal, without echo, until `close` restores it."""

    def __init__(self, press: Callable[[str], None]) -> None:
        self._press = press
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        self._wake, self._waker = os.pipe()
        self._thread = Steady(self._listen, "keys")
        self._thread.start()

    def _listen(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._wake], [], [])
            if self._wake in ready:
                return
            try:
                data = os.read(self._fd, 32)
            except OSError as error:  # the terminal is gone; it would be ready to be read again and again
                FAULTS.add("keys", error)
                return
            if not data:
                return
            for key in data.decode("ascii", "ignore"):
                with one_item("keys"):
                    self._press(key)

    def close(self) -> None:
        os.write(self._waker, b"x")
        self._thread.join(timeout=1.0)
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        os.close(self._wake)
        os.close(self._waker)
