"""Scores of a run or a bundle on a data set: a table with the published numbers, JSON, CSV and plots."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..capture.simulated.scenario import CLASS_NAMES
from ..engine.bundle import Bundle, cpu_graph, load_bundle
from ..errors import ConfigError, DataError
from ..tasks import Task
from . import evaluation_report, matching, persons, plots, run_folder, score_table, sensitivity, trial_figure
from .baseline import calibrate, uncalibrated
from .clips import ClipStore, build_clips, with_faults
from .data import PAIN_CLASSES, Cohort, WindowTable, cut_windows, person
from .experiment import (
    Prepared,
    TrainingOptions,
    facts_of_run,
    load_run,
    predict,
    prepare,
    recipe_of,
)
from .features import extract
from .keys import write
from .memory import predict_memory, require_memory
from .networks import SECOND
from .published import published_lines
from .recipes import Recipe
from .scores import Predictions, Scores, empty_predictions, score
from .sets import feature_set
from .uncertainty import Change, Features

NOISE_LEVELS = (0.25, 0.5, 1.0, 2.0)  # SD of the noise, in SDs of the modality's features


class Scorer(Protocol):
    """A trained system on one data set; `predict` may hide a modality or add noise to its features."""

    windows: WindowTable
    shift: dict[str, int]  # see `baseline.Calibrated`; empty for weights that take no baseline
    notes: tuple[str, ...]

    def predict(
        self, windows: WindowTable, *, without: str = "", noise: tuple[str, float] = ("", 0.0)
    ) -> Predictions: ...


class RunScorer:
    """The torch weights of a run's split."""

    def __init__(self, prepared: Prepared, folder: Path, options: TrainingOptions) -> None:
        self.prepared, self.windows = prepared, prepared.windows
        self.shift, self.notes = prepared.shift, prepared.notes
        _, backbones, self.fusion, self.states = load_run(folder)
        self.features = {
            name: extract(backbones[name], store, options.cache, progress=options.progress)
            for name, (_, store) in prepared.network_inputs().items()
        }
        finished = (folder / run_folder.SCORES).is_file()
        self.temperature = float(run_folder.read(folder, run_folder.SCORES)["temperature"]) if finished else 1.0

    def predict(self, windows: WindowTable, *, without: str = "", noise: tuple[str, float] = ("", 0.0)) -> Predictions:
        change = disturb(self.fusion.modalities, self.features, without, noise)
        found = predict(self.prepared, self.fusion, self.features, windows, self.states, change)
        found.temperature = self.temperature
        return found


class BundleScorer:
    """A bundle, run by the engine that `live` uses, on all windows of a cohort or on `windows`.

    faults: of the modalities that have one (`clips.with_faults`). A bundle with baselines takes each subject's from the
    cohort, whose support slices are not scored; of given `windows` the clips stay as they are.
    """

    def __init__(
        self,
        bundle: Bundle,
        cohort: Cohort,
        options: TrainingOptions,
        *,
        windows: WindowTable | None = None,
        faults: Mapping[str, str] | None = None,
    ) -> None:
        from ..engine.backends import open_engine

        if bundle.subject:
            raise ConfigError(
                f"{bundle.path} is personalised to {bundle.subject}, so scores of other people would not be its own; "
                "evaluate the general bundle (`jmt-edge personalise --undo`)"
            )
        self.task, self.temperature = bundle.task, bundle.temperature
        self.windows = cut_windows(cohort, self.task) if windows is None else windows
        rests = bundle.baseline if windows is None else ()
        require_memory(predict_memory(self.windows, None, workers=options.workers, rests=rests))
        how = options.workers, options.progress
        self.stores = build_clips(self.windows, options.cache, cohort.problems, *how)
        if faults:
            self.stores = with_faults(self.windows, self.stores, faults, options.cache, *how)
        self.shift: dict[str, int] = {}
        self.notes: tuple[str, ...] = ()
        if rests:
            seconds = bundle.baseline_seconds
            found = calibrate(self.windows, self.stores, seconds)
            self.windows, self.stores, self.shift = found.windows, found.stores, found.shift
            self.notes = (found.line(seconds),)
        self.engine = open_engine(bundle, "onnxruntime")
        self.features = {name: self._features(name, store, options) for name, store in self.stores.items()}

    def _features(self, name: str, store: ClipStore, options: TrainingOptions) -> NDArray[np.float32]:
        parts = []
        count = len(store.data)
        for i in range(0, count, 16):
            clips = store.load(np.arange(i, min(i + 16, count)))
            parts.append(np.asarray(self.engine.backbones({name: clips})[name], np.float32))
            options.progress(f"{name} features", min(i + 16, count), count)
        return np.concatenate(parts)[None]

    def predict(
        self,
        windows: WindowTable,
        *,
        without: str = "",
        noise: tuple[str, float] = ("", 0.0),
        change: Change | None = None,
    ) -> Predictions:
        """change: of features and presence, instead of what `without` and `noise` make of them."""
        names = self.task.names
        known = {m: self.features.get(m, np.zeros((1, 1, self.task.dim), np.float32)) for m in names}
        data = feature_set(windows, self.stores, known, None)
        change = change or disturb(names, known, without, noise)
        parts: dict[str, list[NDArray[np.float32]]] = {}
        for i in range(0, len(windows), 64):
            inputs, _ = data[np.arange(i, min(i + 64, len(windows))), 0]
            x, present = change(inputs["features"], inputs["present"])
            got = self.engine.fusion({m: x[m].numpy() for m in names}, present.numpy() > 0.5)
            y = {o: np.asarray(got[o], np.float32) for o in (*self.task.outputs, "attention")}
            if "pain" in y:
                y["pain"] = y["pain"][..., 1] - y["pain"][..., 0]
            for name, values in {**y, "present": present.numpy()}.items():
                parts.setdefault(name, []).append(values)
        found = empty_predictions(windows, names)
        found.fill(parts)
        found.temperature = self.temperature
        return found


def disturb(
    names: tuple[str, ...], tables: dict[str, NDArray[np.float32]], without: str, noise: tuple[str, float]
) -> Change:
    """A change of features and presence: one modality hidden, or noise of so many SDs added to it."""
    generator = torch.Generator().manual_seed(0)
    name, level = noise

    def change(features: Features, present: torch.Tensor) -> tuple[Features, torch.Tensor]:
        if without:
            present = present.clone()
            present[..., names.index(without)] = 0
        # a modality's noise reaches both of its backbones
        for hit in (name, *([SECOND] if name == names[0] and SECOND in features else [])) if name and level else ():
            x = features[hit]
            spread = float(np.std(tables[hit]))
            features = {**features, hit: x + level * spread * torch.randn(x.shape, generator=generator)}
        return features, present

    return change


def disturbances(task: Task) -> dict[str, dict[str, Any]]:
    """Condition -> how `predict` is called for it: each modality missing, and with noise."""
    found: dict[str, dict[str, Any]] = {}
    for m in task.names:
        if len(task.names) > 1:
            found[f"without {m}"] = {"without": m}
        found |= {f"noise {level:g} on {m}": {"noise": (m, level)} for level in NOISE_LEVELS}
    return found


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
    cross: bool = False,
    window_end: float | None = None,
    faces: bool = False,
) -> list[str]:
    """Score a run's folder or a bundle on `cohort`; returns the table's lines, writes JSON, CSV and plots to `out`.

    A run with folds is scored fold by fold, each subject by the weights that were not trained on it.
    protocol: `all` scores every subject, `all67` omits BioVid's non-reactive ones, `test` keeps those that the run
    or the bundle's provenance lists as held out, `official` keeps the challenge's validation set; "" is `test` for a
    run and `all` for a bundle. Raises DataError where a scored subject was trained on, unless `allow_trained`.
    Subjects are identified by their ids, and by the data set where it numbers its people itself.
    cross: the data may differ from the model's in window, sensors, rate and classes; without it that is a DataError.
    window_end: see `matching.cross`. faces: whether the figure of one trial shows the person.
    """
    model = _model(target)
    differences: list[str] = []
    if cross:
        cohort, differences = matching.cross(
            target.name, model.task, model.facts, cohort, trained=model.subjects, end=window_end
        )
        _require_cross(target, model, cohort)
    else:
        matching.require_same(str(target), model.task, model.facts, cohort)
    parts, recipe, trained_by = _parts(target, cohort, options)
    chosen: list[WindowTable] = []
    protocol = protocol or ("all" if recipe is None or cross else "test")
    if cross and len(parts) > 1:
        raise ConfigError(f"{target} holds {len(parts)} folds, and other data has no test side of theirs; give one of "
                          f"them, such as {_folders(target)[0]}, or the bundle")  # fmt: skip
    if len(parts) > 1 and protocol != "test":
        raise ConfigError(f"{target} holds {len(parts)} folds, each of which scores its own test side; omit --protocol")
    notes: dict[str, None] = {}
    for part in parts:
        ours = part.people in ("", cohort.people)
        if protocol == "test" and not ours:
            raise ConfigError(
                f"{target} held out people of {part.people}, but {cohort.root} has people of {cohort.people}; score "
                "them with --protocol all"
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
                f"subject {known[0]} of {cohort.people} is taken for another person than subject {known[0]} of "
                f"{part.people}, who was trained on; give both folders the same name if they hold the same people"
            ] = None
        chosen.append(part.scorer.windows.of(subjects))
    if not any(len(w) for w in chosen):
        raise DataError(f"{cohort.root} has no window of the subjects to score; check --protocol and the data")

    def predictions(**change: Any) -> Predictions:
        """All folds together, each predicted with its own weights."""
        return Predictions.join([part.scorer.predict(w, **change) for part, w in zip(parts, chosen) if len(w)])

    clean = predictions()
    out.mkdir(parents=True, exist_ok=True)
    table = {"clean": score(clean, published=published)}
    if parts[0].scorer.shift:
        plain = [part.scorer.predict(uncalibrated(w, part.scorer.shift)) for part, w in zip(parts, chosen) if len(w)]
        table |= {"calibrated": table["clean"], "uncalibrated": score(Predictions.join(plain))}
    task = parts[0].scorer.windows.task
    if robustness:
        table |= {name: score(predictions(**change), draws=200) for name, change in disturbances(task).items()}
    write_results(out, target.name, table, clean)
    if cross:
        facts = {"model": model.facts.to_dict(), "data": matching.facts_of(cohort).to_dict()}
        write(out / "cross.json", json.dumps({**facts, "differences": differences}, indent=1) + "\n")
    plots.all_plots(out, clean, table, task)
    if clean.attention.size and clean.attention.shape[1] >= trial_figure.STEPS:
        trial_figure.trial_attention(out, clean, task, cohort.trials, faces=faces)
    paper = [] if cross else published_lines(trained_by)
    moved: list[str] = []
    if robustness and model.bundle:
        found = sensitivity.measure(load_bundle(target), cohort, options, chosen[0])
        if moved := found.lines():
            write(out / "sensitivity.json", json.dumps(found.to_manifest(), indent=1) + "\n")
    evaluation_report.write_html(
        out, title=f"Evaluation of {target.name}", clean=clean, table=table, figures=plots.NAMES,
        about={
            "model": target.name, "data": f"{cohort.root.name} ({cohort.layout})", "protocol": protocol,
            "task": f"{task.name}: {', '.join(task.names)}, S = {task.steps}",
            "person calibration": persons.NOTE if recipe is not None and recipe.calibrated else "",
        },
        sections={"Another data set": differences, "Noise that nobody can see": moved, "Notes": [*notes],
                  "Published": paper,
                  "Data": cohort.problems.lines(), "Baseline": [*parts[0].scorer.notes]},
    )  # fmt: skip
    lines = score_table.score_lines(table, score_table.ALL, "clean")
    if recipe is not None and recipe.calibrated:
        lines.insert(0, persons.NOTE)
    lines = [*parts[0].scorer.notes, *lines]
    return [*differences, *lines, *moved, *notes, *paper]


@dataclass(frozen=True)
class _Model:
    """What a run or a bundle was trained on. subjects: how many people."""

    task: Task
    facts: matching.DataFacts
    subjects: int
    bundle: bool


def _model(target: Path) -> _Model:
    if (target / "manifest.json").is_file():
        bundle = load_bundle(target)
        trained = len(bundle.manifest["provenance"].get("split", {}).get("train_subjects", []))
        facts = matching.facts_of_bundle(bundle.manifest)
        return _Model(bundle.task, facts, trained, True)
    folder = _folders(target)[0]
    split = run_folder.read(folder, run_folder.SPLIT)
    return _Model(
        recipe_of(folder).resolve(), facts_of_run(folder), len({*split["train"], *split["validation"]}), False
    )


def _require_cross(target: Path, model: _Model, cohort: Cohort) -> None:
    """Raises DataError where a run, which reads the features of every modality, meets data without one of them."""
    lacking = [m for m in model.task.names if m not in cohort.modalities]
    if lacking and not model.bundle:
        raise DataError(
            f"{cohort.root} has no {lacking[0]}, which the run {target} needs; give its bundle, which is scored as a "
            "live run without that sensor"
        )


def classes_of(target: Path) -> tuple[str, ...]:
    """The classes that a run or a bundle was trained on, where they are BioVid's; else the usual ones."""
    known = _model(target).facts.classes
    return known if len(known) == 2 and set(known) <= set(CLASS_NAMES) else PAIN_CLASSES


@dataclass
class _Part:
    """One trained system and its subjects. people: the data set that numbers them, "" where it was not recorded."""

    scorer: Scorer
    held_out: list[str]
    trained: set[str]
    people: str


def _parts(
    target: Path, cohort: Cohort, options: TrainingOptions
) -> tuple[list[_Part], Recipe | None, Mapping[str, Any]]:
    """One part for a bundle or a run, one per fold for a run with folds; the recipe of a run; the recipe as recorded,
    empty for a bundle without one.
    """
    if (target / "manifest.json").is_file():
        bundle = load_bundle(target)
        provenance = bundle.manifest.get("provenance", {})
        split, trained_by = provenance.get("split", {}), _as_bundled(bundle)
        scorer = BundleScorer(bundle, cohort, options)
        held_out, trained = split.get("test_subjects", []), set(split.get("train_subjects", []))
        return [_Part(scorer, held_out, trained, split.get("people", ""))], None, trained_by
    folders = _folders(target)
    require_one_run(target, folders)
    recipe = recipe_of(folders[0])
    prepared = prepare(cohort, recipe, options, training=False)
    parts = []
    for folder in folders:
        split = run_folder.read(folder, run_folder.SPLIT)
        trained = {*split["train"], *split["validation"]}
        parts.append(_Part(RunScorer(prepared, folder, options), split["test"], trained, split.get("people", "")))
    return parts, recipe, recipe.to_dict()


def _as_bundled(bundle: Bundle) -> dict[str, Any]:
    """The recipe of a bundle's weights: one set for all outputs, in the precision that is scored."""
    recipe = bundle.manifest.get("provenance", {}).get("recipe", {})
    if not recipe:
        return {}
    precisions = sorted({cpu_graph(bundle, network)[1] for network in bundle.networks} - {"fp32"})
    changed = {"precision": ", ".join(precisions)} if precisions else {}
    return {**recipe, "ensemble": False, **changed}


def _folders(target: Path) -> list[Path]:
    """The folders of a run's splits. Raises DataError where there are none."""
    folders = [target] if (target / run_folder.RECIPE).is_file() else run_folders(target)
    if not folders:
        raise DataError(
            f"{target} is neither a bundle nor a finished run; give NAME.jmt or the folder of `train --out`"
        )
    return folders


def require_one_run(target: Path, folders: list[Path]) -> None:
    """Raises ConfigError where `folders` are not the folds of one run but several recipes or seeds."""
    kept = [
        {
            "recipes": run_folder.read(folder, run_folder.RECIPE),
            "seeds": run_folder.read(folder, run_folder.SCORES)["seed"],
        }
        for folder in folders
        if len(folders) > 1
    ]
    for what in ("recipes", "seeds"):
        if any(run[what] != kept[0][what] for run in kept):
            raise ConfigError(
                f"{target} has runs of several {what}; give the folder of one of them, such as {folders[0]}"
            )


def run_folders(target: Path) -> list[Path]:
    """The folders of a run's finished folds."""
    return sorted(f.parent for f in target.glob("*/scores.json") if (f.parent / "recipe.json").is_file())


def _subjects(windows: WindowTable, cohort: Cohort, protocol: str, held_out: list[str]) -> list[str]:
    subjects = sorted(set(windows.subject.tolist()))
    if protocol == "all":
        return subjects
    if protocol == "all67":
        return cohort.reactive(subjects)
    if protocol == "test":
        people = {person(s) for s in held_out}
        return [s for s in subjects if person(s) in people]
    if protocol == "official":
        return cohort.of_part("validation")
    raise ConfigError(f"unknown protocol '{protocol}': choose all, all67, test or official")


def write_results(out: Path, name: str, table: dict[str, Scores], clean: Predictions) -> None:
    """results.json, results.csv (condition by metric), subjects.csv and predictions.csv."""
    (out / "results.json").write_text(
        json.dumps({"of": name, "conditions": {k: s.to_dict() for k, s in table.items()}}, indent=1) + "\n"
    )
    names, extras = list(table["clean"].pooled), list(table["clean"].extras)
    write_csv(
        out / "results.csv",
        ["condition", "windows", *names, *extras],
        (
            [k, s.windows, *(f"{s.pooled[n]:.5f}" for n in names), *(f"{s.extras.get(n, np.nan):.5f}" for n in extras)]
            for k, s in table.items()
        ),
    )
    s = table["clean"]
    write_csv(
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
    write_csv(out / "predictions.csv", list(columns), zip(*columns.values()))


def write_csv(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
