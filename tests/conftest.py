"""Fixtures that every area shares."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")
# OpenCV reads this once, at the first video of a process; the product sets it before its own first one
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# a deadline is an absolute time, which a busy machine misses
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

# Without a GPU the kernels run in Triton's interpreter. Triton chooses when it is first imported, and any test's module
# may be the first to import it.
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


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings beside the checkout; tests that need it skip where it is absent."""
    path = Path(os.environ.get("JMT_EDGE_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real recordings at {path} (set JMT_EDGE_TEST_DATA)")
    return path


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `jmt-edge ARGS` in this process: (exit code, standard output, standard error)."""
    from jmt_edge.cli import main

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jmt-edge", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return call


# Tests whose subject is real time (a browser, a sound server, a board on a pseudo-terminal): they run after the
# others, a file beside a file, because a starved machine is not what they are about and most of their time is waiting.
REAL_TIME = (
    "test_page_browser.py",
    "test_capture_microphone.py",
    "test_eda_source.py",
    "test_capture_camera.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in REAL_TIME:
            item.add_marker("realtime")
