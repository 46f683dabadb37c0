"""PyTorch's compiler over the same modules, for development. The first load compiles, which takes minutes."""

from __future__ import annotations

import os
import shutil

from ...errors import BackendError, short
from ..bundle import Bundle
from .torch import TorchEngine
from .torch import available as torch_available


def available() -> str | None:
    reason = torch_available()
    if reason is None and not shutil.which(os.environ.get("CXX", "g++")):
        return "torch.compile needs a C++ compiler (g++, or the one that CXX names)"
    return reason


def load(bundle: Bundle, threads: int | None = None) -> TorchEngine:
    """Raises BackendError where torch's compiler fails, or its output differs from the graph's."""
    import torch

    from ...models.from_bundle import check_against_graph, load_modules

    device = "cuda" if torch.cuda.is_available() else "cpu"
    modules = {name: torch.compile(module.to(device)) for name, module in load_modules(bundle).items()}
    for name, module in modules.items():
        try:
            check_against_graph(bundle, name, module)
        except BackendError:
            raise
        except Exception as error:  # the compiler's errors share no base class
            raise BackendError(f"torch.compile fails on '{name}' ({short(error)}); use --backend torch") from None
    return TorchEngine("torch-compile", bundle, modules, threads)
