"""Find a face, follow it, cut it out upright.

Detector: CenterFace (Xu et al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point"), a key-point
network that gives box, score and five landmarks at once. `NOTICE` records where its weights come from.
The papers detected with MTCNN; both give the same five landmarks, and the crop depends on the landmarks only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..opencv import cv2
from ..tasks import Modality
from ..trace import span
from .network import open_network

WEIGHTS = Path(__file__).parent / "data" / "centerface.onnx"

FULL_SIDE = 320  # the longest side of a whole frame, as the network sees it
ROI_SIDE = 128
SCORE_THRESHOLD = 0.5
NMS_OVERLAP = 0.3  # two boxes that share more are one face
SAME_OVERLAP = 0.5  # boxes that share more with the best one are averaged with it
STRIDE = 4  # of the network's output maps

# Eyes, nose tip and mouth corners of a frontal face in a 112 x 112 crop; the reference points of InsightFace's
# aligned crops, which ABAW's `cropped_aligned` faces follow.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
TEMPLATE_SIDE = 112
_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.950456, 1.0, 1.088754])
_FRONTAL = (TEMPLATE - TEMPLATE.mean(0)) @ (1, 1j)

NO_FACE = "no face"
SEVERAL = "several people: {}"
OTHER = "another person: the first one is followed"
LYING = {90: "face sideways", 180: "face upside down", 270: "face sideways"}

NEAR_ROLL = 20.0  # degrees of roll up to which landmarks are exact

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Face:
    """One detected face in pixels of its image.

    box: (x0, y0, x1, y1). score: 0..1. landmarks: (5, 2) x, y of the eye, eye, nose tip, mouth corner and mouth
    corner; of each pair the one that is further left where the face is upright comes first.
    track: the number of the person who is followed, from 1; 0 where nobody follows.
    turn: degrees, 0, 90, 180 or 270, by which this person lies turned clockwise in the picture.
    fault: why the face may not be used although it was found, empty where nothing is wrong.
    """

    box: Box
    score: float
    landmarks: NDArray[np.float32]
    track: int = 0
    turn: int = 0
    fault: str = ""

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def roll(self) -> float:
        """Degrees by which the face is turned clockwise, -180..180, by all five landmarks."""
        return float(np.degrees(np.angle(np.vdot(_FRONTAL, self.landmarks @ (1, 1j)))))


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


class FaceDetector:
    """CenterFace in onnxruntime on one CPU thread.

    A face is the mean of the boxes and landmarks around its best score, weighted by what each has above the threshold
    and by its overlap with the best ("blending" in BlazeFace, Bazarevsky et al. 2019), so that nothing jumps where the
    best score passes to a neighbour.
    Raises DataError where the weights are missing from the installation.
    """

    def __init__(self) -> None:
        self._session = open_network(WEIGHTS)

    def detect(self, image_bgr: NDArray[np.uint8], turn: int = 0) -> list[Face]:
        """All faces of `image_bgr` (H, W, 3) uint8, the largest first.

        The frame is shrunk so that its longest side is 320 pixels: faces narrower than about 1/25 of it are not found.
        turn: 90, 180 or 270 to search the frame turned back by so many degrees. Faces are found at any angle, but
        those that are upright are found best.
        """
        height, width = image_bgr.shape[:2]
        scale = FULL_SIDE / max(height, width)
        canvas = _canvas(image_bgr, (0, 0, width, height), scale)
        back = np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
        for _ in range(turn // 90):
            # a point of the turned canvas lies at (y, side - x) of the one before
            back = back @ np.array([[0, -1, canvas.shape[1]], [1, 0, 0], [0, 0, 1.0]])
            canvas = np.rot90(canvas)
        return self._run(canvas, back)

    def detect_near(self, image_bgr: NDArray[np.uint8], face: Face, roll: float = 0.0) -> list[Face]:
        """All faces in the square of twice `face`'s size around it, the largest first; a quarter of the full cost.

        roll: degrees by which the square is turned clockwise: landmarks are exact where the face is upright in it.
        """
        half = int(np.ceil(max(face.width, face.height)))
        x, y = round(face.centre[0]), round(face.centre[1])
        scale = ROI_SIDE / (2 * half)
        if not roll:
            canvas = _canvas(image_bgr, (x - half, y - half, x + half, y + half), scale)
            return self._run(canvas, np.array([[1 / scale, 0, x - half], [0, 1 / scale, y - half]]))
        c, s = scale * np.cos(np.radians(roll)), scale * np.sin(np.radians(roll))
        matrix = np.array([[c, s, ROI_SIDE / 2 - c * x - s * y], [-s, c, ROI_SIDE / 2 + s * x - c * y]])
        back = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
        return self._run(_warp(image_bgr, matrix, ROI_SIDE), back)

    def _run(self, canvas: NDArray[np.uint8], back: NDArray[np.float64]) -> list[Face]:
        """The faces of a canvas (h, w, 3) BGR, sides a multiple of 32; `back` (2, 3) takes its points to the image."""
        image = np.empty((1, 3, *canvas.shape[:2]), np.float32)
        for channel, plane in enumerate(cv2.split(np.ascontiguousarray(canvas))):
            image[0, 2 - channel] = plane
        with span("search", height=canvas.shape[0], width=canvas.shape[1]):
            heatmap, log_size, offset, landmarks = self._session.run(None, {"image": image})
        rows, columns = np.nonzero(heatmap[0, 0] > SCORE_THRESHOLD)
        scores = heatmap[0, 0, rows, columns]
        height, width = np.exp(log_size[0, :, rows, columns].T) * STRIDE
        y = (rows + offset[0, 0, rows, columns] + 0.5) * STRIDE - height / 2
        x = (columns + offset[0, 1, rows, columns] + 0.5) * STRIDE - width / 2
        points = landmarks[0, :, rows, columns].reshape(-1, 5, 2)  # (y, x) as a fraction of the box
        corner, size = np.stack([x, y], 1), np.stack([width, height], 1)
        where = (corner[:, None] + points[..., ::-1] * size[:, None]).reshape(-1, 10)
        across = abs(back[0, 1]) > abs(back[0, 0])  # the box lies on its side in the image
        zoom = float(np.hypot(back[0, 0], back[1, 0]))
        faces: list[Face] = []
        left = np.argsort(-scores, kind="stable")
        while len(left):
            shared = _overlaps(corner[left], size[left])
            weights = (scores[left] - SCORE_THRESHOLD) * np.maximum(shared - SAME_OVERLAP, 0)
            weights /= weights.sum()
            extent = weights @ size[left]
            centre = back[:, :2] @ (weights @ corner[left] + extent / 2) + back[:, 2]
            half = extent[::-1] * zoom / 2 if across else extent * zoom / 2
            low, high = centre - half, centre + half
            box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
            landmarks = (weights @ where[left]).reshape(5, 2) @ back[:, :2].T + back[:, 2]
            faces.append(Face(box, float(scores[left[0]]), landmarks.astype(np.float32)))
            left = left[shared <= NMS_OVERLAP]
        return sorted(faces, key=lambda face: -face.area)


def _overlaps(corner: NDArray[np.float32], size: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) intersection over union of the first box with each; corner, size: (n, 2)."""
    shared = np.minimum(corner + size, corner[0] + size[0]) - np.maximum(corner, corner[0])
    both = np.maximum(shared, 0).prod(1)
    return np.asarray(both / (size.prod(1) + size[0].prod() - both), np.float64)


def _canvas(image: NDArray[np.uint8], roi: tuple[int, int, int, int], scale: float) -> NDArray[np.uint8]:
    """The region scaled, black outside the image, sides a multiple of 32: (h, w, 3) uint8."""
    x0, y0, x1, y1 = roi
    height, width = (int(np.ceil(round((b - a) * scale) / 32)) * 32 for a, b in ((y0, y1), (x0, x1)))
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = max(x0, 0), max(y0, 0)
    part = image[top : max(y1, 0), left : max(x1, 0)]
    if part.size:
        column, row = round((left - x0) * scale), round((top - y0) * scale)
        w = max(1, min(round(part.shape[1] * scale), width - column))
        h = max(1, min(round(part.shape[0] * scale), height - row))
        canvas[row : row + h, column : column + w] = cv2.resize(
            part, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
    return canvas


class Sight(Protocol):
    """Judges what the landmarks cannot tell; `visibility.FaceSight`."""

    def judge(self, image_bgr: NDArray[np.uint8], face: Face) -> tuple[int, str]:
        """(by how many degrees, 0, 90, 180 or 270, the face is turned clockwise against its landmarks; what of it is
        covered, empty where nothing is)."""
        ...


class SearchGrid:
    """Where to search for a face: squares of few places, sizes and rolls, so that the same face is seen the same way.

    A square stays while the face's centre is within `KEEP` of its middle, the face's size within `KEEP_SIZE` octaves
    and its roll within `NEAR_ROLL` degrees; then the nearest one of the grid follows. Every change is larger than the
    detector's noise, which therefore never moves the square.
    """

    STEP, KEEP = 1 / 8, 3 / 32  # of half the square's side, that is, of the face's size
    SIZES, KEEP_SIZE = 4, 3 / 16  # sizes per octave; octaves
    ROLL = 20.0  # degrees between two rolls

    def __init__(self) -> None:
        self._half, self._x, self._y, self._roll = 0, 0, 0, 0.0

    def near(self, face: Face, roll: float) -> tuple[Face, float]:
        """Where to search for `face`, turned by about `roll` degrees: (a face whose surroundings are the square for
        `FaceDetector.detect_near`, the roll for it)."""
        size = max(face.width, face.height, 1.0)
        first = not self._half
        if first or abs(np.log2(size / self._half)) > self.KEEP_SIZE:
            self._half = max(1, round(2 ** (round(np.log2(size) * self.SIZES) / self.SIZES)))
            self._x = self._y = -(1 << 30)
        if max(abs(face.centre[0] - self._x), abs(face.centre[1] - self._y)) > self.KEEP * self._half:
            step = max(1, round(self.STEP * self._half))
            self._x, self._y = (round(c / step) * step for c in face.centre)
        if first or abs(wrapped(roll - self._roll)) > NEAR_ROLL:
            self._roll = round(roll / self.ROLL) * self.ROLL
        x, y, half = self._x, self._y, self._half / 2
        return replace(face, box=(x - half, y - half, x + half, y + half)), self._roll


class LandmarkFilter:
    """The 1-euro filter (Casiez et al. 2012) on five landmarks: a low-pass whose cut-off rises with a point's speed.

    A point at rest is averaged over about 1/6 s. One that moves steadily by 0.04 face sizes a second or faster lags by
    less than 40 ms, and none by more than 1 % of the face's size. Frames may come at any distance in time.
    """

    REST, RISE, SPEED = 1.0, 80.0, 2.0  # Hz at rest; Hz per face size a second; Hz, cut-off of the speed

    def __init__(self) -> None:
        self._points: NDArray[Any] | None = None  # (5,) x + iy
        self._speed: NDArray[Any] = np.zeros(5, np.complex128)  # face sizes a second
        self._time = 0.0

    def __call__(self, landmarks: NDArray[np.float32], size: float, t: float) -> NDArray[np.float32]:
        """(5, 2) filtered landmarks of a face of `size` pixels at time `t` (s), later than that of the last call."""
        now, dt = landmarks @ (1, 1j), t - self._time
        self._time = t
        if self._points is None or dt <= 0:
            self._points = now
            return landmarks
        step = now - self._points
        self._speed += _share(self.SPEED, dt) * (step / (dt * max(size, 1.0)) - self._speed)
        self._points = self._points + _share(self.REST + self.RISE * np.abs(self._speed), dt) * step
        return self._points.view(np.float64).reshape(5, 2).astype(np.float32)


def _share(cut_off: Any, dt: float) -> Any:
    """How much of the way to a new value a first-order low-pass (Hz) moves in `dt` seconds."""
    turn = 2 * np.pi * dt * cut_off
    return turn / (turn + 1)


class FaceTracker:
    """One person's face through a video: the one chosen at first, then the one that overlaps the last sighting.

    While a face is followed only its surroundings are searched, turned as the head is; the whole frame when it was not
    found there. Where the network finds a landmark depends by 1-3 % of the face's width on where the searched square
    lies, so squares come from a fixed grid (`SearchGrid`), a face found in the whole frame is searched again in its
    square, and landmarks are filtered in time (`LandmarkFilter`).

    For `patience` seconds after the last sighting another face elsewhere is not taken for the lost one; then one is
    chosen again. Each person has a number (`Face.track`). It stays where the face was never lost, and where it comes
    back to its place looking as before; where place or size jump and it looks otherwise, or it has looked very
    different for `SETTLE` seconds, a new one begins.

    A person who lies turned in the picture (`Face.turn`) is refused with the reason for `SETTLE` seconds and then
    taken as upright; so is one who turns back. While nobody is seen, the frame is searched turned in every second try.

    follow: `largest`, `central` (nearest to the picture's centre) or `first`: nobody but the first person is followed,
        who is the largest. sight: judges orientation and covering, every `REFRESH` seconds and where a face was found
        again. Same frames and times, same answers.
    """

    MIN_OVERLAP = 0.1  # with the last sighting: heads move by less than their width between two frames
    JUMP = 0.4  # overlap below which place or size has jumped
    ALIKE, UNLIKE = 10.0, 16.0  # of `_difference`: a person stays below 9 for seconds, two in one room differ by 11-25
    CLEAR = 0.75  # where the second largest face has more of the largest one's width, which is meant is a guess
    SETTLE = 1.0  # s
    REFRESH = 0.6  # s between two looks at orientation, covering and person
    UPRIGHT = 58.0  # degrees of roll that are taken for a tilted head

    def __init__(
        self, detector: FaceDetector, patience: float = 1.0, *, follow: str = "largest", sight: Sight | None = None
    ) -> None:
        self._detector, self._sight = detector, sight
        self._patience, self._follow = patience, follow
        self._tracks = 0
        self._restart()

    def _restart(self) -> None:
        self._grid, self._filter = SearchGrid(), LandmarkFilter()
        self._last: Face | None = None
        self._seen = 0.0
        self._time = -np.inf  # of the last frame
        self._known: tuple[Face, float, NDArray[np.float32]] | None = None  # the person followed last
        self._looked = -np.inf  # when that person was last compared
        self._other = np.nan  # since when the face in that person's place looks like somebody else's
        self._turn = 0
        self._turned = np.nan  # since when the face lies otherwise than `_turn` says
        self._empty = np.nan  # since when there is no face at all
        self._tries = 0
        self._judged = -np.inf
        self._fault = ""
        self.why = NO_FACE

    def update(self, image_bgr: NDArray[np.uint8], t: float) -> Face | None:
        """The followed face in the frame `image_bgr` (H, W, 3) uint8 of time `t` (s), or None, and `why` says why."""
        if t < self._time:
            self._restart()
        self._time = t
        if self._last is not None and t - self._seen > self._patience:
            self._last = None
        face = self._find(image_bgr, t)
        if face is None:
            return None
        before = self._last
        found = self._identify(image_bgr, self._judge(image_bgr, face, t), t)
        if found is None:
            self._last, self.why = None, OTHER
            return None
        if before is None or before.track != found.track or overlap(before.box, found.box) < self.JUMP:
            self._filter = LandmarkFilter()
        self._last, self._seen = found, t
        return replace(found, landmarks=self._filter(found.landmarks, found.area**0.5, t))

    def _find(self, image: NDArray[np.uint8], t: float) -> Face | None:
        """The followed face, or a chosen one, with exact landmarks."""
        last = self._last
        if last is not None:
            square, roll = self._grid.near(last, last.roll)
            face = self._match(self._detector.detect_near(image, square, roll))
            if face is not None:
                self._empty = np.nan
                return self._exact(image, face, roll)
        turn = 0
        if last is None and t - self._empty > self._patience:
            # an upright person is the likely one, so every second search is upright
            self._tries += 1
            turn = (0, 90, 0, 270, 0, 180)[self._tries % 6]
        faces = self._detector.detect(image, turn) if turn else self._detector.detect(image)
        if faces:
            self._empty = np.nan
        elif np.isnan(self._empty):
            self._empty = t
        if last is not None:
            self.why = SEVERAL.format("the one followed is not found") if faces else NO_FACE
            face = self._match(faces)
        else:
            self.why = NO_FACE
            face = self._choose(image, faces)
        return None if face is None else self._exact(image, face)

    def _match(self, faces: list[Face]) -> Face | None:
        assert self._last is not None
        last = self._last.box
        best = max(faces, key=lambda face: overlap(face.box, last), default=None)
        return best if best is not None and overlap(best.box, last) >= self.MIN_OVERLAP else None

    def _choose(self, image: NDArray[np.uint8], faces: list[Face]) -> Face | None:
        """The face to follow from now on; None, and why, where that is a guess."""
        if self._follow == "first" and self._known is not None:
            looks = {id(face): _difference(_look(image, face), self._known[2]) for face in faces}
            alike = [face for face in faces if looks[id(face)] < self.ALIKE]
            self.why = OTHER if faces else NO_FACE
            return min(alike, key=lambda face: looks[id(face)], default=None)
        if self._follow == "central":
            middle = np.array(image.shape[1::-1]) / 2
            return min(faces, key=lambda face: float(np.hypot(*(middle - face.centre))), default=None)
        if len(faces) > 1 and faces[1].area > self.CLEAR**2 * faces[0].area:
            self.why = SEVERAL.format("which one is meant is not clear; use --follow")
            return None
        return next(iter(faces), None)

    def _exact(self, image: NDArray[np.uint8], face: Face, roll: float | None = None) -> Face:
        """The same face with landmarks from a search near it in which it is nearly upright. roll: of the search that
        found it, None where that was a whole frame's."""
        for _ in range(2):
            if roll is not None and abs(wrapped(face.roll - roll)) <= NEAR_ROLL:
                break
            near, roll = self._nearest(image, face, face.roll)
            if overlap(near.box, face.box) < self.JUMP:
                break
            face = near
        return face

    def _nearest(self, image: NDArray[np.uint8], face: Face, roll: float) -> tuple[Face, float]:
        """(the face that is found in the place of `face` in a search turned by about `roll`, or `face` where there is
        none; the roll of that search)."""
        square, roll = self._grid.near(face, roll)
        found = self._detector.detect_near(image, square, roll)
        return max(found, key=lambda near: overlap(near.box, face.box), default=face), roll

    def _judge(self, image: NDArray[np.uint8], face: Face, t: float) -> Face:
        """The face with its `turn`, and with what is wrong with it."""
        fault = self._fault
        if self._sight is not None:
            jumped = self._last is None or overlap(face.box, self._last.box) < self.JUMP
            if jumped or t - self._judged >= self.REFRESH:
                with span("look closely"):
                    face, fault = self._look_closely(self._sight, image, face)
                self._fault, self._judged = fault, t
        if abs(wrapped(face.roll - self._turn)) <= self.UPRIGHT or fault in LYING.values():
            self._turned = np.nan
        elif np.isnan(self._turned):
            self._turned = t
        elif t - self._turned >= self.SETTLE:
            self._turn, self._turned = round(face.roll / 90) * 90 % 360, np.nan
        return replace(face, turn=self._turn, fault=fault)

    def _look_closely(self, sight: Sight, image: NDArray[np.uint8], face: Face) -> tuple[Face, str]:
        """The face, searched again where its landmarks were invented, and what is wrong with it."""
        wrong, covered = sight.judge(image, face)
        if wrong:
            face, _ = self._nearest(image, face, wrapped(face.roll + wrong))
            wrong, covered = sight.judge(image, face)
        return face, LYING[wrong] if wrong else covered

    def _identify(self, image: NDArray[np.uint8], face: Face, t: float) -> Face | None:
        """The face with the number of its person; None where only the first is followed and this is another."""
        if self._known is None:
            return self._somebody(image, face, t)
        before, when, known = self._known
        jumped = overlap(face.box, before.box) < self.JUMP or t - when > self._patience
        if not jumped and 0 <= t - self._looked < self.REFRESH:
            self._known = (face, t, known)
            return replace(face, track=self._tracks)
        self._looked = t
        look = _look(image, face)
        differs = _difference(look, known)
        if jumped:
            size = max(face.area, 1.0) / max(before.area, 1.0)
            near = np.hypot(*np.subtract(face.centre, before.centre)) < max(face.width, face.height)
            same = differs < self.ALIKE and (self._follow == "first" or bool(near and 0.4 < size < 2.5))
            self._other = np.nan
        else:
            # light changes and hands pass; a covered face tells nothing
            unlike = differs > self.UNLIKE and not face.fault
            self._other = np.nan if not unlike else t if np.isnan(self._other) else self._other
            same = not t - self._other >= self.SETTLE
        if not same:
            return None if self._follow == "first" else self._somebody(image, face, t)
        self._known = (face, t, look if differs < self.ALIKE else known)
        return replace(face, track=self._tracks)

    def _somebody(self, image: NDArray[np.uint8], face: Face, t: float) -> Face:
        """The face with the number of a new person."""
        self._tracks += 1
        self._known, self._looked, self._other = (face, t, _look(image, face)), t, np.nan
        return replace(face, track=self._tracks)


def wrapped(degrees: float) -> float:
    """The same angle in -180..180."""
    return (degrees + 180) % 360 - 180


def _look(image: NDArray[np.uint8], face: Face) -> NDArray[np.float32]:
    """What a person looks like: (8, 8, 3) CIELAB means of the aligned face's cells, brightness against its mean."""
    lab = _lab(np.asarray(cv2.resize(align_crop(image, face, 32), (8, 8), interpolation=cv2.INTER_AREA)))
    lab[..., 0] = (lab[..., 0] - lab[..., 0].mean()) / 2  # light changes more than skin, hair and background
    return lab


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIELAB (D65) of sRGB (..., 3), lightness in 255ths, as OpenCV scales it. Its own conversion first makes tables
    of 5 MB, which takes a tenth of a second where the first face is seen."""
    x = rgb.astype(np.float64) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lightness = (116 * f[..., 1] - 16) * 2.55
    return np.stack([lightness, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1).astype(np.float32)


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def align_crop(image: NDArray[np.uint8], face: Face, size: int, margin: float = 0.0) -> NDArray[np.uint8]:
    """The upright face as (size, size, 3) uint8 RGB; `image` is (H, W, 3) uint8 BGR.

    The similarity transform (rotation, one scale, shift) that takes the five landmarks to `TEMPLATE` with least
    squared error (Umeyama 1991 without reflection). What lies outside the image is black.
    margin: how much more is shown on each side, as a fraction of the crop.
    """
    target = (TEMPLATE / TEMPLATE_SIDE + margin) * (size / (1 + 2 * margin))
    matrix = _similarity(face.landmarks.astype(np.float64), target)
    return np.asarray(cv2.cvtColor(_warp(image, matrix, size), cv2.COLOR_BGR2RGB), np.uint8)


def _warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """(size, size, 3): the image under the similarity `matrix` (2, 3), black outside it."""
    shrink = int(1 / np.hypot(matrix[0, 0], matrix[1, 0]))
    if shrink >= 2:
        # bilinear sampling alone would alias: average whole pixels first, only where the crop looks
        inverse = cv2.invertAffineTransform(matrix)
        corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ inverse.T
        x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int) - shrink, 0)
        x1, y1 = np.ceil(corners.max(0)).astype(int) + shrink
        part = image[y0 : max(y1, 0), x0 : max(x1, 0)]
        w, h = part.shape[1] // shrink, part.shape[0] // shrink
        if w and h:
            image = cv2.resize(  # type: ignore[assignment]
                part[: h * shrink, : w * shrink], (w, h), interpolation=cv2.INTER_AREA
            )
            # pixel i of the shrunk image lies at shrink * i + (shrink - 1) / 2 of the original
            matrix = matrix.copy()
            matrix[:, 2] += matrix[:, :2] @ (np.array([x0, y0]) + (shrink - 1) / 2)
            matrix[:, :2] *= shrink
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR), np.uint8)


def normalise_face(crops: NDArray[np.uint8], m: Modality) -> NDArray[np.float32]:
    """Crops (..., T, H, W, 3) uint8 RGB as the backbone of `m` takes them: (..., 3, T, H, W) float32."""
    levels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    table = (levels - np.asarray(m.mean, np.float32)) / np.asarray(m.std, np.float32)  # (256, 3): each level's value
    out = np.empty((*crops.shape[:-4], 3, *crops.shape[-4:-1]), np.float32)
    for channel in range(3):
        out[..., channel, :, :, :] = table[:, channel][crops[..., channel]]
    return out


def _similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, 3) least-squares similarity: in complex numbers, target = a * source + b."""
    z, w = source @ (1, 1j), target @ (1, 1j)
    dz, dw = z - z.mean(), w - w.mean()
    power = float(np.vdot(dz, dz).real)
    a = np.vdot(dz, dw) / power if power > 0 else 1.0 + 0j
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
