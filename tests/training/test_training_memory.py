"""The memory of a run is predicted before it starts, near what is measured, and refused with the number."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_tools as tools
from click.testing import CliRunner

from jmt_edge.cli import cli
from jmt_edge.errors import ConfigError
from jmt_edge.machine import memory_available
from jmt_edge.tasks import Task
from jmt_edge.training import memory
from jmt_edge.training.data import cut_windows
from jmt_edge.training.memory import PROCESS, WORKER, Part, Prediction, predict_memory, require_memory
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.recipes import load_recipe, names

FACTOR = 1.5  # between prediction and measurement, promised in training/memory.py
PAPERS = ["--recipe", "biovid-eda", "--set", 'spans={"eda":10}', "--set", 'shapes={"eda":[1,2500]}', "--set",
          "eda.epochs=1", "--workers", "1", "--accelerator", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EDA of 8 people, 160 windows each: a batch of 1024 as in the paper."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 0.05, (1280, 2500)), np.arange(1280) % 2
    x[y == 1, 1200:] += 0.5
    return tools.write_painmonit(tmp_path_factory.mktemp("memory") / "data", x, y, np.arange(1280) // 160)


RUN = """
import json, re, sys
from pathlib import Path
from jmt_edge.cli import main
def kb(name): return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
from jmt_edge.training import experiment
began, expected = [], []
predict = experiment.predict_memory
def kept(*a, **k):
    began.append(kb("VmRSS"))
    expected.append(predict(*a, **k))
    began[-1] = kb("VmRSS")  # after PyTorch's first work
    return expected[-1]
experiment.predict_memory = kept
sys.argv = ["jmt-edge", *sys.argv[1:]]
try: main()
except SystemExit as end: assert not end.code, end.code
print(json.dumps([began[0] * 1024, kb("VmHWM") * 1024, expected[0].needed, expected[0].mapped]))
"""


@pytest.mark.slow
def test_the_peak_is_what_was_predicted(data: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", RUN, "train", *PAPERS, "--data", data, "--out", tmp_path / "run", "--cache",
         tmp_path / "cache", "--protocol", "holdout", "--threads", "1", "--quiet", "--no-bundle"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    before, peak, needed, mapped = json.loads(found.stdout.splitlines()[-1])
    grown = peak - before
    assert grown > 500e6  # the run, not PyTorch, is what was measured
    assert grown / FACTOR <= needed + mapped <= grown * FACTOR


def test_the_prediction_follows_batch_processes_and_workers(data: Path) -> None:
    recipe = load_recipe("biovid-eda", ['spans={"eda":10}', 'shapes={"eda":[1,2500]}'])
    windows = cut_windows(open_cohort(data), recipe.resolve())

    def needed(*changes: str, **how: int) -> int:
        changed = load_recipe("biovid-eda", ['spans={"eda":10}', 'shapes={"eda":[1,2500]}', *changes])
        return predict_memory(windows, changed, **how).needed

    whole, half, quarter = needed(), needed("eda.batch=512"), needed("eda.batch=256")
    assert whole - half == pytest.approx(2 * (half - quarter), rel=0.02)  # activations follow the batch
    assert needed("eda.batch=4096") == needed("eda.batch=1280")  # no batch is larger than the data
    two = needed(processes=2)
    assert two == pytest.approx(2 * whole + PROCESS, rel=0.01)
    small = needed("eda.batch=8", workers=1)
    assert needed("eda.batch=8", workers=40) > max(small, 40 * WORKER)
    stored = predict_memory(windows, recipe).mapped
    assert stored == 1280 * 4 * (2500 + 512)  # clips and features, float32


def test_every_recipe_has_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    biovid = open_cohort(tools.write_biovid(tmp_path, 1, 1, video=False))
    parts: dict[tuple[Any, ...], Part] = {}  # recipes share backbones, each of which is run on the meta device

    def once(part: Callable[..., Part]) -> Callable[..., Part]:
        def of(task: Task, *which: Any) -> Part:
            key = (part, task.dim, task.outputs, *which)
            if key not in parts:
                parts[key] = part(task, *which)
            return parts[key]

        return of

    for part in (memory._backbone, memory._extraction):
        monkeypatch.setattr(memory, part.__name__, once(part))
    for name in names():
        recipe = load_recipe(name, variant="demo")
        task = recipe.resolve()
        rows = {m: np.arange(20 * task.steps).reshape(20, task.steps) for m in task.names}
        windows = cut_windows(biovid, load_recipe("biovid-eda").resolve())
        windows.task, windows.rows = task, rows
        windows.clips = {m: [(0, float(i)) for i in range(20 * task.steps)] for m in task.names}
        found = predict_memory(windows, recipe)
        assert found.needed > WORKER and all(part.bytes > 0 for part in found.phases), name


def test_too_much_is_refused_with_the_numbers_and_the_remedy(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = (1_000_000_000, "under the limit of 2.0 GB of cgroup job")
    monkeypatch.setattr("jmt_edge.training.memory.memory_available", lambda: limit)
    arguments = ["train", *PAPERS, "--data", data, "--out", tmp_path / "run", "--cache", tmp_path / "cache", "--quiet"]

    def refused(*more: str) -> str:
        done = CliRunner().invoke(cli, [str(a) for a in (*arguments, *more)])
        assert isinstance(done.exception, ConfigError), done.output
        return str(done.exception)

    text = refused()
    assert re.search(r"needs about 1\.\d GB of memory \(1\.\d GB to train the eda backbone on batches of 1024\)", text)
    assert "1.0 GB are available under the limit of 2.0 GB of cgroup job" in text and "--set eda.batch=N" in text
    assert not list(tmp_path.glob("cache/clips/*/*.npy"))  # nothing was cut
    assert "in 3 processes" in refused("--processes", "3", "--set", "eda.batch=256", "--folds", "3")
    done = CliRunner().invoke(cli, ["train", "--check", str(data), *PAPERS[:6], "--workers", "1"])
    assert done.exit_code == 0 and "memory      about 1." in done.output, done.output


def test_enough_or_unknown_is_not_refused() -> None:
    one = Prediction(0, (Part("cut", 10, ""), Part("train", 5, "")), 10**12)  # mapped files are not refused
    require_memory(one, (10, ""))
    with pytest.raises(ConfigError):
        require_memory(one, (9, ""))


# ---- what there is -----------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, {"proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n"})
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_without_cgroups_it_is_the_machines(root: Path, tmp_path: Path) -> None:
    assert memory_available(root) == (8_000_000 << 10, "on this machine")
    assert memory_available(tmp_path / "nowhere") is None


def test_a_limit_of_any_group_above_counts_and_cache_that_can_be_dropped_does_not(root: Path) -> None:
    write(root, {
        "proc/self/cgroup": "0::/user.slice/job.scope\n",
        "sys/fs/cgroup/user.slice/memory.max": "4000000000\n",
        "sys/fs/cgroup/user.slice/memory.current": "3000000000\n",
        "sys/fs/cgroup/user.slice/memory.stat": "anon 5\ninactive_file 500000000\nactive_file 9\n",
        "sys/fs/cgroup/user.slice/job.scope/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/job.scope/memory.current": "100\n",
    })  # fmt: skip
    assert memory_available(root) == (1_500_000_000, "under the limit of 4.0 GB of cgroup user.slice")


def test_version_1_and_a_container_that_sees_the_hosts_path(root: Path) -> None:
    write(root, {
        "proc/self/cgroup": "4:cpu,memory:/docker/abc\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "2100000000\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
    })  # fmt: skip
    assert memory_available(root) == (0, "under the limit of 2.0 GB of cgroup memory")
    write(root, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"})  # no limit
    assert memory_available(root) == (8_000_000 << 10, "on this machine")
