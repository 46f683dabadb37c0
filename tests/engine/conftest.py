"""Bundles that several engine tests share. They are made by torch; without it, what needs them is skipped."""

from __future__ import annotations

import pytest

from jmt_edge.engine.bundle import Bundle


@pytest.fixture(scope="session")
def trimodal(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _random("trimodal", tmp_path_factory)


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _random("flat", tmp_path_factory)


def _random(name: str, folders: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("torch", reason="torch is not installed, and makes the bundle")
    import engine_bundles

    task = {"flat": engine_bundles.flat_task, "trimodal": engine_bundles.trimodal_task}[name]()
    return engine_bundles.random_weights(task, folders.mktemp("engine") / f"{name}.jmt")
