"""The scripts of `examples/`, each run as a reader would run it, against something that does not use them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TOKEN = "a-token-of-the-test"


def _run(name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def _results(lines: str) -> list[dict[str, Any]]:
    """Results without what a clock decided."""
    return [{k: v for k, v in json.loads(line).items() if k != "latency_ms"} for line in lines.splitlines()]


def test_every_example_is_short_and_tested() -> None:
    here = Path(__file__).read_text()
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) >= 4
    for script in scripts:
        assert f'"{script.name}"' in here, f"no test runs {script.name}"
        assert len(script.read_text().splitlines()) <= 60


def test_own_source_gives_what_the_same_samples_give_from_a_file(tmp_path: Path) -> None:
    t = np.arange(0, 40, 1 / 16)
    us = np.round(5 + 0.3 * np.sin(t / 2), 4)
    us[(t >= 20) & (t < 24)] = np.nan
    rows = [(f"{a:.4f}", f"{b:.4f}") for a, b in zip(t, us)]
    done = _run("own_source.py", input="".join(f"{a} {b}\n" for a, b in rows))
    assert done.returncode == 0, done.stderr
    file = tmp_path / "eda.csv"
    file.write_text("t,uS\n" + "".join(f"{a},{'' if b == 'nan' else b}\n" for a, b in rows))
    live = [sys.executable, "-m", "jmt_edge", "live", "--task", "pain", "--eda", str(file), "--speed", "max"]
    reference = subprocess.run([*live, "--output", "jsonl"], capture_output=True, text=True, timeout=120, check=True)
    results = _results(done.stdout)
    assert results == _results(reference.stdout)
    spoken = [r["t"] for r in results if r["outputs"] is not None]
    assert spoken and min(spoken) >= 5.4 and not any(21.5 < s < 24 for s in spoken)


def test_own_observer_notes_the_electrode_that_comes_off() -> None:
    done = _run("own_observer.py")
    assert done.returncode == 0, done.stderr
    changes = re.findall(r"^ *([\d.]+) s  (\w+) (usable|absent: .+)$", done.stdout, re.M)
    face = [(float(t), what) for t, name, what in changes if name == "face"]
    eda = [(float(t), what) for t, name, what in changes if name == "eda"]
    assert [what for _, what in face] == ["usable"]
    (first, _), (off, reason), (again, _) = eda
    # the electrode is off from 15 s to 20 s, and 5 s around bad data do not count either
    assert 5.4 <= first <= 6 and 15 < off <= 16.5 and again >= 25 and "electrode open" in reason
    counts = {name: (int(a), int(b)) for name, a, b in re.findall(r"(\w+) took part in (\d+) of (\d+)", done.stdout)}
    assert counts["eda"] == (round((off - first) / 0.5) + round((35 - again) / 0.5) + 1, 70)


def test_own_backbone_is_what_the_bundle_computes(tmp_path: Path) -> None:
    from safetensors.numpy import load

    from jmt_edge.engine.backends import open_engine
    from jmt_edge.engine.bundle import load_bundle

    done = _run("own_backbone.py", str(tmp_path / "moments.jmt"))
    assert done.returncode == 0, done.stderr
    assert any(r["outputs"] is not None for r in _results(done.stdout))
    bundle = load_bundle(tmp_path / "moments.jmt")
    assert bundle.task.modality("eda").backbone == "eda_moments"
    assert set(bundle.manifest["untrained_networks"]) == {"face", "eda", "fusion"}
    weights = load(bundle.read("eda.safetensors"))
    m = bundle.task.modality("eda")
    clip = np.random.default_rng(0).gamma(4, 1, (3, *m.shape)).astype(np.float32)
    x = clip[:, 0].astype(np.float64)
    moments = np.stack([x.mean(1), x.std(1), x.max(1) - x.min(1)], 1)
    features = open_engine(bundle, "onnxruntime", threads=1).backbones({"eda": clip})["eda"]
    np.testing.assert_allclose(features, moments @ weights["fc.weight"].T + weights["fc.bias"], rtol=1e-4, atol=1e-5)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The address that a running `jmt-edge live --page` prints."""
    command = [
        sys.executable, "-m", "jmt_edge", "live", "--task", "affect", "--microphone", "sim:seed=3", "--output", "none",
        "--page", "127.0.0.1:0",
    ]  # fmt: skip
    environment = {**os.environ, "JMT_EDGE_PAGE_TOKEN": TOKEN}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as live:
        assert live.stderr is not None
        try:
            yield next(line.split()[-1] for line in live.stderr if line.startswith("page: http"))
        finally:
            live.terminate()
            live.communicate(timeout=30)


def test_page_client_logs_in_and_prints_results(page: str) -> None:
    assert page.endswith(f"#token={TOKEN}")
    done = _run("page_client.py", page, "--results", "3")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 3 and all(r["task"] == "affect" for r in results)
    assert all(r["quality"]["face"]["reason"] == "no source" for r in results)
    times = [r["t"] for r in results]
    assert times == sorted(set(times))
    refused = _run("page_client.py", page.replace(TOKEN, "x" * len(TOKEN)))
    assert refused.returncode == 1 and refused.stderr.startswith("401: ") and "Traceback" not in refused.stderr
    nobody = _run("page_client.py", "http://127.0.0.1:1/")
    assert nobody.returncode == 1 and "no answer from" in nobody.stderr and "Traceback" not in nobody.stderr
