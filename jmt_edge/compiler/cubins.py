"""Compile a bundle's fusion to cubins, ahead of time and without a GPU; `engine.cubins` reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.bundle import Bundle
from ..engine.cubins import INDEX, SCHEMA, TENSORS
from ..errors import BackendError, ConfigError
from ..kernels.aot import Compiled, Target, compile_schedule, target
from ..kernels.layout import weights_of
from ..kernels.reference import Reference, run_table
from ..kernels.schedule import DType, Schedule, activation, build_schedule, choose_tiles
from ..kernels.weights import FusionWeights
from ..models.folding import FoldedPlan
from ..models.fusion import Fusion

_TOLERANCE = 4.0  # times the error of eager PyTorch in the same precision, at the start-up check


def compile_cubins(
    plan: FoldedPlan | Fusion | FusionWeights,
    targets: Sequence[str],
    S: int,
    B: int = 1,
    dtype: DType = "float16",
) -> tuple[dict[str, bytes], dict[str, Any], dict[str, Any]]:
    """Compile a fusion for each target (`sm_87`, ...): files for the bundle, manifest section, resource report.

    The kernels give the last step's outputs, which is what an engine's `fusion` gives.
    Raises ConfigError for an unknown target or a fusion the kernels do not compute, BackendError where a cubin
    spills registers or asks for more shared memory than the target has.
    """
    from safetensors.numpy import save

    if not targets:
        raise ConfigError("no cubin target given; for example --cubin sm_87,sm_110")
    weights = plan if isinstance(plan, FusionWeights) else weights_of(plan)
    files: dict[str, bytes] = {}
    entries: dict[str, Any] = {}
    report: dict[str, Any] = {}
    tensors: dict[str, NDArray[Any]] = {}
    for to in [target(name) for name in dict.fromkeys(targets)]:
        schedule, compiled = _compile(weights, B, S, dtype, to)
        files[f"cubins/{to.sm}/fusion.cubin"] = compiled.cubin
        report[to.sm] = asdict(compiled.report)
        entries[to.sm] = {
            "cubin": f"cubins/{to.sm}/fusion.cubin",
            "kernel": compiled.kernel,
            "threads": compiled.threads,
            "shared": compiled.shared,
            "params": [list(p) for p in compiled.params],
            "tiles": asdict(schedule.tiles),
            "weights": "merged" if schedule.tiles.merge else "apart",
            "work_size": schedule.work_size,
            "resources": report[to.sm],
        }
        # weights and biases depend on the merging of phases, not on the tiles; the tables on both
        kind = "merged" if schedule.tiles.merge else "apart"
        tensors |= {f"weights.{kind}": schedule.weights, f"params.{kind}": schedule.params}
        tensors |= {f"{to.sm}.table": schedule.table, f"{to.sm}.phases": schedule.phases}
    features, present, expected, error = _check_sample(weights, B, S, dtype, schedule)
    tensors |= {"check.features": features, "check.present": present, "check.expected": expected}
    files[TENSORS] = save(tensors)
    index = {
        "schema": SCHEMA,
        "dtype": dtype,
        "batch": B,
        "steps": S,
        "dim": weights.dim,
        "modalities": list(weights.modalities),
        "outputs": [list(o) for o in weights.outputs],
        "weight_bytes": int(schedule.weights.nbytes),
        "eager_error": error,
        "tolerance": _TOLERANCE * error,
        "targets": entries,
    }
    files[INDEX] = json.dumps(index, indent=1).encode()
    section = {"index": INDEX, "precision": dtype, "steps": S, "batch": B, "targets": list(entries)}
    return files, section, report


def _compile(weights: FusionWeights, batch: int, steps: int, dtype: DType, to: Target) -> tuple[Schedule, Compiled]:
    """With the tiles that suit the device, or the first of some narrower ones that spill no register."""

    wanted = choose_tiles(to.sm_count, dtype)
    narrower = [
        replace(wanted, attend=64, warps=8), replace(wanted, attend=64, warps=8, merge=False),
        replace(wanted, attend=64, warps=4, merge=False), replace(wanted, attend=32, warps=8, merge=False),
        replace(wanted, attend=32, warps=4, merge=False),
    ]  # fmt: skip
    failure: BackendError | None = None
    for tiles in [wanted, *(t for t in narrower if t != wanted)]:
        schedule = build_schedule(weights, batch, steps, dtype, tiles, last=True)
        try:
            return schedule, compile_schedule(schedule, to)
        except BackendError as error:
            failure = error
    assert failure is not None
    raise failure


def _check_sample(
    weights: FusionWeights, batch: int, steps: int, dtype: DType, schedule: Schedule
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float]:
    """A random input with absent modalities, its last step's answer in float64, eager PyTorch's relative error."""
    import torch

    rng = np.random.default_rng(0)
    shape = (len(weights.modalities), batch, steps, weights.dim)
    features = rng.standard_normal(shape).astype(np.float16).astype(np.float32)
    present = (rng.random((batch, steps, shape[0])) > 0.2).astype(np.float32)
    inputs = (torch.from_numpy(features), torch.from_numpy(present))
    with torch.no_grad():
        exact = Reference(weights, torch.float64)(*inputs, last=True)[0].numpy()
        eager = Reference(weights, getattr(torch, activation(dtype)))(*inputs, last=True)[0].double().numpy()
    error = float(np.linalg.norm(eager - exact) / np.linalg.norm(exact))
    if dtype == "int8":
        exact = run_table(schedule, features.astype(np.float64), present > 0.5)[0]
    return features, present, exact.astype(np.float32), error


def bundle_cubins(bundle: Bundle, targets: Sequence[str]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """`compile_cubins` in float16 for a bundle's own fusion and steps, at batch 1: files and manifest additions.

    Raises ConfigError where the bundle holds neither the folded fusion nor its training weights.
    """
    files, section, _ = compile_cubins(_fusion(bundle), targets, bundle.task.steps)
    return files, {"cubins": section}


def _fusion(bundle: Bundle) -> FoldedPlan | Fusion:
    entry = bundle.networks["fusion"]
    if entry.get("folded"):
        return FoldedPlan.from_safetensors(bundle.read("fusion_folded.safetensors"))
    if "weights" not in entry:
        raise ConfigError(f"bundle {bundle.path} holds no weights of its fusion to compile; export it with them")
    from safetensors.torch import load

    from ..models.joint import build_model

    fusion = build_model(bundle.task).fusion
    fusion.load_state_dict(load(bundle.read(entry["weights"])))
    return fusion.eval()
