"""Frames searched in a thread of their own give the clips of frames searched by the caller."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmt_edge.clips import frame_worker
from jmt_edge.clips.face import FaceCutter, Found
from jmt_edge.clips.frame_worker import MOST, FrameWorker
from jmt_edge.clips.plan import plan_clips
from jmt_edge.media.chunk import Chunk
from jmt_edge.preprocessing.face import NO_FACE, TEMPLATE, Face
from jmt_edge.tasks import get_task

RATE = 25


def remembers(side: int) -> Any:
    """A search whose answers depend on every frame before, as a tracker's do."""
    seen = 0

    def find(image: np.ndarray, t: float) -> Found:
        nonlocal seen
        seen = (seen * 31 + int(image[0, 0, 0]) + 1) % 1009
        if seen % 5 == 0:
            return Found(None, None, NO_FACE)
        crop = np.random.default_rng(seen).integers(40, 220, (side, side, 3), np.uint8)
        face = Face((0.0, 0.0, 112.0, 112.0), 0.9, TEMPLATE.astype(np.float32), track=1 + (seen % 7 == 0))
        return Found(face, crop)

    return find


def windows(sizes: list[int], hop: float, task: str, skip: int, *, threaded: bool) -> list[Any]:
    """Everything that a run reads from its cutter, window by window."""
    plan = plan_clips(get_task(task, "demo"), hop)["face"]
    cutter = FaceCutter(plan, lambda i: i * hop, 1, threaded=threaded, find=remembers(plan.m.side))
    times = np.arange(8 * RATE) / RATE
    images = [np.full((4, 4, 3), i * 37 % 251, np.uint8) for i in range(len(times))]
    at, turn, found = 0, 0, []
    for i in range(1, int(8 / hop)):
        stop = int(np.searchsorted(times, i * hop + 1e-9, "right"))
        while at < stop:
            n = min(sizes[turn % len(sizes)], stop - at)
            cutter.push(Chunk(times[at : at + n], images[at : at + n]))
            at, turn = at + n, turn + 1
        if skip and i % skip == 0:
            continue  # a window that was dropped
        for end in plan.new_ends(i * hop):
            clip, share = cutter.clip(end)
            found.append((clip.tobytes(), share, cutter.verdict(end), cutter.measured(end)))
        cutter.advance(i + 1)
    return found


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4), st.sampled_from([0.1, 0.5, 1.0]),
    st.sampled_from(["pain", "affect"]), st.integers(0, 4),
)  # fmt: skip
def test_the_thread_changes_no_bit(sizes: list[int], hop: float, task: str, skip: int) -> None:
    skip = 0 if skip == 1 else skip
    assert windows(sizes, hop, task, skip, threaded=True) == windows([3], hop, task, skip, threaded=False)


def test_the_caller_is_told_of_each_frame_in_order_and_in_its_own_thread() -> None:
    plan = plan_clips(get_task("affect", "demo"), 0.5)["face"]
    told: list[tuple[float, int]] = []
    cutter = FaceCutter(
        plan, lambda i: i * 0.5, 1, threaded=True, find=remembers(plan.m.side),
        on_face=lambda t, face: told.append((t, threading.get_ident())),
    )  # fmt: skip
    times = np.arange(3 * RATE) / RATE
    for part in np.array_split(np.arange(len(times)), 20):
        cutter.push(Chunk(times[part], [np.zeros((4, 4, 3), np.uint8)] * len(part)))
    cutter.clip(float(times[-1]))
    assert [t for t, _ in told] == sorted(t for t, _ in told) and len(told) > 20
    assert {thread for _, thread in told} == {threading.get_ident()}


def test_few_frames_wait_and_the_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_worker, "IDLE", 0.05)
    free, held = threading.Event(), []
    search: FrameWorker[float] = FrameWorker(lambda image, t: (free.wait(20), t)[1], "few frames")

    def bring() -> None:
        for t in range(MOST + 3):
            search.hand(float(t), ["frame"], 0)
            held.append(t)

    before = threading.active_count()
    bringing = threading.Thread(target=bring)
    bringing.start()
    while len(held) < MOST:
        time.sleep(0.005)
    time.sleep(0.05)
    assert len(held) == MOST, "one more waits until a frame is done"
    free.set()
    bringing.join(20)
    assert list(search.take(2.0))[:3] == [0.0, 1.0, 2.0]
    list(search.take(np.inf))
    deadline = time.monotonic() + 20
    while threading.active_count() > before:
        assert time.monotonic() < deadline, "the thread outlives its work"
        time.sleep(0.01)
    search.hand(9.0, ["frame"], 0)
    assert list(search.take(9.0)) == [9.0], "the next frame starts another"


AT_EXIT = """
import time
from jmt_edge.clips.frame_worker import FrameWorker
def work(image, t):
    time.sleep(0.5)
    print(image, flush=True)
search = FrameWorker(work, "at exit")
search.hand(0.0, ["searched"], 0)
search.hand(1.0, ["left out"], 0)
time.sleep(0.2)
"""


def test_a_process_ends_after_the_frame_that_is_searched() -> None:
    """The last frames of a run need no result. A thread that comes back from a network's C++ when the interpreter is
    gone would abort the process."""
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "searched\n", "")
