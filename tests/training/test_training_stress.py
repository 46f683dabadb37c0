"""Twenty real people: 30 s windows of rest against cognitive stress in PainMonit's format, leave one subject out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import training_tools as tools

from jmt_edge.training.experiment import Options, make_splits, prepare
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.recipes import load_recipe
from jmt_edge.training.scores import Predictions, score
from jmt_edge.training.search import run_splits
from jmt_edge.training.trainer import Device

RATE, SECONDS = 8, 30
RELAX, COGNITIVE = (0, 2, 5, 7), 4  # phases of the recording, in order


def stress_windows(mat: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 240) µS, labels and subjects: consecutive 30 s windows of the relax and cognitive phases."""
    from scipy.io import loadmat

    x, y, who = [], [], []
    length = RATE * SECONDS
    for number, person in enumerate(loadmat(mat, squeeze_me=True, struct_as_record=False)["s"]):
        signal = np.asarray(person.x, float)
        onsets = [int(v) - 1 for v in person.y] + [len(signal)]  # MATLAB counts from 1
        for phase in (*RELAX, COGNITIVE):
            for start in range(onsets[phase], onsets[phase + 1] - length + 1, length):
                x.append(signal[start : start + length])
                y.append(float(phase == COGNITIVE))
                who.append(number)
    return np.array(x), np.array(y), np.array(who)


@pytest.mark.slow
def test_cognitive_stress_of_people_never_seen(shared_data: Path, tmp_path: Path) -> None:
    x, y, who = stress_windows(shared_data / "eda" / "noneeg_20subj_eda_8hz.mat")
    assert (len(set(who)), x.shape[1]) == (20, 240)
    cohort = open_cohort(tools.write_painmonit(tmp_path / "data", x, y, who), rate=RATE)
    recipe = load_recipe("painmonit-eda", ['shapes={"eda": [1, 240]}', 'spans={"eda": 30.0}', "variant=demo"])
    options = Options(cache=tmp_path / "cache", device=Device("cpu", quiet=True))
    prepared = prepare(cohort, recipe, options)
    splits = make_splits(cohort, "loso", seed=0, windows=prepared.windows)
    results = run_splits(prepared, splits, tmp_path / "run", seed=0, options=options)
    scores = score(Predictions.join([r.predictions for r in results]))
    print(scores.pooled, scores.mean_sd("balanced_accuracy"), scores.interval)
    assert len(results) == 20
    assert scores.pooled["balanced_accuracy"] >= 0.75
