"""Faces as wards have them: situation -> the reason of the verdict, and who reported it. A table to read.

Each row changes five frames of each real clip. How often each is right, over many frames, is tested in
test_preprocessing_sight.py; voices have their table in test_preprocessing_speech.py, EDA in ../media.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from coverings import COVERINGS
from reports import without_report

from jmt_edge.preprocessing.face import Face, FaceDetector, FaceTracker, align_crop
from jmt_edge.preprocessing.quality import FaceQuality
from jmt_edge.preprocessing.sight import FaceSight

Change = Callable[[np.ndarray, Face], np.ndarray]
RNG = np.random.default_rng(0)
OK = ""


def covered(name: str) -> Change:
    def change(image: np.ndarray, face: Face) -> np.ndarray:
        out = image.copy()
        COVERINGS[name][0](out, face, RNG)
        return out

    return change


def turned(quarters: int) -> Change:
    return lambda image, face: np.ascontiguousarray(np.rot90(image, -quarters))


def far(image: np.ndarray, face: Face) -> np.ndarray:
    """A face of 32 pixels in a picture of the same size."""
    small = cv2.resize(image, None, fx=32 / face.box[2], fy=32 / face.box[2], interpolation=cv2.INTER_AREA)
    out = np.full_like(image, 90)
    out[: small.shape[0], : small.shape[1]] = small
    return out


# situation, change, reason (part of it), who reported it or its kind
SITUATIONS: list[tuple[str, Change, str, str]] = [
    ("as it is", lambda image, face: image, OK, ""),
    ("surgical mask", covered("surgical mask"), "mouth covered", "googlesamples/mlkit#267"),
    ("oxygen mask", covered("oxygen mask"), "mouth covered", "https://pmc.ncbi.nlm.nih.gov/articles/PMC8552410"),
    (
        "tube with tape",
        covered("tube with tape"),
        "mouth covered",
        "https://www.readbyqxmd.com/read/37995171/occluded-facial-pain-assessment-in-the-icu-using-action-units-guided-network",
    ),
    ("sunglasses", covered("sunglasses"), "eyes covered", "google-ai-edge/mediapipe-samples#421"),
    ("bandage over both eyes", covered("bandage"), "eyes covered", "Knightwood/CameraX-Helper#5"),
    ("half behind a hand", covered("half behind a hand"), "half of the face covered", "TadasBaltrusaitis/OpenFace#575"),
    ("upside down", turned(2), "face upside down", "google-ai-edge/mediapipe#808"),
    ("lying on one side", turned(1), "face sideways", "ipazc/mtcnn#100"),
    ("lying on the other side", turned(3), "face sideways", "ipazc/mtcnn#100"),
    ("in the dark", lambda image, face: (image * 0.12).astype(np.uint8), "dark", "AITTSMD/MTCNN-Tensorflow#238"),
    ("far from the camera", far, "too small", "google-ai-edge/mediapipe#2396"),
    ("nobody", lambda image, face: np.full_like(image, 90), "no face", "uricamic/clandmark#6"),
]
CONTROLS = {"as it is"}  # nothing to report


def test_each_situation_cites_a_public_report() -> None:
    assert without_report({name: report for name, _, _, report in SITUATIONS}) == CONTROLS


@pytest.fixture(scope="module")
def frames(shared_data: Path) -> list[tuple[np.ndarray, Face]]:
    detector = FaceDetector()
    found = []
    for path in sorted((shared_data / "av" / "grid").glob("*.mpg")):
        video, read = cv2.VideoCapture(str(path)), []
        while (one := video.read())[0]:
            read.append(one[1])
        for image in [read[i] for i in np.linspace(0, len(read) - 1, 5).astype(int)]:
            found.append((image, detector.detect(image)[0]))
    return found


@pytest.mark.parametrize(
    ("change", "reason"), [pytest.param(change, reason, id=name) for name, change, reason, _ in SITUATIONS]
)
def test_situation_and_reason(change: Change, reason: str, frames: list[tuple[np.ndarray, Face]]) -> None:
    detector, sight = FaceDetector(), FaceSight()
    found = []
    for image, face in frames:
        tracker, quality = FaceTracker(detector, sight=sight), FaceQuality()
        picture = change(image, face)
        seen = tracker.update(picture, 0.0)
        quality.update(0.0, seen, None if seen is None else align_crop(picture, seen, 112), tracker.why)
        found.append(quality.verdict(0.0, 1.0).reason)
    right = [why == OK if reason == OK else reason in why for why in found]
    assert sum(right) >= 0.8 * len(right), found
