"""Covered and turned faces are refused with the cause, clean ones pass: on real clips, a real hand, and drawn faces.

The coverings are drawn by `coverings.py`, on people of whom no picture was used for training.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from coverings import COVERINGS

from jmt_edge.capture.simulated.expression import Expressions
from jmt_edge.capture.simulated.face import FaceRenderer
from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.voice import Speech
from jmt_edge.errors import DataError
from jmt_edge.preprocessing import sight as sight_module
from jmt_edge.preprocessing.face import Face, FaceDetector, FaceTracker, align_crop, wrapped
from jmt_edge.preprocessing.quality import FaceQuality
from jmt_edge.preprocessing.sight import HEAD, MESH, REGIONS, FaceSight, covering

FRAMES = 40  # of each person
HAND = range(56, 230)  # frames of one clip in which the person's own hand is before the mouth


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def sight() -> FaceSight:
    return FaceSight()


def people(shared_data: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    """FRAMES frames of each real clip, evenly, without those in which a hand covers the face."""
    folder = shared_data / "av"
    for path in [*sorted((folder / "grid").glob("*.mpg")), *sorted(folder.glob("*.mp4"))]:
        video, frames = cv2.VideoCapture(str(path)), []
        while (read := video.read())[0]:
            frames.append(read[1])
        if path.name.startswith("Wolfgang"):
            frames = [frame for i, frame in enumerate(frames) if i not in HAND]
        yield path.name, [frames[i] for i in np.linspace(0, len(frames) - 1, FRAMES).astype(int)]


def reason(image: np.ndarray, detector: FaceDetector, sight: FaceSight) -> str:
    """Why this frame alone is refused, empty where it passes."""
    tracker, quality = FaceTracker(detector, sight=sight), FaceQuality()
    face = tracker.update(image, 0.0)
    quality.update(0.0, face, None if face is None else align_crop(image, face, 112), tracker.why)
    return quality.verdict(0.0, 1.0).reason


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """The picture turned clockwise, on a square that holds all of it."""
    height, width = image.shape[:2]
    side = int(np.hypot(height, width)) + 1
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    matrix[:, 2] += ((side - width) / 2, (side - height) / 2)
    return cv2.warpAffine(image, matrix, (side, side))


def test_clean_covered_and_turned_faces_of_real_people(
    shared_data: Path, detector: FaceDetector, sight: FaceSight
) -> None:
    """Each of 40 frames a person as it is, with a covering in turn, and turned by 90, 180 or 270 degrees in turn."""
    rng = np.random.default_rng(0)
    clean: Counter[str] = Counter()
    covered: dict[str, Counter[str]] = {name: Counter() for name in COVERINGS}
    lying: dict[int, Counter[str]] = {90: Counter(), 180: Counter(), 270: Counter()}
    for _, frames in people(shared_data):
        for i, frame in enumerate(frames):
            clean[reason(frame, detector, sight)] += 1
            kind = [*COVERINGS][i % len(COVERINGS)]
            image = frame.copy()
            COVERINGS[kind][0](image, detector.detect(frame)[0], rng)
            covered[kind][reason(image, detector, sight)] += 1
            degrees = (90, 180, 270)[i % 3]
            lying[degrees][reason(np.ascontiguousarray(np.rot90(frame, -degrees // 90)), detector, sight)] += 1
    assert clean[""] >= 0.98 * clean.total(), clean
    assert not lying[180][""], lying
    right = sum(n for kind, found in covered.items() for why, n in found.items() if COVERINGS[kind][1] in why)
    total = sum(found.total() for found in covered.values())
    assert right >= 0.9 * total, covered
    for kind, found in covered.items():  # none of them is missed as a kind
        assert found[""] <= 0.25 * found.total(), (kind, found)
    expected = {90: "face sideways", 180: "face upside down", 270: "face sideways"}
    right = sum(n for degrees, found in lying.items() for why, n in found.items() if expected[degrees] in why)
    assert right >= 0.9 * sum(found.total() for found in lying.values()), lying


def test_a_real_hand_before_the_mouth(shared_data: Path, detector: FaceDetector, sight: FaceSight) -> None:
    video = cv2.VideoCapture(str(shared_data / "av" / "WolfgangLanger_Pexels.mp4"))
    found: Counter[str] = Counter()
    for i in range(225):
        frame = video.read()[1]
        if i >= 95 and i % 5 == 0:
            found[reason(frame, detector, sight)] += 1
    assert sum(n for why, n in found.items() if "covered" in why) >= 0.9 * found.total(), found


@pytest.mark.parametrize("degrees", [-50, -35, 20, 35, 50])
def test_a_tilt_is_read_as_it_is(degrees: int, shared_data: Path, detector: FaceDetector, sight: FaceSight) -> None:
    """A head tilted by 50 degrees was read as 39: landmarks are exact only where the face is upright."""
    for name, frames in people(shared_data):
        for frame in frames[::16]:
            upright = FaceTracker(detector, sight=sight).update(frame, 0.0)
            tilted = FaceTracker(detector, sight=sight).update(turned(frame, degrees), 0.0)
            assert upright is not None and tilted is not None, name
            assert abs(wrapped(tilted.roll - upright.roll - degrees)) < 8, name


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_lying_person_is_refused_for_a_second_and_then_followed(
    degrees: int, shared_data: Path, detector: FaceDetector, sight: FaceSight
) -> None:
    for _, frames in people(shared_data):
        tracker, quality = FaceTracker(detector, sight=sight), FaceQuality()
        for i, frame in enumerate(frames[:24]):
            image = np.ascontiguousarray(np.rot90(frame, -degrees // 90))
            face = tracker.update(image, i * 0.125)
            assert face is not None
            quality.update(i * 0.125, face, align_crop(image, face, 112))
        early, late = quality.verdict(0.9, 0.9), quality.verdict(23 * 0.125, 1.0)
        assert not early.ok and ("upside down" if degrees == 180 else "sideways") in early.reason
        assert late.ok and late.turn == degrees and late.track == 1, late


def test_drawn_faces_pass(detector: FaceDetector, sight: FaceSight) -> None:
    found: Counter[str] = Counter()
    for seed in (*range(310, 320), 1_000_010, 2_000_010):
        person = Person.live(seed)
        expressions, renderer = Expressions(person, Speech(person)), FaceRenderer(person, 320, 240)
        for t in np.linspace(4, 110, 10):
            found[reason(renderer.frame(float(t), expressions(float(t))), detector, sight)] += 1
    assert found[""] >= 0.98 * found.total(), found


# --- parts ---


@pytest.mark.parametrize(
    ("regions", "name"),
    [
        ("", ""),
        ("nose", ""),
        ("left mouth", ""),
        ("left mouth, right mouth", "mouth covered"),
        ("nose, left mouth, right mouth", "mouth covered"),
        ("left eye, right eye", "eyes covered"),
        ("left eye, right eye, nose, left mouth", "eyes covered"),
        ("right eye, right mouth", "half of the face covered"),
        ("left eye, nose, left mouth, right mouth", "half of the face covered"),
        ("left eye", "one eye covered"),
        ("left eye, right eye, left mouth, right mouth", "face covered"),
    ],
)
def test_the_name_of_what_is_covered(regions: str, name: str) -> None:
    assert covering({region: region in regions.split(", ") for region in REGIONS}) == name


@pytest.mark.parametrize("file", [MESH, HEAD])
def test_the_networks_are_those_of_the_notice(file: Path) -> None:
    notice = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in notice


def test_a_missing_network_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sight_module, "HEAD", tmp_path / "none.onnx")
    with pytest.raises(DataError, match="reinstall jmt-edge"):
        FaceSight()


class Blind:
    """A sight that counts, and finds what it is told to."""

    def __init__(self, *verdicts: tuple[int, str]) -> None:
        self.verdicts, self.asked = verdicts, 0

    def judge(self, image: np.ndarray, face: Face) -> tuple[int, str]:
        self.asked += 1
        return self.verdicts[min(self.asked, len(self.verdicts)) - 1]


class Still:
    """A detector that always finds the same upright face."""

    def detect(self, image: np.ndarray, turn: int = 0) -> list[Face]:
        from jmt_edge.preprocessing.face import TEMPLATE

        return [Face((100, 100, 190, 220), 0.9, (TEMPLATE + 90).astype(np.float32))]

    def detect_near(self, image: np.ndarray, face: Face, roll: float = 0) -> list[Face]:
        return self.detect(image)


def test_the_sight_is_asked_every_0_6_seconds_and_its_answer_held() -> None:
    sight = Blind((0, ""), (0, "mouth covered"), (0, ""))
    tracker = FaceTracker(Still(), sight=sight)  # type: ignore[arg-type]
    image = np.zeros((480, 640, 3), np.uint8)
    faults = [face.fault for i in range(38) if (face := tracker.update(image, i / 25)) is not None]
    assert faults == [""] * 15 + ["mouth covered"] * 15 + [""] * 8
    assert sight.asked == 3


def test_landmarks_that_stay_wrong_are_refused_by_name() -> None:
    for wrong, name in ((90, "face sideways"), (180, "face upside down"), (270, "face sideways")):
        tracker = FaceTracker(Still(), sight=Blind((wrong, "")))  # type: ignore[arg-type]
        face = tracker.update(np.zeros((480, 640, 3), np.uint8), 0.0)
        assert face is not None and face.fault == name
