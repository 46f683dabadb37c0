"""Frames in, face clips out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..media.chunk import Chunk
from ..opencv import cv2
from ..preprocessing.actions import FaceMeasures, channels, measure_face
from ..preprocessing.face import NO_FACE, TEMPLATE, TEMPLATE_SIDE, Face, FaceDetector, FaceTracker, align_crop
from ..preprocessing.quality import FaceFrame, FaceQuality, Verdict
from ..preprocessing.sight import FaceSight
from ..trace import span
from .frame_worker import FrameWorker
from .frames import Crop, frame_times, pick_crops, tolerance
from .plan import ClipPlan

HOLD = 4.0  # s before a clip's reach from which a face is still held where later frames show none
# s from one measured face to the next where no clip needs them. Searched frames lie 0.03 to 0.1 s apart (`frame_times`
# and the hop), so it becomes 0.17 to 0.2 s: 5 to 6 a second
EVERY = 0.15
SHOWN = 1.0  # s over which the measures of a face are taken together
KEPT = 62.0  # s of measures that are kept: a hop may be a minute long


class Found(NamedTuple):
    """A face and its aligned crop; None where a frame has none, and why."""

    face: Face | None
    crop: Crop | None
    why: str = NO_FACE


class Measured(NamedTuple):
    """The measures of one usable face: time in s, whose it is (`Face.track`), measures."""

    t: float
    track: int
    measures: FaceMeasures


class _Searched(NamedTuple):
    """What a frame at time `t` shows, and what was measured on it."""

    t: float
    face: Face | None
    crop: Crop | None
    judged: FaceFrame
    measured: Measured | None


Find = Callable[[Any, float], Found]  # (frame, time in s) -> what it shows
OnFace = Callable[[float, Face | None], None]


def tracked(size: int, follow: str = "largest") -> Find:
    """Follows one face through frames (H, W, 3) uint8 BGR and crops it to `size` pixels. follow: see `FaceTracker`."""
    tracker = FaceTracker(FaceDetector(), follow=follow, sight=FaceSight())

    def find(image: NDArray[np.uint8], t: float) -> Found:
        face = tracker.update(image, t)
        return Found(None, None, tracker.why) if face is None else Found(face, align_crop(image, face, size))

    return find


def cropped(size: int) -> Find:
    """For frames that are already aligned faces (Affwild2's `cropped_aligned`); None is a frame without a face.

    The face is where `align_crop` would put it, so its position is neither searched for nor judged.
    """

    def find(image: NDArray[np.uint8] | None, t: float) -> Found:
        if image is None:
            return Found(None, None)
        height, width = image.shape[:2]
        crop: NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if (height, width) != (size, size):
            shrinks = size < width
            crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        landmarks = (TEMPLATE * (width / TEMPLATE_SIDE)).astype(np.float32)
        return Found(Face((0.0, 0.0, float(width), float(height)), 1.0, landmarks), np.asarray(crop, np.uint8))

    return find


class FaceCutter:
    """Searches for faces only in the frames that some clip uses; no other frame is accessed.

    A clip uses the frame nearest to each of its `frame_times`, not later than its end. That frame is known once the
    next one has arrived, so one frame is kept; of searched frames only the aligned crop is kept, or the face's measures
    where the clip is made of them. Which frames are searched, and in which order, depends on the frames and the windows
    alone, not on how frames were cut into chunks.

    window_end: when window i ends, ascending. find: `tracked` by default, which follows `follow`. on_face: called with
    the time and face of each searched frame, by `push`, `clip`, `verdict` or `measured`. actions: measure the face
    every `EVERY` seconds even if no clip needs it. threaded: search in a thread of its own. A clip waits for the
    frames up to its end, so it is the same clip; at a window's end, at most its newest frame is still to be searched.
    """

    def __init__(
        self,
        plan: ClipPlan,
        window_end: Callable[[int], float],
        first: int,
        *,
        on_face: OnFace | None = None,
        find: Find | None = None,
        follow: str = "largest",
        actions: bool = False,
        threaded: bool = False,
    ) -> None:
        self._plan, self._window_end = plan, window_end
        self._worker = FrameWorker(self._look, "face search") if threaded else None
        self._handed = -np.inf  # time of the newest frame that is searched, or will be
        self._tolerance = tolerance(plan.m)
        self._find = find or tracked(plan.m.side, follow)
        self._every = 0.0 if plan.m.measured else EVERY if actions else None
        self._tried = -np.inf  # when a face was last measured, or would have been
        self._measured: deque[Measured] = deque()
        self._quality = FaceQuality()
        self._on_face = on_face
        self._current = self._planned = first  # the window being filled; the first one without wanted frames yet
        self._wanted: deque[tuple[float, float, int]] = deque()  # (frame time, its clip's end, window), by frame time
        self._before: tuple[float, Sequence[Any], int] | None = None  # time, and where its image is
        self._crops: deque[tuple[float, Crop | None, int]] = deque()  # time, crop, whose it is
        self.start: float | None = None
        self.last = -np.inf
        self.history = plan.reach + self._tolerance

    def push(self, chunk: Chunk) -> None:
        for i, t in enumerate(chunk.times.tolist()):
            if t <= self.last:
                continue  # a duplicate or late frame
            self.start = t if self.start is None else self.start
            self.last = t
            self._want(t)
            now = (t, chunk.values, i)
            chosen = []
            while self._wanted and self._wanted[0][0] <= t:
                if (frame := self._nearest(*self._wanted.popleft(), now)) is not None:
                    chosen.append(frame)
            for frame in sorted(chosen, key=lambda frame: frame[0]):
                self._search(*frame)
            self._before = now
        self._take(-np.inf)

    def advance(self, window: int) -> None:
        """Frames that only windows before `window` wanted are no longer searched."""
        self._current = max(self._current, window)

    def begin(self, end: float) -> None:
        """Search the newest frame, where the clip that ends at `end` uses it."""
        if self._before is not None and self._before[0] <= end + 1e-6:
            missing = [w for w, e, _ in self._wanted if abs(e - end) < 1e-6 and w <= end + 1e-6]
            if any(w - self._before[0] <= self._tolerance for w in missing):
                self._search(*self._before)

    def clip(self, end: float) -> tuple[NDArray[Any], float]:
        """The clip that ends at `end`: ((T, H, W, 3) uint8 RGB, or (T, C) float32 measures; fraction of its frames that
        show a face, of measures one that may be used).

        Only the person in its newest frame is in it: frames of anybody else count as frames without a face.
        """
        self.begin(end)
        self._take(end)
        oldest = self._handed - self._plan.reach - HOLD
        known = [(t, crop, who) for t, crop, who in self._crops if oldest <= t <= end + 1e-6]
        newest = next((who for _, crop, who in reversed(known) if crop is not None), 0)
        crops, valid = pick_crops([(t, crop if who == newest else None) for t, crop, who in known], end, self._plan.m)
        return crops, float(valid.mean())

    def verdict(self, end: float) -> Verdict:
        self._take(end)
        return self._quality.verdict(end, self._plan.m.span)

    def measured(self, end: float) -> tuple[Verdict, list[Measured]]:
        """The face of the last `SHOWN` seconds before `end`: the verdict on its frames, and its measures in those in
        which it may be used. Empty unless `actions`, or clips made of measures, asked for them.
        """
        self._take(end)
        return self._quality.verdict(end, SHOWN), [m for m in self._measured if end - SHOWN < m.t <= end + 1e-6]

    def _want(self, t: float) -> None:
        """Note the frames wanted by windows that reach back to `t`."""
        added = False
        self._planned = max(self._planned, self._current)
        while (window_end := self._window_end(self._planned)) - self._plan.reach - self._tolerance <= t:
            for end in self._plan.new_ends(window_end):
                times = frame_times(self._plan.m, end).tolist()
                self._wanted.extend((w, end, self._planned) for w in times)
            self._planned += 1
            added = True
        if added:
            self._wanted = deque(sorted(self._wanted))

    def _nearest(
        self, w: float, end: float, window: int, now: tuple[float, Sequence[Any], int]
    ) -> tuple[float, Sequence[Any], int] | None:
        """The frame used for time `w`: the one that arrived `now` (at or after w) or the one before it."""
        if window < self._current:
            return None
        candidates = [self._before] if self._before is not None else []
        if now[0] <= end + 1e-6:
            candidates.append(now)
        best = min(candidates, key=lambda frame: abs(frame[0] - w), default=None)
        return best if best is not None and abs(best[0] - w) <= self._tolerance else None

    def _search(self, t: float, images: Sequence[Any], at: int) -> None:
        if t <= self._handed:
            return
        self._handed = t
        if self._worker is None:
            self._add(self._look(images[at], t))
        else:
            self._worker.hand(t, images, at)

    def _look(self, image: Any, t: float) -> _Searched:
        """Search a frame, and measure its face where that is due."""
        with span("face"):
            face, crop, why = self._find(image, t)
        judged = self._quality.judge(t, face, crop, why)
        measured = None
        if self._every is not None and t - self._tried >= self._every:
            self._tried = t
            with span("measure face"):
                measures = None if face is None or judged.fault else measure_face(image, face)
            if face is not None and measures is not None:
                measured = Measured(t, face.track, measures)
            if self._plan.m.measured:
                crop = None if measures is None else channels(measures)
        return _Searched(t, face, crop, judged, measured)

    def _take(self, end: float) -> None:
        """Wait for the searched frames up to `end`."""
        if self._worker is not None:
            for searched in self._worker.take(end + 1e-6):
                self._add(searched)

    def _add(self, searched: _Searched) -> None:
        t, face, crop, judged, measured = searched
        self._quality.add(judged)
        if measured is not None:
            self._measured.append(measured)
        while self._measured and self._measured[0].t < t - KEPT:
            self._measured.popleft()
        self._crops.append((t, crop, 0 if face is None else face.track))
        while self._crops[0][0] < t - self._plan.reach - HOLD:
            self._crops.popleft()
        if self._on_face is not None:
            self._on_face(t, face)
