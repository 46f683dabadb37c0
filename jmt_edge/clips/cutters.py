"""From samples to clips: which clips a window needs, and bounded buffers that cut them.

Window i ends at i x hop. Where the clips of all modalities share one stride (affect, trimodal), that stride is moved
to the hop's grid: a multiple of the hop, or the hop divided by a whole number. Then each window needs one new clip of
each modality (or that whole number) and finds the others in the cache: the work per hop does not depend on the number
of steps. A window that was cut into pieces of different length for each modality (pain with S = 4) keeps its exact
stride, and pieces that are not in the cache are computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..media.chunk import Chunk
from ..preprocessing.eda import normalise_eda, resample_eda
from ..preprocessing.face import Face, FaceDetector, FaceTracker, align_crop
from ..preprocessing.quality import EdaQuality, FaceQuality, Verdict, VoiceQuality
from ..preprocessing.voice import voice_clip
from ..tasks import AUDIO_RATE, Modality, Task
from .frames import MAX_OFFSET, face_clip, frame_times

F32 = NDArray[np.float32]

# s of signal kept beyond a clip's reach, for windows that wait behind a slow engine, and
EDA_SETTLE = 4.0  # for the resampler's filter and the bridging of a gap
HOLD = 4.0  # for a face held where later frames show none


def time_key(t: float) -> int:
    """A time in whole microseconds: equal for equal clip ends, however they were computed."""
    return round(t * 1e6)


@dataclass(frozen=True)
class ClipPlan:
    """Which clips of one modality the windows need.

    m: the modality with the stride that is used. new: the newest clips of a window that are computed where they are
    not in the cache; older ones that are not there are absent.
    """

    m: Modality
    steps: int
    new: int

    def ends(self, t: float) -> list[float]:
        """Ends (s) of the clips of the window that ends at `t`, oldest first; one where one clip serves all steps."""
        return [t + e for e in self.m.clip_ends(self.steps if self.m.stride else 1)]

    @property
    def reach(self) -> float:
        """Seconds before the window's end from which samples are needed."""
        return self.m.span - self.m.end + (self.new - 1) * self.m.stride


def plan_clips(task: Task, hop: float) -> dict[str, ClipPlan]:
    """The clip plan of each modality for windows every `hop` seconds."""
    strides = {m.stride for m in task.modalities if m.stride}
    plans: dict[str, ClipPlan] = {}
    for m in task.modalities:
        if not m.stride or task.steps == 1:
            plan = ClipPlan(m, task.steps, 1)
        elif len(strides) > 1:
            plan = ClipPlan(m, task.steps, task.steps)
        elif m.stride >= hop:
            plan = ClipPlan(replace(m, stride=max(1, round(m.stride / hop)) * hop), task.steps, 1)
        else:
            per_hop = max(1, round(hop / m.stride))
            plan = ClipPlan(replace(m, stride=hop / per_hop), task.steps, min(per_hop, task.steps))
        plans[m.name] = plan
    return plans


class Stream(Protocol):
    """A bounded buffer of one modality. start, last: stream times (s) of the first and the newest sample."""

    start: float | None
    last: float

    def push(self, chunk: Chunk) -> None: ...

    def advance(self, window: int) -> None:
        """Windows before `window` are done or dropped."""
        return

    def clip(self, end: float) -> tuple[F32, float]:
        """The clip that ends at `end` as the backbone takes it, and the fraction of it that is real."""
        ...

    def verdict(self, end: float) -> Verdict:
        """The quality of the signal under the clip that ends at `end`."""
        ...


class FaceStream(Stream):
    """Frames in, face clips out. Only frames that some clip uses are searched for a face.

    A clip wants the frame nearest to each of its `frame_times`, not later than its end. That frame is known once the
    next one has arrived, so one frame is kept; of searched frames only the aligned crop stays. The frames searched,
    and their order, depend on the frames and the windows alone, not on how the frames were cut into chunks.
    """

    def __init__(
        self, plan: ClipPlan, hop: float, first: int, on_face: Callable[[float, Face | None], None] | None = None
    ) -> None:
        self._plan, self._hop = plan, hop
        self._size = plan.m.shape[-1]
        self._tolerance = max(plan.m.span / plan.m.shape[1] / 2, MAX_OFFSET)
        self._tracker = FaceTracker(FaceDetector())
        self._quality = FaceQuality()
        self._on_face = on_face
        self._current = self._planned = first  # the window being filled; the first one without wanted frames yet
        self._wanted: deque[tuple[float, float, int]] = deque()  # (frame time, its clip's end, window), by frame time
        self._before: tuple[float, NDArray[np.uint8]] | None = None
        self._crops: deque[tuple[float, NDArray[np.uint8] | None]] = deque()
        self.start: float | None = None
        self.last = -np.inf

    def push(self, chunk: Chunk) -> None:
        for t, image in zip(chunk.times.tolist(), chunk.values):
            if t <= self.last:
                continue  # a frame that came twice, or late
            self.start = t if self.start is None else self.start
            self.last = t
            self._want(t)
            chosen = [frame for w, end, i in self._due(t) if (frame := self._nearest(w, end, t, image, i))]
            for frame in sorted(chosen, key=lambda frame: frame[0]):
                self._search(*frame)
            self._before = (t, image)

    def advance(self, window: int) -> None:
        """Frames that only windows before `window` wanted are no longer searched."""
        self._current = max(self._current, window)

    def clip(self, end: float) -> tuple[F32, float]:
        """The clip that ends at `end`: ((3, T, H, W), fraction of its frames that show a face)."""
        if self._before is not None and self._before[0] <= end + 1e-6:
            missing = [w for w, e, _ in self._wanted if abs(e - end) < 1e-6 and w <= end + 1e-6]
            if any(w - self._before[0] <= self._tolerance for w in missing):
                self._search(*self._before)
        clip, valid = face_clip(list(self._crops), end, self._plan.m)
        return clip, float(valid.mean())

    def verdict(self, end: float) -> Verdict:
        return self._quality.verdict(end, self._plan.m.span)

    def _want(self, t: float) -> None:
        """Note what the windows want that reach back to `t`."""
        added = False
        self._planned = max(self._planned, self._current)
        while self._planned * self._hop - self._plan.reach - self._tolerance <= t:
            for end in self._plan.ends(self._planned * self._hop)[-self._plan.new :]:
                times = frame_times(self._plan.m, end).tolist()
                self._wanted.extend((w, end, self._planned) for w in times)
            self._planned += 1
            added = True
        if added:
            self._wanted = deque(sorted(self._wanted))

    def _due(self, t: float) -> list[tuple[float, float, int]]:
        due = []
        while self._wanted and self._wanted[0][0] <= t:
            due.append(self._wanted.popleft())
        return due

    def _nearest(
        self, w: float, end: float, t: float, image: NDArray[np.uint8], window: int
    ) -> tuple[float, NDArray[np.uint8]] | None:
        """The frame that stands for `w`: the one at `t` (>= w) or the one before it."""
        if window < self._current:
            return None
        candidates = [self._before] if self._before is not None else []
        if t <= end + 1e-6:
            candidates.append((t, image))
        best = min(candidates, key=lambda frame: abs(frame[0] - w), default=None)
        return best if best is not None and abs(best[0] - w) <= self._tolerance else None

    def _search(self, t: float, image: NDArray[np.uint8]) -> None:
        if self._crops and self._crops[-1][0] >= t:
            return
        face = self._tracker.update(image, t)
        crop = None if face is None else align_crop(image, face, self._size)
        self._quality.update(t, face, crop)
        self._crops.append((t, crop))
        while self._crops[0][0] < t - self._plan.reach - HOLD:
            self._crops.popleft()
        if self._on_face is not None:
            self._on_face(t, face)


class VoiceStream(Stream):
    """Sound in, spectrogram clips out. A ring buffer on an exact 44.1 kHz grid; lost samples are silence.

    Sample times decide the place on the grid, but times that stray by less than 20 ms (a clock's drift) do not tear
    the sound apart.
    """

    MAX_STRAY = 0.02

    def __init__(self, plan: ClipPlan) -> None:
        self._plan = plan
        self._length = round((plan.reach + 1.0) * AUDIO_RATE)
        self._samples = np.zeros(self._length, np.float32)
        self._real = np.zeros(self._length, bool)
        self._next: int | None = None  # grid index after the last sample
        self._shift = 0.0  # grid time minus sample time of the last sample, s
        self._quality = VoiceQuality()
        self.start: float | None = None
        self.last = -np.inf

    def push(self, chunk: Chunk) -> None:
        if not len(chunk):
            return
        if chunk.rate and round(chunk.rate) != AUDIO_RATE:
            raise DataError(f"a source gave sound at {chunk.rate:g} Hz; it must be resampled to {AUDIO_RATE} Hz first")
        if self.start is None:
            self.start = float(chunk.times[0])
        self._quality.update(chunk.times, chunk.values)
        index = np.round(chunk.times * AUDIO_RATE).astype(np.int64)
        values = np.asarray(chunk.values, np.float32)
        done = 0
        while done < len(index):
            place = int(index[done]) if self._next is None else self._next
            stray = np.abs(index[done:] - place - np.arange(len(index) - done)) > self.MAX_STRAY * AUDIO_RATE
            count = int(np.argmax(stray)) if stray.any() else len(stray)
            if count == 0:
                self._jump(int(index[done]))
                continue
            self._write(place, values[done : done + count])
            done += count
        self.last = float(chunk.times[-1])

    def _jump(self, index: int) -> None:
        """Continue at grid `index`; what was skipped is silence."""
        if self._next is not None and index > self._next:
            skipped = np.arange(max(self._next, index - self._length), index) % self._length
            self._samples[skipped], self._real[skipped] = 0.0, False
        self._next = index

    def _write(self, index: int, values: F32) -> None:
        kept = values[-self._length :]
        self._next = index + len(values)
        where = np.arange(self._next - len(kept), self._next) % self._length
        self._samples[where], self._real[where] = kept, True

    def clip(self, end: float) -> tuple[F32, float]:
        """The clip that ends at `end`: ((1, 64, frames), fraction of its samples that are there)."""
        m = self._plan.m
        stop = round(end * AUDIO_RATE)
        index = np.arange(stop - round(m.span * AUDIO_RATE), stop)
        there = self._next if self._next is not None else 0
        where = index % self._length
        real = self._real[where] & (index < there) & (index >= there - self._length)
        samples = np.where(real, self._samples[where], np.float32(0))
        return voice_clip(samples, m), float(real.mean())

    def verdict(self, end: float) -> Verdict:
        return self._quality.verdict(end, self._plan.m.span)


class EdaStream(Stream):
    """EDA in µS at any rate in, clips at 512 Hz out."""

    def __init__(self, plan: ClipPlan) -> None:
        self._plan = plan
        self._chunks: deque[tuple[NDArray[np.float64], F32]] = deque()
        self._quality = EdaQuality()
        self.start: float | None = None
        self.last = -np.inf

    def push(self, chunk: Chunk) -> None:
        if not len(chunk):
            return
        if self.start is None:
            self.start = float(chunk.times[0])
        values = np.asarray(chunk.values, np.float32)
        self._quality.update(chunk.times, values)
        self._chunks.append((chunk.times, values))
        self.last = float(chunk.times[-1])
        while self._chunks[0][0][-1] < self.last - self._plan.reach - EDA_SETTLE:
            self._chunks.popleft()

    def clip(self, end: float) -> tuple[F32, float]:
        """The clip that ends at `end`: ((1, samples) µS or normalised, fraction that is real data)."""
        m = self._plan.m
        times = np.concatenate([t for t, _ in self._chunks]) if self._chunks else np.empty(0)
        values = np.concatenate([v for _, v in self._chunks]) if self._chunks else np.empty(0, np.float32)
        clip, real = resample_eda(times, values, end, m)
        return normalise_eda(clip, m), real

    def verdict(self, end: float) -> Verdict:
        return self._quality.verdict(end, self._plan.m.span)


def open_stream(
    plan: ClipPlan, hop: float, first: int, on_face: Callable[[float, Face | None], None] | None = None
) -> Stream:
    """The buffer of the plan's modality. `first` is the first window of the run."""
    if plan.m.name == "face":
        return FaceStream(plan, hop, first, on_face)
    return VoiceStream(plan) if plan.m.name == "voice" else EdaStream(plan)
