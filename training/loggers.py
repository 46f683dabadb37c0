"""Where a training's curves go: Lightning's loggers, of which CSV and TensorBoard are the default."""

from __future__ import annotations

import netrc
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, InstallError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

DEFAULT = ("csv", "tensorboard")
# name -> the modules of which one is needed, and the extra that brings it
NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "csv": ((), ""), "tensorboard": (("tensorboard", "tensorboardX"), "train"), "mlflow": (("mlflow",), "mlflow"),
    "wandb": (("wandb",), "wandb"),
}  # fmt: skip
PROJECT = "jmt-edge"  # MLflow's experiment, Weights & Biases' project


def parse_loggers(text: str) -> tuple[str, ...]:
    """`csv,mlflow` -> names, each once; `none` -> (). Raises ConfigError for another name, InstallError for a package
    that is missing."""
    names = tuple(dict.fromkeys(n.strip() for n in text.split(",") if n.strip() and n.strip() != "none"))
    if unknown := [n for n in names if n not in NEEDS]:
        raise ConfigError(f"--logger '{unknown[0]}' is unknown; choose among {', '.join(NEEDS)}, or none")
    for name in names:
        modules, extra = NEEDS[name]
        if modules and not any(find_spec(m) for m in modules):
            raise InstallError(f"--logger {name} needs {modules[0]}; install it with pip install 'jmt-edge[{extra}]'")
    return names


def make_loggers(names: Sequence[str], folder: Path, run: str) -> list[Logger]:
    """The loggers of one stage. Files are written below `folder`; run: what the stage is called there.

    MLflow goes to `$MLFLOW_TRACKING_URI`, else to `mlruns` in the folder. Weights & Biases is offline without a key
    (`$WANDB_API_KEY`, `wandb login`), unless `$WANDB_MODE` says otherwise.
    """
    from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

    made: list[Logger] = []
    for name in names:
        if name == "csv":
            made.append(CSVLogger(folder, name="csv", version=""))
        elif name == "tensorboard":
            made.append(TensorBoardLogger(folder, name="tensorboard", version=""))
        elif name == "mlflow":
            place = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlruns").resolve().as_uri()
            if place.startswith("file:"):  # recent releases of MLflow ask whether a folder is meant
                os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            made.append(MLFlowLogger(PROJECT, run_name=f"{folder.parent.name}/{run}", tracking_uri=place))
        else:
            offline = "WANDB_MODE" not in os.environ and not _has_wandb_key()
            made.append(WandbLogger(f"{folder.parent.name}/{run}", folder, project=PROJECT, offline=offline))
    return made


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
