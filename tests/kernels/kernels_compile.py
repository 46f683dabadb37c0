"""Run as a script: compile the cubins that the tests inspect into the folder given."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from kernels_fixture import random_jmt
from safetensors.numpy import save

from jmt_edge.compiler.cubins import _compile, bundle_cubins
from jmt_edge.engine.bundle import write_bundle
from jmt_edge.kernels.aot import target
from jmt_edge.kernels.layout import weights_of
from jmt_edge.models.folding import fold
from jmt_edge.models.fusion import JMT
from jmt_edge.tasks import get_task

# case: target, M, heads, S, precision; every target at the papers' size, each precision and size on one of them
CASES = {
    "sm_87-float16": ("sm_87", 2, 1, 16, "float16"),
    "sm_90-float16": ("sm_90", 2, 1, 16, "float16"),
    "sm_110-float16": ("sm_110", 2, 1, 16, "float16"),
    "sm_87-int8": ("sm_87", 2, 1, 16, "int8"),
    "sm_90-bfloat16-s64-m3": ("sm_90", 3, 1, 64, "bfloat16"),
    "sm_110-float32": ("sm_110", 2, 1, 16, "float32"),
    "sm_87-float16-8x64": ("sm_87", 2, 8, 16, "float16"),
}


def triton_minor() -> tuple[int, ...]:
    import triton

    return tuple(int(part) for part in triton.__version__.split(".")[:2])


def demo_bundle(out: Path) -> None:
    """A bundle of a small fusion without backbones, with cubins for three targets."""
    task = replace(get_task("pain", "demo"), steps=3)
    torch.manual_seed(0)
    fusion = JMT(task.names, task.dim, task.outputs).double().eval()
    tensors, metadata = fold(fusion).to_safetensors_dict()
    manifest = {"name": "demo", "task": task.to_dict(), "networks": {"fusion": {"folded": True}}}
    files: dict[str, bytes | Path] = {"fusion_folded.safetensors": save(tensors, metadata)}
    bare = write_bundle(out / "bare.jmt", manifest, files)
    cubins, section = bundle_cubins(bare, ["sm_87", "sm_90"])
    write_bundle(out / "demo.jmt", {**manifest, **section}, {**files, **cubins})


def main(out: Path) -> None:
    models = {(2, 1): random_jmt(2, 512), (3, 1): random_jmt(3, 512), (2, 8): random_jmt(2, 512, 8)}
    reports, params = {}, {}
    for case, (sm, m, heads, steps, dtype) in CASES.items():
        if sm == "sm_110" and dtype == "float32" and triton_minor() < (3, 7):
            continue  # its ptxas does not know the target
        _, done = _compile(weights_of(models[m, heads]), 1, steps, dtype, target(sm))  # type: ignore[arg-type]
        reports[case], params[case] = asdict(done.report), done.params
        (out / f"{case}.ptx").write_text(done.ptx)
    demo_bundle(out)
    (out / "reports.json").write_text(json.dumps(reports))
    (out / "params.json").write_text(json.dumps(params))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
