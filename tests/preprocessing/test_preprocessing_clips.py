"""Which frames make a clip, by index and by time, and what stands where a face is missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jmt_edge.clips.frames import clip_indices, face_clip, frame_times
from jmt_edge.tasks import Modality, get_task

AFFECT = get_task("affect").modality("face")
PAIN = get_task("pain").modality("face")


def grey(level: int, size: int = 112) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


def level_of(clip: np.ndarray, m: Modality) -> list[float]:
    """The grey level of each frame of a clip of uniform frames."""
    return [round(float(clip[0, i, 0, 0] * m.std[0] + m.mean[0]) * 255, 3) for i in range(clip.shape[1])]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (100, [71, 75, 79, 83, 87, 91, 95, 99]),
        (32, [3, 7, 11, 15, 19, 23, 27, 31]),
        (31, [9, 12, 15, 18, 21, 24, 27, 30]),
        (24, [2, 5, 8, 11, 14, 17, 20, 23]),
        (23, [8, 10, 12, 14, 16, 18, 20, 22]),
        (16, [1, 3, 5, 7, 9, 11, 13, 15]),
        (15, [7, 8, 9, 10, 11, 12, 13, 14]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (7, [0, 1, 2, 3, 4, 5, 6, 6]),
        (1, [0] * 8),
    ],
)
def test_the_published_rules(count: int, expected: list[int]) -> None:
    assert clip_indices(count).tolist() == expected


def test_a_clip_of_no_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        clip_indices(0)


@given(count=st.integers(1, 80), origin=st.floats(0, 1e5))
def test_time_and_index_agree_at_30_fps(count: int, origin: float) -> None:
    times = origin + np.arange(count) / 30
    by_time = frame_times(AFFECT, float(times[-1]), start=float(times[0]))
    np.testing.assert_allclose(by_time, times[clip_indices(count)], atol=1e-6)


@pytest.mark.parametrize("count", [1, 5, 8, 20, 30, 32, 60])
def test_a_live_clip_is_the_dataset_clip(count: int) -> None:
    crops = [(i / 30, grey(i)) for i in range(count)]
    clip, valid = face_clip(crops, crops[-1][0], AFFECT, start=0.0)
    assert level_of(clip, AFFECT) == clip_indices(count).tolist()
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
    a, valid_a = face_clip(everything, end, AFFECT)
    b, valid_b = face_clip([everything[i] for i in nearest], end, AFFECT)
    np.testing.assert_array_equal(a, b)
    assert valid_a.all() and valid_b.all()


def test_hold_takes_the_last_face_seen_and_black_takes_black() -> None:
    end = 31 / 30
    faces = {3: 10, 7: 20, 11: 30, 27: 60}
    crops = [(i / 30, grey(faces[i]) if i in faces else None) for i in range(32)]
    black, valid = face_clip(crops, end, AFFECT)
    assert valid.tolist() == [True, True, True, False, False, False, True, False]
    assert level_of(black, AFFECT) == [10, 20, 30, 0, 0, 0, 60, 0]
    hold = get_task("trimodal").modality("face")
    held, valid_held = face_clip(crops, end, hold)
    assert valid_held.tolist() == valid.tolist()
    assert level_of(held, hold) == [10, 20, 30, 30, 30, 30, 60, 60]


def test_black_is_black_before_normalisation() -> None:
    clip, valid = face_clip([], 1.0, AFFECT)
    assert not valid.any()
    expected = -np.asarray(AFFECT.mean) / np.asarray(AFFECT.std)
    np.testing.assert_allclose(clip[:, 0, 0, 0], expected, rtol=1e-6)
    assert (clip == clip[:, :1, :1, :1]).all()


def test_hold_reaches_before_the_clip_and_back_to_the_first_face() -> None:
    early, valid = face_clip([(0.0, grey(77))], 9.0, PAIN)
    assert level_of(early, PAIN) == [77] * 10 and not valid.any()
    late, valid = face_clip([(8.9 - 3.0, None), (9.0, grey(50))], 9.0, PAIN)
    assert level_of(late, PAIN) == [50] * 10
    assert valid.tolist() == [False] * 9 + [True]
    nothing, _ = face_clip([(9.0, None)], 9.0, PAIN)
    assert level_of(nothing, PAIN) == [0] * 10


def test_the_future_and_the_far_past_do_not_count() -> None:
    _, valid = face_clip([(1.0 + 0.01, grey(9))], 1.0, AFFECT)
    assert not valid.any()
    _, valid = face_clip([(0.5, grey(9))], 1.0, AFFECT)
    assert valid.tolist() == [False] * 3 + [True, True] + [False] * 3  # 0.6 and 0.467 s are within 0.125 s of it


def test_channels_sizes_and_values() -> None:
    crop = np.zeros((224, 224, 3), np.uint8)
    crop[...] = (255, 128, 0)  # RGB
    clip, _ = face_clip([(1.0, crop)], 1.0, AFFECT)
    assert clip.shape == (3, 8, 112, 112) and clip.dtype == np.float32 and clip.flags.c_contiguous
    last = clip[:, -1, 50, 50] * np.asarray(AFFECT.std) + np.asarray(AFFECT.mean)
    np.testing.assert_allclose(last, [1.0, 128 / 255, 0.0], atol=1e-6)
