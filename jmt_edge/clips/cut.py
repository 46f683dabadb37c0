"""Clips of a whole recording, for training and calibration, cut exactly as a live run cuts the same samples."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import count, takewhile
from typing import NamedTuple, Protocol, runtime_checkable

from ..media.chunk import Chunk
from ..tasks import Task
from .cutter import Cutter, open_cutter
from .face import Find
from .plan import HOP, ClipPlan, plan_clips, time_key
from .presence import Cut, cut

STEP = 0.25  # s of signal in one read: bounds the frames in memory at once


class Samples(Protocol):
    """The part of `capture.base.Source` that is needed here."""

    def open(self, origin: float) -> None: ...

    def read(self, until: float) -> Chunk: ...

    def close(self) -> None: ...


@runtime_checkable
class Skips(Protocol):
    """A source that can skip samples that will not be used (simulations)."""

    def skip_to(self, t: float) -> None:
        """Skip the samples before `t`, a whole second, where the blocks begin in which quality is judged."""


class _Window(NamedTuple):
    """Window `number`, which ends at `t`. clips: ends of those that are cut for it, by their `time_key`."""

    t: float
    number: int
    clips: dict[int, float]


@dataclass
class _Pass:
    """A cutter and its remaining windows, in order."""

    plan: ClipPlan
    cutter: Cutter
    windows: deque[_Window]


def cut_clips(
    source: Samples, task: Task, name: str, ends: Iterable[float], *, hop: float = HOP, find: Find | None = None
) -> Iterator[tuple[int, Cut]]:
    """The clips of modality `name` that end at `ends` (s, any order): (`time_key` of the end, clip), each once.

    Clips of a live run with windows every `hop` seconds are cut as in that run, after the same search for faces; the
    others are cut independently, from their own frames alone. Windows come in the order of their ends, and memory does
    not grow with the recording. find: see `FaceCutter`. Raises what `source` raises.
    """
    wanted = {time_key(end): end for end in ends}
    plan, m = plan_clips(task, hop)[name], task.modality(name)
    live = _live_windows(plan, hop, wanted.keys())
    in_live = {key for window in live for key in window.clips}
    rest = sorted((end - m.end, key) for key, end in wanted.items() if key not in in_live)
    own = [_Window(t, i, {key: t + m.end}) for i, (t, key) in enumerate(rest)]
    alone = ClipPlan(m, 1, 1)
    passes = []
    if live:  # a live run's later windows need frames of these clips too, and its tracker has seen them
        cutter = open_cutter(plan, lambda i: i * hop, 1, find=find)
        passes.append(_Pass(plan, cutter, deque(live)))
    if own:
        cutter = open_cutter(alone, lambda i: own[i].t if i < len(own) else math.inf, 0, find=find)
        passes.append(_Pass(alone, cutter, deque(own)))
    source.open(0.0)
    try:
        yield from ((key, clip) for key, clip in _cut(source, passes) if key in wanted)
    finally:
        source.close()


def _live_windows(plan: ClipPlan, hop: float, wanted: Set[int]) -> list[_Window]:
    """The windows of a live run up to the last that cuts a wanted clip, each with the clips that are new in it.

    All of them for the face, because its tracker has a memory; for sound and EDA only those that cut a wanted clip.
    """
    last = max(wanted, default=0)
    windows: list[_Window] = []
    seen: set[int] = set()
    for index in takewhile(lambda i: time_key(plan.new_ends(i * hop)[0]) <= last, count(1)):
        clips = {key: end for end in plan.new_ends(index * hop) if (key := time_key(end)) not in seen}
        seen |= clips.keys()
        windows.append(_Window(index * hop, index, clips))
    needed = [i for i, window in enumerate(windows) if not wanted.isdisjoint(window.clips)]
    return windows[: needed[-1] + 1] if needed and plan.m.name == "face" else [windows[i] for i in needed]


def _cut(source: Samples, passes: list[_Pass]) -> Iterator[tuple[int, Cut]]:
    """Every clip of every pass, from one reading of `source`."""
    position = 0.0
    while passes:
        turn = min(passes, key=lambda p: p.windows[0].t)
        window = turn.windows[0]
        if isinstance(source, Skips):
            needed = math.floor(min(p.windows[0].t - p.cutter.history for p in passes))
            if needed > position:
                source.skip_to(needed)
                position = needed
        while position < window.t:
            position = min(position + STEP, window.t)
            chunk = source.read(position)
            for p in passes:
                p.cutter.push(chunk)
        for key, end in window.clips.items():
            yield key, cut(turn.plan, turn.cutter, end, window.t)
        turn.cutter.advance(window.number + 1)
        turn.windows.popleft()
        passes = [p for p in passes if p.windows]
