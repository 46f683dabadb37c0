"""Which frames make a clip, and what takes the place of a missing face."""

from __future__ import annotations

import numpy as np

from jmt_edge.clips.face import cropped
from jmt_edge.clips.frames import frame_times, pick_crops
from jmt_edge.preprocessing.face import align_crop, normalise_face
from jmt_edge.tasks import Modality, get_task

AFFECT = get_task("affect").modality("face")
PAIN = get_task("pain").modality("face")


def grey(level: int, size: int = 112) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


def level_of(clip: np.ndarray) -> list[int]:
    """The grey level of each frame of a clip of uniform frames."""
    return [int(frame[0, 0, 0]) for frame in clip]


def test_affect_keeps_every_fourth_of_32_frames_at_30_fps() -> None:
    times = np.arange(100) / 30
    np.testing.assert_allclose(frame_times(AFFECT, times[-1]), times[[71, 75, 79, 83, 87, 91, 95, 99]], atol=1e-12)
    crops = [(i / 30, grey(i)) for i in range(60)]
    clip, valid = pick_crops(crops, crops[-1][0], AFFECT)
    assert level_of(clip) == [31, 35, 39, 43, 47, 51, 55, 59]
    assert valid.all()


def test_pain_frames_are_even_over_the_span() -> None:
    times = frame_times(PAIN, 5.0)
    np.testing.assert_allclose(times, 5.0 - 0.3 * np.arange(9, -1, -1))
    # at 25 fps and 75 frames: each frame of the last 3 s
    all_frames = Modality("face", "r3d_18", 64, (3, 75, 4, 4), span=3.0, mean=PAIN.mean, std=PAIN.std)
    np.testing.assert_allclose(frame_times(all_frames, 5.0), 5.0 - 0.04 * np.arange(74, -1, -1))


def test_only_the_frames_wanted_are_needed() -> None:
    end = 7.0
    everything = [(t, grey(int(t * 30) % 256)) for t in np.arange(0, 8, 1 / 30)]
    times = np.array([t for t, _ in everything if t <= end])
    nearest = sorted({int(np.argmin(np.abs(times - t))) for t in frame_times(AFFECT, end)})
    a, valid_a = pick_crops(everything, end, AFFECT)
    b, valid_b = pick_crops([everything[i] for i in nearest], end, AFFECT)
    np.testing.assert_array_equal(a, b)
    assert valid_a.all() and valid_b.all()


def test_hold_takes_the_last_face_seen_and_black_takes_black() -> None:
    end = 31 / 30
    faces = {3: 10, 7: 20, 11: 30, 27: 60}
    crops = [(i / 30, grey(faces[i]) if i in faces else None) for i in range(32)]
    black, valid = pick_crops(crops, end, AFFECT)
    assert valid.tolist() == [True, True, True, False, False, False, True, False]
    assert level_of(black) == [10, 20, 30, 0, 0, 0, 60, 0]
    hold = get_task("trimodal").modality("face")
    held, valid_held = pick_crops(crops, end, hold)
    assert valid_held.tolist() == valid.tolist()
    assert level_of(held) == [10, 20, 30, 30, 30, 30, 60, 60]


def test_black_is_black_before_normalisation() -> None:
    clip, valid = pick_crops([], 1.0, AFFECT)
    assert not valid.any()
    seen = normalise_face(clip, AFFECT)
    expected = -np.asarray(AFFECT.mean) / np.asarray(AFFECT.std)
    np.testing.assert_allclose(seen[:, 0, 0, 0], expected, rtol=1e-6)
    assert (seen == seen[:, :1, :1, :1]).all()


def test_hold_reaches_before_the_clip_and_back_to_the_first_face() -> None:
    early, valid = pick_crops([(0.0, grey(77))], 9.0, PAIN)
    assert level_of(early) == [77] * 10 and not valid.any()
    late, valid = pick_crops([(8.9 - 3.0, None), (9.0, grey(50))], 9.0, PAIN)
    assert level_of(late) == [50] * 10
    assert valid.tolist() == [False] * 9 + [True]
    nothing, _ = pick_crops([(9.0, None)], 9.0, PAIN)
    assert level_of(nothing) == [0] * 10


def test_the_future_and_the_far_past_do_not_count() -> None:
    _, valid = pick_crops([(1.0 + 0.01, grey(9))], 1.0, AFFECT)
    assert not valid.any()
    _, valid = pick_crops([(0.5, grey(9))], 1.0, AFFECT)
    assert valid.tolist() == [False] * 3 + [True, True] + [False] * 3  # 0.6 and 0.467 s are within 0.125 s of it


def test_normalised_values_and_axes() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (2, *AFFECT.shape[1:], 3), np.uint8)
    clips = normalise_face(crops, AFFECT)
    assert clips.shape == (2, *AFFECT.shape) and clips.dtype == np.float32 and clips.flags.c_contiguous
    mean, std = np.float32(AFFECT.mean), np.float32(AFFECT.std)
    expected = (crops.astype(np.float32) / np.float32(255) - mean) / std
    np.testing.assert_array_equal(clips, np.moveaxis(expected, -1, 1))
    np.testing.assert_array_equal(normalise_face(crops[1], AFFECT), clips[1])


def test_a_cropped_frame_is_a_face_of_the_size_wanted() -> None:
    image = np.zeros((112, 112, 3), np.uint8)
    image[...] = (0, 128, 255)  # BGR
    face, crop, _ = cropped(64)(image, 0.0)
    assert face is not None and crop is not None and crop.shape == (64, 64, 3)
    assert crop[30, 30].tolist() == [255, 128, 0]
    np.testing.assert_array_equal(align_crop(image, face, 64)[8:-8, 8:-8], crop[8:-8, 8:-8])
    assert cropped(64)(None, 0.0).face is None
