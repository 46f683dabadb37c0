"""One optimisation by Lightning: seeded, resumable, stopped by the validation loss alone.

The validation loss is computed on the whole validation set at once, because a mean of CCCs over batches is not the CCC.
Every epoch reseeds from (seed, epoch), so a resumed run continues with the same random numbers.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..errors import ConfigError
from .keys import Key, claim, write
from .loggers import DEFAULT, make_loggers
from .losses import ccc, task_loss
from .recipes import Stage
from .sets import Batch, hash_seed, loader

Outputs = dict[str, Tensor]
State = dict[str, Tensor]  # weights by name


@dataclass(frozen=True)
class Device:
    """Where a stage runs. More than one of `devices` uses DDP on this machine (gloo on a CPU, NCCL on GPUs)."""

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"  # Lightning's names: 16-mixed and bf16-mixed are AMP
    quiet: bool = False
    loggers: tuple[str, ...] = DEFAULT  # see `loggers.make_loggers`


class _Module(pl.LightningModule):
    """A network from a batch's inputs to named outputs, with the task's loss."""

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
        outputs, labels = ({o: torch.cat([side[o] for side in sides]) for o in sides[0]} for sides in zip(*self._held))
        self._held = []
        # each process scores the whole validation set, so there is nothing to reduce
        self.log("val_loss", task_loss(outputs, labels, self.weight), rank_zero_only=False, sync_dist=False)
        for o, y in labels.items():
            if o != "pain" and int((~torch.isnan(y)).sum()) > 1:
                self.log(f"val_ccc_{o}", ccc(outputs[o], y), sync_dist=False)

    def configure_optimizers(self) -> Any:
        stage = self.stage
        optimizer = optimizer_of([p for p in self.network.parameters() if p.requires_grad], stage)
        if stage.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}
        if stage.schedule == "onecycle":
            steps = int(self.trainer.estimated_stepping_batches)
            cycle = one_cycle(optimizer, stage.lr, steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
        if stage.schedule not in ("constant", "cosine"):
            raise ConfigError(f"schedule '{stage.schedule}' is unknown; choose constant, cosine, onecycle or plateau")
        return {"optimizer": optimizer, "lr_scheduler": by_epoch(optimizer, stage)}


def optimizer_of(weights: list[nn.Parameter], stage: Stage) -> torch.optim.Optimizer:
    """The stage's optimiser. Raises ConfigError for an unknown one."""
    if stage.optimizer == "sgd":
        return torch.optim.SGD(weights, stage.lr, stage.momentum, weight_decay=stage.weight_decay)
    if stage.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if stage.optimizer == "adam" else torch.optim.AdamW
        return kind(weights, stage.lr, weight_decay=stage.weight_decay)
    raise ConfigError(f"optimizer '{stage.optimizer}' is unknown; choose sgd, adam or adamw")


def by_epoch(optimizer: torch.optim.Optimizer, stage: Stage) -> torch.optim.lr_scheduler.LambdaLR:
    """The rate's course over the epochs: a linear rise, then constant or the half of a cosine."""

    def factor(epoch: int) -> float:
        if epoch < stage.warmup:
            return (epoch + 1) / (stage.warmup + 1)
        if stage.schedule == "constant":
            return 1.0
        share = (epoch - stage.warmup) / max(1, stage.epochs - stage.warmup)
        return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * share))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def one_cycle(optimizer: torch.optim.Optimizer, lr: float, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """The rate rises over a fifth of `steps`, but over two of them at least: torch divides by zero at one."""
    rise = min(max(0.2, 2 / steps), 0.9)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rise)


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
    device: Device,
    monitors: tuple[str, ...] = (),
) -> dict[str, State]:
    """Train `network` in place to the weights of the best validation loss; an interrupted training in `folder` resumes.

    key: all that the outcome depends on; raises ConfigError where `folder` holds a training under another key.
    monitors: affect outputs whose best-CCC weights are kept too (dual-model ensembling).
    Without a validation set all epochs run, and the last weights are kept.
    Returns the weights of "loss", which `network` has, and of each of `monitors`.
    """
    finished, checkpoints = folder / "finished.json", folder / "checkpoints"
    last = checkpoints / "last.ckpt"
    best = last if validation is None else checkpoints / "best.ckpt"
    claim(folder / "stage.key.json", key, "a training stage", ("finished.json", "checkpoints/*.ckpt"))
    if not finished.is_file():
        began = time.monotonic()
        callbacks = _checkpoints(checkpoints, () if validation is None else ("loss", *monitors))
        if validation is not None:
            callbacks.append(EarlyStopping("val_loss", patience=stage.patience, mode="min", check_finite=True))
        if not device.quiet:
            callbacks.append(_Report(name))
        pl.seed_everything(seed, workers=True, verbose=False)
        with _quiet_lightning():
            trainer = _trainer(stage, folder, device, callbacks, name)
            if any(isinstance(module, nn.Conv3d) for module in network.modules()):
                # twice as fast on a CPU with the channels last; the weights are the same
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
        write(finished, json.dumps({
            "best": _best(_load(best)), "epochs": int(_load(last)["epoch"]) + 1,
            "seconds": round(time.monotonic() - began, 2),
        }))  # fmt: skip
    states = {"loss": _state(best)}
    if validation is not None:
        states |= {o: _state(checkpoints / f"best-{o}.ckpt") for o in monitors}
    network.load_state_dict(states["loss"])
    network.eval()
    return states


def _checkpoints(folder: Path, kept: tuple[str, ...]) -> list[Callback]:
    """The last checkpoint, and of `kept` that with the least validation loss and those with an output's best CCC."""
    how: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "save_weights_only": False}
    callbacks: list[Callback] = [ModelCheckpoint(filename="last", save_top_k=1, **how)]
    for what in kept:
        if what == "loss":
            callbacks.append(ModelCheckpoint(filename="best", monitor="val_loss", mode="min", **how))
        else:
            callbacks.append(ModelCheckpoint(filename=f"best-{what}", monitor=f"val_ccc_{what}", mode="max", **how))
    return callbacks


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        yield


def _trainer(stage: Stage, folder: Path, device: Device, callbacks: list[Callback], name: str) -> pl.Trainer:
    """Raises ConfigError where this machine lacks the device or the precision."""
    try:
        return pl.Trainer(
            accelerator=device.accelerator,
            devices=device.devices,
            strategy="ddp_spawn" if device.devices > 1 else "auto",
            precision=device.precision,  # type: ignore[arg-type]
            max_epochs=stage.epochs,
            callbacks=callbacks,
            logger=make_loggers(device.loggers, folder, name),
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1_000_000,
            use_distributed_sampler=False,
            deterministic="warn",
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(
            f"accelerator '{device.accelerator}' with precision '{device.precision}' does not run here "
            f"({str(error).splitlines()[0]}); use cpu and 32-true, or another machine"
        ) from None


def class_weights(train: Dataset[Batch]) -> Tensor | None:
    """(2,) inverse shares of the pain classes among the training labels, mean 1; None without pain labels."""
    labels = getattr(train, "labels", {})
    if "pain" not in labels:
        return None
    y = torch.as_tensor(labels["pain"])
    share = y[~torch.isnan(y)].mean().clamp(0.01, 0.99)
    weight = torch.stack([1 / (1 - share), 1 / share])
    return weight / weight.mean()


def _load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _state(path: Path) -> State:
    return {key.removeprefix("network."): value for key, value in _load(path)["state_dict"].items()}


def _best(checkpoint: dict[str, Any]) -> float:
    scores = [
        float(c["best_model_score"])
        for key, c in checkpoint["callbacks"].items()
        if "ModelCheckpoint" in key and "val_loss" in key and c.get("best_model_score") is not None
    ]
    return min(scores, default=float("nan"))
