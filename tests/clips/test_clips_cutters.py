"""Clip plans and cutters against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jmt_edge.clips.cutter import open_cutter
from jmt_edge.clips.eda import EdaCutter
from jmt_edge.clips.face import FaceCutter
from jmt_edge.clips.frames import frame_times
from jmt_edge.clips.plan import ClipPlan, plan_clips, time_key
from jmt_edge.clips.voice import VoiceCutter
from jmt_edge.errors import ConfigError, DataError
from jmt_edge.media.chunk import Chunk
from jmt_edge.preprocessing import voice
from jmt_edge.preprocessing.eda import resample_eda
from jmt_edge.preprocessing.voice import voice_clip
from jmt_edge.tasks import AUDIO_RATE, Task, as_released, get_task, split_steps

AFFECT, PAIN = get_task("affect", "demo"), get_task("pain", "demo")


@pytest.mark.parametrize(
    ("hop", "stride", "new"),
    [(0.5, 1.0, 1), (1.0, 1.0, 1), (0.25, 1.0, 1), (2.0, 1.0, 2), (0.3, 1.2, 1), (40, None, 16)],
)
def test_affect_clips_lie_on_the_grid_of_hops(hop: float, stride: float | None, new: int) -> None:
    for plan in plan_clips(AFFECT, hop).values():
        assert plan.new == new
        if stride is not None:
            assert plan.m.stride == pytest.approx(stride)
        ratio = plan.m.stride / hop
        assert ratio == pytest.approx(round(ratio)) or 1 / ratio == pytest.approx(round(1 / ratio))
        # every clip but the newest ones was new in an earlier window
        ends = {time_key(e) for e in plan.ends(100 * hop)}
        earlier = {time_key(e) for i in range(1, 100) for e in plan.ends(i * hop)[-new:]}
        assert len(ends - earlier) == new


def test_a_one_step_window_has_one_clip_at_its_exact_place() -> None:
    plans = plan_clips(PAIN, 0.3)
    assert plans["face"].ends(10.0) == [9.5] and plans["eda"].ends(10.0) == [10.0]
    assert plans["face"].reach == pytest.approx(3.5)


def test_a_window_cut_into_steps_stays_exact() -> None:
    plans = plan_clips(split_steps(PAIN, 4), 0.5)
    assert plans["face"].ends(10.0) == pytest.approx([7.25, 8.0, 8.75, 9.5])
    assert plans["eda"].ends(10.0) == pytest.approx([5.875, 7.25, 8.625, 10.0])
    assert plans["face"].new == plans["eda"].new == 4
    assert plans["eda"].reach == pytest.approx(5.5)


def test_an_unknown_modality_has_no_cutter() -> None:
    eda = plan_clips(PAIN, 0.5)["eda"]
    assert isinstance(open_cutter(eda, float, 1), EdaCutter)
    with pytest.raises(ConfigError, match="modality 'gesture' has no cutter"):
        open_cutter(replace(eda, m=replace(eda.m, name="gesture")), float, 1)


def face_cutter(plan: ClipPlan, hop: float) -> tuple[FaceCutter, list[float]]:
    """A cutter for windows every `hop` seconds, and the times of the frames that it will have searched."""
    searched: list[float] = []
    return FaceCutter(plan, lambda i: i * hop, 1, on_face=lambda t, face: searched.append(t)), searched


def frames(times: np.ndarray) -> Chunk:
    return Chunk(times, [np.full((64, 64, 3), i % 251, np.uint8) for i in range(len(times))], 30.0)


@pytest.mark.parametrize("name", ["pain", "affect", "split"])
@pytest.mark.parametrize("hop", [0.5, 1.0, 2.5])
@pytest.mark.usefixtures("tracker")
def test_exactly_the_frames_that_clips_use_are_searched(name: str, hop: float) -> None:
    task = split_steps(PAIN, 4) if name == "split" else get_task(name, "demo")
    plan = plan_clips(task, hop)["face"]
    cutter, found = face_cutter(plan, hop)
    rng = np.random.default_rng(4)
    times = np.sort(np.arange(600) / 30 + rng.uniform(0, 0.02, 600))
    expected: set[float] = set()
    at = 0
    for i in range(1, int(20 / hop)):
        stop = int(np.searchsorted(times, i * hop, "right"))
        cutter.push(Chunk(times[at:stop], [np.zeros((64, 64, 3), np.uint8)] * (stop - at)))
        at = stop
        for end in plan.new_ends(i * hop):
            if end < plan.m.span:
                continue
            cutter.clip(end)
            usable = times[times <= end + 1e-6]
            expected |= {float(usable[np.argmin(np.abs(usable - w))]) for w in frame_times(plan.m, end)}
        cutter.advance(i + 1)
    searched = set(found)
    last = plan.ends((int(20 / hop) - 1) * hop)[-1]
    assert {t for t in expected if t > plan.reach} <= searched
    # besides: frames of clips before the stream was long enough, and of the window not yet closed
    assert {t for t in searched if plan.reach < t <= last - plan.reach} <= expected
    if hop == 2.5 and name == "affect":
        assert len(searched) < len(times) / 2


@pytest.mark.usefixtures("tracker")
def test_chunking_changes_nothing_and_dropped_windows_cost_nothing() -> None:
    plan = plan_clips(AFFECT, 0.5)["face"]
    times = np.arange(0, 6, 1 / 25)
    images = [np.full((64, 64, 3), i, np.uint8) for i in range(len(times))]
    clips, searched = [], []
    for sizes in ([1], [7, 2], [1000]):
        cutter, found = face_cutter(plan, 0.5)
        at = 0
        for i in range(1, 11):
            stop, turn = int(np.searchsorted(times, i * 0.5 + 1e-9, "right")), 0
            while at < stop:
                n = min(sizes[turn % len(sizes)], stop - at)
                cutter.push(Chunk(times[at : at + n], images[at : at + n]))
                at, turn = at + n, turn + 1
            clip, coverage = cutter.clip(i * 0.5)
            cutter.advance(i + 1)
        clips.append(clip.tobytes())
        searched.append(tuple(found))
        assert coverage == 1.0
    assert len(set(clips)) == 1 and len(set(searched)) == 1

    late, found = face_cutter(plan, 0.5)
    late.advance(11)
    late.push(Chunk(times, images))
    assert min(found) > 11 * 0.5 - plan.reach - 0.2


@pytest.mark.usefixtures("tracker")
def test_face_memory_is_bounded() -> None:
    plan = plan_clips(AFFECT, 0.5)["face"]
    cutter, _ = face_cutter(plan, 0.5)
    sizes = []
    for i in range(1, 400):
        times = (i - 1) * 0.5 + np.arange(1, 16) / 30
        cutter.push(frames(times))
        cutter.clip(i * 0.5)
        cutter.advance(i + 1)
        sizes.append((len(cutter._crops), len(cutter._wanted)))
    assert max(sizes[200:])[0] <= max(sizes[20:40])[0] + 2 and max(w for _, w in sizes[200:]) < 60


def test_voice_ring_equals_the_sound_itself() -> None:
    plan = plan_clips(AFFECT, 0.5)["voice"]
    cutter = VoiceCutter(plan)
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 0.1, AUDIO_RATE * 12).astype(np.float32)
    times = np.arange(len(sound)) / AUDIO_RATE
    at, i = 0, 1
    while at < len(sound):
        n = int(rng.integers(1, 9000))
        cutter.push(Chunk(times[at : at + n], sound[at : at + n], AUDIO_RATE))
        at += n
        while i * 0.5 <= times[min(at, len(times)) - 1] and i * 0.5 >= plan.m.span:
            i += 1
        end = float(times[min(at, len(times)) - 1]) // 0.5 * 0.5
        if end >= plan.m.span:
            clip, coverage = cutter.clip(end)
            assert coverage == 1.0
            np.testing.assert_array_equal(clip, voice_clip(sound[: round(end * AUDIO_RATE)], plan.m))


@pytest.mark.parametrize("task", [AFFECT, as_released(AFFECT)])
def test_a_young_clip_is_filled_as_the_preset_says(task: Task) -> None:
    plan = plan_clips(task, 0.5)["voice"]
    late = 4000  # samples; a stream that starts within 0.1 s may fill its first clip
    sound = np.random.default_rng(2).normal(0, 0.1, AUDIO_RATE * 4).astype(np.float32)
    times = np.arange(len(sound)) / AUDIO_RATE
    lost = (times >= 1.0) & (times < 1.1)
    kept = ~lost & (np.arange(len(sound)) >= late)
    cutter = VoiceCutter(plan)
    assert (cutter.clip(plan.m.span)[0] == voice_clip(sound[:0], plan.m)).all()
    whole = np.where(lost, np.float32(0), sound)  # what is lost later stays silence
    begin = 0.0
    for end in (plan.m.span, 2.0, 4.0):
        for part in np.array_split(np.flatnonzero(kept & (times >= begin) & (times < end)), 3):
            cutter.push(Chunk(times[part], sound[part], AUDIO_RATE))
        begin, stop = end, round(end * AUDIO_RATE)
        there = slice(max(late, stop - round(plan.m.span * AUDIO_RATE)), stop)
        np.testing.assert_array_equal(cutter.clip(end)[0], voice_clip(whole[there], plan.m))
        if end == plan.m.span:
            first = cutter.clip(end)[0]
    assert (first[:, :, :3] == 0).all() == bool(plan.m.pad)


def test_lost_sound_is_silence_and_counted_and_drift_does_not_tear() -> None:
    plan = plan_clips(AFFECT, 0.5)["voice"]
    cutter = VoiceCutter(plan)
    times = np.arange(AUDIO_RATE * 4) / AUDIO_RATE
    sound = np.full(len(times), 0.25, np.float32)
    gap = (times >= 2.5) & (times < 2.75)
    cutter.push(Chunk(times[~gap], sound[~gap], AUDIO_RATE))
    _, coverage = cutter.clip(3.0)
    assert coverage == pytest.approx(1 - 0.25 / plan.m.span, abs=1e-3)
    assert cutter.clip(4.0)[1] == 1.0
    assert cutter.clip(9.0)[1] == 0.0, "time that has not come is not data"

    drifting = VoiceCutter(plan)
    slow = np.arange(AUDIO_RATE * 4) / AUDIO_RATE * (1 + 300e-6)
    for part in np.array_split(np.arange(len(slow)), 40):
        drifting.push(Chunk(slow[part], sound[part], AUDIO_RATE))
    assert drifting.clip(3.9)[1] == 1.0


def test_voice_at_another_rate_is_refused() -> None:
    cutter = VoiceCutter(plan_clips(AFFECT, 0.5)["voice"])
    with pytest.raises(DataError, match="resampled"):
        cutter.push(Chunk(np.arange(10) / 8000, np.zeros(10, np.float32), 8000))


def test_eda_clip_equals_resampling_the_whole_signal() -> None:
    plan = plan_clips(PAIN, 0.5)["eda"]
    cutter = EdaCutter(plan)
    rng = np.random.default_rng(2)
    times = np.sort(rng.uniform(0, 30, 30 * 250))
    values = (5 + np.sin(times)).astype(np.float32)
    at = 0
    for i in range(1, 60):
        stop = int(np.searchsorted(times, i * 0.5, "right"))
        for part in np.array_split(np.arange(at, stop), 5):
            cutter.push(Chunk(times[part], values[part]))
        at = stop
        if i * 0.5 >= 6:
            clip, real = cutter.clip(i * 0.5)
            whole, real_whole = resample_eda(times[:stop], values[:stop], i * 0.5, plan.m)
            np.testing.assert_array_equal(clip, whole)
            assert real == real_whole > 0.99
    assert len(cutter._times) < 12 * 250


def test_samples_that_are_not_numbers_are_lost_ones() -> None:
    plan = plan_clips(AFFECT, 0.5)["voice"]
    times = np.arange(AUDIO_RATE * 3) / AUDIO_RATE
    sound = np.full(len(times), 0.25, np.float32)
    bad = (times >= 2.0) & (times < 2.1)
    clips = []
    for value in (np.nan, np.inf, 0.0):
        cutter = VoiceCutter(plan)
        cutter.push(Chunk(times, np.where(bad, np.float32(value), sound), AUDIO_RATE))
        clip, coverage = cutter.clip(3.0)
        assert coverage == pytest.approx(1 - (0.1 / plan.m.span if value else 0), abs=1e-3)
        clips.append(clip)
    np.testing.assert_array_equal(clips[0], clips[2])
    np.testing.assert_array_equal(clips[1], clips[2])


@pytest.mark.parametrize("hop", [0.1, 0.5, 1 / 3])
def test_columns_that_clips_share_are_those_of_a_clip_alone(hop: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the chunks, with lost samples, a clock that drifts and one that is set back."""
    plan, made = plan_clips(AFFECT, hop)["voice"], 0
    monkeypatch.setattr("jmt_edge.clips.voice.VoiceQuality.update", lambda *_: None)
    decibels = voice.decibels

    def counted(frames: np.ndarray) -> np.ndarray:
        nonlocal made
        made += len(frames)
        return decibels(frames)

    for module in ("jmt_edge.clips.voice", "jmt_edge.preprocessing.voice"):
        monkeypatch.setattr(f"{module}.decibels", counted)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        times = rng.choice([0.0, 0.013]) + np.arange(AUDIO_RATE * 4) / AUDIO_RATE * (1 + rng.choice([0, 2e-4]))
        sound = rng.normal(0, 0.1, len(times)).astype(np.float32)
        sound[rng.integers(0, len(times), 20)] = np.nan
        gap = int(rng.integers(0, len(times)))
        kept = np.r_[0:gap, min(gap + 9000, len(times)) : len(times)] if seed % 2 else np.arange(len(times))
        if seed == 4:
            times[len(times) // 2 :] -= 0.3
        cutter, pushed, i, made, warm = VoiceCutter(plan), [], 1, 0, 0
        for part in np.split(kept, np.sort(rng.integers(0, len(kept), 40))):
            if len(part):
                pushed.append(Chunk(times[part], sound[part], AUDIO_RATE))
                cutter.push(pushed[-1])
            while len(part) and i * hop <= times[part[-1]]:
                clip, share = cutter.clip(i * hop)
                warm = warm if i * hop > 1.5 else made
                before, alone = made, VoiceCutter(plan)
                if rng.random() < 0.3:
                    for chunk in pushed:
                        alone.push(chunk)
                    again, share_again = alone.clip(i * hop)
                    np.testing.assert_array_equal(clip, again)
                    assert share == share_again
                made, i = before, i + 1
        if seed in (0, 2) and hop != 1 / 3:
            assert made - warm < 1.5 * 2.5 * AUDIO_RATE / voice.HOP, "each once, and those at the ends of each clip"
