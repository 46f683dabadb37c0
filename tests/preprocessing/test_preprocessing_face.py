"""Detector, tracker and aligned crop: on real clips, on empty frames, on scripted detections and known geometry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jmt_edge.errors import DataError
from jmt_edge.preprocessing import face as face_module
from jmt_edge.preprocessing.face import TEMPLATE, WEIGHTS, Face, FaceDetector, FaceTracker, align_crop, overlap


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def frames_of(path: Path) -> Iterator[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    while True:
        ok, frame = video.read()
        if not ok:
            return
        yield frame


def clips(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "av").glob("*.mp4")) + sorted((shared_data / "av" / "grid").glob("*.mpg"))


def test_the_weights_are_those_of_the_notice() -> None:
    notice = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() in notice


def test_missing_weights_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(face_module, "WEIGHTS", tmp_path / "none.onnx")
    with pytest.raises(DataError, match="reinstall jmt-edge"):
        FaceDetector()


def test_every_frame_of_the_real_clips_has_its_one_face(shared_data: Path, detector: FaceDetector) -> None:
    paths = clips(shared_data)
    assert len(paths) == 7
    for path in paths:
        tracker, apart = FaceTracker(detector), []
        for i, frame in enumerate(frames_of(path)):
            tracked = tracker.update(frame, i / 25)
            assert tracked is not None, f"{path.name}: frame {i} not tracked"
            if i % 8:
                continue
            faces = detector.detect(frame)
            assert len(faces) == 1, f"{path.name}: frame {i} has {len(faces)} faces"
            # near the face the network sees other pixels, and still finds the same face
            assert overlap(faces[0].box, tracked.box) > 0.7
            apart.append(float(np.abs(faces[0].landmarks - tracked.landmarks).max() / tracked.width))
        # a hand over the mouth leaves its corners to guesswork
        assert np.median(apart) < 0.05 and max(apart) < 0.15, path.name


def test_all_five_faces_of_a_group(shared_data: Path, detector: FaceDetector) -> None:
    faces = detector.detect(cv2.imread(str(shared_data / "av" / "multi_face.jpg")))
    assert len(faces) == 5
    areas = [face.area for face in faces]
    assert areas == sorted(areas, reverse=True)


def test_no_face_in_the_empty_part_of_a_real_video(shared_data: Path, detector: FaceDetector) -> None:
    count = 0
    for frame in frames_of(shared_data / "av" / "WolfgangLanger_Pexels.mp4"):
        count += 1
        if count % 5 == 0:
            empty = cv2.resize(np.ascontiguousarray(frame[:, :200]), (640, 360))
            assert detector.detect(empty) == []
    assert count > 90


def empty_scenes() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    for level in (0, 60, 128, 255):
        yield np.full((480, 640, 3), level, np.uint8)
    for sigma in (0, 1, 4, 16, 48):
        noise = rng.normal(128, 60, (480, 640, 3)).astype(np.float32)
        if sigma:
            noise = cv2.GaussianBlur(noise, (0, 0), sigma)
            noise = 128 + (noise - noise.mean()) * (50 / noise.std())
        yield np.clip(noise, 0, 255).astype(np.uint8)
    for angle in (0.0, 0.5, 1.2):
        stripes = 128 + 100 * np.sin((x * np.cos(angle) + y * np.sin(angle)) / 7)
        yield np.repeat(stripes[..., None], 3, 2).astype(np.uint8)
    yield np.repeat((((x // 40 + y // 40) % 2) * 200).astype(np.uint8)[..., None], 3, 2)
    disc = np.full((480, 640, 3), 90, np.uint8)
    cv2.circle(disc, (320, 240), 110, (150, 180, 220), -1)  # skin-coloured, without features
    yield disc


def test_no_face_in_empty_scenes(detector: FaceDetector) -> None:
    for i, scene in enumerate(empty_scenes()):
        assert detector.detect(scene) == [], f"scene {i}"


@pytest.mark.parametrize("shape", [(1, 1), (17, 31), (3, 900), (900, 3), (33, 32), (1080, 1920)])
def test_any_image_size(detector: FaceDetector, shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    assert detector.detect(image) == []
    assert detector.detect_near(image, make_face(-20, -20, 10)) == []  # beside the image


def test_a_face_survives_scaling_and_is_found_where_it_is(shared_data: Path, detector: FaceDetector) -> None:
    frame = next(frames_of(shared_data / "av" / "single_face.mp4"))
    reference = detector.detect(frame)[0]
    for scale in (0.5, 0.75, 1.6):
        scaled = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        shifted = cv2.copyMakeBorder(scaled, 30, 0, 50, 0, cv2.BORDER_CONSTANT)
        found = detector.detect(shifted)[0]
        assert np.abs(found.landmarks - (reference.landmarks * scale + (50, 30))).max() < 0.05 * found.width


def test_the_same_frame_gives_the_same_face(shared_data: Path, detector: FaceDetector) -> None:
    frame = next(frames_of(shared_data / "av" / "single_face.mp4"))
    a, b = detector.detect(frame)[0], FaceDetector().detect(frame)[0]
    assert a.box == b.box and a.score == b.score
    np.testing.assert_array_equal(a.landmarks, b.landmarks)


# --- tracker, on scripted detections ---


def make_face(x: float, y: float, size: float, score: float = 0.9) -> Face:
    points = (np.array([x, y]) + (TEMPLATE - TEMPLATE.min(0)) / 60 * size).astype(np.float32)
    return Face((x, y, x + size, y + size), score, points)


class Script:
    """A detector that sees the faces it is given; near a face only what overlaps its surroundings."""

    def __init__(self) -> None:
        self.faces: list[Face] = []
        self.full = self.near = 0

    def detect(self, image: np.ndarray, turn: int = 0) -> list[Face]:
        self.full += 1
        return sorted(self.faces, key=lambda f: -f.area)

    def detect_near(self, image: np.ndarray, face: Face, roll: float = 0) -> list[Face]:
        self.near += 1
        x, y, half = face.box[0] + face.width / 2, face.box[1] + face.height / 2, face.width
        region = (x - half, y - half, x + half, y + half)
        return [f for f in self.detect_only() if overlap(f.box, region) > 0]

    def detect_only(self) -> list[Face]:
        return sorted(self.faces, key=lambda f: -f.area)


def same(found: Face | None, face: Face) -> bool:
    return found is not None and found.box == face.box


IMAGE = np.zeros((480, 640, 3), np.uint8)


def test_the_largest_first_then_the_same_person() -> None:
    script = Script()
    tracker = FaceTracker(script)  # type: ignore[arg-type]
    small, large = make_face(400, 100, 60), make_face(100, 100, 90)
    script.faces = [small, large]
    assert same(tracker.update(IMAGE, 0.0), large)
    for i in range(1, 20):  # the other one comes closer and becomes the larger
        moved, grown = make_face(100 + 5 * i, 100, 90), make_face(400, 100, 60 + 5 * i)
        script.faces = [moved, grown]
        assert same(tracker.update(IMAGE, i / 30), moved)
    assert script.full == 1 and script.near == 20  # one whole frame only, and one search near the face in each


def test_a_covered_face_is_waited_for_and_then_given_up() -> None:
    script = Script()
    tracker = FaceTracker(script, patience=1.0)  # type: ignore[arg-type]
    person, other = make_face(100, 100, 90), make_face(400, 100, 60)
    script.faces = [person, other]
    tracker.update(IMAGE, 0.0)
    script.faces = [other]
    assert [tracker.update(IMAGE, t) for t in (0.2, 0.6, 1.0)] == [None, None, None]
    script.faces = [make_face(110, 105, 90), other]
    assert same(tracker.update(IMAGE, 1.0), script.faces[0])
    script.faces = [other]
    assert tracker.update(IMAGE, 1.9) is None
    assert same(tracker.update(IMAGE, 2.1), other)


def test_nobody_then_somebody() -> None:
    script = Script()
    tracker = FaceTracker(script)  # type: ignore[arg-type]
    assert tracker.update(IMAGE, 0.0) is None
    script.faces = [make_face(10, 10, 50)]
    assert same(tracker.update(IMAGE, 0.1), script.faces[0])


def picture(*people: tuple[Face, tuple[int, int, int]]) -> np.ndarray:
    """Each face as a patch of its colour."""
    image = np.full((480, 640, 3), 90, np.uint8)
    for face, colour in people:
        x0, y0, x1, y1 = (int(v) for v in face.box)
        image[max(0, y0 - 20) : y1 + 20, max(0, x0 - 20) : x1 + 20] = colour
    return image


RED, BLUE = (60, 60, 200), (200, 90, 60)


def test_another_person_gets_another_number() -> None:
    """Somebody else elsewhere; the same person back in place; somebody else in the same place."""
    script = Script()
    tracker = FaceTracker(script)  # type: ignore[arg-type]

    def track(face: Face | None, colour: tuple[int, int, int], t: float) -> int | None:
        script.faces = [] if face is None else [face]
        found = tracker.update(IMAGE if face is None else picture((face, colour)), t)
        return None if found is None else found.track

    here, there = make_face(100, 100, 90), make_face(400, 200, 90)
    assert [track(here, RED, i / 5) for i in range(5)] == [1] * 5
    assert [track(None, RED, 1 + i / 5) for i in range(10)] == [None] * 10
    assert track(make_face(120, 110, 85), RED, 3.0) == 1  # back after two seconds
    assert [track(None, RED, 3.2 + i / 5) for i in range(10)] == [None] * 10
    assert track(there, BLUE, 5.2) == 2
    assert [track(there, BLUE, 5.4 + i / 5) for i in range(5)] == [2] * 5
    later = [track(there, RED, 6.4 + i / 5) for i in range(15)]
    assert later[0] == 2 and later[-1] == 3 and later == sorted(later)  # type: ignore[type-var]


def test_a_jump_between_two_frames_is_another_person_only_where_the_look_changes() -> None:
    for colour, number in ((RED, 1), (BLUE, 2)):
        script = Script()
        tracker = FaceTracker(script)  # type: ignore[arg-type]
        before, after = make_face(100, 100, 90), make_face(150, 120, 90)  # they overlap by a quarter
        script.faces = [before]
        tracker.update(picture((before, RED)), 0.0)
        script.faces = [after]
        found = tracker.update(picture((after, colour)), 0.2)
        assert found is not None and found.track == number


def test_whose_face_is_followed() -> None:
    large, central = make_face(20, 20, 120), make_face(285, 205, 70)
    for person, wanted in (("largest", large), ("central", central), ("first", large)):
        script = Script()
        script.faces = [large, central]
        assert same(FaceTracker(script, follow=person).update(IMAGE, 0.0), wanted)  # type: ignore[arg-type]


def test_nobody_but_the_first() -> None:
    script = Script()
    tracker = FaceTracker(script, follow="first")  # type: ignore[arg-type]
    first, other = make_face(100, 100, 90), make_face(400, 100, 130)
    script.faces = [first]
    assert same(tracker.update(picture((first, RED)), 0.0), first)
    script.faces = [other]
    for t in (1.5, 3.0, 9.0):
        assert tracker.update(picture((other, BLUE)), t) is None
    assert tracker.why == "another person: the first one is followed"
    moved = make_face(300, 250, 90)
    script.faces = [other, moved]
    found = tracker.update(picture((other, BLUE), (moved, RED)), 10.0)
    assert same(found, moved) and found is not None and found.track == 1


def test_two_of_similar_size_are_not_guessed() -> None:
    script = Script()
    tracker = FaceTracker(script)  # type: ignore[arg-type]
    script.faces = [make_face(100, 100, 90), make_face(400, 100, 80)]
    assert tracker.update(IMAGE, 0.0) is None and "several people" in tracker.why
    script.faces = [make_face(100, 100, 90)]
    assert tracker.update(IMAGE, 0.2) is not None
    script.faces = [make_face(100, 100, 90), make_face(400, 100, 80)]  # one joins the one who is followed
    assert tracker.update(IMAGE, 0.4) is not None


def test_a_group_is_several_people(shared_data: Path, detector: FaceDetector) -> None:
    image = cv2.imread(str(shared_data / "av" / "multi_face.jpg"))
    tracker = FaceTracker(detector)
    assert tracker.update(image, 0.0) is None and "several people" in tracker.why
    assert FaceTracker(detector, follow="central").update(image, 0.0) is not None


def test_the_frame_is_searched_turned_while_nobody_is_seen() -> None:
    class Turned(Script):
        """Finds a face only in a picture turned back by 270 degrees."""

        def detect(self, image: np.ndarray, turn: int = 0) -> list[Face]:
            return [make_face(100, 100, 90)] if turn == 270 else []

    tracker = FaceTracker(Turned())  # type: ignore[arg-type]
    seen = [tracker.update(IMAGE, i / 5) is not None for i in range(16)]
    assert not any(seen[:6]) and any(seen)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_search_in_the_turned_picture_is_where_the_face_is(
    turn: int, shared_data: Path, detector: FaceDetector
) -> None:
    frame = next(frames_of(shared_data / "av" / "single_face.mp4"))
    upright = detector.detect(frame)[0]
    turned = detector.detect(np.ascontiguousarray(np.rot90(frame, -turn // 90)), turn)[0]
    width, height = frame.shape[1], frame.shape[0]
    x, y = upright.landmarks.T
    there = {90: (height - y, x), 180: (width - x, height - y), 270: (y, width - x)}[turn]
    assert np.abs(turned.landmarks - np.stack(there, 1)).max() < 0.03 * upright.width
    sides = (turned.width, turned.height)
    assert sides == pytest.approx(
        (upright.width, upright.height) if turn == 180 else (upright.height, upright.width), rel=0.05
    )


def test_time_that_jumps_back_starts_anew() -> None:
    script = Script()
    tracker = FaceTracker(script)  # type: ignore[arg-type]
    script.faces = [make_face(10, 10, 50)]
    tracker.update(IMAGE, 100.0)
    script.faces = [make_face(400, 10, 50)]
    assert same(tracker.update(IMAGE, 0.0), script.faces[0])


def test_overlap() -> None:
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert overlap((0, 0, 2, 2), (2, 0, 4, 2)) == 0
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1


# --- crop ---


@settings(deadline=None, max_examples=30)
@example(angle=0.0, scale=0.6015625, dx=0.0, dy=1.6875, size=224)
@given(
    angle=st.floats(-60, 60), scale=st.floats(0.6, 6.0), dx=st.floats(-30, 30), dy=st.floats(-30, 30),
    size=st.sampled_from([64, 112, 224]),
)  # fmt: skip
def test_landmarks_land_on_the_template(angle: float, scale: float, dx: float, dy: float, size: int) -> None:
    side, radians = 900, np.radians(angle)
    turn = scale * np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    points = (TEMPLATE - 56) @ turn.T + side / 2 + (dx, dy)
    image = np.zeros((side, side, 3), np.uint8)
    face = Face((0, 0, 1, 1), 1.0, points.astype(np.float32))
    # paint round spots as large as 5 pixels of a 112-pixel crop, one at a time, and look where they come out
    for i in (0, 2, 4):
        image[:] = 0
        cv2.circle(image, tuple(int(v) for v in np.round(points[i] * 16)), int(5 * scale * 16), (255, 0, 0), -1, 8, 4)
        crop = align_crop(image, face, size)
        assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
        assert crop[..., :2].max() == 0  # BGR's blue is RGB's last
        weights = crop[..., 2].astype(float)
        y, x = np.mgrid[:size, :size]
        centre = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
        pixel = size / 112 / scale  # of the source, in the crop; the painted spot itself is off by up to a quarter
        assert np.abs(centre - TEMPLATE[i] * size / 112).max() < max(0.75, 0.25 * pixel)


def test_a_large_face_is_averaged_not_sampled() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    face = Face((0, 0, 1, 1), 1.0, (TEMPLATE * 8 + 100).astype(np.float32))
    crop = align_crop(image, face, 112)
    # the mean of 64 independent pixels has an eighth of their deviation (74)
    assert crop[5:-5, 5:-5].std() < 12


def test_a_crop_beyond_the_image_is_black_and_degenerate_landmarks_do_not_raise() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    for scale in (1.0, 5.0):
        away = Face((0, 0, 1, 1), 1.0, (TEMPLATE * scale + 5000).astype(np.float32))
        assert align_crop(image, away, 112).max() == 0
    assert align_crop(image, Face((0, 0, 1, 1), 1.0, np.full((5, 2), 50, np.float32)), 112).shape == (112, 112, 3)


def test_colours_are_compared_as_opencv_would() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    rgb[0, :3] = [[0, 0, 0], [255, 255, 255], [10, 10, 10]]
    reference = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float64) - [0, 128, 128]
    assert np.abs(face_module._lab(rgb) - reference).max() < 2  # its own are whole numbers
