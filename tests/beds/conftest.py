"""Fixtures of the beds' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from beds_fixture import Mosquitto


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    started: list[Mosquitto] = []

    def start(*extra: str) -> Mosquitto:
        started.append(Mosquitto(tmp_path, *extra))
        return started[-1]

    yield start
    for one in started:
        one.close()
