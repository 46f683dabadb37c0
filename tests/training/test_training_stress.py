"""Twenty real people: 30 s windows of rest against cognitive stress in PainMonit's format, scored on people never seen.

Five folds of four people, trained on fewer than leaving one out would leave: a quarter of its work, and no easier. The
protocol with one person left out, five seeds and the comparison are in benchmarks/noneeg.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from noneeg import compressed, hand_made, left_out, stress_windows, write_painmonit
from sklearn.metrics import balanced_accuracy_score

from jmt_edge.training.experiment import TrainingOptions, make_splits, prepare
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.recipes import load_recipe
from jmt_edge.training.scores import Predictions, score
from jmt_edge.training.search import run_splits
from jmt_edge.training.trainer import Device


@pytest.mark.slow
def test_cognitive_stress_of_people_never_seen(shared_data: Path, tmp_path: Path) -> None:
    x, y, who = stress_windows(shared_data / "eda" / "noneeg_20subj_eda_8hz.mat")
    assert (len(set(who)), x.shape[1]) == (20, 240)
    cohort = open_cohort(write_painmonit(tmp_path / "data", x, y, who), rate=8)
    recipe = load_recipe("painmonit-eda", ['shapes={"eda": [1, 240]}', 'spans={"eda": 30.0}', "variant=demo"])
    options = TrainingOptions(cache=tmp_path / "cache", device=Device("cpu", quiet=True))
    prepared = prepare(cohort, recipe, options)
    splits = make_splits(cohort, "kfold:5", seed=0, windows=prepared.windows)
    results = run_splits(prepared, splits, tmp_path / "run", seed=0, options=options)
    scores = score(Predictions.join([r.predictions for r in results]))
    # the others hold next to no skin conductance (under 0.05 µS, an electrode without contact): a live run refuses them
    assert scores.windows == 918 == len(y) - 92
    assert scores.pooled["balanced_accuracy"] >= 0.75


def test_hand_made_features_of_a_known_window() -> None:
    t = np.arange(240) / 8
    response = 0.2 * np.exp(-(((t - 15) / 1.5) ** 2))
    mean, sd, slope, count, amplitude = hand_made((3 + 0.01 * t + response)[None])[0]
    assert (mean, slope, count) == pytest.approx((3 + 0.01 * t.mean() + response.mean(), 0.01, 1), rel=0.01)
    assert sd == pytest.approx(np.std(0.01 * t + response))
    assert amplitude == pytest.approx(0.2, abs=0.06)  # the drift adds to one flank and takes from the other


def test_the_baseline_leaves_each_person_out(shared_data: Path) -> None:
    x, y, who = stress_windows(shared_data / "eda" / "noneeg_20subj_eda_8hz.mat")
    features = compressed(hand_made(x.astype(np.float32).astype(float)))  # as X.npy holds them
    logit = left_out(features, y, who)
    assert balanced_accuracy_score(y, logit > 0) == pytest.approx(0.774, abs=0.003)  # docs/reference/scores.md
    changed = y.copy()
    changed[who == 3] = 1 - changed[who == 3]
    assert np.array_equal(left_out(features, changed, who)[who == 3], logit[who == 3])  # its labels are not looked at
