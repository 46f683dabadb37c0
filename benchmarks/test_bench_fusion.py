"""Group `fusion`: full size, S = 16, batch 1, on a CPU; every contender is checked against the published equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from published import like  # noqa: E402

from jmt_edge.engine.backends import BACKENDS, open_engine, unavailable  # noqa: E402
from jmt_edge.engine.bundle import Bundle  # noqa: E402
from jmt_edge.errors import BackendError  # noqa: E402
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

    _check(run(), setting)
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


@pytest.fixture(scope="module")
def bundle(setting, tmp_path_factory: pytest.TempPathFactory) -> Bundle:  # type: ignore[no-untyped-def]
    """The fusion at full size behind the demo's small backbones, which are not run here."""
    from jmt_edge.engine.export import export_bundle
    from jmt_edge.models import build_model
    from jmt_edge.tasks import get_task

    task = replace(get_task("affect", "demo"), dim=DIM)
    model = build_model(task).eval()
    model.fusion.load_state_dict(setting["ours"].state_dict())
    path = tmp_path_factory.mktemp("fusion") / "b.jmt"
    return export_bundle(model, task, path, name="b", provenance={"weights": "random"})


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "torch-compile"])  # it compiles for minutes
def test_product(benchmark, setting, bundle: Bundle, backend: str) -> None:  # type: ignore[no-untyped-def]
    """What `live` runs: the folded plan as one ONNX graph, or as the device's engine."""
    reason = unavailable(backend)
    if reason:
        pytest.skip(f"{backend}: {reason}")
    try:
        engine = open_engine(bundle, backend, 1)
    except BackendError as error:  # a device's engines come from `jmt-edge build`
        pytest.skip(str(error))
    feeds = {n: x.numpy() for n, x in setting["inputs"].items()}
    present = np.ones((1, S, 2), bool)
    _check(engine.fusion(feeds, present), setting)
    benchmark(engine.fusion, feeds, present)


def test_triton(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    """Our kernel in one launch, fp16; `fusion_gpu.py` measures it with CUDA graphs."""
    if not torch.cuda.is_available():
        pytest.skip("the Triton kernel needs an NVIDIA GPU; see benchmarks/fusion_gpu.py")
    from jmt_edge.kernels.layout import weights_of
    from jmt_edge.kernels.ops import FusedFusion

    kernel = FusedFusion(weights_of(setting["ours"].double()), 1, S, "float16", "cuda", "persistent")
    setting["ours"].float()
    features = torch.stack(list(setting["inputs"].values())).half().cuda()
    present = torch.ones(1, S, 2, device="cuda")

    def run() -> Any:
        logits = kernel.raw(features, present)[0]
        torch.cuda.synchronize()
        return logits

    found = run().float().cpu()
    _check({name: found[..., i] for i, name in enumerate(setting["ours"].outputs)}, setting, 0.02)
    benchmark(run)
