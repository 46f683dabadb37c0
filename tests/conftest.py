"""Fixtures that every area shares."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# OpenCV reads this once, at the first video of a process; the product sets it before its own first one
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# a deadline is an absolute time, which a busy machine misses
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

if find_spec("torch"):  # the run-time is tested without it too (scripts/profiles.py)
    import kernels_on_cpu  # noqa: F401


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


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A command line called in this process sets the level and handlers of the product's log."""
    log = logging.getLogger("jmt_edge")
    level, handlers = log.level, list(log.handlers)
    yield
    log.setLevel(level)
    log.handlers[:] = handlers


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
