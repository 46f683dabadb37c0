"""What only a GPU can show: full size on all multiprocessors, and the launcher's calls to a real driver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kernels_fixture import inputs, oracle, random_jmt

from jmt_edge.compiler.cubins import compile_cubins
from jmt_edge.engine.backends import cubin
from jmt_edge.engine.bundle import load_bundle, write_bundle
from jmt_edge.engine.cubins import read_cubins
from jmt_edge.engine.device import current_device
from jmt_edge.kernels.aot import TARGETS
from jmt_edge.kernels.layout import weights_of
from jmt_edge.kernels.ops import FusedFusion
from jmt_edge.tasks import get_task

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]


@pytest.mark.parametrize("mode", ["persistent", "staged", "phased"])
@pytest.mark.parametrize(("m", "heads", "batch", "steps"), [(2, 1, 1, 16), (3, 1, 1, 64), (2, 1, 64, 7), (2, 8, 3, 33)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("kernel_name", ["auto", "triton"])
def test_full_size(
    m: int, heads: int, batch: int, steps: int, kernel_name: str, last: bool, dtype: str, mode: str
) -> None:
    model = random_jmt(m, 512, heads)
    same = random_jmt(m, 512, heads).to("cuda", getattr(torch, dtype))
    kernel = FusedFusion(weights_of(model), batch, steps, dtype, "cuda", mode, last=last, kernel=kernel_name)  # type: ignore[arg-type]
    assert kernel.kernel == ("native" if dtype == "float16" and heads == 1 and kernel_name == "auto" else "triton")
    features, present = inputs(m, batch, steps, 512, seed=steps)
    features = features.to(getattr(torch, dtype)).float()
    want, _ = oracle(model, features, present, last)
    features, present = features.cuda(), present.cuda()
    eager, _ = oracle(same, features, present, last)
    first, _ = kernel.raw(features, present)
    error, eager_error = (float((x.double().cpu() - want).norm()) for x in (first, eager))
    assert error <= 2 * eager_error
    phased = FusedFusion(weights_of(model), batch, steps, dtype, "cuda", "phased", last=last, kernel=kernel_name)  # type: ignore[arg-type]
    assert torch.equal(phased.raw(features, present)[0], first)
    for _ in range(200):  # a race would show as a result that moves
        assert torch.equal(kernel.raw(features, present)[0], first)


@pytest.mark.parametrize("mode", ["persistent", "staged", "phased"])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize(("dim", "name"), [(512, "native"), (128, "triton")])
def test_sanitized(dim: int, name: str, mode: str, dtype: str) -> None:
    """What scripts/sanitize-kernels.sh runs under compute-sanitizer: a few launches, odd sizes, a mask."""
    features, present = (t.cuda() for t in inputs(3, 2, 5, dim, seed=1))
    kernel = FusedFusion(weights_of(random_jmt(3, dim)), 2, 5, dtype, "cuda", mode, last=True)  # type: ignore[arg-type]
    assert kernel.kernel == name
    for _ in range(3):
        logits, share = kernel.raw(features.half(), present)
    assert torch.isfinite(logits).all() and torch.isfinite(share).all()


def test_launcher_runs_a_cubin_of_this_device(tmp_path: Path) -> None:
    device = current_device()
    if device.sm not in TARGETS:
        pytest.skip(f"no cubin target {device.sm}")
    task = replace(get_task("pain"), steps=16)
    files, section, _ = compile_cubins(weights_of(random_jmt(2, 512)), [device.sm], 16)
    index = files["cubins.json"].replace(b'"voice"', b'"eda"')  # the fixture's second modality is called voice
    manifest = {"name": "gpu", "task": task.to_dict(), "networks": {"fusion": {}}, "cubins": section}
    bundle = write_bundle(tmp_path / "gpu.jmt", manifest, {**files, "cubins.json": index})
    fusion = cubin.FusedFusion(read_cubins(load_bundle(bundle.path), device.sm), device.sms)
    features, present = inputs(2, 3, 16, 512, seed=1)
    want, _ = oracle(random_jmt(2, 512), features, present, last=True)
    got = fusion(dict(zip(task.names, features.numpy())), present.numpy() > 0.5)
    fusion.close()
    logits = np.concatenate([got["pain"], got["valence"][..., None], got["arousal"][..., None]], -1)
    assert np.linalg.norm(logits - want.numpy()) / np.linalg.norm(want.numpy()) < 0.02
