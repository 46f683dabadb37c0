"""Runs the Triton kernels in Triton's interpreter where there is no GPU. Imported once, before any test's module."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

# Triton chooses when it is first imported, and any test's module may be the first to import it
_ours = "TRITON_INTERPRET" not in os.environ and not torch.cuda.is_available()
if _ours:
    os.environ["TRITON_INTERPRET"] = "1"
import triton.experimental.gluon  # noqa: E402, F401 - Triton imports it later otherwise, and it asks again

import jmt_edge.kernels.fusion  # noqa: E402, F401

if _ours:
    del os.environ["TRITON_INTERPRET"]  # child processes, such as those that compile, are not concerned
    from triton.runtime.interpreter import interpreter_builder

    # each integer operation in int64 again, to look for overflow: a quarter of the time; offsets here stay small
    interpreter_builder.options = replace(interpreter_builder.options, sanitize_overflow=False)

    # sums of several tensors at once go element by element through Python there; one sum does not
    from triton.runtime.interpreter import ReduceOps

    from jmt_edge.kernels.fusion import _add2, _add3

    _element_by_element = ReduceOps.generic_reduce
    ReduceOps.generic_reduce = lambda self, input: (
        tuple(self.sum(x) for x in input) if self.combine_fn in (_add2, _add3) else _element_by_element(self, input)
    )
