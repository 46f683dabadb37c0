"""What a result comes from: sets and intervals that keep their promise, and what it would be without a modality."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_fixture import FakeEngine, hand_bundle
from rich.console import Console

from jmt_edge.capture import open_source
from jmt_edge.capture.base import State, Status
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import Bundle, write_bundle
from jmt_edge.engine.novelty import FILE, Novelty, save_novelty
from jmt_edge.engine.uncertainty import Uncertainty, fit_limits, fit_width, quantile
from jmt_edge.errors import BundleError
from jmt_edge.live import Controls, Options, Pipeline, Result, RunInfo, run
from jmt_edge.live.judge import Watch
from jmt_edge.live.page.feed import Feed
from jmt_edge.live.page.model import Model
from jmt_edge.live.screen import origin
from jmt_edge.live.tui import Terminal
from jmt_edge.media.chunk import Chunk
from jmt_edge.recording.export import tables
from jmt_edge.recording.reader import Recording
from jmt_edge.recording.recorder import Recorder
from jmt_edge.recording.replay import replay
from jmt_edge.tasks import Task, get_task

KNOWN = Uncertainty(
    0.9, 30, 120,
    {
        frozenset({"eda"}): {"pain": (0.2, 0.4), "valence": 0.6, "arousal": 0.5},
        frozenset({"voice", "eda"}): {"pain": (0.5, 0.6), "valence": 0.3, "arousal": 0.25},
    },
)  # fmt: skip


# ---- the quantile


def people(rng: np.random.Generator, count: int, windows: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors whose size differs between people: (scores, people)."""
    who = np.repeat(np.arange(count), windows)
    return np.abs(rng.normal(0, np.exp(rng.normal(0, 0.8, count))[who])), who


@pytest.mark.parametrize("count", [9, 20, 60])
def test_the_next_person_is_covered(count: int) -> None:
    rng = np.random.default_rng(count)
    found, pooled = [], []
    for _ in range(300):
        scores, who = people(rng, count, 6)
        others, _ = people(rng, 100, 6)
        found.append((others <= quantile(scores, who)).mean())
        pooled.append((others <= np.quantile(scores, 0.9)).mean())
    error = 2.6 * np.std(found) / np.sqrt(len(found))
    assert 0.9 - error <= np.mean(found) <= 0.9 + 2 / (count + 1) + error
    assert count > 9 or np.mean(pooled) < 0.9 - error  # all windows of a few people alike promise too much


def test_a_person_with_many_windows_counts_once() -> None:
    scores = np.concatenate([np.full(1000, 9.0), np.arange(30)])
    who = np.concatenate([np.zeros(1000, int), 1 + np.arange(30)])
    assert quantile(scores, who) == 27.0  # 29 of 31 people, of 32 with the next, lie at or below it


@given(st.integers(1, 8), st.integers(1, 5))
def test_too_few_people_promise_nothing(count: int, windows: int) -> None:
    scores, who = people(np.random.default_rng(0), count, windows)
    assert quantile(scores, who) == np.inf and fit_width(scores, 0 * scores, who) is None
    assert fit_limits(scores, np.arange(len(scores)) % 2, who) is None


def test_each_class_of_pain_has_its_own_limit() -> None:
    """Pain is rare and harder to see: its windows are covered none the less."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y = (rng.random(count) < 0.1).astype(float)
        p = 1 / (1 + np.exp(-(rng.normal(0, 1, count) + 1.5 * y - 2)))
        return p, y, np.arange(count)

    low = fit_limits(*draw(4000))
    assert low is not None
    known = Uncertainty(0.9, 4000, 4000, {frozenset({"eda"}): {"pain": low}})
    p, y, _ = draw(4000)
    spans = [known.of({"pain": v}, ["eda"]) for v in p]
    for c, name in enumerate(("no", "yes")):
        hit = np.mean([name in s["pain"] for s, t in zip(spans, y) if t == c and s is not None])
        assert hit > 0.87, name  # the likelier class, here "no", is never left out, and so covered more often
        assert name == "no" or hit < 0.93


def test_no_set_is_empty_and_no_interval_leaves_the_scale() -> None:
    sure = Uncertainty(0.9, 30, 60, {frozenset({"eda"}): {"pain": (0.8, 0.8), "valence": 0.5}})
    assert sure.of({"pain": 0.45, "valence": 0.9}, ["eda"]) == {"coverage": 0.9, "pain": ["no"], "valence": [0.4, 1.0]}
    assert sure.of({"pain": 0.5}, {"eda"}) == {"coverage": 0.9, "pain": ["no", "yes"]}
    assert sure.of({"pain": 0.5}, ["eda", "face"]) is None


# ---- in a bundle


def with_uncertainty(bundle: Bundle, entry: Any) -> Bundle:
    files = {name: file.read() for name, file in bundle.files.items()}
    return write_bundle(bundle.path, {**bundle.manifest, "uncertainty": entry}, files, overwrite=True)


@pytest.fixture(scope="module")
def task() -> Task:
    return get_task("trimodal", "demo")


@pytest.fixture(scope="module")
def known(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_uncertainty(hand_bundle(task, tmp_path_factory.mktemp("known") / "known.jmt"), KNOWN.to_manifest())


@pytest.fixture(scope="module")
def unknown(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return hand_bundle(task, tmp_path_factory.mktemp("unknown") / "known.jmt")


def test_a_bundle_keeps_it(known: Bundle, unknown: Bundle) -> None:
    assert known.uncertainty == KNOWN and unknown.uncertainty is None


@pytest.mark.parametrize(
    ("where", "value"),
    [(("limits", "eda", "pain"), [0.2]), (("limits", "eda", "pain"), [0.2, 1.2]), (("limits", "eda", "valence"), -0.1),
     (("limits", "eda", "valence"), None), (("coverage",), "90"), (("people",), -1)],
)  # fmt: skip
def test_a_malformed_entry_is_refused(task: Task, tmp_path: Path, where: tuple[str, ...], value: Any) -> None:
    entry = json.loads(json.dumps(KNOWN.to_manifest()))
    part = entry
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    with pytest.raises(BundleError, match=r"uncertainty\." + where[0]):
        with_uncertainty(hand_bundle(task, tmp_path / "x.jmt"), entry)


# ---- live


@pytest.fixture(scope="module")
def signals() -> dict[str, Chunk]:
    found = {}
    for name in ("voice", "eda"):
        source = open_source(name, "sim:seed=3&rate=64" if name == "eda" else "sim:seed=3")
        assert source is not None
        source.open(0.0)
        found[name] = source.read(16.0)
        source.close()
    return found


def play(bundle: Bundle, engine: Any, signals: dict[str, Chunk], smooth: float = 0.0, first: int = 1) -> list[Result]:
    pipeline = Pipeline(bundle, engine, 0.5, signals, smooth=smooth, first=first)
    results, at = [], -1.0
    for i in range(first, 32):
        for name, chunk in signals.items():
            keep = (chunk.times > at) & (chunk.times <= i * 0.5)
            pipeline.push(name, Chunk(chunk.times[keep], chunk.values[keep], chunk.rate))
        at = i * 0.5
        results.append(pipeline.infer(i, dict.fromkeys(signals, Status(State.STREAMING))))
    return [replace(r, latency_ms={"total": 1.0}) for r in results]


def both(results: list[Result]) -> list[Result]:
    found = [r for r in results if r.used == ["voice", "eda"]]
    assert len(found) > 5
    return found


def test_without_a_modality_is_what_a_run_without_its_sensor_gives(known: Bundle, signals: dict[str, Chunk]) -> None:
    results = play(known, open_engine(known, "onnxruntime", 1), signals)
    for rest, missing in (("eda", "voice"), ("voice", "eda")):
        alone = {r.index: r for r in play(known, open_engine(known, "onnxruntime", 1), {rest: signals[rest]})}
        for r in both(results):
            assert r.without is not None and set(r.without) == {"voice", "eda"}
            assert r.without[missing] == pytest.approx(alone[r.index].outputs, abs=1e-6)
            assert r.without[missing] != pytest.approx(r.outputs, abs=1e-6)
        assert all(r.without == {} for r in alone.values())


def test_one_call_of_the_fusion_answers_every_what_if(known: Bundle, signals: dict[str, Chunk]) -> None:
    engine = FakeEngine(known.task)
    results = play(known, engine, signals)
    assert len(engine.seen) == sum(r.outputs is not None for r in results)
    assert len(engine.left_out) == len(both(results))
    features, present = engine.left_out[-1]
    assert present.shape == (2, known.task.steps, 3) and features["eda"].shape[0] == 2
    whole = engine.seen[-1][1][0]
    for row, column in enumerate((1, 2)):
        assert not present[row, :, column].any()
        others = [c for c in range(3) if c != column]
        assert np.array_equal(present[row][:, others], whole[:, others])


def test_each_set_of_modalities_has_its_own_promise(known: Bundle, signals: dict[str, Chunk]) -> None:
    """Once the first window is full."""
    seen = set()
    for r in play(known, FakeEngine(known.task), signals):
        expected = KNOWN.of(r.outputs, r.used) if r.outputs and r.t >= known.task.window else None
        assert r.uncertainty == expected
        seen.add((*r.used, expected is not None))
    assert {("voice", False), ("voice", "eda", True)} <= seen
    late = play(known, FakeEngine(known.task), {"eda": signals["eda"]}, first=12)
    assert {r.uncertainty is not None for r in late if r.outputs and r.t < 5.5 + known.task.window} == {False}
    assert late[-1].uncertainty is not None


def test_a_novel_signal_has_no_promise(known: Bundle, signals: dict[str, Chunk], tmp_path: Path) -> None:
    """It is used with a warning only."""
    width = Novelty(np.zeros(3, np.float32), np.eye(3, dtype=np.float32), 1e-3)
    manifest = {**known.manifest, "novelty": {"file": FILE}}
    files = {**{n: f.read() for n, f in known.files.items()}, FILE: save_novelty({"eda": width})}
    bundle = write_bundle(tmp_path / "novel.jmt", manifest, files)
    pipeline = Pipeline(bundle, FakeEngine(bundle.task), 0.5, ["eda"], novelty="warn")
    pipeline.push("eda", signals["eda"])
    result = pipeline.infer(30, {"eda": Status(State.STREAMING)})
    assert result.outputs and result.used == ["eda"] and result.uncertainty is None


def test_the_numbers_are_the_same_with_and_without(known: Bundle, unknown: Bundle, signals: dict[str, Chunk]) -> None:
    one, two = (play(b, open_engine(b, "onnxruntime", 1), signals) for b in (known, unknown))
    assert [r.outputs for r in one] == [r.outputs for r in two]
    assert [replace(r, uncertainty=None, bundle="") for r in one] == [replace(r, bundle="") for r in two]
    assert (
        any(r.uncertainty for r in one)
        and Pipeline(unknown, FakeEngine(unknown.task), 0.5, []).uncertainty == "not known"
    )


def test_a_mean_over_windows_has_no_promise(known: Bundle, signals: dict[str, Chunk]) -> None:
    assert all(r.uncertainty is None for r in play(known, FakeEngine(known.task), signals, smooth=3.0))
    assert all(r.without is None for r in play(known, FakeEngine(known.task), signals, smooth=3.0))
    pipeline = Pipeline(known, FakeEngine(known.task), 0.5, [], smooth=3.0)
    assert pipeline.uncertainty == "not known for smoothed results"


# ---- shown, recorded, exported


def info(bundle: Bundle, promised: str = "90%") -> RunInfo:
    names = {"face": "", "voice": "x", "eda": "x"}
    return RunInfo(bundle, "fake", {"fusion": "fp32"}, 0.5, True, 0.0, names, uncertainty=promised)


def test_the_terminal_and_the_page_say_what_a_number_comes_from(known: Bundle, signals: dict[str, Chunk]) -> None:
    result = both(play(known, FakeEngine(known.task), signals))[-1]
    result = replace(
        result, outputs={"pain": 0.55, "valence": -0.2, "arousal": 0.3},
        uncertainty={"coverage": 0.9, "pain": ["no", "yes"], "valence": [-0.5, 0.1], "arousal": [0.05, 0.55]},
        without={"eda": {"pain": 0.12, "valence": 0.0, "arousal": 0.1}},
    )  # fmt: skip
    said = "from voice + EDA; 90%: pain no or yes, valence −0.50 to +0.10, arousal +0.05 to +0.55"
    assert origin(result, "90%") == said
    assert origin(replace(result, uncertainty=None), "not known for smoothed results").endswith(
        "; uncertainty not known for smoothed results"
    )
    assert origin(replace(result, uncertainty=None), "90%").endswith("; uncertainty not known")
    console = Console(file=io.StringIO(), width=120, height=30, force_terminal=False)
    terminal = Terminal(Controls(), Watch(Controls()).judge, console)
    terminal._info = info(known)
    terminal.on_result(replace(result, latency_ms={"total": 1.0}))
    console.print(terminal.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert said in text and "without it 0.12, +0.00, +0.10" in text

    feed = Feed()
    model = Model(feed, Controls())
    feed.on_start(info(known))
    feed.on_result(result)
    model.update(1.0)
    shown, about = model.result_values(), model.run_info()
    assert shown is not None and about is not None and about["uncertainty"] == "90%"
    assert shown["used"] == ["voice", "eda"] and shown["without"] == result.without
    assert shown["uncertainty"] == result.uncertainty


def recorded(bundle: Bundle, results: list[Result], folder: Path) -> Path:
    recorder = Recorder(folder, bundle)
    recorder.on_start(info(bundle))
    for r in results:
        recorder.on_status({})
        recorder.on_result(r)
    recorder.close()
    return folder


def test_a_recording_keeps_it_and_exports_it(known: Bundle, signals: dict[str, Chunk], tmp_path: Path) -> None:
    results = play(known, FakeEngine(known.task), signals)
    recording = Recording(recorded(known, results, tmp_path / "run"))
    assert [w.result for w in recording.events() if hasattr(w, "result")] == results
    table = tables(recording)["results"]
    for i, r in enumerate(results):
        span = r.uncertainty
        assert table["pain_may_be_yes"][i] == (None if span is None else int("yes" in span["pain"]))
        assert table["valence_low"][i] == (None if span is None else span["valence"][0])
        assert table["arousal_high"][i] == (None if span is None else span["arousal"][1])
        for name in ("face", "voice", "eda"):
            expected = (r.without or {}).get(name, {}).get("pain")
            assert table[f"pain_without_{name}"][i] == expected


def test_a_recording_of_an_earlier_version_replays_equal(
    tmp_path: Path, unknown: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines have neither what-ifs nor uncertainty, and its manifest no promise."""
    new, whole, manifest = ("uncertainty", "without", "used"), Result.to_dict, Recorder._manifest

    def older(values: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in values.items() if k not in new}

    monkeypatch.setattr(Result, "to_dict", lambda self: older(whole(self)))
    monkeypatch.setattr(Recorder, "_manifest", lambda self, info: older(manifest(self, info)))
    recorder = Recorder(tmp_path / "run", unknown, raw=("voice", "eda"))
    sources: Any = {name: open_source(name, spec) for name, spec in (("voice", "sim:seed=5"), ("eda", "sim:rate=64"))}
    run(unknown, FakeEngine(unknown.task), sources, Options(0.5, False, 12.0), [recorder])
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 24 and not any(set(new) & line.keys() for line in lines)
    outcome = replay(Recording(tmp_path / "run"), unknown, FakeEngine(unknown.task), Pipeline)
    assert outcome.equal == outcome.recomputed == len(lines), outcome.line()
    assert replay(Recording(tmp_path / "run"), unknown, None, Pipeline).played == len(lines)
    monkeypatch.undo()
    assert tables(Recording(tmp_path / "run"))["results"]["pain_without_eda"] == [None] * len(lines)
