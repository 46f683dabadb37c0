"""What a window becomes: work per hop, gate, outputs, determinism."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_fixture import FakeEngine, hand_bundle, holding
from scipy.io import wavfile

from jmt_edge.calibration.sources import clips_of
from jmt_edge.capture import open_source
from jmt_edge.capture.base import State, Status
from jmt_edge.capture.simulated.person import Person
from jmt_edge.capture.simulated.voice import Speech
from jmt_edge.engine.backends.base import Step
from jmt_edge.engine.bundle import Bundle
from jmt_edge.errors import BundleError
from jmt_edge.live import Pipeline, Result
from jmt_edge.live.smoothing import TrailingMean
from jmt_edge.media.chunk import Chunk
from jmt_edge.preprocessing.quality import VoiceQuality
from jmt_edge.summary import Summary
from jmt_edge.tasks import get_task, split_steps
from jmt_edge.training.clips import build_clips
from jmt_edge.training.data import Cohort, Labels, Problems, Trial, cut_windows
from jmt_edge.training.sets import presence, shown_rows

Bundles = Callable[[str], Bundle]
EDA_TIMES = np.arange(0, 40, 1 / 64)


def eda(times: np.ndarray = EDA_TIMES, level: float = 5.0) -> Chunk:
    return Chunk(times, (level + 0.2 * np.sin(times)).astype(np.float32), 64.0)


def part(chunk: Chunk, start: float, stop: float) -> Chunk:
    """Samples in (start, stop]."""
    keep = (chunk.times > start) & (chunk.times <= stop)
    values = [v for v, k in zip(chunk.values, keep) if k] if isinstance(chunk.values, list) else chunk.values[keep]
    return Chunk(chunk.times[keep], values, chunk.rate)


def play(
    pipeline: Pipeline, signals: dict[str, Chunk], windows: Iterable[int], hop: float, status: Status | None = None
) -> list[Result]:
    results, at = [], -1.0
    for i in windows:
        for name, chunk in signals.items():
            pipeline.push(name, part(chunk, at, i * hop))
        at = i * hop
        results.append(pipeline.infer(i, dict.fromkeys(signals, status or Status(State.STREAMING))))
    return results


@pytest.fixture(scope="module")
def person() -> dict[str, Chunk]:
    """14 s of noise for a face, and of the simulated person's voice and EDA."""
    rng, times = np.random.default_rng(0), np.arange(0, 14.01, 1 / 25)
    signals = {"face": Chunk(times, list(rng.integers(0, 255, (len(times), 100, 100, 3), np.uint8)), 25.0)}
    for name in ("voice", "eda"):
        source = open_source(name, "sim:")
        assert source is not None
        source.open(0.0)
        signals[name] = source.read(14.0)
        source.close()
    return signals


@pytest.mark.usefixtures("tracker")
def test_work_per_hop_does_not_depend_on_the_number_of_steps(tmp_path: Path, person: dict[str, Chunk]) -> None:
    counts = {}
    for steps in (4, 16):
        task = replace(get_task("affect", "demo"), steps=steps)
        modalities = tuple(replace(m, stride=0.5, shape=(3, 8, 32, 32)) if m.name == "face" else replace(m, stride=0.5)
                           for m in task.modalities)  # fmt: skip
        task = replace(task, modalities=modalities)
        engine = FakeEngine(task)
        pipeline = Pipeline(hand_bundle(task, tmp_path / f"s{steps}.jmt"), engine, 0.5, task.names)
        results = play(pipeline, person, range(1, 25), 0.5)
        assert all(q.ok for q in results[-1].quality.values())
        assert engine.seen[-1][1].sum(1).min() >= min(steps, 20) - 6  # some moments of silence have no speech
        counts[steps] = dict(engine.clips)
        naive = 24 * steps * 2
        assert sum(engine.clips.values()) <= 24 * 2
        assert steps < 16 or naive >= 8 * sum(engine.clips.values())
    assert counts[4] == counts[16]


@pytest.mark.usefixtures("tracker")
def test_cached_features_are_those_of_their_own_clips(bundles: Bundles, person: dict[str, Chunk]) -> None:
    """The sequence from the cache equals the sequence of an engine asked for every clip of the last window anew."""
    bundle = bundles("trimodal")
    engine = FakeEngine(bundle.task)
    pipeline = Pipeline(bundle, engine, 0.5, bundle.task.names)
    play(pipeline, person, range(1, 25), 0.5)
    features, present = engine.seen[-1]
    for name in ("face", "voice", "eda"):
        plan = pipeline.plans[name]
        for step, end in enumerate(plan.ends(12.0) if plan.m.stride else plan.ends(12.0) * 4):
            if present[0, step, bundle.task.names.index(name)]:
                anew = FakeEngine(bundle.task)
                window = round((end - plan.m.end) / 0.5)
                alone = Pipeline(bundle, anew, 0.5, [name], first=window)
                play(alone, {name: person[name]}, [window], 0.5)
                np.testing.assert_array_equal(features[name][0, step], anew.seen[-1][0][name][0, -1])
    assert present.sum() >= 9


@pytest.mark.usefixtures("tracker")
def test_chunking_changes_no_bit(bundles: Bundles, person: dict[str, Chunk]) -> None:
    bundle = bundles("trimodal")
    lines = []
    for pieces in (1, 7):
        pipeline = Pipeline(bundle, FakeEngine(bundle.task), 0.5, bundle.task.names)
        at, got = -1.0, []
        for i in range(1, 29):
            for k in range(1, pieces + 1):
                stop = at + (i * 0.5 - at) * k / pieces if k < pieces else i * 0.5
                start = at + (i * 0.5 - at) * (k - 1) / pieces
                for name in ("eda", "face", "voice") if k % 2 else ("voice", "face", "eda"):
                    pipeline.push(name, part(person[name], start, stop))
            at = i * 0.5
            result = pipeline.infer(i, dict.fromkeys(person, Status(State.STREAMING)))
            got.append(json.dumps({k: v for k, v in result.to_dict().items() if k != "latency_ms"}))
        lines.append(got)
    assert lines[0] == lines[1]


def test_a_split_window_computes_the_clips_that_are_not_aligned(tmp_path: Path) -> None:
    task = split_steps(get_task("pain", "demo"), 4)
    engine = FakeEngine(task)
    pipeline = Pipeline(hand_bundle(task, tmp_path / "split.jmt"), engine, 0.5, ["eda"])
    results = play(pipeline, {"eda": eda()}, range(1, 41), 0.5)
    assert results[-1].outputs is not None
    assert engine.seen[-1][1][0, :, 1].all() and not engine.seen[-1][1][0, :, 0].any()
    np.testing.assert_allclose(engine.seen[-1][0]["eda"][0, :, 0], 5.0, atol=0.25)
    assert engine.clips["eda"] <= 4 * 40 and engine.clips["face"] == 0


def test_warming_up_then_a_number(bundles: Bundles) -> None:
    bundle = bundles("pain")
    results = play(Pipeline(bundle, FakeEngine(bundle.task), 0.5, ["eda"]), {"eda": eda()}, range(1, 13), 0.5)
    assert [r.outputs is None for r in results] == [True] * 10 + [False] * 2
    assert results[2].reason == "warming up: 1.5 of 5.5 s"
    assert results[2].quality["face"].reason == "no source"
    assert results[-1].attention == {"face": None, "eda": 1.0}
    assert results[-1].reason == "" and results[-1].quality["eda"].ok


def test_nothing_usable_gives_no_number_and_every_reason(bundles: Bundles) -> None:
    bundle = bundles("pain")
    chunk = eda()
    chunk.values[chunk.times > 8] = np.nan
    dark = Chunk(np.arange(0, 12, 1 / 2), [np.zeros((120, 160, 3), np.uint8)] * 24, 2.0)
    results = play(
        Pipeline(bundle, FakeEngine(bundle.task), 0.5, ["eda", "face"]), {"face": dark, "eda": chunk}, range(1, 24), 0.5
    )
    assert results[13].outputs is not None and results[13].attention["face"] is None
    last = results[-1]
    assert last.outputs is None and last.attention == {"face": None, "eda": None}
    assert last.reason.startswith("no usable modality: face: no face in 7 of 7 frames; eda: no valid EDA value")
    assert last.latency_ms["backbones"] is None and last.latency_ms["fusion"] is None
    assert json.loads(last.to_json())["outputs"] is None


def test_no_result_from_data_older_than_the_window(bundles: Bundles) -> None:
    bundle = bundles("pain")
    results = play(Pipeline(bundle, FakeEngine(bundle.task), 0.5, ["eda"]), {"eda": part(eda(), -1, 10)},
                   range(1, 60), 0.5, Status(State.LOST, "unplugged"))  # fmt: skip
    assert results[19].outputs is not None
    silent = [r for r in results if r.t > 11.01]
    assert all(r.outputs is None and r.quality["eda"].reason == "sensor lost: unplugged" for r in silent)


class OneGraph(FakeEngine):
    """Runs a hop as a whole and cannot say how long its parts took."""

    def step(self, clips: Any, features: Any, present: Any, fresh: Any) -> Step:
        done = super().step(clips, features, present, fresh)
        return Step(done.features, done.outputs)


def test_one_graph_is_timed_as_a_whole(bundles: Bundles) -> None:
    """The same numbers as from two calls; no time is invented for parts that were not apart."""
    bundle = bundles("pain")
    results, summaries = [], []
    for engine in (FakeEngine(bundle.task), OneGraph(bundle.task)):
        summary = Summary(bundle.id, False, False)
        results.append(play(Pipeline(bundle, engine, 0.5, ["eda"]), {"eda": eda()}, range(1, 15), 0.5))
        for result in results[-1]:
            summary.add(result)
        summaries.append([line.split()[:2] for line in summary.lines() if "included in networks" in line])
    two, one = (rows[-1] for rows in results)
    assert two.outputs == one.outputs is not None and two.attention == one.attention
    apart = [two.latency_ms[stage] for stage in ("backbones", "fusion")]
    assert all(ms is not None and ms > 0 for ms in apart) and two.latency_ms["networks"] >= max(apart)  # type: ignore[type-var]
    assert one.latency_ms["backbones"] is None and one.latency_ms["fusion"] is None
    assert 0 < one.latency_ms["networks"] <= one.latency_ms["total"]  # type: ignore[operator]
    assert results[1][0].outputs is None and results[1][0].latency_ms["networks"] is None
    assert summaries == [[], [["backbones", "ms"], ["fusion", "ms"]]]


def test_uncalibrated_readings_are_no_microsiemens(bundles: Bundles) -> None:
    bundle = bundles("pain")
    status = Status(State.STREAMING, unit="a.u.")
    pipeline = Pipeline(bundle, FakeEngine(bundle.task), 1.0, ["eda"])
    last = play(pipeline, {"eda": eda()}, range(1, 9), 1.0, status)[-1]
    assert last.outputs is None and "uncalibrated" in last.quality["eda"].reason


def test_a_fault_that_only_the_device_sees_is_the_reason(bundles: Bundles) -> None:
    """Channels that cancel each other leave silence; the microphone knows why."""
    bundle = bundles("affect")
    times = np.arange(4 * 44_100) / 44_100
    silence = {"voice": Chunk(times, np.zeros(len(times), np.float32), 44_100.0)}
    for reason, expected in (("the two channels cancel each other out", "cancel"), ("", "dead or muted")):
        pipeline = Pipeline(bundle, FakeEngine(bundle.task), 1.0, ["voice"])
        last = play(pipeline, silence, range(1, 4), 1.0, Status(State.STREAMING, reason))[-1]
        assert not last.quality["voice"].ok and expected in last.quality["voice"].reason


@pytest.mark.parametrize("status", [Status(State.STREAMING, "a fault"), Status(State.STALLED)])
def test_a_device_with_a_fault_does_not_pause(status: Status, tmp_path: Path) -> None:
    bundle = hand_bundle(holding(get_task("affect", "demo")), tmp_path / "b.jmt")
    pipeline = Pipeline(bundle, FakeEngine(bundle.task), 1.0, ["voice"])
    sound = {"voice": paused()}
    play(pipeline, {"voice": part(sound["voice"], -1, 3.0)}, range(1, 4), 1.0)
    pipeline.push("voice", part(sound["voice"], 3.0, 4.0))
    last = pipeline.infer(4, {"voice": status})
    assert not last.quality["voice"].ok and last.outputs is None
    assert VoiceQuality.PAUSE not in last.quality["voice"].reason or status.state is State.STALLED


def paused(rate: int = 44_100, before: int = 1) -> Chunk:
    """A voice that speaks for 2.5 s, `before` times, is silent in a room for 5 s, and speaks again."""
    speech = Speech(Person.live(0)).samples(0, round(2.5 * rate))
    room = (1e-4 * np.random.default_rng(0).standard_normal(5 * rate)).astype(np.float32)
    values = np.concatenate([speech] * before + [room, speech])
    return Chunk(np.arange(len(values)) / rate, values, float(rate))


def test_a_pause_takes_the_voice_out_where_the_network_was_not_trained_to_hold(bundles: Bundles) -> None:
    bundle = bundles("trimodal")
    results = play(Pipeline(bundle, FakeEngine(bundle.task), 0.5, ["voice"]), {"voice": paused()}, range(1, 21), 0.5)
    said = {
        (r.quality["voice"].ok, r.outputs is None) for r in results if r.quality["voice"].reason == VoiceQuality.PAUSE
    }
    assert said == {(False, True)}


def test_a_pause_in_speech_holds_what_was_heard_last(tmp_path: Path) -> None:
    bundle = hand_bundle(holding(get_task("trimodal", "demo")), tmp_path / "b.jmt")
    engine = FakeEngine(bundle.task)
    pipeline = Pipeline(bundle, engine, 0.5, ["voice"])
    results = {r.t: r for r in play(pipeline, {"voice": paused()}, range(1, 21), 0.5)}
    reasons = {t: (r.quality["voice"].ok, r.quality["voice"].reason) for t, r in results.items()}
    held = [t for t, said in reasons.items() if said == (True, VoiceQuality.PAUSE)]
    assert len(held) >= 2 and min(held) >= 3.5 and all(reasons[t] == (True, "") for t in (1.5, 2.0, 2.5, 3.0))
    gone = list(np.arange(max(held) + 0.5, 8, 0.5))
    assert len(gone) >= 3 and all(not reasons[t][0] and results[t].outputs is None for t in gone)
    seen = dict(zip([t for t, r in results.items() if r.outputs is not None], engine.seen))
    for t in held:
        features, present = seen[t]
        assert results[t].outputs is not None and results[t].used == ["voice"]
        assert present[0, -2:, 1].all() and (features["voice"][0, -1] == features["voice"][0, -2]).all()
        before, _ = seen[t - 1]  # steps are 1 s apart
        np.testing.assert_array_equal(features["voice"][0, -1], before["voice"][0, -1])
    assert reasons[9.0] == (True, "") and not seen[9.0][1][0, 1, 1]


def test_a_pause_has_no_interval(tmp_path: Path) -> None:
    """It was measured on windows in which the newest step is heard."""
    task = holding(get_task("trimodal", "demo"))
    limits = {"coverage": 0.9, "people": 9, "windows": 9, "limits": {"voice": {"arousal": 0.5}}}
    bundle = hand_bundle(task, tmp_path / "u.jmt", extra={"uncertainty": limits})
    pipeline = Pipeline(bundle, FakeEngine(task), 0.5, ["voice"])
    results = play(pipeline, {"voice": paused(before=3)}, range(1, 21), 0.5)
    known = {r.t: (r.quality["voice"].reason, r.uncertainty) for r in results if r.outputs is not None and r.t >= 6}
    assert {reason for reason, _ in known.values()} == {"", VoiceQuality.PAUSE}
    assert all((reason == "") == (interval is not None) for reason, interval in known.values())


def test_calibration_and_training_hold_what_live_holds(tmp_path: Path) -> None:
    """At 1 s between steps, the newest step of every window shows the same clip in all three."""
    bundle = hand_bundle(holding(get_task("trimodal", "demo")), tmp_path / "b.jmt")
    task, sound, ends = bundle.task, paused(), [float(t) for t in range(2, 11)]
    engine = FakeEngine(task)
    pipeline = Pipeline(bundle, engine, 1.0, ["voice"])
    results = play(pipeline, {"voice": sound}, range(1, 11), 1.0)
    live = dict(zip([r.t for r in results if r.outputs is not None], engine.seen))
    wave = tmp_path / "voice.wav"
    wavfile.write(wave, 44_100, sound.values)
    source = open_source("voice", str(wave))
    assert source is not None
    clips, present = clips_of(task, {"voice": source}, ends)
    trial = Trial(
        "a", "a", {"voice": wave}, 10.0, Labels(np.zeros(1), {o: np.zeros(1) for o in task.outputs}), tuple(ends)
    )
    cohort = Cohort("biovid", tmp_path, [trial], Problems())
    windows = cut_windows(cohort, task)
    stores = build_clips(windows, tmp_path / "cache", cohort.problems)
    rows, there = shown_rows(windows, stores, "voice"), presence(windows, stores, "voice")
    assert any(stores["voice"].pause) and any(r.quality["voice"].reason == VoiceQuality.PAUSE for r in results)
    for i, t in enumerate(ends):
        shown = t in live and live[t][1][0, -1, 1]
        assert shown == present[i, -1, 1] == there[i, -1], t
        if shown:
            wanted = live[t][0]["voice"][0, -1, 0]
            assert clips["voice"][i, -1].mean() == pytest.approx(wanted, abs=1e-4)
            assert stores["voice"].load(rows[i, -1:])[0].mean() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.usefixtures("tracker")
def test_a_modality_counts_only_with_its_newest_clip(tmp_path: Path, person: dict[str, Chunk]) -> None:
    task = get_task("trimodal", "demo")
    engine = FakeEngine(task)
    pipeline = Pipeline(hand_bundle(task, tmp_path / "t.jmt"), engine, 1.0, ["face", "eda"])
    signals = {"face": part(person["face"], -1, 9.0), "eda": person["eda"]}
    results = play(pipeline, signals, range(1, 14), 1.0)
    assert results[8].quality["face"].ok and not results[10].quality["face"].ok
    present = engine.seen[-3][1]
    assert results[10].t == 11.0 and not present[0, :, 0].any() and present[0, :, 2].all()
    assert results[10].attention["face"] is None and results[10].attention["eda"] == 1.0


@pytest.mark.usefixtures("tracker")
def test_a_dropped_window_leaves_an_absent_step(bundles: Bundles, person: dict[str, Chunk]) -> None:
    bundle = bundles("trimodal")
    engine = FakeEngine(bundle.task)
    pipeline = Pipeline(bundle, engine, 1.0, ["face"])
    play(pipeline, {"face": person["face"]}, [*range(1, 9), 10], 1.0)
    assert engine.seen[-1][1][0, :, 0].tolist() == [True, True, False, True]
    assert engine.clips["face"] <= 9


def test_outputs_in_the_users_units(tmp_path: Path) -> None:
    task = get_task("pain", "demo")

    def pain(level: float, temperature: float) -> float:
        extra = {"calibration": {"temperature": temperature}}
        bundle = hand_bundle(task, tmp_path / f"{level}-{temperature}.jmt", extra=extra)
        pipeline = Pipeline(bundle, FakeEngine(task), 1.0, ["eda"])
        result = play(pipeline, {"eda": Chunk(EDA_TIMES, np.full(len(EDA_TIMES), level, np.float32))}, range(1, 9), 1.0)
        assert result[-1].outputs is not None
        return result[-1].outputs["pain"]

    assert pain(4.0, 1.0) == pytest.approx(1 / (1 + math.exp(-4)), rel=1e-5)
    assert pain(4.0, 2.0) == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-5)
    with pytest.raises(BundleError, match="temperature"):
        pain(4.0, 0.0)


@pytest.mark.parametrize("value", [3000.0, -3000.0, np.nan, np.inf])
def test_extreme_networks_give_a_number_in_range_or_none(bundles: Bundles, value: float) -> None:
    for name in ("pain", "trimodal"):
        bundle = bundles(name)

        class Extreme(FakeEngine):
            def fusion(self, features: dict, present: np.ndarray) -> dict:  # type: ignore[override]
                out = super().fusion(features, present)
                return {k: v if k == "attention" else np.sign(v + 1) * 0 + np.float32(value) for k, v in out.items()}

        pipeline = Pipeline(bundle, Extreme(bundle.task), 1.0, ["eda"])
        last = play(pipeline, {"eda": eda()}, range(1, 9), 1.0)[-1]
        if math.isfinite(value):
            assert last.outputs is not None
            assert all(-1 <= v <= 1 for v in last.outputs.values())
        else:
            assert last.outputs is None and "not finite" in last.reason and not last.attention["eda"]


def test_the_cache_is_bounded(bundles: Bundles) -> None:
    bundle = bundles("pain")
    pipeline = Pipeline(bundle, FakeEngine(bundle.task), 0.5, ["eda"])
    times = np.arange(0, 300, 1 / 32)
    sizes = []
    for i in range(1, 590):
        pipeline.push("eda", part(eda(times), (i - 1) * 0.5, i * 0.5))
        pipeline.infer(i, {"eda": Status(State.STREAMING)})
        sizes.append(len(pipeline._cache))
    assert max(sizes) <= 2


def test_smoothing_is_causal_and_forgets() -> None:
    smooth = TrailingMean(2.0)
    assert smooth(1.0, {"pain": 0.0}) == {"pain": 0.0}
    assert smooth(2.0, {"pain": 1.0}) == {"pain": 0.5}
    assert smooth(3.0, {"pain": 1.0}) == {"pain": 1.0}, "what is 2 s old counts no more"
    assert smooth(60.0, {"pain": 0.25}) == {"pain": 0.25}
    assert TrailingMean(0.0)(1.0, {"pain": 0.7}) == {"pain": 0.7}
