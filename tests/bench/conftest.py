"""One whole measurement of the trimodal demo bundle, on an Orin Nano's files."""

from __future__ import annotations

from typing import Any

import pytest
from bench_tree import write_tree

from jmt_edge.bench.measure import bench
from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.bundle import load_bundle


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = write_tree(tmp_path_factory.mktemp("orin"))
    with pytest.MonkeyPatch.context() as patch:  # the command's own test has a real one
        patch.setattr("jmt_edge.bench.measure.first_result", lambda *a: 1.5)
        return bench(load_bundle(demo_bundle("trimodal")), duration=2.0, batch=2, threads=1, processes=2, root=root)
