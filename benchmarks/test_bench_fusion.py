"""Group `fusion`: full size, S = 16, batch 1, on a CPU; every contender is checked against the published equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from published import like  # noqa: E402

from jmt_edge.engine.backends import open_engine, unavailable  # noqa: E402
from jmt_edge.kernels.folding import fold  # noqa: E402
from jmt_edge.models.fusion import JMT  # noqa: E402

S, DIM = 16, 512
pytestmark = pytest.mark.benchmark(group="fusion: affect, S = 16, batch 1, one thread")


@pytest.fixture(scope="module")
def setting() -> dict[str, Any]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    ours = JMT(("face", "voice"), DIM, ("valence", "arousal")).eval()
    inputs = {name: torch.randn(1, S, DIM) for name in ours.modalities}
    with torch.no_grad():
        return {"ours": ours, "theirs": like(ours), "inputs": inputs, "expected": ours(inputs)}


def _check(found: Any, setting: dict[str, Any], tolerance: float = 1e-4) -> None:
    for name, value in setting["expected"].items():
        np.testing.assert_allclose(np.asarray(found[name]), value.numpy(), atol=tolerance * float(value.abs().max()))


def test_published_eager(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = setting["ours"], setting["theirs"]
    v, p = (x.transpose(0, 1) for x in setting["inputs"].values())

    def run() -> dict[str, Any]:
        with torch.no_grad():
            return ours.heads(theirs(v, p).transpose(0, 1))

    _check(run(), setting)
    benchmark(run)


def test_ours_eager(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    def run() -> dict[str, Any]:
        with torch.no_grad():
            return setting["ours"](setting["inputs"])

    benchmark(run)


def test_published_compiled(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    import shutil

    if not shutil.which("g++"):
        pytest.skip("torch.compile on a CPU needs g++")
    compiled = torch.compile(setting["theirs"])
    v, p = (x.transpose(0, 1) for x in setting["inputs"].values())

    def run() -> dict[str, Any]:
        with torch.no_grad():
            return setting["ours"].heads(compiled(v, p).transpose(0, 1))

    _check(run(), setting)
    benchmark(run)


def test_published_onnxruntime(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    from jmt_edge.engine.export import unfolded_graph
    from jmt_edge.engine.fidelity import session

    run = session(unfolded_graph(setting["ours"], DIM, S).SerializeToString(), threads=1)
    feeds = {n: x.numpy() for n, x in setting["inputs"].items()} | {"present": np.ones((1, S, 2), np.float32)}
    names = ["valence", "arousal"]
    _check(dict(zip(names, run.run(names, feeds))), setting)
    benchmark(run.run, names, feeds)


def test_folded_numpy(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    plan = fold(setting["ours"])
    feeds = {n: x.numpy() for n, x in setting["inputs"].items()}
    present = np.ones((1, S, 2), np.float32)
    _check(plan.run_numpy(feeds, present), setting)
    benchmark(plan.run_numpy, feeds, present)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_product(benchmark, setting, backend: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """What `live` runs: the folded plan as one ONNX graph."""
    reason = unavailable(backend)
    if reason:
        pytest.skip(f"{backend}: {reason}")
    from jmt_edge.engine.export import export_bundle
    from jmt_edge.models import build_model
    from jmt_edge.tasks import get_task

    task = get_task("affect")
    model = build_model(task).eval()
    model.fusion.load_state_dict(setting["ours"].state_dict())
    bundle = export_bundle(model, task, tmp_path / "b.jmt", name="b", provenance={"weights": "random"})
    engine = open_engine(bundle, backend, 1)
    feeds = {n: x.numpy() for n, x in setting["inputs"].items()}
    present = np.ones((1, S, 2), bool)
    _check(engine.fusion(feeds, present), setting)
    benchmark(engine.fusion, feeds, present)
