"""Bundles that several engine tests share."""

from __future__ import annotations

import pytest
from engine_bundles import flat_task, random_weights, trimodal_task

from jmt_edge.engine.bundle import Bundle


@pytest.fixture(scope="session")
def trimodal(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_weights(trimodal_task(), tmp_path_factory.mktemp("engine") / "trimodal.jmt")


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_weights(flat_task(), tmp_path_factory.mktemp("engine") / "flat.jmt")
