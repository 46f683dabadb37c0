"""What `train` and `evaluate` have in common: options about data and computing, and what is made of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--channel", default="Eda_RB", show_default=True, help="PainMonit: the EDA channel.", metavar="NAME"),
    click.option(
        "--rate", type=float, help="PainMonit: samples per second of X.  [default: 250, windows of 10 s]", metavar="HZ"
    ),
    click.option("--skip-bad", is_flag=True, help="Skip bad samples, and count and list them."),
    click.option(
        "--cache",
        type=click.Path(path_type=Path),
        help="Clips and features.  [default: $JMT_EDGE_CACHE]",
        metavar="PATH",
    ),
    click.option(
        "--workers", type=click.IntRange(1, 256), help="Preprocessing processes.  [default: all cores]", metavar="N"
    ),
    click.option("--threads", type=click.IntRange(1, 256), help="CPU threads of torch.", metavar="N"),
    click.option("--quiet", is_flag=True, help="No progress on stderr."),
)


def data_options(command: F) -> F:
    """Adds `--channel`, `--rate`, `--skip-bad`, `--cache`, `--workers`, `--threads` and `--quiet`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def require_folder(out: Path) -> None:
    """Makes the folder of results. Raises ConfigError where it cannot be made, before hours of work are lost."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be a folder ({error.strerror}); give another") from None


def cohort_of(flags: dict[str, Any], folder: Path, classes: tuple[str, ...]) -> Any:
    """The data set in `folder`, read with the command's options."""
    from ..training.readers import open_cohort

    return open_cohort(
        folder, classes=classes, channel=flags["channel"], rate=flags["rate"], skip_bad=flags["skip_bad"]
    )


def training_options(flags: dict[str, Any], accelerator: str = "auto", devices: int = 1, precision: str = "") -> Any:
    """`TrainingOptions` of a command's options. Raises InstallError or ConfigError for a logger or launcher that cannot
    be used."""
    import torch

    from ..training.clips import default_cache, silent
    from ..training.experiment import TrainingOptions, console_progress
    from ..training.launch import Launcher, require_launcher
    from ..training.loggers import DEFAULT, parse_loggers
    from ..training.recipes import key_value
    from ..training.trainer import Device

    if flags["threads"]:
        torch.set_num_threads(flags["threads"])
    loggers = parse_loggers(flags["logger"]) if "logger" in flags else DEFAULT
    settings = (key_value(text, "--slurm", "partition=gpu") for text in flags.get("slurm", ()))
    launcher = Launcher(flags.get("launcher", "local"), tuple(settings))
    require_launcher(launcher)
    device = Device(accelerator, devices, precision or "32-true", flags["quiet"], loggers)
    progress = silent if flags["quiet"] else console_progress()
    workers = flags["workers"] or os.cpu_count() or 1
    return TrainingOptions(flags["cache"] or default_cache(), device, workers, progress, launcher=launcher)
