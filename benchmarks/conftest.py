"""Fixtures of the benchmarks: bundles of random weights, made once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from jmt_edge.engine.bundle import Bundle


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """`make_bundle("pain", "full")`: random weights, for timing only."""
    pytest.importorskip("torch", reason="torch is not installed")
    from jmt_edge.compiler.export import random_bundle
    from jmt_edge.tasks import get_task

    made: dict[tuple[str, str], Bundle] = {}
    root: Path = tmp_path_factory.mktemp("bundles")

    def make(task: str, variant: str) -> Bundle:
        if (task, variant) not in made:
            made[task, variant] = random_bundle(get_task(task, variant), root / f"{task}-{variant}.jmt")  # type: ignore[arg-type]
        return made[task, variant]

    return make
