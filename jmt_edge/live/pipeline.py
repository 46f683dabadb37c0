"""Samples in, results out: the part of a live run that has no clock and no devices.

The same chunks in the same order between the same windows give the same results, bit for bit; `replay` relies on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..capture.base import Status
from ..clips.cutter import network_input, open_cutter
from ..clips.face import FaceCutter
from ..clips.plan import ClipPlan, plan_clips, time_key
from ..clips.presence import Presence, begin, of_newest_person
from ..engine.backends.base import Engine, Step, merge
from ..engine.bundle import Bundle
from ..engine.novelty import DESCRIPTIONS
from ..media.chunk import Chunk
from ..preprocessing.face import Face
from ..preprocessing.quality import VoiceQuality
from ..result import Quality, Result
from ..tasks import Task
from ..trace import span
from .actions import LiveActions
from .gate import NO_SOURCE, cut_of_device, judge_novelty, no_result_reason
from .own import OwnBaseline
from .rest import Rest, decibels
from .smoothing import TrailingMean

F32 = NDArray[np.float32]


@dataclass
class _Cached:
    """A clip's verdict, its features (d,) where it was usable, of EDA its mean in µS, and what it says of the person's
    rest (`OwnBaseline.measure`).

    shows: the end (`time_key`) of the clip that a step shows here: its own, or at a pause in speech that before it.
    """

    quality: Quality
    features: F32 | None
    level: float | None = None
    shows: int = 0
    measured: NDArray[np.float64] | None = None


class Pipeline:
    """One run of a bundle over the sources of `modalities`; the task's others count as absent.

    first: the first window; window i ends at i x hop. For each window in order, push its chunks, then infer it.
    novelty: clips unlike the training people's are absent (gate), used with a warning (warn), or not looked for (off).
        The attribute says `not checked` where the bundle holds no density.
    uncertainty (attribute): what is promised of the results' sets and intervals, or why there are none.
    follow: whose face is followed, see `FaceTracker`. actions: measure what it does, see `LiveActions`.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        hop: float,
        modalities: Iterable[str],
        *,
        smooth: float = 0.0,
        first: int = 1,
        novelty: str = "off",
        follow: str = "largest",
        actions: bool = False,
        on_face: Callable[[float, Face | None], None] | None = None,
    ) -> None:
        self.task: Task = bundle.task
        self.plans: dict[str, ClipPlan] = plan_clips(self.task, hop)
        connected = set(modalities)
        self.cutters = {
            name: open_cutter(
                plan, lambda index: index * hop, first, on_face=on_face, follow=follow, actions=actions, threaded=True
            )
            for name, plan in self.plans.items()
            if name in connected
        }
        face = self.cutters.get("face")
        self._actions = LiveActions(face) if actions and isinstance(face, FaceCutter) else None
        self._bundle, self._engine, self._hop = bundle, engine, hop
        self._temperature = bundle.temperature
        self._personal = bundle.personal
        self._smooth = TrailingMean(smooth)
        self._cache: dict[tuple[str, int], _Cached] = {}
        self._preprocess = 0.0
        self._rest: Rest | None = None
        self._own = OwnBaseline({name: self.task.modality(name) for name in bundle.baseline if name in connected})
        self._heard = (0, 0.0)  # samples since the last window and the sum of their squares, while there is a rest
        self._densities = bundle.novelty() if novelty != "off" else {}
        self.novelty = novelty if self._densities or novelty == "off" else "not checked"
        self._smoothed = smooth > 0  # one window's sets, intervals and what-ifs do not belong to a mean
        self._uncertainty = None if self._smoothed else bundle.uncertainty
        self._full = (first - 1) * hop + self.task.window  # s, when the first full window ends
        self._emptied = False  # whether clips of a modality have been dropped since the last window
        self.uncertainty = uncertainty_of(bundle, smooth)

    def push(self, modality: str, chunk: Chunk) -> None:
        """New samples of one source; those of modalities that the task does not have are ignored."""
        cutter = self.cutters.get(modality)
        if cutter is not None and len(chunk):
            began = time.perf_counter()
            cutter.push(chunk)
            if self._rest is not None and modality == "voice":
                count, power = self._heard
                self._heard = count + len(chunk), power + float(np.square(chunk.values, dtype=np.float64).sum())
            self._preprocess += time.perf_counter() - began

    def begin_rest(self, seconds: float) -> None:
        """The person rests from now on; results say how long still, then how far from the rest each signal is.

        Raises ConfigError for a length out of range.
        """
        self._rest, self._heard = Rest(seconds), (0, 0.0)
        self._forget_clips(self._own.begin(seconds))
        if self._actions is not None:
            self._actions.begin_rest(seconds)

    def forget_rest(self) -> None:
        """Another person is there: what was measured at rest is not theirs, and clips are what they were without it."""
        self._rest = None
        self._forget_clips(self._own.forget())
        if self._actions is not None:
            self._actions.forget_rest()

    def begin_window(self) -> None:
        """The window has ended: preprocessing done so far is not part of its latency."""
        self._preprocess = 0.0

    def infer(
        self, index: int, statuses: Mapping[str, Status], *, dropped: int = 0, since: float | None = None
    ) -> Result:
        """The result of window `index`. Earlier windows that were not inferred are dropped for good.

        since: `time.perf_counter()` at the window's end, from which the total latency counts; None: the total is the
            time spent computing.
        """
        t = index * self._hop
        began = time.perf_counter()
        with span("cut"):
            clips, qualities = self._cut(t, statuses)
        cut = time.perf_counter()
        preprocess = self._preprocess + cut - began
        features, present, fresh = self._sequence(t, qualities, clips)
        with span("networks"):
            step = self._run(clips, features, present, fresh)
        silent = self._smoothed and self._personal is None
        with span("without each modality"):
            left_out = None if silent else self._leave_out(features, step.features, present, fresh)
        networks = time.perf_counter() - cut
        for name, of in clips.items():
            for row, end in enumerate(of):
                self._cache[name, end].features = step.features[name][row]
        outputs, reason = None, ""
        without: dict[str, dict[str, float]] | None = None if self._smoothed else {}
        uncertainty = None
        general: dict[str, Any] | None = None
        attention: dict[str, float | None] = dict.fromkeys(self.task.names)
        if present.any():
            outputs = self._outputs(step.outputs)
            if outputs is None:
                reason = "the network's output is not finite"
            else:
                uncertainty = self._promise(t, outputs, present, qualities)
                if self._personal is not None:
                    general = None if self._smoothed else {"outputs": outputs, "without": left_out}
                    outputs, left_out = self._personal.apply(outputs, left_out)
                without = None if self._smoothed else left_out
                outputs = self._smooth(t, outputs)
                shares = step.outputs["attention"][0, -1]
                attention = {
                    name: float(share) if seen else None
                    for name, share, seen in zip(self.task.names, shares, present[0, -1])
                }
        else:
            reason = no_result_reason(qualities)
        rest = self._rested(t, qualities)
        actions = None
        if self._actions is not None:
            actions = self._actions.state(t, self._hop, self.plans["face"].ends(t)[-1])
        now = time.perf_counter()
        seconds = {
            "preprocess": preprocess,
            "backbones": step.seconds.get("backbones"),
            "fusion": step.seconds.get("fusion"),
            "networks": networks if clips or present.any() else None,
            "total": now - since if since is not None else preprocess + now - cut,
        }
        self._forget(index)
        return Result(
            index, round(t, 6), self.task.name, outputs, reason, qualities, attention,
            {stage: None if s is None else round(s * 1e3, 3) for stage, s in seconds.items()},
            dropped, self._bundle.id, self._bundle.demo, uncertainty, without, rest, actions, general,
        )  # fmt: skip

    def _cut(self, t: float, statuses: Mapping[str, Status]) -> tuple[dict[str, dict[int, F32]], dict[str, Quality]]:
        """The usable clips that are not in the cache, {modality: {end key: clip}}, and each modality's verdict."""
        self._forget_clips(self._own.settle(t))
        if self._emptied:
            again = t + self.task.window - min(m.span for m in self.task.modalities)
            self._full, self._emptied = max(self._full, again), False
        waiting = {name: self._begin_clips(name, t) for name in self.plans if name in self.cutters and name in statuses}
        clips: dict[str, dict[int, F32]] = {}
        qualities = {name: Quality(False, NO_SOURCE) for name in self.plans}
        # the face last: its newest frame is searched meanwhile
        for name, ends in sorted(waiting.items(), key=lambda item: item[0] == "face"):
            cutter, plan = self.cutters[name], self.plans[name]
            for end in ends:
                key = time_key(end)
                with span("clip", of=name):
                    found = cut_of_device(plan, cutter, end, t, statuses[name])
                quality = found.quality
                if found.ok and found.signal is not None:
                    clip = network_input(self._own.apply(name, found.signal, quality.track), plan.m)
                    quality = self._judge_novelty(name, clip, quality)
                    if quality.ok:
                        clips.setdefault(name, {})[key] = clip
                level = float(found.signal.mean()) if name == "eda" and found.signal is not None else None
                own = self._own.measure(name, found.signal) if quality.ok and found.signal is not None else None
                self._cache[name, key] = _Cached(quality, None, level, key, own)
                if found.presence is Presence.PAUSE:
                    self._hold(name, key, time_key(end - plan.m.stride))
            status = statuses[name]
            quality = self._newest(name, t)
            qualities[name] = replace(quality, lost=status.lost, altered=status.detail.get("altered", 0))
        return {name: clips[name] for name in self.plans if name in clips}, qualities

    def _begin_clips(self, name: str, t: float) -> list[float]:
        """The ends of a modality's new clips of the window that ends at `t`; what they would wait for is started."""
        plan = self.plans[name]
        ends = [end for end in plan.new_ends(t) if (name, time_key(end)) not in self._cache]
        for end in ends:
            begin(plan, self.cutters[name], end, t)
        return ends

    def _hold(self, name: str, key: int, before: int) -> None:
        """A pause in speech is part of speech: the clip at `key` shows what the step before it does, and counts as
        usable where that is."""
        pause, last = self._cache[name, key], self._cache.get((name, before))
        if last is not None and before != key and last.quality.ok:
            pause.shows, pause.quality = last.shows, replace(last.quality, reason=pause.quality.reason)

    def _newest(self, name: str, t: float) -> Quality:
        """The verdict on the newest clip of the window that ends at `t`."""
        return self._cache[name, time_key(self.plans[name].ends(t)[-1])].quality

    def _judge_novelty(self, name: str, clip: F32, quality: Quality) -> Quality:
        """The verdict on a clip whose signal is good."""
        if name not in self._densities:
            return quality
        with span("novelty", of=name):
            score = float(self._densities[name].score(DESCRIPTIONS[name](clip[None]))[0])
        return judge_novelty(name, quality, score, gate=self.novelty == "gate")

    def _run(
        self,
        clips: Mapping[str, Mapping[int, F32]],
        features: Mapping[str, F32],
        present: NDArray[np.bool_],
        fresh: Mapping[str, list[list[int]]],
    ) -> Step:
        """The window's inference; without a usable modality only its backbones, whose features may be used later."""
        stacked = {name: np.stack(list(of.values())) for name, of in clips.items()}
        if present.any():
            return self._engine.step(stacked, features, present, fresh)
        began = time.perf_counter()
        found = self._engine.backbones(stacked) if stacked else {}
        return Step(found, {}, {"backbones": time.perf_counter() - began} if stacked else {})

    def _rested(self, t: float, qualities: Mapping[str, Quality]) -> dict[str, Any] | None:
        """The window's part in the rest; None without one, of weights that take no baseline."""
        ends = {name: self.plans[name].ends(t)[-1] for name in self.cutters}
        newest = {name: self._cache.get((name, time_key(end))) for name, end in ends.items()}
        self._own.add(
            t, self._hop, {n: (ends[n], qualities[n], c.measured) for n, c in newest.items() if c is not None}
        )
        mode = {"calibrated": [n for n in self.plans if qualities[n].ok and self._own.knows(n, qualities[n].track)]}
        if self._rest is None:
            return mode if self._own else None
        self._rest.begin(t - self._hop)
        count, power = self._heard
        self._heard = (0, 0.0)
        for name, clip in newest.items():
            value: Any = None
            if name == "voice":
                value = decibels(power / count) if count and qualities[name].reason != VoiceQuality.PAUSE else None
            elif clip is not None:
                # the features of a face that is moved by its rest cannot be compared with those before
                face = clip.measured if self._own.takes(name) else clip.features
                value = face if name == "face" else clip.level
            self._rest.add(t, name, qualities[name], value)
        return {**self._rest.state(t), **(mode if self._own else {})}

    def _promise(
        self,
        t: float,
        outputs: Mapping[str, float],
        present: NDArray[np.bool_],
        qualities: Mapping[str, Quality],
    ) -> dict[str, Any] | None:
        """The set or interval of each output; None in windows unlike those it was measured on: the first ones (of the
        run, and after clips were dropped), which are not full, those with a novel signal that the gate let pass, those
        that end in a pause in speech, and those with the person's rest in some of its modalities only.
        """
        here = [name for name, seen in zip(self.task.names, present[0, -1]) if seen]
        novel = any((qualities[name].novelty or 0.0) > 1 for name in here)
        pause = any(qualities[name].reason == VoiceQuality.PAUSE for name in here)
        known = {self._own.knows(name, qualities[name].track) for name in here if self._own.takes(name)}
        if self._uncertainty is None or novel or pause or len(known) > 1 or t < self._full - 1e-6:
            return None
        return self._uncertainty.of(outputs, here)

    def _leave_out(
        self,
        features: Mapping[str, F32],
        found: Mapping[str, F32],
        present: NDArray[np.bool_],
        fresh: Mapping[str, list[list[int]]],
    ) -> dict[str, dict[str, float]]:
        """Each present modality -> the outputs without it, by one call of the fusion for all; empty where only one is
        present. An output that is not finite leaves its modality out.

        A call of its own: in a batch with the window itself, the window's numbers would differ in their last bits.
        """
        columns = np.flatnonzero(present[0, -1])
        if len(columns) < 2:
            return {}
        masks = np.repeat(present, len(columns), 0)
        masks[np.arange(len(columns)), :, columns] = False
        whole = merge(features, found, fresh)
        raw = self._engine.fusion({name: np.repeat(x, len(columns), 0) for name, x in whole.items()}, masks)
        outputs = [self._outputs(raw, row) for row in range(len(columns))]
        return {self.task.names[c]: values for c, values in zip(columns, outputs) if values is not None}

    def _sequence(
        self, t: float, qualities: Mapping[str, Quality], clips: Mapping[str, Mapping[int, F32]]
    ) -> tuple[dict[str, F32], NDArray[np.bool_], dict[str, list[list[int]]]]:
        """({modality: (1, S, d)}, (1, S, M) bool, the steps that each new clip fills).

        Features of new clips are still zero. A modality whose newest clip is not usable is absent at all steps, and a
        step of another person than the newest clip's is absent. A pause shows the clip before it (`presence.held`).
        """
        steps = self.task.steps
        features = {name: np.zeros((1, steps, self.task.dim), np.float32) for name in self.task.names}
        present = np.zeros((1, steps, len(self.task.names)), bool)
        who = np.zeros(present.shape, np.int32)
        rows = {name: {end: row for row, end in enumerate(of)} for name, of in clips.items()}
        fresh: dict[str, list[list[int]]] = {name: [[] for _ in of] for name, of in clips.items()}
        for column, (name, plan) in enumerate(self.plans.items()):
            if not qualities[name].ok:
                continue
            ends = plan.ends(t)
            for step in range(steps):
                end = time_key(ends[step if len(ends) > 1 else 0])
                cached = self._cache.get((name, end))
                if cached is not None and cached.shows != end:
                    end = cached.shows
                    cached = self._cache.get((name, end))
                if end in rows.get(name, {}):
                    fresh[name][rows[name][end]].append(step)
                elif cached is None or cached.features is None:
                    continue
                else:
                    features[name][0, step] = cached.features
                present[0, step, column] = True
                who[0, step, column] = cached.quality.track if cached is not None else 0
            present[..., column] = of_newest_person(present[..., column], who[..., column])
        return features, present, fresh

    def _outputs(self, raw: Mapping[str, F32], row: int = 0) -> dict[str, float] | None:
        """The last step's outputs of a window, as shown to the user; None where one is not finite."""
        outputs = {}
        for name in self.task.outputs:
            last = raw[name][row, -1]
            if not np.isfinite(last).all():
                return None
            if name == "pain":
                no, yes = (float(logit) / self._temperature for logit in last)
                outputs[name] = 1 / (1 + math.exp(min(no - yes, 700.0)))
            else:
                outputs[name] = min(1.0, max(-1.0, float(last)))
        return outputs

    def _forget(self, index: int) -> None:
        """Drop what no later window uses, and the frames that only past windows wanted."""
        oldest = {name: time_key(plan.ends((index + 1) * self._hop)[0]) for name, plan in self.plans.items()}
        self._cache = {key: value for key, value in self._cache.items() if key[1] >= oldest[key[0]]}
        self.skip_to(index + 1)
        self._preprocess = 0.0

    def _forget_clips(self, modalities: Iterable[str]) -> None:
        """Clips before a change of baseline do not belong to those after it: their steps are absent."""
        gone = set(modalities)
        self._emptied = self._emptied or bool(gone)
        self._cache = {key: value for key, value in self._cache.items() if key[0] not in gone}

    def skip_to(self, index: int) -> None:
        """Window `index` is the next one to be inferred."""
        for cutter in self.cutters.values():
            cutter.advance(index)


def uncertainty_of(bundle: Bundle, smooth: float) -> str:
    """What is promised of sets and intervals, in words. Means over several windows have no promise of their own."""
    if bundle.uncertainty is None:
        return "not known for one person" if bundle.subject else "not known"
    return "not known for smoothed results" if smooth else f"{bundle.uncertainty.coverage:.0%}"
