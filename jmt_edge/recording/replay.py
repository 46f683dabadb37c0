"""Replay of a recorded run, from its raw samples through the whole pipeline, or from its results.

With raw samples of every connected modality the networks run again on the same chunks between the same windows, so
the results equal the recorded ones bit for bit on the same machine, bundle and backend, at any speed. Without them
the recorded results are shown unchanged. Either way each result carries the latency measured when it was recorded;
the summary has the replay's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from ..capture.base import Status
from ..controls import Controls
from ..engine.backends.base import Engine
from ..engine.bundle import Bundle
from ..media.chunk import Chunk
from ..observer import Mark, Observer, RunInfo, tell, tell_end
from ..result import Result
from ..summary import Summary
from .reader import Gap, Passed, Recording, Rested, Skipped, Window


class Pipeline(Protocol):
    """The interface of `live.Pipeline`, which computes the windows; a new one for each replay."""

    def push(self, modality: str, chunk: Chunk) -> None: ...

    def skip_to(self, index: int) -> None: ...

    def begin_rest(self, seconds: float) -> None: ...

    def infer(self, index: int, statuses: Mapping[str, Status], *, dropped: int = 0) -> Result: ...


@dataclass
class Outcome:
    """The outcome of a replay. recomputed, equal: windows computed again, and those equal to the recorded ones."""

    summary: Summary
    played: int = 0
    recomputed: int = 0
    equal: int = 0
    why_played: str = ""  # why windows were shown as recorded instead of computed

    def line(self) -> str:
        """One sentence for the user."""
        parts = []
        if self.recomputed:
            same = "all equal" if self.equal == self.recomputed else f"{self.recomputed - self.equal} NOT equal"
            parts.append(f"{self.recomputed} results computed again, {same} to the recorded ones bit for bit")
        if self.played:
            parts.append(f"{self.played} results shown as recorded, not computed: {self.why_played}")
        return "; ".join(parts) or "the recording has no results"


def replay(
    recording: Recording,
    bundle: Bundle,
    engine: Engine | None,
    make_pipeline: Callable[..., Pipeline],
    *,
    speed: float | None = None,
    observers: Iterable[Observer] = (),
    controls: Controls | None = None,
) -> Outcome:
    """Run the recording through `engine`, or with None show its results; `speed` x real time, None: unpaced.

    make_pipeline: `live.Pipeline`, which this package cannot import.
    The engine is closed at the end. Observers see what they saw in the live run, except chunks that were not kept.
    """
    manifest = recording.manifest
    observers, controls = list(observers), controls or Controls()
    summary = Summary(bundle.id, bundle.demo, realtime=False, subject=bundle.subject)
    outcome = Outcome(summary, why_played=recording.replay_blocker or "recomputation was not requested")
    first: int = manifest["first"]
    novelty: str = manifest.get("novelty", "off")  # recordings of the first edition were not gated
    follow: str = manifest.get("person", "largest")
    actions: bool = manifest.get("actions", False)
    pipeline: Pipeline | None = None
    if engine is not None and not recording.replay_blocker:
        pipeline = make_pipeline(
            bundle, engine, manifest["hop"], recording.connected, smooth=manifest["smooth"], first=first,
            novelty=novelty, follow=follow, actions=actions,
            on_face=lambda t, face: tell(observers, "on_face", t, face),
        )  # fmt: skip
    info = RunInfo(
        bundle, engine.name if engine else manifest["backend"], dict(engine.precision if engine else {}),
        manifest["hop"], False, manifest["smooth"], manifest["sources"], first, recording.folder.resolve().name,
        novelty=novelty, follow=follow, uncertainty=manifest.get("uncertainty", "not known"),
        actions=actions,
    )  # fmt: skip
    tell(observers, "on_start", info)
    pace = _Pace(speed, (first - 1) * manifest["hop"], controls)
    began = time.perf_counter()
    last = (first - 1) * manifest["hop"]
    try:
        for event in recording.events():
            if controls.stopped:
                break
            controls.run_calls()
            if isinstance(event, Passed):
                chunk = event.chunk
                if chunk is None:
                    continue
                if len(chunk):
                    pace(float(chunk.times[-1]))
                tell(observers, "on_chunk", event.modality, chunk)
                if pipeline is not None:
                    pipeline.push(event.modality, chunk)
            elif isinstance(event, Skipped):
                if pipeline is not None:
                    pipeline.skip_to(event.index)
            elif isinstance(event, Rested):
                if pipeline is not None:
                    pipeline.begin_rest(event.seconds)
                tell(observers, "on_rest", event.seconds)
            elif isinstance(event, Mark):
                tell(observers, "on_mark", event)
            elif isinstance(event, Gap):
                outcome.why_played, pipeline = event.reason, None
            else:
                pace(event.result.t)
                tell(observers, "on_status", event.statuses)
                result = _again(event, pipeline, outcome)
                summary.add(result)
                shown = replace(result, latency_ms=event.result.latency_ms)
                tell(observers, "on_result", shown)
                summary.dropped, last = result.dropped, result.t
    except Exception as error:
        summary.failed = str(error) or type(error).__name__
        raise
    finally:
        if engine is not None:
            engine.close()
        summary.wall = time.perf_counter() - began
        summary.busy = summary.wall - pace.waited
        summary.stream = last - (first - 1) * manifest["hop"]
        tell_end(observers, summary)
    return outcome


def _again(window: Window, pipeline: Pipeline | None, outcome: Outcome) -> Result:
    recorded = window.result
    if pipeline is None:
        outcome.played += 1
        return recorded
    result = pipeline.infer(recorded.index, window.statuses, dropped=recorded.dropped)
    outcome.recomputed += 1
    again = replace(result, latency_ms=recorded.latency_ms)
    if recorded.without is None:  # an earlier version recorded it, and is compared by what it knew
        again = replace(again, without=None)
    outcome.equal += again == recorded
    return result


class _Pace:
    """Waits until stream time `t` is due at `speed`."""

    def __init__(self, speed: float | None, start: float, controls: Controls) -> None:
        self._speed, self._start, self._controls = speed, start, controls
        self._began = time.monotonic()
        self.waited = 0.0

    def __call__(self, t: float) -> None:
        if self._speed is None:
            return
        wait = (t - self._start) / self._speed - (time.monotonic() - self._began)
        if wait > 0:
            began = time.perf_counter()
            self._controls.wait(wait)
            self.waited += time.perf_counter() - began
