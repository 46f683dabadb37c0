"""Group `live`: one hop with the clip cache, against a loop that computes the whole sequence again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jmt_edge.clips.plan import plan_clips
from jmt_edge.engine.backends import open_engine

FEWER = 8  # how many times fewer clips the cache has to leave to the backbones


@pytest.fixture(params=["demo", "full"], scope="module")
def setting(request, make_bundle) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    bundle = make_bundle("affect", request.param)
    engine, task = open_engine(bundle, "onnxruntime", 1), bundle.task
    rng = np.random.default_rng(0)
    clips = {m.name: rng.standard_normal((task.steps, *m.shape), dtype=np.float32) for m in task.modalities}
    features = {name: rows[None] for name, rows in engine.backbones(clips).items()}
    return {
        "engine": engine, "task": task, "clips": clips, "features": features,
        "present": np.ones((1, task.steps, len(task.names)), bool),
        "group": f"live: networks of one hop, affect, S = {task.steps}, {request.param} width, one thread",
    }  # fmt: skip


def test_clip_cache(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    """One new clip of each modality; the other fifteen come from the cache."""
    benchmark.group = setting["group"]
    engine, task = setting["engine"], setting["task"]
    plans = plan_clips(task, 0.5)
    newest = {name: rows[-plans[name].new :] for name, rows in setting["clips"].items()}
    computed, all_of_it = sum(map(len, newest.values())), sum(map(len, setting["clips"].values()))
    assert all_of_it >= FEWER * computed
    benchmark.extra_info["clips"] = computed

    def hop() -> Any:
        for name, rows in engine.backbones(newest).items():
            setting["features"][name][0, -len(rows) :] = rows
        return engine.fusion(setting["features"], setting["present"])

    naive = _naive(setting)
    for name, value in hop().items():
        np.testing.assert_allclose(value, naive[name], atol=1e-4)
    benchmark.pedantic(hop, rounds=10, warmup_rounds=1)


def _naive(setting: dict[str, Any]) -> Any:
    engine = setting["engine"]
    features = {name: rows[None] for name, rows in engine.backbones(setting["clips"]).items()}
    return engine.fusion(features, setting["present"])


def test_naive_loop(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    benchmark.group = setting["group"]
    benchmark.extra_info["clips"] = sum(map(len, setting["clips"].values()))
    benchmark.pedantic(_naive, (setting,), rounds=3, warmup_rounds=1)
