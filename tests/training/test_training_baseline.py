"""Each subject's baseline: what the slice holds, that nobody is trained or scored on it, and that nothing leaks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import training_tools as tools
from test_training_runs import options, quick

from jmt_edge.clips.baseline import EDA_LEVEL, EDA_SPREAD, Baseline, Signal, measured
from jmt_edge.errors import ConfigError
from jmt_edge.training.baseline import both_ways, calibrate, slices, uncalibrated
from jmt_edge.training.clips import build_clips
from jmt_edge.training.data import Cohort, Labels, Trial, WindowTable, cut_windows
from jmt_edge.training.evaluation import evaluate
from jmt_edge.training.experiment import make_splits, prepare, run_split
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.run_folder import SCORES, read
from jmt_edge.training.scores import Predictions

SECONDS = 15.0  # three windows of 5.5 s


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(tools.write_biovid(tmp_path_factory.mktemp("rest"), 6, 8, video=False))


def recipe(**changes: object) -> object:
    return quick(baseline="rest", baseline_seconds=SECONDS, **changes)


def test_the_slice_is_the_first_painless_windows_and_leaves_the_others_untouched(
    cohort: Cohort, tmp_path: Path
) -> None:
    windows = cut_windows(cohort, quick().resolve())
    support, touched = slices(windows, SECONDS)
    assert (support == touched).all()
    for who in cohort.subjects:
        own = np.flatnonzero(windows.subject == who)
        painless = own[windows.labels["pain"][own, -1] == 0]
        assert np.flatnonzero(support & (windows.subject == who)).tolist() == painless[:3].tolist()
    assert int(slices(windows, 1000.0)[0].sum()) == 6 * 4  # never more than half of the painless windows
    stores = build_clips(windows, tmp_path, cohort.problems)
    found = calibrate(windows, stores, SECONDS)
    assert len(found.windows) + len(found.support) == len(windows)
    assert not set(found.windows.trial.tolist()) & set(found.support.trial.tolist())


def test_windows_of_a_stream_that_overlap_the_slice_are_dropped_too() -> None:
    task = quick().resolve()
    labels = Labels(np.zeros(1), {"pain": np.zeros(1)})
    ends = tuple(np.arange(6.0, 60.0, 1.0).tolist())
    trial = Trial("a", "a", {"eda": Path("none.csv")}, 60.0, labels, ends)
    whole = Cohort("biovid", Path("."), [trial], None)  # type: ignore[arg-type]
    windows: WindowTable = cut_windows(whole, task)
    support, touched = slices(windows, SECONDS)
    last = windows.end[support].max()
    assert support[:5].all() and last < windows.end[~touched].min() - 5.5 + 1e-6


def test_a_person_with_another_level_and_spread_gives_the_same_calibrated_clips() -> None:
    m = quick().resolve().modality("eda")
    rng = np.random.default_rng(0)
    usual = 5 + 0.3 * rng.normal(size=(8, *m.shape)).astype(np.float32)
    other = 9 + 0.5 * (usual - 5)

    def rest(clips: np.ndarray) -> Baseline:
        return Baseline.of(Signal([measured(clip, m) for clip in clips]), m)

    later = 5 + np.linspace(0, 2, m.shape[-1], dtype=np.float32)[None]
    for whole, clip in ((usual, later), (other, 9 + 0.5 * (later - 5))):
        assert rest(whole).apply(clip, m) == pytest.approx(later, abs=0.05)
    flat = rest(np.full_like(usual, 7.0))  # a spread of 0 does not blow anything up
    assert np.abs(flat.apply(np.float32(7.5) + 0 * later, m) - EDA_LEVEL).max() == pytest.approx(2.0)
    assert rest(usual).spread == pytest.approx(EDA_SPREAD, abs=0.01)


def test_nothing_of_a_subject_changes_the_inputs_of_another(cohort: Cohort, tmp_path: Path) -> None:
    windows = cut_windows(cohort, quick().resolve())
    stores = build_clips(windows, tmp_path, cohort.problems)
    owner = np.array([windows.trials[n].subject for n, _ in windows.clips["eda"]])
    stranger = owner == cohort.subjects[0]
    changed = np.array(stores["eda"].data)
    changed[stranger] = changed[stranger] * 3 + 1
    one = calibrate(windows, stores, SECONDS).stores["eda"].data
    two = calibrate(windows, {"eda": replace(stores["eda"], data=changed)}, SECONDS).stores["eda"].data
    others = np.tile(~stranger, 2)
    assert np.array_equal(one[others], two[others]) and not np.array_equal(one, two)


def test_training_shows_each_window_both_ways(cohort: Cohort, tmp_path: Path) -> None:
    windows = cut_windows(cohort, quick().resolve())
    raw = build_clips(windows, tmp_path, cohort.problems)
    found = calibrate(windows, raw, SECONDS)
    plain = uncalibrated(found.windows, found.shift)
    rows = plain.rows["eda"][:, -1]
    assert np.array_equal(found.stores["eda"].data[rows], raw["eda"].data[found.windows.rows["eda"][:, -1]])
    twice = both_ways(found.windows, found.shift)
    assert len(twice) == 2 * len(found.windows)
    assert twice.rows["eda"].tolist() == [*found.windows.rows["eda"].tolist(), *plain.rows["eda"].tolist()]


def test_a_run_scores_both_ways_and_never_the_slice(cohort: Cohort, tmp_path: Path) -> None:
    how = options(tmp_path)
    prepared = prepare(cohort, recipe(), how)  # type: ignore[arg-type]
    split = make_splits(cohort, "holdout", seed=0, windows=prepared.windows)[0]
    result = run_split(prepared, split, tmp_path / "run", seed=0, options=how)
    windows = cut_windows(cohort, prepared.task)
    resting = {windows.trials[windows.trial[i]].id for i in np.flatnonzero(slices(windows, SECONDS)[0])}
    plain = Predictions.load(tmp_path / "run" / "predictions-uncalibrated.npz")
    for p in (result.predictions, plain):
        assert set(p.subject.tolist()) == set(split.test) and not resting & set(p.trial.tolist())
    assert plain.trial.tolist() == result.predictions.trial.tolist()
    assert not np.array_equal(plain.outputs["pain"], result.predictions.outputs["pain"])
    assert read(tmp_path / "run", SCORES)["uncalibrated"]["windows"] == len(plain.end)
    lines = evaluate(tmp_path / "run", cohort, tmp_path / "out", protocol="", options=how, robustness=False)
    assert lines[0].startswith("baseline = rest")
    assert [sum(line.startswith(row) for line in lines) for row in ("calibrated", "uncalibrated")] == [1, 1]


def test_a_recipe_whose_clips_a_baseline_cannot_change_is_refused() -> None:
    with pytest.raises(ConfigError, match="EDA, voice and measures"):
        quick(modalities=["face"], backbone={}, baseline="rest").resolve()
    with pytest.raises(ConfigError, match="does not go with"):
        recipe(calibrated=True).resolve()  # type: ignore[attr-defined]
