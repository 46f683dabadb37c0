"""The cost of a fusion at batch 1 on this machine's CPU: parameters, FLOPs, latency, peak memory."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from ..tasks import Task


@dataclass(frozen=True)
class Cost:
    """Of one fusion at batch 1.

    flops: of matrix products and convolutions, counting multiplications and additions. latency_ms: median of 30 passes
    on one thread. memory_mb: weights plus the peak of all other live tensors, in 10^6 bytes.
    """

    parameters: int
    flops: int
    latency_ms: float
    memory_mb: float


def measure(fusion: nn.Module, task: Task) -> Cost:
    """Cost of a fusion's forward pass at batch 1 on this CPU with one thread."""
    names = fusion.modalities  # type: ignore[union-attr]
    x = {m: torch.randn(1, task.steps, task.dim) for m in names}  # type: ignore[union-attr]
    present = torch.ones(1, task.steps, len(x))
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            fusion(x, present)
        times = _times(lambda: fusion(x, present))
    memory = peak_memory(fusion, lambda: fusion(x, present))
    parameters = sum(p.numel() for p in fusion.parameters())
    return Cost(parameters, counter.get_total_flops(), 1000 * float(np.median(times)), memory / 1e6)


def _times(run: Callable[[], Any], count: int = 30) -> list[float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            run()
        times = []
        for _ in range(count):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return times
    finally:
        torch.set_num_threads(threads)


def peak_memory(network: nn.Module, run: Callable[[], Any]) -> int:
    """Bytes of `network`'s weights and buffers plus the peak of all other live tensors during `run`.

    Counted by storage, so views cost nothing; memory that an operator allocates and frees internally is not counted.
    """
    kept = [*network.parameters(), *network.buffers()]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}
    with torch.no_grad(), Alive(set(storages)) as alive:
        run()
    return alive.peak + sum(storages.values())


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the storages that operators allocate, each until it is freed; on the meta device, those that they would
    allocate. known: storages (`_cdata`) that are not counted."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known, self.sizes, self.now, self.peak = known, dict[int, int](), 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in (t for t in tree_flatten(out)[0] if isinstance(t, Tensor)):
            storage = tensor.untyped_storage()
            key = storage._cdata
            # an input's storage is the caller's, or was counted when an operator made it
            if key in self.known or key in self.sizes or key in given:
                continue
            self.sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key)
        return out

    def _freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)
