"""What lies over a face in a ward, drawn over its landmarks: independent of the drawings that the product's networks
were trained on (`scripts/train_face_sight.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from jmt_edge.preprocessing.face import Face

Cover = Callable[[np.ndarray, Face, np.random.Generator], None]


class Frame:
    """Coordinates of a face: the unit is the distance of the eyes, x to the right and y down from between them."""

    def __init__(self, face: Face) -> None:
        p = face.landmarks.astype(float)
        self.origin = p[:2].mean(0)
        self.x = p[1] - p[0]
        down = p[3:].mean(0) - self.origin
        self.y = down / 1.15  # the mouth is 1.15 below the eyes

    def __call__(self, *points: tuple[float, float]) -> np.ndarray:
        where = np.array([self.origin + x * self.x + y * self.y for x, y in points])
        return np.round(where).astype(np.int32)

    @property
    def unit(self) -> float:
        return float(np.hypot(*self.x))


def shaded(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], solid: float, noise: float) -> None:
    """Paint `mask` (H, W) uint8 with a colour that gets darker downwards."""
    rows = np.linspace(1.08, 0.85, image.shape[0])[:, None, None]
    grain = np.random.default_rng(0).normal(0, noise, image.shape)
    layer = np.array(colour, float) * rows + grain
    weight = cv2.GaussianBlur(mask, (3, 3), 0)[..., None] / 255 * solid
    image[:] = np.clip(image * (1 - weight) + layer * weight, 0, 255).astype(np.uint8)


def blank(image: np.ndarray) -> np.ndarray:
    return np.zeros(image.shape[:2], np.uint8)


def surgical_mask(image: np.ndarray, face: Face, rng: np.random.Generator) -> None:
    at, mask = Frame(face), blank(image)
    top = rng.uniform(0.3, 0.5)
    upper = at((-0.98, top), (-0.4, top - 0.02), (0, top - 0.14), (0.4, top - 0.02), (0.98, top))
    outline = np.concatenate([upper, at((0.92, 1.35), (0.45, 1.85), (-0.45, 1.85), (-0.92, 1.35))])
    cv2.fillConvexPoly(mask, cv2.convexHull(outline), 255)
    colour = [(214, 190, 140), (235, 235, 235), (180, 200, 150), (40, 40, 40)][rng.integers(4)]
    shaded(image, mask, colour, 1.0, 4)
    for y in (0.75, 1.05, 1.35):  # folds
        a, b = at((-0.9, y), (0.9, y))
        cv2.line(image, a, b, tuple(int(0.85 * c) for c in colour), max(1, round(at.unit / 40)), cv2.LINE_AA)


def oxygen_mask(image: np.ndarray, face: Face, rng: np.random.Generator) -> None:
    at, mask = Frame(face), blank(image)
    outline = at((-0.22, 0.25), (0.22, 0.25), (0.62, 1.2), (0.5, 1.6), (0, 1.75), (-0.5, 1.6), (-0.62, 1.2))
    cv2.fillPoly(mask, [outline], 255)
    shaded(image, mask, (225, 235, 225), rng.uniform(0.55, 0.75), 2)
    cv2.polylines(image, [outline], True, (170, 205, 175), max(2, round(at.unit / 25)), cv2.LINE_AA)
    (a, b), (left, ear_l), (right, ear_r) = (
        at((0, 1.5), (0.5, 3)),
        at((-0.6, 1.1), (-1.3, 0.4)),
        at((0.6, 1.1), (1.3, 0.4)),
    )
    cv2.line(image, a, b, (190, 215, 195), max(3, round(at.unit / 8)), cv2.LINE_AA)
    cv2.line(image, left, ear_l, (200, 220, 205), max(1, round(at.unit / 30)), cv2.LINE_AA)
    cv2.line(image, right, ear_r, (200, 220, 205), max(1, round(at.unit / 30)), cv2.LINE_AA)


def tube_and_tape(image: np.ndarray, face: Face, rng: np.random.Generator) -> None:
    at = Frame(face)
    tilt = rng.uniform(-0.06, 0.06)
    for y in (0.92, 1.32):
        mask = blank(image)
        cv2.fillPoly(
            mask,
            [at((-0.75, y - 0.1 + tilt), (0.75, y - 0.1 - tilt), (0.75, y + 0.1 - tilt), (-0.75, y + 0.1 + tilt))],
            255,
        )
        shaded(image, mask, (225, 232, 238), 1.0, 3)
    side = rng.uniform(-0.25, 0.25)
    a, b = at((side, 1.12), (side + rng.uniform(-0.4, 0.4), 2.8))
    cv2.line(image, a, b, (225, 225, 205), max(4, round(at.unit / 5)), cv2.LINE_AA)
    cv2.line(image, a, b, (245, 245, 240), max(1, round(at.unit / 20)), cv2.LINE_AA)


def sunglasses(image: np.ndarray, face: Face, rng: np.random.Generator) -> None:
    at, mask = Frame(face), blank(image)
    size = np.hypot(*at.x), np.hypot(*at.y)
    angle = float(np.degrees(np.arctan2(at.x[1], at.x[0])))
    for x in (-0.5, 0.5):
        centre = at((x, 0.04))[0]
        axes = (round(0.42 * size[0]), round(rng.uniform(0.26, 0.34) * size[1]))
        cv2.ellipse(mask, tuple(int(v) for v in centre), axes, angle, 0, 360, 255, -1, cv2.LINE_AA)
    shaded(image, mask, (28, 24, 22), rng.uniform(0.93, 1.0), 2)
    for a, b in (at((-0.1, -0.05), (0.1, -0.05)), at((-0.9, -0.02), (-1.3, -0.1)), at((0.9, -0.02), (1.3, -0.1))):
        cv2.line(image, a, b, (20, 20, 20), max(2, round(at.unit / 18)), cv2.LINE_AA)


def bandaged_eyes(image: np.ndarray, face: Face, rng: np.random.Generator) -> None:
    at, mask = Frame(face), blank(image)
    tilt = rng.uniform(-0.1, 0.1)
    cv2.fillPoly(
        mask, [at((-1.25, -0.35 + tilt), (1.25, -0.35 - tilt), (1.25, 0.35 - tilt), (-1.25, 0.35 + tilt))], 255
    )
    shaded(image, mask, (228, 236, 240), 1.0, 9)


def half_behind_a_hand(image: np.ndarray, face: Face, rng: np.random.Generator) -> None:
    at, mask = Frame(face), blank(image)
    side = 1 if rng.random() < 0.5 else -1
    cheek = at((-0.55 * side, 0.55))[0]
    y, x = np.clip(cheek[1], 3, image.shape[0] - 4), np.clip(cheek[0], 3, image.shape[1] - 4)
    colour = image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3).mean(0) * rng.uniform(0.9, 1.1)
    palm = at(
        (0.08 * side, 0.4),
        (1.2 * side, 0.35),
        (1.15 * side, 1.7),
        (0.75 * side, 2.6),
        (0.3 * side, 2.6),
        (0.08 * side, 1.5),
    )
    cv2.fillConvexPoly(mask, cv2.convexHull(palm), 255)
    for i in range(4):
        root, tip = at(((0.22 + 0.27 * i) * side, 0.6), ((0.18 + 0.3 * i) * side, -0.75 + 0.1 * abs(i - 1)))
        cv2.line(mask, root, tip, 255, max(3, round(0.27 * at.unit)), cv2.LINE_AA)
    shaded(image, mask, tuple(colour), 1.0, 3)
    for i in range(3):
        root, tip = at(((0.35 + 0.27 * i) * side, 0.5), ((0.33 + 0.3 * i) * side, -0.6))
        cv2.line(image, root, tip, tuple(0.7 * colour), max(1, round(at.unit / 40)), cv2.LINE_AA)


COVERINGS: dict[str, tuple[Cover, str]] = {
    "surgical mask": (surgical_mask, "mouth covered"),
    "oxygen mask": (oxygen_mask, "mouth covered"),
    "tube with tape": (tube_and_tape, "mouth covered"),
    "sunglasses": (sunglasses, "eyes covered"),
    "bandage": (bandaged_eyes, "eyes covered"),
    "half behind a hand": (half_behind_a_hand, "half of the face covered"),
}
