"""Facial actions in a live run: against the rest, refused with the face, at a low rate, recorded, replayed, exported.

What the mesh finds is in `tests/clips/test_clips_actions.py`; here each frame says what it shows.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fixture import FakeEngine, ListSource, hand_bundle

from jmt_edge.clips import face
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import ConfigError
from jmt_edge.live import Options, Pipeline, Result, run
from jmt_edge.live.actions import LABEL, NO_REST, OTHER, in_words
from jmt_edge.media.video import video_frames
from jmt_edge.observer import Observer
from jmt_edge.preprocessing.actions import ACTIONS, INDEX, MEASURES, FaceMeasures
from jmt_edge.preprocessing.face import Face
from jmt_edge.recording.export import export_csv, export_xdf
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.recording.replay import replay
from jmt_edge.tasks import get_task

FPS = 25
CALM = {
    "eye_left": 0.3, "eye_right": 0.3, "brow_height": 0.2, "brow_distance": 0.27, "nose_lip": 0.16,
    "mouth_width": 0.55, "corner_height": 0.02, "mouth_opening": 0.01, "jaw": 0.65,
}  # fmt: skip
NARROW = 0.8  # of the eyes' opening at rest: half of the strongest action


class Told:
    """Stands for FaceTracker: the frame's first pixel says whose face it is and whether it is covered."""

    why = "no face"

    def __init__(self, detector: object, **options: object) -> None: ...

    def update(self, image: np.ndarray, t: float) -> Face | None:
        _, track, covered = image[0, 0].tolist()
        landmarks = np.array([[30, 30], [70, 30], [50, 50], [34, 70], [66, 70]], np.float32)
        found = Face((5.0, 5.0, 95.0, 95.0), 0.9, landmarks, track=track, fault="face covered" if covered else "")
        return found if track else None


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with each face that is measured."""
    calls: list[int] = []

    def measure(image: np.ndarray, found: Face) -> FaceMeasures:
        calls.append(found.track)
        opening = 0.3 * image[0, 0, 0] / 200
        return FaceMeasures(1.0, -2.0, 0.5, {**CALM, "eye_left": opening, "eye_right": opening})

    monkeypatch.setattr(face, "FaceDetector", lambda: None)
    monkeypatch.setattr(face, "FaceTracker", Told)
    monkeypatch.setattr(face, "FaceSight", lambda: None)
    monkeypatch.setattr(face, "measure_face", measure)
    return calls


def film(seconds: float, *spans: tuple[float, float, float, int, bool]) -> dict[str, Any]:
    """A camera. spans: from, to (s), share of the eyes' opening, track, covered; else open eyes of person 1."""
    base = np.random.default_rng(0).integers(60, 200, (100, 100, 3)).astype(np.uint8)
    times, images = np.arange(round(seconds * FPS)) / FPS, []
    for t in times:
        share, track, covered = next(((s, n, c) for a, b, s, n, c in spans if a <= t < b), (1.0, 1, False))
        image = base.copy()
        image[0, 0] = (round(200 * share), track, covered)
        images.append(image)
    return {"face": ListSource("face", times, images, FPS)}


class Watch(Observer):
    def __init__(self) -> None:
        self.results: dict[float, Result] = {}

    def on_result(self, result: Result) -> None:
        self.results[result.t] = replace(result, latency_ms={})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return hand_bundle(get_task("pain", "demo"), tmp_path_factory.mktemp("actions") / "hand.jmt")


def play(bundle: Bundle, sources: dict[str, Any], **options: Any) -> dict[float, Result]:
    watch = Watch()
    chosen = {"actions": True, "rest": 30.0, "novelty": "off", **options}
    run(bundle, FakeEngine(bundle.task), sources, Options(realtime=False, **chosen), [watch])
    return watch.results


def acted(result: Result) -> dict[str, Any]:
    assert result.actions is not None
    return result.actions


def test_actions_are_measured_against_the_rest(bundle: Bundle, measured: list[int]) -> None:
    """Blinks, in the rest and after it, change nothing; eyes that stay narrow are half of the strongest action."""
    blinks = [(t, t + 0.2, 0.2, 1, False) for t in (3.1, 9.3, 15.7, 38.3)]
    results = play(bundle, film(50, *blinks, (42, 48, NARROW, 1, False)))
    resting = acted(results[10.0])
    assert resting["reason"] == "the person rests: 20 s left" and resting["strengths"] is None
    for t in (32.0, 36.0, 38.5, 39.0):
        found = acted(results[t])
        assert found["label"] == LABEL and found["reason"] == ""
        assert found["strengths"] == dict.fromkeys(ACTIONS, 0.0) and found[INDEX] == 0, t
    narrow = acted(results[46.0])
    assert narrow["strengths"]["AU06"] == narrow["strengths"]["AU07"] == pytest.approx(2.5)
    assert narrow[INDEX] == pytest.approx(2.5)
    assert narrow["t"] == 45.5  # where the clip of the face ends
    assert narrow["pose"] == {"pitch": 1.0, "yaw": -2.0, "roll": 0.5}
    assert narrow["measures"] == pytest.approx({**CALM, "eye_left": 0.24, "eye_right": 0.24})
    assert in_words(narrow)[0] == f"PSPI-like index ({LABEL}): 2.5 of 16"


def test_without_a_rest_there_are_measures_and_no_strength(bundle: Bundle, measured: list[int]) -> None:
    found = acted(play(bundle, film(6), rest=0.0)[5.0])
    assert found["reason"] == NO_REST and found["strengths"] is None and found[INDEX] is None
    assert set(found["measures"]) == set(MEASURES)
    assert in_words(found) == (f"facial actions ({LABEL}): —", NO_REST)


def test_a_face_that_may_not_be_used_has_no_number(bundle: Bundle, measured: list[int]) -> None:
    results = play(bundle, film(50, (40, 44, 1, 1, True), (46, 50, 1, 0, False)))
    assert acted(results[39.0])["strengths"] is not None
    for t, why in ((43.0, "face covered in "), (49.0, "no face in ")):
        found = acted(results[t])
        assert found["reason"].startswith(why)
        assert (found["pose"], found["measures"], found["strengths"], found[INDEX]) == (None, None, None, None)


def test_another_person_is_not_compared_with_the_rest(bundle: Bundle, measured: list[int]) -> None:
    results = play(bundle, film(50, (40, 45, 1, 2, False)))
    other, again = acted(results[44.0]), acted(results[49.0])
    assert other["reason"] == OTHER and other["strengths"] is None and other["measures"] is not None
    assert again["reason"] == "" and again["strengths"] is not None


@pytest.mark.parametrize(
    ("span", "why"),
    [
        ((0, 20, 1, 1, True), "rest refused: usable in "),
        ((10, 20, 1, 2, False), "rest refused: more than one person was followed"),
    ],
)
def test_a_rest_that_says_nothing_is_refused(
    bundle: Bundle, measured: list[int], span: tuple[float, float, float, int, bool], why: str
) -> None:
    found = acted(play(bundle, film(36, span))[35.0])
    assert found["reason"].startswith(why) and found["strengths"] is None and found["measures"] is not None


@pytest.mark.parametrize("task", ["pain", "affect", "trimodal"])
def test_a_face_is_measured_five_to_seven_times_a_second(task: str, tmp_path: Path, measured: list[int]) -> None:
    some = hand_bundle(get_task(task, "demo"), tmp_path / "some.jmt")
    with_actions = play(some, film(12), rest=0.0)
    assert 5 <= len(measured) / 12 <= 7
    measured.clear()
    without = play(some, film(12), rest=0.0, actions=False)
    assert measured == [] and all(r.actions is None for r in without.values())
    assert {t: replace(r, actions=None) for t, r in with_actions.items()} == without  # the numbers do not depend on it


def test_a_run_without_a_camera_has_no_actions(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="--actions measures a face, and there is no camera"):
        Options(actions=True).check({"eda": ListSource("eda", np.arange(3.0), np.ones(3, np.float32))})


def test_a_recording_keeps_them_and_a_replay_measures_them_again(
    bundle: Bundle, measured: list[int], tmp_path: Path
) -> None:
    pytest.importorskip("av")
    folder = tmp_path / "session"
    watch = Watch()
    recorder = Recorder(folder, bundle, raw=("face",))
    sources = film(38, (34, 36, NARROW, 1, False))
    options = Options(realtime=False, rest=30.0, actions=True)
    run(bundle, open_engine(bundle, "onnxruntime", 1), sources, options, [watch, recorder])
    recording, again = Recording(folder), Watch()
    assert recording.manifest["actions"] is True
    outcome = replay(recording, bundle, open_engine(bundle, "onnxruntime", 1), Pipeline, observers=[again])
    assert outcome.equal == outcome.recomputed == len(watch.results) and not outcome.played
    assert {t: r.actions for t, r in again.results.items()} == {t: r.actions for t, r in watch.results.items()}
    export_csv(recording, tmp_path / "csv")
    with (tmp_path / "csv" / "results.csv").open(encoding="utf-8") as file:
        rows = {float(row["t"]): row for row in csv.DictReader(file)}
    assert float(rows[36.0]["AU06_r"]) == pytest.approx(2.5) and float(rows[36.0][INDEX]) == pytest.approx(2.5)
    assert float(rows[36.0]["pose_Ry"]) == pytest.approx(np.radians(-2), abs=1e-4)
    assert rows[10.0]["AU06_r"] == "" and rows[10.0]["actions_reason"] == "the person rests: 20 s left"
    pyxdf = pytest.importorskip("pyxdf")
    export_xdf(recording, tmp_path / "a.xdf")
    streams, _ = pyxdf.load_xdf(str(tmp_path / "a.xdf"))
    stream = next(s for s in streams if s["info"]["name"][0] == "jmt-edge actions")
    labels = [c["label"][0] for c in stream["info"]["desc"][0]["channels"][0]["channel"]]
    values = dict(zip(stream["time_stamps"].round(6).tolist(), stream["time_series"][:, labels.index("AU06_r")]))
    assert values[36.0] == pytest.approx(2.5) and np.isnan(values[10.0])


def test_a_real_face_is_measured_live_as_offline(bundle: Bundle, shared_data: Path) -> None:
    """The tracker and the mesh themselves: laughter raises AU12, and a hand before the face leaves no number."""
    frames = list(video_frames(shared_data / "av" / "single_face.mp4"))
    calm = [(t, image) for t, image in frames if t <= 0.5]
    period = calm[-1][0] + 0.04
    looped = [(t + k * period, image) for k in range(60) for t, image in calm if t + k * period < 31]
    times = [t for t, _ in looped] + [31.04 + t for t, _ in frames]
    images = [image for _, image in [*looped, *frames]]
    results = play(bundle, {"face": ListSource("face", np.array(times), images, FPS)})
    last = [acted(r) for t, r in results.items() if 33.0 <= t <= times[-1]]
    assert last and all(found["strengths"] for found in last)
    assert np.mean([found["strengths"]["AU12"] for found in last]) > 3.0
    assert np.mean([found[INDEX] for found in last]) < 2.0
