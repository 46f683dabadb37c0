"""Group `fusion`: full size, S = 16, batch 1, on a CPU.

Every contender computes what a hop needs, the last step's outputs, and is checked against the published equations.
The published module cannot compute the last step alone, so it takes the time of all S steps in every runtime; ours
computes only the last step unless its name says `all_steps`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from published import like  # noqa: E402

from jmt_edge.engine.backends import BACKENDS, open_engine, unavailable  # noqa: E402
from jmt_edge.engine.bundle import Bundle  # noqa: E402
from jmt_edge.errors import BackendError  # noqa: E402
from jmt_edge.models.fusion import JMT  # noqa: E402

S, DIM = 16, 512
pytestmark = pytest.mark.benchmark(group="fusion: a hop's outputs, affect, S = 16, batch 1, one thread")


@pytest.fixture(scope="module")
def setting() -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    ours = JMT(("face", "voice"), DIM, ("valence", "arousal")).eval()
    inputs = {name: torch.randn(1, S, DIM) for name in ours.modalities}
    with torch.no_grad():
        theirs = like(ours)
        feeds = {name: x.numpy() for name, x in inputs.items()}
        yield {
            "ours": ours, "theirs": theirs, "inputs": inputs, "expected": theirs(*inputs.values()),
            "feeds": feeds, "present": np.ones((1, S, 2), np.float32),
        }  # fmt: skip


def _time(benchmark: Any, setting: dict[str, Any], run: Callable[[], Any], tolerance: float = 1e-4) -> None:
    """Times `run` if the last step of its outputs, by name or in the task's order, is the published one."""
    found = run()
    if not isinstance(found, Mapping):
        found = dict(zip(setting["expected"], found))
    for name, value in setting["expected"].items():
        got, want = np.asarray(found[name])[:, -1], value[:, -1].numpy()
        np.testing.assert_allclose(got, want, atol=tolerance * float(value.abs().max()))
    benchmark(run)


def test_published_eager(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    _time(benchmark, setting, lambda: setting["theirs"](*setting["inputs"].values()))


@pytest.mark.parametrize("steps", ["last_step", "all_steps"])
def test_ours_eager(benchmark, setting, steps: str) -> None:  # type: ignore[no-untyped-def]
    _time(benchmark, setting, lambda: setting["ours"](setting["inputs"], last=steps == "last_step"))


@pytest.mark.parametrize("steps", ["last_step", "all_steps"])
def test_folded_eager(benchmark, setting, steps: str) -> None:  # type: ignore[no-untyped-def]
    """The folded matrices in eager PyTorch, float32: what folding alone gives, and what the last step alone gives."""
    from jmt_edge.kernels.layout import weights_of
    from jmt_edge.kernels.reference import Reference

    reference = Reference(weights_of(setting["ours"]), torch.float32)
    features, present = torch.stack(list(setting["inputs"].values())), torch.ones(1, S, 2)
    _time(benchmark, setting, lambda: reference(features, present, steps == "last_step")[0].movedim(-1, 0))


def test_published_compiled(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    if not shutil.which("g++"):
        pytest.skip("torch.compile on a CPU needs g++")
    compiled = torch.compile(setting["theirs"])
    _time(benchmark, setting, lambda: compiled(*setting["inputs"].values()))


def test_published_onnxruntime(benchmark, setting, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The published module, exported without changes: the other baseline that needs no compiler."""
    from jmt_edge.engine.session import session

    names, file = ["valence", "arousal"], tmp_path / "published.onnx"
    torch.onnx.export(
        setting["theirs"], tuple(setting["inputs"].values()), str(file), input_names=["face", "voice"],
        output_names=names, opset_version=20, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    run = session(file.read_bytes(), threads=1)
    _time(benchmark, setting, lambda: run.run(names, setting["feeds"]))


def test_unfolded_onnxruntime(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    """The graph of a fusion that does not fold (several heads): the last step alone, four matrices an attention."""
    from jmt_edge.compiler.export import unfolded_graph
    from jmt_edge.engine.session import session

    run = session(unfolded_graph(setting["ours"], DIM, S).SerializeToString(), threads=1)
    feeds = setting["feeds"] | {"present": setting["present"]}
    _time(benchmark, setting, lambda: run.run(["valence", "arousal"], feeds))


@pytest.fixture(scope="module")
def bundle(setting, tmp_path_factory: pytest.TempPathFactory) -> Bundle:  # type: ignore[no-untyped-def]
    """The fusion at full size behind the demo's small backbones, which are not run here."""
    from jmt_edge.compiler.export import export_bundle
    from jmt_edge.models import build_model
    from jmt_edge.tasks import get_task

    task = replace(get_task("affect", "demo"), dim=DIM)
    model = build_model(task).eval()
    model.fusion.load_state_dict(setting["ours"].state_dict())
    path = tmp_path_factory.mktemp("fusion") / "b.jmt"
    return export_bundle(model, task, path, name="b", provenance={"weights": "random"})


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "torch-compile"])  # it compiles for minutes
def test_product(benchmark, setting, bundle: Bundle, backend: str) -> None:  # type: ignore[no-untyped-def]
    """What `live` runs: the folded plan as one ONNX graph of the last step, or as the device's engine."""
    reason = unavailable(backend)
    if reason:
        pytest.skip(f"{backend}: {reason}")
    try:
        engine = open_engine(bundle, backend, 1)
    except BackendError as error:  # a device's engines come from `jmt-edge build`
        pytest.skip(str(error))
    _time(benchmark, setting, lambda: engine.fusion(setting["feeds"], setting["present"] > 0))


def test_triton(benchmark, setting) -> None:  # type: ignore[no-untyped-def]
    """Our kernel in one launch, fp16; `fusion_gpu.py` measures it with CUDA graphs."""
    if not torch.cuda.is_available():
        pytest.skip("the Triton kernel needs an NVIDIA GPU; see benchmarks/fusion_gpu.py")
    from jmt_edge.kernels.layout import weights_of
    from jmt_edge.kernels.ops import FusedFusion

    kernel = FusedFusion(weights_of(setting["ours"]), 1, S, "float16", "cuda", "persistent", last=True)
    features = torch.stack(list(setting["inputs"].values())).half().cuda()
    present = torch.ones(1, S, 2, device="cuda")

    _time(benchmark, setting, lambda: kernel.raw(features, present)[0].movedim(-1, 0).cpu(), 0.02)
