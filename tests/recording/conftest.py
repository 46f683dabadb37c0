"""Fixtures of the recording tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "live"))

from live_fixture import hand_bundle

from jmt_edge.engine.bundle import Bundle
from jmt_edge.tasks import get_task


@pytest.fixture(scope="session")
def trimodal(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of all three modalities whose networks are made by hand."""
    return hand_bundle(get_task("trimodal", "demo"), tmp_path_factory.mktemp("bundle") / "trimodal-hand.jmt")


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
