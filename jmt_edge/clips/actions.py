"""The facial actions of a video, frame by frame, of the face that a live run would follow."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..preprocessing.actions import ACTIONS, INDEX, MEASURES, FaceMeasures, actions, blinks, measure_face, pain_index
from ..preprocessing.face import FaceDetector, FaceTracker, align_crop
from ..preprocessing.quality import FaceQuality
from ..preprocessing.sight import FaceSight

COLUMNS = (
    "frame", "face_id", "timestamp", "confidence", "success", "pose_Rx", "pose_Ry", "pose_Rz",
    *(f"{name}_r" for name in ACTIONS), "AU45_c", INDEX, *MEASURES, "reason",
)  # fmt: skip


@dataclass(frozen=True)
class FrameActions:
    """One frame. time: s. track: whose face it is, 0 for none. score: of its detection. reason: why it is not
    measured, empty where it is. measures: None where there is a reason. found: the actions, empty without a rest.
    """

    time: float
    track: int
    score: float
    reason: str
    measures: FaceMeasures | None
    found: Mapping[str, float]
    blink: bool = False


def face_actions(frames: Iterable[tuple[float, NDArray[np.uint8]]], follow: str = "largest") -> Iterator[FrameActions]:
    """The measures of each frame (time in s, (H, W, 3) uint8 BGR), where the gate of a live run lets the face pass.

    follow: see `FaceTracker`.
    """
    tracker, quality = FaceTracker(FaceDetector(), follow=follow, sight=FaceSight()), FaceQuality()
    for t, image in frames:
        face = tracker.update(image, t)
        quality.update(t, face, None if face is None else align_crop(image, face, 112), tracker.why)
        reason = quality.newest()
        if face is None or reason:
            track, score = (0, 0.0) if face is None else (face.track, face.score)
            yield FrameActions(t, track, score, reason, None, {})
        else:
            yield FrameActions(t, face.track, face.score, "", measure_face(image, face), {})


def against_rest(frames: list[FrameActions], rest: Mapping[int, Mapping[str, float]]) -> list[FrameActions]:
    """The frames with their actions and blinks. rest: of each person (`FrameActions.track`)."""
    out = [
        frame if frame.measures is None else replace(frame, found=actions(frame.measures, rest[frame.track]))
        for frame in frames
    ]
    for track in rest:
        eyes = [
            np.nan if f.measures is None or f.track != track
            else (f.measures.values["eye_left"] + f.measures.values["eye_right"]) / 2
            for f in out
        ]  # fmt: skip
        for first, last in blinks(np.array([f.time for f in out]), np.array(eyes)):
            out[first : last + 1] = [replace(f, blink=True) for f in out[first : last + 1]]
    return out


def write_actions(path: Path, frames: Iterable[FrameActions]) -> None:
    """A CSV of `COLUMNS`, named as OpenFace 2 names them where it has the like; what is not measured is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for i, frame in enumerate(frames, 1):
            head = [i, frame.track, f"{frame.time:.3f}", f"{frame.score:.3f}", int(frame.measures is not None)]
            m, found = frame.measures, frame.found
            if m is None:
                table.writerow([*head, *[""] * (len(COLUMNS) - len(head) - 1), frame.reason])
                continue
            pose = [f"{np.radians(angle):.4f}" for angle in (m.pitch, m.yaw, m.roll)]
            strengths = [f"{found[name]:.3f}" for name in ACTIONS] if found else [""] * len(ACTIONS)
            index = f"{pain_index(found):.3f}" if found else ""
            values = [f"{m.values[name]:.4f}" for name in MEASURES]
            table.writerow([*head, *pose, *strengths, int(frame.blink), index, *values, ""])
