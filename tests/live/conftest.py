"""Fixtures of the live tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from live_fixture import hand_bundle, tracker

from jmt_edge.engine.bundle import Bundle
from jmt_edge.tasks import get_task

__all__ = ["bundles", "tracker"]


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
