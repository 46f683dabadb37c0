"""Runs the Triton kernels in Triton's interpreter where there is no GPU. Imported once, before any test's module."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch

# Triton chooses when it is first imported, and any test's module may be the first to import it
_ours = "TRITON_INTERPRET" not in os.environ and not torch.cuda.is_available()
if _ours:
    os.environ["TRITON_INTERPRET"] = "1"
import triton.experimental.gluon  # noqa: E402 - Triton imports it later otherwise, and it asks again

import jmt_edge.kernels.fusion  # noqa: E402, F401

if _ours:
    del os.environ["TRITON_INTERPRET"]  # child processes, such as those that compile, are not concerned
    from triton.runtime.interpreter import interpreter_builder

    # each integer operation in int64 again, to look for overflow: a quarter of the time; offsets here stay small
    interpreter_builder.options = replace(interpreter_builder.options, sanitize_overflow=False)

    # sums of several tensors at once go element by element through Python there; one sum does not
    from triton.language import core
    from triton.runtime.interpreter import ReduceOps

    from jmt_edge.kernels.fusion import _add2, _add3

    _element_by_element = ReduceOps.generic_reduce
    ReduceOps.generic_reduce = lambda self, input: (
        tuple(self.sum(x) for x in input) if self.combine_fn in (_add2, _add3) else _element_by_element(self, input)
    )

    # each call of a function in a kernel puts the interpreter into the language again: a third of the time; what the
    # kernel's own call has done lasts until the kernel ends
    from triton.runtime import interpreter

    _patch_lang = interpreter._patch_lang
    _patched: set[int] = set()

    @cache
    def _languages(function: Callable[..., object]) -> frozenset[int]:
        return frozenset(id(x) for x in function.__globals__.values() if x is triton.language or x is core)

    class _Scope:
        def __init__(self, scope: interpreter._LangPatchScope) -> None:
            self._scope = scope

        def restore(self) -> None:
            self._scope.restore()
            _patched.clear()

    def _patch_once(function: Callable[..., object]) -> _Scope | None:
        if _languages(function) <= _patched:
            return None
        scope = _patch_lang(function)
        _patched.update(_languages(function))
        return _Scope(scope)

    interpreter._patch_lang = _patch_once
