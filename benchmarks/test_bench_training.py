"""Group `training`: what the feature cache saves, and the loss against torchmetrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from jmt_edge.models import build_model  # noqa: E402
from jmt_edge.tasks import get_task  # noqa: E402
from jmt_edge.training.losses import ccc, task_loss  # noqa: E402
from jmt_edge.training.networks import FusionStep  # noqa: E402
from jmt_edge.training.sets import FeatureSet, loader  # noqa: E402

WINDOWS = 32
SAVED = 50  # how much faster an epoch on cached features has to be


@pytest.fixture(scope="module")
def setting() -> dict[str, Any]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    task = get_task("pain")
    model = build_model(task).eval()
    clips = {m.name: torch.randn(WINDOWS, *m.shape) for m in task.modalities}
    step = FusionStep(model.fusion)
    optimizer = torch.optim.Adam(step.parameters(), 5e-6)
    return {"task": task, "model": model, "clips": clips, "step": step, "optimizer": optimizer, "seconds": {}}


def _features(setting: dict[str, Any], rows: slice) -> dict[str, Any]:
    with torch.inference_mode():
        found = {m: setting["model"].backbones[m](clips[rows]) for m, clips in setting["clips"].items()}
    return {m: x.clone() for m, x in found.items()}


def _epoch(setting: dict[str, Any], features: dict[str, Any]) -> float:
    """One optimisation of the fusion over all windows, in the recipe's batch of 128 or less."""
    rows = torch.arange(WINDOWS)[:, None]
    labels = {"pain": (torch.arange(WINDOWS) % 2).float()[:, None]}
    tables = {m: x[None] for m, x in features.items()}
    data = FeatureSet(tables, dict.fromkeys(tables, rows), torch.ones(WINDOWS, 1, len(tables)), labels)
    total = 0.0
    for inputs, truth in loader(data, WINDOWS, 128, 0):
        loss = task_loss(setting["step"](**inputs), truth)
        setting["optimizer"].zero_grad()
        loss.backward()
        setting["optimizer"].step()
        total += float(loss)
    return total


@pytest.mark.benchmark(group="training: one epoch of the fusion, pain at full size, 32 windows, one thread")
class TestEpoch:
    """The backbones are frozen in this stage; without the cache each epoch would run them again."""

    def test_recomputed(self, benchmark, setting) -> None:  # type: ignore[no-untyped-def]
        def epoch() -> float:
            parts = [_features(setting, slice(i, i + 8)) for i in range(0, WINDOWS, 8)]
            return _epoch(setting, {m: torch.cat([p[m] for p in parts]) for m in parts[0]})

        benchmark.pedantic(epoch, rounds=1, warmup_rounds=0)
        if benchmark.stats is not None:
            setting["seconds"]["recomputed"] = benchmark.stats.stats.median

    def test_cached(self, benchmark, setting) -> None:  # type: ignore[no-untyped-def]
        cached = _features(setting, slice(None))
        again = _features(setting, slice(0, 4))  # features do not depend on their batch
        for m, x in again.items():
            torch.testing.assert_close(cached[m][:4], x, rtol=1e-3, atol=1e-4)
        benchmark.pedantic(_epoch, (setting, cached), rounds=8, warmup_rounds=1)
        if benchmark.stats is not None and "recomputed" in setting["seconds"]:
            saved = setting["seconds"]["recomputed"] / benchmark.stats.stats.median
            benchmark.extra_info["times_faster"] = saved
            assert saved >= SAVED, f"an epoch on cached features is {saved:.0f} times faster, not {SAVED}"


@pytest.mark.benchmark(group="training: CCC of 100 000 values")
class TestCcc:
    @pytest.fixture(scope="class")
    def pair(self) -> tuple[Any, Any]:
        generator = torch.Generator().manual_seed(0)
        label = torch.randn(100_000, generator=generator)
        return 0.7 * label + 0.3 * torch.randn(100_000, generator=generator), label

    def test_ours(self, benchmark, pair) -> None:  # type: ignore[no-untyped-def]
        x, y = (np.asarray(value, np.float64) for value in pair)
        expected = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        assert float(ccc(*pair)) == pytest.approx(expected, abs=1e-5)
        benchmark(ccc, *pair)

    def test_torchmetrics(self, benchmark, pair) -> None:  # type: ignore[no-untyped-def]
        functional = pytest.importorskip("torchmetrics.functional.regression", reason="torchmetrics is not installed")
        run = functional.concordance_corrcoef
        assert float(run(*pair)) == pytest.approx(float(ccc(*pair)), abs=1e-3)
        benchmark(run, *pair)
