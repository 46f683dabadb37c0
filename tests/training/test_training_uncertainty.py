"""Sets and intervals from other people: they keep their promise for people never used before, whatever is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jmt_edge.cli.live import demo_bundle
from jmt_edge.engine.bundle import load_bundle, write_bundle
from jmt_edge.engine.novelty import FILE
from jmt_edge.engine.uncertainty import Uncertainty
from jmt_edge.errors import ConfigError
from jmt_edge.tasks import get_task
from jmt_edge.training.data import WindowTable
from jmt_edge.training.limits import add_to_demo, other_people, predict_subsets, with_limits
from jmt_edge.training.scores import Predictions
from jmt_edge.training.streams import simulated_cohort
from jmt_edge.training.uncertainty import Subsets, coverage, fit_uncertainty, only, promised, subsets

NAMES = ("face", "eda")


def population(seed: int, people: int = 150, windows: int = 6) -> Subsets:
    """A network that is less sure without one modality, and more wrong for some people than for others."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), windows)
    pain = rng.integers(0, 2, len(who)).astype(np.float32)
    valence = rng.uniform(-1, 1, len(who)).astype(np.float32)
    hard = np.exp(rng.normal(0, 0.5, people))[who]
    found = {}
    for some in subsets(NAMES):
        noise = hard / len(some)
        logit = 4 * (pain - 0.5) + rng.normal(0, 2 * noise)
        p = Predictions(
            NAMES, who.astype(str), who.astype(str), np.arange(len(who), dtype=float),
            {"pain": pain[:, None], "valence": np.where(rng.random(len(who)) < 0.1, np.nan, valence)[:, None]},
            {"pain": logit[:, None].astype(np.float32),
             "valence": (valence + rng.normal(0, 0.3 * noise))[:, None].astype(np.float32)},
            np.tile([[[name in some for name in NAMES]]], (len(who), 1, 1)).astype(np.float32),
            np.empty(0, np.float32),
        )  # fmt: skip
        found[some] = p
    return found


def test_the_promise_is_kept_with_one_modality_missing() -> None:
    """1000 people each, so that chance moves the coverage by less than 1 %."""
    known = fit_uncertainty(population(0, people=1000))
    assert known is not None and set(known.limits) == set(subsets(NAMES)) and known.people == 1000
    rows = {(row.present, row.output): row for row in coverage(known, population(1, people=1000))}
    assert len(rows) == 3 * 4
    for (present, output), row in rows.items():
        likelier_class = output.startswith("pain") and len(present) == 2  # nearly always right: never left out
        assert 0.87 <= row.found <= (1 if likelier_class else 0.93), row
        assert row.low <= row.found <= row.high
    for output in ("pain", "valence"):
        assert rows[NAMES, output].size < rows[("eda",), output].size


def test_limits_of_both_do_not_hold_for_one() -> None:
    """Which is why each set of modalities has its own."""
    known = fit_uncertainty(population(0))
    assert known is not None
    one, both = frozenset({"eda"}), frozenset(NAMES)
    borrowed = replace(known, limits={one: known.limits[both]})
    rows = {row.output: row.found for row in coverage(borrowed, {one: population(1)[one]})}
    assert rows["valence"] < 0.8


def test_a_window_without_the_modality_does_not_count() -> None:
    found = population(0)
    both = found[frozenset(NAMES)]
    present = both.present.copy()
    present[::2, :, 1] = 0
    known = fit_uncertainty({frozenset(NAMES): replace(both, present=present)})
    assert known is not None and known.windows == len(both.end) // 2


def test_too_few_people_give_nothing() -> None:
    assert fit_uncertainty(population(0, people=8)) is None
    none = np.arange(0)
    empty = {some: replace(p, attention=p.present).take(none) for some, p in population(0).items()}
    assert fit_uncertainty(empty) is None


def test_absent_modalities_are_masked_as_in_a_live_run() -> None:
    """At every step, and so is a modality whose newest step is absent."""
    seen = torch.tensor([[[1.0, 1, 1], [1, 1, 1]], [[1, 1, 1], [0, 1, 1]], [[0, 1, 1], [1, 1, 0]]])
    _, left = only(("face", "voice", "eda"), frozenset({"face", "voice"}))({}, seen)
    assert left.tolist() == [[[1, 1, 0], [1, 1, 0]], [[0, 1, 0], [0, 1, 0]], [[0, 1, 0], [1, 1, 0]]]


def test_limits_are_fitted_to_the_windows_whose_sets_live_shows() -> None:
    """Not to those that end in a held pause, where the voice takes part, nor to those before the first full one."""
    task = get_task("affect")
    names = task.names
    rows = np.array([[0, 1], [1, 2], [2, 1], [0, -1], [0, 1]])  # clip 2 of the voice is a pause
    end = task.window + np.array([0, 1, 2, 3, -0.5])
    stores = {name: SimpleNamespace(pause=np.array([False, False, name == "voice"])) for name in names}
    windows = WindowTable(task, [], {}, dict.fromkeys(names, rows), {}, np.zeros(5, int), end)
    p = Predictions(
        names, np.array(list("abcde")), np.array(list("abcde")), end, {}, {"valence": np.zeros((5, 1), np.float32)},
        np.ones((5, 1, len(names)), np.float32), np.empty(0, np.float32),
    )  # fmt: skip
    seen = {some: promised(p, windows, stores, some).subject.tolist() for some in subsets(names)}  # type: ignore[arg-type]
    for some, subjects in seen.items():
        assert subjects == (["a", "c", "d"] if "voice" in some else ["a", "b", "c", "d"])


# ---- the demo bundle


def test_limits_are_written_beside_the_networks(tmp_path: Path) -> None:
    old = load_bundle(demo_bundle("pain"))
    copy = write_bundle(tmp_path / "x.jmt", old.manifest, old.files)
    known = fit_uncertainty(population(0))
    new = with_limits(copy, old.novelty(), known)
    assert new.uncertainty == known and new.has_novelty
    assert {n: f.sha256 for n, f in new.files.items()} == {n: f.sha256 for n, f in old.files.items()}
    bare = with_limits(new, {}, None)
    assert bare.uncertainty is None and not bare.has_novelty and FILE not in bare.files


def test_people_who_cannot_be_simulated_again_are_refused(tmp_path: Path) -> None:
    old = load_bundle(demo_bundle("pain"))
    copy = write_bundle(tmp_path / "x.jmt", {**old.manifest, "demo": False}, old.files)
    with pytest.raises(ConfigError, match="not trained on simulated people"):
        add_to_demo(copy.path, cache=tmp_path)


def test_other_people_have_no_window_on_the_grid_of_a_live_run() -> None:
    cohort = other_people(load_bundle(demo_bundle("pain")).task, 5)
    ends = np.concatenate([t.ends for t in cohort.trials])
    assert len(cohort.trials) == 150 and 1180 < len(ends) <= 1200
    assert (np.abs(ends * 2 - np.rint(ends * 2)) > 1e-6).all()


@pytest.mark.slow
def test_the_demo_keeps_its_promise_from_skin_alone(tmp_path: Path) -> None:
    """Without a camera, on 60 people simulated for this test only; `benchmarks/uncertainty.py` measures the rest."""
    bundle = load_bundle(demo_bundle("pain"))
    known = bundle.uncertainty
    assert isinstance(known, Uncertainty)
    cohort = simulated_cohort(bundle.task, subjects=60, windows=4, seed=91)
    trials = [replace(t, files={"eda": t.files["eda"]}) for t in cohort.trials]
    found = predict_subsets(bundle, replace(cohort, trials=trials), cache=tmp_path)
    rows = {row.output: row for row in coverage(known, {frozenset({"eda"}): found[frozenset({"eda"})]})}
    assert rows["pain"].people == 60
    # 60 people tell 90 % from 80 %, no more
    assert rows["pain"].low <= 0.93 and rows["pain"].high >= 0.87 and rows["pain"].found > 0.82
