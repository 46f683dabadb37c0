"""Verdicts on faces, voices and EDA: real recordings pass, each fault is named, chunking does not matter."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.voice import Speech
from jmt_edge.media.sound import sound_blocks
from jmt_edge.preprocessing.face import TEMPLATE, Face, FaceDetector, FaceTracker, align_crop
from jmt_edge.preprocessing.quality import EdaQuality, FaceQuality, Verdict, VoiceQuality

# --- face ---


def a_face(width: float = 120, score: float = 0.9, landmarks: np.ndarray = TEMPLATE) -> Face:
    return Face((0.0, 0.0, width, 1.3 * width), score, landmarks.astype(np.float32))


def a_crop(blur: float = 0.0, light: float = 130, contrast: float = 40) -> np.ndarray:
    x = np.random.default_rng(0).normal(0, 1, (112, 112))
    x = cv2.GaussianBlur(x, (0, 0), 1.0) if not blur else cv2.GaussianBlur(x, (0, 0), blur)
    x = light + contrast * x / x.std()
    return np.repeat(np.clip(x, 0, 255)[..., None], 3, 2).astype(np.uint8)


def face_verdict(face: Face | None, crop: np.ndarray | None, frames: int = 30) -> Verdict:
    quality = FaceQuality()
    for i in range(frames):
        quality.update(i / 30, face, crop)
    return quality.verdict((frames - 1) / 30, 1.0)


def turned(yaw: float = 0, roll: float = 0, nod: float = 0) -> np.ndarray:
    points = TEMPLATE.copy()
    points[2] += (yaw * 35, nod * 40)
    c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    return (points - 56) @ np.array([[c, s], [-s, c]]) + 56


def test_a_good_face() -> None:
    verdict = face_verdict(a_face(), a_crop())
    assert verdict.ok and verdict.reason == "" and verdict.score > 0.9


@pytest.mark.parametrize(
    ("face", "crop", "reason"),
    [
        (a_face(width=35), a_crop(), "too small"),
        (a_face(), a_crop(blur=6), "blurred"),
        (a_face(), a_crop(light=25, contrast=12), "too dark"),
        (a_face(), a_crop(light=130, contrast=4), "without contrast"),
        (a_face(), a_crop(light=240, contrast=12), "too bright"),
        (a_face(landmarks=turned(yaw=0.6)), a_crop(), "turned away"),
        (a_face(landmarks=turned(yaw=-0.6)), a_crop(), "turned away"),
        (a_face(landmarks=turned(nod=0.4)), a_crop(), "turned away"),
        (a_face(landmarks=turned(roll=60)), a_crop(), "tilted"),
        (a_face(landmarks=np.zeros((5, 2))), a_crop(), "turned away"),
        (a_face(score=0.55), a_crop(), "hidden"),
        (None, None, "no face"),
    ],
)
def test_each_fault_of_a_face_is_named(face: Face | None, crop: np.ndarray | None, reason: str) -> None:
    verdict = face_verdict(face, crop)
    assert not verdict.ok and reason in verdict.reason and verdict.score == 0


def test_less_of_everything_scores_less() -> None:
    good = face_verdict(a_face(), a_crop()).score
    for face, crop in (
        (a_face(width=60), a_crop()), (a_face(), a_crop(blur=3.0)), (a_face(), a_crop(light=55)),
        (a_face(landmarks=turned(yaw=0.35)), a_crop()), (a_face(score=0.7), a_crop()),
    ):  # fmt: skip
        verdict = face_verdict(face, crop)
        assert verdict.ok and 0 < verdict.score < good


def test_half_of_the_frames_must_show_the_face() -> None:
    for missing, ok in ((14, True), (15, True), (16, False)):
        quality = FaceQuality()
        for i in range(30):
            quality.update(i / 30, *((None, None) if i < missing else (a_face(), a_crop())))
        assert quality.verdict(29 / 30, 1.0).ok is ok


def test_a_camera_that_stops_and_one_that_never_came() -> None:
    assert face_verdict(None, None, 0).reason == "no camera frames"
    quality = FaceQuality()
    for i in range(31):
        quality.update(i / 30, a_face(), a_crop())
    assert quality.verdict(1.5, 1.0).ok
    assert quality.verdict(1.7, 1.0).reason == "no camera frame for 0.7 s"
    assert quality.verdict(9.0, 1.0).reason == "no camera frames"


def test_later_frames_do_not_change_a_verdict() -> None:
    quality = FaceQuality()
    for i in range(30):
        quality.update(i / 30, a_face(), a_crop())
    before = quality.verdict(29 / 30, 1.0)
    for i in range(30, 90):
        quality.update(i / 30, None, None)
    assert quality.verdict(29 / 30, 1.0) == before
    assert not quality.verdict(89 / 30, 1.0).ok


def test_real_faces_are_good_and_their_faults_are_seen(shared_data: Path) -> None:
    detector = FaceDetector()
    faults: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "": lambda image: image,
        "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 8),
        "too dark": lambda image: (image * 0.12).astype(np.uint8),
        "no face": lambda image: np.full_like(image, 90),
    }
    paths = [*sorted((shared_data / "av" / "grid").glob("*.mpg")), *sorted((shared_data / "av").glob("*.mp4"))]
    for path in paths:
        video = cv2.VideoCapture(str(path))
        frames = [video.read()[1] for _ in range(16)][::4]
        for reason, fault in faults.items():
            tracker, quality = FaceTracker(detector), FaceQuality()
            for i, frame in enumerate(frames):
                image = fault(frame)
                face = tracker.update(image, i * 0.16)
                # a blurred or dark face may not be found at all; judge what the detector saw before
                face = face or (tracker.update(frame, i * 0.16) if reason not in ("", "no face") else None)
                quality.update(i * 0.16, face, None if face is None else align_crop(image, face, 112))
            verdict = quality.verdict(0.48, 0.6)
            assert verdict.ok is (reason == ""), (path.name, reason, verdict)
            assert reason in verdict.reason, (path.name, verdict)
            assert verdict.score > 0.5 if verdict.ok else verdict.score == 0


# --- voice ---

RATE = 44_100


def talk(seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    """The simulated voice, which speaks for the first 2.8 of every 4 s at least."""
    return np.asarray(Speech(Person.live(seed)).samples(0, int(seconds * RATE)))


def voice_verdict(x: np.ndarray, span: float = 1.0667) -> Verdict:
    quality = VoiceQuality()
    quality.update(np.arange(len(x)) / RATE, x)
    return quality.verdict(len(x) / RATE, span)


def seconds(n: float) -> np.ndarray:
    return np.arange(int(n * RATE)) / RATE


NOISE = np.random.default_rng(3).normal(0, 1, 4 * RATE)


def test_speech_is_speech() -> None:
    verdict = voice_verdict(talk())
    assert verdict.ok and verdict.reason == "" and verdict.score > 0.8


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (np.zeros(4 * RATE), "dead or muted"),
        (np.full(4 * RATE, 0.3), "dead or muted"),
        (np.clip(8 * talk(), -1, 1), "clipped"),
        (0.0005 * talk(), "too quiet"),
        (0.05 * NOISE, "no speech"),
        (signal.lfilter([1], [1, -0.995], 0.005 * NOISE), "no speech"),  # rumble
        (0.1 * np.sin(2 * np.pi * 100 * seconds(4)) + 0.002 * NOISE, "no speech"),  # hum
        (0.05 * NOISE * (1.1 + np.sin(2 * np.pi * 4 * seconds(4))), "no speech"),  # waves of noise
        (np.empty(0), "no sound samples"),
    ],
)
def test_each_fault_of_a_voice_is_named(sound: np.ndarray, reason: str) -> None:
    verdict = voice_verdict(sound.astype(np.float32))
    assert not verdict.ok and reason in verdict.reason and verdict.score == 0


@pytest.mark.parametrize("level", [1e-4, 0.01])  # of noise: a quiet room, and one that is heard
def test_a_pause_in_speech_is_told_from_no_speech(level: float) -> None:
    x = np.concatenate([talk(2.5), level * NOISE]).astype(np.float32)
    times = np.arange(len(x)) / RATE
    quality = VoiceQuality()
    quality.update(times, x)
    found = [(t, quality.verdict(t, 1.0667)) for t in np.arange(2.0, 6.4, 0.25)]
    pauses = [t for t, v in found if v.reason == VoiceQuality.PAUSE]
    assert all(v.ok for t, v in found if t <= 2.5)
    assert pauses and min(pauses) >= 3.5 and max(pauses) <= 5.5
    assert not any(v.ok for t, v in found if t >= min(pauses))
    assert all(v.reason.startswith(("no speech", "too quiet")) for t, v in found if t > max(pauses))
    muted = VoiceQuality()
    muted.update(times, np.where(times < 2.5, x, 0).astype(np.float32))
    assert "dead or muted" in muted.verdict(4.0, 1.0667).reason


def test_a_microphone_that_stops() -> None:
    quality = VoiceQuality()
    x = talk(3.0)
    quality.update(np.arange(len(x)) / RATE, x)
    assert quality.verdict(3.3, 1.0667).ok
    assert quality.verdict(3.8, 1.0667).reason == "no sound for 0.8 s"


def test_a_gap_does_not_join_what_it_parts() -> None:
    x = talk(3.0)
    times = np.arange(len(x)) / RATE
    keep = (times < 2.0) | (times > 2.7)
    quality = VoiceQuality()
    quality.update(times[keep], x[keep])
    assert quality.verdict(3.0, 1.0).reason == "more than half of the sound is missing"
    assert quality.verdict(2.0, 1.0).ok


@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(0, 2 * RATE), max_size=8))
def test_chunks_of_sound_do_not_matter(cuts: list[int]) -> None:
    x = talk(2.0)
    times = np.arange(len(x)) / RATE
    keep = (times < 0.7) | (times > 0.9)
    x, times = x[keep], times[keep]
    whole, parts = VoiceQuality(), VoiceQuality()
    whole.update(times, x)
    for piece in np.split(np.arange(len(x)), sorted(min(c, len(x)) for c in cuts)):
        parts.update(times[piece], x[piece])
    assert len(whole._blocks) == len(parts._blocks) > 40
    for a, b in zip(whole._blocks, parts._blocks):
        for x_of_a, x_of_b in zip(a, b):
            np.testing.assert_array_equal(x_of_a, x_of_b)
    assert whole._steps == parts._steps
    for end in (0.8, 1.0, 1.5, 2.0):
        assert whole.verdict(end, 0.6) == parts.verdict(end, 0.6)


def test_real_speech(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    for path in sorted((shared_data / "av" / "grid").glob("*.mpg")):
        mono = np.concatenate([samples for _, samples in sound_blocks(path)])
        quality = VoiceQuality()
        quality.update(np.arange(len(mono)) / RATE, mono)
        assert quality.verdict(2.0, 1.0667).ok, path.name
        assert not quality.verdict(2.97, 0.5).ok  # each clip ends in silence


# --- EDA ---


def skin(rate: float, length: float = 60.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A level of 5 µS with a response of 0.5 µS every 10 s."""
    t = np.arange(int(length * rate)) / rate
    x = 5 + 0.05 * np.sin(0.1 * t)
    for onset in np.arange(5, length, 10):
        u = np.maximum(t - onset, 0)
        x = x + 0.9 * (np.exp(-u / 3.0) - np.exp(-u / 0.7))
    return t, x


def eda_at(t: np.ndarray, x: np.ndarray, end: float, span: float = 5.5) -> Verdict:
    quality = EdaQuality()
    quality.update(t, x.astype(np.float32))
    return quality.verdict(end, span)


@pytest.mark.parametrize("rate", [4, 8, 20, 250, 1000, 2000])
def test_good_eda_at_every_rate(rate: int) -> None:
    t, x = skin(rate)
    assert eda_at(t, x, 59.9) == Verdict(True, "", 1.0)


def test_the_converters_steps_are_no_slope() -> None:
    t, x = skin(1000)
    counts = np.floor(x / 25 * 1024 + np.random.default_rng(0).uniform(0, 1, len(x)))
    board = counts / 1024 * 25
    assert np.abs(np.diff(board) * 1000).max() > EdaQuality.MAX_SLOPE  # sample by sample the rule would reject it
    assert eda_at(t, board, 59.9).score == 1.0


@pytest.mark.parametrize("rate", [4, 20, 1000])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda t, x: np.where((t > 20) & (t < 22), 0.01, x), "outside"),
        (lambda t, x: np.where((t > 20) & (t < 22), 80.0, x), "outside"),
        (lambda t, x: np.where(t > 20, x + 6, x), "faster"),
        (lambda t, x: np.where((t > 20) & (t < 22), np.nan, x), "open"),
    ],
)
def test_each_fault_counts_for_five_seconds_around(rate: int, fault: Callable, reason: str) -> None:
    t, x = skin(rate)
    quality = EdaQuality()
    quality.update(t, fault(t, x).astype(np.float32))
    assert quality.verdict(14.75, 5.5).ok
    during = quality.verdict(23.5, 5.5)
    assert not during.ok and reason in during.reason, during
    assert not quality.verdict(20 + 5.0, 5.5).ok
    # 5 s after the last bad value (22 s, or the step at 20 s) the signal is good again, and the verdict is
    # once that makes half of the span
    assert quality.verdict(33.0, 5.5) == Verdict(True, "", 1.0)


def test_a_short_patch_at_the_edge_does_not_cost_the_window() -> None:
    t, x = skin(250)
    x[(t > 20.0) & (t < 20.2)] = 70.0
    assert eda_at(t, x, 30.0).ok  # invalid until 25.25: an eighth of 24.5-30
    assert 0.8 < eda_at(t, x, 30.0).score < 0.95
    assert not eda_at(t, x, 27.0).ok


def test_an_open_electrode_and_a_silent_sensor_are_no_data() -> None:
    t, x = skin(250, 20)
    x[t > 18.5] = np.nan
    verdict = eda_at(t, x, 20.0)
    assert not verdict.ok and "open" in verdict.reason
    t, x = skin(250, 18.5)
    verdict = eda_at(t, x, 20.0)
    assert not verdict.ok and "silent" in verdict.reason
    assert eda_at(t, x, 19.0).ok
    assert eda_at(np.empty(0), np.empty(0), 5.0).reason == "no EDA samples"
    assert not eda_at(t, x, 60.0).ok


def test_a_stream_that_has_just_begun_is_not_enough() -> None:
    t, x = skin(250, 2.0)
    verdict = eda_at(t, x, 2.0)
    assert not verdict.ok and "missing" in verdict.reason and verdict.score < 0.5


def test_lost_and_jittered_samples_of_a_slow_sensor_are_no_fault() -> None:
    rng = np.random.default_rng(5)
    t, x = skin(4)
    t = t + rng.uniform(0, 0.1, len(t))
    keep = np.arange(len(t)) % 10 != 3
    assert eda_at(t[keep], x[keep], 59.0) == Verdict(True, "", 1.0)


@settings(deadline=None, max_examples=15)
@given(cuts=st.lists(st.integers(0, 7500), max_size=12), rate=st.sampled_from([8, 250]))
def test_chunks_of_eda_do_not_matter(cuts: list[int], rate: int) -> None:
    t, x = skin(rate, 30)
    x[(t > 8) & (t < 8.3)] = np.nan
    x[(t > 15) & (t < 15.2)] = 70
    whole, parts = EdaQuality(), EdaQuality()
    whole.update(t, x)
    for piece in np.split(np.arange(len(t)), sorted(min(c, len(t)) for c in cuts)):
        parts.update(t[piece], x[piece])
    ends = np.arange(3, 30, 1.3)
    assert [whole.verdict(e, 5.5) for e in ends] == [parts.verdict(e, 5.5) for e in ends]
    assert whole.scrs() == parts.scrs()


def test_a_verdict_sees_only_the_past() -> None:
    t, x = skin(250, 30)
    x[t > 20.5] = 70
    asked_then, asked_later = EdaQuality(), EdaQuality()
    asked_then.update(t[t <= 20], x[t <= 20])
    asked_later.update(t, x)
    assert asked_then.verdict(20.0, 5.5) == asked_later.verdict(20.0, 5.5) == Verdict(True, "", 1.0)


@pytest.mark.parametrize("rate", [8, 250, 1000])
def test_responses_are_found_where_they_are(rate: int) -> None:
    t, x = skin(rate)
    noisy = x + np.random.default_rng(1).normal(0, 0.003, len(x))
    quality = EdaQuality()
    quality.update(t, noisy)
    found = quality.scrs()
    assert len(found) == 6
    u = np.linspace(0, 5, 1000)
    shape = np.exp(-u / 3.0) - np.exp(-u / 0.7)
    for scr, onset in zip(found, np.arange(5, 60, 10)):
        assert abs(scr.onset - onset) < 0.6
        assert abs(scr.peak - (onset + u[shape.argmax()])) < 0.6
        assert abs(scr.amplitude - 0.9 * shape.max()) < 0.06


def test_drift_and_noise_are_no_responses() -> None:
    t = np.arange(0, 60, 1 / 100)
    quality = EdaQuality()
    quality.update(t, 5 + 0.015 * t + np.random.default_rng(2).normal(0, 0.01, len(t)))
    assert quality.scrs() == []


def test_neurokit_counts_the_same_responses() -> None:
    neurokit = pytest.importorskip("neurokit2")
    x = neurokit.eda_simulate(duration=60, sampling_rate=100, scr_number=5, noise=0, drift=-0.01, random_state=4)
    peaks = neurokit.eda_peaks(neurokit.eda_phasic(x, sampling_rate=100)["EDA_Phasic"], sampling_rate=100)[1]
    quality = EdaQuality()
    quality.update(np.arange(len(x)) / 100, x)
    ours = np.array([scr.peak for scr in quality.scrs()])
    theirs = peaks["SCR_Peaks"] / 100
    theirs = theirs[theirs > 1]  # one peaks at 0.44 s: its onset lies before the recording
    assert len(theirs) == 4
    np.testing.assert_allclose(ours, theirs, atol=0.5)


def test_real_recordings(shared_data: Path) -> None:
    adc = np.loadtxt(shared_data / "eda" / "bitalino_eda_hot_surface.txt", usecols=5)
    quality = EdaQuality()
    quality.update(np.arange(len(adc)) / 1000, adc / 1024 * 25)
    assert all(quality.verdict(end, 5.5).ok for end in np.arange(6, 37, 1.0))
    assert quality.scrs()
    wrist = np.loadtxt(shared_data / "eda" / "empatica_e4_EDA.csv")[2:]  # 4 Hz; starts and ends off the skin
    times = np.arange(len(wrist)) / 4
    outside, verdicts, quality, fed = [], [], EdaQuality(), 0
    for end in np.arange(6, times[-1], 5.5):
        upto = int(np.searchsorted(times, end))
        quality.update(times[fed:upto], wrist[fed:upto])
        fed = upto
        verdicts.append(quality.verdict(end, 5.5))
        span = wrist[max(0, upto - 22) : upto]
        outside.append(np.mean(span < 0.05) > 0.6)
    assert any(outside)
    for bad, verdict in zip(outside, verdicts):
        assert not (bad and verdict.ok)
    assert np.mean([v.ok for v in verdicts]) > 0.9


def test_real_arduino_recordings(shared_data: Path) -> None:
    for path in sorted((shared_data / "eda" / "physiokit").glob("*.csv.gz")):
        with gzip.open(path, "rt") as file:
            rows = [line.split(",") for line in file.read().splitlines()[1 : 250 * 60]]
        data = np.array([(float(r[4]) / 1000, float(r[0]) * 25 / 4096) for r in rows if r[0] and r[4]])
        quality = EdaQuality()
        quality.update(data[:, 0] - data[0, 0], data[:, 1])
        assert all(quality.verdict(end, 5.5).ok for end in np.arange(6, 55, 2.5)), path.name
