"""Loggers write where they say; launchers start processes that take jobs, each with a GPU of its own."""

from __future__ import annotations

import csv
import os
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from launch_jobs import mark

from jmt_edge.cli import cli
from jmt_edge.errors import ConfigError, InstallError
from jmt_edge.models.joint import build_fusion
from jmt_edge.training import launch, loggers
from jmt_edge.training.keys import Key
from jmt_edge.training.launch import Launcher, helpers, own_gpu, require_launcher, visible_gpus
from jmt_edge.training.loggers import parse_loggers
from jmt_edge.training.networks import FusionStep
from jmt_edge.training.recipes import Stage, load_recipe
from jmt_edge.training.sets import FeatureSet
from jmt_edge.training.trainer import Device, fit

TASK = load_recipe("biovid-jmt", variant="demo").resolve()
EPOCHS = 3


def train(folder: Path, names: str) -> None:
    g = torch.Generator().manual_seed(0)
    features = {m: torch.randn(1, 16, 64, generator=g) for m in TASK.names}
    rows = {m: torch.arange(16)[:, None] for m in TASK.names}
    labels = {"pain": (torch.arange(16) % 2).float()[:, None]}
    data = FeatureSet(features, rows, torch.ones(16, 1, 2), labels)
    stage = Stage("adamw", 1e-3, batch=8, epochs=EPOCHS)
    device = Device("cpu", quiet=True, loggers=parse_loggers(names))
    fit(FusionStep(build_fusion(TASK, "concat")), data, data, stage, folder / "fusion", name="fusion", seed=0,
        key=Key({"a": 1}), device=device)  # fmt: skip


# ---- loggers ------------------------------------------------------------------------------------------------------


def test_csv_and_tensorboard_hold_the_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, "csv,tensorboard")
    rows = list(csv.DictReader((tmp_path / "fusion" / "csv" / "metrics.csv").open()))
    written = [float(r["val_loss"]) for r in rows if r["val_loss"]]
    events = EventAccumulator(str(tmp_path / "fusion" / "tensorboard"))
    events.Reload()
    assert len(written) == EPOCHS
    assert [e.value for e in events.Scalars("val_loss")] == pytest.approx(written, rel=1e-5)


def test_none_writes_no_curves(tmp_path: Path) -> None:
    train(tmp_path, "none")
    assert not {"csv", "tensorboard", "mlruns"} & {f.name for f in (tmp_path / "fusion").iterdir()}


def test_mlflow_writes_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train(tmp_path, "mlflow")
    client = mlflow.MlflowClient((tmp_path / "fusion" / "mlruns").as_uri())
    (experiment,) = [e for e in client.search_experiments() if e.name == loggers.PROJECT]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == f"{tmp_path.name}/fusion" and run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "val_loss")) == EPOCHS


def test_wandb_writes_offline_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc
    train(tmp_path, "wandb")
    assert list((tmp_path / "fusion").glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.parametrize("name", ["mlflow", "wandb", "tensorboard"])
def test_a_missing_logger_is_one_sentence_before_any_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda module: None)
    with pytest.raises(InstallError, match=rf"--logger {name} needs \w+; install it with pip install 'jmt-edge\["):
        parse_loggers(f"csv,{name}")
    result = CliRunner().invoke(cli, ["train", "--recipe", "biovid-jmt", "--data", ".", "--out", "x", "--logger", "z"])
    assert result.exit_code != 0


def test_an_unknown_logger_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose among csv, tensorboard, mlflow, wandb, or none"):
        parse_loggers("csv,comet")


pytestmark = pytest.mark.timeout(900)


# ---- launchers ----------------------------------------------------------------------------------------------------


def marks(folder: Path, count: int) -> dict[int, str]:
    deadline = time.monotonic() + 400  # a new process imports torch first
    while len(found := sorted(folder.glob("*.done"))) < count:
        assert time.monotonic() < deadline, f"only {found}"
        time.sleep(0.1)
    return {int(f.stem): f.read_text() for f in found}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def require_gone(pids: Any) -> None:
    deadline = time.monotonic() + 60
    while left := [p for p in pids if alive(p)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_local_processes_have_a_gpu_each_and_end_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(launch.GPU, "4,6,GPU-abc")
    with helpers(Launcher(), 2, mark, (tmp_path, True), tmp_path, gpus=True):
        found = marks(tmp_path, 2)
    assert sorted(found.values()) == ["6", "GPU-abc"] and os.getpid() not in found
    require_gone(found)


def test_processes_share_gpus_where_there_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [own_gpu(i, ["0", "1"]) for i in range(5)] == ["0", "1", "0", "1", "0"]
    assert own_gpu(3, []) == ""
    monkeypatch.setenv(launch.GPU, "")
    assert visible_gpus() == []


def test_submitit_starts_jobs_and_cancels_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its local executor, which takes the same calls as Slurm's."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the job imports this module
    monkeypatch.setattr(launch, "_slurm", partial(launch._slurm, cluster="local"))
    asked = Launcher("slurm", (("partition", "gpu"), ("time", "5")))
    with helpers(asked, 2, mark, (tmp_path, False), tmp_path, gpus=False):
        found = marks(tmp_path, 2)
        assert list((tmp_path / "slurm").glob("*_submitted.pkl"))
    require_gone(found)


def test_ray_starts_tasks_and_cancels_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("ray") is None:  # not imported here: what the product sets before its import is tested too
        pytest.skip("Ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    torch.set_num_threads(1)
    with helpers(Launcher("ray"), 2, mark, (tmp_path, False), tmp_path, gpus=False):
        found = marks(tmp_path, 2)
    require_gone(found)


def test_a_job_that_fails_in_a_helper_is_not_an_error_there(tmp_path: Path) -> None:
    launch._begin(_refuse, (), 1, "")  # the parent repeats and reports it
    with pytest.raises(ZeroDivisionError):
        launch._begin(_break, (), 1, "")


def _refuse() -> None:
    raise ConfigError("no")


def _break() -> None:
    np.int64(1 // 0)


def test_launchers_that_cannot_work_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    monkeypatch.setattr(launch, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="needs Slurm's sbatch"):
        require_launcher(Launcher("slurm"))
    with pytest.raises(ConfigError, match="is for --launcher slurm"):
        require_launcher(Launcher("ray", (("partition", "gpu"),)))
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    for name, package in (("slurm", "submitit"), ("ray", "ray")):
        with pytest.raises(InstallError, match=rf"needs {package}; install it with pip install 'jmt-edge\[{name}\]'"):
            require_launcher(Launcher(name))
    require_launcher(Launcher())
