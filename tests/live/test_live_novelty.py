"""Signals unlike the training people's: refused, warned of or not looked for; and demo weights say what they are."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_fixture import FakeEngine, hand_bundle
from rich.console import Console

from jmt_edge.capture.base import State, Status
from jmt_edge.engine.backends.base import Step
from jmt_edge.engine.bundle import Bundle, load_bundle, write_bundle
from jmt_edge.engine.novelty import DESCRIPTIONS, FILE, Novelty, fit, read_novelty, save_novelty, shrunk_covariance
from jmt_edge.errors import BundleError
from jmt_edge.live import Controls, Pipeline, Result, RunInfo
from jmt_edge.live.judge import Watch
from jmt_edge.live.page.feed import Feed
from jmt_edge.live.page.model import Model
from jmt_edge.live.tui import Terminal
from jmt_edge.media.chunk import Chunk
from jmt_edge.result import Quality
from jmt_edge.tasks import Task, get_task, split_steps

clock = np.arange(0, 30, 1 / 64)
WHY = "unlike the EDA these weights were trained on"


def around(clip: np.ndarray, width: float, apart: float = 0.0) -> Novelty:
    """EDA clips pass whose description lies within `width` of one that is `apart` from that of `clip`."""
    centre = DESCRIPTIONS["eda"](clip)[0] + np.float32(apart)
    return Novelty(centre, np.eye(len(centre), dtype=np.float32), width)


def with_density(task: Task, path: Path, density: Novelty, name: str = "eda") -> Bundle:
    bundle = hand_bundle(task, path)
    files = {n: file.read() for n, file in bundle.files.items()}
    manifest = {**bundle.manifest, "novelty": {"file": FILE}}
    return write_bundle(path, manifest, {**files, FILE: save_novelty({name: density})}, overwrite=True)


def play(bundle: Bundle, engine: Any, novelty: str, values: np.ndarray, windows: int = 40) -> list[Result]:
    pipeline = Pipeline(bundle, engine, 0.5, ["eda"], novelty=novelty)
    results, at = [], -1.0
    for i in range(1, windows + 1):
        keep = (clock > at) & (clock <= i * 0.5)
        pipeline.push("eda", Chunk(clock[keep], values[keep].astype(np.float32), 64.0))
        at = i * 0.5
        results.append(pipeline.infer(i, {"eda": Status(State.STREAMING)}))
    return results


def usable(results: list[Result]) -> list[Result]:
    return [r for r in results if not r.reason.startswith("warming up")]


def plain(result: Result) -> Result:
    """Without latency and novelty."""
    quality = {n: replace(q, novelty=None) for n, q in result.quality.items()}
    return replace(result, quality=quality, latency_ms={})


LEVEL = 5 + 0.1 * np.sin(clock)


class OneGraph(FakeEngine):
    """An engine that does a hop in one piece."""

    def step(self, clips: Any, features: Any, present: Any, fresh: Any) -> Step:
        return replace(super().step(clips, features, present, fresh), seconds={})


@pytest.fixture
def task() -> Task:
    return get_task("pain")


class Seeing(FakeEngine):
    """Keeps the clips."""

    def backbones(self, clips: Any) -> dict[str, np.ndarray]:
        self.kept = [*getattr(self, "kept", []), *clips.get("eda", [])]
        return super().backbones(clips)


def clips_of(task: Task, tmp_path: Path, values: np.ndarray) -> list[np.ndarray]:
    """The EDA clips that a network gets of `values`, each (1, 1, samples)."""
    engine = Seeing(task)
    play(hand_bundle(task, tmp_path / "free.jmt"), engine, "off", values)
    return [clip[None] for clip in engine.kept]


@pytest.mark.parametrize("engine", [FakeEngine, OneGraph])
def test_a_novel_clip_is_absent_and_says_why(task: Task, tmp_path: Path, engine: type[FakeEngine]) -> None:
    bundle = with_density(task, tmp_path / "far.jmt", around(clips_of(task, tmp_path, LEVEL)[-1], 1.0, apart=100))
    results = usable(play(bundle, engine(task), "gate", LEVEL))
    assert results
    for result in results:
        quality = result.quality["eda"]
        assert result.outputs is None and not quality.ok and quality.reason == WHY
        assert quality.novelty is not None and quality.novelty > 1
        assert WHY in result.reason and result.attention["eda"] is None


def test_a_familiar_clip_gives_what_it_gives_without_the_gate(task: Task, tmp_path: Path) -> None:
    bundle = with_density(task, tmp_path / "near.jmt", around(clips_of(task, tmp_path, LEVEL)[-1], 5.0))
    gated, off = (play(bundle, FakeEngine(task), mode, LEVEL) for mode in ("gate", "off"))
    assert [plain(r) for r in gated] == [plain(r) for r in off]
    assert any(r.outputs for r in gated)
    assert all(0 <= (r.quality["eda"].novelty or 0) <= 1 for r in gated)
    assert all(r.quality["eda"].novelty is not None for r in usable(gated))
    assert all(r.quality["eda"].novelty is None for r in off)


def test_a_warning_keeps_the_number(task: Task, tmp_path: Path) -> None:
    bundle = with_density(task, tmp_path / "far.jmt", around(clips_of(task, tmp_path, LEVEL)[-1], 1.0, apart=100))
    warned, off = (usable(play(bundle, FakeEngine(task), mode, LEVEL)) for mode in ("warn", "off"))
    assert [r.outputs for r in warned] == [r.outputs for r in off] and warned[0].outputs is not None
    assert all(r.quality["eda"].ok and r.quality["eda"].reason == WHY for r in warned)


def test_a_bundle_without_a_density_is_not_checked(task: Task, tmp_path: Path) -> None:
    bundle = hand_bundle(task, tmp_path / "old.jmt")
    assert not bundle.has_novelty and bundle.novelty() == {}
    gated, off = (play(bundle, FakeEngine(task), mode, LEVEL) for mode in ("gate", "off"))
    assert [replace(r, latency_ms={}) for r in gated] == [replace(r, latency_ms={}) for r in off]
    assert Pipeline(bundle, FakeEngine(task), 0.5, ["eda"], novelty="gate").novelty == "not checked"


def test_a_novel_step_of_a_sequence_stays_absent(tmp_path: Path) -> None:
    """EDA far away for some seconds: the windows whose newest clip is familiar again lack the novel steps alone."""
    task = split_steps(get_task("pain"), 4)
    values = np.where((clock > 10) & (clock < 13), LEVEL + 3, LEVEL)
    values = np.interp(clock, clock[::32], values[::32])  # ramps: no jump that the EDA rules refuse
    calm = clips_of(task, tmp_path, values)[0]
    bundle = with_density(task, tmp_path / "steps.jmt", around(calm, 2.0))
    engine = FakeEngine(task)
    results = play(bundle, engine, "gate", values)
    assert any(r.quality["eda"].reason == WHY for r in results)
    masks = [present[0, :, task.names.index("eda")] for _, present in engine.seen]
    mixed = [mask for mask in masks if mask[-1] and not mask.all()]
    assert mixed, "no window with a novel step before a familiar one"


def test_a_number_that_is_not_finite_is_for_the_network_to_answer(task: Task, tmp_path: Path) -> None:
    class Broken(FakeEngine):
        def backbones(self, clips: Any) -> dict[str, np.ndarray]:
            return {n: np.full_like(f, np.nan) for n, f in super().backbones(clips).items()}

    bundle = with_density(task, tmp_path / "nan.jmt", around(clips_of(task, tmp_path, LEVEL)[-1], 5.0))
    last = play(bundle, Broken(task), "gate", LEVEL)[-1]
    assert last.reason == "the network's output is not finite"
    assert last.quality["eda"].novelty is not None and last.to_json()


def test_a_novel_clip_costs_no_network(task: Task, tmp_path: Path) -> None:
    bundle = with_density(task, tmp_path / "far.jmt", around(clips_of(task, tmp_path, LEVEL)[-1], 1.0, apart=100))
    engine = FakeEngine(task)
    play(bundle, engine, "gate", LEVEL)
    assert engine.clips["eda"] == 0 and not engine.seen


# ---- the density


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_shrunk_covariance_lies_between_the_sample_and_a_sphere(seed: int, dim: int) -> None:
    x = np.random.default_rng(seed).standard_normal((30, dim)) * np.arange(1, dim + 1)
    x -= x.mean(0)
    found, sample = shrunk_covariance(x), x.T @ x / len(x)
    assert np.trace(found) == pytest.approx(np.trace(sample))  # shrinkage moves no total variance
    low, high = np.linalg.eigvalsh(sample)[[0, -1]]
    eigen = np.linalg.eigvalsh(found)
    assert eigen[0] >= low - 1e-9 and eigen[-1] <= high + 1e-9


def test_shrinkage_is_ledoit_and_wolfs() -> None:
    """Their formula written out sample by sample, independent of the matrix form."""
    x = np.random.default_rng(1).standard_normal((25, 6)) @ np.diag([3, 2, 1, 1, 0.5, 0.1])
    x -= x.mean(0)
    n, d = x.shape
    sample = sum(np.outer(r, r) for r in x) / n
    sphere = np.trace(sample) / d * np.eye(d)
    d2 = np.sum((sample - sphere) ** 2)
    b2 = min(sum(np.sum((np.outer(r, r) - sample) ** 2) for r in x) / n**2, d2)
    assert shrunk_covariance(x) == pytest.approx(b2 / d2 * sphere + (1 - b2 / d2) * sample)


def test_the_limit_is_a_prediction_limit_for_other_people() -> None:
    """Of new people, whose clips are alike, nearly all stay below the limit; fewer people give a wider one."""
    rng = np.random.default_rng(3)

    def person() -> np.ndarray:
        own = rng.standard_normal(16) * rng.uniform(0.5, 1.5)
        return ((own + 0.3 * rng.standard_normal((12, 16))) * np.linspace(0.01, 2, 16)).astype(np.float32)

    training, held = np.concatenate([person() for _ in range(60)]), [person() for _ in range(60)]
    density = fit(training, held)
    new = [density.score(person()).max() for _ in range(400)]
    assert 0.97 <= np.mean(np.array(new) <= 1) <= 1
    few = [fit(training, held[i : i + 4]).threshold for i in range(0, 60, 4)]
    assert np.mean(few) > density.threshold
    assert (density.score(person() + 2) > 1).all()  # two hundred SDs in the narrowest direction
    with pytest.raises(ValueError, match="fewer than 16"):
        fit(training, [held[0][:3], held[1][:3]])
    with pytest.raises(ValueError, match="2 people"):
        fit(training, held[:1])


def test_a_density_survives_its_file_and_a_damaged_one_is_refused(task: Task, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    features = rng.standard_normal((100, 3)).astype(np.float32)
    density = fit(features[:50], np.split(features[50:], 10))
    again = read_novelty(save_novelty({"eda": density}), task)["eda"]
    assert (again.distance(features) == density.distance(features)).all()
    assert again.threshold == pytest.approx(density.threshold, rel=1e-6)
    for data in (b"nonsense", save_novelty({"voice": density}), save_novelty({"pulse": density})):
        with pytest.raises(ValueError):
            read_novelty(data, task)
    bundle = with_density(task, tmp_path / "bad.jmt", density, "voice")  # 3 numbers, a voice has 32
    with pytest.raises(BundleError, match=FILE):
        load_bundle(bundle.path).novelty()


# ---- demo weights


def info(bundle: Bundle, source: str, *, allowed: bool = False) -> RunInfo:
    return RunInfo(bundle, "fake", {"fusion": "fp32"}, 0.5, True, 0.0, {"eda": source}, demo_alarms=allowed)


def painful(bundle: Bundle, index: int) -> Result:
    return Result(
        index, index * 0.5, "pain", {"pain": 0.99}, "", {n: Quality(True, "", 0.9) for n in ("face", "eda")},
        dict.fromkeys(("face", "eda"), 0.5), {"total": 1.0}, 0, bundle.id, bundle.demo,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "demo", "allowed", "rings"),
    [("bitalino:/dev/ttyUSB0", True, False, False), ("replay:one", True, False, False), ("x.csv", True, False, False),
     ("x.csv", True, True, True), ("sim:seed=1", True, False, True), ("x.csv", False, False, True)],
)  # fmt: skip
def test_pain_alarms_need_weights_that_know_real_people(
    task: Task, tmp_path: Path, source: str, demo: bool, allowed: bool, rings: bool
) -> None:
    bundle = hand_bundle(task, tmp_path / "x.jmt", demo=demo)
    feed = Feed()
    model = Model(feed, Controls())
    feed.on_start(info(bundle, source, allowed=allowed))
    now = 1000.0
    for index in range(1, 20):
        feed.on_result(painful(bundle, index))
        model.update(now := now + 0.5)
        model.judge(now)
    assert ("pain" in {a["id"] for a in model.snapshot(now)["alarms"]}) is rings
    run = model.run_info()
    assert run is not None and run["alarms_off"] == ("" if rings else "demo weights")


def test_results_and_the_terminal_say_demo(task: Task, tmp_path: Path) -> None:
    for demo in (True, False):
        bundle = hand_bundle(task, tmp_path / f"{demo}.jmt", demo=demo)
        result = usable(play(bundle, FakeEngine(task), "off", LEVEL))[-1]
        assert result.to_dict()["demo"] is demo
        console = Console(file=io.StringIO(), width=80, height=24)
        terminal = Terminal(Controls(), Watch(Controls()).judge, console)
        terminal._info = info(bundle, "x.csv")
        terminal.on_result(painful(bundle, 5))
        console.print(terminal.render())
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("0.99 DEMO" in text) is demo and ("DEMO: " in text) is demo
