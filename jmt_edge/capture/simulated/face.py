"""Draws the simulated face: a shaded portrait once, then per frame a warp by action units, eyes, mouth and noise.

Coordinates are half face widths: the origin between the eyes' height and the nose, x right, y down, chin near 1.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...opencv import cv2
from .expression import Expression
from .person import Person, Traits
from .randomness import CAMERA, CANVAS, LIGHT, Wander, draw

Image = NDArray[np.uint8]
F32 = NDArray[np.float32]

EYE_Y, BROW_Y, NOSE_Y, MOUTH_Y, CHIN_Y, HAIRLINE_Y = -0.19, -0.44, 0.27, 0.71, 1.30, -1.10
_GRID = 8  # pixels between the knots of the warp
_BAND = 32  # rows of a portrait that are painted at once
_SUPERSAMPLE = 2
_SHIFT = 4  # fixed-point bits of OpenCV's antialiased drawing

# Skin moved by an action unit at full intensity: centre, displacement, width (x mirrored to the other side).
_SKIN = {
    "AU1": [((0.20, BROW_Y), (0.0, -0.13), 0.17)],
    "AU2": [((0.62, BROW_Y), (0.0, -0.12), 0.20)],
    "AU4": [((0.20, BROW_Y + 0.02), (-0.08, 0.12), 0.19), ((0.48, BROW_Y), (-0.03, 0.08), 0.18)],
    "AU6": [((0.48, 0.12), (0.0, -0.11), 0.22)],
    "AU9": [((0.18, 0.26), (0.0, -0.08), 0.15), ((0.0, -0.25), (0.0, 0.04), 0.15)],
    "AU10": [((0.22, 0.48), (0.0, -0.06), 0.16)],
    "AU12": [((0.58, 0.52), (0.05, -0.09), 0.22)],
    "AU15": [((0.45, 0.88), (0.0, 0.06), 0.20)],
    "AU26": [((0.0, 1.12), (0.0, 0.16), 0.42)],
}
_EYE_SPAN, _MOUTH_SPAN = np.linspace(-1, 1, 15), np.linspace(-1, 1, 17)


class FaceRenderer:
    """Frames of one person, (height, width, 3) uint8 BGR, with half face widths of 0.215 to 0.26 image heights."""

    def __init__(self, person: Person, width: int, height: int) -> None:
        self._who = person.traits
        self._key = person.key
        g = draw(person.key, CANVAS)
        self.width, self.height = width, height
        self._unit = float(height * g.uniform(0.215, 0.26))  # pixels in half a face width
        self._centre = (width * g.uniform(0.44, 0.56), height * g.uniform(0.44, 0.50))
        self._light = (float(g.uniform(-0.55, 0.55)), float(g.uniform(-0.6, -0.2)))
        self._brightness = float(g.uniform(0.85, 1.08))
        self._flicker = Wander(draw(person.key, LIGHT), 3.0, 40.0)
        self._canvas, self._room = _portrait(self._who, g, width, height, self._unit, self._centre, self._light)
        self._roi = self._rectangle(-1.15, -1.15, 1.15, 1.5)
        self._wrinkles = self._wrinkle_maps()
        self._moving = self._rectangle(-2.1, -3.0, 2.1, 3.0)
        ys, xs = np.mgrid[self._moving].astype(np.float32)
        self._map_x, self._map_y = np.ascontiguousarray(xs), np.ascontiguousarray(ys)
        self._basis, self._names = self._warp_basis()
        self._eye = _eyeball(self._who, max(int(0.46 * self._unit * 2), 12))
        self._skin_shade = self._sample_skin()
        noise = draw(person.key, CAMERA).normal(0, 2.2, (height + 64, width + 64, 3))
        self._grain = np.clip(noise, 0, 40).round().astype(np.uint8), np.clip(-noise, 0, 40).round().astype(np.uint8)

    # --- made once ---------------------------------------------------------------------------------------------

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        return self._centre[0] + x * self._unit, self._centre[1] + y * self._unit

    def _rectangle(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        (left, top), (right, bottom) = self._pixel(x0, y0), self._pixel(x1, y1)
        return (
            slice(max(int(top), 0), min(int(bottom) + 1, self.height)),
            slice(max(int(left), 0), min(int(right) + 1, self.width)),
        )

    def _sample_skin(self) -> NDArray[np.float64]:
        x, y = self._pixel(0.45, 0.25)
        patch = self._canvas[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
        return patch.reshape(-1, 3).mean(axis=0).astype(np.float64)

    def _warp_basis(self) -> tuple[F32, tuple[str, ...]]:
        """(names, rows, columns, 2) displacement in pixels of each movement at full intensity, on coarse knots.

        The knots cover the rectangle that moves; `cv2.resize` spreads them over its pixels.
        """
        height, width = self._map_x.shape
        rows, columns = -(-height // _GRID), -(-width // _GRID)
        knot_y, knot_x = np.mgrid[0:rows, 0:columns] + 0.5
        px = knot_x * width / columns - 0.5 + self._moving[1].start
        py = knot_y * height / rows - 0.5 + self._moving[0].start
        x, y = (px - self._centre[0]) / self._unit, (py - self._centre[1]) / self._unit
        fields: dict[str, NDArray[np.float64]] = {}
        for name, bumps in _SKIN.items():
            field = np.zeros((*x.shape, 2))
            for (cx, cy), (dx, dy), width in bumps:
                for side in (1, -1) if cx else (1,):
                    bump = np.exp(-(((x - side * cx) ** 2 + (y - cy) ** 2) / (2 * width**2)))
                    field += bump[..., None] * np.array([side * dx, dy])
            fields[name] = field
        near = np.exp(-(np.maximum(np.hypot(x / 1.25, (y + 0.05) / 1.75) - 0.75, 0) ** 2) / 0.18)
        depth = np.sqrt(np.maximum(1 - (x / 1.15) ** 2 - (y / 1.7) ** 2, 0))
        zero = np.zeros_like(x)
        for name, (dx, dy) in {
            "x": (near, zero),
            "y": (zero, near),
            "size": (x * near, y * near),
            "roll": (-(y - 1.2) * near, x * near),
            "yaw": (depth * near, zero),
            "pitch": (zero, depth * near),
        }.items():
            fields[name] = np.stack([dx, dy], axis=-1)
        basis = np.stack(list(fields.values())) * self._unit
        return basis.astype(np.float32), tuple(fields)

    def _wrinkle_maps(self) -> dict[str, F32]:
        """Darkening of the skin, (h, w) in the face's rectangle, of each action unit at full intensity."""
        lines: dict[str, list[list[tuple[float, float]]]] = {
            "AU1": [[(-0.5, -0.68), (0, -0.71), (0.5, -0.68)], [(-0.45, -0.8), (0, -0.83), (0.45, -0.8)]],
            "AU4": [[(-0.07, -0.56), (-0.06, -0.3)], [(0.07, -0.56), (0.06, -0.3)], [(0, -0.5), (0, -0.34)]],
            "AU6": [
                [(side * x0, y0), (side * x1, y1)]
                for side in (-1, 1)
                for x0, y0, x1, y1 in ((0.7, -0.2, 0.86, -0.27), (0.7, -0.14, 0.87, -0.13), (0.69, -0.08, 0.84, 0.0))
            ]
            + [[(side * 0.25, -0.06), (side * 0.45, 0.0), (side * 0.65, -0.06)] for side in (-1, 1)],
            "AU9": [
                [(-0.14, -0.2), (0, -0.17), (0.14, -0.2)],
                [(-0.12, -0.1), (0, -0.07), (0.12, -0.1)],
                *[[(side * 0.08, -0.14), (side * 0.2, 0.0)] for side in (-1, 1)],
            ],
            "AU10": [[(s * 0.24, 0.22), (s * 0.36, 0.36), (s * 0.5, 0.62), (s * 0.52, 0.75)] for s in (-1, 1)],
        }
        lines["AU2"] = [[(-0.72, -0.72), (-0.4, -0.74)], [(0.4, -0.74), (0.72, -0.72)]]
        lines["AU12"] = [[(s * 0.27, 0.3), (s * 0.46, 0.42), (s * 0.56, 0.68)] for s in (-1, 1)]
        lines["AU15"] = [[(s * 0.36, 0.8), (s * 0.42, 0.98)] for s in (-1, 1)]
        maps = {}
        for name, strokes in lines.items():
            mask = np.zeros((self.height, self.width), np.uint8)
            for stroke in strokes:
                points = np.array([self._pixel(*p) for p in stroke])
                cv2.polylines(mask, [_fixed(points)], False, 255, max(round(self._unit / 22), 1), cv2.LINE_AA, _SHIFT)
            soft = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), self._unit / 45)
            depth = 0.25 if name in ("AU1", "AU2") else 0.36
            bulge = cv2.GaussianBlur(soft, (0, 0), self._unit / 12)
            maps[name] = depth * soft[self._roi] - 0.10 * bulge[self._roi]
        return maps

    # --- made for every frame ------------------------------------------------------------------------------------

    def frame(self, t: float, expression: Expression) -> Image:
        """The frame at stream time `t`."""
        canvas = self._canvas.copy()
        wrinkles = [(name, depth) for name, depth in self._wrinkles.items() if expression.aus[name] > 0.1]
        if wrinkles:
            face = canvas[self._roi]
            shade = np.ones(face.shape[:2], np.float32)
            for name, depth in wrinkles:
                shade -= np.float32(expression.aus[name] / 5) * depth
            face[...] = np.minimum(face * shade[..., None], 255)
        for side in (-1, 1):
            self._draw_eye(canvas, side, expression)
        self._draw_mouth(canvas, expression)
        blurred = cv2.GaussianBlur(self._warp(canvas, expression), (3, 3), 0.6)
        gain = self._brightness * (1 + 0.04 * float(self._flicker(t)))
        return self._camera_noise(cv2.convertScaleAbs(blurred, alpha=gain), t)

    def without_face(self, t: float, *, dark: bool) -> Image:
        """The frame of a covered lens (`dark`), or of the room without the person."""
        image = np.zeros_like(self._canvas) if dark else self._room
        return self._camera_noise(image, t)

    def _warp(self, canvas: Image, e: Expression) -> Image:
        amounts = [e.aus[name] / 5 for name in self._names if name.startswith("AU")]
        amounts[self._names.index("AU26")] += 0.35 * e.mouth
        amounts += [e.x, e.y, e.size - 1, e.roll, e.yaw, e.pitch]
        field = np.tensordot(np.asarray(amounts, np.float32), self._basis, axes=1)
        height, width = self._map_x.shape
        moved = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
        map_x, map_y = self._map_x - moved[..., 0], self._map_y - moved[..., 1]
        image = canvas.copy()
        cv2.remap(canvas, map_x, map_y, cv2.INTER_LINEAR, image[self._moving], cv2.BORDER_REPLICATE)
        return image

    def _camera_noise(self, image: NDArray[Any], t: float) -> Image:
        # one large noise field, shifted to a different place every millisecond
        number = round(t * 1000) * 2654435761 % 2**32
        dy, dx = number % 64, (number >> 8) % 64
        up, down = (g[dy : dy + self.height, dx : dx + self.width] for g in self._grain)
        return cv2.subtract(cv2.add(image, up), down)  # type: ignore[return-value]

    def _draw_eye(self, canvas: Image, side: int, e: Expression) -> None:
        who, unit = self._who, self._unit
        cx, cy = self._pixel(side * 0.42 * who.eye_distance, EYE_Y)
        half = 0.215 * who.eye_size * unit
        wide = 1 + 0.25 * max(e.aus["AU1"], e.aus["AU2"]) / 5
        squint = max(e.aus["AU6"], e.aus["AU7"]) / 5
        up = 0.105 * who.eye_size * unit * wide * (1 - e.lids) * (1 - 0.25 * squint)
        down = 0.06 * who.eye_size * unit * (1 - 0.55 * e.lids) * (1 - 0.9 * squint)
        s = _EYE_SPAN
        arch = 1 - np.abs(s) ** 2.2
        # the lids meet a little below the middle; the outer corner is a little higher
        meet, slant = 0.045 * unit * e.lids * arch, -0.02 * unit * s * side
        upper = np.stack([cx + half * s, cy - up * arch + meet + slant], axis=1)
        lower = np.stack([cx + half * s, cy + np.maximum(down * arch, meet) + slant], axis=1)
        dark = self._skin_shade * 0.30
        if up + down > 0.03 * unit:
            self._blend_eyeball(canvas, np.concatenate([upper, lower[::-1]]), cx, cy, e.gaze)
        line = max(round(unit / 26), 1)
        cv2.polylines(canvas, [_fixed(lower)], False, (self._skin_shade * 0.62).tolist(), 1, cv2.LINE_AA, _SHIFT)
        cv2.polylines(canvas, [_fixed(upper)], False, dark.tolist(), line, cv2.LINE_AA, _SHIFT)
        crease = upper[2:-2] - np.array([0, 0.06 * unit * (1 - 0.6 * squint)])
        cv2.polylines(canvas, [_fixed(crease)], False, (self._skin_shade * 0.66).tolist(), 1, cv2.LINE_AA, _SHIFT)

    def _blend_eyeball(
        self, canvas: Image, opening: NDArray[np.float64], cx: float, cy: float, gaze: tuple[float, float]
    ) -> None:
        size = self._eye.shape[0]
        x0, y0 = round(cx - size / 2), round(cy - size / 2)
        if x0 < 0 or y0 < 0 or x0 + size > self.width or y0 + size > self.height:
            return
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [_fixed(opening - np.array([x0, y0]))], 255, cv2.LINE_AA, _SHIFT)
        move = np.array([[1, 0, gaze[0] * 0.1 * self._unit], [0, 1, gaze[1] * 0.1 * self._unit]], np.float32)
        ball = cv2.warpAffine(self._eye, move, (size, size), borderMode=cv2.BORDER_REPLICATE)
        region = canvas[y0 : y0 + size, x0 : x0 + size]
        alpha = mask[..., None].astype(np.float32) / 255
        region[...] = region * (1 - alpha) + ball * alpha

    def _draw_mouth(self, canvas: Image, e: Expression) -> None:
        who, unit, au = self._who, self._unit, {k: v / 5 for k, v in e.aus.items()}
        cx, cy = self._pixel(0.0, MOUTH_Y)
        half = unit * 0.39 * who.mouth_width * (1 + 0.32 * au["AU12"] - 0.08 * e.mouth)
        corner = unit * (-0.19 * au["AU12"] + 0.12 * au["AU15"])
        raise_ = unit * (0.11 * au["AU10"] + 0.05 * au["AU9"])
        gap = unit * (0.16 * au["AU25"] + 0.24 * au["AU26"] + 0.20 * e.mouth)
        full = 0.085 * who.lip_fullness * unit * (1 - 0.25 * au["AU12"])
        s = _MOUTH_SPAN
        arch = 1 - s**2
        middle = cy + corner * np.abs(s) ** 1.6
        upper_in = middle - (0.35 * gap + 0.7 * raise_) * arch
        bow = full * (np.sqrt(arch) * 1.0 - 0.22 * np.exp(-((s / 0.16) ** 2)))
        upper_out = upper_in - bow - 0.3 * raise_ * arch
        lower_in = middle + 0.65 * gap * arch
        lower_out = lower_in + 1.25 * full * np.sqrt(arch)
        x = cx + half * s
        lip = self._skin_shade * np.array([0.66, 0.60, 0.80])

        def polygon(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.int32]:
            return _fixed(np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]]))

        cv2.fillPoly(canvas, [polygon(upper_out, upper_in)], (lip * 0.92).tolist(), cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(canvas, [polygon(lower_in, lower_out)], (lip * 1.06).tolist(), cv2.LINE_AA, _SHIFT)
        shine = np.stack([x, (lower_in + lower_out) / 2], 1)[5:-5]
        cv2.polylines(canvas, [_fixed(shine)], False, (lip * 1.2).tolist(), 1, cv2.LINE_AA, _SHIFT)
        if gap + raise_ > 0.035 * unit:
            cv2.fillPoly(canvas, [polygon(upper_in, lower_in)], (28, 22, 52), cv2.LINE_AA, _SHIFT)
            teeth = np.minimum(upper_in + 0.05 * unit * arch**0.3, lower_in)
            cv2.fillPoly(canvas, [polygon(upper_in, teeth)], (150, 162, 168), cv2.LINE_AA, _SHIFT)
        else:
            seam = np.stack([x, (upper_in + lower_in) / 2], 1)
            cv2.polylines(
                canvas, [_fixed(seam)], False, (lip * 0.45).tolist(), max(round(unit / 40), 1), cv2.LINE_AA, _SHIFT
            )


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points for OpenCV's drawing with sub-pixel precision."""
    return np.round(points * (1 << _SHIFT)).astype(np.int32)


def _step(x: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Soft 0..1 step around x = 0."""
    z = np.clip(x / width + 0.5, 0, 1)
    return z * z * (3 - 2 * z)


def _bump(
    x: NDArray[np.float64], y: NDArray[np.float64], cx: float, cy: float, sx: float, sy: float
) -> NDArray[np.float64]:
    return np.exp(-(((np.abs(x) - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def _over(
    image: NDArray[np.float64], alpha: NDArray[np.float64], colour: NDArray[np.float64] | tuple[float, ...]
) -> None:
    """In bands of rows, which halves the memory that a portrait needs and its time."""
    above = np.broadcast_to(np.asarray(colour, np.float64), image.shape)
    for top in range(0, len(image), _BAND):
        rows = slice(top, top + _BAND)
        part = above[rows] - image[rows]
        part *= alpha[rows, :, None]
        image[rows] += part


def _portrait(
    who: Traits,
    g: np.random.Generator,
    width: int,
    height: int,
    unit: float,
    centre: tuple[float, float],
    light: tuple[float, float],
) -> tuple[Image, Image]:
    """(portrait without eyes and mouth, the empty room), each (height, width, 3) BGR."""
    k = _SUPERSAMPLE
    rows, columns = np.mgrid[0 : height * k, 0 : width * k].astype(np.float64)
    x = ((columns + 0.5) / k - 0.5 - centre[0]) / unit
    y = ((rows + 0.5) / k - 0.5 - centre[1]) / unit
    soft = 1.5 / unit

    def finish(image: NDArray[np.float64]) -> Image:
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.clip(small, 0, 255).astype(np.uint8)

    image = _background(g, x, y)
    room = finish(image)
    _clothes(image, g, x, y, soft)

    hair = np.asarray(who.hair)
    strands = cv2.GaussianBlur(g.normal(0, 1, x.shape), (0, 0), sigmaX=unit * k / 40, sigmaY=unit * k / 6)
    strands *= 0.16 / strands.std()
    hair_shade = np.clip(0.95 - 0.35 * x * -light[0] + strands - 0.15 * y, 0.35, 1.6)[..., None]
    if who.hair_long:
        behind = _step(1 - (np.abs(x) / 1.28) ** 2.4 - (np.maximum(np.abs(y - 0.1) / 1.75, 0)) ** 3.0, soft * 2)
        _over(image, behind, 0.8 * hair * hair_shade)

    skin = np.asarray(who.skin)
    neck = _step(0.56 - np.abs(x) + 0.12 * np.maximum(y - 1.5, 0), soft) * _step(y - 0.6, 0.1) * _step(2.25 - y, soft)
    _over(image, neck, (skin * (0.62 + 0.2 * light[0] * -x[..., None])).clip(0, 255))

    face, shade = _head(who, x, y, light, soft)
    ears = _step(1 - ((np.abs(x) - 1.0) / 0.13) ** 2 - ((y + 0.02) / 0.26) ** 2, 0.25) * (0.0 if who.hair_long else 1.0)
    _over(image, ears, skin * 0.72)
    _over(image, face, _complexion(who, g, skin, x, y, unit) * shade[..., None])
    _brows_and_nose(image, who, x, y, hair, skin)

    hairline = HAIRLINE_Y + 0.55 * np.maximum(np.abs(x) - 0.35, 0) ** 1.6 + 0.05 * np.sin(5 * x + g.uniform(0, 6))
    crown = 1 - (np.abs(x) / 1.12) ** 2.3 - (np.maximum(-y, 0) / 1.62) ** 2.2
    front = _step(crown, 0.06) * _step(hairline - y, 0.08) * _step(0.35 - y, 0.3)
    _over(image, front, hair * hair_shade)

    return finish(image), room


def _background(g: np.random.Generator, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    base = g.uniform(70, 190) + g.normal(0, 14, 3)
    tilt = g.normal(0, 7, 2)
    image = np.empty((*x.shape, 3))
    image[...] = base + (tilt[0] * x + tilt[1] * y)[..., None]
    for _ in range(int(g.integers(1, 4))):  # a door, a shelf, a monitor
        cx, cy = g.uniform(-3, 3), g.uniform(-2, 2)
        box = _step(g.uniform(0.3, 1.0) - np.abs(x - cx), 0.1) * _step(g.uniform(0.3, 1.6) - np.abs(y - cy), 0.1)
        _over(image, 0.7 * box, base + g.normal(0, 35, 3))
    return image


def _clothes(
    image: NDArray[np.float64], g: np.random.Generator, x: NDArray[np.float64], y: NDArray[np.float64], soft: float
) -> None:
    colour = g.uniform(30, 190, 3)
    shoulders = _step(y - (1.75 + 0.16 * np.abs(x) ** 1.8 - 0.12 * np.exp(-((x / 0.7) ** 2))), soft * 2)
    _over(
        image,
        shoulders,
        np.clip(colour * (1 - 0.12 * (y - 1.7))[..., None] * (1 - 0.08 * np.abs(x))[..., None], 0, 255),
    )


def _head(
    who: Traits, x: NDArray[np.float64], y: NDArray[np.float64], light: tuple[float, float], soft: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(coverage 0..1, shading) of the head: a height field lit from one side."""
    down = np.maximum(y, 0) / (CHIN_Y * who.face_length)
    up = np.maximum(-y, 0) / 1.5
    half = 1 - (0.30 / who.jaw) * np.minimum(down, 1.2) ** 2.2
    inside = 1 - (np.abs(x) / half) ** 2.3 - down**3.2 - up**2.4
    depth = 0.95 * np.sqrt(np.maximum(inside, 0))
    nose_end = NOSE_Y * who.nose_length
    ridge = np.exp(-((x / (0.10 * who.nose_width)) ** 2)) * _step(y + 0.32, 0.3) * _step(nose_end + 0.05 - y, 0.14)
    depth += 0.16 * ridge * np.clip(0.45 + 0.9 * (y + 0.3), 0.3, 1.1)
    depth += 0.10 * np.exp(-((x / (0.13 * who.nose_width)) ** 2) - ((y - nose_end) / 0.11) ** 2)
    depth += 0.06 * _bump(x, y, 0.16 * who.nose_width, nose_end + 0.03, 0.07, 0.08)
    depth -= 0.12 * _bump(x, y, 0.42 * who.eye_distance, EYE_Y, 0.26, 0.15)
    depth += 0.05 * _bump(x, y, 0.40, BROW_Y + 0.04, 0.34, 0.09)
    depth += 0.06 * _bump(x, y, 0.52, 0.16, 0.22, 0.16)
    depth += 0.05 * np.exp(-((x / 0.40) ** 2) - ((y - MOUTH_Y) / 0.15) ** 2)
    depth -= 0.03 * np.exp(-((x / 0.05) ** 2) - ((y - 0.52) / 0.07) ** 2)
    depth -= 0.05 * np.exp(-((x / 0.22) ** 2) - ((y - 0.95) / 0.06) ** 2)
    depth += 0.06 * np.exp(-((x / 0.25) ** 2) - ((y - 1.12) / 0.14) ** 2)
    step = abs(float(x[0, 1] - x[0, 0]))
    dy, dx = np.gradient(cv2.GaussianBlur(depth, (0, 0), 0.02 / step), step)
    dx, dy = np.clip(dx, -2.5, 2.5), np.clip(dy, -2.5, 2.5)
    normal = np.sqrt(1 + dx**2 + dy**2)
    direction = np.array([light[0], light[1], 1.0]) / np.sqrt(1 + light[0] ** 2 + light[1] ** 2)
    lambert = np.maximum((-dx * direction[0] - dy * direction[1] + direction[2]) / normal, 0)
    shine = 0.18 * lambert**24
    return _step(inside, 0.08), 0.38 + 0.66 * lambert + shine


def _complexion(
    who: Traits, g: np.random.Generator, skin: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64],
    unit: float,
) -> NDArray[np.float64]:  # fmt: skip
    """(H, W, 3) albedo: redder cheeks and nose, darker sockets, beard, fine texture."""
    colour = np.empty((*x.shape, 3))
    colour[...] = skin
    red = 0.5 * _bump(x, y, 0.55, 0.25, 0.25, 0.2) + 0.5 * np.exp(-((x / 0.16) ** 2) - ((y - NOSE_Y) / 0.12) ** 2)
    _over(colour, 0.5 * red, skin * np.array([0.84, 0.84, 1.02]))
    _over(colour, 0.45 * _bump(x, y, 0.42 * who.eye_distance, EYE_Y - 0.02, 0.26, 0.14), skin * 0.72)
    beard = np.exp(-((np.maximum(0.62 - y, 0) / 0.16) ** 2)) * _step(np.hypot(x / 0.42, (y - 0.62) / 0.20) - 0.4, 0.5)
    _over(colour, 0.55 * who.beard * beard, 0.5 * skin * 0.5 + 0.5 * np.asarray(who.hair))
    age = (who.age - 20) / 45
    folds = np.exp(-(((np.abs(x) - (0.27 + 0.5 * np.maximum(y - 0.3, 0))) / 0.03) ** 2) - ((y - 0.5) / 0.2) ** 2)
    _over(colour, (0.15 + 0.3 * age) * folds, skin * 0.72)
    texture = cv2.GaussianBlur(g.normal(0, 1, x.shape), (0, 0), unit * _SUPERSAMPLE / 60)
    return colour * (1 + (0.009 + 0.008 * age) * texture / texture.std())[..., None]


def _brows_and_nose(
    image: NDArray[np.float64], who: Traits, x: NDArray[np.float64], y: NDArray[np.float64],
    hair: NDArray[np.float64], skin: NDArray[np.float64],
) -> None:  # fmt: skip
    side = np.abs(x)
    arc = BROW_Y - 0.07 * np.sin(np.clip((side - 0.14) / 0.6, 0, 1) * np.pi * 0.75)
    taper = np.clip((side - 0.12) / 0.08, 0, 1) * np.clip((0.74 - side) / 0.3, 0, 1)
    brow = np.exp(-(((y - arc) / (0.045 * who.brow_thickness)) ** 4)) * taper
    _over(image, 0.85 * brow, 0.75 * hair * 0.8 + 0.25 * skin * 0.4)
    nostril_y = NOSE_Y * who.nose_length + 0.10
    _over(image, 0.75 * _bump(x, y, 0.085 * who.nose_width, nostril_y, 0.055, 0.030), skin * 0.28)
    wings = np.exp(-(((side - 0.205 * who.nose_width) / 0.025) ** 2) - ((y - nostril_y + 0.05) / 0.075) ** 2)
    _over(image, 0.40 * wings, skin * 0.5)
    under = np.exp(-((x / 0.13) ** 2) - ((y - nostril_y - 0.045) / 0.022) ** 2)
    _over(image, 0.35 * under, skin * 0.55)


def _eyeball(who: Traits, size: int) -> F32:
    """(size, size, 3) float32: the white, iris, pupil and a highlight, looking straight ahead."""
    k = 4
    y, x = (np.mgrid[0 : size * k, 0 : size * k].astype(np.float64) + 0.5) / (size * k) * 0.92 - 0.46
    r = np.hypot(x, y)
    image = np.empty((*x.shape, 3))
    image[...] = np.array([212.0, 216.0, 222.0]) * (1 - 1.2 * np.maximum(np.abs(x) - 0.06, 0))[..., None]
    image *= np.clip(1.0 + 2.0 * (y + 0.04), 0.6, 1.0)[..., None]  # the upper lid's shadow
    radius = 0.105 * who.eye_size
    _over(image, _step(radius - r, 0.02), np.asarray(who.iris) * 0.55)
    _over(image, _step(radius * 0.85 - r, 0.03), np.asarray(who.iris, np.float64))
    _over(image, _step(radius * 0.45 - r, 0.02), (12.0, 12.0, 14.0))
    _over(image, _step(0.022 - np.hypot(x - 0.035, y + 0.035), 0.01), (250.0, 250.0, 250.0))
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
