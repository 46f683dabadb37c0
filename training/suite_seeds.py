"""The suite over seeds: whether the joint branch helps, clean, with faults of the input, with absence, with few people.

The folds are fixed. Backbones are trained once per fold and share of the people. Each fusion is trained with N seeds on
their features (`seeds.py`), with masking and without, and scored on test windows whose signals have faults
(`faults.py`). Controls: JMT without joint source but with as many parameters; windows whose face and EDA are of
different moments; fusions trained on out-of-fold features. A finished fold is read back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError
from ..models.fusion import Fusion
from ..tasks import Task
from . import claims_report
from .claims import Sums, sums_of
from .claims_report import CLEAN, CROSS_FIT, MASKED, REPAIRED, UNMASKED, WITHOUT, ClaimsFound
from .clips import ClipStore, with_faults
from .data import Cohort, WindowTable, re_paired, require_two_classes
from .experiment import (
    Prepared,
    TrainingOptions,
    _number,
    _Run,
    features_of,
    fusion_set,
    known_parts,
    make_splits,
    prepare,
    require_fit,
    run_key,
    train_backbones,
)
from .faults import conditions
from .features import extract
from .keys import claim, digest, foresee, write
from .networks import Unimodal, fusion_of
from .recipes import Masking, Recipe
from .scores import empty_predictions
from .seeds import fit_seeds, last_outputs
from .sets import FeatureSet, feature_set, hash_seed
from .splits import Split, fraction
from .suite import systems_of

PRIMARY = ("jmt", "jmt_no_joint_wide")  # the claim, and its control
INNER_FOLDS = 2  # of the training people, for out-of-fold features
RIDGE = 1e-2  # of the map between two backbones' features, in units of their mean variance
FILE = "outputs.npz"
PART = ("a part of a suite", (FILE,))


@dataclass(frozen=True)
class Variant:
    """One system under one way of training: masked, unmasked, re-paired (and masked), cross-fitted (and masked)."""

    system: str
    way: str

    @property
    def name(self) -> str:
        return f"{self.system}-{self.way}"


def run_seeded_suite(
    cohort: Cohort,
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    seeds: int,
    fractions: Sequence[float],
    systems: Sequence[str] = (),
    protocol: str = "kfold:5",
    command: str = "",
    re_pair: bool = False,
    cross_fit: bool = False,
    options: TrainingOptions,
) -> Path:
    """Train what is not yet trained, score all, and write `claims.html`, `.md`, `.json` and plots; returns the report.

    seed: of folds and backbones; the fusions have the seeds 0 to `seeds` - 1. re_pair: add the control of the largest
    share; cross_fit: add out-of-fold features at the smallest share. Raises ConfigError for unknown systems.
    """
    wanted = systems_of(recipe)
    if unknown := [s for s in systems if s not in wanted]:
        raise ConfigError(f"unknown system '{unknown[0]}': choose among {', '.join(wanted)}")
    if not fractions or not all(0 < f <= 1 for f in fractions):
        raise ConfigError(f"--fractions {','.join(map(str, fractions))}: each must lie in (0, 1]")
    chosen = {k: v for k, v in wanted.items() if not systems or k in systems or k in PRIMARY}
    require_fit(cohort, recipe)
    known = known_parts(recipe, seed=seed, device=options.device) | {"seeds": seeds}
    del known["recipe"]  # each variant's own
    for share in fractions:
        for split in make_splits(cohort, protocol, seed=seed):
            for file in (out / f"{share:g}").glob(f"*/{split.name}/run.key.json"):
                foresee(file, known, *PART)
    began = time.monotonic()
    prepared = prepare(cohort, recipe, options)
    splits = make_splits(cohort, protocol, seed=seed, windows=prepared.windows)
    found: dict[str, dict[Variant, dict[str, list[tuple[list[str], Sums]]]]] = {}
    shares = sorted(fractions, reverse=True)
    total, done, trained = len(shares) * len(splits), 0, {}
    for share in shares:
        variants = _variants(chosen, re_pair and share == shares[0], cross_fit and share == shares[-1])
        of_share = found.setdefault(f"{share:g}", {v: {} for v in variants})
        parts = [fraction(s, share, seed=seed) if share < 1 else s for s in splits]
        trained[f"{share:g}"] = (min(len(s.train) for s in parts), max(len(s.train) for s in parts))
        for split in parts:
            fold = _Fold(prepared, split, out / f"{share:g}", seed, seeds, options)
            for variant in variants:
                for condition, sums in fold.scored(variant, chosen[variant.system]).items():
                    of_share[variant].setdefault(condition, []).append(sums)
            done += 1
            options.progress("folds of the suite", done, total)
    joined = {s: {v: {c: _joined(p) for c, p in t.items()} for v, t in of.items()} for s, of in found.items()}
    some = next(iter(next(iter(joined.values())).values()))[CLEAN]
    parameters = {
        k: sum(p.numel() for p in fusion_of(r, r.resolve(), 0.0).parameters())
        for k, r in chosen.items() if r.fusion != "unimodal"
    }  # fmt: skip
    results = ClaimsFound(
        recipe, {v.name: (v.system, v.way) for of in joined.values() for v in of},
        {s: {v.name: {c: sums for c, (_, sums) in t.items()} for v, t in of.items()} for s, of in joined.items()},
        PRIMARY, protocol, seed, seeds, len(some[0]), sum(len(prepared.windows.of(s.test)) for s in splits), trained,
        (min(len(s.validation) for s in splits), max(len(s.validation) for s in splits)),
        f"{cohort.root.name} ({cohort.layout}): {len(cohort.trials)} trials of {len(cohort.subjects)} subjects",
        parameters, time.monotonic() - began,
    )  # fmt: skip
    write(out / "splits.json", json.dumps([asdict(s) for s in splits], indent=1) + "\n")
    return claims_report.write_report(out, results, command)


def _variants(systems: dict[str, Recipe], repaired: bool, cross_fitted: bool) -> list[Variant]:
    """Single modalities have no fusion that a seed, masking or pairs could change."""
    alone = [Variant(k, MASKED) for k, r in systems.items() if r.fusion == "unimodal"]
    fused = [k for k, r in systems.items() if r.fusion != "unimodal"]
    tested = [k for k in fused if k in PRIMARY]
    ways = [(MASKED, fused), (UNMASKED, [*tested, *(k for k in fused if k == "concat")])]
    ways += [(REPAIRED, tested)] if repaired else []
    ways += [(CROSS_FIT, [*tested, *(k for k in fused if k == "concat")])] if cross_fitted else []
    return [*alone, *(Variant(k, way) for way, names in ways for k in names)]


def _joined(parts: list[tuple[list[str], Sums]]) -> tuple[list[str], Sums]:
    """All folds: subjects, and their sums in that order."""
    people = [name for names, _ in parts for name in names]
    order = np.argsort(people)
    return sorted(people), {
        measure: np.concatenate([sums[measure] for _, sums in parts], axis=1)[:, order] for measure in parts[0][1]
    }


class _Fold:
    """One fold at one share of the people: its backbones, their features, and every variant trained on them."""

    def __init__(
        self, prepared: Prepared, split: Split, out: Path, seed: int, seeds: int, options: TrainingOptions
    ) -> None:
        self.prepared, self.split, self.out = prepared, split, out
        self.seed, self.seeds, self.options = seed, seeds, options

    def scored(self, variant: Variant, recipe: Recipe) -> dict[str, tuple[list[str], Sums]]:
        """Condition -> subjects and sums."""
        if variant.way == UNMASKED:
            recipe = replace(recipe, masking=Masking())
        prepared = self._prepared(recipe)
        if variant.way == REPAIRED:
            prepared = replace(prepared, windows=re_paired(prepared.windows))
        folder = self.out / variant.name / self.split.name
        key = run_key(prepared, self.split, seed=self.seed, device=self.options.device)
        key = key.also(seeds=self.seeds, way=variant.way)
        claim(folder / "run.key.json", key, *PART)
        windows = prepared.windows.of(self.split.test)
        if not (folder / FILE).is_file():
            self._train(variant, recipe, prepared, folder)
        with np.load(folder / FILE) as stored:
            outputs = {name: stored[name] for name in stored.files}  # "condition|output": (K, W)
        names = dict.fromkeys(name.split("|")[0] for name in outputs)
        return {c: self._sums(windows, {o: outputs[f"{c}|{o}"] for o in windows.labels}) for c in names}

    def _sums(self, windows: WindowTable, outputs: dict[str, NDArray[np.float32]]) -> tuple[list[str], Sums]:
        seeds = []
        for k in range(len(next(iter(outputs.values())))):
            p = empty_predictions(windows, self.prepared.task.names)
            p.outputs = {o: y[k][:, None] for o, y in outputs.items()}
            seeds.append(p)
        return sums_of(seeds)

    def _prepared(self, recipe: Recipe) -> Prepared:
        """The same windows and clips for a system of some of the modalities."""
        task = recipe.resolve()
        every = self.prepared.windows
        windows = replace(
            every, task=task, rows={m: every.rows[m] for m in task.names}, clips={m: every.clips[m] for m in task.names}
        )
        stores = {m: self.prepared.stores[m] for m in task.names if m in self.prepared.stores}
        return replace(self.prepared, recipe=recipe, task=task, windows=windows, stores=stores)

    # ---- training ------------------------------------------------------------------------------------------------

    def _train(self, variant: Variant, recipe: Recipe, prepared: Prepared, folder: Path) -> None:
        if recipe.fusion == "unimodal":
            (name,) = prepared.task.names
            outputs = {
                f"{c}|{o}": y for c in self.inputs for o, y in self._alone(name, prepared.task, c).items()
            }  # fmt: skip
        else:
            outputs = self._fused(variant, recipe, prepared)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{FILE}.part.npz"
        np.savez_compressed(part, **outputs)  # type: ignore[arg-type]
        part.replace(folder / FILE)

    def _alone(self, name: str, task: Task, condition: str) -> dict[str, NDArray[np.float32]]:
        """A single modality with the head of its pretraining; where it is absent it says nothing: 0."""
        prepared, features, hidden = self.inputs[condition]
        windows = replace(prepared.windows, task=task)
        data = feature_set(windows, prepared.stores, {name: features[name]}, None)
        inputs, _ = data[np.arange(len(data)), 0]
        with torch.inference_mode():
            found = self.networks[name].head.eval()(inputs["features"], None)
        there = (inputs["present"][:, -1, 0] > 0.5).numpy() & (hidden != name)
        found = {o: y[..., 1] - y[..., 0] if o == "pain" else y for o, y in found.items()}
        return {o: np.where(there, y[:, -1].numpy(), 0).astype(np.float32)[None] for o, y in found.items()}

    def _fused(self, variant: Variant, recipe: Recipe, prepared: Prepared) -> dict[str, NDArray[np.float32]]:
        stage, fusions = recipe.stage("fusion"), list[Fusion]()
        for seed in range(self.seeds):
            torch.manual_seed(hash_seed(seed, _number("fusion")))
            fusions.append(fusion_of(recipe, prepared.task, stage.dropout))
        features = self.cross_fitted if variant.way == CROSS_FIT else self.features
        train = prepared.windows.of(self.split.train)
        require_two_classes(train, "train")
        states = fit_seeds(
            fusions, fusion_set(prepared, features, train, fusions[0], recipe.masking),
            fusion_set(prepared, self.features, prepared.windows.of(self.split.validation), fusions[0], None),
            stage, range(self.seeds),
        )  # fmt: skip
        if variant.way == REPAIRED:
            test = prepared.windows.of(self.split.test)
            data = {CLEAN: fusion_set(prepared, self.features, test, fusions[0], None)}
        else:
            data = {c: self._input(c, recipe, fusions[0]) for c in self.inputs}
        return {f"{c}|{o}": y for c, d in data.items() for o, y in last_outputs(fusions[0], states, d).items()}

    # ---- stage 1: made when first needed -------------------------------------------------------------------------

    @cached_property
    def networks(self) -> dict[str, Unimodal]:
        return self._backbones(self.split)

    def _backbones(self, split: Split) -> dict[str, Unimodal]:
        run = _Run(self.prepared, split, self.out / "backbones" / split.name, self.seed, self.options)
        return train_backbones(run)[0]

    @cached_property
    def features(self) -> dict[str, NDArray[np.float32]]:
        return features_of(self.prepared, self.networks, self.options)

    @cached_property
    def cross_fitted(self) -> dict[str, NDArray[np.float32]]:
        """Features in which each training person's are of backbones that were not trained on them.

        Two backbones number their features differently. A ridge regression maps those of the inner backbone to those of
        the fold's, fitted on the validation people, on whom neither was trained.
        """
        found = {name: np.array(x) for name, x in self.features.items()}
        people = list(self.split.train)
        inner = min(INNER_FOLDS, len(people))
        if inner < 2:
            raise ConfigError("--cross-fit needs two training people or more; give a larger share in --fractions")
        for k in range(inner):
            out = people[k::inner]
            part = Split(f"{self.split.name}-without{k + 1}", tuple(p for p in people if p not in out),
                         self.split.validation, ())  # fmt: skip
            other = features_of(self.prepared, self._backbones(part), self.options)
            for name, x in other.items():
                first = self.prepared.task.names[0] if name not in self.prepared.windows.clips else name
                owner = np.array(
                    [self.prepared.windows.trials[n].subject for n, _ in self.prepared.windows.clips[first]]
                )
                common = np.isin(owner, self.split.validation) & self.prepared.stores[first].present
                moved = aligned(x[0][common], self.features[name][0][common])
                mine = np.isin(owner, out)
                found[name][:, mine] = moved(x[:, mine])
        return found

    @cached_property
    def inputs(self) -> dict[str, tuple[Prepared, dict[str, NDArray[np.float32]], str]]:
        """Condition -> the test side's windows and clips, their features, and the modality that is hidden."""
        windows, stores = only(self.prepared.windows.of(self.split.test), self.prepared.stores)
        made: dict[tuple[str, str], tuple[ClipStore, dict[str, NDArray[np.float32]]]] = {}

        def with_fault(m: str, fault: str) -> tuple[ClipStore, dict[str, NDArray[np.float32]]]:
            if (m, fault) not in made:
                faults = {m: fault} if fault else {}
                changed = with_faults(windows, stores, faults, self.options.cache, self.options.workers)
                part = replace(self.prepared, windows=windows, stores={m: changed[m]})
                first = m == self.prepared.task.names[0]
                made[m, fault] = changed[m], {
                    name: extract(self.networks[name].backbone, store, self.options.cache)
                    for name, (_, store) in (part.network_inputs() if first else {m: (None, changed[m])}).items()
                }  # fmt: skip
            return made[m, fault]

        names = self.prepared.task.names
        cases: dict[str, tuple[dict[str, str], str]] = {CLEAN: ({}, "")}
        cases |= {c: (faults, "") for c, faults in conditions(self.prepared.task).items()}
        cases |= {f"{WITHOUT} {m}": ({}, m) for m in names if len(names) > 1}
        found = {}
        for condition, (faults, hidden) in cases.items():
            parts = {m: with_fault(m, faults.get(m, "")) for m in names}
            prepared = replace(self.prepared, windows=windows, stores={m: store for m, (store, _) in parts.items()})
            features = {name: x for _, tables in parts.values() for name, x in tables.items()}
            found[condition] = (prepared, features, hidden)
        return found

    def _input(self, condition: str, recipe: Recipe, fusion: Fusion) -> FeatureSet:
        prepared, features, hidden = self.inputs[condition]
        data = fusion_set(replace(prepared, recipe=recipe), features, prepared.windows, fusion, None)
        if hidden:
            data.present[..., prepared.task.names.index(hidden)] = 0
        return data


def only(windows: WindowTable, stores: dict[str, ClipStore]) -> tuple[WindowTable, dict[str, ClipStore]]:
    """The windows with the clips that they use, and no others."""
    kept = {}
    for m, table in windows.rows.items():
        used = np.unique(table[table >= 0])
        store = stores[m]
        data, present, track, pause = (
            np.asarray(a[used]) for a in (store.data, store.present, store.track, store.pause)
        )
        content = digest(data, present, track, pause)
        kept[m] = replace(store, data=data, present=present, track=track, pause=pause, content=content)
    return windows.with_used_clips(), kept


def aligned(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> Any:
    """The affine map, by ridge regression, from one backbone's features (n, d) of clips to another's of the same."""
    x, y = mine.astype(np.float64), theirs.astype(np.float64)
    mx, my = x.mean(0), y.mean(0)
    gram = (x - mx).T @ (x - mx)
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram, (x - mx).T @ (y - my))
    return lambda z: ((z - mx) @ weights + my).astype(np.float32)
