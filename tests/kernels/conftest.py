"""Without a GPU the kernels run in Triton's interpreter, which Triton chooses when it is first imported."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

_ours = "TRITON_INTERPRET" not in os.environ and not torch.cuda.is_available()
if _ours:
    os.environ["TRITON_INTERPRET"] = "1"
import triton.experimental.gluon  # noqa: E402, F401 - Triton imports it later otherwise, and it asks again

import jmt_edge.kernels.fusion  # noqa: E402, F401

if _ours:
    del os.environ["TRITON_INTERPRET"]  # child processes, such as those that compile, are not concerned


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _poison_new_tensors() -> Iterator[None]:
    """Uninitialised memory is NaN: an output that no kernel wrote cannot pass for a result."""
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled
