"""More processes that run the same jobs as this one: on this machine, by Slurm or by Ray.

Every process takes the jobs that no other holds the lock of (`locks.py`), so what a launcher adds is processes, each
with a GPU of its own where there are any. `--out` and `--cache` have to be on a file system that all of them see.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, InstallError, UserError, short

NAMES = ("local", "slurm", "ray")
MINUTES = 24 * 60  # of a Slurm job, if `time` is not given
GPU = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Launcher:
    """name: of NAMES. settings: Slurm's own options without the dashes, such as partition or time (minutes)."""

    name: str = "local"
    settings: tuple[tuple[str, str], ...] = ()


def require_launcher(launcher: Launcher) -> None:
    """Raises InstallError where its package is missing, ConfigError where it cannot work here."""
    package, extra = {"slurm": ("submitit", "slurm"), "ray": ("ray", "ray")}.get(launcher.name, ("", ""))
    if package and not find_spec(package):
        raise InstallError(
            f"--launcher {launcher.name} needs {package}; install it with pip install 'jmt-edge[{extra}]'"
        )
    if launcher.settings and launcher.name != "slurm":
        raise ConfigError("--slurm KEY=VALUE is for --launcher slurm; give both")
    if launcher.name == "slurm" and not shutil.which("sbatch"):
        raise ConfigError(
            "--launcher slurm needs Slurm's sbatch, which this machine does not have; run it on a login node"
        )


@contextmanager
def helpers(
    launcher: Launcher, count: int, work: Callable[..., None], arguments: tuple[Any, ...], folder: Path, *, gpus: bool
) -> Iterator[None]:
    """`count` more processes that call `work(*arguments)` until the block ends. A job that fails in one of them is
    repeated by this process, which reports the failure.

    folder: of the launcher's files. gpus: whether the jobs use GPUs.
    """
    if count < 1:
        yield
        return
    start = {"local": _local, "slurm": _slurm, "ray": _ray}[launcher.name]
    stop = start(launcher, count, work, arguments, folder, gpus)
    try:
        yield
    finally:
        stop()


def _begin(work: Callable[..., None], arguments: tuple[Any, ...], threads: int, gpu: str) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    if gpu:
        os.environ[GPU] = gpu  # before CUDA is initialised, which it is by its first use
    torch.set_num_threads(threads)
    with suppress(UserError):  # the parent repeats the job and reports it once
        work(*arguments)


def visible_gpus() -> list[str]:
    """The GPUs of this process, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get(GPU)
    if named is not None:
        return [g.strip() for g in named.split(",") if g.strip()]
    return [str(i) for i in range(torch.cuda.device_count())]


def own_gpu(process: int, gpus: Sequence[str]) -> str:
    """The GPU of a process: each has one, and several processes share one where there are fewer."""
    return gpus[process % len(gpus)] if gpus else ""


def _local(
    launcher: Launcher, count: int, work: Callable[..., None], arguments: tuple[Any, ...], folder: Path, gpus: bool
) -> Callable[[], None]:
    context = multiprocessing.get_context("spawn")
    known = visible_gpus() if gpus else []  # this process, number 0, uses the first
    jobs = [
        context.Process(
            target=_begin, args=(work, arguments, torch.get_num_threads(), own_gpu(number, known)), daemon=True
        )
        for number in range(1, count + 1)
    ]
    for job in jobs:
        job.start()

    def stop() -> None:
        for job in jobs:
            job.terminate()
            job.join()

    return stop


def _slurm(
    launcher: Launcher,
    count: int,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
    folder: Path,
    gpus: bool,
    cluster: str = "slurm",
) -> Callable[[], None]:
    """A Slurm job a process; those that still wait or run at the end are cancelled. cluster: of submitit."""
    import submitit

    settings = dict(launcher.settings)
    minutes = settings.pop("time", str(MINUTES))
    if not minutes.isdecimal():
        raise ConfigError(f"--slurm time={minutes} is not a number of minutes")
    executor = submitit.AutoExecutor(folder=folder / "slurm", cluster=cluster)
    executor.update_parameters(
        name="jmt-edge", timeout_min=int(minutes), cpus_per_task=torch.get_num_threads(), gpus_per_node=int(gpus),
        slurm_additional_parameters=settings,
    )  # fmt: skip
    # Slurm gives each job its GPU by CUDA_VISIBLE_DEVICES
    jobs = [executor.submit(_begin, work, arguments, torch.get_num_threads(), "") for _ in range(count)]

    def stop() -> None:
        for job in jobs:
            if not job.done():
                job.cancel()

    return stop


def _ray(
    launcher: Launcher, count: int, work: Callable[..., None], arguments: tuple[Any, ...], folder: Path, gpus: bool
) -> Callable[[], None]:
    """A Ray task a process, on the cluster of $RAY_ADDRESS, else on this machine."""
    # Below `uv run` Ray would build each worker an environment of its own, without the package; read at the import.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    address = os.environ.get("RAY_ADDRESS")
    threads = torch.get_num_threads()
    begun = not ray.is_initialized()
    if begun:
        here: dict[str, Any] = {} if address else {"num_cpus": count * threads, "include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, **here)
        except Exception as error:  # of no common class: a connection, a time-out, a version
            ray.shutdown()
            what = f"the cluster at {address} cannot be reached" if address else "a Ray node cannot be started here"
            raise ConfigError(f"{what} ({short(error)}); check RAY_ADDRESS, or use --launcher local") from None
    task = ray.remote(num_cpus=threads, num_gpus=int(gpus), max_retries=0)(_begin)
    jobs = [task.remote(work, arguments, threads, "") for _ in range(count)]  # Ray gives each its GPU

    def stop() -> None:
        for job in jobs:
            ray.cancel(job, force=True)
        if begun:
            ray.shutdown()

    return stop
