"""Clips that overlapping windows share: stored once, and otherwise as if every window had its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from engine_networks import graph_and_feeds
from hypothesis import given
from hypothesis import strategies as st

from jmt_edge.calibration.sources import clips_of
from jmt_edge.capture.simulated import open_simulated
from jmt_edge.clips.plan import HOP, plan_clips
from jmt_edge.clips.window_set import Clips, WindowSet
from jmt_edge.compiler import fidelity
from jmt_edge.tasks import get_task


@st.composite
def _clips(draw: st.DrawFn) -> Clips:
    """Windows of two steps, with repeats and absent clips."""
    count = draw(st.integers(1, 6))
    stored = np.random.default_rng(draw(st.integers(0, 9))).standard_normal((count, 2, 3)).astype(np.float32)
    pairs = st.tuples(st.integers(-1, count - 1), st.integers(-1, count - 1))
    return Clips([*stored], np.array(draw(st.lists(pairs, min_size=1, max_size=8)), np.int64), (2, 3))


@given(_clips(), _clips(), st.data())
def test_shared_clips_are_those_of_dense_windows(one: Clips, other: Clips, data: st.DataObject) -> None:
    dense = np.asarray(one)
    assert dense.shape == one.shape and len(one) == len(dense)
    for i, s in np.ndindex(*one.rows.shape):
        np.testing.assert_array_equal(one[i, s], dense[i, s])
    index = np.array(data.draw(st.lists(st.integers(0, len(one) - 1), max_size=5)), np.int64)
    taken = one.take(index)
    np.testing.assert_array_equal(np.asarray(taken), dense[index])
    assert taken.distinct(np.ones(taken.rows.shape, bool)).tolist() == [*range(len(taken.stored))]
    joined = Clips.joined([one, other])
    np.testing.assert_array_equal(np.asarray(joined), np.concatenate([dense, np.asarray(other)]))
    flat = dense.reshape(len(dense), -1)
    wanted = np.stack([flat.mean(1, dtype=np.float64), flat.std(1, dtype=np.float64)], 1)
    np.testing.assert_allclose(one.levels(), wanted, atol=1e-5)
    there = np.ones(one.rows.shape, bool)
    assert sorted(set(one.rows[one.rows >= 0].tolist())) == one.distinct(there).tolist()


def test_dense_clips_are_kept_as_they_are() -> None:
    dense = np.random.default_rng(0).standard_normal((3, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(Clips.of(dense)), dense)


def test_windows_of_16_steps_share_most_of_their_clips(tmp_path: Path) -> None:
    """Windows that end a step apart have all but one clip in common."""
    task = get_task("affect", "demo")
    (stride,) = {plan.m.stride for plan in plan_clips(task, HOP).values()}
    ends = [18 + stride * i for i in range(12)]
    sources = {name: open_simulated(name, "sim:seed=7", lazy=True) for name in task.names}
    clips, present = clips_of(task, sources, ends)
    windows = WindowSet(clips, present)
    windows.check(task)
    for name in task.names:
        assert task.steps <= len(clips[name].stored) <= task.steps + 11  # a clip without speech is absent
        for i in range(11):
            assert clips[name].rows[i, 1:].tolist() == clips[name].rows[i + 1, :-1].tolist()
    # each is what a window alone holds
    sources = {name: open_simulated(name, "sim:seed=7", lazy=True) for name in task.names}
    alone, _ = clips_of(task, sources, ends[-1:])
    for name in task.names:
        np.testing.assert_array_equal(np.asarray(alone[name])[0], np.asarray(clips[name])[-1])
    windows.save(tmp_path / "w.npz", task)
    back = WindowSet.load(tmp_path / "w.npz")
    assert (tmp_path / "w.npz").stat().st_size < 0.2 * sum(4 * np.prod(c.shape) for c in clips.values())
    for name in task.names:
        np.testing.assert_array_equal(np.asarray(back.clips[name]), np.asarray(clips[name]))


def test_a_shared_clip_is_run_once_and_an_absent_one_never() -> None:
    task = get_task("affect", "demo")
    rng = np.random.default_rng(0)
    graph, _ = graph_and_feeds("resnet18_audio")
    stored = [*rng.standard_normal((3, 1, 64, 107)).astype(np.float32)]
    voice = Clips(stored, np.array([[0, 1], [1, 2], [2, -1]]), (1, 64, 107))
    present = np.ones((3, 2, 2), bool)
    present[0, 0, task.names.index("voice")] = present[2, 1, task.names.index("voice")] = False
    windows = WindowSet({"voice": voice}, present)
    short = replace(task, dim=128, modalities=tuple(m for m in task.modalities if m.name == "voice"))
    windows = replace(windows, present=present[:, :, task.names.index("voice")][:, :, None])
    ran: list[float] = []
    models = {"voice": graph.SerializeToString()}
    features = fidelity.run_backbones(short, models, windows, None, lambda name, f: ran.append(f))["voice"]
    assert len(ran) == 2  # clips 1 and 2
    assert not features[0, 0].any() and not features[2, 1].any()
    np.testing.assert_array_equal(features[0, 1], features[1, 0])
    np.testing.assert_array_equal(features[1, 1], features[2, 0])
    assert np.abs(features[1, 0] - features[1, 1]).max() > 0
