"""PyTorch, for development: the trained modules, eager, on the GPU if there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .base import F32, TwoCalls

if TYPE_CHECKING:
    import torch


def available() -> str | None:
    """Does not import torch, which takes seconds."""
    return None if find_spec("torch") else "torch is not installed (pip install 'jmt-edge[train]')"


def load(bundle: Bundle, threads: int | None = None) -> TorchEngine:
    """Raises BackendError where the bundle has no training weights."""
    from ...models.from_bundle import load_modules

    return TorchEngine("torch", bundle, load_modules(bundle), threads)


class TorchEngine(TwoCalls):
    """See `Engine`. `modules` {network: positional module}, see `torch_modules`; `threads` holds for the process."""

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        modules: Mapping[str, Callable[..., Any]],
        threads: int | None,
        precision: Mapping[str, str] | None = None,
    ) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self.name = name
        self._task = bundle.task
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._modules = {n: m.to(self._device) if isinstance(m, torch.nn.Module) else m for n, m in modules.items()}
        self.precision = dict(precision or dict.fromkeys(self._modules, "fp32"))

    def backbones(self, clips: Mapping[str, F32]) -> dict[str, F32]:
        return {name: self._run(name, clip)[0] for name, clip in clips.items()}

    def fusion(self, features: Mapping[str, F32], present: NDArray[np.bool_]) -> dict[str, F32]:
        found = self._run("fusion", present.astype(np.float32), *(features[name] for name in self._task.names))
        return dict(zip(("attention", *self._task.outputs), found))

    def close(self) -> None:
        self._modules.clear()

    def _run(self, name: str, *inputs: F32) -> list[F32]:
        import torch

        # by default cuDNN computes float32 convolutions in TF32
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found = self._modules[name](*(torch.from_numpy(np.ascontiguousarray(x)).to(self._device) for x in inputs))
        outputs: tuple[torch.Tensor, ...] = found if isinstance(found, tuple) else (found,)
        return [value.float().cpu().numpy() for value in outputs]
