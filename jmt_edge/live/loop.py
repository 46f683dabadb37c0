"""The loop: pulls the sources, closes a window every hop, passes on the results.

One thread drives everything. Devices are read by their own threads inside the sources; the loop only collects what has
arrived. In real time it collects every `PULL` seconds, so that the search for faces is spread over the hop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from ..capture.ahead import ReadAhead
from ..capture.base import Source, State, Status
from ..clips.plan import HOP
from ..controls import Controls, check_rest
from ..engine.backends.base import Engine
from ..engine.bundle import Bundle
from ..errors import ConfigError
from ..faults import FAULTS
from ..observer import Mark, Observer, RunInfo, tell, tell_end
from ..result import Result
from ..summary import Summary
from ..trace import span
from ..wall_clock import WallClock, in_words
from .pipeline import Pipeline

PULL = 0.04  # s between two pulls in real time
MAX_STEP = 0.25  # s of signal in one pull: bounds the frames in memory at once
MAX_PENDING = 2  # windows whose end has passed; beyond that the oldest is dropped
LAST_PERIOD = 0.1  # s by which a recording's last sample may precede the recording's end
SETTLE = 0.06  # s that a window waits for samples on their way from a device
MIN_HOP, MAX_HOP = 0.05, 60.0


@dataclass(frozen=True)
class Options:
    """hop, duration (None: until the sources end), smooth: s. realtime: False runs as fast as the sources can read.

    novelty: gate, warn or off, see `Pipeline`. demo_alarms: see `RunInfo`. follow: see `FaceTracker`.
    rest: s at the beginning in which the person rests, see `live.rest`; 0 for none. actions: measure what the face
    does, see `LiveActions`.
    """

    hop: float = HOP
    realtime: bool = True
    duration: float | None = None
    smooth: float = 0.0
    novelty: str = "gate"
    demo_alarms: bool = False
    follow: str = "largest"
    rest: float = 0.0
    actions: bool = False

    def check(self, sources: Mapping[str, Source]) -> None:
        """Raises ConfigError for options that cannot be used."""
        if not MIN_HOP <= self.hop <= MAX_HOP:
            raise ConfigError(f"a hop of {self.hop:g} s is out of range; choose {MIN_HOP:g} to {MAX_HOP:g} s")
        if self.duration is not None and not self.duration > 0:
            raise ConfigError(f"a duration of {self.duration:g} s is not positive; leave --duration out for no limit")
        if not 0 <= self.smooth <= 600:
            raise ConfigError(f"smoothing over {self.smooth:g} s is out of range; choose 0 to 600 s")
        if self.rest:
            check_rest(self.rest)
        if not sources:
            raise ConfigError("every source is 'none', so there is nothing to analyse; give at least one")
        if self.actions and "face" not in sources:
            raise ConfigError("--actions measures a face, and there is no camera; give --camera or leave --actions out")
        devices = [f"{name} ({source.name})" for name, source in sources.items() if source.realtime]
        if devices and not self.realtime:
            raise ConfigError(
                f"--speed max needs files or simulations, but {', '.join(devices)} is a live device; use --speed 1"
            )


def run(
    bundle: Bundle,
    engine: Engine,
    sources: Mapping[str, Source],
    options: Options,
    observers: Iterable[Observer] = (),
    controls: Controls | None = None,
) -> Summary:
    """Run until the sources end, `options.duration` is over or `controls.stop()`; sources and engine are closed.

    sources: modality -> unopened source. Raises ConfigError for options that cannot be run, SourceError where a
    source cannot be opened.
    """
    options.check(sources)
    loop = Loop(bundle, engine, sources, options, list(observers), controls or Controls())
    with ExitStack() as stack:
        stack.callback(engine.close)
        warm_up(bundle, engine)
        loop.open(stack)
        loop.run()
    return loop.summary


class Loop:
    """One person's run, in the thread of its caller: `open`, then `run`. The engine is not closed.

    summary: of what was run so far. Arguments as of `run`.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        sources: Mapping[str, Source],
        options: Options,
        observers: list[Observer],
        controls: Controls,
    ) -> None:
        self._bundle, self._engine, self._sources = bundle, engine, sources
        self._options, self._observers, self._controls = options, observers, controls
        self._last = dict.fromkeys(sources, -math.inf)  # newest sample of each source
        self._rate = dict.fromkeys(sources, 0.0)
        self._pulled = 0.0
        self._done = 0  # the last window with a result
        self._idle = 0.0
        self._track = 0  # the person followed last
        self._origin = 0.0
        self._clock = WallClock()
        self._faults = FAULTS.counts()
        self.summary = Summary(bundle.id, bundle.demo, options.realtime, subject=bundle.subject)

    def open(self, stack: ExitStack) -> None:
        """Open the sources. The run's clock starts now, so the engine should be ready (`warm_up`)."""
        self._origin = time.monotonic()
        for source in self._sources.values():
            stack.callback(source.close)
            source.open(self._origin)

    def run(self) -> None:
        hop = self._options.hop
        # windows that ended while the devices were being opened are skipped
        first = 1 + (math.floor(self._now() / hop) if self._options.realtime else 0)
        self._pipeline = Pipeline(
            self._bundle, self._engine, hop, self._sources, smooth=self._options.smooth, first=first,
            novelty=self._options.novelty, follow=self._options.follow, actions=self._options.actions,
            on_face=lambda t, face: self._tell("on_face", t, face),
        )  # fmt: skip
        began = time.perf_counter()
        try:
            self._tell("on_start", self._info(first))
            if self._options.rest:
                self._begin_rest(self._options.rest)
            self._windows(first)
            self._tell("on_ending")
            self._serve()
        except Exception as error:
            self.summary.failed = str(error) or type(error).__name__
            raise
        finally:
            summary = self.summary
            summary.wall = time.perf_counter() - began
            summary.busy = summary.wall - self._idle
            summary.stream = max(0, self._done - first + 1) * hop
            summary.sources = {n: what for n, source in self._sources.items() if (what := _losses(source))}
            summary.faults = {name: str(fault) for name, fault in FAULTS.since(self._faults).items()}
            tell_end(self._observers, summary)

    def _windows(self, index: int) -> None:
        """Window after window, from `index` on."""
        while not self._controls.stopped:
            t = index * self._options.hop
            if self._options.duration is not None and t > self._options.duration + 1e-9:
                return
            if self._options.realtime:
                index, skipped = self._await_window(index)
                t = index * self._options.hop
                self.summary.dropped += skipped
            if self._controls.stopped:
                return
            with span("window", t=round(t, 3)):
                if not self._window(index, t):
                    return
            index += 1

    def _window(self, index: int, t: float) -> bool:
        """The window that ends at `t`; False where the sources ended before it."""
        since = self._close_window(t)
        statuses = {name: source.status() for name, source in self._sources.items()}
        if self._ended(statuses, t):
            return False
        self._tell("on_status", statuses)
        result = self._pipeline.infer(index, statuses, dropped=self.summary.dropped, since=since)
        self.summary.add(result)
        self._tell("on_result", result)
        self._announce(result)
        self._done = index
        return True

    def _announce(self, result: Result) -> None:
        """A mark where another person is followed than before."""
        track = max(quality.track for quality in result.quality.values())
        if track and self._track and track != self._track:
            self._tell("on_mark", Mark(result.t, f"another person is followed (number {track})"))
        self._track = track or self._track

    def _info(self, first: int) -> RunInfo:
        options, engine = self._options, self._engine
        names = {m: self._sources[m].name if m in self._sources else "" for m in self._bundle.task.names}
        return RunInfo(
            self._bundle, engine.name, dict(engine.precision), options.hop, options.realtime, options.smooth,
            names, first, novelty=self._pipeline.novelty, demo_alarms=options.demo_alarms,
            origin=self._origin, follow=options.follow, uncertainty=self._pipeline.uncertainty,
            actions=options.actions, clock=self._clock,
        )  # fmt: skip

    def _now(self) -> float:
        return time.monotonic() - self._origin

    def _await_window(self, index: int) -> tuple[int, int]:
        """Collect samples until window `index` ends; (the window to infer, windows dropped because it is late)."""
        t = index * self._options.hop
        while not self._controls.stopped and (now := self._now()) < t:
            self._pull(now)
            self._serve()
            self._sleep(min(PULL, t - self._now()))
        late = math.floor(self._now() / self._options.hop + 1e-9) - index + 1
        skipped = max(0, late - MAX_PENDING)
        if skipped:
            self._pipeline.skip_to(index + skipped)
            self._tell("on_skip", index + skipped)
        return index + skipped, skipped

    def _close_window(self, t: float) -> float | None:
        """Collect what belongs to the window that ends at `t`; the time its latency counts from (real time only)."""
        if not self._options.realtime:
            self._pull(t)
            self._serve()
            return None
        since = time.perf_counter() - max(0.0, self._now() - t)
        self._pipeline.begin_window()
        self._pull(t)
        while self._now() < t + SETTLE and self._on_their_way(t) and not self._controls.stopped:
            with span("wait for samples"):
                self._sleep(0.005)
            self._pull(t)
        self._serve()
        return since

    def _on_their_way(self, t: float) -> bool:
        """Whether samples before `t` are still expected from a streaming device."""
        for name, source in self._sources.items():
            if source.realtime and t - self._last[name] < 1.0:
                period = 1.2 / self._rate[name] if self._rate[name] else 0.05
                if self._last[name] < t - max(0.005, period) and source.status().state is State.STREAMING:
                    return True
        return False

    def _pull(self, until: float) -> None:
        """Read every source up to `until`, in steps."""
        while True:
            step = min(until, self._pulled + MAX_STEP)
            for name, source in self._sources.items():
                with span("read", source=name):
                    chunk = source.read(step)
                    while isinstance(source, ReadAhead) and source.pending and not self._paced_or_stopped():
                        chunk = source.read(step)  # a disk that does not answer: nothing is due before it does
                if len(chunk):
                    self._last[name] = max(self._last[name], float(np.max(chunk.times)))
                    self._rate[name] = chunk.rate
                if len(chunk) or chunk.lost:
                    self._tell("on_chunk", name, chunk)
                    with span("push", source=name):
                        self._pipeline.push(name, chunk)
            self._pulled = max(self._pulled, step)
            if step >= until or self._controls.stopped:
                return

    def _paced_or_stopped(self) -> bool:
        return self._options.realtime or self._controls.stopped

    def _ended(self, statuses: Mapping[str, Status], t: float) -> bool:
        """Every source has ended, and no clip of the window that ends at `t` brings samples not seen before."""
        if not all(status.state is State.ENDED for status in statuses.values()):
            return False
        plans = self._pipeline.plans
        end = max(last - plans[name].m.end for name, last in self._last.items())
        return t > end + LAST_PERIOD

    def _serve(self) -> None:
        """Handle the requests made since the last call."""
        self._tell("on_turn")
        if self._options.realtime and (step := self._clock.reread()):
            self._tell("on_clock", self._now(), step)
            self._tell("on_mark", Mark(self._now(), f"the clock was {in_words(step)}"))
        self._controls.run_calls()
        if (seconds := self._controls.take_rest()) is not None:
            self._begin_rest(seconds) if seconds else self._pipeline.forget_rest()
        for when, text, rating, corrects in self._controls.take_marks():
            t = when - self._origin if self._options.realtime else self._pulled
            self._tell("on_mark", Mark(max(0.0, t), text, rating, corrects))

    def _begin_rest(self, seconds: float) -> None:
        self._pipeline.begin_rest(seconds)
        self._tell("on_rest", seconds)

    def _sleep(self, seconds: float) -> None:
        began = time.perf_counter()
        self._controls.wait(seconds)
        self._idle += time.perf_counter() - began

    def _tell(self, method: str, *args: object) -> None:
        tell(self._observers, method, *args)


def _losses(source: Source) -> str:
    """What a source lost or altered, in words; empty where nothing."""
    status = source.status()
    altered = status.detail.get("altered", 0)
    totals = ((status.lost, "lost"), (altered, "moved in time"))
    counts = [f"{n} {'sample' if n == 1 else 'samples'} {what}" for n, what in totals if n]
    notes = list(status.detail.get("notes", ()))
    shown = [*notes[:3], *([f"{len(notes) - 3} notes more"] if len(notes) > 3 else [])]
    return f"{source.name}: " + "; ".join([*counts, *shown]) if counts or notes else ""


def warm_up(bundle: Bundle, engine: Engine) -> None:
    """One empty window, so that lazy allocation does not delay the first real one."""
    task = bundle.task
    engine.backbones({m.name: np.zeros((1, *m.shape), np.float32) for m in task.modalities})
    features = {name: np.zeros((1, task.steps, task.dim), np.float32) for name in task.names}
    engine.fusion(features, np.ones((1, task.steps, len(task.names)), bool))
