"""Compile the fusion kernel to a cubin for a device that is not here, and read what the cubin needs.

Triton brings ptxas, cuobjdump and nvdisasm in its wheel, so no CUDA toolkit and no GPU is needed.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ..errors import BackendError, ConfigError
from . import native
from .fusion import MAX_REGISTERS, PARAMETERS, fusion_kernel, interpreted
from .schedule import Schedule, activation

REGISTERS = 65_536  # per multiprocessor, on every target below
RESERVED = 1024  # bytes of shared memory that the driver keeps per block


@dataclass(frozen=True)
class Target:
    """A compute capability: CUDA C Programming Guide, table "Technical Specifications per Compute Capability".

    Shared memory in bytes, per block (opt-in) and per multiprocessor; `sm_count` is the smallest common device's,
    for the tile choice only (8 on an Orin Nano, 20 on a Thor, 132 on an H200).
    """

    sm: str
    shared_block: int
    shared_sm: int
    warps_sm: int
    sm_count: int

    @property
    def capability(self) -> int:
        return int(self.sm.removeprefix("sm_"))


TARGETS = {
    t.sm: t
    for t in (
        Target("sm_80", 163 * 1024, 164 * 1024, 64, 108),
        Target("sm_86", 99 * 1024, 100 * 1024, 48, 20),
        Target("sm_87", 163 * 1024, 164 * 1024, 48, 8),
        Target("sm_89", 99 * 1024, 100 * 1024, 48, 24),
        Target("sm_90", 227 * 1024, 228 * 1024, 64, 132),
        Target("sm_100", 227 * 1024, 228 * 1024, 64, 148),
        Target("sm_110", 227 * 1024, 228 * 1024, 48, 20),
        Target("sm_120", 99 * 1024, 100 * 1024, 48, 36),
    )
}


def target(sm: str) -> Target:
    """Raises ConfigError for a name that is not in TARGETS."""
    if sm not in TARGETS:
        raise ConfigError(f"no cubin target '{sm}': choose among {', '.join(TARGETS)}")
    return TARGETS[sm]


def targets(text: str) -> list[str]:
    """`sm_87,sm_110` -> names, each once. Raises ConfigError for an unknown one, or none."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"--cubin '{text}' lists no device; write for example --cubin sm_87,sm_110")
    for name in names:
        target(name)
    return names


@dataclass(frozen=True)
class Report:
    """Resources of a compiled kernel, read from the cubin.

    `spills`: local-memory instructions (0 wanted); `stack`, `shared` in bytes per block, the driver's reserve
    left out; `blocks_per_sm` and `occupancy` (warps resident over warps possible) are estimates from registers,
    shared memory and warps; `tensor_core` and `wide_loads` (16 bytes a thread) count SASS instructions.
    """

    registers: int
    stack: int
    spills: int
    shared: int
    shared_limit: int
    warps: int
    blocks_per_sm: int
    occupancy: float
    tensor_core: int
    wide_loads: int
    instructions: int

    def problems(self) -> list[str]:
        """What would make this cubin slow or unlaunchable; empty when it passes the gate."""
        found = []
        if self.spills or self.stack:
            found.append(f"{self.spills} local-memory instructions and {self.stack} bytes of stack")
        if self.shared > self.shared_limit:
            found.append(f"{self.shared} bytes of shared memory, the limit is {self.shared_limit}")
        if self.blocks_per_sm < 1:
            found.append("no block fits a multiprocessor")
        return found


@dataclass(frozen=True)
class Compiled:
    """A cubin with what a launcher must know. `params`: (name, offset, size) in bytes, in the kernel's order."""

    sm: str
    cubin: bytes
    ptx: str
    kernel: str
    threads: int
    shared: int
    params: tuple[tuple[str, int, int], ...]
    report: Report


def compile_schedule(schedule: Schedule, to: Target) -> Compiled:
    """Compile for `schedule`'s sizes and dtype: `native`'s kernel where it serves them, else Triton's.

    Raises BackendError where the cubin fails the gate (spills, shared memory) or the compiler fails.
    """
    if interpreted():
        raise BackendError("TRITON_INTERPRET is set, so Triton does not compile; unset it to build cubins")
    names: Sequence[str] = native.PARAMETERS
    if native.obstacle(schedule):
        compiled = _compile_triton(schedule, to)
        cubin, ptx, kernel = compiled.asm["cubin"], compiled.asm["ptx"], str(compiled.metadata.name)
        threads, shared = schedule.tiles.warps * 32, int(compiled.metadata.shared)
        names = (*PARAMETERS, "p_global_scratch", "p_profile_scratch")
    else:
        cubin, ptx, kernel = native.compile_native(schedule, to.sm), "", "fusion_kernel"
        threads, shared = native.THREADS, native.shared_bytes(schedule)
    report = inspect(cubin, shared, threads // 32, to)
    if report.problems():
        raise BackendError(f"the fusion compiled for {to.sm} {schedule.dtype} uses {', '.join(report.problems())}")
    return Compiled(to.sm, cubin, ptx, kernel, threads, shared, parameters(cubin, names), report)


def _compile_triton(schedule: Schedule, to: Target) -> Any:
    act = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}[activation(schedule.dtype)]
    types = {
        "p_features": act, "p_work": act, "p_weights": "i8" if schedule.dtype == "int8" else act,
        "p_plan": "i32", "p_index": "i32", "p_barrier": "i32",
    }  # fmt: skip
    signature = {n: f"*{types.get(n, 'fp32')}" if n.startswith("p_") else "i32" for n in PARAMETERS}
    constants: dict[str, Any] = {**schedule.constants, "COMPILED": True}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(PARAMETERS) if n.startswith("p_")}
    source = ASTSource(fusion_kernel, signature | dict.fromkeys(constants, "constexpr"), constants, aligned)
    options = {
        "num_warps": schedule.tiles.warps, "num_stages": 1, "maxnreg": MAX_REGISTERS, "launch_cooperative_grid": True,
    }  # fmt: skip
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True  # a quarter of the size
        try:
            return triton.compile(source, target=GPUTarget("cuda", to.capability, 32), options=options)
        except Exception as error:  # LLVM's, ptxas's and Triton's errors share no base class
            reason = " ".join(str(error).split())[:300]
            raise BackendError(f"Triton cannot compile the fusion for {to.sm} ({reason}); report it") from error


def inspect(cubin: bytes, shared: int, warps: int, to: Target) -> Report:
    """Registers, stack, spills and instruction counts of a cubin with one kernel."""
    usage = _tool("cuobjdump", "--dump-resource-usage", cubin)
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    sass = _tool("cuobjdump", "--dump-sass", cubin)
    ops = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", sass, re.MULTILINE)
    registers = -(-found["REG"] * 32 // 256) * 256  # per warp, in the allocator's units
    blocks = min(REGISTERS // (registers * warps), to.shared_sm // (shared + RESERVED), to.warps_sm // warps)
    return Report(
        registers=found["REG"],
        stack=found["STACK"] + found["LOCAL"],
        spills=sum(op.startswith(("LDL", "STL")) for op in ops),
        shared=shared,
        shared_limit=to.shared_block,
        warps=warps,
        blocks_per_sm=blocks,
        occupancy=blocks * warps / to.warps_sm,
        tensor_core=sum(op.startswith(("HMMA", "HGMMA", "IMMA")) for op in ops),
        wide_loads=sum(op.startswith("LDG") and ".128" in op for op in ops),
        instructions=len(ops),
    )


def parameters(cubin: bytes, names: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """(name, offset, size) of each parameter, from the cubin's own table.

    Triton appends two pointers that no Python signature shows: global and profile scratch, unused here.
    """
    text = _tool("cuobjdump", "--dump-elf", cubin)
    pattern = r"Ordinal\s*:\s*(0x[0-9a-f]+)\s+Offset\s*:\s*(0x[0-9a-f]+)\s+Size\s*:\s*(0x[0-9a-f]+)"
    rows = sorted((int(a, 16), int(b, 16), int(c, 16)) for a, b, c in re.findall(pattern, text))
    if len(rows) != len(names):
        raise BackendError(f"the cubin takes {len(rows)} parameters, not {len(names)}: this Triton is not supported")
    return tuple((name, offset, size) for name, (_, offset, size) in zip(names, rows))


def _tool(name: str, flag: str, cubin: bytes) -> str:
    """Output of a CUDA binary tool of the Triton wheel."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        path = getattr(triton.knobs.nvidia, name).path
        done = subprocess.run([path, flag, str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"{name} cannot read the cubin ({done.stderr.strip()[:200]}); reinstall triton")
    return done.stdout
