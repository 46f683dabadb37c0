"""The fusion kernels as a `torch.library` operator and as a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from . import native
from .fusion import MAX_REGISTERS, fusion_kernel, interpreted
from .schedule import DType, Schedule, activation, build_schedule, choose_tiles
from .weights import FusionWeights

_NAMES = ("D", "M", "MP", "HEADS", "BN", "BC", "KS", "SP", "KSA", "KA", "LP", "HP", "NO", "OPS", "NW", "LO", "CO")


@torch.library.custom_op("jmt_edge::joint_fusion", mutates_args={"work", "barrier"})
def joint_fusion(
    features: Tensor,
    present: Tensor,
    weights: Tensor,
    params: Tensor,
    plan: Tensor,
    index: Tensor,
    work: Tensor,
    barrier: Tensor,
    results: int,
    outputs: int,
    cooperative: Sequence[int],
    constants: Sequence[int],
    eps: float,
    warps: int,
    programs: int,
    pitch: int = 1,
    function: int = 0,
    shared: int = 0,
) -> tuple[Tensor, Tensor]:
    """features (M, B, S, d), present (B, S, M) -> logits (B, R, outputs), attention (B, R, M), both float32.

    R = `results` is S, or 1 for the last step alone. `weights` to `index` and `constants` come from a Schedule for
    exactly this B, S, R, d and M and its plan for `programs` programs, `pitch` rows each; `cooperative`: 1 or 0 for
    each of its launches. `function`, a
    CUfunction with `shared` bytes of shared memory, is the kernel of `native`; 0 means Triton's.
    """
    m, batch, steps, _ = features.shape
    logits = features.new_empty((batch, results, outputs), dtype=torch.float32)
    attention = features.new_empty((batch, results, m), dtype=torch.float32)
    features, here = features.to(work.dtype).contiguous(), present.to(torch.float32).contiguous()
    named = dict(zip(_NAMES, constants))
    for launch, together in enumerate(cooperative):
        if function:
            pointers = (features, work, weights, params, here, logits, attention, plan, index, barrier)
            native.launch(
                function, shared, programs, bool(together), torch.cuda.current_stream(features.device).cuda_stream,
                [*(t.data_ptr() for t in pointers), batch * steps, launch, pitch],
            )  # fmt: skip
            continue
        fusion_kernel[(programs,)](
            features, work, weights, params, here, logits, attention, plan, index, barrier, batch * steps, launch,
            **named, PRECISION="ieee", EPS=eps, COMPILED=not interpreted(), num_warps=warps, num_stages=1,
            maxnreg=MAX_REGISTERS, launch_cooperative_grid=bool(together),
        )  # fmt: skip
    return logits, attention


@joint_fusion.register_fake
def _(  # type: ignore[no-untyped-def]
    features, present, weights, params, plan, index, work, barrier, results, outputs, cooperative, constants, eps,
    warps, programs, pitch=1, function=0, shared=0,
):  # fmt: skip
    m, batch, _, _ = features.shape
    return (
        features.new_empty((batch, results, outputs), dtype=torch.float32),
        features.new_empty((batch, results, m), dtype=torch.float32),
    )


class FusedFusion(torch.nn.Module):
    """A fusion for one B and S on one device. `mode`: persistent, staged or phased (see `Schedule.launches`).

    `last`: the outputs of the last step alone, its axis kept at length 1 (R = 1 below, else R = S).
    `kernel`: `native` (CUDA C++, see `native.obstacle`), `triton`, or `auto`, native where it serves the schedule.
    `programs`: programs per launch; by default one per multiprocessor, in the interpreter one (where a
    launch of several phases runs with exactly one, because it executes programs one after the other).
    """

    def __init__(
        self,
        weights: FusionWeights,
        batch: int,
        steps: int,
        dtype: DType = "float16",
        device: str | torch.device = "cuda",
        mode: str = "persistent",
        programs: int | None = None,
        last: bool = False,
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        device = torch.device(device)
        if device.type == "cuda":
            properties = torch.cuda.get_device_properties(device)
            count = properties.multi_processor_count
            major, minor = properties.major, properties.minor
        else:
            count = 1
        self.schedule: Schedule = build_schedule(weights, batch, steps, dtype, choose_tiles(count, dtype), last=last)
        s = self.schedule
        if device.type != "cuda" and not interpreted():
            raise ConfigError("the fusion kernels run on a CPU only in Triton's interpreter; set TRITON_INTERPRET=1")
        if interpreted() and mode != "phased" and (programs or 1) > 1:
            raise ConfigError("Triton's interpreter runs one program at a time; give programs=1 or mode='phased'")
        self.mode, self.attends = mode, weights.head == "self_attention"
        self.programs = count if programs is None else programs
        self.dtype = getattr(torch, activation(dtype))
        matrices = torch.from_numpy(s.weights.view(np.int16) if dtype == "bfloat16" else s.weights)
        self.register_buffer("weights", matrices.view(torch.bfloat16) if dtype == "bfloat16" else matrices)
        self.register_buffer("params", torch.from_numpy(s.params))
        plan = s.plan(s.launches(mode), self.programs)
        self.register_buffer("plan", torch.from_numpy(plan.rows))
        self.register_buffer("index", torch.from_numpy(plan.index))
        self.register_buffer("work", torch.full((s.work_size,), float("nan"), dtype=self.dtype))
        self.register_buffer("barrier", torch.zeros(plan.counters, dtype=torch.int32))
        self.to(device)
        self.pitch, self._function, self._shared = plan.pitch, 0, 0
        if device.type == "cuda" and kernel != "triton" and not interpreted():
            reason = native.obstacle(s)
            if reason and kernel == "native":
                raise ConfigError(f"the native fusion kernel does not serve {reason}; use kernel='triton'")
            if not reason:
                torch.zeros(1, device=device)  # its context is current from here on
                self._shared = native.shared_bytes(s)
                self._function = native.load(native.compile_native(s, f"sm_{major}{minor}"), self._shared)
        self.kernel = "native" if self._function else "triton"
        self._cooperative = [int(together) for together in plan.cooperative]
        self._constants = [int(s.constants[name]) for name in _NAMES]

    def raw(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """features (M, B, S, d) in the activation dtype, present (B, S, M) -> logits (B, R, outputs), attention."""
        s = self.schedule
        if features.shape[1:3] != (s.batch, s.steps):
            asked = tuple(features.shape[1:3])
            raise ConfigError(f"this fusion was laid out for B, S = {s.batch}, {s.steps}, not {asked}; lay out another")
        return joint_fusion(
            features, present, self.weights, self.params, self.plan, self.index, self.work, self.barrier,
            s.results, s.logits, self._cooperative, self._constants, float(s.constants["EPS"]), s.tiles.warps,
            self.programs, self.pitch, self._function, self._shared,
        )  # fmt: skip

    def forward(
        self, features: Mapping[str, Tensor], present: Tensor | None = None, return_attention: bool = False
    ) -> dict[str, Tensor]:
        """Per modality (B, S, d) -> per output (B, R) or, with several logits, (B, R, logits); and `attention`."""
        stacked = torch.stack([features[name] for name in self.schedule.modalities]).to(self.dtype)
        if present is None:
            present = stacked.new_ones((*stacked.shape[1:3], len(self.schedule.modalities)))
        logits, attention = self.raw(stacked, present)
        parts = torch.split(logits, [n for _, n in self.schedule.outputs], -1)
        results = {name: part if n > 1 else part[..., 0] for (name, n), part in zip(self.schedule.outputs, parts)}
        if return_attention and self.attends:
            results["attention"] = attention
        return results

    def buffer(self, name: str) -> Tensor:
        """A stage's result in the work buffer, for tests: `enc` (N, B·S, d), `z` (L, B·R, d), ..."""
        offset, shape = self.schedule.buffers[name]
        work: Tensor = self.work  # type: ignore[assignment]
        return work[offset : offset + int(np.prod(shape))].view(shape)
