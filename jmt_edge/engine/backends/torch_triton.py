"""PyTorch with the fusion in our Triton kernels, compiled for this machine's GPU, to try a kernel before it is built
into a bundle (`--cubin`). The backbones run eager.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...errors import BackendError, ConfigError
from ..bundle import Bundle
from ..device import no_device
from .torch import TorchEngine
from .torch import available as torch_available

if TYPE_CHECKING:
    import torch

_TOLERANCE = 2e-2  # relative L2 error of an FP16 fusion against its float32 graph


def available() -> str | None:
    return no_device() or torch_available() or (None if find_spec("triton") else "triton is not installed")


def load(bundle: Bundle, threads: int | None = None) -> TorchEngine:
    """Raises BackendError where the kernels cannot compute the bundle's fusion, or their results differ."""
    from ...kernels.layout import weights_of
    from ...models.from_bundle import check_against_graph, load_modules

    modules: dict[str, Any] = dict(load_modules(bundle))
    try:
        fusion = _Triton(weights_of(modules["fusion"].fusion), bundle.task.steps)
    except ConfigError as error:
        raise BackendError(f"{error} or --backend torch") from None
    check_against_graph(bundle, "fusion", fusion, _TOLERANCE)
    modules["fusion"] = fusion
    precision = dict.fromkeys(bundle.task.names, "fp32") | {"fusion": "fp16"}
    return TorchEngine("torch-triton", bundle, modules, threads, precision)


class _Triton:
    """(present, *features) -> (attention, *outputs) of the last step, on the GPU; one layout per batch size."""

    def __init__(self, weights: Any, steps: int) -> None:
        self._weights, self._steps = weights, steps
        self._fusions: dict[int, Any] = {}
        self._fusion(1)

    def _fusion(self, batch: int) -> Any:
        from ...kernels.ops import FusedFusion

        if batch not in self._fusions:
            self._fusions[batch] = FusedFusion(self._weights, batch, self._steps, "float16", "cuda", last=True)
        return self._fusions[batch]

    def __call__(self, present: torch.Tensor, *features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        names = self._weights.modalities
        moved = {name: x.cuda() for name, x in zip(names, features)}
        out = self._fusion(len(present))(moved, present.cuda(), True)
        attention = out["attention"] if "attention" in out else present.cuda()[:, -1:] * 0
        return (attention, *(out[name] for name, _ in self._weights.outputs))
