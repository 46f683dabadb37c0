"""Train `jmt_edge/preprocessing/data/face_sight.onnx`, the head of `FaceSight`, on drawn and photographed faces.

    python scripts/train_face_sight.py FOLDER

FOLDER holds photographs of faces, one person a file (`NAME.npz` with `image` (H, W, 3) uint8 BGR and `landmarks`
(5, 2)); names that begin with `sun_` wear sunglasses, names that begin with `val_` are for validation. Drawn faces come
from the simulation. Coverings are drawn on them, pictures are turned and worsened, and the head learns from the feature
maps of the face mesh, whose weights stay as they are: the orientation against the landmarks, and which regions are
covered.
`NOTICE` says which photographs the packaged head was trained on. Needs torch and onnx.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jmt_edge.capture.simulated.expression import Expressions
from jmt_edge.capture.simulated.face import FaceRenderer
from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.voice import Speech
from jmt_edge.preprocessing.face import TEMPLATE, Face, FaceDetector, _similarity, align_crop
from jmt_edge.preprocessing.sight import MARGIN, REGIONS, SIDE, features

PEOPLE = 70  # drawn
PER_DRAWN, PER_PHOTO = 42, 150  # pictures of each
CANVAS, UNIT = 336, 1.09  # pixels of a picture before it is scaled down; pixels per unit of the template in it
CENTRE = np.array([56.0, 62.0])  # of the canvas, in units of the template
# centre and half axes of each region, in units of the template
AREAS = {
    "left eye": (38.3, 51.7, 10, 5), "right eye": (73.5, 51.5, 10, 5), "nose": (56, 70, 8, 8),
    "left mouth": (47.5, 92.3, 8, 7), "right mouth": (64.5, 92.3, 8, 7),
}  # fmt: skip


@dataclass
class Picture:
    """A face in the middle of a canvas (CANVAS, CANVAS, 3) BGR, upright, and what is known of it."""

    image: np.ndarray
    landmarks: np.ndarray
    sunglasses: bool = False


def on_canvas(image: np.ndarray, landmarks: np.ndarray) -> Picture:
    target = (TEMPLATE - CENTRE) * UNIT + CANVAS / 2
    matrix = _similarity(landmarks.astype(np.float64), target)
    canvas = cv2.warpAffine(image, matrix, (CANVAS, CANVAS), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return Picture(canvas, landmarks @ matrix[:, :2].T + matrix[:, 2])


def photographs(folder: Path) -> tuple[list[Picture], list[Picture]]:
    train, validation = [], []
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as data:
            picture = on_canvas(data["image"], data["landmarks"].astype(np.float64))
        picture.sunglasses = "sun_" in file.name
        (validation if file.name.startswith("val_") else train).append(picture)
    return train, validation


def drawn(seed: int, rng: np.random.Generator, detector: FaceDetector) -> list[Picture]:
    person = Person.live(seed)
    expressions, renderer = Expressions(person, Speech(person)), FaceRenderer(person, 480, 360)
    pictures = []
    for t in rng.uniform(5, 100, 6):
        frame = renderer.frame(float(t), expressions(float(t)))
        found = detector.detect(frame)
        if found:
            pictures.append(on_canvas(frame, found[0].landmarks.astype(np.float64)))
    return pictures


# ---- coverings: each paints on the canvas and returns its mask (CANVAS, CANVAS) 0..1 ------------------------------

Paint = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def at(points: object, rng: np.random.Generator, shake: float = 2.0) -> np.ndarray:
    """Points in units of the template, shaken, as pixels."""
    there = np.asarray(points, float)
    return (there + rng.normal(0, shake, there.shape) - CENTRE) * UNIT + CANVAS / 2


def filled(points: np.ndarray, soft: float = 0.0) -> np.ndarray:
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return (cv2.GaussianBlur(mask, (0, 0), soft) if soft else mask).astype(np.float32) / 255


def rounded(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The polygon with rounded corners."""
    mask = (cv2.GaussianBlur(filled(points), (0, 0), rng.uniform(2, 7)) > 0.5).astype(np.float32)
    return cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.6, 1.6))


def stroke(image: np.ndarray, p: np.ndarray, q: np.ndarray, colour: object, width: int) -> None:
    """A line between two pixels, drawn into the image."""
    a, b = (tuple(int(v) for v in end) for end in (p, q))
    cv2.line(image, a, b, colour, width, cv2.LINE_AA)  # type: ignore[call-overload]


def band(p: np.ndarray, q: np.ndarray, width: int) -> np.ndarray:
    """The mask of a line between two pixels."""
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    stroke(mask, p, q, 255, width)
    return mask.astype(np.float32) / 255


def box(x: float, y: float, a: float, b: float, lower: float = 1.0) -> list[tuple[float, float]]:
    """The corners of a box around (x, y), whose lower edge is `lower` times as wide as its upper one."""
    return [(x - a, y - b), (x + a, y - b), (x + a * lower, y + b), (x - a * lower, y + b)]


def frame(a: float, y: float) -> tuple[list[tuple[float, float]], ...]:
    """Bridge and temples of spectacles whose lenses are 2 `a` wide."""
    return [(50, y - 3), (62, y - 3)], [(38 - a, y - 2), (-8, y - 5)], [(74 + a, y - 2), (120, y - 5)]


def ellipse(x: float, y: float, a: float, b: float, turn: float = 0.0) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 60)
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    shape = np.stack([a * np.cos(angles), b * np.sin(angles)], 1) @ np.array([[c, s], [-s, c]])
    return (shape + (x, y) - CENTRE) * UNIT + CANVAS / 2


GRID = np.mgrid[:CANVAS, :CANVAS].astype(np.float32) / CANVAS - 0.5
GRAIN = np.random.default_rng(0).normal(0, 1, (CANVAS, CANVAS)).astype(np.float32)


def texture(kind: str, base: np.ndarray, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(CANVAS, CANVAS, 3) float: a material in the light of the picture."""
    light = np.clip(image.mean() / 120, 0.35, 1.5)
    y, x = GRID
    surface = np.ones((CANVAS, CANVAS), np.float32)
    a, b = rng.normal(0, 0.35, 2)
    surface += a * x + b * y
    if kind in ("cloth", "gauze"):
        for _ in range(int(rng.integers(0, 5))):
            angle, at_, width = rng.normal(np.pi / 2, 0.4), rng.uniform(-0.3, 0.3), rng.uniform(0.005, 0.03)
            across = x * np.cos(angle) + y * np.sin(angle) - at_
            surface += rng.uniform(-0.25, 0.2) * np.exp(-((across / width) ** 2))
    rough = np.roll(GRAIN, rng.integers(0, CANVAS, 2), (0, 1))
    if kind == "gauze":
        period = rng.uniform(3, 7)
        surface += 0.06 * np.sin(2 * np.pi * x * CANVAS / period) * np.sin(2 * np.pi * y * CANVAS / period)
    if kind == "skin":
        rough = cv2.GaussianBlur(rough, (0, 0), rng.uniform(1, 6))
        rough /= rough.std() + 1e-6
    surface += rng.uniform(0.0, 0.05) * rough
    return np.clip(base[None, None] * surface[..., None] * light, 0, 255)


def skin_of(image: np.ndarray) -> np.ndarray:
    """The colour of cheeks and forehead."""
    spots = [(34, 72), (78, 72), (56, 38)]
    where = ((np.array(spots) - CENTRE) * UNIT + CANVAS / 2).astype(int)
    return np.median([image[y - 4 : y + 4, x - 4 : x + 4].reshape(-1, 3).mean(0) for x, y in where], axis=0)


def blend(image: np.ndarray, layer: np.ndarray, mask: np.ndarray) -> None:
    image[:] = np.clip(image * (1 - mask[..., None]) + layer * mask[..., None], 0, 255).astype(np.uint8)


def pale(rng: np.random.Generator) -> np.ndarray:
    return np.array([(235, 225, 200), (240, 240, 240), (180, 200, 120), (225, 200, 130), (210, 190, 230)])[
        rng.integers(5)
    ] * rng.uniform(0.75, 1.05)


def any_colour(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(10, 245, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(8, 245))


def strings(image: np.ndarray, rng: np.random.Generator, colour: np.ndarray) -> None:
    for x, ear in ((20, -6), (92, 118)):
        for y in (72, 100):
            if rng.random() < 0.7:
                stroke(image, *at([(x, y), (ear, rng.uniform(50, 75))], rng), colour.tolist(), 2)


def surgical_mask(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top = rng.uniform(60, 78)  # on the nose
    side = top + rng.uniform(-2, 10)
    points = at([(14, side), (36, top + 2), (56, top - 4), (76, top + 2), (98, side), (97, 104), (82, 122),
                 (56, rng.uniform(120, 134)), (30, 122), (15, 104)], rng, 2.5)  # fmt: skip
    colour = pale(rng) if rng.random() < 0.7 else any_colour(rng)
    mask = rounded(points, rng)
    blend(image, texture("cloth", colour, image, rng), mask * rng.uniform(0.93, 1))
    strings(image, rng, colour)
    return mask


def oxygen_mask(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x, y = rng.normal(56, 2), rng.uniform(82, 90)
    a, b = rng.uniform(22, 34), rng.uniform(24, 34)
    shape = ellipse(x, y, a, b) if rng.random() < 0.5 else at(
        [(x - 6, y - b), (x + 6, y - b), (x + a, y + b * 0.3), (x + a * 0.7, y + b), (x - a * 0.7, y + b),
         (x - a, y + b * 0.3)], rng)  # fmt: skip
    mask = rounded(shape, rng)
    colour = np.array([(225, 235, 225), (200, 230, 190), (240, 240, 240), (190, 220, 150)])[rng.integers(4)]
    solid = rng.uniform(0.35, 0.9)
    inside = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 3))
    image[:] = (image * (1 - mask[..., None]) + inside * mask[..., None]).astype(np.uint8)
    blend(image, texture("cloth", colour * rng.uniform(0.7, 1.0), image, rng), mask * solid)
    edge = np.round(shape * 16).astype(np.int32)
    cv2.polylines(
        image, [edge], True, (colour * rng.uniform(0.5, 1.0)).tolist(), int(rng.integers(1, 5)), cv2.LINE_AA, 4
    )
    for _ in range(int(rng.integers(0, 4))):  # reflections
        p = at([(x, y)], rng, 12)[0]
        spot = filled(
            ellipse(*((p - CANVAS / 2) / UNIT + CENTRE), rng.uniform(1, 3), rng.uniform(2, 9), rng.uniform(0, 90)), 2
        )
        blend(image, np.full(image.shape, 250.0), spot * rng.uniform(0.2, 0.8))
    if rng.random() < 0.7:
        hose = at([(x, y + b * 0.6), (rng.uniform(0, 112), 150)], rng)
        stroke(image, *hose, (colour * rng.uniform(0.6, 1)).tolist(), int(rng.integers(6, 18)))
    strings(image, rng, colour)
    return mask


def tube_and_tape(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    colour = np.array([(225, 230, 235), (180, 205, 225), (200, 215, 190), (240, 240, 240)])[
        rng.integers(4)
    ] * rng.uniform(0.7, 1)
    for y in [rng.uniform(81, 92)] + ([rng.uniform(95, 106)] if rng.random() < 0.6 else []):
        h, tilt = rng.uniform(2.5, 9), rng.normal(0, 4)
        tape = at([(rng.uniform(10, 32), y - h + tilt), (rng.uniform(80, 102), y - h - tilt),
                   (rng.uniform(80, 102), y + h - tilt), (rng.uniform(10, 32), y + h + tilt)], rng, 1.5)  # fmt: skip
        part = rounded(tape, rng)
        blend(image, texture("gauze", colour, image, rng), part * rng.uniform(0.85, 1))
        mask = np.maximum(mask, part)
    x = rng.uniform(46, 66)
    width = rng.uniform(5, 11)
    tube = band(*at([(x, 92), (x + rng.normal(0, 25), rng.uniform(125, 165))], rng), int(width * UNIT))
    plastic = texture("cloth", np.array([225, 225, 215]) * rng.uniform(0.6, 1.05), image, rng)
    blend(image, plastic, tube * rng.uniform(0.7, 1))
    mask = np.maximum(mask, tube)
    # tape across the lips and a tube in them: the mouth cannot move, whatever is still seen of it
    return np.maximum(mask, filled(ellipse(56, 92.3, 20, 9)))


def sunglasses(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    colour = np.full(3, rng.uniform(3, 60)) if rng.random() < 0.75 else any_colour(rng) * 0.6
    a, b, y = rng.uniform(13, 19), rng.uniform(9, 16), rng.uniform(50, 56)
    solid, square = rng.uniform(0.85, 1.0), rng.random() < 0.4
    for x in (38, 74):
        part = rounded(at(box(x, y, a, b, 0.8), rng, 1) if square else ellipse(x, y, a, b), rng)
        blend(image, texture("cloth", colour, image, rng), part * solid)
        if rng.random() < 0.5:  # a window in the lens
            p = np.array([x, y]) + rng.normal(0, 5, 2)
            spot = filled(ellipse(*p, rng.uniform(1, 7), rng.uniform(1, 5), rng.uniform(0, 90)), 2) * part
            blend(image, np.full(image.shape, rng.uniform(120, 255)), spot * rng.uniform(0.1, 0.7))
        mask = np.maximum(mask, part)
    for line in frame(a, y):
        stroke(image, *at(line, rng, 1), colour.tolist(), int(rng.integers(2, 7)))
    return mask


def bandage(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y, h, tilt = rng.uniform(47, 54), rng.uniform(10, 22), rng.normal(0, 5)
    left, right = rng.uniform(-30, 20), rng.uniform(92, 142)
    points = at([(left, y - h + tilt), (56, y - h + rng.normal(0, 2)), (right, y - h - tilt), (right, y + h - tilt),
                 (56, y + h + rng.normal(0, 3)), (left, y + h + tilt)], rng)  # fmt: skip
    mask = rounded(points, rng)
    colour = np.array([235, 240, 242]) * rng.uniform(0.7, 1.05) if rng.random() < 0.7 else any_colour(rng)
    blend(image, texture("gauze" if rng.random() < 0.6 else "cloth", colour, image, rng), mask * rng.uniform(0.95, 1))
    return mask


def eye_pads(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    colour = np.array([235, 240, 242]) * rng.uniform(0.7, 1.05) if rng.random() < 0.7 else any_colour(rng)
    for x in (38, 74):
        part = rounded(
            ellipse(x, rng.normal(51, 1.5), rng.uniform(13, 18), rng.uniform(11, 17), rng.uniform(-20, 20)), rng
        )
        blend(image, texture("gauze", colour, image, rng), part)
        mask = np.maximum(mask, part)
    return mask


def material(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.45:
        return texture(
            "skin", skin_of(image) * rng.uniform(0.7, 1.2, 3) ** 0.5 * rng.uniform(0.75, 1.15), image * 0 + 120, rng
        )
    return texture("cloth", pale(rng) if rng.random() < 0.3 else any_colour(rng), image, rng)


def hand(image: np.ndarray, rng: np.random.Generator, over: np.ndarray, turn: float) -> np.ndarray:
    """A palm and fingers around `over` (template units), pointing `turn` degrees off straight up."""
    layer = material(image, rng)
    mask = filled(ellipse(*over, rng.uniform(20, 27), rng.uniform(22, 30), turn))
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    for i in range(4):
        spread = -18 + 12 * i + rng.normal(0, 1.5)
        root = over + np.array([c * spread + s * 10, s * spread - c * 10])
        tip = over + np.array(
            [c * spread * 1.15 + s * (42 + rng.uniform(-6, 8)), s * spread * 1.15 - c * (42 + rng.uniform(-6, 8))]
        )
        p, q = ((np.array([root, tip]) - CENTRE) * UNIT + CANVAS / 2).astype(int)
        finger = band(p, q, int(rng.uniform(8, 12) * UNIT))
        if rng.random() < 0.8:  # the edge of a finger
            stroke(layer, p + (6, 0), q + (6, 0), (layer[p[1] % CANVAS, p[0] % CANVAS] * 0.7).tolist(), 2)
        mask = np.maximum(mask, finger)
    p, q = ((np.array([over, over + np.array([-s, c]) * 90]) - CENTRE) * UNIT + CANVAS / 2).astype(int)
    wrist = band(p, q, int(rng.uniform(28, 38) * UNIT))
    mask = cv2.GaussianBlur(np.maximum(mask, wrist), (0, 0), 1.2)
    blend(image, layer, mask)
    return mask


def half(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = 1 if rng.random() < 0.5 else -1
    if rng.random() < 0.5:
        return hand(image, rng, np.array([56 + side * rng.uniform(18, 28), rng.uniform(66, 82)]), rng.normal(0, 18))
    edge = 56 + side * rng.uniform(-6, 6)
    far = 56 + side * rng.uniform(55, 110)
    points = at([(edge + rng.normal(0, 6), -40), (far, -40), (far, 160), (edge + rng.normal(0, 6), 160)], rng)
    mask = rounded(points, rng)
    blend(image, material(image, rng), mask)
    return mask


def over_mouth(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kind = rng.random()
    if kind < 0.45:
        return hand(
            image,
            rng,
            np.array([56 + rng.normal(0, 5), rng.uniform(92, 104)]),
            rng.choice([-70, 70, -35, 35, 0]) + rng.normal(0, 12),
        )
    if kind < 0.75:  # a scarf or a blanket
        top = rng.uniform(66, 84)
        points = at(
            [
                (-30, top + rng.normal(0, 6)),
                (25, top),
                (56, top - rng.uniform(-3, 6)),
                (87, top),
                (142, top + rng.normal(0, 6)),
                (142, 170),
                (-30, 170),
            ],
            rng,
        )
    else:  # a cup, a telephone
        x, y, a, b = 56 + rng.normal(0, 5), rng.uniform(90, 100), rng.uniform(20, 34), rng.uniform(13, 26)
        points = at(box(x, y, a, b), rng, 3)
    mask = rounded(points, rng)
    blend(image, material(image, rng), mask)
    return mask


def harmless(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Something beside the regions: a cap, a band, a cheek's plaster, a cannula, spectacles, a chin rest."""
    kind = int(rng.integers(7))
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    if kind == 0:
        points = at(
            [(-20, -40), (132, -40), (125, rng.uniform(5, 27)), (56, rng.uniform(8, 30)), (-12, rng.uniform(5, 27))],
            rng,
        )
    elif kind == 1:
        x = rng.choice([20, 92])
        points = ellipse(
            x + rng.normal(0, 4), rng.uniform(68, 84), rng.uniform(5, 11), rng.uniform(5, 10), rng.uniform(0, 90)
        )
    elif kind == 2:
        points = at([(10, 116), (56, rng.uniform(112, 120)), (102, 116), (130, 170), (-20, 170)], rng)
    elif kind == 3:
        side = rng.choice([-1, 1])
        edge = 56 + side * rng.uniform(46, 60)
        points = at([(edge, -40), (56 + side * 120, -40), (56 + side * 120, 170), (edge, 170)], rng, 4)
    elif kind == 4:  # a nasal cannula
        y = rng.uniform(77, 82)
        line = np.concatenate([at([(-5, 68), (25, y - 2)], rng, 1), at([(56, y), (87, y - 2), (117, 68)], rng, 1)])
        colour = (np.array([230, 235, 225]) * rng.uniform(0.7, 1.05)).tolist()
        cv2.polylines(
            image, [np.round(line * 16).astype(np.int32)], False, colour, int(rng.integers(2, 6)), cv2.LINE_AA, 4
        )
        return mask
    else:  # spectacles
        a, b, y = rng.uniform(13, 18), rng.uniform(9, 14), rng.uniform(50, 55)
        colour = (any_colour(rng) * 0.6).tolist()
        width = int(rng.integers(1, 6))
        for x in (38, 74):
            shape = at(box(x, y, a, b), rng, 1) if rng.random() < 0.3 else ellipse(x, y, a, b)
            glass = filled(shape)
            blend(image, np.full(image.shape, rng.uniform(0, 255)), glass * rng.uniform(0, 0.22))
            if rng.random() < 0.25:
                blend(
                    image,
                    np.full(image.shape, 250.0),
                    glass * filled(ellipse(x + rng.normal(0, 8), y + rng.normal(0, 6), 2, 6, 40), 2) * 0.7,
                )
            cv2.polylines(image, [np.round(shape * 16).astype(np.int32)], True, colour, width, cv2.LINE_AA, 4)
        for line in frame(a, y):
            stroke(image, *at(line, rng, 1), colour, width)
        return mask
    mask = rounded(points, rng)
    blend(image, material(image, rng), mask)
    return mask


COVERINGS: dict[str, Paint] = {
    "surgical mask": surgical_mask, "oxygen mask": oxygen_mask, "tube and tape": tube_and_tape,
    "sunglasses": sunglasses, "bandage": bandage, "eye pads": eye_pads, "half": half, "mouth": over_mouth,
}  # fmt: skip


# ---- a picture worse and turned, as a camera might give it -------------------------------------------------------


def worse(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = image.astype(np.float32)
    x = 128 + (x - 128) * rng.uniform(0.5, 1.25) + rng.uniform(-35, 30)
    x *= rng.uniform(0.85, 1.15, 3)
    if rng.random() < 0.15:
        x = np.repeat(x.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.35:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.6))
    x += rng.normal(0, rng.uniform(0, 9), x.shape)
    x = np.clip(x, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        x = cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))])[1], 1)
    return x


def example(
    picture: Picture, kind: str, rng: np.random.Generator, detector: FaceDetector
) -> tuple[np.ndarray, np.ndarray] | None:
    """(crop (SIDE, SIDE, 3) RGB, labels: orientation 0..3, then each region 0, 1 or -1 for neither)."""
    image, landmarks = picture.image.copy(), picture.landmarks.copy()
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    if rng.random() < 0.35:
        harmless(image, rng)
    if kind in COVERINGS:
        mask = np.maximum(mask, COVERINGS[kind](image, rng))
        if rng.random() < 0.12:
            mask = np.maximum(mask, COVERINGS[rng.choice(list(COVERINGS))](image, rng))
    labels = []
    for x, y, a, b in AREAS.values():
        share = float((mask * filled(ellipse(x, y, a, b))).sum() / filled(ellipse(x, y, a, b)).sum())
        labels.append(1 if share > 0.7 else 0 if share < 0.2 else -1)
    if picture.sunglasses:
        labels[:2] = [1, 1]
    if rng.random() < 0.5:
        image, landmarks = image[:, ::-1], landmarks * (-1, 1) + (CANVAS - 1, 0)
        landmarks = landmarks[[1, 0, 2, 4, 3]]
        labels = [labels[1], labels[0], labels[2], labels[4], labels[3]]
    scale = rng.uniform(0.3, 1.0) * 1.0
    size = int(CANVAS * scale)
    angle = rng.normal(0, 8)
    spin = rng.random() < 0.3
    if spin:
        angle += 90 * rng.integers(4) + rng.uniform(-25, 25)
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    turn = np.array([[c, -s, 0], [s, c, 0]])
    turn[:, 2] = size / 2 - turn[:, :2] @ (CANVAS / 2, CANVAS / 2)
    image = cv2.warpAffine(
        cv2.GaussianBlur(image, (0, 0), max(0.01, 0.4 / scale - 0.3)),
        turn,
        (size, size),
        borderMode=cv2.BORDER_REPLICATE,
    )
    landmarks = landmarks @ turn[:, :2].T + turn[:, 2]
    image = worse(image, rng)
    true = Face((0, 0, 1, 1), 1.0, landmarks.astype(np.float32))
    if rng.random() < 0.6:
        width = 84 * UNIT * scale
        x, y = landmarks.mean(0)
        around = Face((x - width / 2, y - width * 0.65, x + width / 2, y + width * 0.65), 1.0, true.landmarks)
        roll = float(rng.choice([0.0, angle])) if spin else 0.0
        found = [
            f
            for f in detector.detect_near(image, around, roll)
            if np.hypot(*np.subtract(f.centre, around.centre)) < width / 2
        ]
        if not found:
            return None
        face = found[0]
    else:
        middle = landmarks.mean(0)
        wrong = np.radians(90 * rng.integers(4) if rng.random() < 0.5 else 0) + np.radians(rng.normal(0, 6))
        w = np.array([[np.cos(wrong), -np.sin(wrong)], [np.sin(wrong), np.cos(wrong)]]) * rng.uniform(0.87, 1.15)
        moved = (landmarks - middle) @ w.T + middle + rng.normal(0, 4 * UNIT * scale, 2)
        face = Face((0, 0, 1, 1), 1.0, moved.astype(np.float32))
    apart = (true.roll - face.roll + 45) % 360
    if not 15 < apart % 90 < 75:
        return None  # between two orientations
    orientation = int(apart // 90)
    if orientation:
        labels = [-1] * len(labels)
    return align_crop(image, face, SIDE, MARGIN), np.array([orientation, *labels], np.int8)


def examples(pictures: list[Picture], count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    rng, detector = np.random.default_rng(seed), FaceDetector()
    kinds = [*COVERINGS, "oxygen mask", "tube and tape", *["clear"] * 8]  # those that are seen least, twice
    fine, coarse, labels, names = [], [], [], []
    for picture in pictures:
        for _ in range(count):
            kind = str(rng.choice(kinds))
            if picture.sunglasses and kind == "clear":
                kind = "real sunglasses"
            made = example(picture, kind, rng, detector)
            if made is not None:
                a, b = features(made[0])
                fine.append(a.astype(np.float16)), coarse.append(b.astype(np.float16))
                labels.append(made[1]), names.append(kind)
    return np.stack(fine), np.stack(coarse), np.stack(labels), names


# ---- the head ----------------------------------------------------------------------------------------------------


def train(
    data: tuple[np.ndarray, np.ndarray, np.ndarray],
    held: tuple[np.ndarray, np.ndarray, np.ndarray],
    names: list[str],
    target: Path,
) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine = nn.Sequential(
                nn.BatchNorm2d(128), nn.Conv2d(128, 24, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, 2, 1), nn.ReLU()
            )
            self.coarse = nn.Sequential(nn.BatchNorm2d(128), nn.Conv2d(128, 32, 1), nn.ReLU())
            self.out = nn.Sequential(
                nn.Flatten(),
                nn.Dropout(0.4),
                nn.Linear(56 * 36, 48),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Linear(48, 4 + len(REGIONS)),
            )

        def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.out(torch.cat([self.fine(fine), self.coarse(coarse)], 1))
            return torch.softmax(x[:, :4], 1), torch.sigmoid(x[:, 4:])

    def loss(head: Head, fine: torch.Tensor, coarse: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        turn, covered = head(fine, coarse)
        known = (y[:, 1:] >= 0).float()
        wanted = y[:, 1:].clamp(min=0).float() * 0.96 + 0.02
        region = nn.functional.binary_cross_entropy(covered, wanted, reduction="none")
        return nn.functional.nll_loss(torch.log(turn + 1e-6), y[:, 0].long()) + (region * known).sum() / known.sum()

    fine, coarse, y = (torch.from_numpy(a) for a in data)
    vf, vc, vy = (torch.from_numpy(a) for a in held)
    head = Head()
    optimiser = torch.optim.AdamW(head.parameters(), 2e-3, weight_decay=0.02)
    epochs, batch = 24, 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, epochs * (len(y) // batch + 1))
    for epoch in range(epochs):
        head.train()
        for rows in torch.randperm(len(y)).split(batch):
            optimiser.zero_grad()
            loss(head, fine[rows].float(), coarse[rows].float(), y[rows]).backward()
            optimiser.step()
            schedule.step()
        if epoch % 4 == 3:
            head.eval()
            with torch.no_grad():
                turn, covered = head(vf.float(), vc.float())
            right = (turn.argmax(1) == vy[:, 0]).float().mean()
            known = vy[:, 1:] >= 0
            regions = [
                float(((covered[:, i] > 0.5) == (vy[:, 1 + i] > 0))[known[:, i]].float().mean())
                for i in range(len(REGIONS))
            ]
            print(
                f"epoch {epoch + 1}: people not trained on: orientation {right:.3f}, regions {np.round(regions, 3)}",
                flush=True,
            )
    for kind in sorted(set(names)):
        rows = torch.tensor([n == kind for n in names]) & (vy[:, 0] == 0)
        print(
            kind,
            int(rows.sum()),
            "mean covered",
            np.round(covered[rows].mean(0).numpy(), 2),
            "over 0.5",
            np.round((covered[rows] > 0.5).float().mean(0).numpy(), 3),
        )
    torch.onnx.export(
        head, (vf[:1].float(), vc[:1].float()), str(target), input_names=["fine", "coarse"],
        output_names=["turn", "covered"], opset_version=17, dynamo=False,
    )  # fmt: skip


def main(folder: Path) -> None:
    cv2.setNumThreads(1)
    rng, detector = np.random.default_rng(1), FaceDetector()
    photos, validation = photographs(folder)
    people = [drawn(3_000_000 + k, rng, detector) for k in range(PEOPLE)]
    print(
        f"{len(photos)} photographs and {PEOPLE - 12} drawn people; for validation {len(validation)} and 12", flush=True
    )
    some = [p for person in people[12:] for p in person]
    parts = [examples(photos, PER_PHOTO, 2), examples(some, PER_DRAWN // 6, 3)]
    held = [
        examples(validation, PER_PHOTO, 4),
        examples([p for person in people[:12] for p in person], PER_DRAWN // 6, 5),
    ]
    names = held[0][3] + ["drawn " + n for n in held[1][3]]
    data = tuple(np.concatenate([p[i] for p in parts]) for i in range(3))
    check = tuple(np.concatenate([p[i] for p in held]) for i in range(3))
    print(f"{len(data[2])} examples, {len(check[2])} for validation", flush=True)
    train(data, check, names, Path("jmt_edge/preprocessing/data/face_sight.onnx"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
