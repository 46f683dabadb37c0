"""The packaged demo bundles on simulated people whom no training saw: what the README may claim."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from warm import jmt_edge

from jmt_edge.capture import open_source
from jmt_edge.capture.simulated import window_label
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.backends import open_engine
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.live import Options, run
from jmt_edge.metrics import auc
from jmt_edge.observer import Observer
from jmt_edge.result import Result
from jmt_edge.tasks import TASK_NAMES

BUNDLES = Path(str(resources.files("jmt_edge.engine"))) / "bundles"

BUNDLED = tuple(task for task in TASK_NAMES if (BUNDLES / f"{task}-demo.jmt").is_dir())
SEEDS = (3, 11, 27)  # live people; training's start at 1,000,000
SECONDS = 120.0  # of each: six minutes together


class _Collect(Observer):
    def __init__(self) -> None:
        self.results: list[Result] = []

    def on_result(self, result: Result) -> None:
        self.results.append(result)


def _pain(sources: tuple[str, ...], seeds: tuple[int, ...], seconds: float) -> list[tuple[int | None, Result]]:
    """Every window with its true label (transitions have none)."""
    bundle = load_bundle(demo_bundle("pain"))
    found: list[tuple[int | None, Result]] = []
    for seed in seeds:
        seen = _Collect()
        opened = {m: s for m in sources if (s := open_source(m, f"sim:seed={seed}")) is not None}
        run(bundle, open_engine(bundle, "onnxruntime", 1), opened, Options(1.0, False, seconds), [seen])
        found += [(window_label(seed, result.t), result) for result in seen.results]
    return found


@pytest.fixture(scope="module")
def people() -> list[tuple[int | None, Result]]:
    """Drawing faces is the work here, so both questions are asked of the same people."""
    return _pain(("face", "eda"), SEEDS, SECONDS)


def test_bundles_are_packaged() -> None:
    assert {"pain", "affect"} <= set(BUNDLED)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pain_follows_the_simulated_truth(people: list[tuple[int | None, Result]]) -> None:
    known = [(r.outputs["pain"], label) for label, r in people if r.outputs is not None and label is not None]
    assert len(people) == len(SEEDS) * int(SECONDS)
    assert auc(*map(list, zip(*known))) >= 0.85


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("withheld", ["eda", "face"])
def test_one_modality_alone_is_above_chance(withheld: str, people: list[tuple[int | None, Result]]) -> None:
    known = [
        (r.without[withheld]["pain"], label)
        for label, r in people if r.without is not None and withheld in r.without and label is not None
    ]  # fmt: skip
    assert len(known) > 0.5 * len(people)
    assert auc(*map(list, zip(*known))) > 0.6


@pytest.mark.parametrize(("kept", "withheld"), [("face", "eda"), ("eda", "face")])
def test_one_sensor_gets_all_the_attention(kept: str, withheld: str) -> None:
    results = [result for _, result in _pain((kept,), SEEDS[:1], 15.0)]
    assert any(result.outputs for result in results)
    for result in results:
        assert result.attention[withheld] is None
        assert result.outputs is None or result.attention[kept] == pytest.approx(1.0)


@pytest.mark.parametrize("task", BUNDLED)
def test_demo_bundle_is_small_and_says_what_it_is(task: str) -> None:
    path = demo_bundle(task)
    bundle = load_bundle(path)
    assert bundle.demo
    assert sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) <= 6_000_000
    scores = bundle.manifest["provenance"]["scores"]
    assert scores, "held-out scores belong into the manifest"
    assert not list(path.rglob("*.pt")) + list(path.rglob("*.pkl"))


@pytest.mark.parametrize("task", BUNDLED)
def test_real_recordings_run_through_every_task(task: str, shared_data: Path) -> None:
    """Three seconds of GRID and a hot-surface EDA recording: finite, one result a hop, honest about what ended.

    The demo weights know none of it, so the numbers are asked for with a warning.
    """
    clip, eda = shared_data / "av/grid/bbaf2n.mpg", shared_data / "eda/bitalino_eda_hot_surface.txt"
    names = load_bundle(demo_bundle(task)).task.names
    given = {"face": ["--camera", str(clip)], "voice": ["--microphone", str(clip)], "eda": ["--eda", str(eda)]}
    command = ["live", "--task", task, "--speed", "max", "--output", "jsonl", "--novelty", "warn"]
    done = jmt_edge(*command, *(part for name in names for part in given[name]), seconds=280)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    times = np.array([line["t"] for line in lines])
    np.testing.assert_allclose(np.diff(times), 0.5)
    assert any(line["outputs"] for line in lines)
    for line in lines:
        assert line["reason"] or line["outputs"]
        assert not line["outputs"] or any(q["ok"] and "unlike" in q["reason"] for q in line["quality"].values())
        for value in (line["outputs"] or {}).values():
            assert np.isfinite(value)
    if "eda" in names:  # 3 s of video against 47 s of EDA: the rest has no face
        late = [line for line in lines if line["t"] > 12]
        assert late
        assert all(not line["quality"]["face"]["ok"] and line["quality"]["face"]["reason"] for line in late)
        assert all(line["attention"]["face"] is None for line in late)
