"""Another person's steps are absent, and the same ones in a live run, in training and in calibration."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import pytest
from live_fixture import hand_bundle

from jmt_edge.calibration.sources import clips_of
from jmt_edge.capture import open_source
from jmt_edge.capture.simulated.expression import Expressions
from jmt_edge.capture.simulated.face import FaceRenderer
from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.voice import Speech
from jmt_edge.clips.presence import of_newest_person
from jmt_edge.engine.backends.base import TwoCalls
from jmt_edge.live import Observer, Options, Result, run
from jmt_edge.observer import Mark
from jmt_edge.tasks import Task, get_task
from jmt_edge.training.clips import build_clips
from jmt_edge.training.data import Cohort, Labels, Problems, Trial, cut_windows
from jmt_edge.training.sets import presence

LEAVES, COMES, ENDS = 4.0, 4.4, 8.0  # s


def drawn_swap(path: Path) -> Path:
    """One drawn person on the left until LEAVES, another on the right from COMES on."""
    renderers = []
    for seed in (1, 4):
        who = Person.live(seed)
        renderers.append((FaceRenderer(who, 240, 180), Expressions(who, Speech(who))))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 480, 180, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "16"}
        for i in range(round(ENDS * 25)):
            t = i / 25
            halves = [
                renderer.frame(20 + t, expression(20 + t)) if here else renderer.without_face(t, dark=False)
                for (renderer, expression), here in zip(renderers, (t < LEAVES, t >= COMES))
            ]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.hstack(halves)), format="bgr24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


class Spy(TwoCalls, Observer):
    """An engine that computes nothing: notes which steps of the face are there, whose it is, and the marks."""

    name = "spy"

    def __init__(self, task: Task) -> None:
        self.precision = dict.fromkeys((*task.names, "fusion"), "fp32")
        self.steps: dict[int, np.ndarray] = {}
        self.tracks: dict[int, int] = {}
        self.marks: list[Mark] = []
        self._task, self._now = task, np.zeros(task.steps, bool)

    def backbones(self, clips: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.ones((len(batch), self._task.dim), np.float32) for name, batch in clips.items()}

    def fusion(self, features: Mapping[str, np.ndarray], present: np.ndarray) -> dict[str, np.ndarray]:
        rows = len(present)
        if rows == 1:  # the window itself, not what it would be without each modality
            self._now = present[0, :, self._task.names.index("face")].copy()
        zero = np.zeros((rows, 1), np.float32)
        outputs = {o: np.zeros((rows, 1, 2), np.float32) if o == "pain" else zero for o in self._task.outputs}
        return {"attention": np.zeros((rows, 1, len(self._task.names)), np.float32), **outputs}

    def on_result(self, result: Result) -> None:
        self.steps[result.index] = self._now
        self.tracks[result.index] = result.quality["face"].track
        self._now = np.zeros(self._task.steps, bool)

    def on_mark(self, mark: Mark) -> None:
        self.marks.append(mark)

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("real", [False, True])
def test_steps_of_another_person_are_absent_in_every_room(real: bool, tmp_path: Path) -> None:
    if real:
        video = Path(__file__).resolve().parents[3] / "shared" / "cases" / "video" / "person_swap.mp4"
        if not video.is_file():
            pytest.skip(f"needs the case {video.name}")
    else:
        video = drawn_swap(tmp_path / "swap.mp4")
    task, hop = get_task("affect", "demo"), 0.5
    spy = Spy(task)
    source = open_source("face", str(video))
    assert source is not None
    bundle = hand_bundle(task, Path(tempfile.mkdtemp(dir=tmp_path)) / "hand.jmt")
    run(bundle, spy, {"face": source}, Options(hop=hop, realtime=False), [spy])

    first = [i for i, track in spy.tracks.items() if track == 1]
    second = [i for i, track in spy.tracks.items() if track == 2]
    assert first and second and max(first) < min(second) and set(spy.tracks.values()) <= {0, 1, 2}
    assert COMES < min(second) * hop <= COMES + 1.5, "the other person is noticed"
    assert len(spy.marks) == 1 and spy.marks[0].t == min(second) * hop and "another person" in spy.marks[0].text
    stride = 1.0  # of affect's steps, on the grid of the hop
    for i in second:
        ends = i * hop - stride * np.arange(task.steps)[::-1]
        assert not spy.steps[i][ends < COMES].any(), f"a step of the first person in the window at {i * hop}"
    assert max(steps.sum() for i, steps in spy.steps.items() if i in first) >= 3
    assert max(steps.sum() for i, steps in spy.steps.items() if i in second) >= 2

    ends = [i * hop for i in sorted(spy.steps) if i * hop >= 1.5]
    live = np.stack([spy.steps[round(end / hop)] for end in ends])
    _, present = clips_of(task, {"face": open_source("face", str(video)), "voice": Silence()}, ends)  # type: ignore[dict-item]
    np.testing.assert_array_equal(present[:, :, task.names.index("face")], live)

    labels = Labels(np.zeros(1), {o: np.zeros(1) for o in task.outputs})
    trial = Trial("a", "a", {"face": video}, ENDS, labels, tuple(ends))
    cohort = Cohort("biovid", tmp_path, [trial], Problems())
    windows = cut_windows(cohort, task)
    found = presence(windows, build_clips(windows, tmp_path / "cache", cohort.problems), "face")
    several = 0
    for end, steps in zip(windows.end, found):  # training keeps the papers' stride
        i = round(end / hop)
        assert bool(steps[-1]) == bool(spy.steps[i][-1]), f"training at {end}"
        if i in second and steps[-1]:
            at = end - task.modality("face").stride * np.arange(task.steps)[::-1]
            assert not steps[at < COMES].any(), f"a step of the first person in training's window at {end}"
            several += steps.sum() > 1
    assert several


class Silence:
    """A source of nothing."""

    modality, name, realtime = "voice", "silence", False

    def open(self, origin: float) -> None: ...

    def read(self, until: float):  # type: ignore[no-untyped-def]
        from jmt_edge.media.chunk import empty_chunk

        return empty_chunk("voice")

    def status(self): ...  # type: ignore[no-untyped-def]

    def close(self) -> None: ...


def test_the_newest_present_step_says_whose_the_others_are() -> None:
    present = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]], bool)
    tracks = np.array([[1, 1, 2, 2], [2, 1, 2, 2], [1, 1, 1, 2], [1, 1, 2, 2]])
    wanted = np.array([[0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(of_newest_person(present, tracks), wanted)
