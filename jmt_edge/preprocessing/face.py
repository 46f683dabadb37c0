"""Find a face, follow it, cut it out upright.

Detector: CenterFace (Xu et al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point"), a key-point
network that gives box, score and five landmarks at once. `NOTICE` records where its weights come from.
The papers detected with MTCNN; both give the same five landmarks, and the crop depends on the landmarks only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..errors import DataError
from ..opencv import cv2
from ..tasks import Modality

WEIGHTS = Path(__file__).parent / "data" / "centerface.onnx"

FULL_SIDE = 320  # the longest side of a whole frame, as the network sees it
ROI_SIDE = 128
SCORE_THRESHOLD = 0.5
NMS_OVERLAP = 0.3
STRIDE = 4  # of the network's output maps

# Eyes, nose tip and mouth corners of a frontal face in a 112 x 112 crop; the reference points of InsightFace's
# aligned crops, which ABAW's `cropped_aligned` faces follow.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
TEMPLATE_SIDE = 112

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Face:
    """One detected face in pixels of its image.

    box: (x0, y0, x1, y1). score: 0..1. landmarks: (5, 2) x, y of the eye, eye, nose tip, mouth corner and mouth
    corner; of each pair the one further left in the image comes first.
    """

    box: Box
    score: float
    landmarks: NDArray[np.float32]

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return self.width * self.height


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

    Raises DataError where the weights are missing from the installation.
    """

    def __init__(self) -> None:
        if not WEIGHTS.is_file():
            raise DataError(f"the face detector's weights are missing at {WEIGHTS}; reinstall jmt-edge")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(WEIGHTS), options, providers=["CPUExecutionProvider"])

    def detect(self, image_bgr: NDArray[np.uint8]) -> list[Face]:
        """All faces of `image_bgr` (H, W, 3) uint8, the largest first.

        The frame is shrunk so that its longest side is 320 pixels: faces narrower than about 1/25 of it are not found.
        """
        height, width = image_bgr.shape[:2]
        return self._run(image_bgr, (0, 0, width, height), FULL_SIDE)

    def detect_near(self, image_bgr: NDArray[np.uint8], face: Face) -> list[Face]:
        """All faces in the square of twice `face`'s size around it, the largest first; a quarter of the full cost."""
        half = int(np.ceil(max(face.width, face.height)))
        x, y = round((face.box[0] + face.box[2]) / 2), round((face.box[1] + face.box[3]) / 2)
        return self._run(image_bgr, (x - half, y - half, x + half, y + half), ROI_SIDE)

    def _run(self, image: NDArray[np.uint8], roi: tuple[int, int, int, int], side: int) -> list[Face]:
        scale = side / max(roi[2] - roi[0], roi[3] - roi[1])
        heatmap, log_size, offset, landmarks = self._session.run(None, {"image": _network_input(image, roi, scale)})
        rows, columns = np.nonzero(heatmap[0, 0] > SCORE_THRESHOLD)
        scores = heatmap[0, 0, rows, columns]
        height, width = np.exp(log_size[0, :, rows, columns].T) * STRIDE
        y = (rows + offset[0, 0, rows, columns] + 0.5) * STRIDE - height / 2
        x = (columns + offset[0, 1, rows, columns] + 0.5) * STRIDE - width / 2
        points = landmarks[0, :, rows, columns].reshape(-1, 5, 2)  # (y, x) as a fraction of the box
        faces: list[Face] = []
        for i in np.argsort(-scores, kind="stable"):
            corner, size = np.array([x[i], y[i]]), np.array([width[i], height[i]])
            low, high = corner / scale + roi[:2], (corner + size) / scale + roi[:2]
            box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
            if any(overlap(box, kept.box) > NMS_OVERLAP for kept in faces):
                continue
            where = ((corner + points[i, :, ::-1] * size) / scale + roi[:2]).astype(np.float32)
            faces.append(Face(box, float(scores[i]), where))
        return sorted(faces, key=lambda face: -face.area)


def _network_input(image: NDArray[np.uint8], roi: tuple[int, int, int, int], scale: float) -> NDArray[np.float32]:
    """The region scaled, RGB 0..255, black outside the image, sides a multiple of 32: (1, 3, h, w)."""
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
    return np.ascontiguousarray(canvas[None, :, :, ::-1].transpose(0, 3, 1, 2), dtype=np.float32)


class FaceTracker:
    """One person's face through a video: the largest at first, then the one that overlaps the last sighting.

    While a face is followed only its surroundings are searched; the whole frame when it was not found there.
    For `patience` seconds after the last sighting another face elsewhere is not taken for the lost one; then the
    largest face is picked anew. Same frames and times, same answers.
    """

    MIN_OVERLAP = 0.1  # with the last sighting: heads move by less than their width between two frames

    def __init__(self, detector: FaceDetector, patience: float = 1.0) -> None:
        self._detector = detector
        self._patience = patience
        self._last: Face | None = None
        self._seen = 0.0

    def update(self, image_bgr: NDArray[np.uint8], t: float) -> Face | None:
        """The followed face in the frame `image_bgr` (H, W, 3) uint8 of time `t` (s), or None."""
        if self._last is not None and not 0 <= t - self._seen <= self._patience:
            self._last = None
        face = None
        if self._last is not None:
            face = self._match(self._detector.detect_near(image_bgr, self._last))
        if face is None:
            faces = self._detector.detect(image_bgr)
            face = self._match(faces) if self._last is not None else next(iter(faces), None)
        if face is not None:
            self._last, self._seen = face, t
        return face

    def _match(self, faces: list[Face]) -> Face | None:
        assert self._last is not None
        last = self._last.box
        best = max(faces, key=lambda face: overlap(face.box, last), default=None)
        return best if best is not None and overlap(best.box, last) >= self.MIN_OVERLAP else None


def align_crop(image: NDArray[np.uint8], face: Face, size: int) -> NDArray[np.uint8]:
    """The upright face as (size, size, 3) uint8 RGB; `image` is (H, W, 3) uint8 BGR.

    The similarity transform (rotation, one scale, shift) that takes the five landmarks to `TEMPLATE` with least
    squared error (Umeyama 1991 without reflection). What lies outside the image is black.
    """
    matrix = _similarity(face.landmarks.astype(np.float64), TEMPLATE * (size / TEMPLATE_SIDE))
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
            matrix[:, 2] += matrix[:, :2] @ (np.array([x0, y0]) + (shrink - 1) / 2)
            matrix[:, :2] *= shrink
    crop = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB), np.uint8)


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
