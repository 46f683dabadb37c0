"""One optimisation by Lightning: seeded, resumable, stopped by the validation score alone.

The validation score is the task's loss on the whole validation set at once (a CCC per batch would be another
number). Every epoch reseeds from (seed, epoch), so a resumed run continues with the same draws.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..errors import ConfigError
from .keys import Key, claim, write
from .losses import ccc, task_loss
from .recipes import Stage
from .sets import Batch, hash_seed, loader

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Device:
    """Where a stage runs. `devices` > 1 is DDP on this machine (gloo on a CPU, NCCL on GPUs)."""

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"  # Lightning's names: 16-mixed and bf16-mixed are AMP
    quiet: bool = False


@dataclass
class Fitted:
    """What `fit` found. best: validation loss; epochs: how many ran; history: one row an epoch."""

    best: float
    epochs: int
    seconds: float
    states: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # "loss", or an output's best CCC


class _Module(pl.LightningModule):
    """A network that maps a batch's inputs to a table of outputs, with the task's loss."""

    def __init__(self, network: nn.Module, stage: Stage, seed: int, weight: Tensor | None = None) -> None:
        super().__init__()
        self.network, self.stage, self.seed = network, stage, seed
        self.weight: Tensor | None
        self.register_buffer("weight", weight, persistent=False)
        self._held: list[tuple[Outputs, Outputs]] = []

    def forward(self, inputs: dict[str, Any]) -> Outputs:
        return self.network(**inputs)

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(hash_seed(self.seed, self.current_epoch, self.global_rank))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        inputs, labels = batch
        loss = task_loss(self(inputs), labels, self.weight)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._held = []

    def validation_step(self, batch: Batch, index: int) -> None:
        inputs, labels = batch
        outputs = self(inputs)
        self._held.append(({o: outputs[o].float() for o in labels}, labels))

    def on_validation_epoch_end(self) -> None:
        outputs = {o: torch.cat([held[0][o] for held in self._held]) for o in self._held[0][1]}
        labels = {o: torch.cat([held[1][o] for held in self._held]) for o in self._held[0][1]}
        self._held = []
        # every process scores the whole validation set, so nothing needs to be reduced
        self.log("val_loss", task_loss(outputs, labels, self.weight), rank_zero_only=False, sync_dist=False)
        for o, y in labels.items():
            if o != "pain" and int((~torch.isnan(y)).sum()) > 1:
                self.log(f"val_ccc_{o}", ccc(outputs[o], y), sync_dist=False)

    def configure_optimizers(self) -> Any:
        stage = self.stage
        weights = [p for p in self.network.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if stage.optimizer == "sgd":
            optimizer = torch.optim.SGD(weights, stage.lr, stage.momentum, weight_decay=stage.weight_decay)
        elif stage.optimizer == "adam":
            optimizer = torch.optim.Adam(weights, stage.lr, weight_decay=stage.weight_decay)
        elif stage.optimizer == "adamw":
            optimizer = torch.optim.AdamW(weights, stage.lr, weight_decay=stage.weight_decay)
        else:
            raise ConfigError(f"optimizer '{stage.optimizer}' is not one of sgd, adam, adamw")
        if stage.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}
        if stage.schedule == "onecycle":
            steps = int(self.trainer.estimated_stepping_batches)
            cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.lr, total_steps=steps, pct_start=0.2)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
        if stage.schedule not in ("constant", "cosine"):
            raise ConfigError(f"schedule '{stage.schedule}' is not one of constant, cosine, onecycle, plateau")

        def factor(epoch: int) -> float:
            if epoch < stage.warmup:
                return (epoch + 1) / (stage.warmup + 1)
            if stage.schedule == "constant":
                return 1.0
            share = (epoch - stage.warmup) / max(1, stage.epochs - stage.warmup)
            return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * share))))

        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor)}


class _Report(Callback):
    """Epoch, scores and time left: one line that rewrites itself on a terminal, a line every 10 s elsewhere."""

    def __init__(self, name: str) -> None:
        self.name, self.began, self.first, self.last = name, 0.0, 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.began, self.first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        now, done = time.monotonic(), trainer.current_epoch + 1
        total = trainer.max_epochs or done
        left = (now - self.began) / max(1, done - self.first) * (total - done)
        scores = " ".join(f"{k} {float(v):.4f}" for k, v in sorted(trainer.callback_metrics.items()) if "loss" in k)
        line = f"{self.name}: epoch {done}/{total} {scores} at most {left:.0f} s left"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif now - self.last > 10:
            print(line, file=sys.stderr, flush=True)
            self.last = now

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero and sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def fit(
    network: nn.Module,
    train: Dataset[Batch],
    validation: Dataset[Batch] | None,
    stage: Stage,
    folder: Path,
    *,
    name: str,
    seed: int,
    key: Key,
    device: Device = Device(),
    monitors: tuple[str, ...] = (),
) -> Fitted:
    """Train `network` in place to the weights of the best validation loss; resumes from `folder` after a kill.

    key: all that the outcome depends on; ConfigError where `folder` holds a training of another key.
    monitors: affect outputs whose best-CCC weights are kept as well (dual-model ensembling).
    Without a validation set all epochs run and the last weights stay.
    """
    began = time.monotonic()
    finished = folder / "finished.json"
    checkpoints = folder / "checkpoints"
    claim(folder / "stage.key.json", key, "a training stage", ("finished.json", "checkpoints/*.ckpt"))
    if not finished.is_file():
        _run(network, train, validation, stage, folder, name, seed, device, monitors)
        best = checkpoints / ("best.ckpt" if validation is not None else "last.ckpt")
        loaded = torch.load(best, map_location="cpu", weights_only=True)
        write(finished, json.dumps({
            "best": _best(loaded), "epochs": _epochs(checkpoints), "seconds": round(time.monotonic() - began, 2),
        }))  # fmt: skip
    record = json.loads(finished.read_text())
    states = {"loss": _state(checkpoints / ("best.ckpt" if validation is not None else "last.ckpt"))}
    for o in monitors if validation is not None else ():
        states[o] = _state(checkpoints / f"best-{o}.ckpt")
    network.load_state_dict(states["loss"])
    network.eval()
    return Fitted(record["best"], record["epochs"], record["seconds"], states)


def _run(
    network: nn.Module,
    train: Dataset[Batch],
    validation: Dataset[Batch] | None,
    stage: Stage,
    folder: Path,
    name: str,
    seed: int,
    device: Device,
    monitors: tuple[str, ...],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = folder / "checkpoints"
    keep: dict[str, Any] = {"dirpath": checkpoints, "enable_version_counter": False, "save_weights_only": False}
    callbacks: list[Callback] = [ModelCheckpoint(filename="last", save_top_k=1, **keep)]
    if validation is not None:
        callbacks.append(ModelCheckpoint(filename="best", monitor="val_loss", mode="min", **keep))
        callbacks += [
            ModelCheckpoint(filename=f"best-{o}", monitor=f"val_ccc_{o}", mode="max", **keep) for o in monitors
        ]
        callbacks.append(EarlyStopping("val_loss", patience=stage.patience, mode="min", check_finite=True))
    if not device.quiet:
        callbacks.append(_Report(name))
    pl.seed_everything(seed, workers=True, verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        try:
            trainer = pl.Trainer(
                accelerator=device.accelerator,
                devices=device.devices,
                strategy="ddp_spawn" if device.devices > 1 else "auto",
                precision=device.precision,  # type: ignore[arg-type]
                max_epochs=stage.epochs,
                callbacks=callbacks,
                logger=[
                    CSVLogger(folder, name="csv", version=""),
                    TensorBoardLogger(folder, name="tensorboard", version=""),
                ],
                default_root_dir=folder,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                log_every_n_steps=1_000_000,
                use_distributed_sampler=False,
                deterministic="warn",
            )
        except (MisconfigurationException, ValueError) as error:  # no such device here, or no such precision
            raise ConfigError(
                f"accelerator '{device.accelerator}' with precision '{device.precision}' does not run here "
                f"({str(error).splitlines()[0]}); use cpu and 32-true, or a machine that has it"
            ) from None
        last = checkpoints / "last.ckpt"
        if has_3d_convolutions(network):
            # 3-D convolutions run twice as fast on a CPU with the channels last; the weights stay the same
            network.to(memory_format=torch.channels_last_3d)
        trainer.fit(
            _Module(network, stage, seed, class_weights(train) if stage.balance else None),
            loader(train, len(train), stage.batch, seed),  # type: ignore[arg-type]
            None if validation is None else loader(validation, len(validation), stage.batch, None, shard=False),  # type: ignore[arg-type]
            ckpt_path=last if last.is_file() else None,
            weights_only=True,
        )
    if trainer.interrupted:
        raise KeyboardInterrupt


def class_weights(train: Dataset[Batch]) -> Tensor | None:
    """(2,) inverse shares of the pain classes among the training labels, mean 1; None without pain labels."""
    labels = getattr(train, "labels", {})
    if "pain" not in labels:
        return None
    y = torch.as_tensor(labels["pain"])
    share = y[~torch.isnan(y)].mean().clamp(0.01, 0.99)
    weight = torch.stack([1 / (1 - share), 1 / share])
    return weight / weight.mean()


def has_3d_convolutions(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv3d) for module in network.modules())


def _state(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {key.removeprefix("network."): value for key, value in state.items()}


def _best(checkpoint: dict[str, Any]) -> float:
    scores = [
        float(c["best_model_score"])
        for key, c in checkpoint["callbacks"].items()
        if "ModelCheckpoint" in key and "val_loss" in key and c.get("best_model_score") is not None
    ]
    return min(scores, default=float("nan"))


def _epochs(checkpoints: Path) -> int:
    return int(torch.load(checkpoints / "last.ckpt", map_location="cpu", weights_only=True)["epoch"]) + 1
