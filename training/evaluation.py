"""Scores of a run or a bundle on a data set: tables beside the published numbers, JSON, CSV and plots."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..capture.simulated.person import BIOVID_NON_REACTIVE
from ..engine.bundle import Bundle, load_bundle
from ..errors import ConfigError, DataError
from ..tasks import Task
from . import persons, plots
from .clips import ClipStore, build_clips
from .data import Cohort, WindowTable, cut_windows, person
from .experiment import Prepared, TrainingOptions, load_run, predict, prepare
from .features import extract
from .published import beside
from .recipes import Recipe
from .scores import Predictions, Scores, empty_predictions, score
from .sets import feature_set

NOISE_LEVELS = (0.25, 0.5, 1.0, 2.0)  # SD of the noise, in SDs of the modality's features
SHOWN = ("accuracy", "balanced_accuracy", "f1", "auc", "ece", "brier", "ccc_valence", "ccc_arousal", "ccc_mean")


class Scorer:
    """A trained system on one data set; `predict` may hide a modality or add noise to its features."""

    def __init__(self, windows: WindowTable, stores: dict[str, ClipStore]) -> None:
        self.windows, self.stores = windows, stores

    def predict(self, windows: WindowTable, *, without: str = "", noise: tuple[str, float] = ("", 0.0)) -> Predictions:
        raise AssertionError("a run and a bundle define it")


class RunScorer(Scorer):
    """The torch weights of a run's split."""

    def __init__(self, prepared: Prepared, folder: Path, options: TrainingOptions) -> None:
        super().__init__(prepared.windows, prepared.stores)
        self.prepared = prepared
        self.recipe, _, backbones, self.fusion, self.states = load_run(folder)
        self.features = {
            name: extract(backbones[name], store, options.cache, progress=options.progress)
            for name, (_, store) in prepared.network_inputs().items()
        }
        file = folder / "scores.json"
        self.temperature = float(json.loads(file.read_text())["temperature"]) if file.is_file() else 1.0

    def predict(self, windows: WindowTable, *, without: str = "", noise: tuple[str, float] = ("", 0.0)) -> Predictions:
        generator = torch.Generator().manual_seed(0)

        def change(x: dict[str, torch.Tensor], present: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
            return disturb(x, present, self.fusion.modalities, self.features, without, noise, generator)

        found = predict(self.prepared, self.fusion, self.features, windows, self.states, change)
        found.temperature = self.temperature
        return found


class BundleScorer(Scorer):
    """A bundle, run by the engine that `live` uses."""

    def __init__(
        self, bundle: Bundle, windows: WindowTable, stores: dict[str, ClipStore], options: TrainingOptions
    ) -> None:
        from ..engine.backends import open_engine

        super().__init__(windows, stores)
        self.bundle = bundle
        self.engine = open_engine(bundle, "onnxruntime")
        self.temperature = bundle.temperature
        self.features = {name: self._features(name, store, options) for name, store in stores.items()}

    def _features(self, name: str, store: ClipStore, options: TrainingOptions) -> NDArray[np.float32]:
        parts = []
        count = len(store.data)
        for i in range(0, count, 16):
            clips = store.load(np.arange(i, min(i + 16, count)))
            parts.append(np.asarray(self.engine.backbones({name: clips})[name], np.float32))
            options.progress(f"{name} features", min(i + 16, count), count)
        return np.concatenate(parts)[None]

    def predict(self, windows: WindowTable, *, without: str = "", noise: tuple[str, float] = ("", 0.0)) -> Predictions:
        names = self.bundle.task.names
        known = {m: self.features.get(m, np.zeros((1, 1, self.bundle.task.dim), np.float32)) for m in names}
        data = feature_set(windows, self.stores, known, None)
        generator = torch.Generator().manual_seed(0)
        outputs: dict[str, list[NDArray[np.float32]]] = {}
        attention, presents = [], []
        for i in range(0, len(windows), 64):
            inputs, _ = data[np.arange(i, min(i + 64, len(windows))), 0]
            x, present = disturb(inputs["features"], inputs["present"], names, known, without, noise, generator)
            got = self.engine.fusion({m: x[m].numpy() for m in names}, present.numpy() > 0.5)
            for o in self.bundle.task.outputs:
                y = np.asarray(got[o], np.float32)
                outputs.setdefault(o, []).append(y[..., 1] - y[..., 0] if o == "pain" else y)
            attention.append(np.asarray(got["attention"], np.float32))
            presents.append(present.numpy())
        found = empty_predictions(windows, names, np.concatenate(presents))
        found.outputs = {o: np.concatenate(y) for o, y in outputs.items()}
        found.attention = np.concatenate(attention)
        found.temperature = self.temperature
        return found


def disturb(
    features: dict[str, torch.Tensor],
    present: torch.Tensor,
    names: tuple[str, ...],
    tables: dict[str, NDArray[np.float32]],
    without: str,
    noise: tuple[str, float],
    generator: torch.Generator,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Features and presence with one modality hidden, or with noise of so many SDs on it."""
    if without:
        if without not in names:
            raise ConfigError(f"there is no modality '{without}' to hide; choose one of {', '.join(names)}")
        present = present.clone()
        present[..., names.index(without)] = 0
    name, level = noise
    if name and level:
        spread = float(np.std(tables[name]))
        x = features[name]
        features = {**features, name: x + level * spread * torch.randn(x.shape, generator=generator)}
    return features, present


# ---- a command's work ----------------------------------------------------------------------------------------


def evaluate(
    target: Path,
    cohort: Cohort,
    out: Path,
    *,
    protocol: str,
    options: TrainingOptions,
    robustness: bool = True,
    published: bool = False,
    allow_trained: bool = False,
) -> list[str]:
    """Score a run's folder or a bundle on `cohort`; returns the table's lines, writes JSON, CSV and plots to `out`.

    A run with folds is scored fold by fold, each subject by the weights that never saw it.
    protocol `all` scores every subject, `all67` without BioVid's non-reactive ones, `test` only those that the run
    or the bundle's provenance lists as held out, `official` the challenge's validation set, "" is `test` for a run
    and `all` for a bundle. Raises DataError where a scored subject was trained on (unless `allow_trained`): subjects
    are told apart by their ids, and by the data set where that numbers its people itself.
    """
    parts, recipe, trained_by = _parts(target, cohort, options)
    chosen: list[WindowTable] = []
    protocol = protocol or ("all" if recipe is None else "test")
    if len(parts) > 1 and protocol != "test":
        raise ConfigError(
            f"{target} holds {len(parts)} folds, each of which scores its own test side; leave --protocol"
        )
    notes: dict[str, None] = {}
    for part in parts:
        ours = part.people in ("", cohort.people)
        if protocol == "test" and not ours:
            raise ConfigError(
                f"{target} held out people of {part.people}, and {cohort.root} has those of {cohort.people}; "
                "score them with --protocol all"
            )
        subjects = _subjects(part.scorer.windows, cohort, protocol, part.held_out)
        trained = {person(s) for s in part.trained}
        known = [s for s in subjects if person(s) in trained]
        if known and ours and not allow_trained:
            raise DataError(
                f"subject {known[0]} of {cohort.root} was trained on, so its score would be inflated; "
                "score other subjects (--protocol test)"
            )
        if known and not ours:
            notes[
                f"subject {known[0]} of {cohort.people} counts as another person than that of {part.people}, which was "
                "trained on; name the folders alike if they hold the same people"
            ] = None
        chosen.append(part.scorer.windows.of(subjects))
    if not any(len(w) for w in chosen):
        raise DataError(f"{cohort.root} holds no window of the subjects to score; check --protocol and the data")

    def predictions(**change: Any) -> Predictions:
        """Of all folds together, each by its own weights."""
        found = [part.scorer.predict(w, **change) for part, w in zip(parts, chosen) if len(w)]
        return found[0] if len(found) == 1 else Predictions.join(found)

    clean = predictions()
    out.mkdir(parents=True, exist_ok=True)
    table = {"clean": score(clean, published=published)}
    task = parts[0].scorer.windows.task
    if robustness:
        for m in task.names:
            if len(task.names) > 1:
                table[f"without {m}"] = score(predictions(without=m), draws=200)
            for level in NOISE_LEVELS:
                table[f"noise {level:g} on {m}"] = score(predictions(noise=(m, level)), draws=200)
    write_results(out, target.name, table, clean)
    plots.all_plots(out, clean, table, task)
    lines = lines_of(table)
    if recipe is not None and recipe.calibrated:
        lines.insert(0, persons.NOTE)
    return [*lines, *notes, *beside(trained_by)]


@dataclass
class _Part:
    """One trained system and whom it may be scored on. people: whose ids these are, "" where it was not recorded."""

    scorer: Scorer
    held_out: list[str]
    trained: set[str]
    people: str


def _parts(target: Path, cohort: Cohort, options: TrainingOptions) -> tuple[list[_Part], Recipe | None, str]:
    """A bundle or a run is one part, a run with folds one a fold. The recipe is a run's, its name a bundle's too."""
    if (target / "manifest.json").is_file():
        bundle = load_bundle(target)
        windows, stores = _prepare_task(cohort, bundle.task, options)
        provenance = bundle.manifest.get("provenance", {})
        split, name = provenance.get("split", {}), provenance.get("recipe", {}).get("name", "")
        scorer = BundleScorer(bundle, windows, stores, options)
        held_out, trained = split.get("test_subjects", []), set(split.get("train_subjects", []))
        return [_Part(scorer, held_out, trained, split.get("people", ""))], None, name
    folders = [target] if (target / "recipe.json").is_file() else run_folders(target)
    if not folders:
        raise DataError(
            f"{target} is neither a bundle nor a finished run; give NAME.jmt or the folder of `train --out`"
        )
    require_one_run(target, folders)
    recipe = load_run(folders[0])[0]
    prepared = prepare(cohort, recipe, options)
    parts = []
    for folder in folders:
        split = json.loads((folder / "split.json").read_text())
        trained = {*split["train"], *split["validation"]}
        parts.append(_Part(RunScorer(prepared, folder, options), split["test"], trained, split.get("people", "")))
    return parts, recipe, recipe.name


def require_one_run(target: Path, folders: list[Path]) -> None:
    """Raises ConfigError where `folders` are not the folds of one run: a comparison's systems, or several seeds."""
    kept = [
        {
            "recipes": json.loads((folder / "recipe.json").read_text()),
            "seeds": json.loads((folder / "scores.json").read_text())["seed"],
        }
        for folder in folders
        if len(folders) > 1
    ]
    for what in ("recipes", "seeds"):
        if any(run[what] != kept[0][what] for run in kept):
            raise ConfigError(
                f"{target} holds runs of several {what}; give the folder of one of them, such as {folders[0]}"
            )


def run_folders(target: Path) -> list[Path]:
    """The folders of a run's folds; none where it has no finished ones."""
    return sorted(f.parent for f in target.glob("*/scores.json") if (f.parent / "recipe.json").is_file())


def _prepare_task(cohort: Cohort, task: Task, options: TrainingOptions) -> tuple[WindowTable, dict[str, ClipStore]]:
    windows = cut_windows(cohort, task)
    return windows, build_clips(
        windows, options.cache, cohort.problems, workers=options.workers, progress=options.progress
    )


def _subjects(windows: WindowTable, cohort: Cohort, protocol: str, held_out: list[str]) -> list[str]:
    subjects = sorted(set(windows.subject.tolist()))
    if protocol == "all":
        return subjects
    if protocol == "all67":
        if not cohort.numbers:
            raise DataError(
                f"{cohort.root} has no samples.csv with subject numbers, which the 67-subject protocol needs"
            )
        return [s for s in subjects if cohort.numbers[s] not in BIOVID_NON_REACTIVE]
    if protocol == "test":
        people = {person(s) for s in held_out}
        return [s for s in subjects if person(s) in people]
    if protocol == "official":
        return sorted({r.subject for r in cohort.trials if r.part == "validation"})
    raise ConfigError(f"unknown protocol '{protocol}': choose all, all67, test or official")


def lines_of(table: dict[str, Scores]) -> list[str]:
    """The table as text: condition, windows, metric with interval, mean and SD over subjects."""
    first = next(iter(table.values()))
    names = [m for m in SHOWN if m in first.pooled]
    lines = [f"{'':<22}{'windows':>8} " + " ".join(f"{n:>18}" for n in names)]
    for condition, s in table.items():
        lines.append(f"{condition:<22}{s.windows:>8} " + " ".join(f"{s.pooled[n]:>18.3f}" for n in names))
        if condition == "clean":
            pairs = [s.interval.get(n) for n in names]
            lines.append(
                f"{'  95 % by subject':<31}"
                + " ".join(f"{f'[{p[0]:.3f}, {p[1]:.3f}]' if p else '':>18}" for p in pairs)
            )
            means = [s.mean_sd(n) for n in names]
            lines.append(
                f"{'  subjects mean (SD)':<31}"
                + " ".join(f"{'' if np.isnan(a) else f'{a:.3f} ({b:.3f})':>18}" for a, b in means)
            )
            lines += [f"  {k}: {v:.3f}" for k, v in s.extras.items()]
    return lines


def write_results(out: Path, name: str, table: dict[str, Scores], clean: Predictions) -> None:
    """results.json, results.csv (condition by metric), subjects.csv and predictions.csv."""
    (out / "results.json").write_text(
        json.dumps({"of": name, "conditions": {k: s.to_dict() for k, s in table.items()}}, indent=1) + "\n"
    )
    names = list(next(iter(table.values())).pooled)
    _write_csv(
        out / "results.csv",
        ["condition", "windows", *names],
        ([k, s.windows, *(f"{s.pooled[n]:.5f}" for n in names)] for k, s in table.items()),
    )
    s = table["clean"]
    _write_csv(
        out / "subjects.csv",
        ["subject", *s.subjects],
        ([who, *(f"{s.subjects[n].get(who, float('nan')):.5f}" for n in s.subjects)]
         for who in sorted({w for values in s.subjects.values() for w in values})),
    )  # fmt: skip
    columns: dict[str, Any] = {"subject": clean.subject, "recording": clean.trial, "end": clean.end}
    for o, y in clean.labels.items():
        columns[f"{o}_label"] = y[:, -1]
        columns[o] = clean.probability() if o == "pain" else clean.outputs[o][:, -1]
    if clean.attention.size:
        columns |= {f"attention_{m}": clean.attention[:, -1, i] for i, m in enumerate(clean.names)}
    _write_csv(out / "predictions.csv", list(columns), zip(*columns.values()))


def _write_csv(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
