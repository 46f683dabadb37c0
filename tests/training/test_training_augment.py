"""How clips are varied in training: by what a camera and the follower do, within the recipe's limits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from jmt_edge.clips.cutter import network_input
from jmt_edge.errors import ConfigError
from jmt_edge.tasks import get_task
from jmt_edge.training.recipes import Augment, load_recipe
from jmt_edge.training.sets import _jitter, vary

M = get_task("affect", "demo").modality("face")
SIDE = M.shape[-1]


def faces(count: int = 3) -> np.ndarray:
    """(count, T, H, W, 3): smooth spots, whose place can be measured."""
    rng = np.random.default_rng(1)
    shape = (count, M.shape[1], SIDE, SIDE, 3)
    noise = rng.integers(0, 255, shape, np.uint8).reshape(-1, *shape[2:])
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in noise]).reshape(shape)


def pixels(clips: np.ndarray) -> np.ndarray:
    """Network input (n, 3, T, H, W) as grey levels (n, T, H, W, 3)."""
    mean, std = (np.array(v).reshape(3, 1, 1, 1) for v in (M.mean, M.std))
    return np.moveaxis((clips * std + mean) * 255, 1, -1)


def test_grey_noise_stays_within_its_limit_and_differs_in_each_frame() -> None:
    stored = faces()
    off = pixels(vary(stored, M, Augment(grey_noise=2), np.random.default_rng(0))) - stored
    assert np.abs(off).max() <= 2.01 and set(np.unique(np.rint(off))) == {-2, -1, 0, 1, 2}
    assert (off[0, 0] != off[0, 1]).mean() > 0.5
    extreme = np.where(stored > 127, 255, 0).astype(np.uint8)
    found = pixels(vary(extreme, M, Augment(grey_noise=2), np.random.default_rng(0)))
    assert found.min() > -0.01 and found.max() < 255.01 and np.abs(found - extreme).max() <= 2.01


def place(image: np.ndarray) -> np.ndarray:
    """Centre (x, y) of a bright spot, in pixels."""
    weight = image[..., 0].astype(np.float64)
    y, x = np.indices(weight.shape)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("at", [(20, 20), (44, 30), (32, 32)])
def test_jitter_moves_a_point_by_no_more_than_its_pixels(at: tuple[int, int]) -> None:
    """Each of shift, size and tilt by 1 % of the side at the border, and a quarter more in a single frame."""
    clip = np.zeros((M.shape[1], SIDE, SIDE, 3), np.uint8)
    for frame in clip:
        cv2.circle(frame, at, 4, (250, 250, 250), -1, cv2.LINE_AA)
    rng = np.random.default_rng(0)
    moved = np.array([[place(f) - place(clip[0]) for f in _jitter(clip, 1.0, rng)] for _ in range(60)])
    most = 1.25 * SIDE / 100
    out = np.hypot(*(np.array(at) - (SIDE - 1) / 2)) / (SIDE / 2)  # how far from the middle: 1 at the border
    assert np.abs(moved).max() <= most * (1 + 2 * out) + 0.1
    assert np.abs(moved).max() > 0.6 * most
    together, alone = moved.mean(1).std(), (moved - moved.mean(1, keepdims=True)).std()
    assert 0.1 * together < alone < 0.5 * together


def test_compression_is_seen_in_its_share_of_the_clips() -> None:
    stored = faces(40)
    off = np.abs(pixels(vary(stored, M, Augment(jpeg=0.5), np.random.default_rng(0))) - stored).max((1, 2, 3, 4))
    assert 10 <= (off > 0.5).sum() <= 30 and off.max() < 60


def test_without_augmentation_a_clip_is_itself_and_a_draw_repeats() -> None:
    stored = faces()
    np.testing.assert_array_equal(vary(stored, M, Augment(), np.random.default_rng(0)), network_input(stored, M))
    how = Augment(jitter=1.0, grey_noise=2, jpeg=0.5)
    one, two, other = (vary(stored, M, how, np.random.default_rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("augment.jitter=11", "augment.jitter cannot be 11.0; give 0 to 10"),
        ("augment.grey_noise=-1", "augment.grey_noise cannot be -1; give 0 to 32"),
        ("augment.jpeg=1.5", "augment.jpeg cannot be 1.5; give 0 to 1"),
        ("augment.variants=0", "augment.variants cannot be 0; give 1 to 1000"),
    ],
)
def test_values_out_of_range_are_refused(change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        load_recipe("demo-affect", [change])


def test_the_demos_with_a_voice_are_trained_with_what_nobody_can_see() -> None:
    for task in ("affect", "trimodal"):
        augment = load_recipe(f"demo-{task}").augment
        assert augment.jitter and augment.grey_noise and augment.jpeg and augment.variants > 1
