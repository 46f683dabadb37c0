"""Clips of whole recordings: what is read and looked at, and which clips may be used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jmt_edge.capture.base import LazyFrames
from jmt_edge.capture.simulated import open_simulated
from jmt_edge.clips.cut import Skips, cut_clips
from jmt_edge.clips.plan import ClipPlan, time_key
from jmt_edge.clips.presence import Presence, cut, held
from jmt_edge.media.chunk import Chunk
from jmt_edge.preprocessing.quality import Verdict, VoiceQuality
from jmt_edge.tasks import Task, get_task

TASK = get_task("trimodal", "demo")


class Counted:
    """A source that counts what is read; without `skip_to` unless it is `Skipping`."""

    def __init__(self, source: Any) -> None:
        self.source, self.samples, self.longest, self.open_now = source, 0, 0, False

    def open(self, origin: float) -> None:
        self.source.open(origin)
        self.open_now = True

    def read(self, until: float) -> Chunk:
        chunk: Chunk = self.source.read(until)
        self.samples += len(chunk)
        self.longest = max(self.longest, len(chunk))
        return chunk

    def close(self) -> None:
        self.open_now = False


class Skipping(Counted):
    def skip_to(self, t: float) -> None:
        assert t == int(t)
        self.source.skip_to(t)


@pytest.mark.parametrize("name", ["voice", "eda"])
def test_leaving_out_what_nobody_looks_at_changes_nothing(name: str) -> None:
    ends = [7.31, 8.0, 31.5, 157.123456]  # a verdict on sound hears the last 35 s
    every, some = Counted(open_simulated(name, "sim:seed=4")), Skipping(open_simulated(name, "sim:seed=4"))
    assert isinstance(some, Skips) and not isinstance(every, Skips)
    whole, parts = (list(cut_clips(source, TASK, name, ends)) for source in (every, some))
    assert [key for key, _ in whole] == [key for key, _ in parts] == [time_key(end) for end in ends]
    for (_, a), (_, b) in zip(whole, parts):
        assert a.quality == b.quality
        np.testing.assert_array_equal(a.signal, b.signal)
    assert any(clip.ok for _, clip in whole)
    assert some.samples < 0.75 * every.samples


class Frames:
    """A camera at 25 fps, whose frames note that they are looked at."""

    def __init__(self) -> None:
        self.looked_at: list[float] = []
        self._next = 0

    def open(self, origin: float) -> None: ...

    def read(self, until: float) -> Chunk:
        times = np.arange(self._next, int(until * 25 + 1e-6) + 1) / 25
        self._next += len(times)
        return Chunk(times, LazyFrames(self._frame, times.tolist()), 25.0)

    def _frame(self, t: float) -> np.ndarray:
        self.looked_at.append(t)
        return np.full((64, 64, 3), int(25 * t) % 251, np.uint8)

    def close(self) -> None: ...


@pytest.mark.usefixtures("tracker")
def test_each_clip_comes_once_and_only_the_frames_it_wants_are_looked_at() -> None:
    camera = Frames()
    ends = [20.13, 20.13, 12.77, 20.130000001]
    found = dict(cut_clips(camera, TASK, "face", ends))
    assert [*found] == [time_key(12.77), time_key(20.13)]
    assert len(camera.looked_at) == len(set(camera.looked_at)) == 2 * TASK.modality("face").shape[1]
    for end in (12.77, 20.13):
        assert sum(end - 1.2 < t <= end for t in camera.looked_at) == 8


@pytest.mark.usefixtures("tracker")
def test_on_the_grid_everything_is_searched_that_a_live_run_searches() -> None:
    camera, both = Frames(), Frames()
    (grid,) = cut_clips(camera, TASK, "face", [12.5])
    assert len(camera.looked_at) > 0.5 * 25 * 12
    mixed = dict(cut_clips(both, TASK, "face", [12.5, 7.77]))
    np.testing.assert_array_equal(mixed[grid[0]].signal, grid[1].signal)


def test_the_source_is_read_in_small_steps_and_closed_when_nobody_wants_more() -> None:
    source = Counted(open_simulated("eda", "sim:seed=4"))
    clips = cut_clips(source, TASK, "eda", [30.0, 60.0])
    next(clips)
    assert source.open_now and source.samples <= 30 * 128 + 1
    clips.close()
    assert not source.open_now and source.longest <= 0.25 * 128 + 1
    assert list(cut_clips(source, TASK, "eda", [])) == []


class Fake:
    """A cutter whose answers are given."""

    history = 0.0

    def __init__(self, start: float | None, last: float, coverage: float = 1.0, why: str = "") -> None:
        self.start, self.last, self._coverage, self._why = start, last, coverage, why

    def push(self, chunk: Chunk) -> None: ...

    def advance(self, window: int) -> None: ...

    def clip(self, end: float) -> tuple[np.ndarray, float]:
        return np.zeros(1), self._coverage

    def verdict(self, end: float) -> Verdict:
        return Verdict(not self._why, self._why, 0.7)


@pytest.mark.parametrize(
    ("cutter", "presence"),
    [
        (Fake(None, -np.inf), Presence.SILENT),
        (Fake(0.0, 8.99), Presence.SILENT),
        (Fake(0.0, 9.0), Presence.USABLE),
        (Fake(4.7, 10.0), Presence.YOUNG),
        (Fake(4.55, 10.0), Presence.USABLE),
        (Fake(0.0, 10.0, why="broken", coverage=0.1), Presence.POOR),
        (Fake(0.0, 10.0, why=VoiceQuality.PAUSE), Presence.POOR),  # the network was not trained to hold
        (Fake(0.0, 10.0, coverage=0.79), Presence.TORN),
        (Fake(0.0, 10.0, coverage=0.8), Presence.USABLE),
    ],
)
def test_the_rule_of_presence(cutter: Fake, presence: Presence) -> None:
    task: Task = get_task("pain", "demo")
    clip = cut(ClipPlan(task.modality("eda"), 1, 1), cutter, 10.0, 10.0)
    assert clip.presence is presence
    assert clip.ok == clip.quality.ok == (presence is Presence.USABLE) == (not clip.quality.reason)
    assert (clip.signal is None) == (presence in (Presence.SILENT, Presence.YOUNG))


def test_a_pause_is_one_where_the_network_holds() -> None:
    m = replace(get_task("affect", "demo").modality("voice"), pause="hold")
    clip = cut(ClipPlan(m, 1, 1), Fake(0.0, 10.0, why=VoiceQuality.PAUSE), 10.0, 10.0)
    assert clip.presence is Presence.PAUSE and not clip.ok


def test_a_pause_shows_the_clip_before_it() -> None:
    rows = np.array([[4, 5, 6, 7], [4, 5, 6, 7], [4, 5, -1, 7], [4, 5, 6, 7]])
    pause = np.array([[0, 1, 0, 1], [1, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    wanted = [[4, 4, 6, 6], [4, 5, 5, 5], [4, 5, -1, -1], [4, 5, 6, 7]]  # nothing before it: nothing to show
    assert held(rows, pause).tolist() == wanted
