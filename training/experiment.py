"""From a cohort and a recipe to trained weights, scores and a bundle; the result of each step is cached by its key.

Backbones are trained alone (stage 1), frozen, and their features cached; the fusion is trained on these (stage 2).
Validation subjects select the epoch and the temperature; test subjects are scored once.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..engine.novelty import FILE, read_novelty, save_novelty
from ..engine.uncertainty import Uncertainty
from ..errors import DataError
from ..models.fusion import Fusion
from ..models.joint import TEXT, JointModel
from ..models.pretrained import load_pretrained
from ..tasks import Modality, Task
from . import run_folder, splits
from .baseline import both_ways, calibrate, uncalibrated, usable
from .clips import ClipStore, Progress, build_clips, default_cache, silent
from .data import Cohort, WindowTable, cut_windows, require_two_classes
from .features import extract
from .frame_features import with_features
from .keys import Key, claim, clip_key, code, data_parts, digest, foresee, source_of_weights, weights_hash, write
from .launch import Launcher
from .limits import with_limits
from .locks import lock
from .matching import DataFacts, clip_facts, facts_of, require_same_clips, require_window, retrain_remedy
from .memory import predict_memory, require_memory
from .networks import (
    SECOND,
    FusionStep,
    Unimodal,
    backbone_of,
    backbone_task,
    fusion_of,
    load_weights,
    pretraining,
    read_weights,
    second_backbone,
)
from .novelty import fit_windows
from .persons import standardise_by_person
from .recipes import EXPORTABLE, Masking, Recipe, Stage, from_dict
from .run_folder import FACTS, RECIPE, SCORES, SPLIT, UNCERTAINTY
from .scores import Predictions, Scores, empty_predictions, fit_temperature, score, validation_loss
from .sets import ClipSet, FeatureSet, clip_set, feature_set, hash_seed
from .splits import Split
from .trainer import Device, State, fit
from .uncertainty import Change, fit_uncertainty, only, promised, subsets, wider

# patterns of what a later command would trust in a run's folder
UNCALIBRATED = "predictions-uncalibrated.npz"  # of the same windows, as if nobody's rest were known
RUN_STATE = (SCORES, "*.safetensors", "*/checkpoints/*.ckpt")


@dataclass(frozen=True)
class TrainingOptions:
    """How to run a training, as opposed to what to train."""

    cache: Path = field(default_factory=default_cache)
    device: Device = field(default_factory=Device)
    workers: int = 1
    progress: Progress = silent
    processes: int = 1  # that train at the same time
    launcher: Launcher = field(default_factory=Launcher)  # of those beside this one


@dataclass
class Prepared:
    """A cohort cut into windows, with its clips computed. windows: one for each moment that is scored."""

    cohort: Cohort
    recipe: Recipe
    task: Task
    windows: WindowTable
    stores: dict[str, ClipStore]
    facts: DataFacts  # what a later data set is compared with
    source: Cohort  # as it was read, without what the recipe has changed
    shift: dict[str, int] = field(default_factory=dict)  # `Calibrated.shift`, where clips are relative to a rest
    notes: tuple[str, ...] = ()  # what tables of scores must say

    def network_inputs(self) -> dict[str, tuple[Modality, ClipStore]]:
        """Network name -> its modality and clips; a second backbone is another network on the first modality."""
        inputs = {m.name: (m, self.stores[m.name]) for m in self.task.modalities if m.name in self.stores}
        if self.recipe.second:
            name = self.task.names[0]
            second = second_backbone(self.task, self.recipe)
            inputs[SECOND] = (second, replace(self.stores[name], modality=second))
        return inputs

    @property
    def apart(self) -> int:
        """Steps between the windows that a fusion is trained on (RJCMA: 200 of 300)."""
        stride = max(m.stride for m in self.task.modalities)
        return max(1, round(self.recipe.hop / stride)) if stride else 1

    @cached_property
    def fusion_windows(self) -> WindowTable:
        """The windows that a fusion is trained and selected on: every `apart`-th of a trial, and its last."""
        if self.apart == 1:
            return self.windows
        number = np.rint(self.windows.end / max(m.stride for m in self.task.modalities)).astype(int)
        last = np.append(self.windows.trial[1:] != self.windows.trial[:-1], True)
        fixed = np.array([bool(self.windows.trials[i].ends) for i in self.windows.trial])
        return self.windows.take(np.flatnonzero((number % self.apart == 0) | last | fixed))

    def taught(self, windows: WindowTable) -> WindowTable:
        """`windows` as they are trained on and selected by: with each subject's baseline and without."""
        return both_ways(windows, self.shift)

    @property
    def sequence(self) -> tuple[float, int]:
        """`Predictions.sequence` of an affect task: the papers' windows do not overlap, or are `apart`."""
        stride = max(m.stride for m in self.task.modalities)
        if self.task.steps == 1 or "pain" in self.task.outputs:
            return 0.0, 0
        return stride, self.apart if self.apart > 1 else self.task.steps

    @cached_property
    def depends(self) -> dict[str, Any]:
        """The parts of a run's key that come from the recipe and the data."""
        parts = {"recipe": self.recipe.to_dict(), **data_parts(self.windows)}
        parts["clips"] = {name: store.content for name, store in self.stores.items()}
        parts["weights"] = {name: source_of_weights(s) for name, s in self.recipe.weights.items() if s}
        if self.recipe.text:
            parts["text"] = digest(*text_features(self, Path(self.recipe.text)))
        return parts


@dataclass
class Result:
    """One trained split."""

    split: Split
    predictions: Predictions
    scores: Scores
    seconds: dict[str, float]
    folder: Path
    validation_loss: float = float("nan")  # of the weights kept, on all validation windows; NaN without any


def prepare(cohort: Cohort, recipe: Recipe, options: TrainingOptions, *, training: bool = True) -> Prepared:
    """Cut the windows, and compute all clips or read them from the cache.

    training: whether a training follows. Raises ConfigError where it, or scoring, needs more memory than there is.
    """
    task = recipe.resolve()
    facts = facts_of(cohort)
    source, cohort = cohort, with_features(cohort, recipe.features)
    require_modalities(cohort, recipe)
    stride = max(m.stride for m in task.modalities)
    hop = min(recipe.hop, stride) if stride else recipe.hop  # every moment is scored; see `fusion_windows`
    windows = cut_windows(cohort, task, hop=hop or None)
    require_memory(predict_memory(
        windows, recipe, workers=options.workers, processes=max(options.processes, options.device.devices),
        on_gpu=torch_device(options.device) == "cuda", training=training,
    ))  # fmt: skip
    with lock(options.cache / "clips" / f"{_clips_name(windows)}.lock"):  # another process may be computing them
        stores = build_clips(windows, options.cache, cohort.problems, options.workers, options.progress)
    if recipe.calibrated and "eda" in stores:
        stores["eda"] = standardise_by_person(stores["eda"], windows)
    if recipe.baseline == "none":
        return Prepared(cohort, recipe, task, usable(windows, stores), stores, facts, source)
    found = calibrate(windows, stores, recipe.baseline_seconds)
    if all(set(found.lacking.get(name, {})) >= set(found.windows.subject.tolist()) for name in found.shift):
        raise DataError(
            f"nobody in {cohort.root} has a usable rest of {', '.join(found.shift)}, so nothing can be compared with "
            "it; use baseline = none"
        )
    notes = (found.line(recipe.baseline_seconds),)
    return Prepared(cohort, recipe, task, found.windows, found.stores, facts, source, found.shift, notes)


def require_fit(cohort: Cohort, recipe: Recipe) -> None:
    """Raises DataError where the cohort lacks a modality of the recipe, or its trials are windows of another length."""
    require_modalities(with_features(cohort, recipe.features), recipe)
    require_window(cohort, recipe.resolve(), retrain_remedy(cohort, recipe.resolve()))


def require_modalities(cohort: Cohort, recipe: Recipe) -> None:
    """Raises DataError where the cohort lacks what the recipe needs."""
    lacking = [m for m in recipe.resolve().names if m not in cohort.modalities]
    if lacking:
        raise DataError(f"{cohort.root} has no {lacking[0]}, which recipe {recipe.name} needs; choose another recipe")


def _clips_name(windows: WindowTable) -> str:
    return digest([clip_key(windows, m) for m in windows.task.modalities if windows.clips[m.name]])[:20]


def make_splits(cohort: Cohort, protocol: str, *, seed: int, windows: WindowTable | None = None) -> list[Split]:
    """The splits of a protocol: holdout, kfold:K, loso, loso67, official. Raises ConfigError for another."""
    splits.require_protocol(protocol)
    subjects = sorted(set(windows.subject.tolist())) if windows is not None else cohort.subjects
    name, _, number = protocol.partition(":")
    if name == "holdout":
        return [splits.holdout(subjects, seed=seed)]
    if name == "kfold":
        return splits.k_fold(subjects, int(number or 5), seed=seed)
    if name == "loso":
        return splits.loso(subjects, seed=seed)
    if name == "loso67":
        return splits.loso(cohort.reactive(subjects), seed=seed)
    train, validation = cohort.of_part("train"), cohort.of_part("validation")
    if not train or not validation:
        raise DataError(f"{cohort.root} has no official split; use --folds, --loso or the hold-out")
    return [splits.official(train, validation, seed=seed)]


# ---- one split -----------------------------------------------------------------------------------------------


def known_parts(recipe: Recipe, *, seed: int, device: Device) -> dict[str, Any]:
    """The parts of a `run_key` that are known before any clip is cut."""
    return {
        "seed": seed, "recipe": recipe.to_dict(), "precision": device.precision, "devices": device.devices,
        "code": code(),
    }  # fmt: skip


def run_key(prepared: Prepared, split: Split, *, seed: int, device: Device) -> Key:
    """All that a run's weights and scores depend on, except the accelerator, which changes them by rounding only."""
    known = known_parts(prepared.recipe, seed=seed, device=device)
    return Key({"seed": seed, **prepared.depends, "split": split.to_dict(), **known})


def claim_run(folder: Path, key: Key) -> None:
    """Raises ConfigError where `folder` holds a run of another key."""
    claim(folder / "run.key.json", key, "a run", RUN_STATE)


def foresee_run(folder: Path, recipe: Recipe, *, seed: int, device: Device) -> None:
    """Raises the ConfigError of a later `claim_run` as early as it can be known."""
    foresee(folder / "run.key.json", known_parts(recipe, seed=seed, device=device), "a run", RUN_STATE)


def run_split(prepared: Prepared, split: Split, out: Path, *, seed: int, options: TrainingOptions) -> Result:
    """Train on `split.train`, select on `split.validation`, score `split.test`; all results are written to `out`.

    An interrupted run in `out` is resumed. Raises ConfigError where it was a run under another key.
    """
    recipe, task, windows = prepared.recipe, prepared.task, prepared.windows
    key = run_key(prepared, split, seed=seed, device=options.device)
    claim_run(out, key)
    write(out / RECIPE, json.dumps(recipe.to_dict(), indent=1) + "\n")
    write(out / FACTS, json.dumps(prepared.facts.to_dict(), indent=1) + "\n")
    about = {**split.to_dict(), "people": prepared.cohort.people}
    write(out / SPLIT, json.dumps(about, indent=1) + "\n")
    shown = {side: prepared.fusion_windows.of(getattr(split, side)) for side in ("train", "validation")}
    sides = {side: prepared.taught(of) for side, of in shown.items()}
    require_two_classes(sides["train"], "train")
    run = _Run(prepared, split, out, seed, options)
    networks, seconds = train_backbones(run)
    began = time.monotonic()
    features = features_of(prepared, networks, options)
    seconds["features"], began = time.monotonic() - began, time.monotonic()
    fusion, states = train_fusion(run, networks, features, sides, key.also(stage="fusion"))
    seconds["fusion"] = time.monotonic() - began

    temperature, loss = 1.0, float("nan")
    if len(sides["validation"]):
        chosen = predict(prepared, fusion, features, sides["validation"], states)
        loss = validation_loss(chosen)
        if "pain" in task.outputs:
            temperature = fit_temperature(chosen.outputs["pain"][:, -1], chosen.labels["pain"][:, -1])
    scored = windows.of(split.test)
    scored_side = "test" if len(scored) else "validation"
    predictions = predict(prepared, fusion, features, windows.of(getattr(split, scored_side)), states)
    predictions.temperature = temperature
    scores = score(predictions)
    plain: dict[str, Any] = {}
    if prepared.shift:
        same = uncalibrated(windows.of(getattr(split, scored_side)), prepared.shift)
        without = replace(predict(prepared, fusion, features, same, states), temperature=temperature)
        without.save(out / UNCALIBRATED)
        plain = {"uncalibrated": score(without).to_dict()}
    for name, network in networks.items():
        clip = {"clip": json.dumps(clip_facts(prepared.network_inputs()[name][0]))}
        _save_state(network.backbone.state_dict(), out / f"backbone-{name}.safetensors", clip)
    _save_state(fusion.state_dict(), out / "fusion.safetensors")
    for o, state in states.items():
        _save_state(state, out / f"fusion-best-{o}.safetensors")
    predictions.save(out / "predictions.npz")
    # what the training people's clips look like, with limits from the validation people; for the bundle
    densities = fit_windows(
        task, sides["train"], sides["validation"], (prepared.stores, prepared.stores), prepared.shift
    )
    (out / FILE).write_bytes(save_novelty(densities))
    uncertainty = uncertainty_of(prepared, fusion, features, shown["validation"], temperature)
    known = {} if uncertainty is None else uncertainty.to_manifest()
    write(out / UNCERTAINTY, json.dumps(known, indent=1) + "\n")
    record = {
        "split": split.name, "seed": seed, "key": key.digest, "seconds": {k: round(v, 2) for k, v in seconds.items()},
        "temperature": temperature, "validation_loss": None if np.isnan(loss) else loss,
        "scored": scored_side, **scores.to_dict(), **plain,
    }  # fmt: skip
    write(out / SCORES, json.dumps(record, indent=1) + "\n")
    return Result(split, predictions, scores, seconds, out, loss)


def uncertainty_of(
    prepared: Prepared,
    fusion: Fusion,
    features: dict[str, NDArray[np.float32]],
    validation: WindowTable,
    temperature: float,
) -> Uncertainty | None:
    """What the validation people promise for others; None where they are too few, or live cannot run the system.

    With baselines the promise holds with a rest and without one: it is the wider of both.
    """
    if not len(validation) or not exportable(prepared.recipe, prepared.task):
        return None
    ways = [validation, uncalibrated(validation, prepared.shift)] if prepared.shift else [validation]
    fitted = []
    for way in ways:
        found = {}
        for present in subsets(prepared.task.names):
            p = predict(prepared, fusion, features, way, {}, only(fusion.modalities, present))
            found[present] = promised(replace(p, temperature=temperature), way, prepared.stores, present)
        fitted.append(fit_uncertainty(found))
    return fitted[0] if len(fitted) == 1 else wider(*fitted)


@dataclass(frozen=True)
class _Run:
    prepared: Prepared
    split: Split
    out: Path
    seed: int
    options: TrainingOptions


def train_backbones(run: _Run) -> tuple[dict[str, Unimodal], dict[str, float]]:
    """Stage 1 of every network, and the seconds that each took."""
    networks: dict[str, Unimodal] = {}
    seconds: dict[str, float] = {}
    for name, (m, store) in run.prepared.network_inputs().items():
        began = time.monotonic()
        networks[name] = train_backbone(run, name, m, store)
        seconds[name] = time.monotonic() - began
    return networks, seconds


def features_of(
    prepared: Prepared, networks: dict[str, Unimodal], options: TrainingOptions
) -> dict[str, NDArray[np.float32]]:
    """(K, N, d) features of all clips of each network, varied as in training."""
    return {
        name: extract(
            networks[name].backbone, store, options.cache, augment=prepared.recipe.augment,
            device=torch_device(options.device), progress=options.progress,
        )
        for name, (_, store) in prepared.network_inputs().items()
    }  # fmt: skip


def train_backbone(run: _Run, name: str, m: Modality, store: ClipStore) -> Unimodal:
    """Stage 1: the backbone with its head on single clips, cached by all it depends on, so recipes can share it."""
    prepared, split, device = run.prepared, run.split, run.options.device
    recipe, task = prepared.recipe, backbone_task(prepared.recipe, prepared.task, m)
    stage = recipe.stage(name)
    torch.manual_seed(hash_seed(run.seed, _number(name)))
    network = pretraining(task, m, stage.dropout)
    source = recipe.weights.get(name, "")
    loaded = run.out / f"weights-{name}.txt"
    loaded.unlink(missing_ok=True)  # an attempt that failed before training may have left it
    if source:
        require_same_clips(source, m)
        loaded.write_text("\n".join(load_pretrained(network.backbone, source).lines()) + "\n")
    train = clip_set(prepared.taught(prepared.windows.of(split.train)), store, recipe.augment)
    judged = prepared.taught(prepared.windows.of(split.validation))
    validation = clip_set(judged, store) if split.validation else None
    validated = validation if validation is not None and len(validation) else None
    if not len(train):
        raise DataError(f"the training side of {split.name} has no usable {m.name} clip; check the data")
    key = backbone_key(task, recipe, stage, network, split, train, validation, seed=run.seed, device=device)
    kept = run.options.cache / "backbones" / f"{name}-{key.digest}.safetensors"
    with lock(kept.with_suffix(".lock")):  # recipes that share a backbone may run at the same time
        if kept.is_file():
            load_weights(network, kept)
            return network.eval()
        if stage.epochs:
            fit(
                network, train, validated, stage, run.out / name,
                name=f"{name} ({split.name})", seed=run.seed, key=key, device=device,
            )  # fmt: skip
        _save_state(network.state_dict(), kept)
    return network.eval()


def backbone_key(
    task: Task,
    recipe: Recipe,
    stage: Stage,
    network: Unimodal,
    split: Split,
    train: ClipSet,
    validation: ClipSet | None,
    *,
    seed: int,
    device: Device,
) -> Key:
    """All that a trained backbone depends on: nothing of other modalities or of the fusion, so recipes can share it."""
    return Key({
        "seed": seed, "modality": asdict(train.store.modality), "clips": train.store.content,
        "training": _examples(train), "validation": None if validation is None else _examples(validation),
        "split": {"train": sorted(split.train), "validation": sorted(split.validation)}, "dim": task.dim,
        "l2_normalise": task.l2_normalise, "outputs": list(task.outputs), "stage": asdict(stage),
        "augment": asdict(recipe.augment), "weights": weights_hash(network), "precision": device.precision,
        "devices": device.devices, "code": code(),
    })  # fmt: skip


def _examples(data: ClipSet) -> str:
    return digest(data.rows, *(x for o in sorted(data.labels) for x in (o, data.labels[o])))


def train_fusion(
    run: _Run,
    networks: dict[str, Unimodal],
    features: dict[str, NDArray[np.float32]],
    sides: dict[str, WindowTable],
    key: Key,
) -> tuple[Fusion, dict[str, State]]:
    """Stage 2: the fusion on cached features; a unimodal system needs stage 1 only.

    Returns the fusion and, with `ensemble`, the weights that predict each output.
    """
    prepared = run.prepared
    recipe, task = prepared.recipe, prepared.task
    if recipe.fusion == "unimodal":
        return networks[task.names[0]].head, {}
    stage = recipe.stage("fusion")
    torch.manual_seed(hash_seed(run.seed, _number("fusion")))
    fusion = fusion_of(recipe, task, stage.dropout)
    train = fusion_set(prepared, features, sides["train"], fusion, recipe.masking)
    validation = fusion_set(prepared, features, sides["validation"], fusion, None) if len(sides["validation"]) else None
    monitors = tuple(o for o in task.outputs if o != "pain") if recipe.ensemble else ()
    states = fit(
        FusionStep(fusion), train, validation, stage, run.out / "fusion", name="fusion", seed=run.seed, key=key,
        device=run.options.device, monitors=monitors,
    )  # fmt: skip
    fusion.eval()
    return fusion, {o: {k.removeprefix("fusion."): v for k, v in states[o].items()} for o in monitors if o in states}


def fusion_set(
    prepared: Prepared,
    features: dict[str, NDArray[np.float32]],
    windows: WindowTable,
    fusion: Fusion,
    masking: Masking | None,
) -> FeatureSet:
    """`windows` as inputs of `fusion`, including text or a second backbone where it has one."""
    data = feature_set(windows, prepared.stores, features, masking)
    first = prepared.task.names[0]
    if prepared.recipe.second:
        data.features[SECOND] = torch.from_numpy(features[SECOND])
        data.rows[SECOND] = data.rows[first]
    for name in fusion.modalities:
        if name == SECOND:
            data.present = torch.cat([data.present, data.present], -1)
        elif name == TEXT:
            table, there = text_features(prepared, Path(prepared.recipe.text))
            data.features[name] = torch.from_numpy(table[None])
            data.rows[name] = data.rows[first]
            rows = windows.rows[first]
            known = (rows >= 0) & there[np.maximum(rows, 0)]
            data.present = torch.cat([data.present, torch.from_numpy(known.astype(np.float32))[..., None]], -1)
    return data


def text_features(prepared: Prepared, folder: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(N, 768) rows of `<trial>.npy` for each clip of the first modality, and (N,) whether the file exists.

    The rows of a file are spread evenly over the trial, one per labelled frame or fewer.
    """
    clips = prepared.windows.clips[prepared.task.names[0]]
    table, there = np.zeros((len(clips), 768), np.float32), np.zeros(len(clips), bool)
    files: dict[int, NDArray[np.float32] | None] = {}
    for row, (number, end) in enumerate(clips):
        trial = prepared.windows.trials[number]
        if number not in files:
            path = folder / f"{trial.id}.npy"
            values = np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None
            if values is not None and (values.ndim != 2 or values.shape[1] != 768):
                raise DataError(f"{path} has shape {values.shape}, not (rows, 768); export the text features again")
            files[number] = values
        values = files[number]
        if values is not None:
            share = min(max(end / trial.duration, 0.0), 1.0)
            table[row] = values[min(int(share * len(values)), len(values) - 1)]
            there[row] = True
    if not there.any():
        raise DataError(f"{folder} has no text features for these trials (<trial>.npy); give another folder")
    return table, there


def predict(
    prepared: Prepared,
    fusion: Fusion,
    features: dict[str, NDArray[np.float32]],
    windows: WindowTable,
    states: dict[str, State],
    change: Change = lambda features, present: (features, present),
) -> Predictions:
    """Outputs of every window at all its steps. states: by output, weights that replace the fusion's for it
    (ensembling). change: of features and presence, before the fusion (noise, a missing modality)."""
    data = fusion_set(prepared, features, windows, fusion, None)
    original = {k: v.clone() for k, v in fusion.state_dict().items()}
    result = empty_predictions(windows, fusion.modalities)
    result.sequence = prepared.sequence
    batch = max(1, min(512, 8192 // prepared.task.steps))
    fusion.eval()
    with torch.inference_mode():
        for outputs, state in ((prepared.task.outputs, original), *(((o,), state) for o, state in states.items())):
            fusion.load_state_dict(state)
            parts: dict[str, list[NDArray[np.float32]]] = {}
            for i in range(0, len(windows), batch):
                inputs, _ = data[np.arange(i, min(i + batch, len(windows))), 0]
                vectors, present = change(inputs["features"], inputs["present"])
                got = fusion(vectors, present, return_attention=True)
                for o in outputs:
                    y = got[o][..., 1] - got[o][..., 0] if o == "pain" else got[o]
                    parts.setdefault(o, []).append(y.float().numpy())
                if state is original:
                    parts.setdefault("present", []).append(present.numpy())
                    if "attention" in got:
                        parts.setdefault("attention", []).append(got["attention"].numpy())
            result.fill(parts)
    fusion.load_state_dict(original)
    return result


# ---- the files of a run ---------------------------------------------------------------------------------------


def _save_state(state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Written as a whole: an interrupted run leaves no partial file that a later run would trust."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, part, metadata)
    part.replace(path)


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run's split. Raises DataError where `folder` has none."""
    if not (folder / RECIPE).is_file():
        raise DataError(f"{folder} is not a training run (no recipe.json); give a folder that `train --out` wrote")
    return from_dict(run_folder.read(folder, RECIPE))


def facts_of_run(folder: Path) -> DataFacts:
    """The facts of a run's training data; unknown where an earlier version trained it."""
    facts = run_folder.read(folder, FACTS) if (folder / FACTS).is_file() else {}
    return DataFacts.of_recipe(facts, recipe_of(folder).to_dict())


def load_run(folder: Path) -> tuple[Recipe, dict[str, nn.Module], Fusion, dict[str, State]]:
    """Recipe, backbones, fusion and ensembling states of a finished split's folder."""
    recipe = recipe_of(folder)
    task = recipe.resolve()
    described = {m.name: m for m in task.modalities}
    if recipe.second:
        described[SECOND] = second_backbone(task, recipe)
    backbones: dict[str, nn.Module] = {
        name: backbone_of(backbone_task(recipe, task, m), m) for name, m in described.items()
    }
    for name, network in backbones.items():
        load_weights(network, folder / f"backbone-{name}.safetensors")
        network.eval()
    fusion = fusion_of(recipe, task, 0.0)
    load_weights(fusion, folder / "fusion.safetensors")
    states = {o: read_weights(f) for o in task.outputs if (f := folder / f"fusion-best-{o}.safetensors").is_file()}
    return recipe, backbones, fusion.eval(), states


def exportable(recipe: Recipe, task: Task) -> bool:
    """Whether a live run can use this system: several modalities with one backbone each, a fusion of the task presets,
    no need for earlier data of the person, and no features that were computed elsewhere.
    """
    known = recipe.fusion in EXPORTABLE and len(task.modalities) > 1
    return known and not (recipe.audio_gru or recipe.calibrated or recipe.second or recipe.features)


def export_run(
    result: Result, path: Path, *, prepared: Prepared, name: str, demo: bool, overwrite: bool, options: TrainingOptions
) -> Any:
    """Export a trained split as a bundle; its provenance has data, split, seed, recipe and scores.

    What noise that nobody can see does to it is measured on the people it was scored on.
    """
    from ..compiler.export import export_bundle
    from . import sensitivity  # whose scorer imports this module

    cohort = prepared.cohort

    recipe, backbones, fusion, _ = load_run(result.folder)
    task = recipe.resolve()
    model = JointModel(task, backbones, fusion)  # type: ignore[arg-type]
    record = run_folder.read(result.folder, SCORES)
    provenance = {
        "data": facts_of_run(result.folder).to_dict(),
        "run": record["key"],
        "split": {"name": result.split.name, "people": cohort.people,
                  **{side: len(getattr(result.split, side)) for side in ("train", "validation", "test")},
                  "train_subjects": sorted({*result.split.train, *result.split.validation}),
            "test_subjects": list(result.split.test)},
        "seed": record["seed"],
        "recipe": recipe.to_dict(),
        "scores": {"on": f"{record['scored']} subjects, none of them trained on", "windows": record["windows"],
                   **record["pooled"], "interval95": record["interval95"]},
    }  # fmt: skip
    calibration = {"temperature": record["temperature"]} if "pain" in task.outputs else None
    compared = [name for name in task.names if name in prepared.shift]
    baseline = {"mode": recipe.baseline, "seconds": recipe.baseline_seconds, "modalities": compared}
    bundle = export_bundle(
        model, task, path, name=name, provenance=provenance, demo=demo, calibration=calibration,
        baseline=baseline if compared else None, overwrite=overwrite,
    )  # fmt: skip
    densities = read_novelty((result.folder / FILE).read_bytes(), task)
    known = run_folder.read(result.folder, UNCERTAINTY)
    scored = prepared.windows.of(getattr(result.split, record["scored"]))
    moved = sensitivity.measure(bundle, cohort, options, scored)
    return with_limits(bundle, densities, Uncertainty.from_manifest(known) if known else None, moved)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def torch_device(device: Device) -> str:
    wants = device.accelerator in ("auto", "gpu", "cuda")
    return "cuda" if wants and torch.cuda.is_available() else "cpu"


def console_progress() -> Progress:
    """Count, total and time left, on stderr; a stage that has finished and is reported again is timed from scratch."""
    began: dict[str, tuple[float, int]] = {}
    shown = [0.0]

    def show(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        start, first = began.setdefault(stage, (now, done))
        line = f"{stage}: {done}/{total}"
        if done > first:
            line += f", {(now - start) / (done - first) * (total - done):.0f} s left"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif now - shown[0] > 10 or (done == total and done > first):
            shown[0] = now
            print(line, file=sys.stderr, flush=True)
        if done == total:
            del began[stage]

    return show
