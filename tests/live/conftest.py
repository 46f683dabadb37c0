"""Fixtures of the live tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from live_fixture import Tracker, hand_bundle

from jmt_edge.clips import face
from jmt_edge.engine.bundle import Bundle
from jmt_edge.tasks import get_task


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """The hand-made demo-width bundle of a task."""
    made: dict[str, Bundle] = {}

    def get(name: str) -> Bundle:
        if name not in made:
            folder = tmp_path_factory.mktemp("bundles")
            made[name] = hand_bundle(get_task(name, "demo"), folder / f"{name}-hand.jmt")
        return made[name]

    return get


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame shows a face at the same place; nothing is searched for."""
    monkeypatch.setattr(face, "FaceDetector", lambda: None)
    monkeypatch.setattr(face, "FaceTracker", Tracker)
