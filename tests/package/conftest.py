"""Fixtures of the package's tests."""

from __future__ import annotations

import pytest
from package_fixture import Distributions, build


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return build(tmp_path_factory.mktemp("distributions"))
