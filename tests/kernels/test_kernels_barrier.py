"""The grid barrier with several programs: one process each, in Triton's interpreter, over shared memory."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
import torch
from kernels_fixture import inputs, random_jmt

import jmt_edge.kernels.ops as ops
from jmt_edge.kernels.fusion import fusion_kernel, interpreted
from jmt_edge.kernels.layout import weights_of
from jmt_edge.kernels.schedule import Tiles

PROGRAMS = 3


def one_program(i: int, arguments: list[torch.Tensor], scalars: tuple[int, ...], options: dict[str, Any]) -> None:
    """Program `i` of a launch of PROGRAMS: the interpreter itself would run them one after the other."""
    from triton.runtime.interpreter import interpreter_builder as builder

    torch.set_num_threads(1)
    set_index, set_dim = builder.set_grid_idx, builder.set_grid_dim
    builder.set_grid_dim = lambda *_: set_dim(PROGRAMS, 1, 1)
    builder.set_grid_idx = lambda *_: set_index(i, 0, 0)
    for _ in range(2):  # twice: the counter must be ready again
        fusion_kernel[(1,)](*arguments, *scalars, **options)


@pytest.mark.skipif(not interpreted(), reason="a GPU runs the persistent kernel itself (test_kernels_fusion.py)")
@pytest.mark.parametrize("head", ["concat", "self_attention"])
def test_programs_wait_for_each_other(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "choose_tiles", lambda *_: Tiles(16, 32, programs=PROGRAMS))
    model = random_jmt(2, 32, head=head)
    features, present = inputs(2, 1, 2, 32, seed=20)
    kernel = ops.FusedFusion(weights_of(model), 1, 2, "float32", "cpu")
    want = kernel.raw(features, present)
    got = (torch.full_like(want[0], float("nan")), torch.full_like(want[1], float("nan")))
    kernel.work.fill_(float("nan"))
    plan = kernel.schedule.plan([(0, len(kernel.schedule.phases))], PROGRAMS)
    barrier = torch.zeros(plan.counters, dtype=torch.int32)
    tensors = [
        features, kernel.work, kernel.weights, kernel.params, present, *got, torch.from_numpy(plan.rows),
        torch.from_numpy(plan.index), barrier,
    ]  # fmt: skip
    for tensor in tensors:
        tensor.share_memory_()
    options = {**kernel.schedule.constants, "COMPILED": False}
    scalars = (2, 0)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=one_program, args=(i, tensors, scalars, options), daemon=True) for i in range(PROGRAMS)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=200)
    assert [process.exitcode for process in processes] == [0] * PROGRAMS
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])
    assert int(barrier[0]) == 2  # launches, which the keeper counts
    assert int(barrier[32]) == 2 * PROGRAMS
