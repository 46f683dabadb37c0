"""Each subject's baseline: what the slice holds, that nobody is trained or scored on it, and that nothing leaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import training_tools as tools
from click.testing import CliRunner
from test_training_runs import options, quick

from jmt_edge.cli import cli
from jmt_edge.clips.baseline import EDA_LEVEL, EDA_SPREAD, Baseline, Signal, measured
from jmt_edge.clips.cutter import signal_format
from jmt_edge.engine.bundle import load_bundle
from jmt_edge.errors import ConfigError, DataError
from jmt_edge.preprocessing.actions import MEASURES
from jmt_edge.training.baseline import both_ways, calibrate, slices, uncalibrated
from jmt_edge.training.clips import build_clips
from jmt_edge.training.data import Cohort, Labels, Trial, WindowTable, cut_windows
from jmt_edge.training.evaluation import evaluate
from jmt_edge.training.experiment import make_splits, prepare, run_split
from jmt_edge.training.readers import open_cohort
from jmt_edge.training.recipes import load_recipe, parse_grid
from jmt_edge.training.run_folder import SCORES, read
from jmt_edge.training.scores import Predictions

SECONDS = 15.0  # three windows of 5.5 s


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return open_cohort(tools.write_biovid(tmp_path_factory.mktemp("rest"), 6, 8, video=False))


def recipe(**changes: object) -> object:
    return quick(baseline="rest", baseline_seconds=30.0, **changes)


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
    resting = {windows.trials[windows.trial[i]].id for i in np.flatnonzero(slices(windows, 30.0)[0])}
    plain = Predictions.load(tmp_path / "run" / "predictions-uncalibrated.npz")
    for p in (result.predictions, plain):
        assert set(p.subject.tolist()) == set(split.test) and not resting & set(p.trial.tolist())
    assert plain.trial.tolist() == result.predictions.trial.tolist()
    assert not np.array_equal(plain.outputs["pain"], result.predictions.outputs["pain"])
    assert read(tmp_path / "run", SCORES)["uncalibrated"]["windows"] == len(plain.end)
    lines = evaluate(tmp_path / "run", cohort, tmp_path / "out", protocol="", options=how, robustness=False)
    assert lines[0].startswith("baseline = rest")
    assert [sum(line.startswith(row) for line in lines) for row in ("calibrated", "uncalibrated")] == [1, 1]


def test_each_signal_is_moved_to_where_a_usual_person_is() -> None:
    """A voice by its level; a face by each measure, its pose stays; one that is not usable at rest not at all."""
    rng = np.random.default_rng(0)
    task = load_recipe("demo-trimodal", ["backbone.face=face_actions"]).resolve()
    voice, face = task.modality("voice"), task.modality("face")
    for m, own in ((voice, 0.7), (face, 0.3)):
        shape, _ = signal_format(m)
        clips = (own + 0.1 * rng.normal(size=(6, *shape))).astype(np.float32)
        rest = Signal([measured(clip, m) for clip in clips])
        moved = Baseline.of(rest, m).apply(clips, m)
        if m is voice:
            assert moved.mean() == pytest.approx(0, abs=1e-3)
            assert moved.std() == pytest.approx(clips.std(), rel=1e-3)
            continue
        known = len(MEASURES)
        usual = np.asarray(m.mean[:known])
        assert np.median(moved[..., :known], axis=(0, 1)) == pytest.approx(usual, abs=0.05)
        assert np.array_equal(moved[..., known:], clips[..., known:]) and moved.shape[-1] > known
    assert Signal([measured(clips[0], face)]).refused.startswith("usable in 100% of the rest: too few windows")


def test_windows_without_a_usable_clip_are_neither_rest_nor_scored(cohort: Cohort, tmp_path: Path) -> None:
    """Whoever calls: a bundle is scored on the windows that its run was, with the same slices."""
    windows = cut_windows(cohort, quick().resolve())
    stores = build_clips(windows, tmp_path, cohort.problems)
    own = np.flatnonzero(windows.subject == cohort.subjects[0])
    first = own[windows.labels["pain"][own, -1] == 0][:2]
    present = np.array(stores["eda"].present)
    present[windows.rows["eda"][first, -1]] = 0
    found = calibrate(windows, {"eda": replace(stores["eda"], present=present)}, SECONDS)
    gone = {windows.trials[windows.trial[i]].id for i in first}
    for table in (found.windows, found.support):
        assert not gone & {table.trials[i].id for i in table.trial}
    assert not found.lacking and (found.support.subject == cohort.subjects[0]).sum() == 3


AFFECT = [
    "--set", "variant=demo", "--set", "steps=4", "--set", 'shapes={"face": [3, 8, 32, 32]}', "--set", "weights={}",
    "--set", "face.epochs=1", "--set", "voice.epochs=1", "--set", "fusion.epochs=2", "--set", "augment.variants=1",
    "--set", "baseline=rest", "--set", "baseline_seconds=30", "--accelerator", "cpu", "--threads", "1",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_affect_from_videos_to_a_bundle_with_baselines(tmp_path: Path) -> None:
    """Both ways are scored frame by frame, in the run, its summary, and by its bundle on the same windows."""
    data = tools.write_affwild2(tmp_path / "data", 8, 600)
    for file in data.rglob("*.txt"):  # the first half is near neutral
        lines = file.read_text().splitlines()
        if lines[0].startswith("valence"):
            file.write_text("\n".join([lines[0], *["0.1,0.1"] * 330, *lines[331:]]) + "\n")
    run, how = tmp_path / "run", ["--data", str(data), "--cache", str(tmp_path / "c"), "--workers", "1", "--quiet"]
    said = CliRunner().invoke(cli, ["train", "--recipe", "affwild2-jmt", "--out", str(run), *how, *AFFECT])
    assert said.exit_code == 0, said.output + repr(said.exception)
    summary, scores = json.loads((run / "summary.json").read_text()), read(run, SCORES)
    plain = summary["uncalibrated"]["pooled"]
    assert summary["pooled"] == scores["pooled"] and plain == scores["uncalibrated"]["pooled"]
    assert summary["pooled"]["ccc_arousal"] != plain["ccc_arousal"]
    bundle = load_bundle(run / "affwild2-jmt.jmt")
    assert bundle.baseline == ("voice",) and bundle.baseline_seconds == 30
    how += ["--protocol", "official", "--no-robustness", "--out", str(tmp_path / "evaluation")]
    told = CliRunner().invoke(cli, ["evaluate", str(bundle.path), *how])
    assert told.exit_code == 0, told.output + repr(told.exception)
    rows = [line.split() for line in said.output.splitlines() if line.startswith(("calibrated", "uncalibrated"))]
    again = [line.split() for line in told.output.splitlines() if line.startswith(("calibrated", "uncalibrated"))]
    assert rows == again and len(rows) == 2


def test_a_data_set_without_a_rest_is_no_calibrated_training(cohort: Cohort, tmp_path: Path) -> None:
    painful = replace(cohort, trials=[t for t in cohort.trials if t.labels.values["pain"][0] == 1])
    with pytest.raises(DataError, match=r"nobody in .* has a usable rest"):
        prepare(painful, recipe(), options(tmp_path))  # type: ignore[arg-type]


def test_a_grid_does_not_compare_rests() -> None:
    for key in ("baseline=none,rest", "baseline_seconds=30,60"):
        with pytest.raises(ConfigError, match="losses of other windows"):
            parse_grid([key])


def test_a_recipe_whose_clips_a_baseline_cannot_change_is_refused() -> None:
    with pytest.raises(ConfigError, match="EDA, voice and measures"):
        quick(modalities=["face"], backbone={}, baseline="rest").resolve()
    with pytest.raises(ConfigError, match="does not go with"):
        recipe(calibrated=True).resolve()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"set augment.eda_contact = 0"):
        recipe(augment={"eda_contact": 0.5}).resolve()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="30 to 600 s"):
        quick(baseline="rest", baseline_seconds=10.0).resolve()
