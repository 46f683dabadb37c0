"""What the published defects are worth: JMT on simulated people, scored soundly and with each defect switched on alone.

    python -m benchmarks.published_defects [--people 24] [--windows 40] [--folds 5] [--seeds 3] [--out FILE.json]

A repetition reads clips, backbones and features from the cache (--cache). Face and EDA
backbones are trained per fold, on that fold's training side; the fusion is then trained on their features. All rows
share recipe, people and windows:

- sound: folds of people; validation people choose the epoch; no window sees another.
- batch attention: the three encoders get (B, 1, d) in a sequence-first layer, as in the released BioVid code, so each
  window attends to all windows of its batch of 128, in training and in test. Test batches in the order of the files (by
  person and class), or shuffled.
- sample-wise folds: windows are drawn into folds, so a person is on both sides, for the backbones too; validation
  windows choose the epoch.
- best test epoch: the epoch of the fusion with the highest accuracy on the test side, in each fold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.common import RESULTS, stamp, write
from jmt_edge.metrics import interval95, subject_draws
from jmt_edge.models.fusion import JMT, Fusion
from jmt_edge.models.layers import EncoderLayer
from jmt_edge.training.clips import default_cache, silent
from jmt_edge.training.experiment import (
    Prepared,
    TrainingOptions,
    _Run,
    console_progress,
    fusion_set,
    prepare,
    torch_device,
    train_backbone,
)
from jmt_edge.training.features import extract
from jmt_edge.training.losses import task_loss
from jmt_edge.training.networks import fusion_of
from jmt_edge.training.recipes import Recipe, load_recipe
from jmt_edge.training.sets import FeatureSet, hash_seed, loader
from jmt_edge.training.splits import Split, k_fold
from jmt_edge.training.streams import simulated_cohort
from jmt_edge.training.trainer import Device

OUT = RESULTS / "published-defects.json"
BATCH = 128  # of the published pain fusion, in training and in test
DRAWS = 2000
SOUND = "sound"
# row: folds of windows, attention over the batch and the order of its test batches, best test epoch
ROWS: dict[str, tuple[bool, str, bool]] = {
    SOUND: (False, "", False),
    "batch attention, test batches in the files' order": (False, "files", False),
    "batch attention, test batches shuffled": (False, "shuffled", False),
    "sample-wise folds": (True, "", False),
    "best test epoch": (False, "", True),
    "all three, test batches in the files' order": (True, "files", True),
}


class AcrossBatch(nn.Module):
    """An encoder layer as the released code calls it: (B, 1, d) is taken for a sequence of length B."""

    def __init__(self, encoder: EncoderLayer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x.transpose(0, 1)).transpose(0, 1)


def with_batch_attention(fusion: Fusion) -> Fusion:
    """`fusion` with the defect; its weights stay."""
    assert isinstance(fusion, JMT)
    for name, encoder in fusion.encoders.items():
        assert isinstance(encoder, EncoderLayer)
        fusion.encoders[name] = AcrossBatch(encoder)
    return fusion


@dataclass
class Course:
    """One training of a fusion: validation loss (E,) of each epoch, and which test windows were right, (E, n) by the
    order of the test batches."""

    loss: NDArray[np.float64]
    right: dict[str, NDArray[np.bool_]]

    def chosen(self, order: str, best_test: bool) -> NDArray[np.bool_]:
        """(n,) right or not at the epoch that validation, or the test side itself, chooses."""
        right = self.right[order]
        return right[int(right.mean(1).argmax()) if best_test else int(self.loss.argmin())]


def of_windows(prepared: Prepared) -> Prepared:
    """The same windows, each as a person of its own: folds of these people are folds of windows."""
    windows = prepared.windows
    alone = [
        replace(windows.trials[t], id=f"w{i:06d}", subject=f"w{i:06d}") for i, t in enumerate(windows.trial.tolist())
    ]
    return replace(prepared, windows=replace(windows, trials=alone, trial=np.arange(len(alone))))


def features_of(prepared: Prepared, split: Split, folder: Path, options: TrainingOptions) -> dict[str, Any]:
    """Features (K, N, d) of the backbones that are trained on the split's training side."""
    run = _Run(prepared, split, folder, 0, options)
    found = {}
    for name, (m, store) in prepared.network_inputs().items():
        backbone = train_backbone(run, name, m, store).backbone
        device = torch_device(options.device)
        found[name] = extract(backbone, store, options.cache, augment=prepared.recipe.augment, device=device,
                              progress=options.progress)  # fmt: skip
    return found


def files_order(prepared: Prepared, index: NDArray[np.int64], people: NDArray[np.str_]) -> NDArray[np.int64]:
    """Positions in `index` (windows) by person, then by class, as BioVid's files are listed."""
    label = prepared.windows.labels["pain"][index, -1]
    return np.lexsort((np.arange(len(index)), label, people[index]))


def train_course(
    prepared: Prepared,
    split: Split,
    features: Mapping[str, NDArray[np.float32]],
    people: NDArray[np.str_],
    *,
    across: bool,
    seed: int,
) -> Course:
    """Train the fusion for all its epochs, and score each of them on both other sides."""
    recipe, task = prepared.recipe, prepared.task
    stage = recipe.stage("fusion")
    torch.manual_seed(hash_seed(seed, 17))
    fusion = fusion_of(recipe, task, stage.dropout)
    if across:
        fusion = with_batch_attention(fusion)
    windows = prepared.windows
    at = {side: np.flatnonzero(np.isin(windows.subject, getattr(split, side))) for side in ("validation", "test")}
    train = fusion_set(prepared, dict(features), windows.of(split.train), fusion, recipe.masking)
    sides = {side: fusion_set(prepared, dict(features), windows.take(i), fusion, None) for side, i in at.items()}
    ordered = files_order(prepared, at["test"], people)
    orders = {"": ordered}
    if across:
        shuffled = np.random.default_rng(seed).permutation(len(ordered))
        orders = {"files": ordered, "shuffled": shuffled}
    optimiser = torch.optim.AdamW(fusion.parameters(), stage.lr, weight_decay=stage.weight_decay)
    batches = loader(train, len(train), BATCH, seed)
    losses, right = [], {name: [] for name in orders}  # type: ignore[var-annotated]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, stage.epochs)
    for epoch in range(stage.epochs):
        torch.manual_seed(hash_seed(seed, epoch))
        batches.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        fusion.train()
        for inputs, labels in batches:
            optimiser.zero_grad()
            task_loss(fusion(**inputs), labels).backward()
            optimiser.step()
        schedule.step()
        logits, y = _outputs(fusion, sides["validation"], np.arange(len(at["validation"])))
        losses.append(float(task_loss({"pain": logits}, {"pain": y})))
        for name, order in orders.items():
            logits, y = _outputs(fusion, sides["test"], order)
            hit = np.zeros(len(order), bool)
            hit[order] = (logits[:, -1].argmax(-1) == y[:, -1].long()).numpy()
            right[name].append(hit)
    return Course(np.array(losses), {name: np.array(hits) for name, hits in right.items()})


@torch.inference_mode()
def _outputs(fusion: Fusion, data: FeatureSet, order: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Logits (n, S, 2) and labels (n, S) of the windows in `order`, in batches of BATCH."""
    fusion.eval()
    logits, labels = [], []
    for i in range(0, len(order), BATCH):
        inputs, y = data[order[i : i + BATCH], 0]
        logits.append(fusion(inputs["features"], inputs["present"])["pain"])
        labels.append(y["pain"])
    return torch.cat(logits), torch.cat(labels)


def measure(
    recipe: Recipe, *, people: int, windows: int, folds: int, seeds: int, out: Path, options: TrainingOptions
) -> dict[str, Any]:
    """Every row. out: folder of the backbones' trainings, which an interrupted command resumes."""
    began = time.monotonic()
    cohort = simulated_cohort(recipe.resolve(), subjects=people, windows=windows)
    prepared = prepare(cohort, recipe, options)
    who = prepared.windows.subject
    count = len(who)
    right = {row: np.zeros((seeds, count), bool) for row in ROWS}
    total, done = 2 * folds, 0
    for sample_wise in (False, True):
        data = of_windows(prepared) if sample_wise else prepared
        names = sorted(set(data.windows.subject.tolist()))
        for split in k_fold(names, folds, seed=0):
            features = features_of(data, split, out / ("windows" if sample_wise else "people") / split.name, options)
            test = np.flatnonzero(np.isin(data.windows.subject, split.test))
            for seed in range(seeds):
                courses = {
                    across: train_course(data, split, features, who, across=across, seed=seed)
                    for across in sorted({bool(order) for s, order, _ in ROWS.values() if s == sample_wise})
                }
                for row, (s, order, best_test) in ROWS.items():
                    if s == sample_wise:
                        right[row][seed, test] = courses[bool(order)].chosen(order, best_test)
            done += 1
            options.progress("folds", done, total)
    return {
        "people": len(set(who.tolist())), "windows": count, "folds": folds, "seeds": seeds, "recipe": recipe.to_dict(),
        "batch": BATCH, "rows": table_rows(right, who), "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def table_rows(right: Mapping[str, NDArray[np.bool_]], who: NDArray[np.str_]) -> list[dict[str, Any]]:
    """Accuracy of each row over all seeds (right: (seeds, windows)), its interval by person, the difference from the
    sound row with its interval (the same people are drawn for both), and the accuracy of each seed."""
    everyone = np.unique(who)
    places = [np.flatnonzero(who == name) for name in everyone]
    draws = subject_draws(len(everyone), DRAWS)
    size = np.array([len(p) for p in places])

    def drawn(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
        of_person = np.array([hits[:, p].mean(0).sum() for p in places])
        return np.array([of_person[d].sum() / size[d].sum() for d in draws])

    sound = right[SOUND]
    rows = []
    for name, hits in right.items():
        gain = interval95(drawn(hits) - drawn(sound))
        rows.append({
            "row": name, "accuracy": round(float(hits.mean()), 4), "interval95": _rounded(interval95(drawn(hits))),
            "difference": round(float(hits.mean() - sound.mean()), 4), "difference_interval95": _rounded(gain),
            "seeds": _rounded(hits.mean(1)),
        })  # fmt: skip
    return rows


def _rounded(values: Any) -> list[float]:
    return [round(float(v), 4) for v in values]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published_defects", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    for name, value in (("people", 24), ("windows", 40), ("folds", 5), ("seeds", 3), ("threads", 2), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe demo-pain")
    parser.add_argument("--quiet", action="store_true")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    command = "python -m benchmarks.published_defects" + "".join(
        f" --{name} {getattr(asked, name)}" for name in ("people", "windows", "folds", "seeds")
    )
    stamped = stamp(command)  # the load before the run
    progress = silent if asked.quiet else console_progress()
    options = TrainingOptions(asked.cache, Device("cpu", quiet=asked.quiet), asked.workers, progress)
    found = measure(
        load_recipe("demo-pain", asked.set), people=asked.people, windows=asked.windows, folds=asked.folds,
        seeds=asked.seeds, out=asked.cache / "published-defects", options=options,
    )  # fmt: skip
    report = {**stamped, **found}
    write(asked.out, report)
    for row in report["rows"]:
        print(f"{row['row']:<55} {row['accuracy']:.3f}  {row['difference']:+.3f}")
    print(f"written to {asked.out} after {report['seconds']:.0f} s")


if __name__ == "__main__":
    main()
