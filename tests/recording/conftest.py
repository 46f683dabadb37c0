"""Fixtures of the recording tests."""

from __future__ import annotations

import sys
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
