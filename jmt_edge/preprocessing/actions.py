"""What a face does, measured on its mesh: eyes, brows, nose, lips and head, and the facial actions that they stand for.

The mesh is MediaPipe's (Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile
GPUs"), which the gate uses too (`sight`). Its 468 points are turned into the head's own axes and divided by the
distance of the outer eye corners, so head pose and size drop out as far as the mesh's depth is right.

Geometry only and without calibration: no action here was fitted to or checked against coded faces. What was tested, and
what fails, is in docs/reference/actions.md. In particular the mesh hardly moves with the brows, so AU4 says little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..tasks import Modality
from .face import Face, align_crop
from .network import open_network
from .sight import MARGIN, MESH, SIDE

F64 = NDArray[np.float64]

# Points of the mesh; "left" is the left of an upright picture.
_LEFT_EYE, _RIGHT_EYE = (33, 133), (263, 362)  # outer and inner corner
_LEFT_LIDS = ((160, 144), (159, 145), (158, 153))  # upper and lower
_RIGHT_LIDS = ((385, 380), (386, 374), (387, 373))
_INNER_BROWS = (55, 107, 65, 285, 336, 295)
_BROW_HEADS = (55, 285)
_BRIDGE, _NOSE_BASE, _NOSE_FOOT = (168, 6), (2, 94), 2
_UPPER_LIP, _INNER_LIPS, _MOUTH_CORNERS, _CHIN = 0, (13, 14), (61, 291), 152

MEASURES = (
    "eye_left", "eye_right", "brow_height", "brow_distance", "nose_lip", "mouth_width", "corner_height",
    "mouth_opening", "jaw",
)  # fmt: skip
# What the head's pitch changes in spite of the turn into its axes, per degree, and what takes it away: the mean over
# eleven pictures of six people, warped by 20 degrees.
_PER_PITCH = {"brow_height": -0.00115, "jaw": 0.0031}

# Change against rest that counts as the strongest action (5): a share of rest for eyes and nose to lip, else in
# distances of the outer eye corners. The largest that was seen in the clips tested.
FULL = {
    "narrowing": 0.40, "nose_lip": 0.35, "brow_height": 0.04, "brow_distance": 0.03, "mouth_width": 0.16,
    "corner_height": 0.08, "mouth_opening": 0.16, "jaw": 0.12,
}  # fmt: skip
# What a network takes of a frame: the measures, and the pose, with which it can tell a turned head from an action. The
# roll is left out: people lie. Level and SD are those of the seven real clips of docs/reference/actions.md: the mean of
# their means, and the SD within and between them together.
CHANNELS = (*MEASURES, "pitch", "yaw")
LEVELS = (0.295, 0.295, 0.21, 0.275, 0.163, 0.58, 0.036, 0.06, 0.66, -7.0, 0.0)
SPREADS = (0.04, 0.04, 0.013, 0.006, 0.025, 0.07, 0.034, 0.06, 0.034, 5.0, 4.0)
ACTIONS = ("AU04", "AU06", "AU07", "AU09", "AU10", "AU12", "AU25", "AU26")  # 0..5
INDEX = "pspi_geometric_uncalibrated"


@dataclass(frozen=True)
class FaceMeasures:
    """One frame. pitch, yaw, roll: degrees; positive where the head looks down, to the picture's right, and leans
    clockwise. values: of each of `MEASURES`, see `measure`.
    """

    pitch: float
    yaw: float
    roll: float
    values: Mapping[str, float]


def mesh(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(468, 3) points in pixels of an aligned face (SIDE, SIDE, 3) uint8 RGB; z is deeper where larger."""
    image = crop[None].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    points: NDArray[np.float32] = open_network(MESH).run(["mesh"], {"image": image})[0]
    return points.reshape(468, 3)


def measure_face(image_bgr: NDArray[np.uint8], face: Face) -> FaceMeasures:
    """The measures of a face in `image_bgr` (H, W, 3) uint8."""
    return measure(mesh(align_crop(image_bgr, face, SIDE, MARGIN)), face.roll)


def measure(points: NDArray[np.float32], roll: float = 0.0) -> FaceMeasures:
    """The measures of a mesh (468, 3). roll: degrees by which the aligned face was turned upright.

    eye_left, eye_right: lids apart, by the eye's width. brow_height: inner brows above the inner eye corners.
    brow_distance: between their inner ends. nose_lip: from the nose's foot down to the upper lip. mouth_width; and
    corner_height: of its corners above its middle. mouth_opening: between the inner lips. jaw: nose's foot to chin.
    All but the eyes in distances of the outer eye corners.
    """
    axes, size = _axes(points.astype(np.float64))
    p: F64 = (points - points[list(_LEFT_EYE + _RIGHT_EYE)].mean(0)) @ axes.T / size

    def apart(a: int, b: int) -> float:
        return float(np.linalg.norm(p[a] - p[b]))

    def down(*points: int) -> float:
        return float(p[list(points), 1].mean())

    pitch = float(np.degrees(np.arcsin(np.clip(axes[1, 2], -1, 1))))
    values = {
        "eye_left": sum(apart(*lids) for lids in _LEFT_LIDS) / 3 / max(apart(*_LEFT_EYE), 1e-6),
        "eye_right": sum(apart(*lids) for lids in _RIGHT_LIDS) / 3 / max(apart(*_RIGHT_EYE), 1e-6),
        "brow_height": down(_LEFT_EYE[1], _RIGHT_EYE[1]) - down(*_INNER_BROWS),
        "brow_distance": apart(*_BROW_HEADS),
        "nose_lip": down(_UPPER_LIP) - down(_NOSE_FOOT),
        "mouth_width": apart(*_MOUTH_CORNERS),
        "corner_height": down(*_INNER_LIPS) - down(*_MOUTH_CORNERS),
        "mouth_opening": apart(*_INNER_LIPS),
        "jaw": down(_CHIN) - down(_NOSE_FOOT),
    }
    for name, slope in _PER_PITCH.items():
        values[name] += slope * pitch
    return FaceMeasures(pitch, float(np.degrees(np.arctan2(axes[0, 2], axes[0, 0]))), roll, values)


def _axes(points: F64) -> tuple[F64, float]:
    """((3, 3) across, down and into the head, rows; distance of the outer eye corners) of a mesh."""
    across = points[_RIGHT_EYE[0]] - points[_LEFT_EYE[0]]
    size = max(float(np.linalg.norm(across)), 1e-6)
    across = across / size
    down = points[list(_NOSE_BASE)].mean(0) - points[list(_BRIDGE)].mean(0)
    down = down - (down @ across) * across
    down = down / max(float(np.linalg.norm(down)), 1e-6)
    return np.stack([across, down, np.cross(across, down)]), size


def channels(frame: FaceMeasures) -> NDArray[np.float32]:
    """(C,) of `CHANNELS`: what a clip of measures holds of a frame."""
    return np.array([*(frame.values[name] for name in MEASURES), frame.pitch, frame.yaw], np.float32)


def as_measured(m: Modality) -> Modality:
    """The face of a task with clips of measures in place of pictures: `m.shape[1]` frames, in the same places."""
    return replace(m, shape=(len(CHANNELS), m.shape[1]), mean=LEVELS, std=SPREADS, fill="hold")


def normalise_measures(clips: NDArray[np.float32], m: Modality) -> NDArray[np.float32]:
    """Clips (..., T, C) of measures as the backbone of `m` takes them: (..., C, T) float32, each in its own SD."""
    scaled = (clips - np.asarray(m.mean, np.float32)) / np.asarray(m.std, np.float32)
    return np.ascontiguousarray(np.swapaxes(scaled, -1, -2), np.float32)


def mirrored(clip: NDArray[np.float32]) -> NDArray[np.float32]:
    """A clip (..., T, C) of measures as that of the mirror image."""
    out = clip.copy()
    left, right, yaw = (CHANNELS.index(name) for name in ("eye_left", "eye_right", "yaw"))
    out[..., left], out[..., right] = clip[..., right], clip[..., left]
    out[..., yaw] = -clip[..., yaw]
    return out


def median_of(frames: Sequence[FaceMeasures]) -> FaceMeasures:
    """The median of each angle and each measure of one or more frames."""
    pitch, yaw, roll = np.median([(frame.pitch, frame.yaw, frame.roll) for frame in frames], axis=0).tolist()
    return FaceMeasures(
        pitch, yaw, roll, {n: float(np.median([frame.values[n] for frame in frames])) for n in MEASURES}
    )


def rest_of(frames: Sequence[FaceMeasures]) -> dict[str, float]:
    """A person's rest: the median of each measure. Raises DataError where there is no frame."""
    if not frames:
        raise DataError("no frame shows a usable face at rest; choose another span with --rest, or another video")
    return dict(median_of(frames).values)


def actions(frame: FaceMeasures, rest: Mapping[str, float]) -> dict[str, float]:
    """The actions of a frame against the person's rest, each 0 (as at rest) to 5.

    AU04 lower and closer brows; AU06 and AU07 narrower eyes, which geometry does not tell apart; AU09 and AU10 a
    shorter way from nose to lip, likewise; AU12 wider mouth with raised corners; AU25 open lips; AU26 lower jaw.
    """
    now = frame.values

    def grown(name: str) -> float:
        return (now[name] - rest[name]) / FULL[name]

    def shrunk(name: str) -> float:
        return 1 - now[name] / max(rest[name], 1e-3)

    narrow = min(shrunk("eye_left"), shrunk("eye_right")) / FULL["narrowing"]
    lifted = shrunk("nose_lip") / FULL["nose_lip"]
    found = {
        "AU04": (-grown("brow_height") - grown("brow_distance")) / 2,
        "AU06": narrow,
        "AU07": narrow,
        "AU09": lifted,
        "AU10": lifted,
        "AU12": (grown("mouth_width") + grown("corner_height")) / 2,
        "AU25": grown("mouth_opening"),
        "AU26": grown("jaw"),
    }
    return {name: float(np.clip(5 * found[name], 0, 5)) for name in ACTIONS}


def pain_index(found: Mapping[str, float]) -> float:
    """0..16, after the Prkachin and Solomon pain intensity (2008): AU4 + max(AU6, AU7) + max(AU9, AU10) + AU43.

    A smile narrows the eyes and lifts the lip as well, so both count only as far as they exceed AU12, and AU43 (closed
    eyes, 0 to 1) loses as much of itself as AU12 has of its range. Geometric and uncalibrated: compare one person's
    frames with each other, never a number with the literature's.
    """
    smile = found["AU12"]
    eyes = max(found["AU06"], found["AU07"])
    closed = float(np.clip((eyes - 3) / 2, 0, 1)) * (1 - smile / 5)
    beyond = max(eyes - smile, 0.0) + max(max(found["AU09"], found["AU10"]) - smile, 0.0)
    return found["AU04"] + beyond + closed


def blinks(times: F64, opening: F64) -> list[tuple[int, int]]:
    """The first and last frame of each blink.

    times: (n,) s, ascending. opening: (n,) of an eye, NaN where there is no usable face. A blink is a dip below 0.9 of
    what the eye opens to both in the 0.4 s before and in the 0.4 s after; eyes that close and stay closed do not blink.
    """
    dips = np.zeros(len(times), bool)
    begins, ends = np.searchsorted(times, times - 0.4), np.searchsorted(times, times + 0.4, side="right")
    for i, (begin, end) in enumerate(zip(begins, ends)):
        sides = [opening[begin:i], opening[i + 1 : end]]
        sides = [side[np.isfinite(side)] for side in sides]
        if np.isfinite(opening[i]) and all(len(side) for side in sides):
            dips[i] = opening[i] < 0.9 * min(float(np.percentile(side, 75)) for side in sides)
    edges = np.flatnonzero(np.diff(np.r_[0, dips.astype(np.int8), 0]))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2])]
