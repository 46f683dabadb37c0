"""Group `live`: one hop with the clip cache beside a loop that computes the whole sequence again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jmt_edge.engine.backends import open_engine
from jmt_edge.live.window import plan_clips

pytestmark = pytest.mark.benchmark(group="live: networks of one hop, affect, S = 16, demo width")


@pytest.fixture(scope="module")
def setting(make_bundle) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    bundle = make_bundle("affect", "demo")
    engine, task = open_engine(bundle, "onnxruntime", 1), bundle.task
    rng = np.random.default_rng(0)
    clips = {m.name: rng.standard_normal((task.steps, *m.shape), dtype=np.float32) for m in task.modalities}
    features = {name: rows[None] for name, rows in engine.backbones(clips).items()}
    return {"engine": engine, "task": task, "clips": clips, "features": features,
            "present": np.ones((1, task.steps, len(task.names)), bool)}  # fmt: skip


def test_clip_cache(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    """One new clip of each modality; the other fifteen come from the cache."""
    engine, task = setting["engine"], setting["task"]
    assert all(plan.new == 1 for plan in plan_clips(task, 0.5).values())
    newest = {name: rows[-1:] for name, rows in setting["clips"].items()}

    def hop() -> Any:
        for name, row in engine.backbones(newest).items():
            setting["features"][name][0, -1] = row[0]
        return engine.fusion(setting["features"], setting["present"])

    naive = _naive(setting)
    for name, value in hop().items():
        np.testing.assert_allclose(value, naive[name], atol=1e-4)
    benchmark(hop)


def _naive(setting: dict[str, Any]) -> Any:
    engine = setting["engine"]
    features = {name: rows[None] for name, rows in engine.backbones(setting["clips"]).items()}
    return engine.fusion(features, setting["present"])


def test_naive_loop(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    benchmark.pedantic(_naive, (setting,), rounds=10, warmup_rounds=1)
